"""RegNet, displacements from patches by a multi-scale convolutional network (Sokooti et al. 2017)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from monai_regplugins.checks import (
    InputError,
    check_choice,
    check_minimum_size,
    check_pair_channels,
)

__all__ = ["MARGIN_AFTER", "MARGIN_BEFORE", "STRIDE", "RegNet", "window_size"]

# A patch of 54 voxels about voxel c reaches from c - 27 to c + 26: the only place of an even patch at which its 2x2x2
# means lie exactly on the pooled features of the 29 voxels about c.
MARGIN_BEFORE, MARGIN_AFTER = 27, 26
PATCH = MARGIN_BEFORE + 1 + MARGIN_AFTER
STRIDE = 2  # of the network as it is: its pooling, and the low resolution
INNER = 13  # voxels of a patch at either end that only the low resolution sees

CHANNELS = {"stream": (16, 16, 16), "original": (25, 30), "low": (25, 25, 25, 30, 30, 30), "merged": (60, 70, 75, 150)}
HEAD = 150


def window_size(labels: int) -> int:
    """Return the size of the window that gives so many predicted voxels along an axis, every second one: 54 for one."""
    return PATCH + STRIDE * (labels - 1)


class ConvUnit(nn.Sequential):
    """Valid convolution, batch norm, ReLU."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, size: int, eps: float, momentum: float):
        conv, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[spatial_dims - 2]
        super().__init__(conv(in_channels, out_channels, size), norm(out_channels, eps, momentum), nn.ReLU(True))


