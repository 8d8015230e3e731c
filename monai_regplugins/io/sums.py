"""Read ``SHA256SUMS`` and verify weights against it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from monai_regplugins.checks import InputError
from monai_regplugins.io.provenance import digest_of

__all__ = ["check_sum", "check_weights", "read_sums"]

logger = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
SUMS_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")  # as sha256sum writes it, for text or binary files
SHA256 = re.compile(r"[0-9a-f]{64}")


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


def check_weights(weights: str | Path) -> None:
    """Compare weights with the ``SHA256SUMS`` of the bundle they lie in: in its folder, theirs, or any in between.

    Names in a list count from its own folder or from that of the bundle. Weights outside of a bundle are compared with
    a list in their own folder. Without a list there is nothing to compare; lists that do not name the weights are
    logged in one line.

    Args:
        weights: an existing file.

    Raises:
        InputError: When a list names the weights with another digest, or cannot be read.
    """
    file = Path(weights)
    folders = _folders_around(file)
    lists = [folder / SUMS for folder in folders if (folder / SUMS).is_file()]
    named = False
    for path in lists:
        sums = read_sums(path.read_text(encoding="utf-8", errors="replace"), str(path))
        for name, digest in sums.items():
            if file.resolve() in [(folder / name).resolve() for folder in folders]:
                named = True
                check_sum(file, digest)
    if lists and not named:
        logger.warning(
            "'%s' does not list '%s', so it is unknown whether these are the published weights.", lists[0], file.name
        )


def _folders_around(file: Path) -> list[Path]:
    """The folders from that of a file up to the bundle it lies in, which has ``configs``; its own outside of one."""
    folders = list(file.absolute().parents)
    roots = [number for number, folder in enumerate(folders) if (folder / "configs").is_dir()]
    return folders[: roots[0] + 1 if roots else 1]
