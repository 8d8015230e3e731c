"""Convolution helpers and the residual block of RAN's encoder and decoder."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from monai_regplugins.networks.blocks.sample_norm import SampleNorm


def same_conv(
    spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1
) -> nn.Module:
    """Convolution with bias and zero padding that keeps the size; He-normal (fan-in) weights, zero bias."""
    conv: nn.Module
    if kernel_size == 1:
        conv = PointwiseConv(spatial_dims, in_channels, out_channels)
    else:
        conv = Conv["conv", spatial_dims](
            in_channels, out_channels, kernel_size, padding=dilation * (kernel_size // 2), dilation=dilation
        )
    nn.init.kaiming_normal_(conv.get_parameter("weight"), mode="fan_in", nonlinearity="relu")
    nn.init.zeros_(conv.get_parameter("bias"))
    return conv


class PointwiseConv(nn.Module):
    """Convolution with kernel size 1, as a matrix product over channels-last memory.

    On a CPU, PyTorch would convert the layout there and back for it and leave oneDNN.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *[1] * spatial_dims))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``."""
        y = nn.functional.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias)
        return y.movedim(-1, 1)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Lay ``(B, C, *spatial)`` out channels last on the CPU, where 3D convolutions then run about twice as fast."""
    if x.device.type != "cpu":
        return x
    return x.contiguous(memory_format=torch.channels_last_3d if x.dim() == 5 else torch.channels_last)


class ConvNorm(nn.Sequential):
    """3x3x3 convolution followed by :class:`SampleNorm`, and by LeakyReLU where ``slope`` is given.

    Example:
        >>> ConvNorm(2, in_channels=4, out_channels=8)(torch.rand(1, 4, 8, 8)).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, dilation: int = 1, slope: float | None = None
    ) -> None:
        layers = [same_conv(spatial_dims, in_channels, out_channels, dilation=dilation), SampleNorm(spatial_dims)]
        if slope is not None:
            layers.append(nn.LeakyReLU(slope, inplace=True))
        super().__init__(*layers)


class ResidualConvBlock(nn.Module):
    r"""Residual block of the RAN encoder and decoder (Zheng et al. 2022, suppl. Tables 2 and 3).

    .. math::
        r = a(n(C_1 x)), \quad f = n(C^{d=3}_3 \, a(n(C_2 r))), \quad y = a(f + r)

    The shortcut starts after the first convolution, so input and output widths may differ without a projection.

    Args:
        spatial_dims: number of spatial dimensions.
        in_channels: input width.
        out_channels: output width.
        slope: negative slope of the LeakyReLU.

    Example:
        >>> ResidualConvBlock(2, in_channels=4, out_channels=8)(torch.rand(1, 4, 8, 8)).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, slope: float = 0.2) -> None:
        super().__init__()
        self.shortcut = ConvNorm(spatial_dims, in_channels, out_channels, slope=slope)
        self.inner = ConvNorm(spatial_dims, out_channels, out_channels, slope=slope)
        self.dilated = ConvNorm(spatial_dims, out_channels, out_channels, dilation=3)
        self.act = nn.LeakyReLU(slope, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``."""
        r = self.shortcut(x)
        out: torch.Tensor = self.act(self.dilated(self.inner(r)) + r)
        return out
