"""Digests of what is published: ``SHA256SUMS`` and the list that MONAI reads, ``models/model_info.json``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from monai_regplugins.checks import InputError, suggest
from monai_regplugins.io.provenance import digest_of

__all__ = ["check_sum", "listed_sum", "model_info", "read_sums", "sums_text"]

SUMS_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")  # as sha256sum writes it, for text or binary files
SHA256 = re.compile(r"[0-9a-f]{64}")


def sums_text(files: Iterable[Path]) -> str:
    """Return the SHA-256 of files in the format of ``sha256sum``, sorted by name."""
    return "".join(f"{digest_of(file)}  {file.name}\n" for file in sorted(files, key=lambda file: file.name))


def read_sums(text: str, where: str) -> dict[str, str]:
    """Read the format of ``sha256sum``.

    Args:
        text: the content of such a file.
        where: what the file is called, for the message.

    Returns:
        The SHA-256, in lower case, by file name.

    Raises:
        InputError: When a line is another one, there is none, or two name one file and differ.
    """
    sums: dict[str, str] = {}
    for line in filter(str.strip, text.splitlines()):
        found = SUMS_LINE.fullmatch(line.rstrip())
        if found is None or sums.setdefault(found[2], found[1].lower()) != found[1].lower():
            raise InputError(
                f"'{where}' has the line {line[:100]!r}, expected one SHA-256 and name per file as sha256sum writes "
                "them; download it again."
            )
    if not sums:
        raise InputError(f"'{where}' is empty, expected lines as sha256sum writes them; download it again.")
    return sums


def listed_sum(text: str, name: str, where: str) -> str:
    """Return the SHA-256 that the text of a ``SHA256SUMS`` lists for a file.

    Raises:
        InputError: When it does not list the file, or cannot be read.
    """
    sums = read_sums(text, where)
    if name not in sums:
        raise InputError(
            f"'{where}' does not list '{name}'; give the sums of its release, and the file under the name that it was "
            f"published with.{suggest(name, sums)}"
        )
    return sums[name]


def check_sum(file: Path, sha256: str) -> None:
    """Compare a file with its published SHA-256.

    Raises:
        InputError: When they differ, or ``sha256`` is no SHA-256.
    """
    expected = sha256.strip().lower()
    if not SHA256.fullmatch(expected):
        raise InputError(f"sha256 is {sha256!r}, expected 64 hexadecimal digits; copy it again.")
    if (found := digest_of(file)) != expected:
        raise InputError(
            f"'{file.name}' is not the published file: its SHA-256 is {found}, expected {expected}; it was changed or "
            "cut short, so do not use it and download it again."
        )


def model_info(zips: Iterable[Path], repo: str, tag: str) -> dict[str, dict[str, str]]:
    """Return what MONAI reads at ``models/model_info.json`` of a tag to find the versions of bundles.

    Args:
        zips: the archives, ``<name>_v<version>.zip``.
        repo: owner and name of the repository on GitHub.
        tag: the release that the archives are attached to.

    Returns:
        SHA-1 (``checksum``) and address (``source``) by ``<name>_v<version>``.
    """
    return {
        path.stem: {
            "checksum": hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest(),
            "source": f"https://github.com/{repo}/releases/download/{tag}/{path.name}",
        }
        for path in sorted(zips)
    }
