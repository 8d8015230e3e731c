"""Folding and spread of the volume change of maps that are known in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.fields import jacobian_determinant
from monai_regplugins.metrics import folding, sdlogj
from monai_regplugins.metrics.regularity import corner_determinants, folding_strict, regularity


def scaling(factors: tuple[float, ...], size: int = 8) -> torch.Tensor:
    """Return the field of x -> factors * x."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(size))] * len(factors), indexing="ij"))
    return grid * (torch.tensor(factors).reshape(-1, *[1] * len(factors)) - 1)


@pytest.mark.parametrize("factors", [(1.0, 1.0), (1.5, 0.5), (0.9, 1.1, 2.0)])
def test_even_scaling_neither_folds_nor_varies(factors: tuple[float, ...]) -> None:
    assert folding(scaling(factors)) == (0, 0.0)
    assert sdlogj(scaling(factors)) == pytest.approx(0, abs=1e-6)


def test_reflection_folds_everywhere() -> None:
    assert folding(scaling((-1.0, 1.0, 1.0))) == (512, 100.0)
    assert folding(scaling((0.0, 1.0))) == (64, 100.0)  # a collapsed axis has determinant zero


def test_fold_of_known_width() -> None:
    """A displacement of -1.5 x over rows 3..6 gives slope -1.5 inside: det J = -0.5 there, mixed at the two ends."""
    ddf = torch.zeros(2, 12, 5)
    profile = torch.tensor([0, 0, 0, 0, -1.5, -3.0, -4.5, -4.5, -4.5, -4.5, -4.5, -4.5])
    ddf[0] = profile[:, None]
    determinant = 1 + np.gradient(profile.numpy())  # 0.25 at rows 3 and 6, -0.5 at rows 4 and 5
    assert determinant[3:7].tolist() == [0.25, -0.5, -0.5, 0.25]
    assert folding(ddf) == (2 * 5, pytest.approx(100 * 2 / 12))
    mask = torch.zeros(1, 12, 5)
    mask[:, 4:8] = 1
    assert folding(ddf, mask) == (2 * 5, pytest.approx(50.0))
    logs = np.log(np.clip(determinant, 1e-9, None))
    assert sdlogj(ddf) == pytest.approx(logs.std(), rel=1e-6)
    assert sdlogj(ddf, mask) == pytest.approx(logs[4:8].std(), rel=1e-6)


def test_volume_change_that_varies() -> None:
    """Along the first axis x -> exp(a x) / a has det J = exp(a x) to the order of the differences."""
    a, x = 0.05, np.arange(40.0)
    ddf = torch.zeros(3, 40, 3, 3)
    ddf[0] = torch.as_tensor(np.exp(a * x) / a - x).float()[:, None, None]
    inner = torch.zeros(40, 3, 3)
    inner[1:-1] = 1
    assert sdlogj(ddf, inner) == pytest.approx((a * x[1:-1]).std(), rel=1e-4)


def checkerboard(height: float, size: int = 8, dims: int = 2) -> torch.Tensor:
    """Return a field whose first component alternates between +height and -height from voxel to voxel."""
    ddf = torch.zeros(dims, *[size] * dims)
    ddf[0] = height * (1 - 2 * (torch.stack(torch.meshgrid(*[torch.arange(size)] * dims, indexing="ij")).sum(0) % 2))
    return ddf


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("height", "percent"), [(0.49, 0.0), (0.51, 100.0)])
def test_central_differences_miss_a_checkerboard(dims: int, height: float, percent: float) -> None:
    """Neighbors along the first axis cross where 2 height > 1; central differences inside see no change at all."""
    ddf = checkerboard(height, dims=dims)
    inner = torch.zeros_like(ddf[0])
    inner[(slice(1, -1),) * dims] = 1
    assert folding(ddf, inner) == (0, 0.0)
    assert sdlogj(ddf, inner) == pytest.approx(0, abs=1e-12)
    assert folding_strict(ddf, inner) == (int(inner.sum()) if percent else 0, percent)


def test_border_voxels_look_inward_only() -> None:
    """Of the first row the voxels at +height meet their neighbor, those at -height move away from it."""
    ddf = checkerboard(0.6)
    row = torch.zeros(8, 8)
    row[0] = 1
    assert folding_strict(ddf, row) == (4, 50.0)
    assert folding_strict(ddf)[0] == 6 * 8 + 4 + 4


def test_corner_determinants_are_volumes_of_mapped_simplices() -> None:
    """Against the signed volume of the mapped tetrahedron over that of the unmapped one, which is 1/6."""
    ddf = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    corners = list(corner_determinants(ddf))
    mapped = np.moveaxis(np.indices(ddf.shape[1:]) + ddf.numpy(), 0, -1)
    x = np.array([1, 2, 3])
    for signs, found in zip(itertools.product((-1, 1), repeat=3), corners, strict=True):
        edges = [
            sign * (mapped[tuple(x + sign * step)] - mapped[tuple(x)])
            for sign, step in zip(signs, np.eye(3, dtype=int), strict=True)
        ]
        assert found[tuple(x)].item() == pytest.approx(np.linalg.det(edges), rel=1e-12)


@pytest.mark.parametrize("shape", [(6, 7), (5, 4, 6)])
def test_corners_average_to_the_determinant_of_central_differences(shape: tuple[int, ...]) -> None:
    """The determinant is linear in each column: what folds by central differences folds at a corner."""
    ddf = 0.6 * torch.randn(len(shape), *shape, dtype=torch.float64)
    torch.testing.assert_close(torch.stack(list(corner_determinants(ddf))).mean(0), jacobian_determinant(ddf[None])[0])
    assert folding_strict(ddf)[0] > folding(ddf)[0] > 0


@pytest.mark.parametrize("factors", [(1.5, 0.5), (0.9, 1.1, 2.0)])
def test_even_scaling_has_one_determinant_at_all_corners(factors: tuple[float, ...]) -> None:
    assert folding_strict(scaling(factors)) == (0, 0.0)
    for determinant in corner_determinants(scaling(factors)):
        torch.testing.assert_close(determinant, torch.full_like(determinant, math.prod(factors)))
    assert folding_strict(scaling((-1.0, *factors[1:])))[1] == 100.0


def test_regularity_is_all_of_them() -> None:
    ddf, mask = torch.randn(2, 9, 8), torch.rand(1, 9, 8) > 0.4
    count, percent = folding(ddf, mask)
    assert regularity(ddf, mask) == {
        "folding_count": count,
        "folding_percent": percent,
        "folding_strict_percent": folding_strict(ddf, mask)[1],
        "sdlogj": sdlogj(ddf, mask),
    }
    assert 0 < count < int(mask.sum())


def test_a_single_slice_has_no_neighbors() -> None:
    with pytest.raises(InputError, match="displacement field has 1 x 5 voxels"):
        folding_strict(torch.zeros(2, 1, 5))


def test_empty_mask_is_unknown() -> None:
    ddf, mask = torch.zeros(2, 5, 5), torch.zeros(5, 5)
    assert folding(ddf, mask)[0] == 0
    assert math.isnan(folding(ddf, mask)[1])
    assert folding_strict(ddf, mask)[0] == 0
    assert math.isnan(folding_strict(ddf, mask)[1])
    assert math.isnan(sdlogj(ddf, mask))
