"""Where a result comes from: inputs, weights, parameters and versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Provenance", "digest_of", "installed_version"]

PACKAGES = ("monai-regplugins", "monai", "torch", "numpy", "nibabel", "SimpleITK")


class Provenance:
    """Describe the results of one configuration, and recognize those that would come out the same.

    Args:
        parameters: settings that the results depend on, of plain values.
        weights: file of the network's weights.
    """

    def __init__(self, parameters: Mapping[str, Any] | None = None, weights: str | Path = "") -> None:
        self.parameters = dict(parameters or {})
        self.weights = Path(weights) if weights else None
        self._digest: str | None = None

    def describe(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is to be known of a pair's results, ready for JSON.

        Args:
            inputs: the pair's files and its other entries.

        Returns:
            ``inputs``, each file with its size and time of change; ``weights``, their file and SHA-256;
            ``parameters``; ``versions``; ``fingerprint``, equal for equal inputs, weights, parameters and version of
            this package; ``created``, the time of the call.
        """
        if self._digest is None:
            self._digest = digest_of(self.weights) if self.weights else ""
        cause = {
            "inputs": {key: _identity(value) for key, value in inputs.items()},
            "weights": {"file": str(self.weights or ""), "sha256": self._digest},
            "parameters": self.parameters,
        }
        versions = {"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}}
        text = json.dumps([cause, versions[PACKAGES[0]]], sort_keys=True, default=str)
        return {
            "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
            **cause,
            "versions": versions,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, empty if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _identity(value: Any) -> Any:
    """What tells a file, or the files of a folder, from others of the same name; other values as they are."""
    path = Path(value) if isinstance(value, (str, Path)) and str(value) else None
    if path is None or not path.exists():
        return value
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return {
        "file": str(path.resolve()),
        "bytes": sum(state.st_size for state in states),
        "changed": max((state.st_mtime_ns for state in states), default=0),
    }


def installed_version(package: str) -> str:
    """Return the version of a package, empty if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
