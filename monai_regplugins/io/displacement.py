"""Displacement fields in NIfTI files of 5 axes, as ITK and ANTs keep them, and as 3D Slicer does.

The NIfTI intent distinguishes the two: 1007 (vector) goes with components in LPS, 1006 (displacement vector) with RAS.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.io.field_grid import (
    Displacement,
    GridAffine,
    check_field,
    check_plane,
    frame_signs,
)
from monai_regplugins.io.nifti import write_nifti
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.itk_world import itk_affine
from monai_regplugins.readers.nifti import NIFTI_SUFFIXES, nifti_place

__all__ = [
    "DISPLACEMENT_VECTOR",
    "VECTOR",
    "NiftiField",
    "load_itk_nifti",
    "load_slicer_nifti",
    "read_nifti_field",
    "save_itk_nifti",
    "write_itk_nifti",
    "write_slicer_nifti",
    "write_vectors",
]

PART = 1 << 20  # voxels that are read at once
VECTOR = 1007  # the NIfTI intent that ITK reads as a vector image whose components it leaves as they are
DISPLACEMENT_VECTOR = 1006  # the one whose components are in RAS; ITK from 5.4 on turns them into LPS


class NiftiField(NamedTuple):
    """A NIfTI file whose values have not been read yet.

    Attributes:
        image: the file's image; ``image.dataobj`` reads the values.
        shape: of the values.
        intent: the header's intent code.
    """

    image: Any
    shape: tuple[int, ...]
    intent: int

    def values(self, path: str | Path, copies: int = 2) -> npt.NDArray[np.float32]:
        """Read the values.

        Args:
            path: the file.
            copies: how many of them there will be at once, the one that is returned included.

        Raises:
            InputError: When the file is damaged, or larger than the memory allows.
        """
        check_memory(self.shape, 4 * copies, f"displacement field '{path}'", "read")
        values = np.empty(self.shape, np.float32, order="F")
        try:
            for part in _parts(self.shape):  # at once, a compressed file would take the double
                values[part] = self.image.dataobj[part]
            return values
        except Exception as error:  # nibabel raises anything on a damaged file
            raise _unreadable(path) from error


def read_nifti_field(path: str | Path) -> NiftiField:
    """Read the header of a NIfTI file.

    Raises:
        InputError: When the file is missing or no NIfTI file.
    """
    file = check_file(path, "displacement field")
    try:
        image = nib.load(file, mmap=False, keep_file_open=True)  # where a part ends, the next begins
        if not isinstance(image, nib.Nifti1Image):  # a pair of files, .hdr and .img, is none
            raise TypeError(f"a file of type {type(image).__name__}")
        return NiftiField(image, image.shape, int(image.header["intent_code"]))
    except Exception as error:  # nibabel raises anything on a foreign file
        raise _unreadable(path) from error


def save_itk_nifti(displacement_ras: npt.ArrayLike, affine: npt.ArrayLike, path: str | Path) -> None:
    """Write a displacement field for ITK and ANTs, whole or not at all.

    A point p of the fixed image's world goes to ``p + D(p)`` in the moving image's. The file holds (X, Y, Z, 1, 3),
    in 2D (X, Y, 1, 1, 2), float32, intent 1007, components in LPS, as SimpleITK's ``DisplacementFieldTransform`` and
    ``antsApplyTransforms`` expect them. A volume of one slice (Z = 1) is taken by SimpleITK for 2D, and then refused.

    Args:
        displacement_ras: (3, X, Y, Z) or (2, X, Y), mm, components in RAS.
        affine: voxel-to-RAS matrix of the field's grid, (4, 4), in 2D too.
        path: the file, ``.nii`` or ``.nii.gz``.

    Raises:
        InputError: When the field has another shape or is not finite, ``affine`` is not (4, 4), has no inverse or has
            shear, which ITK cannot hold, a 2D grid leaves the world's x-y plane, the suffix is another one, or the
            system refuses to write.
    """
    field, matrix = check_field(displacement_ras, affine)
    target = Path(path)
    if not target.name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"'{target}' is no NIfTI name, expected one that ends in .nii or .nii.gz; change it.")
    replace_file(target, lambda temporary: write_itk_nifti(field, matrix, temporary))


def write_itk_nifti(displacement_ras: Displacement, affine: GridAffine, path: Path) -> None:
    """Write what :func:`save_itk_nifti` does, of a checked field, straight into ``path``.

    Raises:
        InputError: When a 2D grid leaves the world's x-y plane.
    """
    check_plane(affine, len(displacement_ras))
    write_vectors(displacement_ras, affine, path, VECTOR, signs=frame_signs(len(displacement_ras)))


def load_itk_nifti(path: str | Path) -> tuple[Displacement, GridAffine]:
    """Read a displacement field that :func:`save_itk_nifti`, ITK or ANTs has written.

    Args:
        path: the file.

    Returns:
        the field, (3, X, Y, Z) or (2, X, Y), mm, components in RAS, and the voxel-to-RAS matrix of its grid, (4, 4).

    Raises:
        InputError: When the file is missing, no NIfTI file, or no vector field of intent 1007.
    """
    header = read_nifti_field(path)
    d = header.shape[-1]
    if header.intent != VECTOR or len(header.shape) != 5 or header.shape[d:] not in ((1, 3), (1, 1, 2)):
        raise InputError(
            f"'{path}' has shape {header.shape} and intent {header.intent}, expected (X, Y, Z, 1, 3) or "
            f"(X, Y, 1, 1, 2) and intent {VECTOR}; export the field as an ITK displacement field."
        )
    vectors, affine = _vectors(header, path)
    for component, sign in zip(vectors, frame_signs(d), strict=True):
        component *= sign  # in place: a field of a whole CT takes a gigabyte
    return vectors, affine


def write_slicer_nifti(displacement_ras: Displacement, affine: GridAffine, path: Path) -> None:
    """Write a checked 3D field for 3D Slicer straight into ``path``: (X, Y, Z, 1, 3), float32, intent 1006, RAS, mm.

    This is what the NIfTI standard means by a displacement field. ITK and ANTs read it right from ITK 5.4 on; for
    older ones :func:`save_itk_nifti` is the format.
    """
    write_vectors(displacement_ras, affine, path, DISPLACEMENT_VECTOR)


def load_slicer_nifti(path: str | Path) -> tuple[Displacement, GridAffine]:
    """Read a displacement field of intent 1006.

    Args:
        path: the file.

    Returns:
        the field, (3, X, Y, Z), mm, components in RAS, and the voxel-to-RAS matrix of its grid, (4, 4).

    Raises:
        InputError: When the file is missing, no NIfTI file, or no 3D field of intent 1006.
    """
    header = read_nifti_field(path)
    if header.intent != DISPLACEMENT_VECTOR or len(header.shape) != 5 or header.shape[3:] != (1, 3):
        raise InputError(
            f"'{path}' has shape {header.shape} and intent {header.intent}, expected (X, Y, Z, 1, 3) and intent "
            f"{DISPLACEMENT_VECTOR}; export the field from 3D Slicer as a displacement field."
        )
    return _vectors(header, path)


def write_vectors(
    vectors: Displacement,
    affine: GridAffine,
    path: Path,
    intent: int = 0,
    name: str = "",
    signs: npt.ArrayLike = 1,
) -> None:
    """Write ``(d, *spatial)`` straight into ``path`` as NIfTI vectors (X, Y, Z, 1, 3), in 2D (X, Y, 1, 1, 2), float32.

    Args:
        vectors: displacements or positions.
        affine: voxel-to-RAS matrix of the grid, (4, 4), in 2D too.
        path: the file, ``.nii`` or ``.nii.gz``.
        intent: the NIfTI intent code.
        name: the name of the intent.
        signs: what each component is multiplied by.
    """
    d, *size = vectors.shape
    image = nib.Nifti1Image(np.broadcast_to(np.float32(0), (*size, *[1] * (4 - d), d)), affine)
    image.header.set_intent(intent, name=name)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code="aligned")
    image.set_qform(image.affine, code="aligned")
    write_nifti(image, path, vectors, signs)


def _vectors(header: NiftiField, path: str | Path) -> tuple[Displacement, GridAffine]:
    """The vectors of a file as ``(d, *spatial)``, and its affine in mm, where ITK places it."""
    d = header.shape[-1]
    values = header.values(path, copies=1).reshape(*header.shape[:d], d)
    place = nifti_place(header.image.header)
    affine = None if place.certain else itk_affine(Path(path))
    return np.moveaxis(values, -1, 0), place.affine if affine is None else affine


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[slice | int, ...]]:
    """Indices of slabs of the third axis, in the order in which a file holds them."""
    depth = max(1, PART // (shape[0] * shape[1]))
    for last in np.ndindex(shape[:2:-1]):
        for start in range(0, shape[2], depth):
            yield (slice(None), slice(None), slice(start, start + depth), *last[::-1])


def _unreadable(path: str | Path) -> InputError:
    """The error for a damaged or foreign file."""
    return InputError(f"displacement field '{path}' cannot be read as NIfTI; copy or export it again.")
