"""Synthetic pairs of RAN: an image and its warp by a random displacement field, the ground truth."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import RandomizableTransform

from monai_regplugins.checks import InputError
from monai_regplugins.fields import compose, identity_grid, warp
from monai_regplugins.grids import as_meta_tensor
from monai_regplugins.keys import POINT_KEYS
from monai_regplugins.synthesis.ran_fields import (
    affine_displacement,
    gaussian_seed_field,
    image_center,
    rotation_matrix,
    thin_plate_spline_field,
)

__all__ = [
    "RandSyntheticPaird",
    "affine_displacement",
    "gaussian_seed_field",
    "rotation_matrix",
    "thin_plate_spline_field",
]

LABEL_KINDS = ("label", "mask")


class RandSyntheticPaird(RandomizableTransform):
    """Replace a prepared pair, with a probability, by one image and its warp by a random field that is then the truth.

    One of the two images is drawn as the base. ``moving`` becomes the base, ``fixed`` the base warped by the field with
    zeros beyond its border, labels and masks along with them (nearest neighbor). The item gains ``true_ddf``,
    ``(d, *spatial)`` float32 voxels, and ``has_true_ddf``, 1.0; a pair that stays real gets zeros and 0.0, so that
    batches can mix both kinds for :class:`~monai_regplugins.losses.SyntheticFieldLoss`.

    The field follows the supplement of the RAN paper (Zheng et al. 2022): rotation by
    U(-pi/4, pi/4) about an arbitrary axis through the image center, thin-plate spline, Gaussian bumps at 20 uniform
    seeds. Amplitudes are not published; the translation of 8, the 20 spline points, their 2 voxels and the sigma of 5
    to 16 are in the authors' code. The parts are composed, x + total(x) = affine(tps(gauss(x))), not added up, and
    everything is in voxels of the grid, which should be about isotropic for the rotation to be one.

    Args:
        prob: probability of a synthetic pair.
        rotation: largest angle, radians.
        translation: largest shift along each axis, voxels.
        scale: largest relative change of size along each axis, 0 for none, below 1.
        tps_points: control points of the spline, well spread, besides the unmoved corners; 0 for no spline.
        tps_amplitude: largest displacement of a control point along each axis, voxels.
        gaussian_seeds: number of bumps, 0 for none.
        gaussian_amplitude: range of the peak length of all bumps together, voxels.
        gaussian_sigma: range of their standard deviation, voxels.
        pre_augment: 0, or the factor (0.5, say) on all amplitudes of another field that warps the base beforehand.
        intensity_jitter: 0, or the largest relative change of gain and gamma and ten times the largest noise, drawn
            for each image of a synthetic pair, of intensities in [0, 1], so that equal intensities are no clue.

    Raises:
        InputError: a number is out of its range.

    Example:
        >>> pair = {key: torch.rand(1, 16, 16) for key in ("moving", "fixed")}
        >>> RandSyntheticPaird()(pair)["true_ddf"].shape
        torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        prob: float = 1.0,
        rotation: float = math.pi / 4,
        translation: float = 8.0,
        scale: float = 0.0,
        tps_points: int = 20,
        tps_amplitude: float = 2.0,
        gaussian_seeds: int = 20,
        gaussian_amplitude: tuple[float, float] = (0.0, 6.0),
        gaussian_sigma: tuple[float, float] = (5.0, 16.0),
        pre_augment: float = 0.0,
        intensity_jitter: float = 0.0,
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        for name, value in {
            "rotation": rotation,
            "translation": translation,
            "tps_points": tps_points,
            "tps_amplitude": tps_amplitude,
            "gaussian_seeds": gaussian_seeds,
            "pre_augment": pre_augment,
        }.items():
            if not value >= 0:
                raise InputError(f"{name} is {value}, expected zero or more.")
        for name, value in {"scale": scale, "intensity_jitter": intensity_jitter}.items():
            if not 0 <= value < 1:
                raise InputError(f"{name} is {value}, expected at least 0 and less than 1.")
        self.rotation = rotation
        self.translation = translation
        self.scale = scale
        self.tps_points = tps_points
        self.tps_amplitude = tps_amplitude
        self.gaussian_seeds = gaussian_seeds
        self.gaussian_amplitude = _check_range(gaussian_amplitude, "gaussian_amplitude", positive=False)
        self.gaussian_sigma = _check_range(gaussian_sigma, "gaussian_sigma", positive=True)
        self.pre_augment = pre_augment
        self.intensity_jitter = intensity_jitter

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item, synthetic or not.

        Args:
            data: a pair on one grid: ``moving`` and ``fixed`` ``(1, *spatial)``, and their labels and masks if there
                are any.

        Raises:
            InputError: the two images differ in size, points are among the data (they would be wrong afterwards), or
                each image lacks a label or mask that the other has.
        """
        item = dict(data)
        shape = tuple(item["fixed"].shape[1:])
        _check_pair(item)
        self.randomize(None)
        if not self._do_transform:
            return item | {"true_ddf": torch.zeros(len(shape), *shape), "has_true_ddf": torch.tensor(0.0)}
        bases = _complete_bases(item)
        base = bases[int(self.R.randint(len(bases)))]
        before = self.random_field(shape, self.pre_augment) if self.pre_augment > 0 else None
        true_ddf = self.random_field(shape)
        sources = {kind: item[_key(base, kind)] for kind in ("", *LABEL_KINDS) if _key(base, kind) in item}
        for kind, source in sources.items():
            moving = source if before is None else _warp_like(source, before, nearest=kind != "")
            fixed = _warp_like(moving, true_ddf, nearest=kind != "")
            if kind == "" and self.intensity_jitter > 0:
                moving, fixed = self._jitter(moving), self._jitter(fixed)
            item |= {_key(r, kind): v for r, v in (("moving", moving), ("fixed", fixed)) if _key(r, kind) in item}
        return item | {"true_ddf": true_ddf, "has_true_ddf": torch.tensor(1.0)}

    def random_field(self, shape: Sequence[int], factor: float = 1.0) -> torch.Tensor:
        """Draw a field ``(d, *shape)`` in voxels, all its amplitudes multiplied by ``factor``."""
        dims, extent = len(shape), np.asarray(shape, dtype=float) - 1
        field = torch.zeros(dims, *shape)
        if self.gaussian_seeds > 0:
            seeds = self._uniform(0 * extent, extent, self.gaussian_seeds)
            vectors = self._uniform(-np.ones(dims), np.ones(dims), self.gaussian_seeds)
            sigma, amplitude = self.R.uniform(*self.gaussian_sigma), factor * self.R.uniform(*self.gaussian_amplitude)
            field = gaussian_seed_field(shape, seeds, vectors, float(sigma), float(amplitude))
        if self.tps_points > 0:
            reach = np.full(dims, factor * self.tps_amplitude)
            points, moves = self._spread_points(extent), self._uniform(-reach, reach, self.tps_points)
            spline = thin_plate_spline_field(shape, points, moves, fix_corners=True)
            field = compose(spline[None], field[None])[0]
        matrix, translation = self._random_affine(dims, factor)
        # The affine part comes last and in closed form: looked up in a field it would be cut off at the border.
        return field + affine_displacement(
            identity_grid(tuple(shape)) + field, matrix, image_center(shape), translation
        )

    def _random_affine(self, dims: int, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw ``R S`` and the translation: a rotation after a change of size along the axes."""
        # A normalized Gaussian vector has no preferred direction, unlike a point of a cube.
        axis = self.R.normal(size=3).tolist() if dims == 3 else None
        rotation = rotation_matrix(axis, factor * float(self.R.uniform(-self.rotation, self.rotation)))
        ones = np.ones(dims)
        sizes = 1 + factor * self.scale * self._uniform(-ones, ones)[0]
        return rotation * sizes, factor * self.translation * self._uniform(-ones, ones)[0]

    def _spread_points(self, extent: np.ndarray[Any, Any]) -> torch.Tensor:
        """Draw spline points apart from each other, each the farthest of ten: close ones would fold the field."""
        points = self._uniform(0 * extent, extent)
        while len(points) < self.tps_points:
            candidates = self._uniform(0 * extent, extent, 10)
            farthest = torch.cdist(candidates, points).min(dim=1).values.argmax()
            points = torch.cat([points, candidates[farthest][None]])
        return points

    def _jitter(self, image: torch.Tensor) -> torch.Tensor:
        """Change gamma and gain of an image in [0, 1] and add noise, all relative to ``intensity_jitter``."""
        gamma, gain = (1 + self.intensity_jitter * self.R.uniform(-1, 1, size=2)).tolist()
        noise = self.R.normal(scale=self.R.uniform(0, 0.1 * self.intensity_jitter), size=tuple(image.shape))
        noisy: torch.Tensor = gain * image.clamp(0, 1) ** gamma + torch.as_tensor(noise, dtype=image.dtype)
        return noisy.clamp(0, 1)

    def _uniform(self, low: np.ndarray[Any, Any], high: np.ndarray[Any, Any], count: int = 1) -> torch.Tensor:
        """Draw ``(count, d)`` numbers between two corners."""
        return torch.as_tensor(self.R.uniform(low, high, size=(count, len(high))), dtype=torch.float32)


