"""Displacement fields in the package's own format: the ``ddf`` in voxels and its grid, compressed, lossless."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.io.field_grid import Displacement, GridAffine
from monai_regplugins.memory import check_memory

__all__ = ["load_native", "write_native"]

READING = 12  # bytes per number: unpacked, as an array, and in mm
TYPES = {"ddf": np.float32, "affine": np.float64}


def write_native(ddf: Displacement, affine: GridAffine, path: Path) -> None:
    """Write a field straight into ``path`` as NumPy's ``.npz``, compressed, with nothing rounded.

    Args:
        ddf: ``(d, *spatial)``, voxels of the grid, component k along array axis k: ``warped(x) = moving(x + ddf(x))``.
        affine: voxel-to-RAS matrix of the grid, (4, 4), in 2D too.
        path: the file, ``.npz``, with the entries ``ddf`` (float32) and ``affine`` (float64).
    """
    with path.open("wb") as stream:  # given a name, savez_compressed changes a suffix that it does not know
        np.savez_compressed(stream, ddf=np.asarray(ddf, np.float32), affine=np.asarray(affine, np.float64))


def load_native(path: str | Path) -> tuple[Displacement, GridAffine]:
    """Read what :func:`write_native` has written: the same numbers, in voxels.

    Raises:
        InputError: When the file is missing, damaged, has other entries, or is larger than the memory allows.
    """
    file = check_file(path, "displacement field")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            held = sum(member.file_size for member in archive.zip.infolist())
            check_memory((held // 4,), READING, f"displacement field '{path}'", "read")
            entries = {name: np.asarray(archive[name], TYPES.get(name, np.float64)) for name in archive.files}
    except InputError:
        raise
    except Exception as error:  # a damaged or foreign file can fail in any way inside zipfile
        raise InputError(f"displacement field '{path}' cannot be read as .npz; copy it or register again.") from error
    if entries.keys() != TYPES.keys() or entries["affine"].shape != (4, 4) or not _is_field(entries["ddf"].shape):
        held = ", ".join(f"{name} {array.shape}" for name, array in sorted(entries.items()))
        raise InputError(
            f"'{path}' holds {held or 'nothing'}, expected ddf (3, X, Y, Z) or (2, X, Y) and affine (4, 4); give the "
            "file that a registration wrote."
        )
    return entries["ddf"], entries["affine"]


def _is_field(shape: tuple[int, ...]) -> bool:
    """Whether this is the shape of a displacement field."""
    return len(shape) in (3, 4) and shape[0] == len(shape) - 1
