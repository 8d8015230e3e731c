"""Inferer for RegNet: dense prediction of a patch network in seamless tiles, coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor
from torch.nn import functional

from monai_regplugins import fields
from monai_regplugins.checks import (
    InputError,
    check_choice,
    check_finite_field,
    check_same_size,
    check_single_channels,
)
from monai_regplugins.inferers.convolution import fast_convolutions
from monai_regplugins.networks.nets.regnet import (
    MARGIN_AFTER,
    MARGIN_BEFORE,
    STRIDE,
    RegNet,
    refined,
    window_size,
)
from monai_regplugins.transforms.prepare import isotropic_size, resize_image

__all__ = ["DenseInferer", "predict_at_points"]

MODES = ("exact", "fast", "window")


class DenseInferer(Inferer):
    r"""Register whole images with a :class:`~monai_regplugins.networks.nets.RegNet`, or train it on windows.

    The pair is resampled to isotropic voxels, padded by replication, and predicted tile by tile with valid
    convolutions: the result equals a prediction of the whole image. With several stages the network first sees images
    reduced by the first factor, then the moving image warped by what was found, reduced by the next:

    .. math::
        \phi_{k+1}(x) = u_{k+1}(x) + \phi_k(x + u_{k+1}(x)),

    composed, and the original moving image sampled once. (The paper's successor adds the fields.)

    Args:
        mode: ``exact`` predicts every voxel, ``fast`` every second one along each axis and interpolates between them,
            as the authors did. ``window`` is for training: the network's own forward, nothing else.
        voxel_size: voxel edge length in mm of the training; the paper uses 1. None keeps the image's voxels.
        tile: tile size along each axis in voxels, even. Memory grows with its cube, the overhead of margins falls.
        stages: downsampling factors of consecutive passes; 4, 2, 1 captures displacements four times as large as 1
            alone, and 1, 1 reduces the residual of one pass.
        networks: networks by downsampling factor; other stages use the network of the call.
        padding: padding of the warp outside of the moving image: ``zeros`` or ``border``.
        bfloat16: whether training windows are predicted in bfloat16, on some CPUs in half the time; None decides by
            the CPU, and leaves other devices to the engine's ``amp``. Whole images are always predicted in float32.

    Raises:
        InputError: When an argument is out of its range or unknown.

    Example:
        >>> network = RegNet(spatial_dims=2, width=0.25).eval()
        >>> DenseInferer("exact", voxel_size=None)(torch.rand(1, 2, 40, 30), network)["ddf"].shape
        torch.Size([1, 2, 40, 30])
    """

    def __init__(
        self,
        mode: str = "fast",
        voxel_size: float | None = 1.0,
        tile: int = 64,
        stages: Sequence[int] = (1,),
        networks: Mapping[int, RegNet] | None = None,
        padding: str = "zeros",
        bfloat16: bool | None = None,
    ) -> None:
        super().__init__()
        check_choice(mode, MODES, "mode")
        if voxel_size is not None and not voxel_size > 0:
            raise InputError(f"voxel_size is {voxel_size}, expected mm above 0, or None for the image's own voxels.")
        if tile < STRIDE or tile % STRIDE:
            raise InputError(f"tile is {tile}, expected an even number of voxels; 64 is the default.")
        if not stages or min(stages) < 1:
            raise InputError(f"stages is {list(stages)}, expected factors of at least 1, coarsest first, as [4, 2, 1].")
        self.mode, self.voxel_size, self.tile, self.padding = mode, voxel_size, tile, padding
        self.stages, self.networks = list(stages), dict(networks or {})
        self.bfloat16 = bfloat16

    def __call__(
        self,
        inputs: Tensor,
        network: Any,
        *args: Any,
        spacing: Tensor | None = None,
        fixed_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Register a batch.

        Args:
            inputs: ``(B, 2, *spatial)``, moving then fixed.
            network: a RegNet, also inside of DistributedDataParallel.
            *args: not used.
            spacing: voxel size in mm along each axis, ``(B, d)``, equal for all samples.
            fixed_mask: where the field is wanted, ``(B, 1, *spatial)``; tiles without any of it are left out, and
                their displacement is zero.
            **kwargs: not used.

        Returns:
            ``ddf`` ``(B, d, *spatial)``, voxels, ``warped`` ``(B, 1, *spatial)``, and ``working_voxels`` ``(B,)``, how
            many voxels the network saw; with mode ``window`` only ``ddf`` at the windows' labels.

        Raises:
            InputError: When the spacing is missing or differs within the batch, the mask does not lie on the image, or
                the network returns NaN or infinity.
        """
        check_single_channels(inputs, "RegNet")
        if self.mode == "window":
            return {"ddf": self._windows(inputs, network)}
        native = list(inputs.shape[2:])
        if fixed_mask is not None:
            check_same_size(fixed_mask[0], inputs[0, 1:], "fixed mask", "fixed image")
        image = inputs.float()
        registrar: RegNet = getattr(network, "module", network)
        total = image.new_zeros(len(image), len(native), *native)
        for number, stage in enumerate(self.stages):
            size = self._working_size(native, spacing, stage)
            moved = self._warp(image, total, "border") if number else image[:, :1]  # continued as the network knows it
            found = self._predict(self.networks.get(stage, registrar), moved, image[:, 1:], fixed_mask, size)
            total = fields.compose(total, found) if number else found
        check_finite_field(total, registrar)
        voxels = image.new_full((len(image),), math.prod(size))
        return {"ddf": total, "warped": self._warp(image, total, self.padding), "working_voxels": voxels}

    def _windows(self, windows: Tensor, network: Any) -> Tensor:
        """Predict the labels of training windows."""
        reduced = _has_bfloat16(windows.device) if self.bfloat16 is None else self.bfloat16
        if not reduced:
            ddf: Tensor = network(windows)
            return ddf
        with torch.autocast(windows.device.type, torch.bfloat16):
            return network(windows).float()  # type: ignore[no-any-return]

    def _warp(self, image: Tensor, ddf: Tensor, padding: str) -> Tensor:
        """Warp the moving image in float32."""
        with torch.autocast(image.device.type, enabled=False):
            return fields.warp(image[:, :1], ddf, padding=padding)

    def _working_size(self, native: list[int], spacing: Tensor | None, stage: int) -> list[int]:
        """Size of the images that the network sees in a stage."""
        if self.voxel_size is None:
            return isotropic_size(native, [1.0] * len(native), stage)
        if spacing is None:
            raise InputError(
                "the pair has no spacing, the voxel size in mm, which RegNet needs to know how far a voxel is; give "
                "images whose header has it, or set voxel_size to null to take voxels as they are."
            )
        sizes = spacing.reshape(-1, len(native)).double().cpu()
        if not torch.allclose(sizes, sizes[:1], rtol=1e-3) or not bool((sizes > 0).all()):
            raise InputError(f"spacing is {sizes.tolist()}, expected one above 0 for all pairs; use batch_size 1.")
        return isotropic_size(native, sizes[0], self.voxel_size * stage)

    def _predict(self, network: RegNet, moving: Tensor, fixed: Tensor, mask: Tensor | None, size: list[int]) -> Tensor:
        """Predict the field of one stage and bring it back to the grid of the images."""
        native = list(fixed.shape[2:])
        image = torch.stack([resize_image(pair, size) for pair in torch.cat([moving, fixed], dim=1)])
        wanted = None if mask is None else _any_inside(mask, size)
        with fast_convolutions(image):
            ddf = self._tiled(network if network.training else network.folded(), image, wanted)
        return ddf if size == native else fields.resize(ddf, native)

    def _tiled(self, network: RegNet, image: Tensor, mask: Tensor | None) -> Tensor:
        """Predict an image of any size tile by tile, ``(B, d, *spatial)``."""
        size, d = list(image.shape[2:]), image.ndim - 2
        whole = _continued(image)
        ddf = image.new_zeros(len(image), d, *size)
        for corner, extent in tiles(size, self.tile):
            if mask is None or bool(_window(mask, corner, extent).any()):
                _window(ddf, corner, extent).copy_(self._tile(network, whole, corner, extent))
        return ddf

    def _tile(self, network: RegNet, whole: Tensor, corner: Sequence[int], extent: list[int]) -> Tensor:
        """Predict one tile out of the continued image, whose voxel 27 is the first of the image."""
        reach = MARGIN_BEFORE + MARGIN_AFTER
        if self.mode == "exact":
            return network.dense_field(_window(whole, corner, [n + reach for n in extent]))
        labels = [n // STRIDE + 1 for n in extent]  # one beyond the end, to interpolate up to it
        return refined(network.window_field(_window(whole, corner, [window_size(n) for n in labels])), extent)


def _has_bfloat16(device: torch.device) -> bool:
    """Whether this is a CPU that computes in bfloat16, and does not only emulate it."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in names)


def tiles(size: Sequence[int], tile: int) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Yield corner and extent of the tiles of an image; corners are multiples of ``tile``."""
    for corner in product(*(range(0, n, tile) for n in size)):
        yield corner, [min(tile, n - c) for c, n in zip(corner, size, strict=True)]


@torch.no_grad()
def predict_at_points(network: RegNet, image: Tensor, points: Tensor, batch: int = 8) -> Tensor:
    """Predict displacements at single points, such as landmarks, without a field: exact at voxels, linear in between.

    Args:
        network: a RegNet in evaluation mode.
        image: one pair on isotropic voxels, ``(1, 2, *spatial)``.
        points: ``(N, d)``, voxels of the fixed grid.
        batch: points at a time.

    Returns:
        ``(N, d)``, voxels.

    Raises:
        InputError: When the network trains, or a point lies outside of the image.

    Example:
        >>> network = RegNet(spatial_dims=2, width=0.25).eval()
        >>> predict_at_points(network, torch.rand(1, 2, 40, 30), torch.tensor([[10.0, 20.5]])).shape
        torch.Size([1, 2])
    """
    size = torch.tensor(image.shape[2:])
    if network.training:
        raise InputError("the network is in training mode, where patches depend on each other; call network.eval().")
    if not bool(((points >= 0) & (points <= size.to(points) - 1)).all()):
        raise InputError(f"a point lies outside of the image of {tuple(size.tolist())} voxels; check their units.")
    reach = MARGIN_BEFORE + MARGIN_AFTER
    whole = _continued(image.float())
    lower = points.floor().long()
    folded, found = network.folded(), []
    for start in range(0, len(points), batch):
        corners = lower[start : start + batch].tolist()
        windows = torch.cat([_window(whole, corner, [reach + 2] * len(size)) for corner in corners])
        found.append(folded.dense_field(windows))
    neighbors = torch.cat(found)
    return fields.sample_at(neighbors, (points - lower).to(neighbors)[:, None])[:, 0]


def _continued(image: Tensor) -> Tensor:
    """Continue an image at its edges by what a patch needs, and one voxel more."""
    margins = (MARGIN_BEFORE, MARGIN_AFTER + 1)
    return functional.pad(image, [m for _ in image.shape[2:] for m in margins], mode="replicate")


def _any_inside(mask: Tensor, size: list[int]) -> Tensor:
    """Bring a mask to another grid: true where a new voxel holds any of it."""
    pool = functional.adaptive_max_pool2d if len(size) == 2 else functional.adaptive_max_pool3d
    return pool(mask.float(), size) > 0


def _window(whole: Tensor, corner: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return a window of an image, ``(B, C, *size)``, as a view."""
    for axis, (start, length) in enumerate(zip(corner, size, strict=True), start=2):
        whole = whole.narrow(axis, start, length)
    return whole
