from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from monai_regplugins.checks import InputError
from monai_regplugins.synthesis.regnet_fields import (
    FIELD_KINDS,
    PAPER_VOXELS,
    PRESETS,
    DenseField,
    DisplacementFunction,
    GaussianField,
    mixed_frequency_field,
    proportional_count,
    random_field,
    respiratory_field,
    single_frequency_field,
    smallest_determinant,
)

PAPER_SHAPE = (322, 246, 348)
SHAPES = [(60, 70), (40, 30, 36)]


def voxels(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.arange(n, dtype=dtype) for n in shape]


def bumps(sigma: float, points: np.ndarray, impulses: np.ndarray) -> GaussianField:
    ones = torch.ones(points.shape[1])
    return GaussianField(sigma, torch.tensor(points), torch.tensor(impulses), ones, ones)


def drawn(shape: tuple[int, ...], seed: int = 0, **options: Any) -> GaussianField:
    return random_field(np.random.default_rng(seed), shape, **{"sigma": 4.0, "count": 12, "theta": 3.0} | options)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sum_of_gaussians_is_a_filtered_field_of_impulses(shape: tuple[int, ...]) -> None:
    random, d, sigma = np.random.default_rng(2), len(shape), 2.5
    points = np.stack([random.integers(0, n, 9) for n in shape], axis=1)
    impulses = random.uniform(-8, 8, points.shape)
    grid = np.zeros((d, *shape))
    grid[(slice(None), *points.T)] = impulses.T
    filtered = gaussian_filter(grid, (0, *[sigma] * d), mode="constant", truncate=8) * (2 * np.pi * sigma**2) ** (d / 2)

    field = bumps(sigma, points.astype(float), impulses).on_axes(voxels(shape))

    np.testing.assert_allclose(field.numpy(), filtered, atol=5e-3 * 8)  # 0.5 % of the largest impulse
    np.testing.assert_allclose(field.numpy(), filtered, atol=1e-6 * 8)


@pytest.mark.parametrize("shape", SHAPES)
def test_positive_and_negative_values_are_rescaled_to_the_impulses(shape: tuple[int, ...]) -> None:
    field = drawn(shape, sigma=6.0, least_determinant=None)
    a, p = field.impulses.numpy(), field.points.numpy()
    axes = [np.arange(0, n - 0.9, 0.5) for n in shape]  # to come closer to the extremes than voxels
    x = np.stack(np.meshgrid(*axes, indexing="ij"))
    v = np.zeros(x.shape)
    for point, impulse in zip(p, a, strict=True):
        bump = np.exp(-np.square(x - point.reshape(-1, *[1] * len(shape))).sum(axis=0) / (2 * 6.0**2))
        v += impulse.reshape(-1, *[1] * len(shape)) * bump
    expected = np.empty_like(v)
    for c in range(len(shape)):
        gain = np.where(v[c] > 0, a[:, c].max() / v[c].max(), a[:, c].min() / v[c].min())
        expected[c] = v[c] * gain

    u = field.on_axes([torch.tensor(axis) for axis in axes]).numpy()

    np.testing.assert_allclose(u, expected, atol=5e-3 * 3)
    for c in range(len(shape)):  # "theta reached"
        assert u[c].max() == pytest.approx(a[:, c].max(), rel=5e-3)
        assert u[c].min() == pytest.approx(a[:, c].min(), rel=5e-3)


