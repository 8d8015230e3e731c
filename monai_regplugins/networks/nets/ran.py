"""RAN, the Residual Aligner Network (Zheng et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import nn
from torch.utils.checkpoint import checkpoint

from monai_regplugins.checks import (
    InputError,
    check_choice,
    check_minimum_size,
    check_pair_channels,
    check_single_channels,
)
from monai_regplugins.networks.blocks.residual_aligner import HEAD_WEIGHTINGS, AlignerHeads, ResidualAligner
from monai_regplugins.networks.blocks.residual_conv import ResidualConvBlock, channels_last, same_conv
from monai_regplugins.networks.blocks.sample_norm import widened


@dataclass(frozen=True)
class RANGeometry:
    """Geometry of a RAN: what its levels k = 0..K, coarse to fine, look like (paper Sec. 2.3, suppl. Tables 2-4).

    Args:
        encoder_channels: widths of the encoder's residual blocks.
        decoder_channels: widths of the decoder's blocks, one per level.
        scales: pool size p_k of each level's grid.
        dilations: dilation of each level's Regressor.
        skip_channels: width of the skip projections, 0 for raw encoder features.
        first_skips: number of encoder outputs, deepest first, that level 0 starts from.
        regressor_convs: convolutions of the Regressor, 2 (printed) or 3 with a residual (authors' code).
        head_kernel: kernel of the heads' last convolutions, 3 (printed) or 1 (authors' code).
        shared_heads: whether all levels share the heads' convolutions (authors' code).

    Example:
        >>> RANGeometry(scales=(2, 2, 2, 2, 1), dilations=(8, 4, 2, 1, 1)).scales
        (2, 2, 2, 2, 1)
    """

    encoder_channels: tuple[int, ...] = (8, 16, 16, 32)
    decoder_channels: tuple[int, ...] = (32, 32, 16, 16, 8)
    scales: tuple[int, ...] = (1, 1, 1, 1, 1)
    dilations: tuple[int, ...] = (16, 8, 4, 2, 1)
    skip_channels: int = 16
    first_skips: int = 3
    regressor_convs: int = 2
    head_kernel: int = 3
    shared_heads: bool = False


PRESETS: dict[str, RANGeometry] = {
    "ran0": RANGeometry(scales=(16, 8, 4, 2, 1), dilations=(1, 1, 1, 1, 1), skip_channels=0, first_skips=1),
    "ran3": RANGeometry(scales=(2, 2, 2, 2, 1), dilations=(8, 4, 2, 1, 1), first_skips=2),
    "ran4": RANGeometry(skip_channels=12),
    "ran4_plus": RANGeometry(),
    "ran4_released": RANGeometry(
        encoder_channels=(8, 8, 16, 32),
        decoder_channels=(32, 32, 32, 16, 8),
        scales=(2, 2, 2, 2, 1),
        dilations=(8, 4, 2, 1, 1),
        first_skips=2,
        regressor_convs=3,
        head_kernel=1,
        shared_heads=True,
    ),
}


class RANLevel(nn.Module):
    """One level of the decoder: concatenate a skip, upsample where the grid gets finer, convolve, align.

    Both streams, and both directions of the aligner, are one batch: samples ``[:B]`` belong to the moving image,
    ``[B:]`` to the fixed one.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        upsample: bool,
        aligner: ResidualAligner,
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.up = transposed_conv(spatial_dims, in_channels, out_channels) if upsample else nn.Identity()
        self.block = ResidualConvBlock(spatial_dims, out_channels if upsample else in_channels, out_channels)
        self.aligner = aligner

    def forward(
        self,
        x: torch.Tensor,
        phi: torch.Tensor | None,
        theta: torch.Tensor | None,
        size: list[int],
        both: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Refine the field on a grid of the given size.

        Args:
            x: features with the skip, both streams, ``(2B, C, *coarse)``.
            phi: previous field of both directions, ``(2B, d, *coarse)``; None at level 0.
            theta: previous head mask; None at level 0.
            size: size of this level's grid.
            both: True for the fields on both grids, False for the one on the fixed grid only.

        Returns:
            features, field and head mask on this level's grid, ``2B`` samples, or ``B`` if not ``both``.
        """
        if self.upsample:
            x = pad_high(self.up(x), size)
            if phi is not None:
                phi = 2.0 * upsample_high(phi, size)
            if theta is not None:
                theta = upsample_high(theta, size)
        x = self.block(channels_last(x))
        moving, fixed = x.chunk(2)
        source = torch.cat([fixed, moving])
        if not both:
            x, source = fixed, moving
            if phi is not None:
                phi = phi.chunk(2)[1]
            if theta is not None:
                theta = theta.chunk(2)[1]
        aligned: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self.aligner(x, source, phi, theta)
        return aligned


class RAN(nn.Module):
    r"""Residual Aligner Network: coarse-to-fine registration that can separate motions of near objects.

    Both images pass one siamese encoder-decoder. Each level k of the decoder aligns the two streams with a
    :class:`ResidualAligner`, which refines the field and feeds the aligned features back. Levels live on
    high-resolution grids with dilated convolutions (the motion-aware structure, Sec. 2.3) rather than on a pyramid.

    Presets: ``ran0``, ``ran3``, ``ran4``, ``ran4_plus`` as printed (suppl. Tables 2-4), ``ran4_released`` with the
    geometry of the authors' code. ``docs/methods/ran.md`` lists where they differ.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input image: 2, moving and fixed.
        out_channels: components of the field; equals ``spatial_dims``.
        preset: name of a geometry in :data:`PRESETS`.
        num_heads: number m of displacement heads.
        head_weighting: ``softmax_confidence`` (paper, Eq. 12), ``softmax`` or ``raw``.
        checkpointing: recompute each level in the backward pass, which saves memory; gradients are equal.
        start_as_sum: begin with small residuals that simply add up over the levels; False keeps the authors' random
            weights, with which short trainings learn little. The architecture is the same.
        **geometry: fields of :class:`RANGeometry` that differ from the preset.

    Raises:
        InputError: When a choice is unknown or the geometry does not fit together.

    Example:
        >>> ddf = RAN(spatial_dims=2)(torch.rand(1, 2, 16, 16))
        >>> ddf.shape
        torch.Size([1, 2, 16, 16])
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 2,
        out_channels: int | None = None,
        *,
        preset: str = "ran4_released",
        num_heads: int = 6,
        head_weighting: str = "softmax_confidence",
        checkpointing: bool = False,
        start_as_sum: bool = True,
        **geometry: Any,
    ) -> None:
        super().__init__()
        check_choice(preset, list(PRESETS), "geometry preset")
        check_choice(head_weighting, list(HEAD_WEIGHTINGS), "head_weighting")
        check_pair_channels(spatial_dims, in_channels, out_channels, "RAN")
        lists_as_tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, Sequence) else v for k, v in geometry.items()}
        for name in geometry:
            check_choice(name, list(RANGeometry.__dataclass_fields__), "geometry field")
        g = replace(PRESETS[preset], **lists_as_tuples)
        if not len(g.scales) == len(g.dilations) == len(g.decoder_channels) == len(g.encoder_channels) + 1:
            raise InputError(
                f"{g} does not fit together; give as many scales, dilations and decoder_channels, and one "
                "encoder_channels less."
            )
        self.geometry = asdict(g)
        self.spatial_dims, self.checkpointing = spatial_dims, checkpointing
        self.num_levels, self.first_skips = len(g.scales), g.first_skips
        self.minimum_size = 2 ** len(g.encoder_channels)
        # how many times each level's grid is halved
        self.depths = [scale.bit_length() - 1 for scale in g.scales]

        self.encoder = nn.ModuleList(
            ResidualConvBlock(spatial_dims, c, n)
            for c, n in zip((1, *g.encoder_channels[:-1]), g.encoder_channels, strict=True)
        )
        self.pool = Pool["avg", spatial_dims](2)
        self.skips = nn.ModuleList(
            nn.Sequential(same_conv(spatial_dims, c, g.skip_channels), nn.LeakyReLU(0.2, inplace=True))
            if g.skip_channels
            else nn.Identity()
            for c in g.encoder_channels
        )
        widths = [g.skip_channels or c for c in g.encoder_channels]
        heads = AlignerHeads(spatial_dims, num_heads, g.head_kernel)
        self.levels = nn.ModuleList()
        for k, (channels, dilation) in enumerate(zip(g.decoder_channels, g.dilations, strict=True)):
            aligner = ResidualAligner(
                spatial_dims,
                channels,
                dilation,
                heads if g.shared_heads or k == 0 else AlignerHeads(spatial_dims, num_heads, g.head_kernel),
                num_heads,
                first=k == 0,
                regressor_convs=g.regressor_convs,
                head_weighting=head_weighting,
            )
            width = sum(widths[-g.first_skips :]) if k == 0 else g.decoder_channels[k - 1] + widths[-k]
            finer = k > 0 and g.scales[k] < g.scales[k - 1]
            self.levels.append(RANLevel(spatial_dims, width, channels, finer, aligner))
        self.field = same_conv(spatial_dims, g.decoder_channels[-1] + spatial_dims, spatial_dims)
        nn.init.xavier_uniform_(self.field.get_parameter("weight"))
        if start_as_sum:
            self._start_as_sum()

    @torch.no_grad()
    def _start_as_sum(self) -> None:
        """Let the first field be about zero, the sum of the levels' mean residuals."""
        for module in self.modules():  # names shared heads once
            if isinstance(module, (AlignerHeads, ResidualAligner)):
                module.start_as_sum()
        weight, d = self.field.get_parameter("weight"), self.spatial_dims
        weight[:, :-d] *= 0.1
        weight[:, -d:] = 0
        weight[(slice(None), slice(-d, None)) + (1,) * d] = torch.eye(d)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Register a batch of pairs.

        Args:
            image: moving (channel 0) and fixed (channel 1) image on one grid, ``(B, 2, *spatial)``, in [0, 1]; each
                axis at least 16 voxels long.

        Returns:
            displacement on the fixed grid, ``(B, d, *spatial)``, voxels, ``warped(x) = moving(x + ddf(x))``.

        Raises:
            InputError: When an axis is shorter than 16 voxels.
        """
        return self.align(image, False)

    @torch.jit.export
    def both_directions(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fields of both directions from one pass.

        Args:
            image: as in :meth:`forward`.

        Returns:
            the field on the fixed grid, equal to ``forward(image)``, and the field on the moving grid, equal to
            ``forward`` of the swapped image; each ``(B, d, *spatial)``, voxels. One is only about the other's inverse.
        """
        backward, forward = self.align(image, True).chunk(2)
        return forward, backward

    def align(self, image: torch.Tensor, both: bool) -> torch.Tensor:
        """Fields of the fixed grid, ``(B, ...)``, or of the moving and the fixed grid, ``(2B, ...)``."""
        if not torch.jit.is_scripting():
            check_single_channels(image, "RAN")
            check_minimum_size(image.shape[2:], self.minimum_size, "image")
        x = channels_last(torch.cat([image[:, :1], image[:, 1:]]))
        sizes = [list(x.shape[2:])]
        skips: list[torch.Tensor] = []
        for block, skip in zip(self.encoder, self.skips):  # noqa: B905 - TorchScript's zip is strict by itself
            x = channels_last(self.pool(block(x)))
            sizes.append(list(x.shape[2:]))
            skips.append(skip(x))

        phi: torch.Tensor | None = None
        theta: torch.Tensor | None = None
        for k, level in enumerate(self.levels):
            last = k == self.num_levels - 1
            # the skip joins on the previous level's grid; level 0 has no previous level
            depth = self.depths[max(k - 1, 0)]
            if k == 0:
                deepest = [place(skips[-1 - j], sizes[depth], len(skips) - j - depth) for j in range(self.first_skips)]
                x = torch.cat(deepest, dim=1)
            else:
                x = torch.cat([x, place(skips[-k], sizes[depth], len(skips) + 1 - k - depth)], dim=1)
            size = sizes[self.depths[k]]
            if not torch.jit.is_scripting() and self.checkpointing and torch.is_grad_enabled():
                x, phi, theta = checkpoint(level, x, phi, theta, size, both or not last, use_reentrant=False)
            else:
                x, phi, theta = level(x, phi, theta, size, both or not last)
        assert phi is not None
        x = channels_last(torch.cat([widened(x), phi], dim=1))
        if torch.jit.is_scripting():
            ddf: torch.Tensor = self.field(x)
        else:
            with torch.autocast(image.device.type, enabled=False):
                ddf = self.field(x)
        return ddf


