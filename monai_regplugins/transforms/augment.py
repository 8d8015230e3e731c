"""Random augmentation of pairs: the same crop and intensity factor for both images.

Source: Zheng et al. 2022, training details; margins and amplitude as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import RandomizableTransform
from monai.utils import ensure_tuple

from monai_regplugins.checks import InputError, check_minimum_size, check_same_size
from monai_regplugins.grids import as_meta_tensor, shifted_affine
from monai_regplugins.keys import (
    IMAGE_KEYS,
    LABEL_KEYS,
    MASK_KEYS,
    POINT_KEYS,
    present,
    side_of,
)

__all__ = ["RandIntensityFactord", "RandPairCropd", "RandSwapPaird"]


class RandPairCropd(RandomizableTransform):
    """Crop a pair at random: ``margin`` voxels fewer on either side, at one offset per axis for all keys.

    The offset is uniform in ``[0, 2 margin]``, the size becomes ``size - 2 margin``. Affines and points follow;
    points may end outside the crop.

    Args:
        margin: voxels, one for all axes or one each; 0 leaves the axis as it is.

    Example:
        >>> pair = {key: MetaTensor(torch.rand(1, 8, 8)) for key in ("moving", "fixed")}
        >>> RandPairCropd(margin=1)(pair)["fixed"].shape
        torch.Size([1, 6, 6])
    """

    def __init__(self, margin: int | Sequence[int] = 0) -> None:
        super().__init__(prob=1.0)
        self.margin = margin
        self._offset: tuple[int, ...] = ()
        if min(ensure_tuple(margin)) < 0:
            raise InputError(f"margin is {margin}, expected 0 or more voxels per axis; give another one.")

    def randomize(self, data: tuple[int, ...]) -> None:
        """Draw the offset for margins ``data``, one per axis."""
        super().randomize(None)
        self._offset = tuple(int(self.R.randint(0, 2 * margin + 1)) for margin in data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop all entries of a pair alike.

        Args:
            data: a prepared pair, images of shape ``(1, *spatial)`` on one grid; ``true_ddf`` ``(d, *spatial)`` is
                cropped too.

        Raises:
            InputError: When the images differ in size, or nothing would be left of them.
        """
        pair: dict[Hashable, Any] = dict(data)
        check_same_size(pair["moving"], pair["fixed"], "moving image", "fixed image")
        shape = tuple(pair["fixed"].shape[1:])
        margins = _per_axis(self.margin, len(shape))
        check_minimum_size(shape, [2 * margin + 1 for margin in margins], "image to crop")
        self.randomize(margins)
        if not any(margins):
            return pair
        sizes = [size - 2 * margin for size, margin in zip(shape, margins, strict=True)]
        for key in present(pair, IMAGE_KEYS, LABEL_KEYS, MASK_KEYS, ("true_ddf",)):
            pair[key] = _crop(pair[key], self._offset, sizes)
        for key in present(pair, POINT_KEYS):
            pair[key] = pair[key] - torch.tensor(self._offset, dtype=pair[key].dtype)
        return pair


class RandIntensityFactord(RandomizableTransform):
    """Multiply both images by the same random factor ``1 + U(-amplitude, amplitude)``.

    Args:
        amplitude: half the width of the range, in [0, 1).

    Example:
        >>> pair = RandIntensityFactord(0.2)({"moving": torch.ones(1, 4), "fixed": torch.ones(1, 4)})
        >>> torch.equal(pair["moving"], pair["fixed"])
        True
    """

    def __init__(self, amplitude: float = 0.2) -> None:
        super().__init__(prob=1.0)
        if not 0.0 <= amplitude < 1.0:
            raise InputError(f"amplitude is {amplitude}, expected 0 <= amplitude < 1; give another one.")
        self.amplitude = amplitude
        self._factor = 1.0

    def randomize(self, data: Any = None) -> None:
        """Draw the factor."""
        super().randomize(None)
        self._factor = 1.0 + float(self.R.uniform(-self.amplitude, self.amplitude))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale both images alike.

        Args:
            data: a pair with images of shape ``(1, *spatial)``.
        """
        pair: dict[Hashable, Any] = dict(data)
        self.randomize()
        for key in IMAGE_KEYS:
            pair[key] = pair[key] * self._factor
        return pair


class RandSwapPaird(RandomizableTransform):
    """Swap moving and fixed image, with their labels, masks and points, at random.

    Args:
        prob: probability of the exchange.

    Example:
        >>> RandSwapPaird(prob=1.0)({"moving": torch.zeros(1, 2), "fixed": torch.ones(1, 2)})["moving"]
        tensor([[1., 1.]])
    """

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__(prob=prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Exchange the entries of both images.

        Args:
            data: a prepared pair without ``true_ddf``, on one grid.
        """
        pair: dict[Hashable, Any] = dict(data)
        self.randomize(None)
        if self._do_transform:
            moved = {key: pair.pop(key) for key in present(data, IMAGE_KEYS, LABEL_KEYS, MASK_KEYS, POINT_KEYS)}
            for key, value in moved.items():
                side = side_of(key)
                pair[key.replace(side, "fixed" if side == "moving" else "moving", 1)] = value
        return pair


def _per_axis(margin: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    """Margins, one per axis."""
    margins = (margin,) * spatial_dims if isinstance(margin, int) else tuple(margin)
    if len(margins) != spatial_dims:
        raise InputError(
            f"margin has {len(margins)} values, expected {spatial_dims} for {spatial_dims}D images; give one per axis."
        )
    return margins


def _crop(data: torch.Tensor, offset: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    """Cut ``(C, *spatial)`` to ``sizes`` voxels from ``offset`` on."""
    window = (slice(None), *(slice(start, start + size) for start, size in zip(offset, sizes, strict=True)))
    if not isinstance(data, MetaTensor):
        return data[window].clone()
    return as_meta_tensor(data.as_tensor()[window].clone(), shifted_affine(data.affine, offset), data.meta)
