"""Create folders atomically; list the user's files in a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from monai_regplugins.files.atomic import workshop

__all__ = ["absolute_path", "files_in", "is_foreign", "is_made", "make_folder"]

# what DICOM media, Windows, macOS and network drives put beside the user's files, in small letters
FOREIGN = ("dicomdir", "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "icon\r")


def absolute_path(path: str | Path) -> Path:
    """Return an absolute path without ``..``; links in it stay as they are, unless ``..`` follows one.

    Example:
        >>> absolute_path("/data/hospital/../scans").as_posix()
        '/data/scans'
    """
    plain = Path(os.path.abspath(path))
    return Path(path).resolve() if Path(path).exists() and not (plain.exists() and plain.samefile(path)) else plain


def files_in(folder: Path, pattern: str = "*", below: bool = False) -> list[Path]:
    """Files of a folder in the order of their names, without hidden and foreign ones, see :func:`is_foreign`.

    Args:
        folder: where to look; its own name does not matter. One that is not there holds nothing.
        pattern: that the names have to match, as in :meth:`pathlib.Path.glob`.
        below: whether to look into its folders, too.

    Example:
        >>> files_in(Path(__file__).parent, "folders.p*")[0].name
        'folders.py'
    """
    found = folder.rglob(pattern) if below else folder.glob(pattern)
    return sorted(file for file in found if not is_foreign(file.relative_to(folder)) and file.is_file())


def is_foreign(path: Path) -> bool:
    """Whether a file, or a folder on the way to it, was put there by a system and not by the user.

    These are hidden ones, whose names begin with a dot, such as ``.DS_Store`` and the ``._`` companions that macOS
    leaves beside every file on a foreign drive, the index of DICOM media, thumbnails and the like.

    Example:
        >>> [is_foreign(Path(name)) for name in ("a/IM001.dcm", "a/._IM001.dcm", "DICOMDIR", "__MACOSX/a.dcm")]
        [False, True, True, True]
    """
    return any(part.startswith(".") or part.lower() in FOREIGN for part in path.parts)


def make_folder(target: Path, write: Callable[[Path], None]) -> Path:
    """Make a folder by ``write``, complete or not at all; one that is there and holds something is kept.

    Args:
        target: the folder to make.
        write: fills a new folder beside it, which is then renamed, unless another process was faster. What a killed
            process has left of such a folder, the next call removes.

    Returns:
        ``target``.
    """
    if is_made(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = Path(os.path.abspath(target))  # "." has no name
    with workshop(whole) as place:
        folder = place / whole.name
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
