"""Motion separability: bound and measurement of the motion difference of two points at a distance.

Theory and experiment of the RAN paper (Zheng et al. 2022): the bound follows from a network's geometry (Sec. 2.1, 2.2,
Eq. 5 to 9, Fig. 3), the pairs of points are counted on a predicted field (Fig. 7).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.ndimage import gaussian_filter
from torch import Tensor

from monai_regplugins.checks import InputError, check_same_size

__all__ = ["MotionPairs", "MotionSeparability", "correct_voxels", "count_pairs", "sampled_pairs"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MotionSeparability:
    r"""Upper bound of the motion difference of two points, from a network's geometry.

    Levels are k = 0..K from coarse to fine. Level k has the receptive field and the accessible motion range

    .. math::
        s_k = p_k \, (1 + 2 \|r_k\|_1), \qquad a_k = (s_k - 1) / 2

    (Eq. 5) and with :math:`S_k = \sum_{j \ge k} a_j` two points at the Chebyshev distance p can move apart by

    .. math::
        \Delta_\infty(p) = 2 S_k \text{ for the smallest } k \text{ with } t_k = p_k + c \, S_{k+1} \le p

    and not at all below :math:`p_K` (Eq. 9). Printed is c = 2, the worst case, where the finer levels pull the two
    points together first; the published curve (Fig. 3d) follows c = 1.

    Args:
        scales: pool size p_k of each level, no level coarser than the one before.
        dilations: for each level the dilations r_k of its convolutions with kernel 3.
        c: weight of the finer levels in the threshold.

    Raises:
        InputError: When scales and dilations do not fit together, or are no geometry at all.

    Example:
        >>> bound = MotionSeparability(scales=(2, 1), dilations=((1, 1), (1, 1)))
        >>> [bound.difference(distance) for distance in (0, 1, 6)]  # voxels
        [0.0, 4.0, 13.0]
    """

    scales: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]
    c: float = 2.0

    def __post_init__(self) -> None:
        flat = [*self.scales, *(dilation for level in self.dilations for dilation in level)]
        fits = len(self.scales) == len(self.dilations) > 0 and min(flat) >= 1 and self.c >= 0
        if not fits or list(self.scales) != sorted(self.scales, reverse=True):
            raise InputError(
                f"scales {self.scales}, dilations {self.dilations} and c = {self.c:g} are no geometry, expected as "
                "many of both, all at least 1, scales that do not grow and c >= 0; give the levels from coarse to fine."
            )

    @classmethod
    def motion_aware(cls, q: int, levels: int = 5, convolutions: int = 2, c: float = 2.0) -> MotionSeparability:
        """Return the motion-aware structure with ``q`` of its levels on one grid (Sec. 2.3); 0 is a pyramid.

        The pool size is 2^(K-q) up to level q and 2^(K-k) from there on, the dilation 2^(q-k) and 1.

        Raises:
            InputError: When ``q`` is not one of 0..levels - 1.
        """
        if not 0 <= q < levels:
            raise InputError(f"q is {q}, expected 0 to {levels - 1}; it counts levels without the coarsest one.")
        scales = tuple(2 ** (levels - 1 - max(k, q)) for k in range(levels))
        return cls(scales, tuple((2 ** max(q - k, 0),) * convolutions for k in range(levels)), c)

    @cached_property
    def ranges(self) -> tuple[float, ...]:
        """Accessible motion range a_k of each level, in voxels."""
        fields = (p * (1 + 2 * sum(r)) for p, r in zip(self.scales, self.dilations, strict=True))
        return tuple((s - 1) / 2 for s in fields)

    @cached_property
    def values(self) -> tuple[float, ...]:
        """Motion difference v_k = 2 S_k, in voxels, from the threshold of level k on."""
        return tuple(2 * sum(self.ranges[k:]) for k in range(len(self.ranges)))

    @cached_property
    def thresholds(self) -> tuple[float, ...]:
        """Distance t_k, in voxels, from which level k and the finer ones can separate two points."""
        return tuple(p + self.c * sum(self.ranges[k + 1 :]) for k, p in enumerate(self.scales))

    def difference(self, distance: float) -> float:
        """Return Delta(p), the largest motion difference of two points ``distance`` apart, in voxels."""
        reached = bisect.bisect_right(self.thresholds[::-1], distance)
        return self.values[-reached] if reached else 0.0

    def area(self, distance: float) -> float:
        """Return the area under Delta from 0 to ``distance``, in square voxels: the paper's figure of merit."""
        starts = [min(start, distance) for start in (*self.thresholds[::-1], distance)]
        return sum(v * (b - a) for v, a, b in zip(self.values[::-1], starts, starts[1:], strict=False))

    def captures(self, spatial_shape: Sequence[int]) -> bool:
        """Return whether the coarsest level alone reaches across an image: s_0 >= 2 max(shape) + 1 (Eq. 6)."""
        return self.ranges[0] >= max(spatial_shape)


