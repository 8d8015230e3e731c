"""Synthetic images of random contrast from label maps.

As in SynthMorph (Hoffmann et al. 2022, IEEE TMI 41(3), 543): an intensity per label, blur, bias field, noise and gamma;
in addition a texture within the labels, thick slices and constant padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from monai_regplugins.checks import InputError
from monai_regplugins.synthesis.random_motion import separable_product, smooth_noise

__all__ = ["Contrast", "RandomScanner"]


@dataclass(frozen=True)
class Contrast:
    r"""How shapes look: :math:`I(x) = c_{l(x)} + a \, t(x)`, with the label l and a texture t.

    Attributes:
        levels: intensity c of each label, ``(K,)``.
        texture: weight a of the texture; its sign is part of the contrast.
    """

    levels: torch.Tensor
    texture: float

    @classmethod
    def draw(cls, rng: np.random.Generator, labels: int, dark_background: float = 0.7) -> Contrast:
        """Draw intensities in [0, 1]; the background is 0 with a probability."""
        levels = torch.from_numpy(rng.random(labels)).float()
        if rng.random() < dark_background:
            levels[0] = 0.0
        return cls(levels, float(rng.choice((-1.0, 1.0)) * rng.uniform(0, 0.15)))

    def image(self, label: torch.Tensor, texture: torch.Tensor) -> torch.Tensor:
        """Return intensities of a label map, of its shape; background has no texture."""
        return self.levels[label.long()] + self.texture * texture * (label > 0)


@dataclass(frozen=True)
class RandomScanner:
    r"""Simulates scanner artifacts: :math:`J = (b \cdot (g_\sigma * I))^\gamma + \epsilon`, then thick slices.

    The result is scaled to [0, 1] by its minimum and maximum, as prepared pairs are, and then, with a probability,
    padded: slabs at its borders are 0.

    Args:
        blur: largest standard deviation of the Gaussian g, voxels.
        bias: largest standard deviation of the logarithm of the bias field b.
        gamma: standard deviation of the logarithm of the exponent.
        noise: largest standard deviation of the noise.
        thick: probability of thick slices, two or three voxels along one axis.
        padded: probability of padding, each side by less than a quarter of the axis.

    Raises:
        InputError: A number is out of its range.
    """

    blur: float = 1.0
    bias: float = 0.3
    gamma: float = 0.25
    noise: float = 0.08
    thick: float = 0.2
    padded: float = 0.2

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("blur", "bias", "gamma", "noise"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 or more.")
        for name in ("thick", "padded"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected a probability from 0 to 1.")

    def __call__(self, rng: np.random.Generator, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scan of an image ``(1, *spatial)``, in [0, 1], and where it is not padded, boolean."""
        shape = image.shape[1:]
        scan = blurred(image, rng.uniform(0, self.blur))
        scan = scan * torch.exp(rng.uniform(0, self.bias) * smooth_noise(rng, shape, min(shape) / 2))
        scan = scan.clamp_min(0) ** float(np.exp(self.gamma * rng.standard_normal()))
        scan = scan + rng.uniform(0, self.noise) * torch.from_numpy(rng.standard_normal((1, *shape), dtype=np.float32))
        if rng.random() < self.thick:
            scan = thick_slices(scan, int(rng.integers(len(shape))), int(rng.integers(2, 4)))
        low, high = scan.min(), scan.max()
        seen = unpadded(rng, shape) if rng.random() < self.padded else torch.ones_like(scan, dtype=torch.bool)
        return (scan - low) / (high - low).clamp_min(1e-6) * seen, seen


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Smooth ``(C, *spatial)`` by a Gaussian, renormalized at the border."""
    matrices = []
    for n in image.shape[1:]:
        x = torch.arange(n, dtype=torch.float32)
        weights = torch.exp(-0.5 * ((x[:, None] - x) / max(sigma, 0.1)) ** 2)
        matrices.append(weights / weights.sum(dim=1, keepdim=True))
    return separable_product(image, matrices)


def thick_slices(image: torch.Tensor, axis: int, thickness: int) -> torch.Tensor:
    """Average ``(C, *spatial)`` over slices of several voxels along a spatial axis, and interpolate back."""
    size = list(image.shape[1:])
    thin = list(size)
    thin[axis] = -(-size[axis] // thickness)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(F.interpolate(image[None], thin, mode="area"), size, mode=mode)[0]


def unpadded(rng: np.random.Generator, shape: Sequence[int]) -> torch.Tensor:
    """Draw a box ``(1, *shape)`` that is True, all axes but one full length in half of the cases."""
    box = torch.zeros(1, *shape, dtype=torch.bool)
    sides = [rng.integers(0, max(n // 4, 1), size=2).tolist() for n in shape]
    if rng.random() < 0.5:
        axis = int(rng.integers(len(shape)))
        sides = [side if k == axis else [0, 0] for k, side in enumerate(sides)]
    window = [slice(low, n - high) for (low, high), n in zip(sides, shape, strict=True)]
    box[0][tuple(window)] = True
    return box
