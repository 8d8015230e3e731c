r"""Transforms of MINC, ``.xfm``: read as maps of points from the fixed to the moving image.

The file is a text that lists linear transforms and displacement fields, each in RAS mm and each perhaps to be inverted.
A point of the *moving* image goes through them in this order, :math:`x = T_n(\dots T_1(y))`; ``mincresample``, which
makes an image of the moving one, looks each point up by the inverse. A field is in a MINC file of its own beside the
text, a displacement for each voxel; from MINC's own programs a field between voxels differs, for they interpolate it by
cubic polynomials.

Source: volume_io of the MINC toolkit, ``transform_io.c`` and ``mincresample``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, check_file, import_optional
from monai_regplugins.io.field_grid import Displacement, GridAffine, check_field
from monai_regplugins.io.point_map import FieldMap, InverseMap, LinearMap, PointMap, grid_points
from monai_regplugins.memory import check_memory

__all__ = ["MINC_TEXT", "read_minc_transform"]

MINC_TEXT = b"MNI Transform File"
READING = 24  # bytes per number: as stored, scaled (float64) and in float32
LARGEST_TEXT = 2**20  # bytes


def read_minc_transform(path: str | Path) -> list[PointMap]:
    """Read a transform of MINC.

    Returns:
        what it is made of, in the order in which a point of the fixed image meets them, RAS mm.

    Raises:
        InputError: When the file or that of a field is missing, damaged, or holds something else.
    """
    file = check_file(path, "transform")
    return [_inverse(part, file) for part in reversed(_parts(file))]


def _parts(file: Path) -> list[dict[str, str]]:
    """What a file states of each transform, by keyword."""
    with file.open("rb") as stream:
        content = stream.read(LARGEST_TEXT)
    text = re.sub(r"%.*", "", content.decode("latin-1"))
    parts: list[dict[str, str]] = []
    for keyword, value in re.findall(r"(\w+)\s*=\s*([^;]*);", text):
        if keyword == "Transform_Type":
            parts.append({})
        if parts:
            parts[-1][keyword] = value.strip()
    if not parts or not content.startswith(MINC_TEXT):
        raise _unreadable(file)
    return parts


def _inverse(part: dict[str, str], file: Path) -> PointMap:
    """The inverse of one transform, which is what the fixed image is made by."""
    inverted = part.get("Invert_Flag", "False").lower() == "true"
    if part["Transform_Type"] == "Linear":
        matrix = _matrix(part.get("Linear_Transform", ""), file)
        return LinearMap(matrix if inverted else np.linalg.inv(matrix))
    if part["Transform_Type"] != "Grid_Transform":
        raise InputError(
            f"'{file}' holds a {part['Transform_Type']}, expected matrices and displacement fields (Linear, "
            "Grid_Transform); make a field of it with xfm2def."
        )
    field = FieldMap(*_read_grid(file, part.get("Displacement_Volume", "")))
    return field if inverted else InverseMap(field, grid_points(field.affine, field.shape))


def _matrix(words: str, file: Path) -> npt.NDArray[np.float64]:
    """Three rows of four numbers, as (4, 4)."""
    try:
        matrix = np.vstack([np.array(words.split(), np.float64).reshape(3, 4), [0, 0, 0, 1]])
    except ValueError as error:
        raise _unreadable(file) from error
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise InputError(
            f"transform '{file}' holds a matrix without inverse, expected one that has it; check the file."
        )
    return matrix


def _read_grid(file: Path, name: str) -> tuple[Displacement, GridAffine]:
    """The field in a MINC file beside the text."""
    if not name or Path(name).name != name:
        raise InputError(
            f"'{file}' names '{name}' as the file of its field, expected a plain name in its folder; put both there."
        )
    grid = check_file(file.with_name(name), "displacement field")
    with grid.open("rb") as stream:
        if stream.read(3) == b"CDF":
            raise InputError(f"displacement field '{grid}' is of MINC 1, expected MINC 2; convert it (mincconvert -2).")
    h5py = import_optional("h5py", "MINC files", "h5py>=3.8")
    try:
        with h5py.File(grid, "r") as stored:
            names = stored["minc-2.0/image/0/image"].attrs["dimorder"].decode().split(",")
        image: Any = nib.load(grid)
        check_memory(image.shape, READING, f"displacement field '{grid}'", "read")
        values = np.moveaxis(np.asarray(image.dataobj, np.float32), names.index("vector_dimension"), 0)
    except InputError:
        raise
    except Exception as error:  # nibabel and HDF5 raise anything on a damaged or foreign file
        raise InputError(f"displacement field '{grid}' cannot be read as MINC; copy or export it again.") from error
    spatial = [one for one in names if one != "vector_dimension"]
    order = [spatial.index(axis) for axis in ("xspace", "yspace", "zspace")]
    affine = np.asarray(image.affine, np.float64)[:, [*order, 3]]
    return check_field(values.transpose(0, *(1 + axis for axis in order)), affine)


def _unreadable(file: Path) -> InputError:
    return InputError(f"transform '{file}' cannot be read in the format 'minc'; copy or export it again.")
