"""Reproducible bundle archives, and safe unpacking of untrusted archives."""

from __future__ import annotations

import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from monai_regplugins.checks import InputError, check_file, load_weights
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.files.folders import is_made, make_folder
from monai_regplugins.release.layout import BUNDLE_FILE, read_metadata, released_files

__all__ = ["MAX_BYTES", "build_zip", "check_zip", "open_safely"]

EARLIEST_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can hold
UNIX = 3  # the system whose permissions a member carries
FILE_MODE = stat.S_IFREG | 0o644

MAX_BYTES = 512 * 2**20  # of a whole bundle; ours have a few MB
MAX_MEMBERS = 1000
MAX_RATIO = 200  # of unpacked to packed size; text reaches 20, weights hardly 1
PLAIN_KINDS = (0, stat.S_IFREG, stat.S_IFDIR)  # archives made elsewhere than on Unix have no kind
PLAIN_PATH = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*/?", re.ASCII)  # no "..", no leading "/", no drive, no backslash
ENCRYPTED = 0x1
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, UnicodeDecodeError)


def build_zip(bundle: str | Path, folder: str | Path) -> Path:
    """Pack a bundle as ``<folder>/<name>_v<version>.zip`` with the top folder ``<name>/``.

    Members are sorted and carry one fixed time and permission, so that the same files make the same archive, byte by
    byte, with the same release of zlib.

    Args:
        bundle: folder of the bundle; its name is the bundle's.
        folder: where the archive goes; it is made. An archive of that name is replaced in one step.

    Returns:
        The archive.

    Raises:
        InputError: When the bundle has no readable metadata, or the system refuses to write.
    """
    root = Path(bundle).resolve()
    target = Path(folder) / f"{root.name}_v{read_metadata(root)['version']}.zip"
    replace_file(target, partial(_pack, root))
    return target


def check_zip(path: str | Path) -> str:
    """Check an archive without unpacking it, and return the name of the bundle in it.

    Raises:
        InputError: When :func:`open_safely` would refuse it for its members, their names, kinds, sizes or sums.
    """
    file = check_file(path, "archive")
    with _opened(file) as archive:
        name, _ = _checked(archive, file)
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the sum of {damaged} is wrong")
    return name


def open_safely(path: str | Path, folder: str | Path) -> Path:
    """Unpack a bundle's archive as ``<folder>/<name>``, whole or not at all, and never over a bundle that is there.

    Nothing in it is executed: weights are read as plain tensors before the bundle appears, which refuses a pickle
    with code, and configurations are not evaluated.

    Args:
        path: the archive.
        folder: folder of the bundles; it is made.

    Returns:
        The bundle's folder.

    Raises:
        InputError: When there is a bundle already; a member leads out of the top folder, is a link, is there twice,
            is encrypted or no part of a bundle; there is more than one top folder, or it is no bundle; sizes are
            absurd; the archive is damaged or cut short; weights hold anything but tensors; the system refuses.
    """
    file = check_file(path, "archive")
    with _opened(file) as archive:
        name, members = _checked(archive, file)
        target = Path(folder) / name
        if is_made(target) or target.is_file() or target.is_symlink():
            raise InputError(
                f"'{target}' is there already, and nothing in it was replaced; move it away, or give another folder."
            )
        try:
            return make_folder(target, partial(_unpack, archive, members))
        except OSError as error:
            raise InputError(
                f"cannot write '{target}' ({error.strerror or error}), and nothing was installed; "
                "free some space or give another folder."
            ) from error


def _pack(bundle: Path, path: Path) -> None:
    """Write the archive of a bundle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in released_files(bundle):
            member = zipfile.ZipInfo(f"{bundle.name}/{name}", EARLIEST_TIME)
            member.create_system, member.external_attr = UNIX, FILE_MODE << 16
            archive.writestr(member, (bundle / name).read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)


def _unpack(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], folder: Path) -> None:
    """Fill a folder that nobody sees yet, and look at what came."""
    for name, member in members.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("xb") as stream:
            shutil.copyfileobj(source, stream)
    read_metadata(folder)
    for weights in sorted(folder.glob("models/*.pt")):
        try:
            load_weights(weights)
        except InputError as error:
            raise InputError(
                f"models/{weights.name} of '{Path(archive.filename or '').name}' is no file of plain weights: it is "
                "damaged or holds code; nothing was executed or installed, so do not use this archive."
            ) from error


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive for reading; whatever shows that it is damaged becomes an input error."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except DAMAGED as error:
        raise InputError(
            f"archive '{file.name}' is damaged, cut short or no zip archive ({error}); nothing was installed, "
            "so download it again."
        ) from error


def _checked(archive: zipfile.ZipFile, file: Path) -> tuple[str, dict[str, zipfile.ZipInfo]]:
    """Return the top folder of an archive, and its files by their paths in there; refuse what is no plain bundle."""
    problem = next(_problems(archive.infolist(), file.stat().st_size), None)
    if problem is not None:
        raise InputError(f"archive '{file.name}' {problem}; nothing of it was unpacked, so do not use it.")
    files = {member.filename: member for member in archive.infolist() if not member.is_dir()}
    name = next(iter(files)).partition("/")[0]
    return name, {path.partition("/")[2]: member for path, member in files.items()}


def _problems(members: list[zipfile.ZipInfo], packed_bytes: int) -> Iterator[str]:
    """Yield what speaks against unpacking the members of an archive; what comes later relies on what came before."""
    if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_BYTES:
        yield f"claims to hold more than {MAX_MEMBERS} members or {MAX_BYTES // 2**20} MiB"
    if sum(member.file_size for member in members) > MAX_RATIO * packed_bytes:
        yield f"claims to unpack to more than {MAX_RATIO} times its size"
    for member in members:
        if reason := _reason_against(member):
            yield f"holds {member.orig_filename!r}, {reason}"
    paths = [member.filename.rstrip("/").lower() for member in members]  # some systems fold case
    if len(set(paths)) < len(paths):
        yield "holds a path twice"
    tops = {member.filename.partition("/")[0] for member in members}
    if len(tops) != 1:
        yield f"has {len(tops)} top folders, expected one, the bundle's"
    inside = [member.filename.partition("/")[2] for member in members if not member.is_dir()]
    if "configs/metadata.json" not in inside:
        yield "is no bundle, it has no configs/metadata.json in its top folder"
    for path in inside:
        if not BUNDLE_FILE.fullmatch(path):
            yield f"holds {path!r}, which is no part of a released bundle"


def _reason_against(member: zipfile.ZipInfo) -> str:
    """Say why a member cannot be trusted, empty if it can."""
    if not PLAIN_PATH.fullmatch(member.orig_filename):
        return "whose path may lead out of the bundle"
    if stat.S_IFMT(member.external_attr >> 16) not in PLAIN_KINDS:
        return "which is a link or a special file"
    if member.flag_bits & ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "which is encrypted or packed in an unusual way"
    return ""
