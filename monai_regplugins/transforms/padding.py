"""Edge padding: replace a constant frame around an image by its nearest voxels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform
from torch.nn import functional

from monai_regplugins.grids import as_meta_tensor
from monai_regplugins.keys import IMAGE_KEYS

__all__ = ["ExtendBorderd", "extend_border"]


class ExtendBorderd(Transform):
    """Replace the constant frame around each image of a pair by its nearest scanned voxels.

    Crops that were padded to one size end in an edge stronger than any anatomy, and a network learns to match frames.
    Sets ``moving_extended``.

    Args:
        enabled: False leaves the pair as it is.

    Example:
        >>> from monai.data import MetaTensor
        >>> image = MetaTensor(torch.tensor([[[0.0, 3.0, 5.0, 0.0]] * 4]))
        >>> ExtendBorderd()({"moving": image, "fixed": image})["fixed"][0, 0].as_tensor()
        tensor([3., 3., 5., 5.])
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Extend both images.

        Args:
            data: a pair with images of shape ``(1, *spatial)``.
        """
        pair: dict[Hashable, Any] = dict(data)
        for key in IMAGE_KEYS if self.enabled else ():
            pair[key] = as_meta_tensor(extend_border(pair[key].as_tensor()), pair[key].affine, pair[key].meta)
            pair["moving_extended"] = True
        return pair


def extend_border(image: torch.Tensor) -> torch.Tensor:
    """Repeat the faces of the box that holds every voxel above the minimum of ``image`` ``(1, *spatial)`` outwards."""
    scanned = (image[0] > image.min()).nonzero()
    if len(scanned) == 0:
        return image
    low, high = scanned.amin(0).tolist(), scanned.amax(0).tolist()
    index = (slice(None), *(slice(a, b + 1) for a, b in zip(low, high, strict=True)))
    box, sizes = image[index], image.shape[1:]
    padding = [n for a, b, size in reversed(list(zip(low, high, sizes, strict=True))) for n in (a, size - 1 - b)]
    return functional.pad(box[None].float(), padding, mode="replicate")[0].to(image.dtype)
