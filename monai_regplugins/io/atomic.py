"""Write a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from monai_regplugins.checks import InputError

__all__ = ["replace_file", "write_file"]


def write_file(path: str | Path, content: bytes) -> None:
    """Replace ``path`` by ``content``, see :func:`replace_file`.

    Args:
        path: the file; missing folders are made.
        content: all of its bytes.

    Raises:
        InputError: When the system refuses, e.g. a full disk; the old file is untouched then.
    """
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def replace_file(path: str | Path, write: Callable[[Path], object]) -> None:
    """Replace a file in one step; whatever happens meanwhile, the old or the new file is there whole.

    The content goes to a temporary file in the same folder, reaches the disk, and takes the name over. The temporary
    name is always the same, so that a killed process leaves at most one behind, which the next write replaces.

    Args:
        path: the file; missing folders are made.
        write: makes the file of the name it is given, whose suffix is that of ``path``.

    Raises:
        InputError: When the system refuses, e.g. a full disk; the old file is untouched then.
    """
    target = Path(path)
    temporary = target.with_name(f".tmp-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            with temporary.open("r+b") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(
            f"cannot write '{target}' ({error.strerror or error}), and what was there before is unchanged; "
            "free some space or give another output folder."
        ) from error
