"""Warps of FreeSurfer and SynthMorph in ``.mgz`` files, read and written.

The file is that of an image of three frames whose version number carries an intent; behind the values stand the
geometries of the source (moving) and the target (fixed) image and what the numbers are:

==========  ====================================================
kind        at a voxel x of the target
==========  ====================================================
0           position in the source, voxels
1           the same minus x, voxels
2           position in the source, RAS mm
3           the same minus the position of x, RAS mm
==========  ====================================================

All of them pull: the value states where to look in the source. Numbers are big-endian. The same warps in NIfTI files
are of the format ``slicer_nifti``.

Source: FreeSurfer 7.4, ``warpfield.cpp`` and ``mri.h``, and surfa 0.6.3, ``io/framed.py``.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import IO, cast

import numpy as np

from monai_regplugins.checks import InputError
from monai_regplugins.io.field_grid import Displacement, GridAffine, plus_map, translation
from monai_regplugins.io.linear import centered
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.image_grid import ImageGrid

__all__ = ["WARP_SUFFIXES", "read_freesurfer_warp", "write_freesurfer_warp"]

WARP_SUFFIXES = (".mgz", ".mgh")
HEADER = struct.Struct(">7ih15f194x")  # version, shape, type, an unused number, is there a place, place; 284 bytes
GEOMETRY = struct.Struct(">4i15f512x")  # is it valid, shape, voxel size, axes, center, name of a file
META = struct.Struct(">iif")  # kind, spacing, an unused number
VERSION, WARP, FLOAT = 1, 3, 3
SCAN = bytes(20)  # times and angles of a scan
GEOMETRIES, META_TAG = 10, 13
OLD_LENGTH, WITHOUT_LENGTH = 30, (1, 2, 10, 11, 12, 20)  # tags whose length has 4 bytes, or is known
READING = 12  # bytes per number: as stored, in the machine's order, in RAS mm
BY_VOXELS = (0, 1)


def read_freesurfer_warp(
    path: Path, fixed: ImageGrid | None = None, moving: ImageGrid | None = None
) -> tuple[Displacement, GridAffine]:
    """Read a warp; the images, which it states itself, are not used.

    Raises:
        InputError: When the file is damaged, an image, or a warp of a coarser grid or of an unknown kind.
    """
    try:
        with _opened(path, "rb") as stream:
            values = _read_values(stream, path)
            source, target, kind = _read_tags(stream, path)
    except InputError:
        raise
    except Exception as error:  # a damaged or foreign file can fail in any way
        raise InputError(f"displacement field '{path}' cannot be read as MGZ; copy or export it again.") from error
    if target.shape != values.shape[1:]:
        raise InputError(
            f"'{path}' is a warp of {values.shape[1:]} voxels for an image of {target.shape}, expected one for each "
            "voxel; save it at full resolution."
        )
    to_ras, own = source.affine, target.affine
    rest = (translation(to_ras) - own, to_ras - own, -own, 0 * own)[kind]
    return plus_map(values, rest, to_ras[:3, :3] if kind in BY_VOXELS else None), own


def _opened(path: Path, mode: str) -> IO[bytes]:
    """Open a file, by its first bytes or for writing by its name compressed."""
    if mode == "rb":
        with path.open("rb") as stream:
            compressed = stream.read(2) == b"\x1f\x8b"
    else:
        compressed = path.name.lower().endswith("z")
    return cast("IO[bytes]", gzip.open(path, mode, compresslevel=1) if compressed else path.open(mode))


def _read_values(stream: IO[bytes], path: Path) -> Displacement:
    """The numbers of a warp, (3, X, Y, Z)."""
    version, *shape, kind, _, _ = HEADER.unpack(stream.read(HEADER.size))[:8]
    if version & 255 != VERSION or min(shape) < 1:
        raise ValueError(f"version {version}, shape {shape}")
    if (version >> 8) & 0xFFFF != WARP or shape[3] != 3 or kind != FLOAT:
        raise InputError(
            f"'{path}' is an image of {shape[3]} frames, expected a warp of FreeSurfer or SynthMorph; give that."
        )
    check_memory(tuple(shape), READING, f"displacement field '{path}'", "read")
    values = np.empty((3, *shape[:3]), np.float32)
    for component in values:
        content = stream.read(4 * component.size)
        component[:] = np.frombuffer(content, ">f4").reshape(component.shape, order="F")
    return values


def _read_tags(stream: IO[bytes], path: Path) -> tuple[ImageGrid, ImageGrid, int]:
    """The grids of the source and the target image and the kind of the numbers; other things are passed over."""
    stream.read(len(SCAN))
    grids: list[ImageGrid] = []
    kind = -1
    while len(number := stream.read(4)) == 4 and (tag := int.from_bytes(number, "big")):
        if tag == GEOMETRIES:
            grids = [_geometry(GEOMETRY.unpack(stream.read(GEOMETRY.size))) for _ in range(2)]
            continue
        if tag in WITHOUT_LENGTH:
            break
        content = stream.read(int.from_bytes(stream.read(4 if tag == OLD_LENGTH else 8), "big"))
        if tag == META_TAG:
            kind, spacing, _ = META.unpack(content)
            kind = kind if spacing == 1 else -1
    if not grids or kind not in range(4):
        raise InputError(
            f"'{path}' does not state what its numbers are, expected two geometries and a kind of 0 to 3 at spacing 1; "
            "save it by a newer FreeSurfer or SynthMorph."
        )
    return grids[0], grids[1], kind


def _geometry(numbers: tuple[float, ...]) -> ImageGrid:
    """The grid of an image as FreeSurfer describes it."""
    shape = tuple(int(n) for n in numbers[1:4])
    size, axes, center = np.split(np.array(numbers[4:], np.float64), [3, 12])
    return ImageGrid(centered(axes.reshape(3, 3).T * size, np.array(shape), center), shape)


def write_freesurfer_warp(
    displacement_ras: Displacement, affine: GridAffine, path: Path, moving: ImageGrid | None
) -> None:
    """Write a checked 3D field straight into ``path``: displacements, RAS mm (kind 3), for ``mri_convert -at``.

    Args:
        displacement_ras: (3, X, Y, Z), mm, components in RAS.
        affine: voxel-to-RAS matrix of the fixed grid, (4, 4).
        path: the file, ``.mgz`` or ``.mgh``.
        moving: grid of the moving image.

    Raises:
        InputError: When the moving image's grid is not given.
    """
    if moving is None:
        raise InputError("a warp of FreeSurfer states both images; give the moving image, too.")
    target = ImageGrid(affine, displacement_ras.shape[1:])
    with _opened(path, "wb") as stream:
        head = (VERSION + (WARP << 8), *target.shape, 3, FLOAT, 0, 1, *_place(target))
        stream.write(HEADER.pack(*head))
        for component in displacement_ras:
            stream.write(component.astype(">f4").tobytes(order="F"))
        stream.write(SCAN + GEOMETRIES.to_bytes(4, "big"))
        for grid in (moving, target):
            stream.write(GEOMETRY.pack(1, *grid.shape, *_place(grid)))
        stream.write(META_TAG.to_bytes(4, "big") + META.size.to_bytes(8, "big") + META.pack(3, 1, 0.0))


def _place(grid: ImageGrid) -> list[float]:
    """Voxel size, axes and center of a grid."""
    size = np.linalg.norm(grid.affine[:3, :3], axis=0)
    center = grid.affine[:3, :3] @ (np.array(grid.shape) / 2) + grid.affine[:3, 3]
    return [*size.tolist(), *(grid.affine[:3, :3] / size).T.ravel().tolist(), *center.tolist()]
