"""The bound against the numbers derived by hand from Eq. 5 to 9, the pairs against brute force and known fields."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.spatial.distance import pdist

from monai_regplugins.checks import InputError
from monai_regplugins.metrics.separability import (
    MotionPairs,
    MotionSeparability,
    correct_voxels,
    count_pairs,
    sampled_pairs,
)

# q: pool sizes, sum of dilations, ranges, (threshold, value) from fine to coarse for c = 2, thresholds for c = 1, areas
# on [0, 60], for example 4 (5 - 1) + 12 (13 - 5) + 28 (29 - 13) + 60 (60 - 29) = 2420
TABLE = [
    ((16, 8, 4, 2, 1), (2, 2, 2, 2, 2), (39.5, 19.5, 9.5, 4.5, 2), ((1, 4), (6, 13), (17, 32), (40, 71), (87, 150)),
     (1, 4, 10.5, 24, 51.5), (2319, 3756)),
    ((8, 8, 4, 2, 1), (4, 2, 2, 2, 2), (35.5, 19.5, 9.5, 4.5, 2), ((1, 4), (6, 13), (17, 32), (40, 71), (79, 142)),
     (1, 4, 10.5, 24, 43.5), (2319, 4256)),
    ((4, 4, 4, 2, 1), (8, 4, 2, 2, 2), (33.5, 17.5, 9.5, 4.5, 2), ((1, 4), (6, 13), (17, 32), (36, 67), (71, 134)),
     (1, 4, 10.5, 20, 37.5), (2379, 4588)),
    ((2, 2, 2, 2, 1), (16, 8, 4, 2, 2), (32.5, 16.5, 8.5, 4.5, 2), ((1, 4), (6, 13), (15, 30), (32, 63), (65, 128)),
     (1, 4, 8.5, 17, 33.5), (2411, 4757)),
    ((1, 1, 1, 1, 1), (32, 16, 8, 4, 2), (32, 16, 8, 4, 2), ((1, 4), (5, 12), (13, 28), (29, 60), (61, 124)),
     (1, 3, 7, 15, 31), (2420, 4836)),
]  # fmt: skip


@pytest.mark.parametrize("q", range(5))
def test_motion_aware_structures_have_the_numbers_of_the_paper(q: int) -> None:
    scales, sums, ranges, steps, thresholds, areas = TABLE[q]
    printed, drawn = (MotionSeparability.motion_aware(q, c=c) for c in (2.0, 1.0))
    assert printed.scales == scales
    assert tuple(sum(level) for level in printed.dilations) == sums
    assert printed.ranges == drawn.ranges == ranges
    assert tuple(zip(printed.thresholds, printed.values, strict=True)) == steps[::-1]
    assert drawn.thresholds == thresholds[::-1]
    assert drawn.values == printed.values
    for bound, area in zip((printed, drawn), areas, strict=True):
        assert bound.area(60) == area


@pytest.mark.parametrize("bound", [MotionSeparability.motion_aware(q, c=c) for q in (0, 3) for c in (1.0, 2.0)])
def test_invariants(bound: MotionSeparability) -> None:
    distances = np.linspace(0, 150, 601)
    differences = [bound.difference(p) for p in distances]
    assert differences == sorted(differences)
    assert bound.difference(0.99) == 0
    assert bound.difference(1) == 4
    for threshold, value, finer in zip(bound.thresholds, bound.values, (*bound.values[1:], 0), strict=True):
        assert (bound.difference(threshold), bound.difference(threshold - 1e-9)) == (value, finer)
    assert bound.difference(bound.thresholds[0]) == 2 * sum(bound.ranges)
    assert list(bound.thresholds) == sorted(bound.thresholds, reverse=True)
    integral, _ = quad(bound.difference, 0, 140, points=bound.thresholds, limit=200)
    assert bound.area(140) == pytest.approx(integral, rel=1e-9)
    assert bound.area(0.5) == 0


def test_more_motion_aware_levels_never_raise_a_threshold() -> None:
    for c, (a, b) in itertools.product((1.0, 2.0), itertools.pairwise(range(5))):
        coarse, fine = (MotionSeparability.motion_aware(q, c=c) for q in (a, b))
        assert all(after <= before for before, after in zip(coarse.thresholds, fine.thresholds, strict=True))
        assert fine.area(60) >= coarse.area(60)


def test_levels_with_one_threshold_take_the_coarser_one() -> None:
    """Without weight of the finer levels (c = 0) all levels of one pool size begin together."""
    bound = MotionSeparability((2, 2, 1), ((1,), (1,), (1,)), c=0)
    assert bound.thresholds == (2, 2, 1)
    assert (bound.difference(1), bound.difference(2)) == (2, 2 * (1 + 2.5 + 2.5))


def test_other_geometries() -> None:
    """The released network has a third convolution of dilation 1 on each level."""
    released = MotionSeparability((2, 2, 2, 2, 1), ((8, 8, 1), (4, 4, 1), (2, 2, 1), (1, 1, 1), (1, 1, 1)))
    assert released.ranges == (34.5, 18.5, 10.5, 6.5, 3)
    assert released.thresholds == (79, 42, 21, 8, 1)
    assert MotionSeparability((1,), ((),)).values == (0,)  # kernels of size 1 see nothing else


@pytest.mark.parametrize(("q", "largest"), [(0, 39), (1, 35), (2, 33), (3, 32), (4, 32)])
def test_capture_range_ends_at_the_sizes_of_equation_6(q: int, largest: int) -> None:
    bound = MotionSeparability.motion_aware(q)
    assert bound.captures((8, largest, 20))
    assert not bound.captures((largest + 1, 8, 20))


@pytest.mark.parametrize(
    ("scales", "dilations", "c"),
    [((1, 2), ((1,), (1,)), 2.0), ((2, 1), ((1,),), 2.0), ((1,), ((0,),), 2.0), ((), (), 2.0), ((1,), ((1,),), -1.0)],
)
def test_what_is_no_geometry_is_refused(
    scales: tuple[int, ...], dilations: tuple[tuple[int, ...], ...], c: float
) -> None:
    with pytest.raises(InputError, match="are no geometry"):
        MotionSeparability(scales, dilations, c)
    with pytest.raises(InputError, match="q is 5, expected 0 to 4"):
        MotionSeparability.motion_aware(5)


@pytest.mark.parametrize("shape", [(9, 14), (6, 9, 5)])
@pytest.mark.parametrize("distance", [3, 20])
def test_number_of_pairs_is_exact(shape: tuple[int, ...], distance: int) -> None:
    mask = np.random.default_rng(1).random(shape) > 0.4
    found = np.bincount(pdist(np.argwhere(mask), "chebyshev").astype(int), minlength=distance + 1)
    assert count_pairs(mask, distance).tolist() == found[1 : distance + 1].tolist()


def test_number_of_pairs_of_a_box_in_closed_form() -> None:
    """Within p in a full box: every axis has n + 2 (n p - p (p + 1) / 2) ordered pairs of coordinates."""
    shape, distances = (30, 24, 20), np.arange(11)
    within = np.prod([n + 2 * (n * distances - distances * (distances + 1) // 2) for n in shape], axis=0)
    assert count_pairs(np.ones(shape, dtype=bool), 10).tolist() == (np.diff(within) // 2).tolist()


def sliding(shape: tuple[int, ...], slip: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a field whose upper half moves along the last axis, and the labels 1 and 2 of the halves."""
    half = shape[0] // 2
    ddf, labels = torch.zeros(len(shape), *shape), torch.ones(shape, dtype=torch.uint8)
    ddf[-1, :half], labels[:half] = slip, 2
    return ddf, labels


