"""Points in the files that people have: voxels or mm, of 3D Slicer, ANTs, elastix, or a plain table.

================  =======================================================  ==========================================
kind              file                                                     its numbers
================  =======================================================  ==========================================
``fcsv``          ``.fcsv`` of 3D Slicer                                   mm, RAS or LPS as ``CoordinateSystem`` says
``markups``       ``.mrk.json`` or ``.json`` of 3D Slicer                  the same, ``coordinateSystem``
``ants``          table with the header ``x,y,z,t``                        mm, LPS
``elastix``       first line ``point`` or ``index``, then the number       mm, LPS, or voxels
``table``         numbers separated by commas, semicolons or blanks, with  voxels, if nothing else is said
                  or without a line of names
================  =======================================================  ==========================================

The first four are written by programs that place an image as ITK does.

Sources: https://slicer.readthedocs.io/en/latest/developer_guide/modules/markups.html (file formats),
https://github.com/ANTsX/ANTs/wiki/Using-ANTs-with-points, and the manual of elastix, section 4.3 (transformix).
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.files.atomic import write_file
from monai_regplugins.grids import LPS_TO_RAS

__all__ = [
    "HOW_MM_BECOME_VOXELS",
    "POINT_SPACES",
    "PointFile",
    "points_in_voxels",
    "points_in_world",
    "read_points",
    "write_points",
]

Array = npt.NDArray[Any]

POINT_SPACES = ("voxel", "ras", "lps")
SLICER_SPACES = {"0": "ras", "1": "lps", "ras": "ras", "lps": "lps"}
BY_ITK = ("fcsv", "markups", "ants", "elastix")
LARGEST_FILE = 2**28  # bytes
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
HOW_MM_BECOME_VOXELS = "points_space ras or lps makes voxels of points in mm, by the inverse of their image's affine"


class PointFile(NamedTuple):
    """Points as a file holds them.

    Attributes:
        points: (N, d) or, of a file in mm for a 2D image, (N, 3).
        space: ``voxel``, ``ras`` or ``lps``.
        kind: of the file, see the table of the module.
        names: a name for each point, empty without.
    """

    points: Array
    space: str
    kind: str
    names: tuple[str, ...] = ()


def read_points(path: Path, what: str, space: str | None = None) -> PointFile:
    """Read a file of points; its suffix and first line state of what kind it is.

    Args:
        path: an existing file.
        what: what the points are, e.g. ``"fixed points"``.
        space: what the numbers are, one of ``POINT_SPACES``; None for what the file says, in a plain table voxels.

    Raises:
        InputError: When the file holds no points, contradicts ``space``, or is damaged.
    """
    if space is not None:
        check_choice(space, POINT_SPACES, "points_space")
    try:
        found = _parse(path.name.lower().removesuffix(path.suffix if path.suffix in _OPENERS else ""), _text(path))
    except InputError:
        raise
    except Exception as error:  # a foreign or damaged file can fail in any way
        raise InputError(
            f"{what} '{path}' cannot be read as points, expected x, y, z in each line (commas, semicolons or blanks "
            f"between them), or a file of 3D Slicer, ANTs or elastix; {HOW_MM_BECOME_VOXELS}."
        ) from error
    if space is not None and found.kind != "table" and space != found.space:
        raise InputError(
            f"{what} '{path}' says itself that its numbers are {found.space}, but points_space is '{space}'; leave "
            "points_space out for this file."
        )
    return found._replace(space=space or found.space)


def points_in_world(found: PointFile, affine: Array, itk: Array | None = None) -> Array:
    """Bring points into the world of this package, RAS mm, (N, 3), or (N, d) for an affine of d dimensions.

    Args:
        found: the points.
        affine: voxel-to-RAS matrix of their image, (d + 1, d + 1).
        itk: the map from this package's world to ITK's for that image, (4, 4); None where they are one.
    """
    d = len(affine) - 1
    points = found.points[:, :d]
    if found.space == "voxel":
        return _moved(points, affine)
    points = points * np.diag(LPS_TO_RAS)[:d] if found.space == "lps" else points
    if itk is not None and found.kind in BY_ITK:
        kept = [*range(d), 3]
        points = _moved(points, np.linalg.inv(itk)[kept][:, kept])
    return points


def points_in_voxels(found: PointFile, affine: Array, itk: Array | None = None) -> Array:
    """Bring points into voxels of their image, (N, d); arguments as of :func:`points_in_world`.

    Example:
        >>> found = PointFile(np.array([[-10.0, -20.0, 30.0]]), "lps", "ants")
        >>> points_in_voxels(found, np.diag([2.0, 2.0, 3.0, 1.0])).tolist()
        [[5.0, 10.0, 10.0]]
    """
    d = len(affine) - 1
    if found.space == "voxel":
        return found.points[:, :d]
    return _moved(points_in_world(found, affine, itk), np.linalg.inv(affine))


def _moved(points: Array, matrix: Array) -> Array:
    """Points (N, d) through a homogeneous matrix."""
    moved: Array = points @ matrix[:-1, :-1].T + matrix[:-1, -1]
    return moved


def write_points(path: Path, found: PointFile) -> None:
    """Write points as a file of their kind, whole or not at all, with all digits of their numbers.

    Args:
        path: the file.
        found: the points; those of the kinds ``fcsv``, ``markups`` and ``ants`` are mm.

    Raises:
        InputError: When the kind cannot hold voxels, or the system refuses to write.
    """
    if found.space == "voxel" and found.kind in ("fcsv", "markups", "ants"):
        raise InputError(f"'{path}' would hold voxels, expected mm in a file of the kind {found.kind}; name a .csv.")
    write_file(path, _WRITERS[found.kind](found).encode())


def _text(path: Path) -> str:
    """The content of a file, which may be compressed."""
    with _OPENERS.get(path.suffix, Path.open)(path, "rb") as stream:
        content = stream.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError("too large for points")
    text: str = content.decode("utf-8-sig")
    return text


def _parse(name: str, text: str) -> PointFile:
    """The points of a file of this name, in lower case."""
    if name.endswith(".json"):
        return _parse_markups(text)
    if name.endswith(".fcsv"):
        return _parse_fcsv(text)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    first = lines[0].lower()
    if first in ("point", "index"):
        numbers = _table(lines[2:])
        if len(numbers) != int(lines[1]):
            raise ValueError("another number of points than it says")
        return _checked(numbers, "lps" if first == "point" else "voxel", "elastix")
    if re.match(r"\"?x\"?\s*,\s*\"?y\"?\s*,\s*\"?z\"?\s*,\s*\"?t\"?", first):
        return _checked(_table([",".join(line.split(",")[:3]) for line in lines[1:]]), "lps", "ants")
    named = re.search(r"[a-z]", re.sub(r"\d[ed][+-]?\d|nan|inf", "", first)) is not None
    return _checked(_table(lines[1:] if named else lines), "voxel", "table")


def _table(lines: Sequence[str]) -> Array:
    """Numbers between commas, semicolons or blanks."""
    return np.array([[float(word) for word in re.split(r"\s*[,;]\s*|\s+", line)] for line in lines], np.float64)


def _checked(points: Array, space: str, kind: str, names: Iterable[str] = ()) -> PointFile:
    """Points of a file, if there are any and all are finite."""
    if points.ndim != 2 or points.shape[1] not in (2, 3) or not len(points):
        raise ValueError("no points")
    if not np.isfinite(points).all():
        raise ValueError("a coordinate that is not finite")
    return PointFile(points, space, kind, tuple(names))


def _parse_fcsv(text: str) -> PointFile:
    """Fiducials of 3D Slicer: lines ``# key = value``, then ``id,x,y,z,...,label,...``."""
    about = dict(re.findall(r"^#\s*(\w+)\s*=\s*(\S+)", text, re.MULTILINE))
    columns = about.get("columns", "id,x,y,z").split(",")
    rows = [row for row in csv.reader(text.splitlines()) if row and not row[0].startswith("#")]
    at = [columns.index(axis) for axis in "xyz"]
    names = [row[columns.index("label")] for row in rows] if "label" in columns else []
    points = np.array([[float(row[k]) for k in at] for row in rows])
    return _checked(points, SLICER_SPACES[about["CoordinateSystem"].lower()], "fcsv", names)


