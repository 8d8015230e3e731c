"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from monai_regplugins.checks import InputError
from monai_regplugins.io.claims import fcntl, lock

__all__ = ["replace_file", "write_file"]


def write_file(path: str | Path, content: bytes, before: Callable[[Path], object] | None = None) -> None:
    """Replace ``path`` by ``content``, see :func:`replace_file`.

    Args:
        path: the file; missing folders are made.
        content: all of its bytes.
        before: called with the new file when that is complete, before it takes the name over.

    Raises:
        InputError: When the system refuses, e.g. a full disk; the old file is untouched then.
    """
    replace_file(path, lambda temporary: temporary.write_bytes(content), before)


def replace_file(
    path: str | Path, write: Callable[[Path], object], before: Callable[[Path], object] | None = None
) -> None:
    """Replace a file in one step; whatever happens meanwhile, the old or the new file is there whole.

    The content goes to a new file in the same folder, reaches the disk, and takes the name over. The new file has a
    random name, so that two processes do not write into each other's. What a killed process has left of it, the next
    call for the same ``path`` removes.

    Args:
        path: the file; missing folders are made.
        write: makes the file of the name it is given, whose suffix is that of ``path``.
        before: called with the new file when that is complete, before it takes the name over.

    Raises:
        InputError: When the system refuses, e.g. a full disk; the old file is untouched then.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        with _new_file(target) as temporary:
            write(temporary)
            with temporary.open("r+b") as stream:
                os.fsync(stream.fileno())
            if before is not None:
                before(temporary)
            os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            f"cannot write '{target}' ({error.strerror or error}), and what was there before is unchanged; "
            "free some space or give another output folder."
        ) from error


@contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """Make an empty, locked file beside ``target``; it is removed at the end if it still has its name."""
    temporary, descriptor = _locked_file(target)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _locked_file(target: Path) -> tuple[Path, int]:
    """Make and lock a file of a random name; return it and its descriptor."""
    while True:
        temporary = target.with_name(f".part-{secrets.token_hex(4)}-{target.name}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # exclusive: never through a link
        lock(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # another process has removed it, before it was locked, for a leftover


def _remove_leftovers(target: Path) -> None:
    """Remove the temporary files of ``target`` that no living process has locked."""
    for leftover in target.parent.glob(f".part-{'[0-9a-f]' * 8}-{escape(target.name)}") if fcntl is not None else ():
        with contextlib.suppress(OSError):  # another process was faster
            descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode) and lock(descriptor):
                    leftover.unlink()
            finally:
                os.close(descriptor)
