"""The inferer of pairwise registration: from an image pair to a field and a warped image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.inferers import Inferer

from monai_regplugins import fields
from monai_regplugins.checks import check_finite_field, check_minimum_size
from monai_regplugins.transforms.prepare import resize_image

__all__ = ["PairInferer"]


class PairInferer(Inferer):
    """Run a registration network on pairs of any size and warp the moving image.

    The pair is brought to the network's grid (``spatial_size``), padded at the high end of each axis where the network
    needs more voxels, and the field is cropped and resized back, its values rescaled. So the result is always on the
    grid that came in. Warping runs in float32, outside of autocast.

    Args:
        spatial_size: size at which the network sees the pair; -1 (or an empty list) keeps an axis as it is.
        minimum_size: smallest axis that the network takes. Axes down to half of it are zero padded.
        divisor: every axis is padded to a multiple of this.
        padding: what lies outside of the moving image when it is warped: ``zeros`` or ``border``.

    Raises:
        InputError: When an axis is shorter than half of ``minimum_size``.
    """

    def __init__(
        self,
        spatial_size: Sequence[int] = (),
        minimum_size: int = 16,
        divisor: int = 1,
        padding: str = "zeros",
    ) -> None:
        super().__init__()
        self.spatial_size = list(spatial_size)
        self.minimum_size, self.divisor, self.padding = minimum_size, divisor, padding

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
            inputs: ``(B, 2, *spatial)``, moving then fixed; or the moving image alone, ``(B, 1, *spatial)``.
            network: maps ``(B, 2, *grid)`` to a field ``(B, d, *grid)`` in voxels.
            fixed: the fixed image ``(B, 1, *spatial)`` where ``inputs`` is the moving one alone.
            *args: further arguments of the network.
            **kwargs: further keyword arguments of the network.

        Returns:
            ``ddf`` ``(B, d, *spatial)``, voxels, and ``warped`` ``(B, 1, *spatial)``.

        Raises:
            InputError: When the image is too small, or, without gradients, the network returns NaN or infinity.
        """
        image = inputs if fixed is None else torch.cat([inputs, fixed], dim=1)
        native = list(image.shape[2:])
        check_minimum_size(native, (self.minimum_size + 1) // 2, "image")
        target = self._target(native)
        grid = image.float()
        if target != native:
            grid = resize_image(grid.flatten(0, 1), target).unflatten(0, (len(image), 2))

        ddf = self._to_native(network(self._padded(grid), *args, **kwargs), native)
        if not torch.is_grad_enabled():  # a training looks at its loss
            check_finite_field(ddf, getattr(network, "module", network))
        with torch.autocast(image.device.type, enabled=False):
            warped = fields.warp(image[:, :1].float(), ddf, padding=self.padding)
        return {"ddf": ddf, "warped": warped}

    def _target(self, native: list[int]) -> list[int]:
        """Size at which the network sees a pair, before padding."""
        return [n if s <= 0 else s for n, s in zip(native, self.spatial_size or [-1] * len(native), strict=True)]

    def _to_native(self, ddf: torch.Tensor, native: list[int]) -> torch.Tensor:
        """Crop and resize a field on the network's grid to the size that came in."""
        target = self._target(native)
        ddf = ddf.float()
        for axis, n in enumerate(target):
            ddf = ddf.narrow(axis + 2, 0, n)
        return ddf if target == native else fields.resize(ddf, native)

    def _padded(self, grid: torch.Tensor) -> torch.Tensor:
        """Zero pad the high end of each axis to what the network takes."""
        sizes = grid.shape[2:]
        excess = [-(-max(n, self.minimum_size) // self.divisor) * self.divisor - n for n in sizes]
        return torch.nn.functional.pad(grid, [e for n in reversed(excess) for e in (0, n)]) if any(excess) else grid
