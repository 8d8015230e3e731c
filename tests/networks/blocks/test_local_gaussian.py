from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from monai_regplugins.networks.blocks import LocalTransforms
from monai_regplugins.networks.blocks.local_gaussian import (
    displace_points,
    evaluate,
    field,
    fold_free,
    from_json,
    grid_axes,
    jacobian_of,
    localization_variance,
    rotation_matrix,
    to_json,
    voxels_per_unit,
)

SHAPES = {2: [9, 12], 3: [5, 6, 8]}


def some(d: int, batch: int = 2, steps: int = 3, dtype: torch.dtype = torch.float64) -> LocalTransforms:
    """Local transformations in general position."""
    position = torch.rand(batch, steps, d, dtype=dtype) * 1.6 - 0.8
    sigma = 0.1 + 0.4 * torch.rand(batch, steps, d, dtype=dtype)
    turn = torch.rand(batch, steps, 1, dtype=dtype) * math.pi
    if d == 3:
        turn = torch.nn.functional.normalize(torch.randn(batch, steps, 4, dtype=dtype), dim=-1)
    return LocalTransforms(position, sigma, turn, 0.3 * torch.randn(batch, steps, d, dtype=dtype))


def one(position: list[float], sigma: list[float], rotation: list[float], vector: list[float]) -> LocalTransforms:
    return from_json([{"position": position, "sigma": sigma, "rotation": rotation, "vector": vector}])


def numpy_rotation(rotation: np.ndarray) -> np.ndarray:
    """Turn the unit vectors, in 3D by the quaternion product q e q*."""
    if len(rotation) == 1:
        z = np.exp(1j * rotation[0])
        return np.array([[z.real, (1j * z).real], [z.imag, (1j * z).imag]])
    w, axis = rotation[0], rotation[1:]
    columns = [e + 2 * w * np.cross(axis, e) + 2 * np.cross(axis, np.cross(axis, e)) for e in np.eye(3)]
    return np.stack(columns, axis=1)


def numpy_displacement(transforms: LocalTransforms, x: np.ndarray) -> np.ndarray:
    """Eq. 8 and 9 literally, with squared sigmas, at one point of the first sample."""
    total = np.zeros(len(x))
    for p, sigma, rotation, v in zip(*[values[0].double().numpy() for values in transforms], strict=True):
        R = numpy_rotation(rotation)
        covariance = R @ np.diag(sigma**2) @ R.T
        total += v * np.exp(-0.5 * (x - p) @ np.linalg.inv(covariance) @ (x - p))
    return total


# --- values


@pytest.mark.parametrize("d", [2, 3])
def test_displacement_is_the_sum_of_equation_8(d: int) -> None:
    transforms, points = some(d), torch.randn(2, 4, d, dtype=torch.float64)
    expected = [numpy_displacement(transforms, x) for x in points[0].numpy()]
    np.testing.assert_allclose(evaluate(transforms, points)[0], expected, rtol=1e-10)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("spacing", [None, [1.5, 0.5, 2.0]])
def test_field_is_the_displacement_at_every_voxel(d: int, spacing: list[float] | None) -> None:
    transforms, shape = some(d), SHAPES[d]
    spacing = spacing if spacing is None else spacing[:d]
    ddf = field(transforms, shape, spacing)
    half = [(n - 1) / 2 for n in shape]
    unit = half if spacing is None else [max(h * s for h, s in zip(half, spacing, strict=True)) / s for s in spacing]
    for voxel in ([0] * d, [2, 3, 4][:d], [n - 1 for n in shape]):
        x = np.array([(i - h) / u for i, h, u in zip(voxel, half, unit, strict=True)])[::-1]
        expected = numpy_displacement(transforms, x)[::-1] * unit
        np.testing.assert_allclose(ddf[(0, slice(None), *voxel)], expected, rtol=1e-10)


def test_the_first_component_is_x_the_last_array_axis() -> None:
    ddf = field(one([1.0, -1.0], [0.1, 0.1], [0.0], [0.5, 0.25]), [11, 21])
    assert ddf[0, 1].flatten().argmax().item() == 20  # first row, last column
    assert ddf[0, :, 0, 20].tolist() == pytest.approx([0.25 * 5, 0.5 * 10])


def test_the_angle_turns_from_x_to_y() -> None:
    ddf = field(one([0.0, 0.0], [0.5, 0.1], [math.pi / 4], [1.0, 0.0]), [11, 11])[0, 1]
    assert ddf[8, 8] > 10 * ddf[2, 8]  # long where x and y rise together


