"""The files that a released bundle consists of, and its metadata."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from monai_regplugins.checks import InputError, check_file

__all__ = ["BUNDLE_FILE", "read_metadata", "released_files"]

# Nothing else is packed or unpacked: MONAI puts a bundle's folder on Python's path, where any stray module would be
# found, and what a bundle writes while it runs (data, eval, output, checkpoints) belongs to its user.
BUNDLE_FILE = re.compile(
    r"LICENSE|configs/\w[\w-]*\.(json|conf)|docs/(\w[\w.-]*/)*\w[\w.-]*|models/\w[\w-]*\.(pt|ts)", re.ASCII
)
FIXED_MODELS = ("models/model.pt", "models/model.ts")
WRITTEN_BY_TRAINING = re.compile(r"models/(checkpoint|model_last)[\w-]*\.pt", re.ASCII)


def released_files(bundle: Path) -> list[str]:
    """Name the files that a release of ``bundle`` consists of, relative to it and sorted.

    They are ``LICENSE``, the configurations, the docs, ``models/model.pt``, ``models/model.ts`` if there, and those
    further ``models/*.pt`` that ``docs/README.md`` names; never links, hidden files or what a training has left.
    """
    readme = bundle / "docs" / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    names = [path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if _is_plain_file(path)]
    return sorted(name for name in names if BUNDLE_FILE.fullmatch(name) and _is_released(name, text))


def read_metadata(bundle: Path) -> dict[str, Any]:
    """Read ``configs/metadata.json`` of a bundle.

    Raises:
        InputError: When there is none, or it is no JSON object with a ``version``.
    """
    file = check_file(bundle / "configs" / "metadata.json", "metadata")
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"configs/metadata.json is no JSON ({error}); restore it.") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("version"), str):
        raise InputError("configs/metadata.json has no version, expected one such as '0.1.0'; add it.")
    return metadata


def _is_plain_file(path: Path) -> bool:
    """Whether a path is a file itself, not a link to one."""
    return path.is_file() and not path.is_symlink()


def _is_released(name: str, readme: str) -> bool:
    """Whether a file of a bundle is meant for others; of the models, ``model`` and those that the docs name."""
    if not name.startswith("models/") or name in FIXED_MODELS:
        return True
    named = re.search(rf"(?<![\w-]){re.escape(Path(name).name)}(?![\w-])", readme)
    return named is not None and not WRITTEN_BY_TRAINING.fullmatch(name)
