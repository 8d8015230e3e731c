"""The MONAI Label app: ids instead of paths, and readable errors for clients."""

from __future__ import annotations

import functools
import importlib
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomweb_client import session_utils
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.async_tasks.utils import background_tasks, processes

from monai_regplugins.apps.label.answers import Answers
from monai_regplugins.apps.label.labels import LabelNames, read_names
from monai_regplugins.apps.label.networks import Networks, find_bundles
from monai_regplugins.apps.label.requests import RequestError, check_name, check_suffix, number
from monai_regplugins.apps.label.series_store import SeriesDatastore
from monai_regplugins.apps.label.store import Store
from monai_regplugins.apps.label.tasks import (
    LastSample,
    RegistrationBatchTask,
    RegistrationInferTask,
    RegistrationTrainTask,
)
from monai_regplugins.apps.label.temporary import end_with_parent, own_folder
from monai_regplugins.apps.label.uploads import as_http, is_upload
from monai_regplugins.apps.label.worker import Worker
from monai_regplugins.environment import installed_version
from monai_regplugins.readers.voxel_files import check_no_other_file

__all__ = ["NamedDatastore", "RegistrationLabelApp"]

MAX_VOXELS = 300_000_000
SESSION = re.compile(r"[0-9a-f-]{36}")


class NamedDatastore(LocalDatastore):
    """MONAI Label's folder of images, in which no id or tag leads out of the folder.

    Several threads may use it: what reads and what changes the list of images takes turns, as MONAI Label empties that
    list for a moment when a file has come.
    """

    turn = threading.RLock()

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an image, which must be contained in a single file and not take the place of one that has labels."""
        with as_http(image_filename), self.turn:
            if image_id:
                check_name(image_id, "the image id")
            if tags := sorted(self.get_labels_by_image_id(image_id)):
                raise RequestError(
                    f"image '{image_id}' is there and has labels ({', '.join(tags)}), which would not be of the new "
                    "one; give it another id, or remove the image first.",
                    409,
                )
            _check_single(image_filename, "the image")
            return str(super().add_image(image_id, image_filename, image_info))

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels."""
        with as_http(), self.turn:
            self._check_image(image_id)
            super().remove_image(image_id)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save a label of an image, which must be contained in a single file."""
        with as_http(label_filename), self.turn:
            check_name(str(getattr(label_tag, "value", label_tag)), "the tag")
            self._check_image(image_id)
            _check_single(label_filename, "the label")
            return str(super().save_label(image_id, label_filename, label_tag, label_info))

    def _check_image(self, image_id: str) -> None:
        Store(lambda: self).image(image_id, "the image")


def _in_turn(name: str) -> Any:
    """A method of MONAI Label's datastore that waits for others to end."""
    method = getattr(LocalDatastore, name)

    @functools.wraps(method)
    def waiting(self: NamedDatastore, *arguments: Any, **named: Any) -> Any:
        with self.turn:
            return method(self, *arguments, **named)

    return waiting


IN_TURN = (  # what reads the list of images, and what changes it
    "datalist", "get_image_info", "get_image_uri", "get_label_info", "get_label_uri", "get_labeled_images",
    "get_labels_by_image_id", "get_unlabeled_images", "json", "list_images", "status",
    "_init_from_datastore_file", "refresh", "remove_label", "update_image_info", "update_label_info",
)  # fmt: skip
for _name in IN_TURN:
    setattr(NamedDatastore, _name, _in_turn(_name))


