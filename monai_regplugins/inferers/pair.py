"""Inferer for pairwise registration: predicts the field of an image pair and warps the moving image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.inferers import Inferer

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_finite_field, check_minimum_size
from monai_regplugins.inferers.convolution import fast_convolutions
from monai_regplugins.transforms.prepare import resize_image

__all__ = ["PairInferer", "moving_and_fixed"]


class PairInferer(Inferer):
    """Run a registration network on pairs of any size and warp the moving image.

    The pair is resized to the network's grid (``spatial_size``) and padded at the high end of each axis if the network
    needs more voxels; the field is cropped, resized and rescaled. The result is always on the input grid. Warping runs
    in float32, outside of autocast.

    With several passes the network runs again on a grid twice as fine in each, but no finer than the images, with the
    moving image warped by what was found so far, u; its field v is what is left, and the result their composition
    :math:`v(x) + u(x + v(x))`.

    Args:
        spatial_size: size of the network's input; -1 (or an empty list) keeps an axis as it is.
        minimum_size: smallest axis length of the network's input. Axes down to half of it are zero padded.
        divisor: each axis is padded to a multiple of this.
        padding: padding of the warp outside of the moving image: ``zeros`` or ``border``.
        passes: number of runs of the network, at least 1.

    Raises:
        InputError: When ``spatial_size`` has an axis of less than half of ``minimum_size``, or ``passes`` is below 1.

    Example:
        >>> still = torch.zeros_like  # a network that moves nothing
        >>> found = PairInferer(spatial_size=[16, 16])(torch.rand(1, 2, 40, 30), still)
        >>> found["ddf"].shape, found["warped"].shape
        (torch.Size([1, 2, 40, 30]), torch.Size([1, 1, 40, 30]))
    """

    def __init__(
        self,
        spatial_size: Sequence[int] = (),
        minimum_size: int = 16,
        divisor: int = 1,
        padding: str = "zeros",
        passes: int = 1,
    ) -> None:
        super().__init__()
        if passes < 1:
            raise InputError(f"passes is {passes}, expected at least 1.")
        self.spatial_size = list(spatial_size)
        self.minimum_size, self.divisor, self.padding, self.passes = minimum_size, divisor, padding, passes
        if any(0 < size < self._least for size in self.spatial_size):
            raise InputError(
                f"spatial_size is {self.spatial_size}, expected at least {self._least} voxels along each axis, below "
                "which the network sees too little; give more, or -1 to keep an axis."
            )

    @property
    def _least(self) -> int:
        """Voxels of the shortest axis that is padded."""
        return (self.minimum_size + 1) // 2

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable[..., torch.Tensor],
        fixed: torch.Tensor | None = None,
        *args: object,
        **kwargs: object,
    ) -> dict[str, torch.Tensor]:
        """Register a batch.

        Args:
            inputs: ``(B, 2, *spatial)``, moving then fixed; or the moving image alone, ``(B, 1, *spatial)``. Of images
                with C channels, first all those of the moving one, ``(B, 2 C, *spatial)``.
            network: maps ``(B, 2, *grid)``, or ``(B, 2 C, *grid)``, to a field ``(B, d, *grid)`` in voxels.
            fixed: the fixed image ``(B, 1, *spatial)`` where ``inputs`` is the moving one alone.
            *args: further arguments of the network.
            **kwargs: further keyword arguments of the network.

        Returns:
            ``ddf`` ``(B, d, *spatial)``, voxels, and ``warped`` ``(B, 1, *spatial)``, or of C channels.

        Raises:
            InputError: When the image is too small where ``spatial_size`` keeps it, or, without gradients, the network
                returns NaN or infinity.
        """
        image = inputs if fixed is None else torch.cat([inputs, fixed], dim=1)
        check_minimum_size(self._target(list(image.shape[2:])), self._least, "image")
        image = image.float()
        ddf = self._field(image, 1, network, *args, **kwargs)
        warped = self._warped(image, ddf)
        for finer in range(1, self.passes):
            moved = torch.cat([warped, moving_and_fixed(image)[1]], dim=1)
            left = self._field(moved, 2**finer, network, *args, **kwargs)
            with torch.autocast(image.device.type, enabled=False):
                ddf = fields.compose(ddf, left)
            warped = self._warped(image, ddf)
        return {"ddf": ddf, "warped": warped}

    def _field(
        self, image: torch.Tensor, factor: int, network: Callable[..., torch.Tensor], *args: object, **kwargs: object
    ) -> torch.Tensor:
        """The network's field of a pair, seen on a grid ``factor`` times as fine, at the size that came in."""
        native = list(image.shape[2:])
        target = self._target(native, factor)
        grid = image
        if target != native:
            grid = resize_image(grid.flatten(0, 1), target).unflatten(0, image.shape[:2])
        with fast_convolutions(grid):
            found = network(self._padded(grid), *args, **kwargs)
        ddf = self._to_native(found, native, target)
        if not torch.is_grad_enabled():  # a training looks at its loss
            check_finite_field(ddf, getattr(network, "module", network))
        return ddf

    def _warped(self, image: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
        """The moving image of a pair under a field, in float32."""
        with torch.autocast(image.device.type, enabled=False):
            return fields.warp(moving_and_fixed(image)[0], ddf, padding=self.padding)

    def _target(self, native: list[int], factor: int = 1) -> list[int]:
        """Size at which the network sees a pair, before padding; a factor makes it no finer than the images."""
        sizes = self.spatial_size or [-1] * len(native)
        return [n if s <= 0 else max(s, min(factor * s, n)) for n, s in zip(native, sizes, strict=True)]

    def _to_native(self, ddf: torch.Tensor, native: list[int], target: list[int]) -> torch.Tensor:
        """Crop and resize a field on the network's grid of ``target`` voxels to the size that came in."""
        ddf = ddf.float()
        for axis, n in enumerate(target):
            ddf = ddf.narrow(axis + 2, 0, n)
        return ddf if target == native else fields.resize(ddf, native)

    def _padded(self, grid: torch.Tensor) -> torch.Tensor:
        """Zero pad the high end of each axis to what the network takes."""
        sizes = grid.shape[2:]
        excess = [-(-max(n, self.minimum_size) // self.divisor) * self.divisor - n for n in sizes]
        return torch.nn.functional.pad(grid, [e for n in reversed(excess) for e in (0, n)]) if any(excess) else grid


def moving_and_fixed(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two images of a pair ``(B, 2 C, *spatial)``, views of it.

    Raises:
        InputError: When the number of channels is odd.

    Example:
        >>> [half.shape for half in moving_and_fixed(torch.rand(1, 6, 8, 8))]
        [torch.Size([1, 3, 8, 8]), torch.Size([1, 3, 8, 8])]
    """
    if image.shape[1] % 2:
        raise InputError(
            f"a pair has {image.shape[1]} channels, expected as many of the fixed image as of the moving one; give the "
            "same channels of both."
        )
    moving, fixed = image.chunk(2, dim=1)
    return moving, fixed
