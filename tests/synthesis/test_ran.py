from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from scipy.ndimage import map_coordinates

from monai_regplugins.checks import InputError
from monai_regplugins.synthesis import ran as synthetic
from monai_regplugins.synthesis.ran import RandSyntheticPaird, rotation_matrix

SHAPE = (14, 12, 10)
AFFINE = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
STILL: dict[str, Any] = {"rotation": 0.0, "translation": 0.0, "tps_points": 0, "gaussian_seeds": 0}


def make_pair(shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    item: dict[str, Any] = {"pair_id": "a_to_b", "spacing": torch.ones(len(shape))}
    for role in ("moving", "fixed"):
        image = torch.rand(1, *shape, generator=generator)
        label = torch.randint(0, 5, (1, *shape), generator=generator, dtype=torch.uint8)
        item |= {role: MetaTensor(image, affine=AFFINE), f"{role}_label": MetaTensor(label, affine=AFFINE)}
    return item


def positions(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)


def pull(image: Any, where: np.ndarray, order: int = 1, mode: str = "grid-constant") -> np.ndarray:
    """The image at the positions, by SciPy; zero outside unless specified otherwise."""
    return map_coordinates(np.asarray(image, dtype=float), where, order=order, mode=mode)


def drawn(seed: int, shape: tuple[int, ...] = SHAPE, **options: Any) -> dict[Any, Any]:
    return RandSyntheticPaird(**options).set_random_state(seed)(make_pair(shape))


@pytest.mark.parametrize("shape", [(16, 14), SHAPE])
def test_fixed_is_moving_warped_by_the_true_field(shape: tuple[int, ...]) -> None:
    item = drawn(0, shape)
    where = positions(shape) + item["true_ddf"].double().numpy()

    assert item["true_ddf"].shape == (len(shape), *shape)
    assert item["true_ddf"].dtype == torch.float32
    assert item["true_ddf"].norm(dim=0).max() > 1
    assert torch.equal(item["has_true_ddf"], torch.tensor(1.0))
    np.testing.assert_allclose(item["fixed"][0].numpy(), pull(item["moving"][0], where), atol=1e-4)
    # Positions half way between two voxels may be rounded either way.
    off_ties = (np.abs(where - np.floor(where) - 0.5) > 1e-3).all(axis=0)
    expected = pull(item["moving_label"][0], where, order=0)
    np.testing.assert_array_equal(item["fixed_label"][0].numpy()[off_ties], expected[off_ties])


def test_either_image_becomes_the_base_with_its_label() -> None:
    pair, bases = make_pair(), set()
    for seed in range(8):
        item = drawn(seed)
        base = "moving" if torch.equal(item["moving"], pair["moving"]) else "fixed"
        assert torch.equal(item["moving"], pair[base])
        assert torch.equal(item["moving_label"], pair[f"{base}_label"])
        bases.add(base)
    assert bases == {"moving", "fixed"}


def test_a_real_pair_stays_and_mixes_with_synthetic_ones() -> None:
    pair, item = make_pair(), drawn(0, prob=0.0)

    for key, value in pair.items():
        assert item[key] is value or torch.equal(item[key], value)
    assert not item["true_ddf"].any()
    batch = list_data_collate([item, drawn(1)])
    assert batch["true_ddf"].shape == (2, 3, *SHAPE)
    assert batch["has_true_ddf"].tolist() == [0.0, 1.0]


def test_probability_is_kept() -> None:
    transform = RandSyntheticPaird(prob=0.3, **STILL).set_random_state(0)
    pair = make_pair((4, 4))

    share = np.mean([float(transform(pair)["has_true_ddf"]) for _ in range(400)])

    assert share == pytest.approx(0.3, abs=0.08)


def test_the_item_that_came_in_is_untouched() -> None:
    pair = make_pair()
    RandSyntheticPaird(intensity_jitter=0.2).set_random_state(0)(pair)

    expected = make_pair()
    assert pair.keys() == expected.keys()
    for key in ("moving", "fixed", "moving_label", "fixed_label"):
        assert torch.equal(pair[key], expected[key])


def test_types_and_metadata_stay() -> None:
    item = drawn(0, intensity_jitter=0.1, pre_augment=0.5)

    for key, dtype in {"moving": torch.float32, "fixed": torch.float32, "fixed_label": torch.uint8}.items():
        assert isinstance(item[key], MetaTensor)
        assert item[key].dtype == dtype
        torch.testing.assert_close(item[key].affine, AFFINE)
    assert type(item["true_ddf"]) is torch.Tensor
    assert item["fixed"].meta is not item["moving"].meta


def test_seeds_decide() -> None:
    options = {"intensity_jitter": 0.1, "pre_augment": 0.5, "scale": 0.1}
    first, again, other = drawn(5, **options), drawn(5, **options), drawn(6, **options)

    for key in ("true_ddf", "moving", "fixed", "moving_label", "fixed_label"):
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])


