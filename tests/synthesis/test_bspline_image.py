from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates, spline_filter

from monai_regplugins.checks import InputError
from monai_regplugins.synthesis.bspline_image import bspline_coefficients, bspline_sample, bspline_warp

SHAPES = [(33, 40), (2, 5), (1, 9), (30, 25, 37), (1, 4, 2)]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-2}  # of coefficients up to 20,000; float32 has 7 digits


def hounsfield(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """White noise, the hardest image to interpolate."""
    return torch.tensor(np.random.default_rng(0).normal(-500, 300, (1, *shape)), dtype=dtype)


def inner_positions(shape: tuple[int, ...], count: int = 500) -> torch.Tensor:
    random = np.random.default_rng(1)
    return torch.tensor(np.stack([random.uniform(0, n - 1, count) for n in shape]))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_coefficients_against_scipy(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    image = hounsfield(shape, dtype)

    coefficients = bspline_coefficients(image)

    assert coefficients.dtype == dtype
    expected = spline_filter(image[0].double().numpy(), order=3, mode="mirror")
    np.testing.assert_allclose(coefficients[0].numpy(), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-3)])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_against_scipy(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    image, positions = hounsfield(shape, dtype), inner_positions(shape).to(dtype)

    values = bspline_sample(bspline_coefficients(image), positions)

    assert values.dtype == dtype
    expected = map_coordinates(image[0].double().numpy(), positions.double().numpy(), order=3, mode="mirror")
    np.testing.assert_allclose(values[0].numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_spline_passes_through_the_voxels(shape: tuple[int, ...]) -> None:
    image = hounsfield(shape)

    torch.testing.assert_close(bspline_warp(image, torch.zeros(len(shape), *shape)), image, rtol=0, atol=1e-9)


def test_a_cubic_polynomial_is_reproduced_away_from_the_borders() -> None:
    x, y = (torch.arange(60, dtype=torch.float64)[:, None] / 10, torch.arange(50, dtype=torch.float64) / 10)
    positions = torch.tensor([[30.3, 25.0, 33.9], [25.7, 22.2, 27.5]], dtype=torch.float64)

    values = bspline_sample(bspline_coefficients((x**3 - 2 * x * y**2 + y)[None]), positions)[0]

    a, b = positions / 10
    torch.testing.assert_close(values, a**3 - 2 * a * b**2 + b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(12, 15), (9, 8, 10)])
def test_outside(shape: tuple[int, ...]) -> None:
    coefficients = bspline_coefficients(hounsfield(shape))
    positions = 3 * inner_positions(shape) - torch.tensor(shape).view(-1, 1)
    closest = torch.stack([x.clamp(0, n - 1) for x, n in zip(positions, shape, strict=True)])
    inside = torch.stack([(x >= -0.5) & (x <= n - 0.5) for x, n in zip(positions, shape, strict=True)]).all(0)
    assert 0 < inside.sum() < inside.numel()

    border = bspline_sample(coefficients, positions)
    zeros = bspline_sample(coefficients, positions, padding="zeros")

    torch.testing.assert_close(border, bspline_sample(coefficients, closest))
    torch.testing.assert_close(zeros, torch.where(inside, border, 0.0))


def test_channels_and_any_shape_of_positions() -> None:
    image = torch.cat([hounsfield((9, 8, 10)), hounsfield((9, 8, 10)).flip(1)])
    positions = inner_positions((9, 8, 10), 24).view(3, 2, 3, 4)

    values = bspline_sample(bspline_coefficients(image), positions)

    assert values.shape == (2, 2, 3, 4)
    one = bspline_sample(bspline_coefficients(image[1:]), positions[:, 1, 2, 3])
    torch.testing.assert_close(values[1, 1, 2, 3], one[0])
    assert bspline_sample(bspline_coefficients(image), positions[:, :0]).shape == (2, 0, 3, 4)


def test_warping_pulls_back() -> None:
    image, ddf = hounsfield((10, 12)), torch.zeros(2, 10, 12)
    ddf[1] = 3.0  # along the second axis

    torch.testing.assert_close(bspline_warp(image, ddf)[..., :9], image[..., 3:], rtol=0, atol=1e-9)


def test_halves_and_integers_are_widened() -> None:
    assert bspline_coefficients(hounsfield((5, 6), torch.float16)).dtype == torch.float32
    assert bspline_warp(hounsfield((5, 6)).to(torch.int16), torch.zeros(2, 5, 6)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(5, 6), (4, 3, 5)])
def test_gradients(shape: tuple[int, ...]) -> None:
    image = (hounsfield(shape) / 300).requires_grad_()
    # on voxels, between them, and one beyond the border, where the value does not depend on its position
    positions = torch.cat([inner_positions(shape, 5), torch.tensor([[1.0, 2.0]]).repeat(len(shape), 1)], dim=1)
    positions[0, 0] = -2.5

    def sample(image: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return bspline_sample(bspline_coefficients(image), positions)

    assert torch.autograd.gradcheck(sample, (image, positions.requires_grad_()))
    sample(image, positions).sum().backward()
    assert positions.grad is not None
    assert positions.grad[0, 0] == 0


def test_many_positions_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    coefficients, positions = bspline_coefficients(hounsfield((30, 25, 37))), inner_positions((30, 25, 37), 300)
    expected = bspline_sample(coefficients, positions)
    monkeypatch.setattr("monai_regplugins.synthesis.bspline_image.CHUNK", 64)

    torch.testing.assert_close(bspline_sample(coefficients, positions), expected, rtol=0, atol=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    coefficients = bspline_coefficients(hounsfield((5, 6)))
    with pytest.raises(InputError, match="channel"):
        bspline_coefficients(torch.zeros(5, 6))
    with pytest.raises(InputError, match="order"):
        bspline_sample(coefficients, torch.zeros(3, 4))
    with pytest.raises(InputError, match="padding"):
        bspline_sample(coefficients, torch.zeros(2, 4), padding="reflection")


def test_the_cut_off_sum_is_below_the_rounding_error() -> None:
    pole = math.sqrt(3) - 2
    assert abs(pole) ** 16 < torch.finfo(torch.float32).eps / 100
    assert abs(pole) ** 32 < torch.finfo(torch.float64).eps / 100


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    image, positions = hounsfield((30, 25, 37), torch.float32), inner_positions((30, 25, 37)).float()

    values = bspline_sample(bspline_coefficients(image.cuda()), positions.cuda()).cpu()

    torch.testing.assert_close(values, bspline_sample(bspline_coefficients(image), positions), rtol=0, atol=2e-3)
