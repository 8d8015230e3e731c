"""Answers of the app: propagated labels, warped images and fields of a bundle, with provenance."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from monai_regplugins.apps.label.dicom_answers import (
    check_label,
    check_series,
    write_label,
    write_registration,
)
from monai_regplugins.apps.label.labels import (
    LabelNames,
    StoredLabel,
    label_table,
    relabel,
)
from monai_regplugins.apps.label.networks import LabelBundle, Networks
from monai_regplugins.apps.label.requests import (
    RequestError,
    check_known,
    check_voxels,
    chosen,
    first_of,
    flag,
    number,
    without_paths,
)
from monai_regplugins.apps.label.series import propagate_frames, read_frames_label
from monai_regplugins.apps.label.store import AUTO, TAGS, Store
from monai_regplugins.checks import InputError
from monai_regplugins.io.formats import FORMATS
from monai_regplugins.outputs.registration_writer import RegistrationWriter, write_image
from monai_regplugins.readers.cine import read_cine, write_series
from monai_regplugins.renamed import current_names
from monai_regplugins.result import RegistrationResult
from monai_regplugins.transforms.initial_alignment import FORMER_NAMES, INITIAL_ALIGNMENTS

__all__ = ["KINDS", "Answers"]

logger = logging.getLogger(__name__)

KINDS = {
    "propagate": "carries the label of a prior scan or atlas, moving_image, over to this image",
    "image": "brings moving_image onto this image",
    "transform": "the displacement field from this image to moving_image",
    "series": "carries the label of one frame of this series over to all frames",
}
SUFFIXES = (".nii.gz", ".nii", ".nrrd")
TRANSFORM_TAG = "transform"
DEFAULT_ALIGNMENT = "auto"  # as in the apps for MONAI Deploy: prior scans and atlases seldom lie as the image does
PAIR = "answer"
RESULT = "result.nii.gz"
DEFAULT_FORMAT = "itk_nifti"  # that of the command line, where the field is 3D
DICOM, DICOM_SUFFIX = "dicom", ".dcm"
NAMED_FORMATS = ("learn2reg",)  # which need the names of files


class Pair(NamedTuple):
    """Images of a request: paths, ids, and the label of the moving image, if any."""

    fixed: str
    moving: str
    fixed_id: str
    moving_id: str
    label: StoredLabel | None = None
    tag: str = ""


class Answers:
    """Answers requests with a bundle.

    Args:
        bundle: the bundle.
        store: the images and labels.
        networks: networks in memory, shared by all bundles.
        names: names of labels, shared too.
        max_voxels: size of the largest image that is taken.
    """

    def __init__(
        self, bundle: LabelBundle, store: Store, networks: Networks, names: LabelNames, max_voxels: int
    ) -> None:
        self.bundle, self.store, self.networks = bundle, store, networks
        self.names, self.max_voxels = names, max_voxels

    def kinds(self) -> list[str]:
        """Names of ``KINDS`` that the bundle can answer; series are 2D+t."""
        return [kind for kind in KINDS if kind != "series" or self.bundle.spatial_dims == 2]

    def label_names(self) -> dict[str, int]:
        """Name to value, as in every label map that is answered."""
        return label_table(self.store.labels(), self.names)

    def options(self, kind: str) -> dict[str, Any]:
        """What a client may choose, with the ids that there are right now; of a list the first is the default."""
        labelled = self.store.labelled()
        choices: dict[str, dict[str, Any]] = {
            "propagate": {"moving_image": labelled or [""], "moving_label_tag": [AUTO, *TAGS], "save_transform": False},
            "image": {"moving_image": self.store.images() or [""]},
            "transform": {"moving_image": self.store.images() or [""], "format": self._formats()},
            "series": {"frame": -1, "moving_label_tag": [AUTO, *TAGS]},
        }
        return choices[kind] | self._settings()

    def __call__(self, kind: str, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer a request.

        Args:
            kind: a name in ``KINDS``.
            request: ``image``, the path of the fixed image, and ``image_id``, its id or empty where it was uploaded;
                ``label``, the path of a second upload; ``device``; and of :meth:`options` what was chosen. A second
                upload is the label of the moving image for ``propagate``, and else the moving image itself.

        Returns:
            Path of a new file, and what is to be known of it, ready for JSON, without any path.

        Raises:
            InputError: When something about the request is wrong; a path of the server is never shown.
        """
        start, begun, request = time.perf_counter(), time.thread_time(), current_names(request)
        if image_id := request.get("image_id"):
            request = {**request, "image": self.store.image(image_id, "the image")}
        answer = {
            "propagate": self._propagate,
            "image": self._image,
            "transform": self._transform,
            "series": self._series,
        }[kind]
        self._check(kind, request)
        hidden = {str(request.get("image") or ""): str(request.get("image_id") or "upload")}
        hidden |= {str(request.get("label") or ""): "second upload", str(self.bundle.root): self.bundle.name}
        hidden |= {str(self.bundle.trained_dir): f"trained {self.bundle.name}"}
        with tempfile.TemporaryDirectory() as folder:
            try:
                file, reported = answer(request, Path(folder), hidden)
            except InputError as error:
                raise RequestError(without_paths(str(error), hidden), getattr(error, "status", 400)) from error
        reported["registration"]["seconds_total"] = round(time.perf_counter() - start, 3)
        reported["registration"]["seconds_of_processor"] = round(time.thread_time() - begun, 3)  # without other threads
        return file, reported

    def _check(self, kind: str, request: Mapping[str, Any]) -> None:
        """Check the options of a request, so that nothing is computed or written for one that is wrong."""
        check_known(request, self.options(kind))
        chosen(request, "result_extension", self._suffixes() if kind == "propagate" else SUFFIXES)
        self._overrides(request)
        if request.get("save_transform") and not request.get("image_id"):
            raise RequestError("save_transform needs an image of the datastore, and this one was uploaded.")

    def _propagate(
        self, request: Mapping[str, Any], folder: Path, hidden: dict[str, str]
    ) -> tuple[str, dict[str, Any]]:
        pair = self._pair(request, hidden, with_label=True)
        label, suffix = pair.label or StoredLabel("", {}), chosen(request, "result_extension", self._suffixes())
        names = self.names(label)
        if not names:
            raise RequestError(f"the label of '{pair.moving_id}' is empty, nothing to propagate; choose another image.")
        if suffix == DICOM_SUFFIX:
            check_label(pair.fixed, label.origin)
        registered = self._register(request, pair)
        reported = self._about(pair, registered)
        reported["registration"]["moving_label_values"] = {name: value for value, name in names.items()}
        if suffix == DICOM_SUFFIX:
            written, table = write_label(registered, names, label.origin, folder)
            file = _moved(written)
        else:
            table = self._table_with(names)
            _write_label_map(registered, names, table, folder / RESULT)
            file = _as_wanted(folder, request)
        if request.get("save_transform"):
            field = _field(registered, self._formats()[0], folder)
            self.store.save(pair.fixed_id, str(field), TRANSFORM_TAG, {"params": reported})
        return file, {"label_names": table, **reported}

    def _image(self, request: Mapping[str, Any], folder: Path, hidden: dict[str, str]) -> tuple[str, dict[str, Any]]:
        pair = self._pair(request, hidden)
        registered = self._register(request, pair)
        write_image(registered.warped, folder / RESULT)
        return _as_wanted(folder, request), self._about(pair, registered)

    def _transform(
        self, request: Mapping[str, Any], folder: Path, hidden: dict[str, str]
    ) -> tuple[str, dict[str, Any]]:
        pair = self._pair(request, hidden)
        format = chosen(request, "format", self._formats())
        if format == DICOM:
            check_series({"the image": pair.fixed, "the moving image": pair.moving})
        registered = self._register(request, pair, formats=[format])
        reported = self._about(pair, registered)
        reported["registration"]["format"] = format
        if format == DICOM:
            return _moved(write_registration(registered, folder)), reported
        return _moved(_field(registered, format, folder)), reported

    def _series(self, request: Mapping[str, Any], folder: Path, hidden: dict[str, str]) -> tuple[str, dict[str, Any]]:
        image_id = str(request.get("image_id") or "")
        uploaded = request.get("label")
        if not (image_id or uploaded):
            raise RequestError("the series was uploaded without a label; upload the label of one frame beside it.")
        label, tag = self._label(request, image_id, hidden)
        for path, what in ((str(request["image"]), "the series"), (label.path, "the label")):
            check_voxels(path, what, self.max_voxels)
        series = read_cine(str(request["image"]))
        drawn, frame = read_frames_label(label.path, series, int(number(request, "frame", -1, -1)))
        names = self.names(label)
        network = self.networks(self.bundle, **self._overrides(request))
        carried, registered = propagate_frames(network, series, drawn, frame)
        table = self._table_with(names)
        values = relabel(carried, names, table)
        write_series(series.with_frames(values.astype(np.float32)), folder / RESULT, values.dtype)
        reported = self._about(Pair("", "", image_id, image_id, label, tag), registered)
        reported["registration"]["frame"] = frame
        return _as_wanted(folder, request), {"label_names": table, **reported}

    def _pair(self, request: Mapping[str, Any], hidden: dict[str, str], with_label: bool = False) -> Pair:
        """Find the two images, and with a label that of the moving one, and check their sizes."""
        fixed, fixed_id = str(request["image"]), str(request.get("image_id") or "")
        moving_id, uploaded = first_of(request.get("moving_image")), request.get("label")
        if uploaded and not with_label:
            if moving_id:
                raise RequestError("moving_image is given and a moving image uploaded; give one of them.")
            pair = Pair(fixed, str(uploaded), fixed_id, "")
        elif not moving_id:
            raise RequestError(
                "moving_image is missing, expected the id of the image to be moved; choose one of the list."
            )
        else:
            if moving_id == fixed_id:
                raise RequestError(f"moving_image '{moving_id}' is the image itself; choose another one.")
            moving = self.store.image(moving_id, "moving_image")
            hidden[moving] = str(moving_id)
            pair = Pair(fixed, moving, fixed_id, str(moving_id))
        check_voxels(pair.fixed, "the image", self.max_voxels)
        check_voxels(pair.moving, "the moving image", self.max_voxels)
        if with_label:
            label, tag = self._label(request, pair.moving_id, hidden)
            check_voxels(label.path, "the label", self.max_voxels)
            pair = pair._replace(label=label, tag=tag)
        return pair

    def _label(self, request: Mapping[str, Any], image_id: str, hidden: dict[str, str]) -> tuple[StoredLabel, str]:
        """The label that comes along: the one that was uploaded, else the stored one."""
        if uploaded := request.get("label"):
            return StoredLabel(str(uploaded), {}), "upload"
        label, tag = self.store.label(image_id, chosen(request, "moving_label_tag", (AUTO, *TAGS)))
        hidden[label.path] = f"{tag} label of {image_id}"
        return label, tag

    def _register(self, request: Mapping[str, Any], pair: Pair, **overrides: Any) -> RegistrationResult:
        """Register; nothing is written."""
        network = self.networks(self.bundle, **self._overrides(request), **overrides)
        label = pair.label.path if pair.label else None
        return network(pair.fixed, pair.moving, moving_label=label, pair_id=PAIR)

    def _table_with(self, names: Mapping[int, str]) -> dict[str, int]:
        """The table of all labels; those of an uploaded label may be new."""
        table = self.label_names()
        for name in names.values():
            table.setdefault(name, len(table) + 1)
        return table

    def _settings(self) -> dict[str, Any]:
        """The settings of the bundle that a client may change, with the default first."""
        config, settings = self.bundle.inference, dict[str, Any]()
        if "initial_alignment" in config:
            settings["initial_alignment"] = sorted(INITIAL_ALIGNMENTS, key=lambda choice: choice != DEFAULT_ALIGNMENT)
        if isinstance(config.get("refine_steps"), int):
            settings["refine_steps"] = config["refine_steps"]
        if "other_patient" in config:
            settings["other_patient"] = False
        return settings

    def _overrides(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The overrides of a request; only these, since an override may be code."""
        settings = self._settings()
        overrides: dict[str, Any] = {"device": request["device"]} if request.get("device") else {}
        if "initial_alignment" in settings:
            overrides["initial_alignment"] = chosen(
                request, "initial_alignment", [*settings["initial_alignment"], *FORMER_NAMES]
            )
        if "refine_steps" in settings:
            overrides["refine_steps"] = number(request, "refine_steps", settings["refine_steps"])
        if "other_patient" in settings:
            overrides["other_patient"] = flag(request, "other_patient")
        return overrides

    def _formats(self) -> list[str]:
        """Formats of a field that need no names of files, see :data:`~monai_regplugins.io.FORMATS`."""
        dims = self.bundle.spatial_dims
        formats = [
            name for name, format in FORMATS.items() if dims in format.spatial_dims and name not in NAMED_FORMATS
        ]
        return sorted(formats, key=lambda name: name != DEFAULT_FORMAT)

    def _suffixes(self) -> tuple[str, ...]:
        """What a label may be answered as: an image of a format, or in 3D a DICOM segmentation."""
        return (*SUFFIXES, DICOM_SUFFIX) if self.bundle.spatial_dims == 3 else SUFFIXES

    def _about(self, pair: Pair, registered: RegistrationResult) -> dict[str, Any]:
        """The verdict on an answer, and where it comes from: ids instead of files."""
        record, verdict = registered.record, registered.verdict
        if verdict.level != "PASS":
            logger.warning("%s of '%s': %s", self.bundle.name, pair.fixed_id or "upload", verdict)
        metrics = {name: value if math.isfinite(value) else None for name, value in registered.metrics.items()}
        about = {
            "bundle": self.bundle.name,
            "fixed_image": pair.fixed_id or "upload",
            "moving_image": pair.moving_id or "upload",
            **({"moving_label_tag": pair.tag} if pair.tag else {}),
            "weights_sha256": record["weights"]["sha256"],
            "trained_here": self.bundle.ckpt.is_relative_to(self.bundle.trained_dir),
            **{key: record[key] for key in ("fingerprint", "parameters", "versions", "created")},
            "initial_alignment_taken": registered.initial_alignment,
            "seconds": round(registered.seconds, 3),
            **verdict.as_json(),
            "metrics": metrics,
        }
        return {**verdict.as_json(), "registration": about}


def _write_label_map(
    registered: RegistrationResult, names: Mapping[int, str], table: Mapping[str, int], path: Path
) -> None:
    """Write the label that was carried over as NIfTI, in the values of a table."""
    warped = registered.warped_label
    assert warped is not None  # since there is a moving label
    nib.save(nib.Nifti1Image(relabel(warped[0].numpy(), names, table), warped.affine.numpy()), path)


def _field(registered: RegistrationResult, format: str, folder: Path) -> Path:
    """Write the field in a format; return its file."""
    RegistrationWriter(folder, [format]).write_fields(folder, registered)
    return folder / FORMATS[format].file_name


def _as_wanted(folder: Path, request: Mapping[str, Any]) -> str:
    """Turn the NIfTI result into the format that the client wants; NRRD uncompressed, as browsers read it."""
    suffix, result = chosen(request, "result_extension", SUFFIXES), folder / RESULT
    target = folder / f"result{suffix}"
    if target != result:
        sitk.WriteImage(sitk.ReadImage(str(result)), str(target), useCompression=False)
    return _moved(target)


def _moved(file: Path) -> str:
    """Give a file a unique name, by which clients save it too, in the folder of temporary files."""
    suffix = "".join(file.suffixes)
    with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as unique:
        return str(file.replace(unique.name))