def test_the_parts_are_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: dict[str, Any] = {}
    for name in ("gaussian_seed_field", "thin_plate_spline_field"):
        made_by = getattr(synthetic, name)
        monkeypatch.setattr(synthetic, name, lambda *a, f=made_by, n=name, **k: parts.setdefault(n, f(*a, **k)))
    transform = RandSyntheticPaird(scale=0.2).set_random_state(0)
    affine_drawn = transform._random_affine
    monkeypatch.setattr(transform, "_random_affine", lambda *a: parts.setdefault("affine", affine_drawn(*a)))

    total = transform.random_field(SHAPE).double().numpy()

    x = positions(SHAPE)
    y = x + parts["gaussian_seed_field"].numpy()
    z = y + np.stack([pull(component, y, mode="nearest") for component in parts["thin_plate_spline_field"]])
    matrix, translation = (part.double().numpy() for part in parts["affine"])
    center = (np.array(SHAPE) - 1) / 2
    moved = (
        np.einsum("ij,j...->i...", matrix, z - center[:, None, None, None])
        + (center + translation)[:, None, None, None]
    )
    np.testing.assert_allclose(x + total, moved, atol=1e-3)


@pytest.mark.parametrize("shape", [(9, 8), (7, 6, 8)])
def test_rotation_alone_stays_within_its_angle(shape: tuple[int, ...]) -> None:
    transform = RandSyntheticPaird(**STILL | {"rotation": 0.5}).set_random_state(0)
    angles = []
    for _ in range(40):
        field = transform.random_field(shape).double().numpy()
        jacobian = np.stack([np.stack(np.gradient(u)) for u in field]).reshape(len(shape), len(shape), -1)[..., 0]
        matrix = jacobian + np.eye(len(shape))
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(shape)), atol=1e-5)
        np.testing.assert_allclose(field.reshape(len(shape), -1).mean(axis=1), 0, atol=1e-5)
        angles.append(math.acos((np.trace(matrix) - (len(shape) - 2)) / 2))
    assert 0.4 < max(angles) <= 0.5 + 1e-3


def test_translation_alone_is_constant_and_within_its_range() -> None:
    transform = RandSyntheticPaird(**STILL | {"translation": 3.0}).set_random_state(0)
    fields = torch.stack([transform.random_field((5, 6, 7)) for _ in range(50)])

    shifts = fields.flatten(2).mean(dim=2)
    torch.testing.assert_close(fields, shifts[..., None, None, None].expand_as(fields))
    assert 2.7 < shifts.abs().max() <= 3
    assert shifts.min() < 0 < shifts.max()


def test_scale_alone_stretches_along_the_axes() -> None:
    transform = RandSyntheticPaird(**STILL | {"scale": 0.2}).set_random_state(0)
    factors = []
    for _ in range(30):
        field = transform.random_field((5, 6))
        slopes = torch.stack([field[0, 1, 0] - field[0, 0, 0], field[1, 0, 1] - field[1, 0, 0]])
        torch.testing.assert_close(
            field,
            torch.stack(
                torch.meshgrid(
                    slopes[0] * (torch.arange(5.0) - 2), slopes[1] * (torch.arange(6.0) - 2.5), indexing="ij"
                )
            ),
        )
        factors.append(slopes)
    assert 0.15 < torch.stack(factors).abs().max() <= 0.2 + 1e-5


