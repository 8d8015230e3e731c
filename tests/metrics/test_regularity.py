"""Folding and spread of the volume change of maps that are known in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.fields import determinant_of, jacobian_determinant, slabs
from monai_regplugins.metrics import folding, sdlogj
from monai_regplugins.metrics.learn2reg import sdlogj_l2r
from monai_regplugins.metrics.regularity import (
    central_determinants,
    corner_determinants,
    folding_strict,
    folds_strict,
    pooled_deviation,
    regularity,
)


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


@pytest.mark.parametrize("shape", [(40, 2000), (30, 60, 50)])
def test_strict_folds_are_where_a_corner_folds(shape: tuple[int, ...]) -> None:
    ddf = 0.6 * torch.randn(len(shape), *shape)
    least = torch.stack(list(corner_determinants(ddf))).amin(dim=0)
    assert torch.equal(folds_strict(ddf), least <= 0)
    ddf[0, 0] = torch.nan
    assert not folds_strict(ddf).any()


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


def whole_corner_determinants(ddf: torch.Tensor) -> torch.Tensor:
    """All 2^d determinants of one-sided differences of the whole field in float64, shape (2^d, *spatial)."""
    u, d = ddf.double(), len(ddf)
    sides = []
    for axis in range(1, d + 1):
        step = u.diff(dim=axis)
        first, last = step.narrow(axis, 0, 1), step.narrow(axis, step.shape[axis] - 1, 1)
        sides.append((torch.cat([first, step], axis), torch.cat([step, last], axis)))
    identity = torch.eye(d, dtype=u.dtype).view(d, d, *[1] * d)
    matrices = torch.stack([torch.stack(corner, dim=1) + identity for corner in itertools.product(*sides)])
    return determinant_of(matrices)


def folds_of_whole_field(ddf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a field folds by central and by one-sided differences, with everything held at once."""
    return jacobian_determinant(ddf[None].double())[0] <= 0, (whole_corner_determinants(ddf) <= 0).any(0)


SHAPES = [(2, 2), (5, 3), (265, 251), (2, 3, 2), (9, 8, 7), (3, 2, 40), (34, 45, 44), (2, 190, 195)]
FIELDS = {
    "smooth": lambda *shape: 0.05 * torch.randn(shape).cumsum(-1),
    "folded": lambda *shape: 0.6 * torch.randn(shape),
    "wild": lambda *shape: 300 * torch.randn(shape),
    "overflowing": lambda *shape: 1e15 * torch.randn(shape),
    "whole voxels, many determinants of zero": lambda *shape: torch.randint(-1, 2, shape).float(),
    "flat, determinants of zero up to rounding": lambda *shape: (
        torch.randn(1, *shape[1:]).expand(shape)
        - torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in shape[1:]], indexing="ij"))
    ),
    "double": lambda *shape: 0.6 * torch.randn(shape, dtype=torch.float64),
    "half": lambda *shape: (0.6 * torch.randn(shape)).half(),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", FIELDS)
def test_slabs_count_what_the_whole_field_has(shape: tuple[int, ...], kind: str) -> None:
    """Exactly, also where single precision cannot resolve the sign."""
    ddf = FIELDS[kind](len(shape), *shape)
    central, strict = folds_of_whole_field(ddf)
    some = torch.rand(shape) > 0.7
    some.view(-1)[0] = True
    for mask in (None, some):
        inside = torch.ones_like(some) if mask is None else mask
        assert folding(ddf, mask)[0] == int(central[inside].sum())
        count = int(strict[inside].sum())
        assert folding_strict(ddf, mask) == (count, pytest.approx(100 * count / int(inside.sum()), rel=1e-12))


