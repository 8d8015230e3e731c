r"""Placement of image files by ITK, and the map from this package's world to ITK's where the two differ.

A file whose header gives one position has one world. Others do not: a NIfTI file with two positions, with none, or with
voxel sizes that contradict its matrix; a picture, whose first axis ITK points to the left. With ``A`` the matrix that
:mod:`~monai_regplugins.readers.nifti` takes and ``A_itk`` that of ITK, both voxels to RAS mm, the map is
:math:`W = A_{itk} A^{-1}`: it holds for every grid that is cut from the file's or has other voxels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from monai_regplugins.grids import LPS_TO_RAS, grid_distance
from monai_regplugins.keys import ITK_KEY

__all__ = ["itk_affine", "itk_world_of", "note_itk_world"]

Array = npt.NDArray[Any]

NO_DIFFERENCE = 1e-3  # voxels


def itk_affine(file: Path) -> Array | None:
    """Ask ITK for the voxel-to-RAS matrix of a file, by its header alone.

    Returns:
        The matrix (4, 4), in 2D with 1 along z; None where ITK cannot read the file, such as NIfTI-2, or refuses its
        matrix.
    """
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    reader, spoken = sitk.ImageFileReader(), sitk.ProcessObject.GetGlobalWarningDisplay()
    reader.SetFileName(str(file))
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # pages about a header that contradicts itself
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(spoken)
    size, affine = reader.GetDimension(), np.eye(4)
    d = min(size, 3)
    affine[:d, :d] = (np.reshape(reader.GetDirection(), (size, size)) * np.asarray(reader.GetSpacing()))[:d, :d]
    affine[:d, 3] = reader.GetOrigin()[:d]
    result: Array = LPS_TO_RAS @ affine
    return result


def note_itk_world(affine: Array, itk: Array | None, shape: tuple[int, ...]) -> dict[str, str]:
    """Metadata that describe ITK's world, where it is another one.

    Args:
        affine: voxel-to-RAS matrix of the file, (4, 4).
        itk: the same by ITK; None if ITK cannot read it.
        shape: voxels along each axis; with two, the third axis does not count.

    Returns:
        ``{ITK_KEY: text}`` with the map ``W`` as text, because texts pass through any data loader; else nothing.
    """
    if itk is None:
        return {}
    if len(shape) == 2:
        itk = np.block([[itk[:2, :2], affine[:2, 2:3], itk[:2, 3:]], [affine[2:]]])
    ours, theirs = torch.from_numpy(affine), torch.from_numpy(itk)
    there, back = grid_distance(ours, theirs, shape[:3]), grid_distance(theirs, ours, shape[:3])
    if there <= NO_DIFFERENCE or not np.isfinite([there, back]).all():
        return {}
    return {ITK_KEY: json.dumps((itk @ np.linalg.inv(affine)).tolist())}


def itk_world_of(image: MetaTensor) -> Array | None:
    """The map from this package's world to ITK's for a loaded image, (4, 4), RAS mm; None where they are one.

    Example:
        >>> itk_world_of(MetaTensor(torch.zeros(1, 2, 2, 2))) is None
        True
    """
    text = image.meta.get(ITK_KEY)
    return None if text is None else np.array(json.loads(text))