class RegistrationLabelApp(MONAILabelApp):
    """Registration with bundles of this package.

    Args:
        app_dir: folder of the app, see :mod:`monai_regplugins.apps.label.__main__`; trained models are kept in it.
        studies: folder of the images, or the address of a DICOMweb server.
        conf: ``models``, names or folders of bundles, comma-separated; ``bundle_dir``, where they are;
            ``label_names``, name to value of labels that have no names, JSON or a file of it; ``max_voxels``, size of
            the largest image; ``skip_trainers``.

    Raises:
        InputError: When a bundle is missing or a setting cannot be read.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        own_folder()  # before anything is uploaded
        conf = dict(conf or {})
        self._bundles = find_bundles(conf.get("models", ""), conf.get("bundle_dir"), Path(app_dir, "model"))
        self._label_names = LabelNames(read_names(conf["label_names"]) if conf.get("label_names") else None)
        self._max_voxels = int(number(conf, "max_voxels", MAX_VOXELS, 1))
        self._store, self._networks = Store(self.datastore), Networks()
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="monai_regplugins",
            description="Learned deformable registration: labels of a prior scan or atlas for the current image",
            version=installed_version("monai-regplugins"),
        )

    def init_datastore(self) -> Any:
        """Open the images."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return NamedDatastore(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def _init_dicomweb_datastore(self) -> SeriesDatastore:
        """Open the images of a DICOMweb server."""
        client = DICOMwebClientX(
            url=self.studies,
            session=_session(self.studies),
            qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
            wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
            stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
        )
        return SeriesDatastore(
            client=client,
            search_filter=settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER,
            cache_path=settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or None,
            fetch_by_frame=settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
        )

    def init_infers(self) -> dict[str, RegistrationInferTask]:
        """Make the tasks ``<bundle>_<kind>``."""
        tasks: dict[str, RegistrationInferTask] = {}
        for name, bundle in self._bundles.items():
            answers = Answers(bundle, self._store, self._networks, self._label_names, self._max_voxels)
            tasks |= {f"{name}_{kind}": RegistrationInferTask(answers, kind) for kind in answers.kinds()}
        return tasks

    def init_trainers(self) -> dict[str, TrainTask]:
        """Make a trainer for each bundle that can be trained, of the bundle's name."""
        if str(self.conf.get("skip_trainers", "")).lower() == "true":
            return {}
        return {
            name: RegistrationTrainTask(bundle, self._store)
            for name, bundle in self._bundles.items()
            if bundle.training
        }

    def init_strategies(self) -> dict[str, Strategy]:
        """Make the ways to choose the next sample; the first one is what viewers offer."""
        return {"first": First(), "last": LastSample(), "random": Random()}

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the next sample."""
        with as_http():
            if (wanted := request.get("strategy") or "first") not in self._strategies:
                known = ", ".join(self._strategies)
                raise RequestError(f"there is no strategy '{wanted}'; there are {known}.", 404)
            result: dict[str, Any] = super().next_sample({**request, "strategy": wanted})
            return result

    def on_init_complete(self) -> None:
        """Get the server ready; called by MONAI Label in its own process, not in those of tasks."""
        super().on_init_complete()
        server = importlib.import_module("monai_regplugins.apps.label.server")  # MONAI Label's, which imports this app
        server.compute_in(worker := Worker())
        server.end_in_order(worker)
        earlier = filter(None, (bundle.runs.last() for bundle in self._bundles.values()))
        background_tasks["train"] = sorted(earlier, key=lambda state: str(state["start_ts"]))

    def init_batch_infer(self) -> RegistrationBatchTask:
        """Make the task of batches."""
        return RegistrationBatchTask()

    def bundle_path(self, model: str | None) -> None:
        """Refuse a batch or a training that cannot be before its process starts; called by MONAI Label."""
        known = [*self._infers, *self._trainers]
        with as_http():
            if model is not None and model not in known:
                raise RequestError(f"there is no model '{model}'; there are {', '.join(known)}.", 404)
            if model in self._trainers and not processes("train"):  # those of this server take turns
                self._bundles[str(model)].runs.check_free()

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer one request.

        Raises:
            HTTPException: 4xx with a sentence, when something about the request is wrong; nothing has been written.
        """
        with as_http(request.get("image"), request.get("label")):
            task = self._infers.get(request.get("model"))
            if task is None:
                known = ", ".join(self._infers)
                raise RequestError(f"there is no model '{request.get('model')}'; there are {known}.", 404)
            checked = {**request, "image_id": self._image_id(request)}
            if request.get("label") and not is_upload(request["label"]):
                raise RequestError("label is a path, expected an uploaded file.")
            for path, what in ((request.get("image"), "the image"), (request.get("label"), "the second upload")):
                if path is not None and is_upload(path):
                    _check_single(path, what)
            if task.tag:
                checked["label_tag"] = task.tag
            elif checked.get("label_tag"):
                check_name(str(getattr(checked["label_tag"], "value", checked["label_tag"])), "label_tag")
            result: dict[str, Any] = super().infer(checked, datastore)
            return result

    def batch_infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer the same request for many images."""
        self._end_with_server()
        with as_http():
            result: dict[str, Any] = super().batch_infer(dict(request), datastore)
            return result

    def train(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Train a bundle."""
        self._end_with_server()
        with as_http():
            result: dict[str, Any] = super().train(dict(request))
            return result

    def _end_with_server(self) -> None:
        """Let the process of a task end with the server that started it."""
        if not self._server_mode:
            end_with_parent()

    def _image_id(self, request: Mapping[str, Any]) -> str:
        """The id of the image, empty for one that this very server has been sent.

        Raises:
            RequestError: When it is neither.
        """
        image = request.get("image")
        if is_upload(image) or self._is_session(request):
            return ""
        if not image:
            raise RequestError("there is no image; give the id of one, upload one, or give a session that is alive.")
        self._store.image(image, "image")
        if os.path.exists(image):
            raise RequestError(f"'{image}' is an image and also a file where the server runs; start it elsewhere.")
        return str(image)

    def _is_session(self, request: Mapping[str, Any]) -> bool:
        """Whether the image is that of a session, and not just said to be."""
        session, sessions = request.get("session"), self.sessions()
        name = session.get("name") if isinstance(session, Mapping) else None
        if sessions is None or not isinstance(name, str) or not SESSION.fullmatch(name):
            return False
        found = sessions.get_session(name)
        return bool(found and found.image == request.get("image"))


def _session(address: str) -> Any:
    """A session of whom the settings name, as MONAI Label opens it."""
    name, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    if "googleapis.com" in address:
        return session_utils.create_session_from_gcp_credentials()
    return session_utils.create_session_from_user_pass(name, password) if name and password else None


def _check_single(path: str, what: str) -> None:
    """Check that an upload states its format, and that it is whole in one file."""
    check_suffix(path, what)
    check_no_other_file(Path(path), what)
