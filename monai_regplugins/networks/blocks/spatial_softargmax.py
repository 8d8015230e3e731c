"""Spatial softmax and the mean position under it (Sandkühler et al. 2019, Eq. 14 and 15)."""

from __future__ import annotations

import torch

from monai_regplugins.networks.blocks.sample_norm import widened

__all__ = ["position_covariance", "soft_argmax", "spatial_softmax"]


def spatial_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Softmax of each channel over all positions, Eq. 14, in float32 at least.

    Args:
        logits: ``(B, C, *spatial)``.

    Returns:
        probabilities, the same shape; each channel sums to 1.
    """
    return torch.softmax(widened(logits).flatten(2), dim=2).view(logits.shape)


def soft_argmax(probability: torch.Tensor, axes: list[torch.Tensor]) -> torch.Tensor:
    """Mean position, Eq. 15, from the marginal along each axis.

    Args:
        probability: ``(B, *spatial)``, sums to 1 over space.
        axes: coordinates along each array axis, ``(n_k,)``.

    Returns:
        ``(B, d)``, x first: the last array axis comes first.
    """
    d = len(axes)
    means: list[torch.Tensor] = []
    for c in range(d):
        k = d - 1 - c
        marginal = probability.movedim(k + 1, 1).flatten(2).sum(2)
        means.append((marginal * axes[k]).sum(1))
    return torch.stack(means, 1)


def position_covariance(probability: torch.Tensor, axes: list[torch.Tensor], mean: torch.Tensor) -> torch.Tensor:
    """Covariance of the position about its mean.

    Args:
        probability: ``(B, *spatial)``, sums to 1 over space.
        axes: coordinates along each array axis, ``(n_k,)``.
        mean: ``(B, d)``, x first.

    Returns:
        ``(B, d, d)``, x first.
    """
    grid = torch.stack([g.flatten() for g in torch.meshgrid(axes, indexing="ij")][::-1])  # (d, N)
    offset = grid - mean.unsqueeze(2)
    weighted = offset * probability.flatten(1).unsqueeze(1)
    # one row after the other: a matrix product would be cut to half precision under autocast
    return torch.stack([(offset[:, i : i + 1] * weighted).sum(2) for i in range(len(axes))], 1)