def test_sigma_is_a_standard_deviation() -> None:
    transforms = one([0.0, 0.0], [0.3, 0.1], [0.0], [1.0, 1.0])
    at = evaluate(transforms, torch.tensor([[[0.3, 0.0], [0.0, 0.1]]]))
    torch.testing.assert_close(at, torch.full((1, 2, 2), math.exp(-0.5)))


def test_the_integral_of_the_square() -> None:
    for d, rotation in ((2, [0.7]), (3, [0.8, 0.6, 0.0, 0.0])):
        sigma = [0.1, 0.15, 0.12][:d]
        transforms = one([0.05] * d, sigma, rotation, [1.0] + [0.0] * (d - 1))
        n = 61
        g = field(transforms, [n] * d)[0, d - 1].double() / ((n - 1) / 2)
        integral = g.square().sum().item() * (2 / (n - 1)) ** d
        assert integral == pytest.approx(math.pi ** (d / 2) * math.prod(sigma), rel=1e-4)


def test_a_quaternion_about_z_is_the_angle_in_2d() -> None:
    flat, angle = some(2), 0.8
    flat = flat._replace(rotation=torch.full_like(flat.rotation, angle))
    quaternion = torch.tensor([math.cos(angle / 2), 0, 0, math.sin(angle / 2)], dtype=torch.float64).expand(2, 3, 4)
    zero = torch.zeros(2, 3, 1, dtype=torch.float64)
    thick = LocalTransforms(
        torch.cat([flat.position, zero], -1),
        torch.cat([flat.sigma, zero + 0.2], -1),
        quaternion,
        torch.cat([flat.vector, zero], -1),
    )
    torch.testing.assert_close(rotation_matrix(quaternion)[..., :2, :2], rotation_matrix(flat.rotation))
    ddf = field(thick, [1, 9, 12])
    torch.testing.assert_close(ddf[:, 1:, 0], field(flat, [9, 12]))
    assert torch.equal(ddf[:, 0], torch.zeros(2, 1, 9, 12, dtype=torch.float64))


@pytest.mark.parametrize("d", [2, 3])
def test_fields_of_all_steps(d: int) -> None:
    transforms, shape = some(d), SHAPES[d]
    sequence = field(transforms, shape, cumulative=True)
    assert sequence.shape == (2, 3, d, *shape)
    torch.testing.assert_close(sequence[:, -1], field(transforms, shape))
    third = LocalTransforms(*(values[:, 2:] for values in transforms))
    torch.testing.assert_close(sequence[:, 2] - sequence[:, 1], field(third, shape))
    none = LocalTransforms(*(values[:, :0] for values in transforms))
    assert torch.equal(field(none, shape), torch.zeros(2, d, *shape, dtype=torch.float64))


# --- coordinates


def test_units_of_the_paper_and_of_the_world() -> None:
    assert voxels_per_unit([256, 128]) == [127.5, 63.5]
    assert voxels_per_unit([101, 11, 21], [1.0, 2.0, 10.0]) == [100.0, 50.0, 10.0]  # the longest half is 100 mm
    assert voxels_per_unit([64, 64, 64], [3.0] * 3) == voxels_per_unit([64, 64, 64])


def test_a_circle_stays_one_on_anisotropic_voxels() -> None:
    ddf = field(one([0.0, 0.0], [0.2, 0.2], [0.0], [0.0, 1.0]), [41, 21], [1.0, 4.0])[0, 0]
    torch.testing.assert_close(ddf[20 - 8, 10], ddf[20, 10 + 2])  # 8 mm up and 8 mm to the right


def test_grids_of_the_levels() -> None:
    like = torch.zeros(1)
    corners = grid_axes([5, 1], [9, 1], None, 0, like)
    assert corners[0].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert corners[1].tolist() == [0.0]  # one voxel lies in the middle
    # a 3x3 convolution with stride 2 and padding 1 has its outputs at every other voxel, from the first one on
    (exact,) = grid_axes([4], [8], None, 2, like)
    np.testing.assert_allclose(exact, np.linspace(-1, 1, 8)[::2], atol=1e-6)
    (isotropic, _) = grid_axes([8, 8], [8, 8], [1.0, 2.0], 0, like)
    np.testing.assert_allclose(isotropic, np.linspace(-0.5, 0.5, 8), atol=1e-6)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("spacing", [None, [1.5, 0.5, 2.0]])
