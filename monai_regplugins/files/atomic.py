"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from monai_regplugins.checks import InputError
from monai_regplugins.files.claims import fcntl, lock

__all__ = ["remove_parts", "replace_file", "workshop", "write_file"]

PART = re.compile(r"\.part-[0-9a-f]{8}-(?P<name>.+)")


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

    The content goes to a new file in a folder of a random name beside it, reaches the disk, and takes the name over.
    What a killed process has left of such a folder, the next call for the same ``path`` removes.

    Args:
        path: the file; missing folders are made.
        write: makes the file that it is given, which has the name of ``path``.
        before: called with the new file when that is complete, before it takes the name over.

    Raises:
        InputError: When the system refuses, e.g. a full disk; the old file is untouched then.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with workshop(target) as folder:
            temporary = folder / target.name
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
def workshop(target: Path) -> Iterator[Path]:
    """Make a locked folder beside ``target``, in which that is made under its name, and remove it at the end.

    What killed processes have left of such folders is removed first. A lock on a file itself would keep HDF5 from
    writing it.

    Args:
        target: a file or folder; the folder it lies in has to be there.
    """
    _remove_leftovers(target)
    folder, descriptor = _locked_folder(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _locked_folder(target: Path) -> tuple[Path, int | None]:
    """Make and lock a folder of a random name; return it and its descriptor, None where there are no locks."""
    while True:
        folder = target.with_name(f".part-{secrets.token_hex(4)}-{target.name}")
        folder.mkdir()
        if fcntl is None:
            return folder, None
        descriptor = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some network file systems lock no folders
            lock(descriptor, wait=True)
        if folder.is_dir():
            return folder, descriptor
        os.close(descriptor)  # another process has removed it, before it was locked, for a leftover


def remove_parts(folder: Path) -> None:
    """Remove what killed processes have left of every :func:`workshop` in a folder."""
    found = [PART.fullmatch(name) for name in (os.listdir(folder) if folder.is_dir() else ())]
    for name in {match["name"] for match in found if match}:
        _remove_leftovers(folder / name)


def _remove_leftovers(target: Path) -> None:
    """Remove the temporary folders of ``target`` that no living process has locked."""
    for leftover in target.parent.glob(f".part-{'[0-9a-f]' * 8}-{escape(target.name)}") if fcntl is not None else ():
        with contextlib.suppress(OSError):  # another process was faster
            descriptor = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if set(os.listdir(leftover)) <= {target.name} and lock(descriptor):
                    shutil.rmtree(leftover)
            finally:
                os.close(descriptor)
