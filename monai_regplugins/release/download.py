"""Download and verify a bundle, then install it."""

from __future__ import annotations

import re
import tempfile
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.release.archive import MAX_BYTES, open_safely
from monai_regplugins.release.sums import check_sum, listed_sum

__all__ = ["fetch", "install_bundle"]

SCHEMES = ("http", "https", "file")
PLAIN_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
TIMEOUT = 60.0  # seconds without any answer
BLOCK = 2**16


def fetch(source: str | Path, folder: Path) -> Path:
    """Copy a file from an address or a path into ``folder``, under its own name.

    Args:
        source: an ``http``, ``https`` or ``file`` address, or a path.
        folder: an existing folder.

    Returns:
        The copy.

    Raises:
        InputError: When there is no such file, the address is of another kind or ends in no plain file name, the
            transfer fails, or brings fewer bytes than announced or more than a bundle can have.
    """
    address = str(source)
    if "://" not in address:
        address = check_file(address, "file").resolve().as_uri()
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise InputError(f"'{source}' is no address ({error}); check it.") from error
    name = PurePosixPath(unquote(parts.path)).name
    if parts.scheme not in SCHEMES or not PLAIN_NAME.fullmatch(name):
        raise InputError(
            f"'{source}' is no address of a file; give a path, or an http, https or file address that ends in its name."
        )
    try:
        with urlopen(address, timeout=TIMEOUT) as response, (folder / name).open("wb") as stream:
            announced = response.headers.get("Content-Length", "")
            copied = _copy(response, stream)
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"cannot download '{source}' ({error}); check the address and the network.") from error
    if copied > MAX_BYTES:
        raise InputError(f"'{source}' has more than {MAX_BYTES // 2**20} MiB, no bundle does; check the address.")
    if announced.isdecimal() and copied != int(announced):
        raise InputError(f"'{source}' was cut short, {copied} of {announced} bytes came; download it again.")
    return folder / name


def install_bundle(
    source: str | Path, bundle_dir: str | Path, sums: str | Path | None = None, sha256: str | None = None
) -> Path:
    """Install a bundle's archive as ``<bundle_dir>/<name>``, whole or not at all.

    Length and SHA-256 are checked before the archive is opened, and that is done by
    :func:`~monai_regplugins.release.archive.open_safely`.

    Args:
        source: address or path of the archive.
        bundle_dir: folder of the bundles; it is made.
        sums: address or path of a list as ``sha256sum`` writes it, which names the archive.
        sha256: the archive's SHA-256, in place of a list. Without either the archive's origin is not verified.

    Returns:
        The bundle's folder.

    Raises:
        InputError: When the archive is not the published one or is not safe to unpack, there is a bundle of that name
            already, or the files cannot be had.
    """
    with tempfile.TemporaryDirectory() as workshop:
        archive = fetch(source, Path(workshop))
        if sums is not None:
            (beside := Path(workshop) / "sums").mkdir()
            text = fetch(sums, beside).read_text(encoding="utf-8", errors="replace")
            sha256 = listed_sum(text, archive.name, str(sums))
        if sha256 is not None:
            check_sum(archive, sha256)
        return open_safely(archive, bundle_dir)


def _copy(response: Any, stream: IO[bytes]) -> int:
    """Copy a response, at most one block more than a bundle can have, and return the number of bytes."""
    copied = 0
    while copied <= MAX_BYTES and (block := response.read(BLOCK)):
        copied += stream.write(block)
    return copied
