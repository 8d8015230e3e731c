"""Validation of client requests."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_regplugins.checks import InputError, suggest
from monai_regplugins.readers.dicom_files import dicom_reader, dicom_series, is_dicom
from monai_regplugins.readers.images import scan_shape

__all__ = [
    "RequestError",
    "check_known",
    "check_name",
    "check_suffix",
    "check_voxels",
    "chosen",
    "first_of",
    "flag",
    "number",
    "without_paths",
]

NAME = re.compile(r"[^/\\\x00-\x1f]*[^/\\\x00-\x1f.][^/\\\x00-\x1f]*")


# what MONAI Label, its client and the viewers send beside the options of a model
OF_CLIENTS = (
    "background", "client_id", "description", "device", "foreground", "gpus", "image", "image_id", "images",
    "label", "label_info", "label_tag", "labels", "largest_cc", "logging", "max_batch_size", "max_workers", "model",
    "multi_gpu", "output", "restore_label_idx", "result_compress", "result_dtype", "result_extension",
    "result_write_to_file", "save_label", "session", "studyInstanceUID", "timeout", "user",
)  # fmt: skip


class RequestError(InputError):
    """A mistake in a request, with the HTTP status of that kind of mistake.

    Args:
        message: one line, as of any :class:`~monai_regplugins.checks.InputError`.
        status: 4xx.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def check_name(name: Any, what: str) -> str:
    """Check an id or a tag; paths are rejected.

    Raises:
        RequestError: When it is empty, holds a slash or a backslash, or consists of dots.
    """
    if isinstance(name, str) and NAME.fullmatch(name):
        return name
    raise RequestError(f"{what} is {name!r}, expected the name of one, not a path; take it from the server's list.")


def check_known(request: Mapping[str, Any], options: Iterable[str]) -> None:
    """Check that a request holds nothing but options of its model and what clients always send.

    Raises:
        RequestError: When an option is unknown: it would change nothing, and nobody would notice.
    """
    known = sorted(options)
    for key in request:
        if key not in OF_CLIENTS and key not in known and key[:1] != "_":  # those are of MONAI Label's batches
            raise RequestError(f"there is no option '{key}', expected one of {', '.join(known)}.{suggest(key, known)}")


def check_suffix(path: str | Path, what: str) -> None:
    """Check that the name of an upload states its format; DICOM files need none.

    Raises:
        RequestError: When it does not.
    """
    file = Path(path)
    if not file.suffix and file.is_file() and not is_dicom(file):
        raise RequestError(
            f"{what} was sent under a name without suffix, which would state its format; send it as NAME.nii.gz or "
            "with the suffix that it has."
        )


def chosen(request: Mapping[str, Any], key: str, choices: Sequence[str]) -> str:
    """Return an option's value: one of ``choices``, by default the first.

    Args:
        request: what the client sent; a list, as clients send it whose user chose nothing, stands for its first item.
        key: name of the option.
        choices: what it may be.

    Raises:
        RequestError: When it is something else.
    """
    value = first_of(request.get(key))
    if value is None or value == "":
        return choices[0]
    if value in choices:
        return str(value)
    raise RequestError(f"{key} is {value!r}, expected one of {', '.join(choices)}.{suggest(str(value), choices)}")


def number(request: Mapping[str, Any], key: str, default: float, least: float = 0) -> float:
    """Return an option's value, a number of the type of ``default``; text is read as one.

    Args:
        request: what the client sent.
        key: name of the option.
        default: its value where nothing is sent.
        least: smallest number that makes sense.

    Raises:
        RequestError: When it is no such number.
    """
    value = first_of(request.get(key))
    if value is None or value == "":
        return default
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    whole = isinstance(default, int)
    if not math.isfinite(found) or found < least or (whole and found != int(found)):
        raise RequestError(f"{key} is {value!r}, expected a {'whole ' if whole else ''}number from {least:g} on.")
    return int(found) if whole else found


def flag(request: Mapping[str, Any], key: str) -> bool:
    """Return an option's value, yes or no, by default no.

    Raises:
        RequestError: When it is something else.
    """
    value = first_of(request.get(key))
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if value is None or value == "":
        return False
    raise RequestError(f"{key} is {value!r}, expected true or false.")


def first_of(value: Any) -> Any:
    """A value, or the first item of a list."""
    return (value[0] if value else None) if isinstance(value, list) else value


def check_voxels(path: str | Path, what: str, limit: int) -> None:
    """Refuse an image that is too large, by its header alone.

    What is no readable image passes: its reader says what is wrong.

    Args:
        path: the image.
        what: what it is, for the message.
        limit: largest number of voxels.

    Raises:
        RequestError: When it has more, status 413.
    """
    shape = _shape(Path(path))
    if math.prod(shape) > limit:
        size = " x ".join(map(str, shape))
        raise RequestError(
            f"{what} has {size} voxels, this server takes {limit} at most; crop or resample it, or start the server "
            "with a larger --conf max_voxels.",
            413,
        )


def _shape(path: Path) -> Sequence[int]:
    """Number of voxels along each axis as in the header, empty if it cannot be read."""
    try:
        if path.is_dir():
            files = dicom_series(path, "image")
            return (*dicom_reader(files[0], "image").GetSize()[:2], len(files))
        return scan_shape(path, "image") or (dicom_reader(path, "image").GetSize() if path.is_file() else ())
    except InputError:
        return ()


def without_paths(message: str, names: Mapping[str, str]) -> str:
    """Replace the server's paths in a message by names that the client knows.

    Args:
        message: an error message.
        names: path to name; longer paths are replaced first.
    """
    for path in sorted(names, key=len, reverse=True):
        message = message.replace(path, names[path]) if path else message
    return message