def transposed_conv(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Upsampling by two through a transposed convolution with kernel and stride 2; Glorot weights, zero bias."""
    conv: nn.Module = Conv["convtrans", spatial_dims](in_channels, out_channels, 2, stride=2)
    nn.init.xavier_uniform_(conv.get_parameter("weight"))
    nn.init.zeros_(conv.get_parameter("bias"))
    return conv


def place(skip: torch.Tensor, size: list[int], doublings: int) -> torch.Tensor:
    """Bring a skip to a finer grid by nearest upsampling, zero padded at the high end where pooling dropped voxels."""
    if doublings > 0:
        skip = nn.functional.interpolate(skip, scale_factor=float(2**doublings), mode="nearest")
    return pad_high(skip, size)


def pad_high(x: torch.Tensor, size: list[int], mode: str = "constant") -> torch.Tensor:
    """Pad ``(B, C, *spatial)`` at the high end of each axis up to ``size``."""
    padding: list[int] = []
    for axis in range(len(size) - 1, -1, -1):
        padding += [0, size[axis] - x.shape[2 + axis]]
    return nn.functional.pad(x, padding, mode=mode) if max(padding) > 0 else x


def upsample_high(x: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Nearest upsampling by two; an odd last voxel repeats its neighbor."""
    return pad_high(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"), size, mode="replicate")
