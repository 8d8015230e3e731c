"""Show an image in another contrast, as another scanner might: what a registration of unlike images has to bear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_regplugins.checks import check_choice
from monai_regplugins.synthesis.random_motion import smooth_noise

__all__ = ["CONTRASTS", "in_other_contrast"]

Array = npt.NDArray[Any]

STRONGEST_GAMMA = 2.5  # or its inverse
WEAKEST_GAMMA = 1.5
KNOTS = 6
SHALLOWEST = 0.2  # slope of a monotone map before it is scaled, at most 1
TURNS = ((0.2, 0.4), (0.6, 0.8))  # where a map that is not monotone turns: it rises and falls three times in all
BIAS = 0.15  # standard deviation of the logarithm


def in_other_contrast(image: Tensor, contrast: str, seed: int | Sequence[int] = 0) -> Tensor:
    r"""Return an image with other intensities.

    ``inverted`` is :math:`1 - I`; ``gamma`` is :math:`I^\gamma` with :math:`\gamma` or its inverse from 1.5 to 2.5;
    ``monotone`` rises linearly between six knots, at random slopes; ``not monotone`` falls, rises and falls, or the
    reverse, and has most values at three intensities of the image; ``bias field`` is
    :math:`I \, e^{b}` with a smooth b, which is another map at each place; ``equal`` is the image.

    Args:
        image: ``(1, *spatial)``, mostly from 0 to 1.
        contrast: one of :data:`CONTRASTS`.
        seed: of what is drawn.

    Raises:
        InputError: There is no such contrast.

    Example:
        >>> in_other_contrast(torch.tensor([[0.0, 0.25]]), "inverted")
        tensor([[1.0000, 0.7500]])
    """
    check_choice(contrast, CONTRASTS, "contrast")
    return _MAPS[contrast](np.random.default_rng(seed), image)


def _gamma(rng: np.random.Generator, image: Tensor) -> Tensor:
    exponent = float(np.exp(rng.uniform(np.log(WEAKEST_GAMMA), np.log(STRONGEST_GAMMA))))
    return image.clamp(min=0) ** (exponent if rng.random() < 0.5 else 1 / exponent)


def _monotone(rng: np.random.Generator, image: Tensor) -> Tensor:
    rises = np.cumsum(rng.uniform(SHALLOWEST, 1, KNOTS - 1))
    return _interpolated(image, np.linspace(0, 1, KNOTS), np.concatenate([[0.0], rises / rises[-1]]))


def _not_monotone(rng: np.random.Generator, image: Tensor) -> Tensor:
    places = np.array([0.0, *(rng.uniform(*turn) for turn in TURNS), 1.0])
    values = np.array([0.0, 1.0, 0.0, 1.0]) + rng.uniform(0, 0.3, 4) * [1, -1, 1, -1]
    return _interpolated(image, places, values if rng.random() < 0.5 else 1 - values)


def _bias_field(rng: np.random.Generator, image: Tensor) -> Tensor:
    shape = image.shape[1:]
    return image * torch.exp(BIAS * smooth_noise(rng, shape, min(shape) / 2).to(image.dtype))


def _interpolated(image: Tensor, places: Array, values: Array) -> Tensor:
    return torch.from_numpy(np.interp(image.double().numpy(), places, values)).to(image.dtype)


_MAPS: dict[str, Callable[[np.random.Generator, Tensor], Tensor]] = {
    "equal": lambda _, image: image,
    "inverted": lambda _, image: 1 - image,
    "gamma": _gamma,
    "monotone": _monotone,
    "bias field": _bias_field,
    "not monotone": _not_monotone,
}
CONTRASTS = tuple(_MAPS)
