"""Provenance of a result: inputs, weights, configuration and versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.environment import installed_version
from monai_regplugins.files.folders import files_in
from monai_regplugins.io.linear_transform import files_of
from monai_regplugins.keys import PHASE_KEYS, POINT_KEYS
from monai_regplugins.readers.voxel_files import voxel_files

__all__ = ["FILE_SETTINGS", "NOT_SETTINGS", "Provenance", "digest_of", "identity_of"]

PACKAGES = ("monai-regplugins", "monai", "torch", "numpy", "nibabel", "SimpleITK")
PROGRAM = "monai_regplugins"
TEXTS = (*PHASE_KEYS, "pair_id")  # entries of a pair that name no file

# keys of a configuration that do not count, and why
NOT_SETTINGS = {
    "which pairs: their files count": (
        "fixed",
        "moving",
        "fixed_label",
        "moving_label",
        "fixed_points",
        "moving_points",
        "mask",
        "fixed_mask",
        "moving_mask",
        "fixed_phase",
        "moving_phase",
        "pair_id",
        "pairs_file",
        "series",
        "onto",
        "dataset_dir",
        "embedded_dir",
        "phantom",
        "max_pairs",
        "shard",
    ),
    "where weights lie: their digest counts": ("bundle_root", "ckpt"),
    "a name of settings: these count": ("preset",),
    "where results go, and what is said of them": ("output_dir", "verbose", "fail_on"),
    "which machine computes": ("device",),
    "which pairs are allowed": ("other_patient",),
    "how the program starts": ("imports", "initialize", "inference", "run"),
}
FILE_SETTINGS = ("initial_transform", "features")  # the content of these files counts
OMITTED = frozenset(key for keys in NOT_SETTINGS.values() for key in keys)
SINGLE_FILES = (
    ".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".tif", ".tiff", ".png", ".jpg", ".jpeg",
    ".bmp", ".csv", ".txt",
)  # fmt: skip


class Provenance:
    """Provenance record and fingerprint of the results of one configuration.

    Args:
        config: the configuration with its overrides, not evaluated; see ``NOT_SETTINGS`` for what does not count.
        weights: file of the network's weights.
    """

    def __init__(self, config: Mapping[str, Any] | None = None, weights: str | Path = "") -> None:
        settings = {key: value for key, value in (config or {}).items() if key not in OMITTED and key[:1] != "_"}
        plain = {key: value for key, value in settings.items() if _is_plain(value)}
        self.parameters = {key: _followed(value, plain) for key, value in plain.items()}
        self.components = {key: value for key, value in settings.items() if key not in plain}
        self.weights = Path(weights) if weights else None

    @cached_property
    def files(self) -> dict[str, str]:
        """SHA-256 of the files that settings name, when they were first asked for."""
        named = [self.parameters.get(key) for key in FILE_SETTINGS]
        return {str(file): digest_of(file) for value in named if value for file in files_of(value)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights when they were first asked for, empty without weights."""
        return digest_of(self.weights) if self.weights else ""

    def describe(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is to be known of a pair's results, ready for JSON.

        Args:
            inputs: the pair's files or arrays and its other entries.

        Returns:
            ``inputs``, see :func:`identity_of`; ``weights``, their file and SHA-256; ``parameters``, the settings, and
            ``components``, what the configuration makes of them; ``versions``; ``fingerprint``, equal for equal inputs,
            weights, configuration and version of this package; ``created``, the time of the call. ``files``, if any,
            are those that settings name, with their SHA-256.
        """
        cause = {
            "inputs": {key: value if key in TEXTS else _identity(key, value) for key, value in inputs.items()},
            "weights": {"file": str(self.weights or ""), "sha256": self.digest},
            "parameters": self.parameters,
            "components": self.components,
            **({"files": self.files} if self.files else {}),
        }
        cause = json.loads(json.dumps(cause, default=str))  # as it will be read again
        versions = {"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}}
        return {
            "program": PROGRAM,
            "fingerprint": _fingerprint(cause, versions[PACKAGES[0]]),
            **cause,
            "versions": versions,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def _identity(key: str, value: Any) -> Any:
    """The identity of an entry of a pair; points are never a file of a DICOM series."""
    return identity_of(value, is_image=key not in POINT_KEYS)


def identity_of(value: Any, is_image: bool = True) -> Any:
    """What identifies an input: a file by place, size and time of change, an array by its values.

    A folder, a header whose voxels lie in another file, and a file of a DICOM series count with all files that belong
    to them, except hidden ones. Other values are taken as they are.

    Args:
        value: a path, an array, a tensor, or anything else.
        is_image: whether a file may be one of several that belong together.
    """
    if isinstance(value, np.ndarray | torch.Tensor):
        return _identity_of_array(value)
    path = Path(value) if isinstance(value, str | Path) and str(value) else None
    if path is None or not path.exists():
        return value if path is None else str(value)
    files = _files_of(path) if is_image else [path]
    states = {str(file): file.stat() for file in files}
    identity = {
        "file": str(path.resolve()),
        "bytes": sum(state.st_size for state in states.values()),
        "changed": max((state.st_mtime_ns for state in states.values()), default=0),
    }
    if files == [path]:
        return identity
    listing = [(name, state.st_size, state.st_mtime_ns) for name, state in states.items()]
    return identity | {"files": len(files), "listing": hashlib.sha256(repr(listing).encode()).hexdigest()}


def _identity_of_array(value: np.ndarray[Any, Any] | torch.Tensor) -> dict[str, Any]:
    """Shape, type and SHA-256 of an array's values and, where it has one, its affine."""
    affine = getattr(value, "affine", None)
    array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
    digest = hashlib.sha256(np.ascontiguousarray(array).data if array.dtype != object else repr(array).encode())
    if affine is not None:
        digest.update(np.asarray(affine, dtype=np.float64).tobytes())
    return {"array": list(array.shape), "type": str(array.dtype), "sha256": digest.hexdigest()}


def _files_of(path: Path) -> list[Path]:
    """The files that an input consists of."""
    if path.is_file() and path.name.lower().endswith(SINGLE_FILES):
        return list(dict.fromkeys([path, *_voxel_files(path)]))
    folder = path if path.is_dir() else path.parent  # a file of a DICOM series stands for the series
    return files_in(folder, below=path.is_dir())


def _voxel_files(path: Path) -> list[Path]:
    """The files that hold the voxels of an image; of a damaged header its own."""
    try:
        return voxel_files(path, "image").files
    except InputError:
        return [path]


def _is_plain(value: Any) -> bool:
    """Whether a value of the configuration is a setting: a number, a path, a text without code, or a list of such."""
    if isinstance(value, list | tuple):
        return all(_is_plain(entry) for entry in value)
    if isinstance(value, str):
        return value[:1] != "$"
    return value is None or isinstance(value, bool | int | float | Path)


def _followed(value: Any, settings: Mapping[str, Any]) -> Any:
    """The setting that a reference such as ``@spatial_size`` names; any other value as it is."""
    name = value[1:] if isinstance(value, str) and value[:1] == "@" else ""
    return _followed(settings[name], settings) if name in settings else value


def _fingerprint(cause: Mapping[str, Any], package: str) -> str:
    """SHA-256 of what a result depends on."""
    return hashlib.sha256(json.dumps([cause, package], sort_keys=True).encode()).hexdigest()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, empty if there is none."""
    if not path.is_file():
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