def test_shapes_have_slabs_of_all_kinds() -> None:
    thickness = {shape: [slab.stop - slab.start for slab in slabs(shape)] for shape in SHAPES}
    assert len(thickness[265, 251]) > 1
    assert len(thickness[34, 45, 44]) > 1
    assert thickness[2, 190, 195] == [1, 1]
    assert thickness[9, 8, 7] == [9]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_slabs_measure_what_the_whole_field_has(shape: tuple[int, ...]) -> None:
    ddf, mask = 0.4 * torch.randn(len(shape), *shape), torch.rand(1, *shape) > 0.3
    determinant = jacobian_determinant(ddf[None].double())[0]
    torch.testing.assert_close(torch.cat(list(central_determinants(ddf))), determinant.flatten(), rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.cat(list(central_determinants(ddf, mask))), determinant[mask[0]])
    logs = determinant.clamp(min=1e-9).log()
    assert sdlogj(ddf) == pytest.approx(float(logs.std(correction=0)), rel=1e-9)
    assert sdlogj(ddf, mask) == pytest.approx(float(logs[mask[0]].std(correction=0)), rel=1e-9)


def test_a_mask_in_one_slab_leaves_the_others_out() -> None:
    ddf, mask = 0.6 * torch.randn(3, 34, 45, 44), torch.zeros(34, 45, 44)
    mask[33:, 5:20, 7:30] = 1
    assert len(list(central_determinants(ddf, mask))) == 1
    assert folding_strict(ddf, mask)[0] == int(folds_of_whole_field(ddf)[1][mask > 0].sum()) > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(9, 8), (6, 7, 8)])
def test_a_field_that_is_not_finite_has_no_measure(shape: tuple[int, ...], bad: float) -> None:
    """One such displacement is enough, wherever it is: a comparison with NaN would count it as not folded."""
    ddf, mask = torch.zeros(len(shape), *shape), torch.ones(shape)
    ddf[(0, *[3] * len(shape))] = bad
    mask[2:5] = 0
    for chosen in (None, mask):
        assert all(math.isnan(value) for value in regularity(ddf, chosen).values())
        assert all(math.isnan(value) for measure in (folding, folding_strict) for value in measure(ddf, chosen))
        assert math.isnan(sdlogj(ddf, chosen))


def test_pooled_deviation_is_that_of_all_values() -> None:
    values = 1e3 + torch.randn(1000, dtype=torch.float64) * torch.linspace(0, 5, 1000)
    parts = [values[:1], values[1:1], values[1:700], values[700:]]
    assert pooled_deviation(parts) == pytest.approx(values.numpy().std(), rel=1e-12)
    assert pooled_deviation([values[:1]]) == 0
    assert math.isnan(pooled_deviation([]))


def test_a_field_with_a_gradient_is_measured() -> None:
    ddf = (0.6 * torch.randn(2, 6, 7)).requires_grad_()
    assert regularity(ddf) == regularity(ddf.detach())


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


@pytest.mark.parametrize("diagonal", [(1.2, 0.9), (-1.0, 1.1), (0.8, 1.3, 1.1), (0.9, -1.2, 1.0)])
def test_a_following_linear_map_counts_by_its_determinant(diagonal: tuple[float, ...]) -> None:
    """Against the field of x -> B (x + u(x)), made whole; u folds in places, and B may be a reflection."""
    d, generator = len(diagonal), torch.Generator().manual_seed(3)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + 0.1 * torch.ones(d, d, dtype=torch.float64)
    ddf = 0.6 * torch.randn(d, *[9] * d, generator=generator, dtype=torch.float64)
    grid = scaling((2.0,) * d, 9).double()  # x itself
    whole = torch.einsum("kj,j...->k...", matrix, grid + ddf) - grid
    volume = float(torch.linalg.det(matrix))
    found, true = regularity(ddf, volume=volume), regularity(whole)
    assert 0 < found["folding_percent"] < 100
    assert found == pytest.approx(true, rel=1e-9)
    assert sdlogj_l2r(ddf, volume=volume) == pytest.approx(sdlogj_l2r(whole), rel=1e-9)
