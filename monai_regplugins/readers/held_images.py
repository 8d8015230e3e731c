"""Images that nibabel, SimpleITK and TorchIO hold in memory, with their geometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from monai_regplugins.checks import InputError
from monai_regplugins.readers.images import itk_image_affine, real_values

__all__ = ["held_image"]


def held_image(source: Any) -> Any:
    """Return an image of nibabel, SimpleITK or TorchIO as a MetaTensor, voxels to RAS mm; anything else as it is.

    Args:
        source: an image, its path, an array.

    Returns:
        A tensor of shape ``(*spatial)``, of TorchIO ``(1, *spatial)``; whole numbers stay whole.

    Raises:
        InputError: When a voxel has several values.

    Example:
        >>> import SimpleITK as sitk
        >>> image = sitk.Image([4, 5, 6], sitk.sitkInt16)
        >>> image.SetOrigin([1.0, 2.0, 3.0])
        >>> tensor = held_image(image)
        >>> tuple(tensor.shape), tensor.affine[:3, 3].tolist()
        ((4, 5, 6), [-1.0, -2.0, 3.0])
    """
    libraries = [kind.__module__.partition(".")[0] for kind in type(source).__mro__]
    take = next((TAKERS[library] for library in libraries if library in TAKERS), None)
    return source if take is None else take(source)


def _of_nibabel(image: Any) -> MetaTensor:
    return _placed(np.asanyarray(image.dataobj), image.affine, "nibabel")


def _of_simpleitk(image: Any) -> MetaTensor:
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    _check_one(image.GetNumberOfComponentsPerPixel(), "SimpleITK")
    return _placed(sitk.GetArrayFromImage(image).T, itk_image_affine(image), "SimpleITK")


def _of_torchio(image: Any) -> MetaTensor:
    _check_one(len(image.data), "TorchIO")
    return _placed(image.data, image.affine, "TorchIO")


def _check_one(values: int, library: str) -> None:
    """Check that a voxel has one value."""
    if values != 1:
        raise InputError(f"an image of {library} has {values} values per voxel, expected 1; give one of them.")


def _placed(values: Any, affine: Any, library: str) -> MetaTensor:
    """Return values with the matrix of their voxels."""
    matrix = torch.eye(4, dtype=torch.float64) if affine is None else torch.as_tensor(np.array(affine, dtype=float))
    return MetaTensor(real_values(values, f"an image of {library}", exact=True), affine=matrix)


TAKERS: dict[str, Callable[[Any], MetaTensor]] = {
    "nibabel": _of_nibabel,
    "SimpleITK": _of_simpleitk,
    "torchio": _of_torchio,
}
