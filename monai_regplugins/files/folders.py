"""Make a folder whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["is_made", "make_folder"]


def make_folder(target: Path, write: Callable[[Path], None]) -> Path:
    """Make a folder by ``write``, complete or not at all; one that is there and holds something is kept.

    Args:
        target: the folder to make.
        write: fills a new folder beside it, which is then renamed, unless another process was faster.

    Returns:
        ``target``.
    """
    if is_made(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as workshop:
        folder = Path(workshop) / "dataset"  # made by mkdir, so that it gets the user's usual permissions
        folder.mkdir()
        write(folder)
        with contextlib.suppress(OSError):
            target.rmdir()  # only an empty folder gives way
        try:
            os.rename(folder, target)
        except OSError:
            if not is_made(target):
                raise
    return target


def is_made(folder: Path) -> bool:
    """Whether a folder is there and holds something."""
    return folder.is_dir() and any(folder.iterdir())