class RegNet(nn.Module):
    r"""RegNet: the displacement of a voxel from patches about it at two resolutions (Sokooti et al. 2017, Fig. 1).

    Fixed and moving image go through three 3x3x3 convolutions each, at full resolution (29 voxels wide) and at half of
    it (54 voxels averaged to 27). The images of a resolution are joined and go on through two and six convolutions;
    a max pooling brings the full resolution to the stride of the other. Both are joined, four convolutions leave one
    voxel, and two fully connected layers, convolutions of size one here, its displacement. No convolution pads, so the
    network runs over larger images too and is exact there, see :meth:`dense_field`.

    The paper's configuration (the default) has 904,878 parameters in 3D. Its 2D twin is the authors'.

    Args:
        spatial_dims: 2 or 3; the paper has 3.
        in_channels: channels of the input image: 2, moving and fixed.
        out_channels: components of the field; equals ``spatial_dims``.
        fusion: ``late`` joins the images after three convolutions each; ``early`` (ablation) at the input.
        scales: ``multi``, or ``single`` (ablation) without the half resolution.
        low_res: how 54 voxels become 27: ``mean`` of 2x2x2, or ``stride``, every second voxel, as in the authors' code.
        dense_mode: what :meth:`forward` returns. ``window``: every second voxel of the valid part, for training.
            ``fast``: these, interpolated to all voxels of the padded image. ``exact``: all voxels, each as if alone.
        width: factor on all numbers of channels.
        norm_eps: epsilon of the batch norm.
        norm_momentum: its momentum.

    Raises:
        InputError: When an argument is out of its range or unknown.

    Example:
        >>> ddf = RegNet(spatial_dims=2, width=0.25)(torch.rand(1, 2, 40, 40))
        >>> ddf.shape
        torch.Size([1, 2, 40, 40])
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 2,
        out_channels: int | None = None,
        *,
        fusion: str = "late",
        scales: str = "multi",
        low_res: str = "mean",
        dense_mode: str = "fast",
        width: float = 1.0,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        check_pair_channels(spatial_dims, in_channels, out_channels, "RegNet")
        check_choice(fusion, ("late", "early"), "fusion")
        check_choice(scales, ("multi", "single"), "scales")
        check_choice(low_res, ("mean", "stride"), "low_res")
        check_choice(dense_mode, ("window", "fast", "exact"), "dense_mode")
        if not width > 0:
            raise InputError(f"width is {width}, expected a number above 0; the paper's network has 1.")
        self.spatial_dims, self.mean, self.dense_mode = spatial_dims, low_res == "mean", dense_mode
        early, multi = fusion == "early", scales == "multi"

        def units(in_channels: int, widths: Sequence[int]) -> nn.Sequential:
            chain = pairwise([in_channels, *widths])
            return nn.Sequential(*(ConvUnit(spatial_dims, m, n, 3, norm_eps, norm_momentum) for m, n in chain))

        stream, original, low, merged = ([max(1, round(c * width)) for c in row] for row in CHANNELS.values())
        joined = 2 * stream[-1]
        self.streams = _Streams(units, stream, early)
        self.original = units(joined, original)
        self.low_streams = _Streams(units, stream, early) if multi else None
        self.low = units(joined, low) if multi else None
        self.merged = units(original[-1] + (low[-1] if multi else 0), merged)
        hidden = max(1, round(HEAD * width))
        linear = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2](hidden, spatial_dims, 1)
        self.head = nn.Sequential(ConvUnit(spatial_dims, merged[-1], hidden, 1, norm_eps, norm_momentum), linear)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None  # for the type checker
                nn.init.zeros_(module.bias)
        if not early:
            _compare(self.streams, self.original)
            if self.low_streams is not None and self.low is not None:
                _compare(self.low_streams, self.low)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Predict the displacement field.

        Args:
            image: moving (channel 0) and fixed (channel 1) image on one grid of isotropic voxels, ``(B, 2, *spatial)``.

        Returns:
            ``(B, d, *spatial)``, voxels, ``warped(x) = moving(x + ddf(x))``, beyond the border the image continues as
            at its edge; with ``dense_mode="window"`` that of :meth:`window_field`.

        Raises:
            InputError: When a window is smaller than a patch.
        """
        if self.dense_mode == "window":
            return self.window_field(image)
        if self.dense_mode == "exact":
            return self.dense_field(padded(image, False))
        return refined(self.window_field(padded(image, True)), list(image.shape[2:]))

    @torch.jit.export
    def window_field(self, window: torch.Tensor) -> torch.Tensor:
        """Predict every second voxel of the part of a window that has a whole patch about it.

        Args:
            window: ``(B, 2, *size)``, each axis :func:`window_size` of the wanted number o of voxels.

        Returns:
            ``(B, d, *o)``; entry q is the displacement of the window's voxel ``27 + 2 q``.

        Raises:
            InputError: When the window is smaller than a patch, 54 voxels.
        """
        self.check_window(window)
        features = _max_pool(self.original(self.streams(_inner(window))), 2)
        return self.finish(features, self.half_resolution(window, 2))

    @torch.jit.export
    def dense_field(self, window: torch.Tensor) -> torch.Tensor:
        r"""Predict every voxel that has a whole patch about it, as patch by patch but at 1/1645 of the cost.

        Pooling and averaging run with stride 1. Their results are split into the :math:`2^d` classes of even and odd
        positions ("shift and stitch"), which are images of half the size that go through the rest of the network as a
        batch, unchanged.

        Args:
            window: ``(B, 2, *size)``, each axis at least 54 voxels.

        Returns:
            ``(B, d, *(size - 53))``; entry q is the displacement of the window's voxel ``27 + q``.

        Raises:
            InputError: When the window is smaller than a patch.
        """
        self.check_window(window)
        whole = _odd(window)  # what that adds is cut off in the end
        features = _split_phases(_max_pool(self.original(self.streams(_inner(whole))), 1))
        field = _join_phases(self.finish(features, self.half_resolution(whole, 1)), window.shape[0])
        for axis in range(2, field.ndim):
            field = field.narrow(axis, 0, field.shape[axis] - (whole.shape[axis] - window.shape[axis]))
        return field

    def half_resolution(self, window: torch.Tensor, stride: int) -> torch.Tensor | None:
        """Features of the downsampled pipeline, of all phases as a batch if ``stride`` is 1; None without it."""
        if self.low is None or self.low_streams is None:
            return None
        if self.mean:
            values = _average_pool(window, stride)
        else:  # the voxel at the center of the patch is among the samples
            values = window
            for axis in range(2, window.ndim):
                values = values.narrow(axis, 1, window.shape[axis] - 1)
            if stride == 2:
                values = values[..., ::2, ::2] if self.spatial_dims == 2 else values[..., ::2, ::2, ::2]
        if stride == 1:
            values = _split_phases(values)
        low: torch.Tensor = self.low(self.low_streams(values))
        return low

    def finish(self, original: torch.Tensor, low: torch.Tensor | None) -> torch.Tensor:
        """Join the resolutions, ``(B, C, *n)`` both, and predict ``(B, d, *(n - 8))`` in float32."""
        joined = original if low is None else torch.cat([original, low], dim=1)
        field: torch.Tensor = self.head(self.merged(joined))
        return field.float() if field.dtype in (torch.float16, torch.bfloat16) else field

    def check_window(self, window: torch.Tensor) -> None:
        """Refuse windows smaller than a patch."""
        if not torch.jit.is_scripting():
            check_minimum_size(window.shape[2:], PATCH, "window")

    @torch.jit.unused
    def folded(self) -> RegNet:
        """Return a copy for inference whose convolutions have taken in their batch norms: the same function, faster."""
        network = copy.deepcopy(self).eval()
        for unit in network.modules():
            if isinstance(unit, ConvUnit) and not isinstance(unit[1], nn.Identity):
                unit[0], unit[1] = fuse_conv_bn_eval(unit[0], unit[1]), nn.Identity()  # type: ignore[type-var, arg-type]
        return network


Units = Callable[[int, Sequence[int]], nn.Sequential]


