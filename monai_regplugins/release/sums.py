"""Digests of what is published: ``SHA256SUMS`` and the list that MONAI reads, ``models/model_info.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from monai_regplugins.checks import InputError, suggest
from monai_regplugins.io.provenance import digest_of
from monai_regplugins.io.sums import check_sum, read_sums

__all__ = ["check_sum", "listed_sum", "model_info", "read_sums", "sums_text"]


def sums_text(files: Iterable[Path]) -> str:
    """Return the SHA-256 of files in the format of ``sha256sum``, sorted by name."""
    return "".join(f"{digest_of(file)}  {file.name}\n" for file in sorted(files, key=lambda file: file.name))


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
