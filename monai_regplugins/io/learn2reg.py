"""Displacement fields in the format of the Learn2Reg challenge: voxels of the grid that both images share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.grids import same_affine
from monai_regplugins.io.displacement import read_nifti_field
from monai_regplugins.io.field_grid import (
    Displacement,
    GridAffine,
    check_field,
    ddf_of_displacement,
    displacement_of_ddf,
)
from monai_regplugins.io.nifti import write_nifti

__all__ = ["learn2reg_name", "load_learn2reg", "write_learn2reg"]

IDENTIFIERS = re.compile(r"_(\d{4})(?:_(\d{4}))?(?:\.nii(?:\.gz)?)?$")  # subject and modality of an image


def learn2reg_name(fixed: str | Path | None, moving: str | Path | None) -> str:
    """Name a pair's field as Learn2Reg does, by the numbers at the end of the images' names.

    ``Lung_0001_0000`` and ``Lung_0001_0001`` give ``disp_0001_0001.nii.gz``: the fixed subject's number first. For
    other modalities than 0000 (fixed) and 0001 (moving) they are named too: ``disp_0001_0000_0002_0000.nii.gz``.

    Args:
        fixed: name or path of the fixed image; None if unknown.
        moving: the same of the moving image.

    Returns:
        the file name; images without numbers count as 0000 (fixed) and 0001 (moving).
    """
    found = [IDENTIFIERS.search(Path(image or "").name) for image in (fixed, moving)]
    if found[0] is None or found[1] is None:
        return "disp_0000_0001.nii.gz"
    (subject_f, modality_f), (subject_m, modality_m) = found[0].groups(), found[1].groups()
    if None in (modality_f, modality_m) or (modality_f, modality_m) == ("0000", "0001"):
        return f"disp_{subject_f}_{subject_m}.nii.gz"
    return f"disp_{subject_f}_{modality_f}_{subject_m}_{modality_m}.nii.gz"


def write_learn2reg(
    displacement_ras: Displacement,
    affine: GridAffine,
    path: Path,
    moving_affine: npt.ArrayLike | None,
    moving_shape: Sequence[int] | None,
) -> None:
    """Write a checked 3D field straight into ``path``: ``inv(A) D``, (X, Y, Z, 3), voxels, float32, identity affine.

    The challenge warps by ``moving[x + u(x)]`` with ``x`` in voxels, and reads no header.

    Args:
        displacement_ras: (3, X, Y, Z), mm, components in RAS.
        affine: voxel-to-RAS matrix of the fixed grid, (4, 4).
        path: the file, ``.nii`` or ``.nii.gz``.
        moving_affine: the same matrix of the moving image.
        moving_shape: number of voxels of the moving image along each axis.

    Raises:
        InputError: When the moving image's grid is not given or differs from the fixed one.
    """
    if moving_affine is None or moving_shape is None:
        raise InputError(
            "a Learn2Reg field needs the moving image's grid, since it counts voxels of one grid for both images; give "
            "moving_affine and moving_shape."
        )
    fixed_shape, shape = displacement_ras.shape[1:], tuple(int(n) for n in moving_shape)
    matrix = torch.as_tensor(np.asarray(moving_affine, dtype=np.float64))
    if shape != fixed_shape or not same_affine(torch.from_numpy(affine), matrix, shape):
        raise InputError(
            f"fixed and moving image lie on two grids (of {fixed_shape} and {shape} voxels), but a Learn2Reg field "
            "counts voxels of one; resample the moving image onto the fixed one first, or choose another format."
        )
    voxels = ddf_of_displacement(displacement_ras, affine)
    write_nifti(nib.Nifti1Image(np.moveaxis(voxels, 0, -1), np.eye(4)), path, voxels)


def load_learn2reg(path: str | Path, fixed_affine: npt.ArrayLike | None) -> tuple[Displacement, GridAffine]:
    """Read a Learn2Reg field, and place it on the fixed image's grid.

    Args:
        path: the file.
        fixed_affine: voxel-to-RAS matrix of the grid that the two images share, (4, 4); the file does not state it.

    Returns:
        the field ``A u``, (3, X, Y, Z), mm, components in RAS, and ``fixed_affine``.

    Raises:
        InputError: When the file is missing or no NIfTI file of shape (X, Y, Z, 3), or there is no affine.
    """
    header = read_nifti_field(path)
    if len(header.shape) != 4 or header.shape[3] != 3:
        raise InputError(f"'{path}' has shape {header.shape}, expected (X, Y, Z, 3) of Learn2Reg; give another file.")
    if fixed_affine is None:
        raise InputError(
            f"'{path}' is a Learn2Reg field, which counts voxels and has no grid; give the fixed image's affine."
        )
    voxels, matrix = check_field(np.moveaxis(header.values(path), -1, 0), fixed_affine)
    return displacement_of_ddf(voxels, matrix), matrix
