from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import interpolate, ndimage

from monai_regplugins import fields
from monai_regplugins.benchmark import (
    SPACINGS,
    bspline,
    control_points,
    register_bspline,
)
from monai_regplugins.checks import InputError

DOUBLE = torch.zeros((), dtype=torch.float64)
ONE_LEVEL = {"shrink": (1,), "spacing": (4,)}


def texture(*size: int, seed: int = 0, smooth: float = 1.5) -> torch.Tensor:
    """Random smooth images, float64."""
    noise = np.random.default_rng(seed).normal(size=size)
    return torch.from_numpy(ndimage.gaussian_filter(noise, [0, 0, *[smooth] * (len(size) - 2)], mode="wrap") * 5)


def waves(size: tuple[int, ...], amplitude: float) -> torch.Tensor:
    """A smooth field (1, d, *size) in voxels."""
    axes = fields.identity_grid(size, torch.float64)
    d = len(size)
    return torch.stack([torch.sin(2.5 * axes[k - 1] / size[k - 1] + k) * amplitude for k in range(d)])[None]


def standardized(image: torch.Tensor) -> np.ndarray:
    values = image.numpy()
    return np.clip((values - values.mean()) / values.std(ddof=1), -2, 2)


def scipy_bspline(t: np.ndarray, order: int) -> np.ndarray:
    knots = np.arange(order + 2) - (order + 1) / 2
    values = interpolate.BSpline.basis_element(knots, extrapolate=False)(t)
    return np.nan_to_num(values)


def node_positions(size: int, spacing: int) -> np.ndarray:
    """One node before the first pixel block, one after the last, all of them centered on the axis."""
    inner = math.ceil(size / spacing)
    return (size - 1) / 2 + (np.arange(-1, inner + 1) - (inner - 1) / 2) * spacing