@dataclass(frozen=True)
class MotionPairs:
    """Pairs of points by their distance and by the difference of their motions, both in the Chebyshev norm.

    Args:
        counts: unordered pairs, shape (P, Q): entry [p - 1, j] those at the distance p whose displacements differ by
            j to j + 1 voxels; the last column holds all that differ by more, too.

    Example:
        >>> pairs = MotionPairs(np.array([[3.0, 1.0], [2.0, 2.0]]))
        >>> pairs.share(np.array([[False, True], [False, True]]))  # of those that differ by a voxel or more
        0.375
    """

    counts: Array

    def __add__(self, other: MotionPairs) -> MotionPairs:
        """Pool the pairs of two registrations."""
        check_same_size(self.counts, other.counts, "counts", "the other counts")
        return MotionPairs(self.counts + other.counts)

    def density(self, conditional: bool = False, sigma: float = 1.0) -> Array:
        """Return the share of the pairs in each bin (Fig. 7a), shape (P, Q).

        Args:
            conditional: normalize every distance by itself, the density of the difference given the distance; else
                all pairs together.
            sigma: of the Gaussian that smooths the result, in bins; it keeps the sum.

        Returns:
            Shares that sum up to 1, over each distance or in all; 0 where there are no pairs.
        """
        total = self.counts.sum(axis=1, keepdims=True) if conditional else self.counts.sum()
        shares = np.divide(self.counts, total, out=np.zeros_like(self.counts, dtype=np.float64), where=total > 0)
        smooth: Array = gaussian_filter(shares, sigma, mode="reflect") if sigma > 0 else shares
        return smooth

    def share_beyond(self, bound: MotionSeparability) -> float:
        """Return the share of the pairs in bins that begin at Delta(p) or above; the theory allows none beyond it."""
        limits = np.array([bound.difference(p) for p in range(1, len(self.counts) + 1)])
        return self.share(np.arange(self.counts.shape[1]) >= limits[:, None])

    def share(self, chosen: Array) -> float:
        """Return the share of the pairs in the ``chosen`` bins, a mask (P, Q); NaN without pairs."""
        total = self.counts.sum()
        return float(self.counts[chosen].sum() / total) if total else float("nan")


def correct_voxels(fixed_label: Tensor, warped_label: Tensor) -> Tensor:
    """Return the mask of voxels whose organ is matched, L^t[x] = (phi o L^s)[x], background left out (Fig. 7).

    Raises:
        InputError: When the sizes differ.
    """
    check_same_size(fixed_label, warped_label, "fixed labels", "warped labels")
    return (fixed_label == warped_label) & (fixed_label > 0)


def count_pairs(mask: Array, max_distance: int) -> Array:
    """Count the unordered pairs of voxels of a mask at each Chebyshev distance 1..P, exactly.

    The autocorrelation of the mask counts the ordered pairs of each offset; it is summed over Chebyshev shells.

    Args:
        mask: boolean, shape ``(*spatial)``.
        max_distance: the largest distance P, in voxels.

    Returns:
        Whole numbers, shape (P,).
    """
    sizes = [next_fast_len(max(n, max_distance + 1) + max_distance, real=True) for n in mask.shape]
    spectrum = rfftn(mask.astype(np.float64), sizes)
    pairs = irfftn(np.abs(spectrum) ** 2, sizes)
    offsets = np.arange(-max_distance, max_distance + 1)  # negative ones count from the end
    shells = np.abs(np.stack(np.meshgrid(*[offsets] * mask.ndim, indexing="ij"))).max(axis=0)
    near = np.rint(pairs[np.ix_(*[offsets] * mask.ndim)])
    counts: Array = np.bincount(shells.ravel(), near.ravel())[1:].astype(np.int64) // 2
    return counts


