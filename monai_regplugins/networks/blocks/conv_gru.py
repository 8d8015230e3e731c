"""Gated recurrent registration unit of R2N2: residual blocks, convolutional GRU and the skip around it."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch import nn

__all__ = [
    "ConvGRU",
    "GatedRegistrationUnit",
    "RegistrationResidualBlock",
    "channel_norm",
    "conv_layer",
    "nonlinearity",
]

ACTIVATIONS = ("tanh", "leaky_relu")
NORMS = ("group", "none")


def nonlinearity(activation: str) -> nn.Module:
    """Module of an activation: ``tanh`` (paper) or ``leaky_relu`` with slope 0.01 (default of the authors' code)."""
    return nn.Tanh() if activation == "tanh" else nn.LeakyReLU(0.01)


def channel_norm(norm: str, channels: int) -> nn.Module:
    """Norm of each channel of each sample: ``group`` with as many groups as channels, or ``none``.

    It equals the instance norm of the authors' code, no affine map and no running statistics, but is several times
    faster on a CPU.
    """
    return nn.GroupNorm(channels, channels, affine=False) if norm == "group" else nn.Identity()


def conv_layer(
    spatial_dims: int, in_channels: int, out_channels: int, activation: str, kernel_size: int = 3, stride: int = 1
) -> nn.Module:
    """Convolution with bias and zero padding, weights drawn to suit the activation that follows."""
    conv: nn.Module = Conv["conv", spatial_dims](
        in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2
    )
    if activation == "tanh":
        nn.init.xavier_normal_(conv.get_parameter("weight"), nn.init.calculate_gain("tanh"))
    else:
        nn.init.kaiming_normal_(conv.get_parameter("weight"), a=0.01)
    return conv


class RegistrationResidualBlock(nn.Module):
    """Residual block of the unit: convolution, norm, activation, convolution, norm, plus input, activation.

    Args:
        spatial_dims: number of spatial dimensions.
        channels: width.
        activation: ``tanh`` or ``leaky_relu``.
        norm: ``group`` or ``none``.

    Example:
        >>> RegistrationResidualBlock(2, channels=4)(torch.rand(1, 4, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(self, spatial_dims: int, channels: int, activation: str = "tanh", norm: str = "group") -> None:
        super().__init__()
        self.inner = nn.Sequential(
            conv_layer(spatial_dims, channels, channels, activation),
            channel_norm(norm, channels),
            nonlinearity(activation),
            conv_layer(spatial_dims, channels, channels, activation),
            channel_norm(norm, channels),
        )
        self.act = nonlinearity(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, *spatial)`` to the same shape."""
        y: torch.Tensor = self.act(self.inner(x) + x)
        return y


class ConvGRU(nn.Module):
    r"""Convolutional gated recurrent unit (Sandkühler et al. 2019, Eq. 10-13).

    .. math::
        r &= \psi(W_r * x + U_r * h + b_r), \qquad z = \psi(W_z * x + U_z * h + b_z) \\
        \tilde h &= \tanh(W * x + U * (r \odot h) + b), \qquad h' = (1 - z) \odot h + z \odot \tilde h

    As in the authors' code r gates the state channel by channel before the convolution; Eq. 12 read literally, with r
    of the output channel, would be no convolution. The kernels are kept together, in the order r, z, proposal.

    Args:
        spatial_dims: number of spatial dimensions.
        channels: width of input and state.

    Example:
        >>> ConvGRU(2, channels=4)(torch.rand(1, 4, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.spatial_dims, self.channels = spatial_dims, channels
        self.input = Conv["conv", spatial_dims](channels, 3 * channels, 3, padding=1)
        self.state = nn.Parameter(torch.empty(3 * channels, channels, *[3] * spatial_dims))
        for kernels in (self.input.get_parameter("weight"), self.state):
            for kernel in kernels.detach().split(channels):
                nn.init.xavier_normal_(kernel)
        bias = self.input.get_parameter("bias").detach()
        bias[: 2 * channels], bias[2 * channels :] = 0, 1

    def forward(
        self, x: torch.Tensor, h: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Advance the state by one step.

        Args:
            x: input, ``(B, C, *spatial)``.
            h: state, the same shape; None is zero.
            noise: factors of the state kernels, ``(3 C, C, *kernel)``, shared by the batch.

        Returns:
            the new state, ``(B, C, *spatial)``.
        """
        a = self.input(x)
        C = self.channels
        if h is None:
            return torch.sigmoid(a[:, C : 2 * C]) * torch.tanh(a[:, 2 * C :])
        U = self.state if noise is None else self.state * noise
        gates = torch.sigmoid(a[:, : 2 * C] + self.convolve(h, U[: 2 * C]))
        r, z = gates[:, :C], gates[:, C:]
        proposal = torch.tanh(a[:, 2 * C :] + self.convolve(r * h, U[2 * C :]))
        return h + z * (proposal - h)

    def convolve(self, h: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Convolution of the state, zero padded, without bias."""
        if self.spatial_dims == 2:
            return nn.functional.conv2d(h, kernel, padding=1)
        return nn.functional.conv3d(h, kernel, padding=1)


class GatedRegistrationUnit(nn.Module):
    """Gated recurrent registration unit, GR2U (Sandkühler et al. 2019, Fig. 4c).

    Residual blocks, a :class:`ConvGRU`, and a skip from the former's output to the latter's. The state is the output of
    the GRU before the skip.

    Args:
        spatial_dims: number of spatial dimensions.
        channels: width.
        num_residual: number of residual blocks, 3 in the paper.
        activation: ``tanh`` or ``leaky_relu``.
        norm: ``group`` or ``none``.

    Example:
        >>> halved, state = GatedRegistrationUnit(2, channels=4)(torch.rand(1, 4, 16, 16))
        >>> halved.shape, state.shape
        (torch.Size([1, 4, 16, 16]), torch.Size([1, 4, 16, 16]))
    """

    def __init__(
        self, spatial_dims: int, channels: int, num_residual: int = 3, activation: str = "tanh", norm: str = "group"
    ) -> None:
        super().__init__()
        blocks = [RegistrationResidualBlock(spatial_dims, channels, activation, norm) for _ in range(num_residual)]
        self.residual = nn.Sequential(*blocks)
        self.gru = ConvGRU(spatial_dims, channels)
        self.act = nonlinearity(activation)

    def forward(
        self, x: torch.Tensor, h: torch.Tensor | None = None, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance by one step.

        Args:
            x: features, ``(B, C, *spatial)``.
            h: state, the same shape; None is zero.
            noise: factors of the state kernels; see :class:`ConvGRU`.

        Returns:
            output and new state, the same shape each.
        """
        x = self.residual(x)
        h = self.gru(x, h, noise)
        return self.act(h + x), h