def _parse_markups(text: str) -> PointFile:
    """The control points of the only list in a markups file of 3D Slicer."""
    (markup,) = json.loads(text)["markups"]
    controls: list[dict[str, Any]] = markup["controlPoints"]
    points = np.array([control["position"] for control in controls], np.float64)
    space = SLICER_SPACES[str(markup.get("coordinateSystem", "LPS")).lower()]
    return _checked(points, space, "markups", [str(control.get("label", "")) for control in controls])


def _names(found: PointFile) -> list[str]:
    """A name for each point."""
    names = list(found.names) if len(found.names) == len(found.points) else []
    return names or [f"F-{number}" for number in range(1, len(found.points) + 1)]


def _lines(points: Array, separator: str) -> list[str]:
    """A line for each point, with all digits."""
    return [separator.join(repr(float(number)) for number in point) for point in points]


def _fcsv(found: PointFile) -> str:
    head = ["# Markups fiducial file version = 4.11", f"# CoordinateSystem = {found.space.upper()}"]
    head.append("# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID")
    named = zip(_lines(found.points, ","), _names(found), strict=True)
    rows = [f"{number},{line},0,0,0,1,1,1,0,{_cell(name)},," for number, (line, name) in enumerate(named, 1)]
    return "\n".join([*head, *rows, ""])


def _cell(name: str) -> str:
    """A name as a cell of a table."""
    return '"' + name.replace('"', '""') + '"' if re.search(r'[",\n]', name) else name


def _markups(found: PointFile) -> str:
    named = zip(found.points.tolist(), _names(found), strict=True)
    controls = [{"id": str(k), "label": name, "position": point} for k, (point, name) in enumerate(named, 1)]
    markup = {"type": "Fiducial", "coordinateSystem": found.space.upper(), "controlPoints": controls}
    schema = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    return json.dumps({"@schema": f"{schema}markups-schema-v1.0.3.json#", "markups": [markup]}, indent=2) + "\n"


def _ants(found: PointFile) -> str:
    whole = np.pad(found.points, ((0, 0), (0, 3 - found.points.shape[1])))
    return "\n".join(["x,y,z,t", *(f"{line},0" for line in _lines(whole, ",")), ""])


def _elastix(found: PointFile) -> str:
    kind = "index" if found.space == "voxel" else "point"
    return "\n".join([kind, str(len(found.points)), *_lines(found.points, " "), ""])


def _plain(found: PointFile) -> str:
    return "\n".join([*_lines(found.points, ","), ""])


_WRITERS = {"fcsv": _fcsv, "markups": _markups, "ants": _ants, "elastix": _elastix, "table": _plain}
