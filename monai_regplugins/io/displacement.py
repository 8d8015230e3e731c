"""Displacement fields as ITK and ANTs keep them in NIfTI files: 5 axes, intent 1007 (vector), LPS, mm."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, check_affine, check_file

__all__ = ["load_itk_nifti", "save_itk_nifti"]

VECTOR = 1007  # the NIfTI intent that ITK reads as a vector image whose components it leaves as they are
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0], dtype=np.float32)


def save_itk_nifti(displacement_ras: npt.ArrayLike, affine: npt.ArrayLike, path: str | Path) -> None:
    """Write a displacement field, whole or not at all.

    A point p of the fixed image's world goes to ``p + D(p)`` in the moving image's. The file holds (X, Y, Z, 1, 3),
    in 2D (X, Y, 1, 1, 2), float32, intent 1007, components in LPS, as SimpleITK's ``DisplacementFieldTransform`` and
    ``antsApplyTransforms`` expect them. A volume of one slice (Z = 1) is taken by SimpleITK for 2D, and then refused.

    Args:
        displacement_ras: (3, X, Y, Z) or (2, X, Y), mm, components in RAS.
        affine: voxel-to-RAS matrix of the field's grid, (4, 4), in 2D too.
        path: the file, ``.nii`` or ``.nii.gz``.

    Raises:
        InputError: When the field has another shape, ``affine`` is not (4, 4), has no inverse or has shear, which ITK
            cannot hold, a 2D grid leaves the world's x-y plane, or the suffix is another one.
    """
    field, matrix = np.asarray(displacement_ras, dtype=np.float32), np.asarray(affine, dtype=np.float64)
    target = Path(path)
    d = field.ndim - 1
    if d not in (2, 3) or field.shape[0] != d:
        raise InputError(f"the field has shape {field.shape}, expected (3, X, Y, Z) or (2, X, Y); give one field.")
    _check_grid(matrix, d)
    if not target.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"'{target}' is no NIfTI name, expected one that ends in .nii or .nii.gz; change it.")
    lps = (np.moveaxis(field, 0, -1) * RAS_TO_LPS[:d]).reshape(*field.shape[1:], *[1] * (4 - d), d)
    image = nib.Nifti1Image(lps, matrix)
    image.header.set_intent(VECTOR)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code="aligned")
    image.set_qform(image.affine, code="aligned")
    temporary = target.with_name(f".tmp-{target.name}")  # in front, since the suffix decides on compression
    try:
        nib.save(image, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def load_itk_nifti(path: str | Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Read a displacement field that :func:`save_itk_nifti`, ITK or ANTs has written.

    Args:
        path: the file.

    Returns:
        the field, (3, X, Y, Z) or (2, X, Y), mm, components in RAS, and the voxel-to-RAS matrix of its grid, (4, 4).

    Raises:
        InputError: When the file is missing, no NIfTI file, or no vector field of intent 1007.
    """
    file = check_file(path, "displacement field")
    try:
        image = nib.load(file)
        if not isinstance(image, nib.Nifti1Pair):
            raise TypeError(f"a file of type {type(image).__name__}")
        values = np.asarray(image.dataobj, dtype=np.float32)
    except Exception as error:  # nibabel raises anything on a foreign file
        raise InputError(f"displacement field '{path}' cannot be read as NIfTI; copy or export it again.") from error
    intent = int(image.header["intent_code"])
    d = values.shape[-1]
    if intent != VECTOR or values.ndim != 5 or values.shape[d:] not in ((1, 3), (1, 1, 2)):
        raise InputError(
            f"'{path}' has shape {values.shape} and intent {intent}, expected (X, Y, Z, 1, 3) or (X, Y, 1, 1, 2) and "
            f"intent {VECTOR}; export the field as an ITK displacement field."
        )
    lps = values.reshape(*values.shape[:d], d)
    return np.moveaxis(lps * RAS_TO_LPS[:d], -1, 0), np.asarray(image.affine, np.float64)


def _check_grid(affine: npt.NDArray[np.float64], d: int) -> None:
    """Check that ITK can hold a grid of ``d`` dimensions with this voxel-to-RAS matrix."""
    if affine.shape != (4, 4):
        raise InputError(f"affine of the field has shape {affine.shape}, expected (4, 4); give that of its grid.")
    check_affine(affine, "the field")
    if d == 2 and np.abs([affine[2, :2], affine[:2, 2]]).max() > 1e-3 * np.linalg.norm(affine[:3, :2], axis=0).min():
        raise InputError(
            "the grid of the 2D field leaves the world's x-y plane, which a 2D image of ITK cannot; save it in 3D, or "
            "give an affine that lies in that plane."
        )