class _Streams(nn.Module):
    """First convolutions of a resolution: of the fixed and of the moving image, joined afterwards, or of both at once.

    The networks of the two images share no weights.
    """

    def __init__(self, units: Units, widths: Sequence[int], early: bool) -> None:
        super().__init__()
        self.both = units(2, [2 * c for c in widths]) if early else None
        self.fixed = None if early else units(1, widths)
        self.moving = None if early else units(1, widths)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return features ``(B, C, *size - 6)`` of moving and fixed image ``(B, 2, *size)``."""
        features: list[torch.Tensor] = []
        if self.both is not None:
            features.append(self.both(image))
        if self.fixed is not None and self.moving is not None:
            features.extend([self.fixed(image[:, 1:]), self.moving(image[:, :1])])
        return torch.cat(features, dim=1)


def _compare(streams: _Streams, joined: nn.Sequential) -> None:
    """Begin with equal features of both images, and with their differences where they are joined.

    Features that cannot be compared at first have to become comparable, which takes many times as long.
    """
    assert streams.fixed is not None  # for the type checker
    assert streams.moving is not None
    streams.moving.load_state_dict(streams.fixed.state_dict())
    of_fixed, of_moving = next(joined.parameters()).data.chunk(2, dim=1)  # of the first convolution
    of_moving.copy_(-of_fixed)


def padded(image: torch.Tensor, even: bool, before: int = MARGIN_BEFORE, after: int = MARGIN_AFTER) -> torch.Tensor:
    """Continue an image at its edges, so that each of its voxels has a whole patch about it.

    Args:
        image: ``(B, C, *spatial)``.
        even: add what it takes that the voxels 0, 2, 4, ... reach to the last voxel or beyond, see :func:`refined`.
        before: voxels that a patch needs before its own.
        after: and after it.
    """
    ends: list[int] = []
    for k in range(image.ndim - 2):
        n = image.shape[image.ndim - 1 - k]
        ends.extend([before, after + ((n + 1) % 2 if even else 0)])
    return functional.pad(image, ends, mode="replicate")


def refined(field: torch.Tensor, spatial_shape: list[int]) -> torch.Tensor:
    """Interpolate a field given at the voxels 0, 2, 4, ... linearly to all voxels of ``spatial_shape``."""
    fine = [2 * n - 1 for n in field.shape[2:]]
    mode = "bilinear" if len(fine) == 2 else "trilinear"
    values = functional.interpolate(field, size=fine, mode=mode, align_corners=True)
    for axis in range(len(fine)):
        values = values.narrow(axis + 2, 0, spatial_shape[axis])
    return values


def _inner(window: torch.Tensor, margin: int = INNER) -> torch.Tensor:
    """What the original pipeline sees of a window; of its 29 voxels a patch, pooling leaves out the last."""
    for axis in range(2, window.ndim):
        window = window.narrow(axis, margin, window.shape[axis] - 2 * margin)
    return window


def _odd(window: torch.Tensor) -> torch.Tensor:
    """Continue axes of even length by one voxel: an odd length gives as many even as odd positions."""
    ends: list[int] = []
    for k in range(window.ndim - 2):
        ends.extend([0, 1 - window.shape[window.ndim - 1 - k] % 2])
    return functional.pad(window, ends, mode="replicate")


def _max_pool(values: torch.Tensor, stride: int) -> torch.Tensor:
    """Largest of 2 neighbors along each axis."""
    return functional.max_pool2d(values, 2, stride) if values.ndim == 4 else functional.max_pool3d(values, 2, stride)


def _average_pool(values: torch.Tensor, stride: int) -> torch.Tensor:
    """Mean of 2 neighbors along each axis."""
    return functional.avg_pool2d(values, 2, stride) if values.ndim == 4 else functional.avg_pool3d(values, 2, stride)


def _split_phases(values: torch.Tensor) -> torch.Tensor:
    """Split even and odd positions: ``(B, C, *n)`` to ``(2^d B, C, *(n / 2))``, phase first."""
    b, c = values.shape[0], values.shape[1]
    if values.ndim == 4:
        h, w = values.shape[2] // 2, values.shape[3] // 2
        return values.reshape(b, c, h, 2, w, 2).permute(3, 5, 0, 1, 2, 4).reshape(4 * b, c, h, w)
    h, w, d = values.shape[2] // 2, values.shape[3] // 2, values.shape[4] // 2
    return values.reshape(b, c, h, 2, w, 2, d, 2).permute(3, 5, 7, 0, 1, 2, 4, 6).reshape(8 * b, c, h, w, d)


def _join_phases(values: torch.Tensor, batch: int) -> torch.Tensor:
    """Undo :func:`_split_phases` for a batch of ``batch`` samples."""
    c = values.shape[1]
    if values.ndim == 4:
        h, w = values.shape[2], values.shape[3]
        return values.reshape(2, 2, batch, c, h, w).permute(2, 3, 4, 0, 5, 1).reshape(batch, c, 2 * h, 2 * w)
    h, w, d = values.shape[2], values.shape[3], values.shape[4]
    split = values.reshape(2, 2, 2, batch, c, h, w, d).permute(3, 4, 5, 0, 6, 1, 7, 2)
    return split.reshape(batch, c, 2 * h, 2 * w, 2 * d)
