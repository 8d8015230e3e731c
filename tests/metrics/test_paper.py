"""The RAN paper's own measures against full distance matrices and NumPy's gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from scipy.spatial.distance import cdist

from monai_regplugins.checks import InputError
from monai_regplugins.metrics.paper import asd_paper, detj_paper, hd_paper, paper_metrics


def ball(center: tuple[float, ...], radius: float, size: int = 20) -> torch.Tensor:
    grid = np.indices([size] * len(center)) - np.reshape(center, (-1, *[1] * len(center)))
    return torch.from_numpy((grid**2).sum(0) <= radius**2)


PAIRS = [(ball((9, 9), 5), ball((11, 8), 4)), (ball((8, 9, 9), 5), ball((11, 9, 8), 6))]


@pytest.mark.parametrize(("a", "b"), [*PAIRS, (torch.rand(14, 9, 8) > 0.97, torch.rand(14, 9, 8) > 0.97)])
def test_hausdorff_distance_of_all_voxels(a: torch.Tensor, b: torch.Tensor) -> None:
    distances = cdist(np.argwhere(a.numpy()), np.argwhere(b.numpy()))
    expected = max(distances.min(0).max(), distances.min(1).max())
    assert hd_paper(a, b) == pytest.approx(expected, rel=1e-12)
    assert hd_paper(a, b) == hd_paper(b, a)


def test_a_hole_does_not_count_as_a_surface() -> None:
    """A solid ball and its shell: the center is as far from the shell as it gets, on surfaces it would be nothing."""
    solid = ball((9, 9, 9), 6)
    hollow = solid & ~ball((9, 9, 9), 4)
    assert hd_paper(solid, hollow) == pytest.approx(math.sqrt(17))  # from the center to (0, 1, 4)
    assert hd_paper(hollow, hollow) == 0


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_average_distance_of_zoomed_shells(a: torch.Tensor, b: torch.Tensor) -> None:
    """The Laplacian written out: neighbors minus the center, the border repeated; then all distances."""
    shells = []
    for mask in (a, b):
        small = zoom(mask.numpy().astype(float), 0.5)
        padded = np.pad(small, 1, mode="edge")
        inner = (slice(1, -1),) * small.ndim
        neighbors = sum(np.roll(padded, step, axis)[inner] for axis in range(small.ndim) for step in (-1, 1))
        shells.append(np.argwhere(neighbors - 2 * small.ndim * small > 0.1))
    distances = cdist(*shells)
    expected = np.concatenate([distances.min(0), distances.min(1)]).mean() / 0.5
    assert expected > 1
    assert asd_paper(a, b) == pytest.approx(expected, rel=1e-12)


def test_missing_masks() -> None:
    full, empty = ball((9, 9), 5)[:, :15], torch.zeros(20, 15)
    assert (asd_paper(full, empty), asd_paper(empty, full), asd_paper(empty, empty)) == (15, 15, 0)
    assert math.isnan(hd_paper(full, empty))


@pytest.mark.parametrize("factor", [1, 2])
def test_folded_voxels_inside_the_labels(factor: int) -> None:
    """A slab of 5 voxels loses its two boundary layers along each axis; folds at its border do not count."""
    size = (9, 8, 7)
    ddf = 1.2 * torch.randn(3, *size)
    label = torch.zeros(1, *[factor * n for n in size], dtype=torch.uint8)
    box = tuple(slice(factor, factor * 6) for _ in size)
    label[(0, *box)] = 2
    determinant = np.linalg.det(
        np.moveaxis([np.gradient(component.double().numpy()) for component in ddf], (0, 1), (-2, -1)) + np.eye(3)
    )
    # the region without its boundary begins one voxel of the label grid further in
    inside = np.zeros(size, dtype=bool)
    first, last = (2, 5) if factor == 1 else (2, 6)  # of the field's grid; label voxels 3..10 hold 4, 6, 8, 10
    inside[(slice(first, last),) * 3] = True
    expected = int((determinant[inside] < 0).sum())
    assert 5 < expected < inside.sum()
    assert detj_paper(ddf, label) == expected


def test_a_field_that_is_not_finite_has_no_count() -> None:
    ddf = torch.zeros(2, 8, 8)
    ddf[0, 4, 4] = math.nan
    assert math.isnan(detj_paper(ddf, torch.ones(1, 8, 8)))


def test_collapse_is_no_folding_here() -> None:
    """Below zero is counted, zero is not: a map onto a plane has det J = 0."""
    ddf = torch.zeros(2, 9, 9)
    ddf[0] = -torch.arange(9.0)[:, None]
    assert detj_paper(ddf, torch.ones(9, 9)) == 0
    assert detj_paper(2 * ddf, torch.ones(9, 9)) == 7 * 7


def test_measures_of_a_pair() -> None:
    a, b = PAIRS[1]
    fixed, warped = (torch.stack([torch.where(mask, 3, 0)]) for mask in (b, a))
    fixed[0, :2, :2, :2] = 5  # a label that the other image lacks
    ddf = 1.2 * torch.randn(3, 20, 20, 20)
    values = paper_metrics(warped, fixed, ddf, [3, 5])
    assert values["hd_paper"] == hd_paper(a, b)
    missing = asd_paper(torch.zeros(20, 20, 20), fixed[0] == 5)
    assert missing in (0, 20)
    assert values["asd_paper"] == (asd_paper(a, b) + missing) / 2
    assert values["detj_paper"] == detj_paper(ddf, fixed) > 0
    nothing = paper_metrics(warped, fixed, ddf, [])
    assert math.isnan(nothing["hd_paper"])
    assert nothing["detj_paper"] == 0


def test_sizes_must_fit() -> None:
    with pytest.raises(InputError, match="first mask has size 5 x 5 but second mask has 5 x 6"):
        hd_paper(torch.zeros(5, 5), torch.zeros(5, 6))
    with pytest.raises(InputError, match=r"label map has size \(9, 8\) but the field \(4, 4\)"):
        detj_paper(torch.zeros(2, 4, 4), torch.zeros(1, 9, 8))
