"""Normalization of a whole sample by one mean and one standard deviation."""

from __future__ import annotations

import math

import torch
from torch import nn


class SampleNorm(nn.Module):
    r"""Normalize each sample over channels and space together, with a scalar affine map.

    .. math::
        y = \gamma \, \frac{x - \operatorname{mean}(x)}{\operatorname{std}(x) + \epsilon} + \beta,
        \qquad \gamma, \beta \in \mathbb{R}

    with the population standard deviation, the same in training and in evaluation. The RAN paper (Zheng et al. 2022,
    suppl. Tables 2-4) only says "norm"; this form, the epsilon added to the standard deviation
    included, is that of the authors' code.

    Args:
        spatial_dims: number of spatial dimensions.
        eps: added to the standard deviation.

    Example:
        >>> bool(SampleNorm(spatial_dims=2)(torch.rand(2, 4, 8, 8)).mean().abs() < 1e-5)
        True
    """

    def __init__(self, spatial_dims: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps
        self.dims = list(range(1, spatial_dims + 2))
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize ``x`` of shape ``(B, C, *spatial)``; half precision input is normalized in float32."""
        x = widened(x)
        centered = x - x.mean(dim=self.dims, keepdim=True)
        count = x.numel() // x.shape[0]
        std = torch.linalg.vector_norm(centered, dim=self.dims, keepdim=True) / math.sqrt(count)
        return torch.addcmul(self.bias, centered, self.weight / (std + self.eps))


def widened(x: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, anything else as it is."""
    return x.float() if x.dtype == torch.float16 or x.dtype == torch.bfloat16 else x
