"""Prepare a batch for MONAI's engines: network input and loss targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines import PrepareBatch
from torch import Tensor

from monai_regplugins.checks import check_same_size

__all__ = ["TARGET_KEYS", "PairPrepareBatch"]

TARGET_KEYS = (
    "moving_label",
    "fixed_label",
    "moving_mask",
    "fixed_mask",
    "moving_keypoints",
    "fixed_keypoints",
    "moving_landmarks",
    "fixed_landmarks",
    "moving_points",
    "fixed_points",
    "true_ddf",
    "has_true_ddf",
    "spacing",
    "start",
    "start_steps",
)


class PairPrepareBatch(PrepareBatch):
    """Stack moving and fixed image as the network's input and gather the targets of the loss.

    All tensors come out plain: a MetaTensor made of two images would carry the header of one of them into the result,
    and does not pass through a compiled network. Where it costs nothing, the images of the batch become views of that
    input, so that large ones are not held twice.

    Args:
        keys: keys of the batch that become targets wherever they hold a tensor, beside ``moving`` and ``fixed``.
        inferer_keys: targets that the inferer gets too, as keyword arguments.
    """

    def __init__(self, keys: Sequence[str] = TARGET_KEYS, inferer_keys: Sequence[str] = ()) -> None:
        self.keys, self.inferer_keys = tuple(keys), tuple(inferer_keys)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], tuple[()], dict[str, Any]]:
        """Prepare one batch.

        Args:
            batchdata: ``moving`` and ``fixed``, each ``(B, 1, *spatial)`` on the fixed grid, and what else the data
                has.
            device: where network and loss run.
            non_blocking: whether to copy beside the host's work.
            kwargs: further arguments of ``Tensor.to``.

        Returns:
            The image ``(B, 2, *spatial)``, float32, channel 0 moving and channel 1 fixed; the targets, among them
            ``moving`` and ``fixed`` ``(B, 1, *spatial)`` as views of the image; no further arguments; those of the
            ``inferer_keys`` that there are.

        Raises:
            InputError: When the moving and the fixed images differ in size.
        """

        def plain(value: Tensor) -> Tensor:
            return torch.as_tensor(value).as_subclass(Tensor).to(device=device, non_blocking=non_blocking, **kwargs)

        check_same_size(batchdata["moving"], batchdata["fixed"], "moving image", "fixed image")
        image = torch.cat([plain(batchdata[key]).float() for key in ("moving", "fixed")], dim=1)
        targets = dict(zip(("moving", "fixed"), image.chunk(2, dim=1), strict=True))
        for key, view in targets.items():
            _share(batchdata, key, view)
        targets |= {key: plain(batchdata[key]) for key in self.keys if isinstance(batchdata.get(key), Tensor)}
        return image, targets, (), {key: targets[key] for key in self.inferer_keys if key in targets}


def _share(batch: Mapping[str, Any], key: str, view: Tensor) -> None:
    """Let an image of a batch be a view of the same values elsewhere, if it has their type and device."""
    image = batch[key]
    same = isinstance(image, MetaTensor) and (image.dtype, image.device) == (view.dtype, view.device)
    if same and isinstance(batch, dict):
        batch[key] = MetaTensor(view).copy_meta_from(image, copy_attr=True)