def test_zero_stays_zero() -> None:
    points, impulses = np.array([[10.0, 12.0], [30.0, 20.0]]), np.array([[2.0, 0.0], [0.0, 0.0]])
    raw = bumps(3.0, points, impulses)
    rescaled = replace(raw, positive=torch.tensor([3.0, 2.0]), negative=torch.tensor([0.5, 7.0]))

    assert not rescaled.on_axes(voxels((40, 40)))[1].any()
    assert torch.equal(rescaled.on_axes(voxels((40, 40))).sign(), raw.on_axes(voxels((40, 40))).sign())
    assert not drawn((40, 40), zeros=12).on_axes(voxels((40, 40))).any()
    assert not drawn((40, 40), theta=0.0).at(torch.rand(5, 2)).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_jacobians_agree_with_each_other(shape: tuple[int, ...]) -> None:
    field, d = drawn(shape), len(shape)
    axes = [torch.linspace(-3, n + 4, 7, dtype=torch.float64) for n in shape]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).T

    values, jacobians = field.at(points), field.jacobian_at(points)

    torch.testing.assert_close(field.on_axes(axes).flatten(1).T, values)
    torch.testing.assert_close(field.jacobian_on_axes(axes).flatten(2).permute(2, 0, 1), jacobians)
    h = 1e-5
    for j in range(d):
        step = h * torch.eye(d, dtype=torch.float64)[j]
        moved = (points + step + field.at(points + step)) - (points - step + field.at(points - step))
        torch.testing.assert_close(jacobians[:, :, j], moved / (2 * h), rtol=0, atol=1e-5)
    torch.testing.assert_close(field.at(points.float()), values.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_window_is_a_part_of_the_whole(shape: tuple[int, ...]) -> None:
    field = drawn(shape)
    whole = field.on_axes(voxels(shape, torch.float32))
    start = [5, 8, 3][: len(shape)]

    window = field.on_axes([torch.arange(k + 11.0, k, -1.0) for k in start])  # mirrored, too

    part = whole[(slice(None), *[slice(k + 1, k + 12) for k in start])].flip(*range(1, len(shape) + 1))
    torch.testing.assert_close(window, part, rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis", range(3))
def test_determinant_of_a_stretch_and_of_a_fold(axis: int) -> None:
    x = torch.arange(20.0).view(-1, *[1] * (2 - axis)).expand(*[20] * 3)
    values = torch.zeros(3, 20, 20, 20)

    values[axis] = 0.2 * x
    assert smallest_determinant(DenseField(values), (20, 20, 20)) == pytest.approx(1.2, abs=1e-5)
    values[axis] = -1.5 * x
    assert smallest_determinant(DenseField(values), (20, 20, 20)) == pytest.approx(-0.5, abs=1e-5)


def test_determinant_of_one_bump() -> None:
    # slope of the bump: 0.607 a / sigma along its axis, at a distance of sigma
    field = bumps(10.0, np.array([[40.0, 40.0, 40.0]]), np.array([[8.0, 0.0, 0.0]]))

    assert smallest_determinant(field, (80, 80, 80), step=1) == pytest.approx(1 - 0.8 * np.exp(-0.5), abs=1e-3)


@pytest.mark.parametrize(("family", "name"), [(family, name) for family in PRESETS for name in PRESETS[family]])
def test_presets_do_not_fold(family: str, name: str) -> None:
    preset = PRESETS[family][name]
    field = random_field(np.random.RandomState(3), PAPER_SHAPE, **asdict(preset))

    assert len(field.points) == preset.count
    u = field.on_axes([torch.arange(0.0, n, 4) for n in PAPER_SHAPE])
    assert u.abs().max() == pytest.approx(preset.theta, rel=0.05)
    assert smallest_determinant(field, PAPER_SHAPE, step=4) > (0.5 if family == "miccai2017" else 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mean", "smallest"), [("low", 2.19, 0.73), ("medium", 1.61, 0.65), ("high", 1.23, 0.60)]
)
def test_size_of_the_displacements(name: str, mean: float, smallest: float) -> None:
    # Means over 5 fields of an independent implementation: points 33 voxels from the border, its inner part alone.
    preset = replace(PRESETS["miccai2017"][name], margin=33.0)
    rng = np.random.default_rng(0)
    many = [random_field(rng, PAPER_SHAPE, **asdict(preset)) for _ in range(10)]
    inner = [torch.arange(65.0, n - 65, 4) for n in PAPER_SHAPE]

    means = [float(field.on_axes(inner).abs().mean()) for field in many]

    assert np.mean(means) == pytest.approx(mean, rel=0.15)
    determinants = [torch.linalg.det(field.jacobian_on_axes(inner).permute(2, 3, 4, 0, 1)).min() for field in many]
    assert np.mean(determinants) == pytest.approx(smallest, abs=0.05)


def test_folding_fields_are_scaled_down() -> None:
    folding = drawn((40, 50), sigma=3.0, theta=8.0, least_determinant=None)
    assert smallest_determinant(folding, (40, 50), step=1) < 0

    scaled = drawn((40, 50), sigma=3.0, theta=8.0, tries=1)

    assert smallest_determinant(scaled, (40, 50), step=1) == pytest.approx(0.1, abs=0.06)
    ratio = scaled.positive / folding.positive
    torch.testing.assert_close(ratio, ratio[0].expand(2))
    assert ratio[0] < 1


def test_folding_fields_are_drawn_again() -> None:
    options = {"sigma": 6.0, "theta": 6.0, "least_determinant": 0.25}
    first = drawn((60, 70), 1, tries=1, **options)  # would fold more than allowed
    again = drawn((60, 70), 1, tries=50, **options)

    assert not torch.equal(first.points, again.points)
    assert again.on_axes(voxels((60, 70))).amax() == pytest.approx(float(again.impulses.max()), rel=1e-2)
    assert smallest_determinant(again, (60, 70), step=1.2) >= 0.25


@pytest.mark.parametrize("shape", [(16, 16, 16), (20, 9), (1, 30), (96, 96, 96)])
def test_small_images_take_large_bumps(shape: tuple[int, ...]) -> None:
    for seed in range(5):
        field = random_field(np.random.default_rng(seed), shape, **asdict(PRESETS["v0.1"]["low"]), density=True)
        u = field.on_axes(voxels(shape))
        assert u.isfinite().all()
        assert u.abs().max() <= 20
        assert smallest_determinant(field, shape) > 0


def test_the_number_of_points_follows_the_size() -> None:
    assert [proportional_count(preset.count, preset.sigma, PAPER_SHAPE) for preset in PRESETS["v0.1"].values()] == [
        100
    ] * 3
    assert proportional_count(100, 20.0, (161, 246, 348)) == 50
    assert proportional_count(100, 20.0, (96, 96, 96)) == 3
    assert proportional_count(80, 35.0, (322, 348)) == 29  # 80 sqrt(2 pi) 35 322 348 / PAPER_VOXELS
    assert np.prod(PAPER_SHAPE) == PAPER_VOXELS
    assert len(drawn((40, 40, 40), density=True).points) == 3


def test_points_keep_their_distances() -> None:
    field = drawn((100, 120), count=40, margin=20.0, zeros=2, separation=15.0)
    points = field.points.numpy()

    assert points.min() >= 20
    assert (points <= np.array([79, 99])).all()
    far = np.abs(points[:, None] - points).max(axis=2) + 100 * np.eye(len(points))
    assert far.min() >= 15
    assert len(points) < 40  # there is no room for all of them
    assert not field.impulses[:2].any()
    assert field.impulses[2:].all()


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_seeds_reproduce(make: Any) -> None:
    fields = [random_field(make(seed), (50, 40), 5.0, 6, 2.0) for seed in (3, 3, 4)]
    u, same, other = (field.on_axes(voxels((50, 40))) for field in fields)

    assert torch.equal(u, same)
    assert not torch.equal(u, other)


def test_a_dense_field_is_read_linearly() -> None:
    values = torch.tensor(np.random.default_rng(0).normal(size=(2, 9, 11)), dtype=torch.float32)
    points = torch.tensor(np.random.default_rng(1).uniform(-3, 14, (50, 2)))

    read = DenseField(values).at(points)

    for c in range(2):
        expected = map_coordinates(values[c].double().numpy(), points.numpy().T, order=1, mode="nearest")
        np.testing.assert_allclose(read[:, c].numpy(), expected, atol=1e-5)
    torch.testing.assert_close(DenseField(values).on_axes(voxels((9, 11), torch.float32)), values)
    torch.testing.assert_close(DenseField(values).scaled(2.0).values, 2 * values)


def chest() -> tuple[torch.Tensor, torch.Tensor]:
    """Two ellipsoids of air in a body, and their mask."""
    x = np.stack(np.meshgrid(*map(np.arange, (40, 36, 50)), indexing="ij"))
    inside = np.zeros((40, 36, 50), dtype=bool)
    for middle in (11, 29):
        radii = np.array([8.0, 12.0, 18.0]).reshape(3, 1, 1, 1)
        inside |= (((x - np.array([middle, 18, 26]).reshape(3, 1, 1, 1)) / radii) ** 2).sum(axis=0) < 1
    image = np.where(inside, -850.0, 40.0)
    return torch.tensor(image[None], dtype=torch.float32), torch.tensor(inside[None])


@pytest.mark.parametrize("kind", FIELD_KINDS)
def test_kinds_of_fields(kind: str) -> None:
    image, mask = chest()
    shape, theta = tuple(image.shape[1:]), 4.0
    arguments: dict[str, dict[str, Any]] = {
        "smooth": {"sigma": 8.0, "count": 6, "theta": theta},
        "single_frequency": {"theta": theta, "spacing": 12.0, "mask": mask},
        "mixed_frequency": {"theta": theta, "image": image, "mask": mask, "sigma": (3.0, 4.0)},
        "respiratory": {"theta": theta, "mask": mask},
        "zero": {},
    }

    def make(seed: int) -> DisplacementFunction:
        return FIELD_KINDS[kind](np.random.default_rng(seed), shape, **arguments[kind])

    field = make(0)
    u = field.on_axes(voxels(shape, torch.float32))

    assert u.shape == (3, *shape)
    assert u.abs().max() <= 1.2 * theta + 1e-5
    assert bool(u.any()) == (kind != "zero")
    assert smallest_determinant(field, shape, step=1) >= 0.1 - 1e-4
    assert torch.equal(make(0).on_axes(voxels(shape, torch.float32)), u)
    assert torch.equal(make(1).on_axes(voxels(shape, torch.float32)), u) == (kind == "zero")
    points = torch.tensor([[10.0, 12.0, 20.0], [20.5, 18.25, 30.75]])
    near = field.at(points)
    torch.testing.assert_close(near[0], u[:, 10, 12, 20], rtol=0, atol=1e-5)
    assert field.jacobian_at(points).shape == (2, 3, 3)


def test_a_spline_field_fades_out_beyond_the_body() -> None:
    mask = torch.zeros(1, 60, 60)
    mask[:, :25] = 1

    u = single_frequency_field(np.random.default_rng(0), (60, 60), 4.0, spacing=10.0, mask=mask).values

    assert u[:, :25].abs().max() > 1
    assert u[:, 45:].abs().max() < 1e-3


def test_a_mixed_field_moves_what_is_close_to_edges() -> None:
    image, mask = torch.zeros(1, 80, 80), torch.ones(1, 80, 80)
    image[:, 20:30, 20:30] = 800.0

    u = mixed_frequency_field(np.random.default_rng(1), (80, 80), 3.0, image, mask, sigma=(2.0, 2.0)).values
    few = mixed_frequency_field(np.random.default_rng(1), (80, 80), 3.0, image, mask, iterations=30_000).values

    assert u[:, 18:32, 18:32].abs().max() > 0.5
    assert not u[:, 45:].any()  # beyond the reach of the smoothing
    assert not few.any()  # so many blocks erase all edges there are
    assert not mixed_frequency_field(np.random.default_rng(1), (80, 80), 3.0, 0 * image, mask).values.any()


def test_breathing_lifts_the_diaphragm_and_thins_the_chest() -> None:
    _, mask = chest()
    u = respiratory_field(np.random.default_rng(0), (40, 36, 50), 4.0, mask, shift=4.0, least_determinant=None).values
    # Up to what the B-spline adds: half of theta, 0.3 of that along the body.
    assert u[2, :, :, :8].mean() < -2.5
    assert u[2, :, :, 28:].abs().max() < 0.3 * 0.5 * 4.0 * 1.7
    slope = np.polyfit(np.arange(36), u[1].mean(dim=(0, 2)).numpy(), 1)[0]
    assert 0.05 < slope < 0.2  # 0.12 but for the B-spline and the limit


def test_numbers_out_of_range_are_refused() -> None:
    rng, (image, mask) = np.random.default_rng(0), chest()
    for options in ({"sigma": 0.0}, {"count": 0}, {"theta": -1.0}, {"margin": -1.0}, {"least_determinant": 1.0}):
        with pytest.raises(InputError, match=next(iter(options))):
            drawn((30, 30), **options)
    with pytest.raises(InputError, match="3"):
        respiratory_field(rng, (30, 30), 4.0, mask[..., 0])
    with pytest.raises(InputError, match="mask"):
        respiratory_field(rng, (30, 30, 30), 4.0, mask)
    with pytest.raises(InputError, match="empty"):
        mixed_frequency_field(rng, (40, 36, 50), 4.0, image, 0 * mask)
    with pytest.raises(InputError, match="spacing"):
        single_frequency_field(rng, (30, 30), 4.0, spacing=0.0)
