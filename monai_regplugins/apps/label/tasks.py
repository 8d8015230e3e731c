"""The app's tasks for MONAI Label: inference, batches of it, and training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import monai.bundle
import torch
from fastapi import HTTPException
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list, device_map

from monai_regplugins.apps.label.answers import KINDS, TRANSFORM_TAG, Answers
from monai_regplugins.apps.label.dataset import write_dataset
from monai_regplugins.apps.label.networks import LabelBundle
from monai_regplugins.apps.label.requests import (
    RequestError,
    chosen,
    first_of,
    number,
)
from monai_regplugins.apps.label.store import Store

__all__ = ["LastSample", "RegistrationBatchTask", "RegistrationInferTask", "RegistrationTrainTask"]

logger = logging.getLogger(__name__)

LABEL_KINDS = ("propagate", "series")  # their answers are label maps; viewers take any answer for one
TAGS = {"image": "warped", "transform": TRANSFORM_TAG}  # under which answers that are no labels are kept
COUNTS = ("max_epochs", "batch_size", "pairs_per_epoch", "images_per_epoch", "val_interval")
TRAINING_NUMBERS = (*COUNTS, "learning_rate", "seed")


class RegistrationInferTask(InferTask):
    """One kind of answer of one bundle.

    Args:
        answers: the bundle's answers.
        kind: a name in :data:`~monai_regplugins.apps.label.answers.KINDS`.
    """

    def __init__(self, answers: Answers, kind: str) -> None:
        self.answers, self.kind = answers, kind
        super().__init__(
            type=InferType.SEGMENTATION if kind in LABEL_KINDS else InferType.OTHERS,
            labels={},
            dimension=answers.bundle.spatial_dims,
            description=f"{answers.bundle.name} {KINDS[kind]}",
        )

    @property
    def tag(self) -> str | None:
        """The tag under which answers are kept; None leaves it to the client, for labels."""
        return TAGS.get(self.kind)

    def is_valid(self) -> bool:
        """Whether clients may see it."""
        return True

    def info(self) -> dict[str, Any]:
        """What clients see of the datastore right now."""
        labels = self.answers.label_names() if self.kind in LABEL_KINDS else {}
        return {**super().info(), "labels": labels}

    def config(self) -> dict[str, Any]:
        """Options with their choices; clients draw a list as a drop-down."""
        return {**self.answers.options(self.kind), "device": device_list()}

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer a request, see :class:`~monai_regplugins.apps.label.answers.Answers`."""
        return self.answers(self.kind, {**request, "device": device_of(request)})


class LastSample(Strategy):
    """The next sample is the last image by name that has no final label; MONAI Label has the first one and any."""

    def __init__(self) -> None:
        super().__init__("Get Last Sample")

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, str] | None:
        """The id of the sample, None if all images have labels."""
        images = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        return {"id": max(images)} if images else None


class RegistrationBatchTask(BatchInferTask):
    """The same request for many images, such as one atlas for all that have no label."""

    def get_images(self, request: Mapping[str, Any], datastore: Any) -> list[str]:
        """Ids of the images, without the moving one."""
        moving = first_of(request.get("moving_image"))
        return [image_id for image_id in super().get_images(request, datastore) if image_id != moving]

    def __call__(
        self, request: dict[str, Any], datastore: Any, infer: Callable[[dict[str, Any], Any], dict[str, Any]]
    ) -> dict[str, Any]:
        """Answer for each image; where one is refused, the others go on, and its result says why."""
        refused: list[str] = []

        def answer(one: dict[str, Any], store: Any) -> dict[str, Any]:
            try:
                return infer(one, store)
            except HTTPException as error:
                logger.warning("%s: %s", one["image"], error.detail)
                refused.append(str(error.detail))
                return {"error": str(error.detail)}

        without_gpu = {} if torch.cuda.is_available() else {"multi_gpu": False}  # it divides by their number
        result: dict[str, Any] = super().__call__({**request, **without_gpu}, datastore, answer)
        if refused and len(refused) == len(result):
            raise RequestError(refused[0])
        return result


class RegistrationTrainTask(TrainTask):
    """Trains a bundle on pairs of the datastore's images, by the bundle's own ``train.json``.

    Args:
        bundle: the bundle; each training goes into a folder of its own in its ``trained_dir``.
        store: the images.
    """

    def __init__(self, bundle: LabelBundle, store: Store) -> None:
        self.bundle, self.store = bundle, store
        super().__init__(f"Trains {bundle.name} on pairs of the images in the datastore, no labels needed")

    def config(self) -> dict[str, Any]:
        """Options with their defaults, those of ``train.json``."""
        training = self.bundle.training
        numbers = {key: training[key] for key in TRAINING_NUMBERS if isinstance(training.get(key), int | float)}
        return {**numbers, "pretrained": True, "device": device_list()}

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Train; the model that comes of it is served from then on, if it is better than the one it started from.

        Raises:
            InputError: When a number is none, there are too few images, the bundle refuses them, or it is being trained
                already.
        """
        bundle = self.bundle
        dataset = write_dataset(bundle.trained_dir / "dataset", self.store.training_entries(), bundle.spatial_dims)
        numbers: dict[str, Any] = {
            key: number(request, key, default, 1 if key in COUNTS else 0)
            for key, default in self.config().items()
            if key in TRAINING_NUMBERS
        }
        if "val_interval" in numbers:  # only an epoch that validates makes a model
            numbers["val_interval"] = max(1, min(numbers["val_interval"], numbers["max_epochs"]))
        start = bundle.ckpt if request.get("pretrained", True) and bundle.ckpt.is_file() else ""
        device = torch.device(device_of(request))
        with bundle.runs.begun(request) as folder:
            monai.bundle.run(
                config_file=str(bundle.train_file),
                bundle_root=str(bundle.root),
                dataset_dir=str(dataset),
                output_dir=str(folder),
                ckpt=str(start),
                device=device,
                **numbers,
            )
        served = bundle.serve(folder)
        if not served:
            logger.warning("No epoch of '%s' was better than what is served, which stays; see its eval.", folder)
        return {"model": bundle.name, "served": served}


def device_of(request: Mapping[str, Any]) -> str:
    """The device that a request names; one of a computer with a GPU becomes the CPU where there is none.

    Raises:
        RequestError: When there is no such device.
    """
    known = device_map()
    default = next(iter(known.values()))
    wanted = first_of(request.get("device")) or default
    if str(wanted).startswith("cuda") and not torch.cuda.is_available():
        return "cpu"
    wanted = known.get(wanted, wanted)
    return chosen({"device": wanted}, "device", [default, *known.values(), "cpu", "cuda"])
