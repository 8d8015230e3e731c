"""A copy of what the package is built of, so that building leaves the working tree as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "data", "eval", "runs", "output")


def copy_source(repository: Path, folder: Path) -> Path:
    """Copy the package, the bundles and the files that describe the project."""
    shutil.copytree(
        repository / "monai_regplugins",
        folder / "monai_regplugins",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copytree(repository / "bundles", folder / "bundles", ignore=LEFT_OUT)
    for name in FILES:
        shutil.copy(repository / name, folder)
    return folder
