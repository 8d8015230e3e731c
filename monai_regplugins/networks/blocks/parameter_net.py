"""Parameter network of R2N2: shape, direction and weight of a local transformation."""

from __future__ import annotations

import math

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from monai_regplugins.networks.blocks.conv_gru import nonlinearity
from monai_regplugins.networks.blocks.sample_norm import widened
from monai_regplugins.networks.blocks.spatial_softargmax import spatial_softmax

__all__ = ["ParameterNet"]


class ParameterNet(nn.Module):
    r"""Parameter network (Sandkühler et al. 2019, Fig. 4b, Eq. 18).

    A convolution, whose first half of the channels passes a second one and is weighted by the spatial softmax of the
    second half; then a sum over space and two fully connected layers. With their outputs c

    .. math::
        \sigma = \sigma_{max} \psi(c_\sigma) + \sigma_{min}, \quad v = v_{max} \tanh(c_v), \quad
        \alpha = \pi \psi(c_\alpha)

    in 2D; in 3D the rotation is the unit quaternion along :math:`(1, 0, 0, 0) + c_q`. Where the paper says average
    pooling, the sum of the authors' code is taken: the softmax has divided by the number of positions already. The
    last layer begins at zero, hence v too.

    The part from the softmax on runs in float32 at least, also under autocast.

    Args:
        spatial_dims: number of spatial dimensions d, 2 or 3.
        in_channels: width of the input, even; 256 in the paper, where the hidden layer has 1024 units.
        sigma_max: largest standard deviation, normalized; 0.3 in the paper.
        sigma_min: smallest standard deviation, 1e-5 in the authors' code.
        v_max: largest component of a displacement, normalized; 1 in the paper.
        activation: ``tanh`` or ``leaky_relu``.

    Example:
        >>> sigma, rotation, vector = ParameterNet(2, in_channels=8)(torch.rand(1, 8, 4, 4))
        >>> sigma.shape, rotation.shape, vector.shape
        (torch.Size([1, 2]), torch.Size([1, 1]), torch.Size([1, 2]))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        sigma_max: float = 0.3,
        sigma_min: float = 1e-5,
        v_max: float = 1.0,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        self.spatial_dims, self.sigma_max, self.sigma_min, self.v_max = spatial_dims, sigma_max, sigma_min, v_max
        half = in_channels // 2
        self.split = Conv["conv", spatial_dims](in_channels, 2 * half, 3, padding=1)
        self.content = Conv["conv", spatial_dims](half, half, 3, padding=1)
        self.hidden = nn.Linear(half, 4 * in_channels)
        self.output = nn.Linear(4 * in_channels, 2 * spatial_dims + (1 if spatial_dims == 2 else 4))
        self.act = nonlinearity(activation)
        nn.init.xavier_normal_(self.split.get_parameter("weight"))
        for zero in (self.hidden.bias, self.output.weight, self.output.bias):
            nn.init.zeros_(zero)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find the shape of the next local transformation.

        Args:
            x: ``(B, in_channels, *spatial)``.

        Returns:
            sigma ``(B, d)``, rotation ``(B, 1)`` or ``(B, 4)``, and v ``(B, d)``; x first.
        """
        content, attention = self.split(x).chunk(2, dim=1)
        content = self.content(self.act(content))
        if torch.jit.is_scripting():
            return self.constrain(self.pool(widened(content), attention))
        with torch.autocast(x.device.type, enabled=False):
            return self.constrain(self.pool(widened(content), attention))

    def pool(self, content: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """Raw outputs c, ``(B, outputs)``, from two maps ``(B, C, *spatial)``."""
        pooled = self.act(content * spatial_softmax(attention)).flatten(2).sum(2)
        c: torch.Tensor = self.output(self.act(self.hidden(pooled)))
        return c

    def constrain(self, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Bring the raw outputs, in the order sigma, v, rotation, into their ranges, Eq. 18."""
        d = self.spatial_dims
        sigma = self.sigma_max * torch.sigmoid(c[:, :d]) + self.sigma_min
        vector = self.v_max * torch.tanh(c[:, d : 2 * d])
        turn = c[:, 2 * d :]
        if d == 2:
            return sigma, math.pi * torch.sigmoid(turn), vector
        quaternion = torch.cat([1 + turn[:, :1], turn[:, 1:]], dim=1)
        return sigma, nn.functional.normalize(quaternion, dim=1), vector
