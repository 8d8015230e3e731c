"""Make synthetic pairs with an analytic displacement, neither image an interpolation of the other.

Both images of a pair are samples of one continuous function P, an anatomy drawn at random, plus noise of their own:
``fixed(x) = P(x + u(x)) + noise`` and ``moving(x) = P(x) + noise``, so u is the displacement that registration has to
find. It is smooth, slides along a plane, or is zero, where all that is found is noise. The fixed image may have another
contrast, see :mod:`monai_regplugins.benchmark.synthetic_contrast`. Voxels are 1 mm. The result is a folder in
Learn2Reg's format, as that of :mod:`monai_regplugins.benchmark.synthetic_warp`.

    python -m monai_regplugins.benchmark.synthetic_motion --kind sliding --output_dir Sliding --pairs 3 --seed 1000
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from torch import Tensor

from monai_regplugins.benchmark.ground_truth import (
    Subject,
    check_request,
    write_dataset,
    write_displacement,
)
from monai_regplugins.benchmark.synthetic_contrast import CONTRASTS, in_other_contrast
from monai_regplugins.bundle import start
from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.fields import identity_grid
from monai_regplugins.files.folders import make_folder
from monai_regplugins.phantoms.shapes import Shape, ellipsoid
from monai_regplugins.synthesis.regnet_fields import GaussianField, smallest_determinant

__all__ = ["KINDS", "Anatomy", "Motion", "MotionPair", "make_synthetic_motion", "motion_pair"]

Array = npt.NDArray[Any]

KINDS = {"smooth": (1.0, 0.0), "sliding": (0.5, 0.5), "zero": (0.0, 0.0)}
"""Shares of the amplitude that the smooth part and the slide of each kind have."""

# Lengths are parts of the size of the image, unless they are in voxels.
ORGANS, LARGEST_ORGAN, SMALLEST_ORGAN = 14, 0.15, 0.05
EDGE = 0.5  # voxels; scale of the logistic function, which rises from 12 to 88 % over two voxels
BODY_LEVEL = 0.5  # intensity
WAVES, SHORTEST_WAVE, LONGEST_WAVE = 32, 9 / 96, 30 / 96
TEXTURE = 0.05  # standard deviation of all waves together
BUMPS, SIGMA = 16, 1 / 6
MIDDLE = (0.2, 0.8)  # where the bumps are: the largest displacement is to be one of the body
MARGIN = 1 / 8  # along the border, in which a slide fades out
LARGEST_AMPLITUDE = 1 / 8  # up to which the slide's margin does not fold, and smooth parts seldom do
LEAST_DETERMINANT = 0.2
LEAST_SIZE = 24  # voxels; the smallest organs are two voxels across


@dataclass(frozen=True)
class Anatomy:
    r"""A body with organs and a texture, P, that has a value at every point.

    .. math::
        P(x) = b(x) \Big(q_{14}(x) + a \sum_j \sin(k_j \cdot x + \varphi_j)\Big), \qquad
        q_i = q_{i-1} + c_i \, (l_i - q_{i-1}), \quad q_0 = l_0

    with soft covers b and c of the ellipsoids, :math:`1 / (1 + \exp(d / w))` of the signed distance d in voxels.

    Attributes:
        body: an ellipsoid in voxels.
        organs: ellipsoids within it, each painted over the ones before.
        levels: intensities l of body and organs, ``(1 + organs,)``.
        waves: wave vectors k of the texture, ``(W, 3)`` rad per voxel.
        phases: rad, ``(W,)``.
    """

    body: Shape
    organs: tuple[Shape, ...]
    levels: Array
    waves: Array
    phases: Array

    def sample(self, points: Array) -> tuple[Array, Array, Array]:
        """Return P, the number of the organ (0 is none) and whether it is body, ``(N,)`` each, at ``(3, N)`` voxels."""
        body, texture = self.body.distance(points), np.zeros(points.shape[1])
        value, label = np.full(points.shape[1], self.levels[0]), np.zeros(points.shape[1], dtype=np.int16)
        for number, organ in enumerate(self.organs, start=1):
            distance = organ.distance(points)
            value += expit(-distance / EDGE) * (self.levels[number] - value)
            label[distance < 0] = number
        for wave, phase in zip(self.waves, self.phases, strict=True):
            texture += np.sin(wave @ points + phase)
        value += TEXTURE * math.sqrt(2 / len(self.waves)) * texture
        return expit(-body / EDGE) * value, label, body < 0


@dataclass(frozen=True)
class Motion:
    r"""A slide along the middle plane of the first axis, followed by a smooth displacement.

    .. math::
        u(x) = j(x) + s(x + j(x)), \qquad j(x) = \pm h \, f(x) \, e_1

    The sign is that of the side of the plane, and f falls from 1 to 0 toward the border. In this order the two sides
    stay in touch: a sum of the two parts would tear tissue apart along the plane and double it elsewhere.

    Attributes:
        smooth: s, voxels.
        slide: h, half of the jump, voxels.
        size: voxels along each axis.
    """

    smooth: GaussianField
    slide: float
    size: int

    def at(self, points: Tensor) -> Tensor:
        """Return u in voxels at points ``(N, 3)``, the same shape."""
        middle = (self.size - 1) / 2
        depth = ((middle - (points - middle).abs()) / (MARGIN * self.size)).clamp(0, 1)
        fade = (depth.square() * (3 - 2 * depth)).prod(dim=1)
        jump = torch.zeros_like(points)
        jump[:, 1] = torch.where(points[:, 0] > middle, self.slide, -self.slide) * fade
        return jump + self.smooth.at(points + jump)


@dataclass(frozen=True)
class MotionPair:
    """Two images of one anatomy, and the displacement between them on the grid, ``(3, *spatial)`` voxels."""

    anatomy: Anatomy
    motion: Motion
    fixed: Subject
    moving: Subject
    ddf: Tensor


def motion_pair(
    seed: int | Sequence[int],
    kind: str = "smooth",
    size: int = 96,
    amplitude: float = 8.0,
    noise: float = 0.01,
    landmarks: int = 300,
    contrast: str = "equal",
) -> MotionPair:
    """Draw an anatomy and a displacement, and sample the two images.

    One seed gives all kinds the same anatomy, bumps and noise. Where a field slides, a landmark less than a voxel
    from the plane has its exact place all the same, which no interpolation between the voxels of the field yields.

    Args:
        seed: of anatomy, displacement, noise and landmarks.
        kind: one of :data:`KINDS`.
        size: voxels along each of the three axes.
        amplitude: largest length of a smooth displacement, and of both parts of a sliding one together, voxels; not
            used if the kind is zero.
        noise: standard deviation; intensities are between 0 and about 1.
        landmarks: random points of the fixed body whose places in the moving image lie within it.
        contrast: of the fixed image, one of :data:`~monai_regplugins.benchmark.synthetic_contrast.CONTRASTS`.

    Raises:
        InputError: When there is no such kind or a number is out of its range.
    """
    _check(kind, size, amplitude, noise)
    rng = np.random.default_rng(seed)
    anatomy = _random_anatomy(rng, size)
    motion = _random_motion(rng, size, *(share * amplitude for share in KINDS[kind]))
    grid = identity_grid((size,) * 3).double().flatten(1).T
    u = motion.at(grid)
    fixed, moving = (
        _sampled(rng, anatomy, points, size, noise, partial(in_other_contrast, contrast=shown, seed=seed))
        for points, shown in ((grid + u, contrast), (grid, "equal"))
    )
    places = _random_places(rng, anatomy, motion, landmarks)
    return MotionPair(
        anatomy,
        motion,
        Subject(*fixed[:2], places, fixed[2]),
        Subject(*moving[:2], places + motion.at(places), moving[2]),
        u.T.reshape(3, size, size, size).float(),
    )


def _check(kind: str, size: int, amplitude: float, noise: float) -> None:
    check_choice(kind, KINDS, "kind")
    if size < LEAST_SIZE:
        raise InputError(f"size is {size}, expected at least {LEAST_SIZE} voxels; the organs need them.")
    largest = LARGEST_AMPLITUDE * size
    if kind != "zero" and not 0 < amplitude <= largest:
        raise InputError(
            f"amplitude is {amplitude}, expected more than 0 and at most {largest:g} voxels, an eighth of the size; "
            "larger ones fold."
        )
    if not 0 <= noise < math.inf:
        raise InputError(f"noise is {noise}, expected a standard deviation of 0 or more.")


def _random_anatomy(rng: np.random.Generator, size: int) -> Anatomy:
    """Draw the ellipsoids, the largest organ first, and the texture."""
    center, radii = (size - 1) / 2 + size * rng.uniform(-0.02, 0.02, 3), size * rng.uniform(0.33, 0.40, 3)
    lengths = size * np.geomspace(LARGEST_ORGAN, SMALLEST_ORGAN, ORGANS)
    stretched = lengths[:, None] * np.exp(rng.normal(0, 0.15, (ORGANS, 3)))
    places = _spread(rng, lengths, radii - stretched.max(axis=1, keepdims=True)) + center
    turns = rng.uniform(-180, 180, (ORGANS, 3))
    contrast = rng.choice([-1, 1], ORGANS) * rng.uniform(0.12, 0.38, ORGANS)
    directions = rng.normal(size=(WAVES, 3))
    wavelengths = size * np.exp(rng.uniform(math.log(SHORTEST_WAVE), math.log(LONGEST_WAVE), (WAVES, 1)))
    return Anatomy(
        body=ellipsoid(center.tolist(), radii.tolist()),
        organs=tuple(ellipsoid(*organ) for organ in zip(places, stretched, turns, strict=True)),
        levels=BODY_LEVEL + np.concatenate([[0.0], contrast]),
        waves=2 * np.pi / wavelengths * directions / np.linalg.norm(directions, axis=1, keepdims=True),
        phases=rng.uniform(0, 2 * np.pi, WAVES),
    )


def _spread(rng: np.random.Generator, lengths: Array, room: Array) -> Array:
    """Centers of organs about the origin, ``(N, 3)``, each the one of many candidates that leaves the widest gap."""
    centers = np.zeros((0, 3))
    for number, reach in enumerate(room):
        directions = rng.normal(size=(200, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        candidates = reach * directions * np.cbrt(rng.uniform(size=(200, 1)))  # evenly within an ellipsoid
        gaps = np.linalg.norm(candidates[:, None] - centers, axis=2) - lengths[:number]
        centers = np.vstack([centers, candidates[gaps.min(axis=1, initial=np.inf).argmax()]])
    return centers


def _random_motion(rng: np.random.Generator, size: int, largest: float, slide: float) -> Motion:
    """Draw bumps that do not fold; a second draw is hardly ever needed."""
    axes = [torch.arange(size, dtype=torch.float64)] * 3
    ones = torch.ones(3, dtype=torch.float64)
    while True:
        points, impulses = (torch.from_numpy(values) for values in _random_bumps(rng, size))
        raw = GaussianField(SIGMA * size, points, impulses, ones, ones)
        field = raw.scaled(largest / float(torch.linalg.vector_norm(raw.on_axes(axes), dim=0).max()))
        if smallest_determinant(field, (size,) * 3) >= LEAST_DETERMINANT:
            return Motion(field, slide, size)


def _random_bumps(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """Centers, voxels, and vectors of the Gaussians, ``(P, 3)`` each."""
    return (size - 1) * rng.uniform(*MIDDLE, (BUMPS, 3)), rng.normal(size=(BUMPS, 3))


def _sampled(
    rng: np.random.Generator,
    anatomy: Anatomy,
    points: Tensor,
    size: int,
    noise: float,
    shown: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, labels and body at points ``(N, 3)`` in the order of the voxels, ``(1, *spatial)`` each."""
    values = anatomy.sample(points.T.numpy())
    value, organs, mask = (torch.from_numpy(each).reshape(1, size, size, size) for each in values)
    noisy = shown(value) + noise * torch.from_numpy(rng.normal(size=tuple(value.shape)))
    return noisy.float(), organs, mask


