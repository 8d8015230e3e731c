from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from monai_regplugins.checks import InputError
from monai_regplugins.synthesis.ran_fields import (
    affine_displacement,
    gaussian_seed_field,
    image_center,
    rotation_matrix,
    thin_plate_spline_field,
)

SHAPES = [(11, 14), (9, 11, 10)]


def positions(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)


def control_points(shape: tuple[int, ...], count: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct voxels and displacements there."""
    random = np.random.default_rng(4)
    chosen = random.choice(math.prod(shape), count, replace=False)
    points = np.stack(np.unravel_index(chosen, shape), axis=1)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(
        random.normal(size=points.shape), dtype=torch.float32
    )


@pytest.mark.parametrize("axis", [(0, 0, 1), (1.0, -2.0, 0.5)])
@pytest.mark.parametrize("angle", [-0.7, 0.0, 2.0])
def test_rotation_matrix_against_scipy(axis: tuple[float, ...], angle: float) -> None:
    direction = np.array(axis) / np.linalg.norm(axis)

    matrix = rotation_matrix(axis, angle)

    np.testing.assert_allclose(matrix.numpy(), Rotation.from_rotvec(angle * direction).as_matrix(), atol=1e-6)


def test_rotation_matrix_in_2d_turns_the_first_axis_towards_the_second() -> None:
    turned = rotation_matrix(None, 0.3) @ torch.tensor([1.0, 0.0])

    torch.testing.assert_close(turned, torch.tensor([math.cos(0.3), math.sin(0.3)]))


@pytest.mark.parametrize("axis", [(0.0, 0.0, 0.0), (1.0, 0.0)])
def test_an_axis_without_direction_is_refused(axis: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="axis"):
        rotation_matrix(axis, 1.0)


@pytest.mark.parametrize(
    ("axis", "plane"),
    [(None, (0, 1)), ((1.0, 0.0, 0.0), (1, 2)), ((0.0, 1.0, 0.0), (2, 0)), ((0.0, 0.0, 1.0), (0, 1))],
)
def test_a_quarter_turn_is_exact(axis: tuple[float, ...] | None, plane: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=(7,) * (2 if axis is None else 3))
    grid, center = torch.from_numpy(positions(image.shape)), image_center(image.shape).double()
    field = affine_displacement(grid, rotation_matrix(axis, math.pi / 2).double(), center).numpy()

    turned = map_coordinates(image, positions(image.shape) + field, order=1, mode="nearest")

    # The image is pulled back: where the grid turns forwards, the image turns backwards.
    np.testing.assert_allclose(turned, np.rot90(image, k=-1, axes=plane), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_affine_displacement_is_the_affine_map(shape: tuple[int, ...]) -> None:
    random, d = np.random.default_rng(1), len(shape)
    matrix, center, translation = random.normal(size=(d, d)), random.normal(size=d), random.normal(size=d)
    x = positions(shape)

    field = affine_displacement(*map(torch.from_numpy, (x, matrix, center, translation)))

    flat = x.reshape(d, -1).T
    expected = ((flat - center) @ matrix.T + center + translation - flat).T.reshape(x.shape)
    np.testing.assert_allclose(field.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_spline_against_scipy(shape: tuple[int, ...]) -> None:
    points, values = control_points(shape)
    kernel = "thin_plate_spline" if len(shape) == 2 else "linear"
    scipy = RBFInterpolator(points.numpy(), values.numpy(), kernel=kernel, degree=1)

    field = thin_plate_spline_field(shape, points, values, step=1)

    expected = scipy(positions(shape).reshape(len(shape), -1).T).T.reshape(field.shape)
    np.testing.assert_allclose(field.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_spline_passes_through_its_points(shape: tuple[int, ...]) -> None:
    points, values = control_points(shape)

    field = thin_plate_spline_field(shape, points, values, step=1)

    torch.testing.assert_close(field[(slice(None), *points.long().T)].T, values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_coarse_spline_is_exact_at_its_nodes_and_linear_between(shape: tuple[int, ...]) -> None:
    points, values = control_points(shape)
    field, exact = (thin_plate_spline_field(shape, points, values, step=step) for step in (4, 1))
    nodes = (slice(None), *[slice(None, None, 4)] * len(shape))

    torch.testing.assert_close(field[nodes], exact[nodes], atol=1e-5, rtol=0)
    first = (slice(None), slice(0, 5), *[0] * (len(shape) - 1))
    expected = torch.lerp(field[first][:, :1], field[first][:, 4:], torch.linspace(0, 1, 5))
    torch.testing.assert_close(field[first], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_spline_reproduces_affine_fields(shape: tuple[int, ...]) -> None:
    points, _ = control_points(shape)
    matrix = torch.tensor(np.random.default_rng(5).normal(size=(len(shape),) * 2), dtype=torch.float32)

    field = thin_plate_spline_field(shape, points, points @ matrix.T + 1)

    expected = (matrix @ torch.from_numpy(positions(shape)).float().flatten(1) + 1).view_as(field)
    torch.testing.assert_close(field, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_fixed_corners_stay(shape: tuple[int, ...]) -> None:
    points, values = control_points(tuple(size - 2 for size in shape))

    field = thin_plate_spline_field(shape, points + 1, values, fix_corners=True, step=1)

    corners = field[(slice(None), *(slice(None, None, size - 1) for size in shape))]
    torch.testing.assert_close(corners, torch.zeros_like(corners), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "points",
    [[[0.0, 0.0], [1.0, 1.0], [4.0, 4.0]], [[0.0, 0.0], [0.0, 0.0], [1.0, 4.0], [3.0, 2.0]], [[0.0, 0.0], [1.0, 3.0]]],
)
def test_points_without_a_spline_are_refused(points: list[list[float]]) -> None:
    with pytest.raises(InputError, match="control points"):
        thin_plate_spline_field((6, 6), torch.tensor(points), torch.zeros(len(points), 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_bumps_are_sums_of_gaussians(shape: tuple[int, ...]) -> None:
    points, vectors = control_points(shape)
    x = positions(shape)
    expected = np.zeros((len(shape), *shape))
    for seed, vector in zip(points.numpy(), vectors.numpy(), strict=True):
        distance = sum((x[k] - seed[k]) ** 2 for k in range(len(shape)))
        expected += vector.reshape(-1, *[1] * len(shape)) * np.exp(-distance / (2 * 2.5**2))

    field = gaussian_seed_field(shape, points, vectors, 2.5)

    np.testing.assert_allclose(field.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(25, 27), (23, 25, 24)])
def test_a_bump_is_a_filtered_impulse_brought_to_its_amplitude(shape: tuple[int, ...]) -> None:
    middle = tuple(size // 2 for size in shape)
    vector = np.arange(1.0, len(shape) + 1)
    impulse = np.zeros((len(shape), *shape))
    impulse[(slice(None), *middle)] = vector
    filtered = gaussian_filter(impulse, sigma=(0, *[2.0] * len(shape)), mode="constant", truncate=8)
    filtered *= 3.0 / np.linalg.norm(filtered, axis=0).max()

    seeds, vectors = torch.tensor([middle], dtype=torch.float32), torch.tensor(vector[None], dtype=torch.float32)
    field = gaussian_seed_field(shape, seeds, vectors, 2.0, amplitude=3.0)

    np.testing.assert_allclose(field.numpy(), filtered, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_longest_vector_has_the_amplitude(shape: tuple[int, ...]) -> None:
    points, vectors = control_points(shape, count=20)

    assert gaussian_seed_field(shape, points, vectors, 4.0, 2.5).norm(dim=0).max().item() == pytest.approx(2.5)
    assert not gaussian_seed_field(shape, points, 0 * vectors, 4.0, 2.5).any()
