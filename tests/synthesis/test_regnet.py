from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, list_data_collate
from monai.transforms import Compose
from scipy.ndimage import gaussian_filter, map_coordinates

from monai_regplugins.checks import InputError
from monai_regplugins.fields import jacobian_determinant
from monai_regplugins.networks.nets.regnet import RegNet, window_size
from monai_regplugins.synthesis import regnet as synthetic_window
from monai_regplugins.synthesis.regnet import (
    RandSyntheticWindowd,
    SplineCoefficientsd,
    SyntheticPaird,
    synthetic_cases,
)
from monai_regplugins.synthesis.regnet_fields import PRESETS, GaussianField, random_field

SHAPES = [(90, 84), (58, 56, 60)]
CLEAN: dict[str, Any] = {"noise_fixed": 0.0, "noise_moving": 0.0}


def tissue(shape: tuple[int, ...]) -> torch.Tensor:
    """A smooth random image in HU."""
    noise = np.random.default_rng(0).normal(size=shape)
    return torch.tensor(gaussian_filter(noise, 2.0)[None] * 3000 - 400, dtype=torch.float32)


def point_mask(shape: tuple[int, ...], voxel: tuple[int, ...] | None = None) -> torch.Tensor:
    """A mask of one voxel, by default in the middle."""
    mask = torch.zeros(1, *shape, dtype=torch.uint8)
    mask[(0, *(voxel or [n // 2 for n in shape]))] = 1
    return mask


def cubic(image: torch.Tensor, positions: np.ndarray) -> np.ndarray:
    """An image ``(1, *s)`` at positions, continued at its edges."""
    inner = np.stack([x.clip(0, n - 1) for x, n in zip(positions, image.shape[1:], strict=True)])
    return map_coordinates(image[0].double().numpy(), inner, order=3, mode="mirror")


def grid(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)


@pytest.fixture
def fields(monkeypatch: pytest.MonkeyPatch) -> list[GaussianField]:
    """The fields as they are drawn: u, and then n if the moving image is deformed."""
    drawn: list[GaussianField] = []

    def record(*args: Any, **options: Any) -> GaussianField:
        drawn.append(random_field(*args, **options))
        return drawn[-1]

    monkeypatch.setattr(synthetic_window, "random_field", record)
    return drawn


def value_of(field: GaussianField, positions: np.ndarray) -> np.ndarray:
    """A field at positions ``(d, *out)``."""
    points = torch.tensor(positions).flatten(1).T
    return field.at(points).T.reshape(positions.shape).numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_label_belongs_to_its_voxel(shape: tuple[int, ...], flip: float, fields: list[GaussianField]) -> None:
    # An image that shows where each voxel of the window comes from.
    x = grid(shape)
    image = torch.tensor((x * 100.0 ** np.arange(len(shape)).reshape(-1, *[1] * len(shape))).sum(axis=0)[None]).float()
    windows = RandSyntheticWindowd(labels=3, num_windows=1, next_probability=0.0, flip_probability=flip, **CLEAN)
    windows.set_random_state(1)

    (sample,) = windows({"image": image, "mask": point_mask(shape)})

    labeled = (slice(27, 27 + 2 * 3, 2),) * len(shape)
    code = sample["moving"][0][labeled].double().numpy().round().astype(int)
    origin = np.stack([code // 100**k % 100 for k in range(len(shape))]).astype(float)
    middle = np.array(shape) // 2
    np.testing.assert_array_equal(origin[(slice(None), *[1] * len(shape))], middle)
    sign = -1.0 if flip else 1.0
    assert (np.diff(origin[0], axis=0) == 2 * sign).all()
    expected = sign * value_of(fields[0], origin)
    np.testing.assert_allclose(sample["true_ddf"].numpy(), expected, atol=1e-5)
    assert sample["true_ddf"].dtype == torch.float32
    assert sample["has_true_ddf"] == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("deformed", [0.0, 1.0])
def test_windows_are_crops_of_the_flipped_whole(
    shape: tuple[int, ...], flip: float, deformed: float, fields: list[GaussianField]
) -> None:
    image = tissue(shape)
    windows = RandSyntheticWindowd(
        labels=1, num_windows=1, next_probability=deformed, flip_probability=flip, **CLEAN
    ).set_random_state(2)

    (sample,) = windows({"image": image, "mask": point_mask(shape)})

    x = grid(shape)
    u = value_of(fields[0], x)
    y = x + u
    moving, fixed = image[0].numpy(), cubic(image, y)
    if deformed:
        moving, fixed = cubic(image, x + value_of(fields[1], x)), cubic(image, y + value_of(fields[1], y))
    center = np.array(shape) // 2
    if flip:
        moving, fixed, u = np.flip(moving), np.flip(fixed), -np.flip(u, axis=tuple(range(1, len(shape) + 1)))
        center = np.array(shape) - 1 - center
    window = tuple(slice(c - 27, c + 27) for c in center)
    np.testing.assert_allclose(sample["moving"][0].numpy(), moving[window], atol=1e-2)
    np.testing.assert_allclose(sample["fixed"][0].numpy(), fixed[window], atol=1e-2)
    np.testing.assert_allclose(sample["true_ddf"].flatten().numpy(), u[(slice(None), *center)], atol=1e-5)


@pytest.mark.parametrize("deformed", [False, True])
def test_the_truth_registers_moving_to_fixed(deformed: bool) -> None:
    image = tissue((90, 84))
    entry = {"family": "miccai2017", "preset": "high", "seed": 5, "next": deformed}

    pair = SyntheticPaird(**CLEAN)({"image": image, "field": entry})

    u = pair["true_ddf"].double().numpy()
    warped, inner = cubic(pair["moving"], grid((90, 84)) + u), (slice(15, -15),) * 2
    error = np.abs(warped - pair["fixed"][0].numpy())[inner]
    opposite = np.abs(cubic(pair["moving"], grid((90, 84)) - u) - pair["fixed"][0].numpy())[inner]
    if deformed:
        # interpolated twice, fixed only once
        assert error.mean() < 1.5
        assert error.mean() < 0.02 * opposite.mean()
    else:
        assert torch.equal(pair["moving"], image)
        assert error.max() < 1e-2
        assert opposite.mean() > 50
    assert jacobian_determinant(pair["true_ddf"][None]).min() > 0.3
    assert pair["has_true_ddf"] == 1
    assert set(pair) == {"moving", "fixed", "true_ddf", "has_true_ddf", "field"}


def test_noise() -> None:
    item, samples = {"image": tissue((90, 84)), "mask": point_mask((90, 84))}, {}
    for name, noise in {"clean": CLEAN, "noisy": {}}.items():
        for deformed in (0.0, 1.0):
            windows = RandSyntheticWindowd(labels=60, num_windows=1, next_probability=deformed, **noise)
            samples[name, deformed] = windows.set_random_state(0)(item)[0]

    def deviation(key: str, deformed: float) -> float:
        return float((samples["noisy", deformed][key] - samples["clean", deformed][key]).std())

    assert deviation("fixed", 0.0) == pytest.approx(5, rel=0.02)
    assert deviation("fixed", 1.0) == pytest.approx(5, rel=0.02)
    assert deviation("moving", 1.0) == pytest.approx(3, rel=0.02)
    assert deviation("moving", 0.0) == 0


def test_seeds_reproduce_and_windows_differ() -> None:
    item = {"image": tissue((90, 84))}
    windows = RandSyntheticWindowd(labels=2, num_windows=3)

    first = windows.set_random_state(4)(item)
    more = windows(item)
    again = windows.set_random_state(4)(item)

    assert len(first) == 3
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, again, strict=True) for key in a)
    fixed = [sample["fixed"] for sample in (*first, *more)]
    assert not any(torch.equal(a, b) for k, a in enumerate(fixed) for b in fixed[:k])


def test_presets_and_deformations_are_drawn(fields: list[GaussianField]) -> None:
    item = SplineCoefficientsd()({"image": tissue((60, 60))})
    windows = RandSyntheticWindowd(labels=1, num_windows=1, next_probability=0.5).set_random_state(0)
    count, sigmas = 0, set()
    for _ in range(24):
        fields.clear()
        windows(item)
        sigmas.add(fields[0].sigma)
        count += len(fields) == 2
        assert fields[-1].sigma == 35 or len(fields) == 1
    assert sigmas == {35.0, 25.0, 20.0}
    assert 6 < count < 18


def test_theta_scale_and_density(fields: list[GaussianField]) -> None:
    item = {"image": tissue((60, 60))}
    for options in ({}, {"theta_scale": 0.5}, {"density": False}):
        RandSyntheticWindowd(presets="high", next_probability=0.0, **options).set_random_state(0)(item)
    torch.testing.assert_close(fields[1].impulses, 0.5 * fields[0].impulses)
    assert [len(field.points) for field in fields] == [3, 3, 100]


def test_cached_coefficients_change_nothing() -> None:
    item = {"image": tissue((60, 70))}
    cached = SplineCoefficientsd()(item)
    windows = RandSyntheticWindowd(labels=2, num_windows=1, next_probability=1.0)

    (a,), (b,) = (windows.set_random_state(0)(data) for data in (item, cached))

    assert torch.equal(a["fixed"], b["fixed"])
    assert set(cached) == {"image", "coefficients"}
    (c,) = windows.set_random_state(0)({**cached, "coefficients": cached["coefficients"] + 100})
    torch.testing.assert_close(c["fixed"], a["fixed"] + 100, rtol=0, atol=1e-3)


def test_beyond_the_image() -> None:
    item = {"image": tissue((40, 40)), "mask": point_mask((40, 40), (0, 39))}
    options = {"labels": 1, "num_windows": 1, "next_probability": 0.0, "flip_probability": 0.0, **CLEAN}

    (edges,) = RandSyntheticWindowd(**options).set_random_state(0)(item)
    (air,) = RandSyntheticWindowd(**options, outside=-1000.0).set_random_state(0)(item)

    padded = np.pad(item["image"][0].numpy(), 60, mode="edge")[60 - 27 : 60 + 27, 60 + 39 - 27 : 60 + 39 + 27]
    np.testing.assert_array_equal(edges["moving"][0].numpy(), padded)
    assert (air["moving"][0, :27] == -1000).all()
    assert (air["moving"][0, :, 28:] == -1000).all()
    assert torch.equal(air["moving"][0, 27:, :28], edges["moving"][0, 27:, :28])
    assert (air["fixed"] == -1000).any()
    assert torch.equal(air["true_ddf"], edges["true_ddf"])


def test_windows_lie_about_the_mask() -> None:
    x = grid((95, 90))
    image = torch.tensor((x[0] + 100 * x[1])[None], dtype=torch.float32)
    mask = torch.zeros(1, 95, 90, dtype=torch.bool)
    mask[0, 60:70, 20:50] = True
    windows = RandSyntheticWindowd(labels=1, num_windows=60, next_probability=0.0, **CLEAN).set_random_state(0)

    samples = windows({"image": image, "mask": MetaTensor(mask)})

    centers = np.array([divmod(round(float(sample["moving"][0, 27, 27])), 100)[::-1] for sample in samples])
    assert mask[0][tuple(centers.T)].all()
    assert len(np.unique(centers[:, 0])) == 10  # all of it is reached


def test_small_fields_are_fractions_of_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    thetas: list[float] = []
    some_field = random_field(np.random.default_rng(0), (20, 20), sigma=5.0, theta=1.0, count=2)

    def record(rng: Any, shape: tuple[int, ...], *, theta: float, **options: Any) -> GaussianField:
        thetas.append(theta)
        return some_field

    monkeypatch.setattr(synthetic_window, "random_field", record)
    item = SplineCoefficientsd()({"image": tissue((20, 20))})
    for probability, quartiles in ((0.0, (1, 1, 1)), (0.5, (0.5, 1, 1)), (1.0, (0.25, 0.5, 0.75))):
        thetas.clear()
        windows = RandSyntheticWindowd(1, 1, "low", next_probability=0.0, small_probability=probability)
        windows.set_random_state(0)
        for _ in range(100):
            windows(item)
        scales = np.array(thetas) / PRESETS["miccai2017"]["low"].theta
        np.testing.assert_allclose(np.quantile(scales, (0.25, 0.5, 0.75)), quartiles, atol=0.1)


def test_bands_are_drawn_equally_often() -> None:
    bands = (1.5, 4.0, 8.0)
    item = SplineCoefficientsd()({"image": tissue((160, 150))})
    windows = RandSyntheticWindowd(1, 12, family="v0.1", next_probability=0.0, bands=bands).set_random_state(0)

    labels = torch.cat([torch.stack([s["true_ddf"].flatten() for s in windows(item)]) for _ in range(12)]).abs()

    band = np.digitize(labels.numpy(), bands)
    assert (band[:, 0] == band[:, 1]).mean() > 0.97  # not where a field has no such voxel at all
    share = np.bincount(band[:, 0], minlength=4) / len(band)
    np.testing.assert_allclose(share, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.12)


def test_what_cannot_be_used_is_refused() -> None:
    item = {"image": tissue((60, 60))}
    for options, word in (
        ({"family": "miccai2018"}, "miccai2017"),
        ({"presets": ("low", "hihg")}, "high"),
        ({"presets": ()}, "empty"),
        ({"family": "v0.1"}, "next_probability"),
        ({"labels": 0}, "labels"),
        ({"noise_fixed": -1.0}, "noise_fixed"),
        ({"flip_probability": 2.0}, "flip_probability"),
        ({"small_probability": -0.1}, "small_probability"),
        ({"bands": (4.0, 1.5)}, "bands"),
    ):
        with pytest.raises(InputError, match=word):
            RandSyntheticWindowd(**options)
    windows = RandSyntheticWindowd()
    for change, word in (
        ({"mask": torch.zeros(1, 60, 60)}, "empty"),
        ({"mask": torch.ones(1, 60, 50)}, "mask"),
        ({"coefficients": torch.ones(1, 60, 50)}, "coefficients"),
        ({"image": torch.full((1, 60, 60), torch.nan)}, "NaN"),
        ({"image": torch.rand(2, 60, 60)}, "channels"),
    ):
        with pytest.raises(InputError, match=word):
            windows({**item, **change})
    for field in (None, {"family": "miccai2017"}, {"family": "v0.1", "preset": "low", "seed": 0, "next": True}):
        with pytest.raises(InputError):
            SyntheticPaird()({**item, "field": field})
    with pytest.raises(InputError, match="empty"):
        SyntheticPaird()({**item, **synthetic_cases([{}])[0], "mask": torch.zeros(1, 60, 60)})


def test_the_mask_of_a_pair_moves_along() -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    image, mask = MetaTensor(tissue((70, 60)), affine=affine), MetaTensor(torch.zeros(1, 70, 60), affine=affine)
    mask[:, 20:50, 15:40] = 1
    entry = {"family": "miccai2017", "preset": "low", "seed": 3, "next": False}

    pair = SyntheticPaird()({"image": image, "mask": mask, "field": entry, "name": "a"})

    positions = grid((70, 60)) + pair["true_ddf"].double().numpy()
    expected = map_coordinates(mask[0].numpy(), positions, order=0, mode="constant")
    assert (pair["fixed_mask"][0].numpy() != expected).mean() < 1e-3  # ties of the rounding
    assert (pair["fixed_mask"] != mask).any()
    assert isinstance(pair["fixed"], MetaTensor)
    assert torch.equal(pair["fixed"].affine, affine)
    assert torch.equal(pair["fixed_mask"].affine, affine)
    assert not isinstance(pair["true_ddf"], MetaTensor)
    assert set(pair) == {"moving", "fixed", "true_ddf", "has_true_ddf", "fixed_mask", "field", "name"}


def test_the_validation_set_is_fixed() -> None:
    images = [{"image": "a.nii.gz", "mask": "b.nii.gz"}, {"image": "c.nii.gz"}]

    cases = synthetic_cases(images, presets=("low", "high"), repeats=2, seed=7)

    assert cases == synthetic_cases(images, presets=("low", "high"), repeats=2, seed=7)
    assert len(cases) == 2 * 2 * 2 * 2
    assert len({case["field"]["seed"] for case in cases}) == len(cases)
    assert sum(case["field"]["next"] for case in cases) == 8
    assert cases[0]["mask"] == "b.nii.gz"
    assert len(synthetic_cases(images[:1])) == 6  # the paper's fields per image
    assert not any(case["field"]["next"] for case in synthetic_cases(images, "v0.1"))
    image = tissue((50, 40))
    one, same, other = (SyntheticPaird()({**cases[k], "image": image, "mask": None}) for k in (1, 1, 2))
    assert torch.equal(one["fixed"], same["fixed"])
    assert not torch.equal(one["fixed"], other["fixed"])


def test_a_batch_of_windows_fits_the_network() -> None:
    data = [{"image": tissue((60, 50)), "mask": torch.ones(1, 60, 50)} for _ in range(2)]
    transform = Compose([SplineCoefficientsd(), RandSyntheticWindowd(labels=4, num_windows=3)]).set_random_state(0)
    dataset = CacheDataset(data, transform, num_workers=None, progress=False)

    batch = next(iter(DataLoader(dataset, batch_size=2, collate_fn=list_data_collate)))

    assert batch["moving"].shape == batch["fixed"].shape == (6, 1, window_size(4), window_size(4))
    network = RegNet(spatial_dims=2, dense_mode="window", width=0.25)
    assert network(torch.cat([batch["moving"], batch["fixed"]], dim=1)).shape == batch["true_ddf"].shape
    assert batch["has_true_ddf"].tolist() == [1.0] * 6