def _random_places(rng: np.random.Generator, anatomy: Anatomy, motion: Motion, count: int) -> Tensor:
    """Points ``(count, 3)`` of the image that the displacement takes to points of the body and of the image."""
    kept, last = torch.zeros(0, 3, dtype=torch.float64), motion.size - 1
    while len(kept) < count:
        drawn = torch.from_numpy(rng.uniform(0, last, (8 * count, 3)))
        targets = drawn + motion.at(drawn)
        inside = ((targets >= 0) & (targets <= last)).all(dim=1)
        body = torch.from_numpy(anatomy.body.distance(targets.T.numpy()) < 0)
        kept = torch.cat([kept, drawn[inside & body]])
    return kept[:count]


def make_synthetic_motion(
    dataset_dir: str | Path,
    kind: str = "smooth",
    pairs: int = 3,
    size: int = 96,
    amplitude: float = 8.0,
    noise: float = 0.01,
    landmarks: int = 300,
    seed: int = 0,
    contrast: str = "equal",
) -> Path:
    """Make a data set of pairs, each of an anatomy and with a displacement of its own.

    Images are float32; the labels are 1 to 14, the masks the body, and the landmarks points of the fixed body. Pair k
    consists of the images 2k (fixed) and 2k + 1 (moving) and has the same content in data sets of more pairs.

    Args:
        dataset_dir: the folder to make, complete or not at all.
        kind: one of :data:`KINDS`.
        pairs: how many pairs to draw.
        size: voxels of 1 mm along each of the three axes.
        amplitude: see :func:`motion_pair`.
        noise: standard deviation; intensities are between 0 and about 1.
        landmarks: points per pair.
        seed: of everything that is drawn.
        contrast: of the fixed images, see :func:`motion_pair`.

    Returns:
        ``dataset_dir``.

    Raises:
        InputError: When there is no such kind, a number is out of its range, or the folder is there already.
    """
    target = Path(dataset_dir)
    check_request(target, pairs, landmarks, seed)

    def write(folder: Path) -> None:
        affine, subjects = torch.eye(4, dtype=torch.float64), []
        for number in range(pairs):
            pair = motion_pair((seed, number), kind, size, amplitude, noise, landmarks, contrast)
            write_displacement(folder, 2 * number, 2 * number + 1, pair.ddf, affine)
            subjects += [pair.fixed, pair.moving]
        about = f"Analytic pairs, {kind} motion, which is in displacements, voxels; contrast: {contrast}"
        numbers = [(2 * number, 2 * number + 1) for number in range(pairs)]
        write_dataset(folder, target.resolve().name, about, affine, subjects, numbers)

    return make_folder(target, write)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m monai_regplugins.benchmark.synthetic_motion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="folder to make")
    add("--kind", default="smooth", help=f"{', '.join(KINDS)} (default: smooth)")
    add("--pairs", type=int, default=3, help="pairs to draw (default: 3)")
    add("--size", type=int, default=96, help="voxels along each axis (default: 96)")
    add("--amplitude", type=float, default=8.0, help="largest displacement, voxels (default: 8)")
    add("--noise", type=float, default=0.01, help="standard deviation of the noise (default: 0.01)")
    add("--landmarks", type=int, default=300, help="points per pair (default: 300)")
    add("--seed", type=int, default=0, help="of everything that is drawn (default: 0)")
    add("--contrast", default="equal", help=f"of the fixed images, {', '.join(CONTRASTS)} (default: equal)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Path:
    """Make the data set of the command line and return its folder."""
    args = vars(parse_arguments(sys.argv[1:] if argv is None else argv))
    return make_synthetic_motion(args.pop("output_dir"), **args)


if __name__ == "__main__":
    start()  # input errors in one line
    main()