def test_points_move_with_the_field(d: int, spacing: list[float] | None) -> None:
    transforms, shape = some(d), SHAPES[d]
    spacing = spacing if spacing is None else spacing[:d]
    voxels = [[1, 2, 3][:d], [4, 5, 7][:d]]
    points = torch.tensor([voxels, voxels], dtype=torch.float64)
    ddf = field(transforms, shape, spacing)
    expected = points + torch.stack([ddf[(slice(None), slice(None), *v)] for v in voxels], 1)
    torch.testing.assert_close(displace_points(transforms, points, shape, spacing), expected)


# --- derivatives and folding


@pytest.mark.parametrize("d", [2, 3])
def test_analytic_determinant_equals_finite_differences(d: int) -> None:
    transforms, shape, h = some(d), [17, 33, 21][:d], 1e-5
    points = torch.rand(2, 6, d, dtype=torch.float64) * 15
    columns = [
        (displace_points(transforms, points + h * e, shape) - displace_points(transforms, points - h * e, shape))
        / 2
        / h
        for e in torch.eye(d, dtype=torch.float64)
    ]
    half = torch.tensor([(n - 1) / 2 for n in shape], dtype=torch.float64)
    analytic = jacobian_of(transforms, ((points - half) / half).flip(-1))
    torch.testing.assert_close(
        torch.linalg.det(analytic), torch.linalg.det(torch.stack(columns, -1)), rtol=1e-6, atol=0
    )
    in_voxels = analytic.flip(-1, -2) * half[:, None] / half
    torch.testing.assert_close(in_voxels, torch.stack(columns, -1), rtol=1e-5, atol=1e-8)


def test_a_step_folds_when_its_mahalanobis_length_exceeds_the_root_of_e() -> None:
    for sign, length in ((1, 0.95), (-1, 1.05)):
        sigma, rotation = torch.tensor([[0.2, 0.1]]), torch.tensor([[0.6]])
        direction = torch.tensor([[0.3, 0.4]])
        whitened = (rotation_matrix(rotation).mT @ direction.unsqueeze(-1)).squeeze(-1) / sigma
        v = direction * length * math.sqrt(math.e) / whitened.norm()
        transforms = LocalTransforms(torch.zeros(1, 1, 2), sigma[None], rotation[None], v[None])
        axis = torch.linspace(-0.6, 0.6, 121)
        points = torch.cartesian_prod(axis, axis)[None]
        smallest = torch.linalg.det(jacobian_of(transforms, points)).min().item()
        assert sign * smallest > 0
        assert smallest == pytest.approx(1 - length, abs=5e-3)

        clamped = fold_free(v, sigma, rotation, 0.9)
        transforms = transforms._replace(vector=clamped[None])
        assert torch.linalg.det(jacobian_of(transforms, points)).min().item() == pytest.approx(0.1, abs=5e-3)


def test_short_steps_are_left_alone_and_zero_has_a_gradient() -> None:
    sigma, rotation = torch.tensor([[0.2, 0.1]]), torch.tensor([[0.6]])
    short = torch.tensor([[0.01, -0.02]])
    torch.testing.assert_close(fold_free(short, sigma, rotation, 0.5), short)
    zero = torch.zeros(1, 2, requires_grad=True)
    fold_free(zero, sigma, rotation, 0.5).sum().backward()
    torch.testing.assert_close(zero.grad, torch.ones(1, 2))


@pytest.mark.parametrize("d", [2, 3])
def test_gradients(d: int) -> None:
    inputs = [values.requires_grad_() for values in some(d, 1, 2)]
    points = torch.randn(1, 3, d, dtype=torch.float64, requires_grad=True)
    for function in (evaluate, jacobian_of):
        assert gradcheck(lambda p, *v, f=function: f(LocalTransforms(*v), p), (points, *inputs), fast_mode=True)
    assert gradcheck(lambda *v: field(LocalTransforms(*v), [3, 4, 2][:d], None, True), inputs, fast_mode=True)
    _, sigma, rotation, vector = inputs
    assert gradcheck(lambda *v: fold_free(*v, 0.3), (vector, sigma, rotation), fast_mode=True)


def test_needles_neither_explode_nor_corrupt_gradients() -> None:
    inputs = one([0.013, 0.21], [1e-5, 0.3], [0.7], [1.0, 1.0])
    for values in inputs:
        values.requires_grad_()
    ddf = field(inputs, [64, 64])
    ddf.sum().backward()
    assert ddf.min() >= 0
    assert ddf.max() <= 31.5
    assert all(values.grad.isfinite().all() for values in inputs)


