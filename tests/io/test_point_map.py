"""Maps of points and their inverses, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from field_cases import GRIDS, PLANE, SHAPE, field_ras, itk_affine, itk_move, move, points_inside

from monai_regplugins.checks import InputError
from monai_regplugins.io.point_map import Chain, FieldMap, InverseMap, ItkMap, LinearMap, check_meets, grid_points

T = np.array([[1.05, -0.1, 0.02, 3.0], [0.12, 0.95, -0.05, -2.0], [0.0, 0.06, 1.02, -4.0], [0, 0, 0, 1]])


@pytest.mark.parametrize("name", GRIDS)
def test_a_field_moves_points_between_its_voxels(name: str) -> None:
    points = points_inside(GRIDS[name], SHAPE)
    found = FieldMap(field_ras(), GRIDS[name]).move(torch.from_numpy(points))
    np.testing.assert_allclose(found, move(points, field_ras(), GRIDS[name]), atol=1e-5)


def test_a_field_of_a_plane() -> None:
    points = points_inside(PLANE, SHAPE[:2])
    found = FieldMap(field_ras()[:2, ..., 0], PLANE).move(torch.from_numpy(points))
    np.testing.assert_allclose(found, move(points, field_ras()[:2, ..., 0], PLANE), atol=1e-5)
    with pytest.raises(InputError, match="a 2D field cannot move points of 3 dimensions"):
        FieldMap(field_ras()[:2, ..., 0], PLANE).move(torch.zeros(1, 3).double())


def test_a_field_goes_on_beyond_its_grid() -> None:
    field = FieldMap(field_ras(), np.eye(4))
    outside = torch.tensor([[-50.0, 3, 3], [4, 100, 3]], dtype=torch.float64)
    expected = outside + torch.from_numpy(np.stack([field_ras()[:, 0, 3, 3], field_ras()[:, 4, 7, 3]]))
    np.testing.assert_allclose(field.move(outside), expected, atol=1e-6)
    assert field.covers(outside).tolist() == [False, False]
    assert field.covers(torch.tensor([[-0.4, 0, 0], [8.4, 7.4, 6.4], [8.6, 0, 0]]).double()).tolist() == [1, 1, 0]


def test_the_first_map_of_a_chain_meets_a_point_first() -> None:
    """SimpleITK lists them the other way round."""
    affine = GRIDS["oblique"]
    spline = sitk.BSplineTransformInitializer(sitk.Image([9, 8, 7], sitk.sitkUInt8), [3, 3, 3])
    spline.SetParameters(np.random.default_rng(0).normal(size=len(spline.GetParameters())).tolist())
    chain = Chain([FieldMap(field_ras(), affine), LinearMap(T), ItkMap(spline)])
    points = points_inside(affine, SHAPE)
    moved = move(points, field_ras(), affine)
    expected = itk_move(sitk.CompositeTransform([spline, itk_affine(T)]), moved)
    np.testing.assert_allclose(chain.move(torch.from_numpy(points)), expected, atol=1e-5)


def test_worlds_of_itk_are_met_at_the_ends_that_belong_to_itk() -> None:
    fixed, moving = np.diag([-1.0, 1, 1, 1]), np.diag([1.0, -1, 1, 1])
    point = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)

    def moved(chain: Chain) -> list[float]:
        return list(chain.in_worlds(fixed, moving).move(point)[0].tolist())

    assert moved(Chain([LinearMap(np.eye(4))])) == [1, 2, 3]
    assert moved(Chain([LinearMap(np.eye(4))], fixed_by_itk=True)) == [-1, 2, 3]
    assert moved(Chain([LinearMap(np.eye(4))], moving_by_itk=True)) == [1, -2, 3]


@pytest.mark.parametrize("stretch", [0.3, 0.9, 1.6])
@pytest.mark.parametrize("angle", [0.0, 2.5])
def test_inverses_of_a_stretch_and_a_large_rotation(stretch: float, angle: float) -> None:
    """``T(p) = R p (1 + s exp(-(r / 16)^2))``: the plain fixed point diverges for the rotation, and for s above 1."""
    index = np.stack(np.indices((25, 25, 25)), 0) - 12.0
    radius = np.linalg.norm(index, axis=0)
    scaled = index * (1 + stretch * np.exp(-((radius / 8) ** 2)))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -24
    world = 2 * index
    displacement = np.tensordot(turn, 2 * scaled, 1) - world
    field = FieldMap(displacement.astype(np.float32), affine)
    inverse = InverseMap(field, grid_points(affine, field.shape))
    start = torch.from_numpy(np.random.default_rng(0).uniform(-12, 12, (500, 3)))
    moved = field.move(start)
    found, error = inverse.solve(moved)
    assert float(error.max()) < 1e-3
    np.testing.assert_allclose(found, start, atol=5e-3)
    np.testing.assert_array_equal(inverse.move(moved), found)


def test_where_a_field_folds_the_inverse_says_so() -> None:
    field = FieldMap(
        np.stack([-3 * np.sin(np.indices((20, 20, 20))[0] * 0.7), *np.zeros((2, 20, 20, 20))]).astype(np.float32),
        np.eye(4),
    )
    inverse = InverseMap(field, grid_points(np.eye(4), field.shape))
    points = grid_points(np.eye(4), field.shape, None)
    found, error = inverse.solve(points)
    left = (field.move(found) - points).norm(dim=1)
    np.testing.assert_allclose(error, left, atol=1e-9)


def test_grid_points() -> None:
    whole = grid_points(GRIDS["oblique"], SHAPE, None)
    index = np.stack(np.indices(SHAPE), -1).reshape(-1, 3)
    np.testing.assert_allclose(whole, index @ GRIDS["oblique"][:3, :3].T + GRIDS["oblique"][:3, 3], atol=1e-9)
    some = grid_points(GRIDS["oblique"], SHAPE, 27)
    assert some.shape == (27, 3)
    np.testing.assert_allclose([some[0].numpy(), some[-1].numpy()], [whole[0].numpy(), whole[-1].numpy()], atol=1e-9)


def test_a_chain_that_does_not_meet_is_refused() -> None:
    away = np.eye(4)
    away[0, 3] = 500
    field, far = FieldMap(field_ras(), np.eye(4)), FieldMap(field_ras(), away)
    points = grid_points(np.eye(4), SHAPE)
    check_meets(Chain([field, LinearMap(away), far]), points)
    with pytest.raises(InputError, match="no point of the grid lies on the field of transform 2 of 2"):
        check_meets(Chain([field, far]), points)