def _warp_like(image: torch.Tensor, ddf: torch.Tensor, nearest: bool) -> torch.Tensor:
    """Warp an image or label ``(1, *spatial)`` with zeros outside; its type and origin stay."""
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    moved = warp(plain[None].to(torch.float32), ddf[None], mode="nearest" if nearest else "linear", padding="zeros")
    result: torch.Tensor = moved[0].to(plain.dtype)
    return as_meta_tensor(result, image.affine, image.meta) if isinstance(image, MetaTensor) else result


def _key(role: str, kind: str) -> str:
    return f"{role}_{kind}" if kind else role


def _complete_bases(item: Mapping[Hashable, Any]) -> list[str]:
    """Return those of moving and fixed that have every kind of label and mask that the pair has."""
    kinds = [kind for kind in LABEL_KINDS if f"moving_{kind}" in item or f"fixed_{kind}" in item]
    bases = [role for role in ("moving", "fixed") if all(f"{role}_{kind}" in item for kind in kinds)]
    if not bases:
        raise InputError("moving and fixed each lack a label or mask that the other has; give one image all of them.")
    return bases


def _check_pair(item: Mapping[Hashable, Any]) -> None:
    sizes = [tuple(item[role].shape) for role in ("moving", "fixed")]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"moving {sizes[0]} and fixed {sizes[1]} differ in size; bring moving onto the fixed grid first."
        )
    for key in POINT_KEYS:
        if hasattr(item.get(key), "shape"):
            raise InputError(f"'{key}' would be wrong after the synthetic warp; delete it from the item before.")


def _check_range(limits: Sequence[float], name: str, positive: bool) -> tuple[float, float]:
    low, high = limits
    if not 0 <= low <= high or (positive and low == 0):
        raise InputError(
            f"{name} is {tuple(limits)}, expected (low, high) in order and {'above' if positive else 'from'} 0."
        )
    return float(low), float(high)