def test_half_precision_is_widened() -> None:
    transforms = some(2, dtype=torch.float32)
    half = LocalTransforms(*(values.bfloat16() for values in transforms))
    wide = LocalTransforms(*(values.float() for values in half))
    with torch.autocast("cpu", torch.bfloat16):
        ddf = field(half, [9, 12])
        assert evaluate(half, torch.zeros(2, 1, 2)).dtype == torch.float32
    assert ddf.dtype == torch.float32
    assert torch.equal(ddf, field(wide, [9, 12]))


# --- uncertain positions


def covariances(d: int, batch: int = 2, steps: int = 3) -> torch.Tensor:
    root = torch.randn(batch, steps, d, d, dtype=torch.float64)
    return root @ root.mT


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("spacing", [None, [1.5, 0.5, 2.0]])
def test_variance_is_that_of_the_linearized_field(d: int, spacing: list[float] | None) -> None:
    """diag(sum_t J_t P_t J_t^T) with J_t, the derivative of the field in voxels by position t, from autograd."""
    transforms, P, shape = some(d, 1), covariances(d, 1), [5, 6, 4][:d]
    spacing = spacing if spacing is None else spacing[:d]
    J = torch.autograd.functional.jacobian(
        lambda position: field(transforms._replace(position=position), shape, spacing)[0], transforms.position
    )
    expected = torch.einsum("...ti,tij,...tj->...", J[..., 0, :, :], P[0], J[..., 0, :, :])
    torch.testing.assert_close(localization_variance(transforms, P, shape, spacing)[0], expected)


def test_variance_is_that_of_random_positions() -> None:
    """Monte Carlo: positions drawn with a small covariance, the field without any derivative."""
    generator, draws, shape = torch.Generator().manual_seed(3), 20_000, SHAPES[2]
    transforms, P = some(2, 1), 1e-6 * covariances(2, 1)
    normal = torch.randn(draws, 3, 2, 1, generator=generator, dtype=torch.float64)
    shifts = (torch.linalg.cholesky(P) @ normal).squeeze(-1)
    many = LocalTransforms(*(values.expand(draws, -1, -1) for values in transforms))
    ddfs = field(many._replace(position=transforms.position + shifts), shape)
    variance = localization_variance(transforms, P, shape)[0]
    # in a normal distribution the variance of so many draws is off by 1 % (one standard deviation)
    torch.testing.assert_close(ddfs.var(0), variance, rtol=0.05, atol=1e-3 * float(variance.max()))


def test_variance_in_closed_form() -> None:
    """On a circle of one standard deviation: e^-1 |v|^2 s^2 / sigma^2, positions uncertain by s; at the center 0."""
    transforms, s = one([0.0, 0.0], [0.5, 0.5], [0.3], [0.3, 0.0]), 0.1
    variance = localization_variance(transforms, s**2 * torch.eye(2)[None, None], [9, 21])[0]
    assert variance[1, 6, 10].item() == pytest.approx(math.exp(-1) * (0.3 * 10 * s / 0.5) ** 2, rel=1e-5)  # y = 0.5
    assert variance[1, 4, 15].item() == pytest.approx(math.exp(-1) * (0.3 * 10 * s / 0.5) ** 2, rel=1e-5)  # x = 0.5
    assert variance[1, 4, 10].item() == pytest.approx(0, abs=1e-12)
    assert torch.equal(variance[0], torch.zeros(9, 21))


def test_variance_is_not_cut_to_half_precision() -> None:
    transforms, P = some(2, dtype=torch.float32), covariances(2).float()
    expected = localization_variance(transforms, P, [9, 12])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(localization_variance(transforms, P, [9, 12]), expected)


# --- as plain numbers


@pytest.mark.parametrize("d", [2, 3])
def test_json_and_back(d: int) -> None:
    transforms = some(d, dtype=torch.float32)
    steps = json.loads(json.dumps(to_json(transforms, sample=1)))
    assert len(steps) == 3
    assert list(steps[0]) == ["position", "sigma", "rotation", "vector"]
    assert sum(len(values) for values in steps[0].values()) == {2: 7, 3: 13}[d]
    for read, written in zip(from_json(steps), transforms, strict=True):
        assert torch.equal(read, written[1:])
