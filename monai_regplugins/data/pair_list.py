"""Lists of pairs to register: a CSV table with a header line, or a JSON array of objects.

Columns are ``fixed`` and ``moving``, and where there are such files ``fixed_label``, ``moving_label``, ``fixed_points``
and ``moving_points`` (voxel coordinates, or files of 3D Slicer, ANTs or elastix), ``fixed_mask`` (or ``mask``) and
``moving_mask``, the voxels that count, ``fixed_phase`` and ``moving_phase``, which volume of an image with several, and
``pair_id``, the name of the result. An empty cell is as good as none. Paths are relative to the folder of the list.
"""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_regplugins.checks import InputError, check_choice, suggest
from monai_regplugins.files.cells import from_cell
from monai_regplugins.keys import PHASE_KEYS
from monai_regplugins.readers.images import check_readable, scan_phases
from monai_regplugins.readers.phases import Phase, chosen_volume

__all__ = [
    "COLUMNS",
    "check_pair_id",
    "check_pair_ids",
    "list_rows",
    "named_pair",
    "phase_list",
    "read_pair_list",
    "stem_of",
]

Pair = dict[str, str]
Rows = Iterator[tuple[str, dict[str, Any]]]

COLUMNS = {  # and the keys of a pair that they fill
    "fixed": "fixed",
    "moving": "moving",
    "fixed_label": "fixed_label",
    "moving_label": "moving_label",
    "fixed_points": "fixed_keypoints",
    "moving_points": "moving_keypoints",
    "mask": "fixed_mask",
    "fixed_mask": "fixed_mask",
    "moving_mask": "moving_mask",
}
PAIR_ID = "pair_id"
RESERVED = ("metrics.csv", "report.html", "provenance.json", "mean", "sd")  # files beside the pairs' folders, and rows
LONGEST_ID = 200  # bytes; file systems take names of 255, temporary ones included
SUFFIXES = (
    ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".ome.tiff", ".ome.tif", ".tiff", ".tif",
    ".png", ".dcm",
)  # fmt: skip


def read_pair_list(path: PathLike) -> list[Pair]:
    """Read the pairs of a list.

    Args:
        path: a ``.csv`` or ``.json`` file.

    Returns:
        Absolute paths under the keys of :class:`~monai_regplugins.transforms.LoadPaird`, and the ``pair_id`` of each
        pair; those without one in the list are called ``<moving>_to_<fixed>``.

    Raises:
        InputError: When the list is missing, empty or damaged, a column is unknown, a pair lacks an image, or two pairs
            have one name. Whether the files of a pair exist is seen when it is loaded: the others can go on.
    """
    name, rows = f"pair list '{path}'", _rows(path, "pair list")
    if not rows:
        raise InputError(f"{name} holds no pair; give at least one with 'fixed' and 'moving'.")
    folder = Path(path).absolute().parent
    pairs = [_pair(row, folder, f"{place} of {name}") for place, row in rows]
    check_pair_ids(pairs, [place for place, _ in rows], name)
    return pairs


def list_rows(path: PathLike, what: str) -> list[tuple[str, dict[str, str]]]:
    """Read the rows of a list, whatever its columns are.

    Args:
        path: a ``.csv`` or ``.json`` file.
        what: what the list is, e.g. ``"list of phases"``.

    Returns:
        Of each row where it is in the file, e.g. ``"line 2"``, and its texts by column.

    Raises:
        InputError: When the file is missing or damaged, or holds something else than texts.
    """
    name = f"{what} '{path}'"
    return [
        (place, {column: _text(value, column, f"{place} of {name}") for column, value in row.items()})
        for place, row in _rows(path, what)
    ]


def _rows(path: PathLike, what: str) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a list, each with its place."""
    file, name = check_readable(path, what), f"{what} '{path}'"
    check_choice(file.suffix.lower(), _READERS, f"suffix of {name}")
    try:
        return list(_READERS[file.suffix.lower()](file, name))
    except InputError:
        raise
    except (ValueError, csv.Error, RecursionError) as error:  # damaged, or in another encoding than UTF-8
        raise InputError(f"{name} cannot be read ({' '.join(str(error).split())}); correct it.") from error


def check_pair_ids(pairs: Sequence[Mapping[str, Any]], places: Sequence[str] = (), source: str = "the list") -> None:
    """Check that every pair has a name of its own, also on disks that ignore case and Unicode's forms.

    Args:
        pairs: the pairs.
        places: where in ``source`` each comes from, for the message; by default its number.
        source: what they come from.

    Raises:
        InputError: When two names are the same, or one cannot be that of a folder beside the others.
    """
    seen: dict[str, tuple[str, str]] = {}
    for pair, place in zip(pairs, places or [f"pair {n}" for n in range(1, len(pairs) + 1)], strict=True):
        name = pair[PAIR_ID]
        check_pair_id(name, f" in {place} of {source}")
        other, first = seen.setdefault(_folded(name), (place, name))
        if other != place:
            alike = "" if first == name else " on disks that ignore case or the forms of Unicode"
            raise InputError(
                f"{place} of {source} has the same pair_id as {other}, '{first}'{alike}; give each pair its own under "
                "'pair_id'."
            )


def check_pair_id(name: str, where: str = "") -> None:
    """Check that a folder of results can have a name.

    Args:
        name: of a pair.
        where: what names it, for the message.

    Raises:
        InputError: When it cannot.
    """
    if not name.isprintable() or name.startswith(".") or any(slash in name for slash in "/\\"):
        raise InputError(
            f"pair_id {name!r}{where} names no folder, expected a name without slashes that does not begin with a dot; "
            "change it."
        )
    if _folded(name) in RESERVED:
        raise InputError(f"pair_id '{name}'{where} is reserved for what lies beside the pairs' folders; change it.")
    if len(name.encode()) > LONGEST_ID:
        raise InputError(
            f"pair_id '{name[:40]}...'{where} has {len(name.encode())} bytes, expected at most {LONGEST_ID}; give a "
            "shorter one under 'pair_id'."
        )


def _folded(name: str) -> str:
    """A name as disks compare it that ignore case and the forms of Unicode."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def named_pair(files: Mapping[str, str], where: str = "", pair_id: str = "") -> Pair:
    """A pair of files, with a name that a folder can have.

    Args:
        files: paths by their names in ``COLUMNS``, and the volumes of the images by ``PHASE_KEYS``.
        where: what names these files, for messages, e.g. ``" in line 3 of pair list 'pairs.csv'"``.
        pair_id: name of the pair; by default ``<moving>_to_<fixed>``, each with its volume, if one is reported.

    Raises:
        InputError: When no folder can have the name, see :func:`check_pair_id`, or the fixed mask is given twice.

    Example:
        >>> named_pair({"fixed": "ct", "moving": "ct", "fixed_phase": "0%", "moving_phase": "50%"})["pair_id"]
        'ct_50%_to_ct_0%'
    """
    if "mask" in files and "fixed_mask" in files:
        raise InputError(f"mask and fixed_mask are both given{where}, two names of one thing; give one of them.")
    name = pair_id or "_to_".join(_volume_name(files, side) for side in ("moving", "fixed"))
    check_pair_id(name, where)
    return {**{COLUMNS.get(column, column): path for column, path in files.items()}, PAIR_ID: name}


