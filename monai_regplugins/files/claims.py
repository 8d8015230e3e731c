"""File locks between processes, and detection of abandoned temporary files."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from monai_regplugins.checks import InputError

try:
    import fcntl as _fcntl

    fcntl: ModuleType | None = _fcntl
except ImportError:  # Windows: processes are not kept apart there
    fcntl = None

__all__ = ["claim", "lock", "release"]


def claim(path: Path, wait: bool = False) -> int | None:
    """Claim the name ``path`` for this process until :func:`release`; the end of the process releases it too.

    A claim is a lock on an empty file of this name. Several threads of one process are kept apart like processes.

    Args:
        path: the file; its folder has to be there. It is made, unless a killed process has left it.
        wait: whether to wait for another process that has the claim.

    Returns:
        Descriptor of the locked file, None if another process has the claim.

    Raises:
        InputError: When something else lies at ``path``, such as a link or a file with content.
        OSError: When the system refuses to make the file.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if not lock(descriptor, wait):
                os.close(descriptor)
                return None
            if os.fstat(descriptor).st_size:
                raise InputError(f"'{path}' is in the way, a name for temporary files; move it elsewhere.")
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last owner has removed the file since it was opened


def release(path: Path, descriptor: int) -> None:
    """Give up the claim of ``path`` and remove its file."""
    path.unlink(missing_ok=True)  # before the lock ends, else it may be another owner's file
    os.close(descriptor)


def lock(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file for this descriptor alone; return whether that was possible."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
