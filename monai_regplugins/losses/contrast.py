"""Whether two images have the same contrast, as far as their intensities state."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["contrast_distance"]

SAMPLES, MOST_VALUES = 256, 2**18


def contrast_distance(first: Tensor, second: Tensor) -> float:
    r"""How far two images' distributions of intensities are apart, gain and offset aside.

    .. math::
        d = \int_0^1 |Q_1(p) - Q_2(p)| \, dp

    is the earth mover's distance of the standardized intensities, with their quantile functions Q. It is 0 for images
    of one contrast, whatever moves between them, and below 1.2 for any.

    Args:
        first: intensities, any shape, at least one.
        second: those of the other image.

    Example:
        >>> image = torch.rand(1000) ** 3
        >>> contrast_distance(image, 2 * image + 1) < 1e-5, contrast_distance(image, -image) > 0.3
        (True, True)
    """
    p = (torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES
    one, other = (_standardized_quantiles(values, p) for values in (first, second))
    return float((one - other).abs().mean())


def _standardized_quantiles(values: Tensor, p: Tensor) -> Tensor:
    """Quantiles of the values, of mean 0 and variance 1; 0 if all values are the same."""
    ordered = values.flatten()[:: -(-values.numel() // MOST_VALUES)].double().cpu().sort().values
    found = ordered[(p * len(ordered)).long().clamp_max(len(ordered) - 1)]
    found = found - found.mean()
    return found / found.std(correction=0).clamp_min(1e-9)
