"""The temporary files of a server and of its children: one folder, which ends with the server."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from monai_regplugins.files.claims import fcntl, lock

__all__ = ["end_with_parent", "own_folder", "remove_abandoned"]

PREFIX = "monai_regplugins_"
LOCK = ".lock"  # locked by the process that the folder belongs to, as long as that lives
INTERVAL = 0.5  # s


@functools.lru_cache(maxsize=1)
def own_folder() -> Path:
    """A folder for the temporary files of this process and of those that it starts; removed when the process ends.

    Uploads lie in it, paths that clients make up do not. What a killed process has left is removed.
    """
    remove_abandoned(Path(tempfile.gettempdir()))
    folder = _made()
    tempfile.tempdir = os.environ["TMPDIR"] = folder.name
    return Path(folder.name)


@functools.lru_cache(maxsize=1)
def _made() -> tempfile.TemporaryDirectory[str]:
    """Make the folder and lock it; kept, since it is removed with its object."""
    folder = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    lock(os.open(Path(folder.name, LOCK), os.O_RDWR | os.O_CREAT, 0o600))
    return folder


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes that have not lived to do it themselves.

    Args:
        parent: folder of temporary files; nothing in it is followed or removed that is another user's.
    """
    for folder in parent.glob(f"{PREFIX}*") if fcntl is not None else ():
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if lock(descriptor):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, which may have been killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(INTERVAL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