def exact_pairs(
    ddf: torch.Tensor,
    correct: torch.Tensor,
    organs: torch.Tensor | None = None,
    *,
    max_distance: int,
    max_difference: int,
) -> MotionPairs:
    """Count all pairs one by one, by SciPy's distances."""
    points = correct.nonzero().numpy()
    distance = pdist(points, "chebyshev").astype(int)
    difference = pdist(ddf.double().numpy()[(slice(None), *points.T)].T, "chebyshev").astype(int)
    names = np.zeros(len(points)) if organs is None else organs.numpy()[tuple(points.T)]
    across = organs is None or pdist(names[:, None], "chebyshev") > 0
    kept = (distance <= max_distance) & across
    counts = np.zeros((max_distance, max_difference))
    np.add.at(counts, (distance[kept] - 1, np.minimum(difference[kept], max_difference - 1)), 1)
    return MotionPairs(counts)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shape", [(16, 14), (10, 8, 9)])
def test_samples_converge_to_the_exact_pairs(shape: tuple[int, ...], across: bool) -> None:
    """Each distance has its exact number of pairs, each bin its share within five standard deviations."""
    ddf, labels = sliding(shape, 1.5)
    ddf += 0.6 * torch.randn_like(ddf)
    correct = torch.rand(shape) > 0.3
    options = {"organs": labels if across else None, "max_distance": 6, "max_difference": 5}
    exact = exact_pairs(ddf, correct, **options).counts
    samples = 50_000
    sampled = sampled_pairs(ddf, correct[None], **options, samples=samples, seed=3).counts
    assert sampled.sum(axis=1) == pytest.approx(exact.sum(axis=1), rel=1e-12)
    totals = exact.sum(axis=1, keepdims=True)
    share = exact / totals
    p = np.arange(1, 7)[:, None]
    shell = (2 * p + 1) ** len(shape) - (2 * p - 1) ** len(shape)
    drawn = samples * 2 * totals / (shell * int(correct.sum()))  # how many partners are expected to count
    assert (np.abs(sampled / totals - share) <= 5 * np.sqrt(share * (1 - share) / drawn)).all()
    again = sampled_pairs(ddf, correct[None], **options, samples=samples, seed=3).counts
    assert (sampled == again).all()