def _volume_name(files: Mapping[str, str], side: str) -> str:
    """The name of an image's file, and of the volume in it."""
    phase = re.sub(r"[\s/\\:]+", "-", files.get(f"{side}_phase", ""))
    return f"{stem_of(files[side])}_{phase}" if phase else stem_of(files[side])


def phase_list(path: PathLike, onto: str = "") -> list[Pair]:
    """The pairs of all volumes of an image onto one of them.

    Args:
        path: an image with several volumes: the folder of a DICOM series, or a file.
        onto: the fixed volume, by default the first one.

    Returns:
        Pairs by the columns of a list.

    Raises:
        InputError: When the image holds one volume, or none of this name.
    """
    name, phases = f"image '{path}'", scan_phases(path, "image")
    if len(phases) == 1:
        raise InputError(f"{name} holds one volume, expected several, such as the phases of a 4D-CT; give such a one.")
    fixed = phases[chosen_volume(phases, Phase(onto or phases[0], "onto"), name, "name")]
    place = os.path.abspath(path)
    return [
        {"fixed": place, "moving": place, "fixed_phase": fixed, "moving_phase": moving}
        for moving in phases
        if moving != fixed
    ]


def _pair(row: Mapping[str, Any], folder: Path, where: str) -> Pair:
    """The pair of one row."""
    known = [*COLUMNS, *PHASE_KEYS, PAIR_ID]
    if unknown := [column for column in row if column not in known]:
        raise InputError(
            f"{where} has an unknown column '{unknown[0]}', expected some of {', '.join(known)}; correct or remove "
            f"it.{suggest(str(unknown[0]), known)}"
        )
    given = {column: _text(value, column, where) for column, value in row.items()}
    files = {column: str(folder / given[column]) for column in COLUMNS if given.get(column)}
    if missing := [column for column in ("fixed", "moving") if column not in files]:
        raise InputError(f"{where} has no {' and no '.join(missing)} image; give both images of the pair.")
    phases = {column: given[column] for column in PHASE_KEYS if given.get(column)}
    return named_pair(files | phases, f" in {where}", given.get(PAIR_ID, ""))


def _text(value: Any, column: str, where: str) -> str:
    """The text of a cell, ``""`` for none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where} has {value!r} under '{column}', expected a text; write it in quotation marks.")
    return value.strip()


def _csv_rows(file: Path, name: str) -> Rows:
    """Yield the rows of a table, each with its line."""
    with file.open(encoding="utf-8-sig", newline="") as stream:  # spreadsheets begin with a byte order mark
        lines = csv.reader(stream, strict=True)
        columns = [column.strip() for column in next(lines, [])]
        if len(set(columns)) < len(columns):
            raise InputError(f"{name} has two columns of one name in {columns}; rename or remove one.")
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise InputError(
                    f"line {lines.line_num} of {name} has {len(cells)} cells, expected {len(columns)} as in its first "
                    "line; separate them by commas, and put paths that have one in quotation marks."
                )
            texts = (from_cell(cell.strip(" ")) for cell in cells)
            yield f"line {lines.line_num}", dict(zip(columns, texts, strict=True))


def _json_rows(file: Path, name: str) -> Rows:
    """Yield the objects of an array, each with its number."""
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise InputError(f'{name} is no array of objects; write [{{"fixed": path, "moving": path}}, ...].')
    for number, row in enumerate(content, start=1):
        yield f"entry {number}", row


_READERS: dict[str, Callable[[Path, str], Rows]] = {".csv": _csv_rows, ".json": _json_rows}


def stem_of(path: str) -> str:
    """The name of a file without its suffix, or of a folder.

    Example:
        >>> stem_of("scans/lung.nii.gz")
        'lung'
    """
    name = Path(os.path.abspath(path)).name  # unlike resolve(), this keeps the names of links
    if os.path.isdir(path):
        return name
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), Path(name).stem)
