"""Data sets without a ``*_dataset.json``: ``images`` and ``labels``, nnU-Net, the Medical Segmentation Decathlon.

Sources: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md (``imagesTr/<case>_<channel>``,
``labelsTr/<case>``, ``dataset.json`` with ``labels`` by name) and http://medicaldecathlon.com (``dataset.json`` that
lists ``training`` and has ``labels`` by value).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_regplugins.checks import InputError
from monai_regplugins.files.folders import absolute_path, files_in, is_foreign
from monai_regplugins.readers.images import scan_shape
from monai_regplugins.readers.pictures import PICTURE_SUFFIXES

__all__ = ["OF_LABELS", "content_of_folders", "content_of_layout", "labels_beside", "remedy"]

FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".tif", ".tiff", *PICTURE_SUFFIXES)
OF_LABELS = re.compile("seg|label|mask|annot", re.IGNORECASE)  # in the name of a folder of label maps
BESIDE = re.compile(r"[ ._-]+(seg|segmentation|label|labels|labelmap|mask|annotation)$", re.IGNORECASE)
CHANNEL = re.compile(r"_(\d{4})$")  # at the end of the name of an image of nnU-Net, which its label lacks


def content_of_layout(folder: Path) -> dict[str, Any] | None:
    """Return what a data set's json file would say of a folder with a known layout; None of any other folder.

    Args:
        folder: holds ``images`` and perhaps ``labels``, or ``imagesTr`` and ``labelsTr`` with the ``dataset.json`` of
            nnU-Net or of the Medical Segmentation Decathlon.

    Raises:
        InputError: When its images cannot be read.
    """
    about = _about(folder / "dataset.json")
    for images, labels in FOLDERS:
        if (folder / images).is_dir():
            beside = folder / labels if (folder / labels).is_dir() else None
            content = content_of_folders(folder / images, beside, str(about.get("name", folder.name)))
            return _with_names(_first_channel(content, about), about)
    return None


def content_of_folders(images: Path, labels: Path | None, name: str) -> dict[str, Any]:
    """Return what a data set's json file would say of images and label maps of the same names.

    A file in the folder of the images that is called like one of them with ``_seg``, ``_label`` or the like behind it
    is the label map of that, and no image.

    Args:
        images: folder of images.
        labels: folder of label maps, if there is one.
        name: name of the data set.

    Returns:
        The content of a ``*_dataset.json`` of Learn2Reg, with absolute paths.

    Raises:
        InputError: When there are no images, the first of them cannot be read, the folder of label maps is missing, or
            none of these has the name of an image.
    """
    files = images_in(absolute_path(images))
    if not files:
        raise InputError(f"'{images}' holds no images; {remedy(images)}")
    stems = {_stem(file) for file in files}
    beside = [file for file in files if _labeled_by(file) != _stem(file) and _labeled_by(file) in stems]
    files = [file for file in files if file not in beside]
    is_other = labels is not None and absolute_path(labels) != absolute_path(images)
    by_stem = _label_files(labels) if labels and is_other else {_labeled_by(file): file for file in reversed(beside)}
    found = {file: by_stem.get(_stem(file) or "") or by_stem.get(CHANNEL.sub("", _stem(file) or "")) for file in files}
    if by_stem and not any(found.values()):
        raise InputError(
            f"no label map in '{labels}' has the name of an image in '{images}' (first '{min(by_stem)}' and "
            f"'{_stem(files[0])}'); name them alike."
        )
    entries = [{"image": str(file)} | ({"label": str(label)} if label else {}) for file, label in found.items()]
    return {
        "name": name,
        "tensorImageSize": {"0": f"{spatial_dims_of(files[0])}D"},
        "labels": {},
        "training": entries,
    }


def _label_files(labels: Path) -> dict[str, Path]:
    """The label maps of a folder by the names of their images, without suffix."""
    if not labels.is_dir():
        raise InputError(f"labels '{labels}' is no folder; give the folder that holds the label maps.")
    files = images_in(absolute_path(labels))
    return {_labeled_by(file): file for file in files} | {_stem(file) or "": file for file in files}


def _labeled_by(file: Path) -> str:
    """Return the name, without suffix, of the image that a label map is of by its own name."""
    stem = _stem(file) or ""
    return BESIDE.sub("", stem) or stem


def labels_beside(images: Path) -> Path | None:
    """Return the folder of label maps beside one of images that is called as in a known layout; None if there is none.

    Example:
        >>> labels_beside(Path("nowhere/images")) is None
        True
    """
    folder = absolute_path(images)
    labels = next((folder.with_name(labels) for name, labels in FOLDERS if folder.name == name), folder)
    return labels if labels != folder and labels.is_dir() else None


def images_in(folder: Path) -> list[Path]:
    """Return the images of a folder by the suffixes of its files."""
    return [file for file in files_in(folder) if _stem(file) is not None]


def remedy(folder: Path) -> str:
    """Return how to make a data set of a folder that is none, with the command.

    Where the images lie one folder below, the command names that folder, and one beside it that is called like label
    maps.

    Example:
        >>> remedy(Path("nowhere"))
        'give a folder of files such as NIfTI, NRRD, MetaImage or PNG to: regplugins describe FOLDER'
    """
    if images_in(folder):
        return f"write one with: {shlex.join(['regplugins', 'describe', str(folder)])}"
    below = [path for path in sorted(folder.glob("*")) if not is_foreign(Path(path.name)) and images_in(path)]
    if not below:
        return "give a folder of files such as NIfTI, NRRD, MetaImage or PNG to: regplugins describe FOLDER"
    labels = [path for path in below if OF_LABELS.search(path.name)]
    images = next((path for path in below if path not in labels), below[0])
    words = ["regplugins", "describe", str(images)]
    words += ["--labels", str(labels[0])] if labels and labels[0] != images else []
    listed = ", ".join(f"'{path.name}'" for path in below)
    return f"images lie in its folders {listed}: {shlex.join(words)}"


def spatial_dims_of(image: Path) -> int:
    """Return whether an image has 2 or 3 dimensions, by its header alone; an axis of one voxel does not count."""
    shape = scan_shape(image, "image")
    flat = image.name.lower().endswith(PICTURE_SUFFIXES) or len(shape) == 2 or 1 in shape[:3]
    return 2 if flat else 3


def _stem(file: Path) -> str | None:
    """Return the name of an image without its suffix; None of a file that is no image."""
    suffix = next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)
    return None if suffix is None else file.name[: -len(suffix)]


def _about(file: Path) -> dict[str, Any]:
    """Read a ``dataset.json``; empty if there is none.

    Raises:
        InputError: When it is damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise InputError(f"'{file}' is not valid JSON ({error}); correct it, or remove it to do without.") from error
    return content if isinstance(content, dict) else {}


def _first_channel(content: dict[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the first channel of each case where nnU-Net's file names several."""
    channels = about.get("channel_names", about.get("modality", {}))
    if "training" in about or len(channels) < 2:  # the Decathlon keeps the channels of a case in one file
        return content
    first = [entry for entry in content["training"] if (_stem(Path(entry["image"])) or "").endswith("_0000")]
    return {**content, "training": first}


def _with_names(content: dict[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Add the names of the labels, which nnU-Net lists by name and the Decathlon by value."""
    labels = about.get("labels", {})
    if not isinstance(labels, Mapping):
        return content
    pairs = ((key, name) if str(key).isdigit() else (name, key) for key, name in labels.items())
    names = {str(value): str(name) for value, name in pairs if str(value).isdigit()}
    return {**content, "labels": {"0": names} if names else {}}