def test_bumps_peak_within_their_range() -> None:
    transform = RandSyntheticPaird(**STILL | {"gaussian_seeds": 5, "gaussian_amplitude": (2.0, 3.0)}).set_random_state(
        0
    )
    peaks = [float(transform.random_field((12, 12, 12)).norm(dim=0).max()) for _ in range(20)]

    assert 2 - 1e-5 <= min(peaks) < max(peaks) <= 3 + 1e-5


def test_factor_scales_every_amplitude() -> None:
    for name, value in {
        "rotation": 1e-3,
        "translation": 5.0,
        "scale": 0.1,
        "tps_points": 6,
        "gaussian_seeds": 4,
    }.items():
        transform = RandSyntheticPaird(**STILL | {name: value})
        whole = transform.set_random_state(1).random_field((10, 9, 8))
        half = transform.set_random_state(1).random_field((10, 9, 8), 0.5)
        torch.testing.assert_close(half, whole / 2, atol=2e-5, rtol=0)


def test_published_amplitudes_do_not_fold() -> None:
    transform = RandSyntheticPaird().set_random_state(0)
    for _ in range(3):
        field = transform.random_field((32, 32, 32)).double().numpy()
        jacobian = np.stack([np.stack(np.gradient(u)) for u in field]).transpose(2, 3, 4, 0, 1) + np.eye(3)
        assert np.linalg.det(jacobian).min() > 0.1


def test_pre_augmentation_warps_the_base_first() -> None:
    item, pair = drawn(0, pre_augment=0.5), make_pair()

    for role in ("moving", "fixed"):
        assert not torch.equal(item["moving"], pair[role])
    where = positions(SHAPE) + item["true_ddf"].double().numpy()
    np.testing.assert_allclose(item["fixed"][0].numpy(), pull(item["moving"][0], where), atol=1e-4)


def test_intensity_jitter_is_small_and_independent() -> None:
    pair = make_pair()
    item = drawn(0, intensity_jitter=0.1, **STILL)
    base = next(role for role in ("moving", "fixed") if torch.equal(item["moving_label"], pair[f"{role}_label"]))

    for role in ("moving", "fixed"):
        change = (item[role] - pair[base]).abs()
        assert 0 < change.max() < 0.25
        assert item[role].min() >= 0
        assert item[role].max() <= 1
    assert not torch.equal(item["moving"], item["fixed"])
    assert torch.equal(item["fixed_label"], item["moving_label"])


def test_the_base_has_every_label_of_the_pair() -> None:
    for seed in range(6):
        pair = make_pair()
        pair["fixed_mask"] = torch.ones(1, *SHAPE, dtype=torch.uint8)
        item = RandSyntheticPaird().set_random_state(seed)(pair)
        assert torch.equal(item["moving"], make_pair()["fixed"])
        assert 0 < item["fixed_mask"].sum() < item["fixed_mask"].numel()
        assert "moving_mask" not in item


def test_bad_pairs_are_refused() -> None:
    transform = RandSyntheticPaird()
    with pytest.raises(InputError, match="differ in size"):
        transform(make_pair() | {"moving": torch.zeros(1, 4, 4, 4)})
    with pytest.raises(InputError, match="moving_landmarks"):
        transform(make_pair() | {"moving_landmarks": torch.zeros(5, 3)})
    lacking = make_pair() | {"fixed_mask": torch.ones(1, *SHAPE)}
    del lacking["fixed_label"]
    with pytest.raises(InputError, match="lack"):
        transform(lacking)


@pytest.mark.parametrize(
    "options",
    [
        {"rotation": -1.0},
        {"tps_points": -1},
        {"scale": 1.0},
        {"intensity_jitter": -0.1},
        {"gaussian_amplitude": (3.0, 2.0)},
        {"gaussian_sigma": (0.0, 2.0)},
        {"gaussian_sigma": (1.0, float("nan"))},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        RandSyntheticPaird(**options)


def test_the_module_offers_the_fields_too() -> None:
    torch.testing.assert_close(rotation_matrix(None, math.pi / 2), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