@pytest.mark.parametrize(("size", "spacing"), [(256, 8), (128, 4), (64, 2), (37, 5), (9, 8), (8, 1)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_basis_is_that_of_scipy(size: int, spacing: int, order: int) -> None:
    t = (np.arange(size)[:, None] - node_positions(size, spacing)) / spacing

    basis = bspline._basis(size, spacing, order, DOUBLE)

    np.testing.assert_allclose(basis, scipy_bspline(t, order), atol=1e-14)


@pytest.mark.parametrize(("size", "spacing"), [(256, 8), (64, 2), (37, 5), (33, 16)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_basis_is_a_partition_of_unity(size: int, spacing: int, order: int) -> None:
    rows = bspline._basis(size, spacing, order, DOUBLE).sum(dim=1)

    rim = spacing // 2 if order == 3 else 0
    assert rows[rim : size - rim].sub(1).abs().max() < 1e-14
    assert (rows > 1 - 1 / 48 - 1e-14).all()


def test_a_linear_field_is_reproduced() -> None:
    size, spacing = (40, 27), 4
    bases = [bspline._basis(n, spacing, 3, DOUBLE) for n in size]
    slopes = torch.tensor([[0.3, -0.2], [0.1, 0.5]], dtype=torch.float64)
    rows, columns = (torch.from_numpy(node_positions(n, spacing)) for n in size)
    nodes = torch.stack([2 + a * rows[:, None] + b * columns for a, b in slopes])[None]

    field = bspline._spline(nodes, bases)

    grid = fields.identity_grid(size, torch.float64)
    expected = 2 + torch.einsum("ck,kij->cij", slopes, grid)
    torch.testing.assert_close(field[0, :, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 17), (12, 13, 9)])
def test_a_spline_is_a_transposed_convolution(size: tuple[int, ...]) -> None:
    spacing, d = 4, len(size)
    counts = [control_points(n, spacing) for n in size]
    nodes = torch.randn(2, d, *counts, dtype=torch.float64)

    field = bspline._spline(nodes, [bspline._basis(n, spacing, 3, DOUBLE) for n in size])

    # Nodes lie on pixels or halfway between them, and the taps accordingly.
    halves = [node_positions(n, spacing)[0] % 1 for n in size]
    taps = [torch.from_numpy(scipy_bspline((np.arange(-8, 8) + half) / spacing, 3)) for half in halves]
    kernel = taps[0]
    for more in taps[1:]:
        kernel = kernel[..., None] * more
    convolve = torch.nn.functional.conv_transpose2d if d == 2 else torch.nn.functional.conv_transpose3d
    full = convolve(nodes.flatten(0, 1)[:, None], kernel[None, None], stride=spacing).unflatten(0, (2, d))[:, :, 0]
    for axis, n in enumerate(size):
        first = round(8 - halves[axis] - node_positions(n, spacing)[0])
        full = full.narrow(axis + 2, first, n)
    torch.testing.assert_close(field, full, rtol=0, atol=1e-12)


def test_numbers_of_nodes_and_parameters() -> None:
    levels = (64, 128, 256)
    assert [control_points(n, s) for n, s in zip(levels, SPACINGS["lattice"], strict=True)] == [34, 34, 34]
    assert [control_points(n, s) for n, s in zip(levels, SPACINGS["kernel"], strict=True)] == [12, 9, 7]

    image = texture(1, 1, 256, 256).float()
    assert register_bspline(image, image, iterations=1).parameters == 2312  # 7 x 25 / 2312 = 7.6 %
    assert register_bspline(image, image, shrink=(1,), spacing=SPACINGS["kernel"][2:], iterations=1).parameters == 98
    cube = texture(1, 1, 16, 16, 16)
    assert register_bspline(cube, cube, shrink=(1,), spacing=(8,), iterations=1).parameters == 3 * 4**3


def test_the_first_loss_is_the_mean_squared_error_of_the_standardized_images() -> None:
    moving, fixed = texture(1, 1, 14, 17, seed=1), texture(1, 1, 14, 17, seed=2) ** 3

    result = register_bspline(moving, fixed, **ONE_LEVEL, iterations=2)

    assert (np.abs(standardized(fixed)) == 2).any()
    assert result.losses.shape == (1, 2, 1)
    assert result.losses[0, 0, 0].item() == pytest.approx(((standardized(moving) - standardized(fixed)) ** 2).mean())


def test_the_coarser_field_is_kept_and_added() -> None:
    moving, fixed = texture(1, 1, 24, 32, seed=1), texture(1, 1, 24, 32, seed=2)
    options = {"iterations": 20, "learning_rate": 1e-2, "smoothness_weight": 0.5, "normalize": False}

    coarse = register_bspline(moving, fixed, shrink=(2,), spacing=(2,), **options)
    both = register_bspline(moving, fixed, shrink=(2, 1), spacing=(2, 4), **options)

    u = coarse.ddf[0].numpy()
    at = np.indices((24, 32)) + u
    inside = ((at >= 0) & (at <= np.array([23, 31])[:, None, None])).all(axis=0)
    warped = ndimage.map_coordinates(moving[0, 0].numpy(), at, order=1, mode="nearest")
    f = u * (2 / np.array([23, 31]))[:, None, None]
    variation = np.hypot(np.diff(f, axis=1)[:, :, 1:], np.diff(f, axis=2)[:, 1:]).mean()
    expected = ((warped - fixed[0, 0].numpy()) ** 2)[inside].mean() + 0.5 * variation
    assert not inside.all()
    assert both.losses[1, 0, 0].item() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(both.losses[0], coarse.losses[0])


def level(moving: torch.Tensor, fixed: torch.Tensor, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of one level from a field that is `shift` along the first axis; its result and loss."""
    size, losses = fixed.shape[2:], torch.zeros(1, len(fixed), dtype=fixed.dtype)
    coarse = torch.zeros(len(fixed), 2, *size, dtype=fixed.dtype)
    coarse[:, 0] = shift
    bases = [bspline._basis(n, 4, 3, fixed) for n in size]
    return bspline._register_level(moving, fixed, coarse, bases, 1e-3, 0.01, losses), losses


def test_pixels_sampled_outside_do_not_count() -> None:
    moving, fixed = texture(1, 1, 12, 15, seed=1), texture(1, 1, 12, 15, seed=2)

    assert level(moving, fixed, 3.0)[1].item() == pytest.approx((moving[:, :, 3:] - fixed[:, :, :-3]).square().mean())
    ddf, losses = level(moving, fixed, 100.0)
    assert losses.item() == 0
    assert (ddf[:, 0] == 100).all()  # finite, and at rest


def test_a_step_is_in_halves_of_the_image() -> None:
    ramp = torch.arange(24.0, dtype=torch.float64).view(1, 1, 24, 1).expand(1, 1, 24, 9) / 24

    ddf = register_bspline(ramp, ramp + 0.1, **ONE_LEVEL, iterations=1, normalize=False, smoothness_weight=0).ddf

    # Adam's first step moves every node by the learning rate, toward brighter pixels.
    torch.testing.assert_close(ddf[0, 0, 4:-4, 4:-4], torch.full((16, 1), 1e-3 * 23 / 2, dtype=torch.float64))
    assert (ddf[0, 1] == 0).all()


def test_a_known_field_is_recovered_in_2d() -> None:
    moving, true_ddf = texture(1, 1, 64, 64).float(), waves((64, 64), 2.5).float()
    fixed = fields.warp(moving, true_ddf, "linear", "border")

    result = register_bspline(moving, fixed, iterations=50, learning_rate=4e-3)

    before, after = true_ddf.norm(dim=1), (result.ddf - true_ddf).norm(dim=1)
    assert before.mean() > 2
    assert after.mean() < 0.15
    assert result.losses[2, -1, 0] < 0.05 * result.losses[0, 0, 0]


def test_a_known_field_is_recovered_in_3d() -> None:
    moving, true_ddf = texture(1, 1, 16, 20, 18, smooth=2).float(), waves((16, 20, 18), 1.0).float()
    fixed = fields.warp(moving, true_ddf, "linear", "border")

    ddf = register_bspline(
        moving, fixed, shrink=(2, 1), spacing=(4, 8), iterations=30, learning_rate=1e-2, smoothness_weight=0
    ).ddf

    inner = (..., *[slice(2, -2)] * 3)
    assert (ddf - true_ddf)[inner].norm(dim=1).mean() < 0.3 * true_ddf[inner].norm(dim=1).mean()


def test_a_batch_is_its_pairs() -> None:
    moving, fixed = texture(3, 1, 20, 24, seed=1), texture(3, 1, 20, 24, seed=2)
    fixed[1] = 100 * moving[1] + fixed[1]  # an easy pair among hard ones

    batch = register_bspline(moving, fixed, iterations=15)

    for i in range(3):
        single = register_bspline(moving[i : i + 1], fixed[i : i + 1], iterations=15)
        torch.testing.assert_close(batch.ddf[i], single.ddf[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(batch.losses[..., i], single.losses[..., 0], rtol=1e-9, atol=0)
    assert batch.ddf.abs().amax(dim=(1, 2, 3)).min() > 0.02


def test_an_aligned_pair_stays() -> None:
    image = texture(1, 1, 16, 32).float()

    assert (register_bspline(image, image, iterations=3).ddf == 0).all()
    assert register_bspline(image, 5 + 3 * image, iterations=1).losses[0, 0, 0] < 1e-9
    assert register_bspline(image, 3 * image, iterations=3, normalize=False).ddf.abs().max() > 0.01


def test_the_pyramid_keeps_the_corners_and_the_mean() -> None:
    ramp = torch.arange(65.0).view(1, 1, 65, 1).expand(1, 1, 65, 65)

    small = bspline._resample(ramp, 4)

    assert small.shape == (1, 1, 17, 17)
    torch.testing.assert_close(small[0, 0, 3:-3, 0], torch.arange(12.0, 56.0, 4), rtol=1e-6, atol=0)
    torch.testing.assert_close(bspline._resample(torch.ones(1, 1, 9, 7, 8), 2), torch.ones(1, 1, 5, 4, 4))


def test_it_runs_wherever_it_is_called() -> None:
    moving, fixed = texture(1, 1, 16, 16, seed=1).float(), texture(1, 1, 16, 16, seed=2).float().requires_grad_()
    expected = register_bspline(moving, fixed, iterations=3)

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = register_bspline(moving, fixed, iterations=3)
    with torch.inference_mode():
        inference = register_bspline(moving.clone(), fixed.clone(), iterations=3)

    for result in (half, inference):
        assert result.ddf.dtype == torch.float32
        assert torch.equal(result.ddf, expected.ddf)
    assert not expected.ddf.requires_grad
    assert fixed.grad is None
    assert register_bspline(moving.half(), fixed.double(), iterations=1).ddf.dtype == torch.float64
    assert register_bspline(moving.half(), fixed.half(), iterations=1).ddf.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fixed": torch.rand(1, 1, 16, 17)}, "do not match"),
        ({"moving": torch.rand(1, 2, 16, 16), "fixed": torch.rand(1, 2, 16, 16)}, "2 channels"),
        ({"moving": torch.ones(1, 1, 16, 16)}, "moving image is constant"),
        ({"fixed": torch.full((1, 1, 16, 16), math.nan)}, "fixed image holds NaN"),
        ({"shrink": (16, 4, 1)}, "expected at least 32 x 32"),
        ({"shrink": (2, 1)}, "as many"),
        ({"shrink": (), "spacing": ()}, "as many"),
        ({"spacing": (2, 0, 4)}, "above 0"),
        ({"order": 4}, "order is 4"),
        ({"iterations": 0}, "iterations is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"smoothness_weight": -1.0}, "smoothness_weight -1.0"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    arguments = {"moving": texture(1, 1, 16, 16, seed=1), "fixed": texture(1, 1, 16, 16, seed=2), **change}

    with pytest.raises(InputError, match=message):
        register_bspline(arguments.pop("moving"), arguments.pop("fixed"), **arguments)