def sampled_pairs(
    ddf: Tensor,
    correct: Tensor,
    organs: Tensor | None = None,
    *,
    max_distance: int = 30,
    max_difference: int = 30,
    samples: int = 200_000,
    seed: int = 0,
) -> MotionPairs:
    """Estimate how the pairs of correctly moved voxels spread over distances and differences of motion (Fig. 7).

    For every distance as many voxels are drawn from the correct ones, each with a partner anywhere on the Chebyshev
    sphere around it; the pairs whose partner is correct too are a uniform sample of all pairs at that distance, whose
    exact number :func:`count_pairs` knows and by which they are weighted.

    Args:
        ddf: displacement field in voxels, shape ``(d, *spatial)``.
        correct: voxels to take pairs of (above zero), see :func:`correct_voxels`, shape ``(*spatial)`` or
            ``(1, *spatial)``.
        organs: label map of the same shape, to count only pairs across two organs; None for all pairs.
        max_distance: the largest distance P, in voxels.
        max_difference: number Q of bins of the difference, one voxel each.
        samples: how many pairs to draw at each distance.
        seed: of the random numbers.

    Returns:
        The pairs; each distance sums up to its exact number, or to 0 where no pair was drawn.

    Raises:
        InputError: When sizes differ.
    """
    u, inside, names = _as_arrays(ddf, correct, organs)
    points, rng = np.argwhere(inside), np.random.default_rng(seed)
    counts, exact = np.zeros((max_distance, max_difference)), count_pairs(inside, max_distance)
    if names is not None:
        exact -= sum(count_pairs(inside & (names == name), max_distance) for name in np.unique(names[inside]))
    reachable = np.pad(inside, max_distance)  # so that every partner has an entry
    for p in range(1, max_distance + 1 if len(points) else 1):
        first = points[rng.integers(len(points), size=samples)]
        second = first + _on_sphere(rng, p, samples, inside.ndim)
        kept = reachable[tuple((second + max_distance).T)]
        first, second = _across(names, first[kept], second[kept])
        columns = np.minimum(_difference(u, first, second).astype(np.int64), max_difference - 1)
        drawn = np.bincount(columns, minlength=max_difference)
        counts[p - 1] = drawn * (exact[p - 1] / max(drawn.sum(), 1))
    return MotionPairs(counts)


def _as_arrays(ddf: Tensor, correct: Tensor, organs: Tensor | None) -> tuple[Array, Array, Array | None]:
    """Return the field ``(*spatial, d)``, the mask and the label map ``(*spatial)`` as arrays."""

    def on_grid(values: Tensor, name: str) -> Array:
        flat = values.detach().cpu().reshape(values.shape[-len(ddf) :])
        check_same_size(flat, ddf[0], name, "field")
        grid: Array = flat.numpy()
        return grid

    names = None if organs is None else on_grid(organs, "organs")
    return ddf.detach().cpu().movedim(0, -1).numpy(), on_grid(correct, "correct voxels") > 0, names


def _across(names: Array | None, first: Array, second: Array) -> tuple[Array, Array]:
    """Keep the pairs (N, d) whose points bear different names, all without names."""
    if names is None:
        return first, second
    differ = names[tuple(first.T)] != names[tuple(second.T)]
    return first[differ], second[differ]


def _difference(u: Array, first: Array, second: Array) -> Array:
    """Chebyshev norm of the difference of the displacements at two lists of points (N, d), shape (N,)."""
    found: Array = np.abs(u[tuple(first.T)] - u[tuple(second.T)]).max(axis=1)
    return found


def _on_sphere(rng: np.random.Generator, radius: int, samples: int, d: int) -> Array:
    """Draw offsets of a Chebyshev norm, (N, d), all with the same probability."""
    free, inner = 2 * radius + 1, 2 * radius - 1
    ways = np.array([inner**k * free ** (d - 1 - k) for k in range(d)])  # axis k is the first to reach the radius
    face = rng.choice(d, size=samples, p=ways / ways.sum())
    offsets = rng.integers(-radius, radius + 1, size=(samples, d))
    below = rng.integers(1 - radius, radius, size=(samples, d))
    offsets = np.where(np.arange(d) < face[:, None], below, offsets)
    offsets[np.arange(samples), face] = radius * rng.choice([-1, 1], size=samples)
    return offsets