@pytest.mark.parametrize("shape", [(41, 30), (14, 13, 15)])
def test_partners_are_spread_evenly_over_the_sphere(shape: tuple[int, ...]) -> None:
    """A field that distinguishes positions: differences along an axis follow the pairs of each offset of the shell."""
    p = 2
    for axis in range(len(shape)):
        ddf = torch.zeros(len(shape), *shape)
        ddf[axis] = torch.from_numpy(np.indices(shape)[axis])
        pairs = sampled_pairs(ddf, torch.ones(shape), max_distance=p, max_difference=p + 1, samples=100_000)
        expected = np.zeros(p + 1)
        for offset in itertools.product(range(-p, p + 1), repeat=len(shape)):
            if max(map(abs, offset)) == p:
                expected[abs(offset[axis])] += math.prod(n - abs(o) for n, o in zip(shape, offset, strict=True)) / 2
        np.testing.assert_allclose(pairs.counts[p - 1], expected, rtol=0.05)


def test_pairs_across_a_sliding_border_differ_by_the_slip() -> None:
    ddf, labels = sliding((8, 6, 6), 7.5)
    pairs = exact_pairs(ddf, labels > 0, labels, max_distance=5, max_difference=10)
    assert pairs.counts[:, 7].sum() == pairs.counts.sum() > 0
    within = exact_pairs(ddf, labels == 1, max_distance=5, max_difference=10)
    assert within.counts[:, 0].sum() == within.counts.sum() > 0
    fine, coarse = (MotionSeparability.motion_aware(q) for q in (4, 0))
    assert (fine.thresholds[-2], coarse.thresholds[-2]) == (5, 6)
    # Delta is 4 below these distances, less than the slip, and 12 or 13 from there on
    assert pairs.share_beyond(fine) == pytest.approx(pairs.counts[:4].sum() / pairs.counts.sum())
    assert pairs.share_beyond(coarse) == 1


def test_densities_sum_up_to_one() -> None:
    ddf, labels = sliding((12, 12), 2.0)
    pairs = exact_pairs(ddf, labels, max_distance=20, max_difference=6)  # some distances have no pair
    for sigma in (0.0, 1.0):
        assert pairs.density(sigma=sigma).sum() == pytest.approx(1)
    assert (pairs.density(sigma=0) == pairs.counts / pairs.counts.sum()).all()
    conditional = pairs.density(conditional=True, sigma=0)
    assert conditional.sum(axis=1) == pytest.approx([1.0] * 11 + [0.0] * 9)
    assert pairs.density(conditional=True)[:7].sum(axis=1) == pytest.approx([1.0] * 7)  # four deviations away
    pooled = pairs + MotionPairs(2 * pairs.counts)
    np.testing.assert_allclose(pooled.density(), pairs.density())
    assert pooled.counts.sum() == 3 * pairs.counts.sum()


def test_only_matched_organs_are_correct() -> None:
    fixed, warped = torch.tensor([[0, 1, 2, 2]]), torch.tensor([[0.0, 1.0, 1.0, 2.0]])
    assert correct_voxels(fixed, warped).tolist() == [[False, True, False, True]]


def test_nothing_correct_gives_no_pairs() -> None:
    empty = sampled_pairs(torch.zeros(2, 5, 5), torch.zeros(5, 5), torch.ones(5, 5))
    assert empty.counts.sum() == 0
    assert empty.density().sum() == 0
    assert math.isnan(empty.share_beyond(MotionSeparability.motion_aware(0)))


def test_what_does_not_fit_is_refused() -> None:
    ddf = torch.zeros(2, 50, 50)
    with pytest.raises(InputError, match="correct voxels has size 5 x 5 but field has 50 x 50"):
        sampled_pairs(ddf, torch.ones(5, 5))
    with pytest.raises(InputError, match="organs has size 5 x 5"):
        sampled_pairs(ddf, torch.ones(50, 50), torch.ones(5, 5))
