"""Position network of R2N2: where a local transformation goes, and how certain that is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from monai_regplugins.networks.blocks.residual_conv import PointwiseConv
from monai_regplugins.networks.blocks.sample_norm import widened
from monai_regplugins.networks.blocks.spatial_softargmax import position_covariance, soft_argmax, spatial_softmax

__all__ = ["Localization", "PositionNet", "fuse_positions", "localization_covariance"]


# types as values, see LocalTransforms
_Localization = NamedTuple(  # noqa: UP014
    "_Localization", [("position", torch.Tensor), ("certainty", torch.Tensor), ("probability", list[torch.Tensor])]
)


class Localization(_Localization):
    """What the position networks of all L levels found in one step, coordinates normalized and x first.

    Attributes:
        position: of each level, ``(B, L, d)``.
        certainty: of each level, ``(B, L)``, between 0 and 2.
        probability: of the position, one map ``(B, *level)`` per level.

    Example:
        >>> maps = [torch.full((1, 4, 4), 1 / 16)]
        >>> Localization(torch.zeros(1, 1, 2), torch.ones(1, 1), maps).certainty
        tensor([[1.]])
    """

    __slots__ = ()


class PositionNet(nn.Module):
    r"""Position network of one level (Sandkühler et al. 2019, Fig. 4a, Eq. 14, 15 and 17).

    Two 1x1 convolutions to one channel each, and a spatial softmax on both. The left one gives the position, the
    likeness of the two the certainty

    .. math::
        w = 2 - \sum_{ij} |p^l_{ij} - p^r_{ij}| = 2 \sum_{ij} \min(p^l_{ij}, p^r_{ij}).

    Runs in float32 at least, also under autocast.

    Args:
        spatial_dims: number of spatial dimensions d.
        in_channels: width of the level.

    Example:
        >>> axes = [torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8)]
        >>> position, certainty, probability = PositionNet(2, in_channels=4)(torch.rand(1, 4, 8, 8), axes)
        >>> position.shape, certainty.shape, probability.shape
        (torch.Size([1, 2]), torch.Size([1]), torch.Size([1, 8, 8]))
    """

    def __init__(self, spatial_dims: int, in_channels: int) -> None:
        super().__init__()
        self.paths = PointwiseConv(spatial_dims, in_channels, 2)
        for path in self.paths.weight.detach().split(1):
            nn.init.xavier_normal_(path)
        nn.init.zeros_(self.paths.bias)

    def forward(self, x: torch.Tensor, axes: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Locate the next local transformation.

        Args:
            x: features of the level, ``(B, C, *level)``.
            axes: normalized coordinates along each array axis of the level, ``(n_k,)``.

        Returns:
            position ``(B, d)``, x first, certainty ``(B,)`` in [0, 2] and the map of the position, ``(B, *level)``.
        """
        if torch.jit.is_scripting():
            return self.locate(widened(x), axes)
        with torch.autocast(x.device.type, enabled=False):
            return self.locate(widened(x), axes)

    def locate(self, x: torch.Tensor, axes: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Do :meth:`forward` in the precision of ``x``."""
        left, right = spatial_softmax(self.paths(x)).unbind(1)
        certainty = 2 * torch.minimum(left, right).flatten(1).sum(1)
        return soft_argmax(left, axes), certainty, left


def fuse_positions(position: torch.Tensor, certainty: torch.Tensor) -> torch.Tensor:
    """Mean of the levels' positions ``(B, L, d)``, weighted by certainty ``(B, L)``: Eq. 16, ``(B, d)``."""
    total = certainty.sum(1, keepdim=True).clamp_min(1e-6)  # two disjoint maps on every level have no certainty
    return (certainty.unsqueeze(2) * position).sum(1) / total


def localization_covariance(found: Localization, axes: list[list[torch.Tensor]]) -> torch.Tensor:
    r"""Spread of the fused position by the law of total variance, normalized units squared.

    .. math::
        P = \sum_n \omega_n \big( \operatorname{Cov}_{p_n}(X) + (x_n - \tilde x)(x_n - \tilde x)^T \big),
        \qquad \omega_n = w_n / \sum_m w_m

    Args:
        found: localization of one step.
        axes: for each level the coordinates along each array axis.

    Returns:
        ``(B, d, d)``, x first.
    """
    offset = found.position - fuse_positions(found.position, found.certainty).unsqueeze(1)
    between = offset.unsqueeze(-1) * offset.unsqueeze(-2)
    within = torch.stack(
        [position_covariance(p, axes[n], found.position[:, n]) for n, p in enumerate(found.probability)], 1
    )
    omega = found.certainty / found.certainty.sum(1, keepdim=True).clamp_min(1e-6)
    return (omega[:, :, None, None] * (within + between)).sum(1)
