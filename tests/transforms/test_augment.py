"""Random crop and intensity factor: the same for both images, seeded, and as large as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.checks import InputError
from monai_regplugins.transforms.augment import RandIntensityFactord, RandPairCropd, RandSwapPaird

AFFINE = torch.tensor([[0.0, 2.0, 0.0, 5.0], [3.0, 0.0, 0.0, 6.0], [0.0, 0.0, 4.0, 7.0], [0.0, 0.0, 0.0, 1.0]])


def make_pair(shape: tuple[int, ...] = (9, 8, 7)) -> dict[str, Any]:
    """A pair whose fixed image, label and field all hold the voxel number, so that each voxel shows where it was."""
    d = len(shape)
    numbers = torch.arange(1.0, 1.0 + np.prod(shape)).reshape(1, *shape)
    return {
        "moving": MetaTensor(numbers + 0.5, affine=AFFINE),
        "fixed": MetaTensor(numbers, affine=AFFINE),
        "fixed_label": MetaTensor(numbers.to(torch.int16), affine=AFFINE),
        "true_ddf": numbers.expand(d, *shape),
        "fixed_keypoints": torch.full((1, d), 4.0),
        "pair_id": "a_to_b",
    }


@pytest.mark.parametrize(("shape", "margin"), [((9, 8, 7), 2), ((9, 8, 7), (1, 3, 0)), ((9, 8), (2, 1))])
def test_crop_is_one_window_for_all_keys(shape: tuple[int, ...], margin: Any) -> None:
    pair = make_pair(shape)
    cropped = RandPairCropd(margin).set_random_state(seed=1)(pair)
    margins = np.broadcast_to(margin, len(shape))
    assert cropped["fixed"].shape[1:] == tuple(np.array(shape) - 2 * margins)
    first = int(cropped["fixed"].flatten()[0]) - 1
    offset = np.array(np.unravel_index(first, shape))
    window = (slice(None), *(slice(o, o + s - 2 * m) for o, s, m in zip(offset, shape, margins, strict=True)))
    for key in ("moving", "fixed", "fixed_label", "true_ddf"):
        np.testing.assert_array_equal(cropped[key], pair[key][window])
    np.testing.assert_array_equal(cropped["fixed_keypoints"][0], 4.0 - offset)
    world = AFFINE.numpy() @ np.r_[offset, np.zeros(3 - len(shape)), 1.0]
    np.testing.assert_allclose(cropped["moving"].affine[:, -1], world)
    assert cropped["pair_id"] == "a_to_b"


def test_crop_offsets_fill_the_whole_range() -> None:
    crop = RandPairCropd(1).set_random_state(seed=0)
    pair = make_pair((5, 5))
    firsts = {int(crop(pair)["fixed"][0, 0, 0]) - 1 for _ in range(100)}
    assert firsts == {5 * i + j for i in range(3) for j in range(3)}


def test_crop_is_seeded() -> None:
    pair, crop = make_pair(), RandPairCropd(2)
    first, second = ([crop(pair)["fixed"].flatten()[0] for _ in range(5)] for _ in map(crop.set_random_state, (3, 3)))
    assert first == second
    assert len(set(map(float, first))) > 1


def test_margin_zero_changes_nothing() -> None:
    pair = make_pair()
    assert all(value is pair[key] for key, value in RandPairCropd(0)(pair).items())


@pytest.mark.parametrize(
    ("margin", "message"), [(4, "9 x 8 x 7 voxels, expected at least 9 x 9 x 9"), ((1, 1), "margin has 2 values")]
)
def test_crop_refuses_margins_that_do_not_fit(margin: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RandPairCropd(margin)(make_pair())


def test_crop_refuses_a_negative_margin() -> None:
    with pytest.raises(InputError, match="0 or more"):
        RandPairCropd((1, -1, 0))


def test_crop_refuses_images_of_different_size() -> None:
    pair = make_pair() | {"moving": torch.zeros(1, 9, 9, 9)}
    with pytest.raises(InputError, match="moving image has size"):
        RandPairCropd(1)(pair)


def test_both_images_get_one_factor_and_labels_none() -> None:
    pair = make_pair()
    scaled = RandIntensityFactord(0.2).set_random_state(seed=0)(pair)
    factor = float((scaled["fixed"] / pair["fixed"]).mean())
    assert factor != 1.0
    torch.testing.assert_close(scaled["moving"].as_tensor(), pair["moving"].as_tensor() * factor)
    torch.testing.assert_close(scaled["fixed"].as_tensor(), pair["fixed"].as_tensor() * factor)
    assert torch.equal(scaled["fixed_label"], pair["fixed_label"])
    assert torch.equal(scaled["moving"].affine, pair["moving"].affine)


def test_factors_are_uniform_and_seeded() -> None:
    pair = {"moving": torch.ones(1, 1, 1), "fixed": torch.ones(1, 1, 1)}
    transform = RandIntensityFactord(0.2)
    first, second = (
        np.array([float(transform(pair)["fixed"]) for _ in range(200)]) for _ in map(transform.set_random_state, (7, 7))
    )
    np.testing.assert_array_equal(first, second)
    assert first.min() >= 0.8
    assert first.max() <= 1.2
    # mean and standard deviation of U(0.8, 1.2), four standard errors wide
    assert abs(first.mean() - 1.0) < 4 * 0.2 / np.sqrt(3 * 200)
    assert abs(first.std() - 0.2 / np.sqrt(3)) < 0.02


def test_factor_refuses_an_amplitude_that_could_erase_the_image() -> None:
    with pytest.raises(InputError, match="amplitude"):
        RandIntensityFactord(1.0)


def two_sided_pair() -> dict[str, Any]:
    """A pair that has everything twice, no two entries alike."""
    images = {key: MetaTensor(torch.rand(1, 6, 5), affine=AFFINE) for key in ("moving", "fixed")}
    labels = {f"{key}_label": MetaTensor((image > 0.5).to(torch.uint8)) for key, image in images.items()}
    masks = {f"{key}_mask": MetaTensor((image > 0.2).to(torch.uint8)) for key, image in images.items()}
    points = {f"{key}_{kind}": torch.rand(3, 2) for key in images for kind in ("keypoints", "landmarks")}
    return {**images, **labels, **masks, **points, "spacing": torch.tensor([2.0, 3.0]), "pair_id": "a_to_b"}


def test_swap_exchanges_all_that_belongs_to_the_images() -> None:
    pair = two_sided_pair()
    swapped = RandSwapPaird(1.0)(pair)
    assert swapped.keys() == pair.keys()
    for key in pair.keys() - {"spacing", "pair_id"}:
        partner = key.replace("moving", "fixed") if key.startswith("moving") else key.replace("fixed", "moving")
        assert swapped[key] is pair[partner], key
    assert swapped["spacing"] is pair["spacing"]


def test_swap_twice_is_nothing() -> None:
    pair, swap = two_sided_pair(), RandSwapPaird(1.0)
    again = swap(swap(pair))
    assert again.keys() == pair.keys()
    assert all(again[key] is value for key, value in pair.items())


def test_swap_leaves_nothing_behind_that_only_one_image_has() -> None:
    pair = two_sided_pair()
    for key in ("fixed_label", "moving_mask", "moving_keypoints", "fixed_landmarks"):
        del pair[key]
    swapped = RandSwapPaird(1.0)(pair)
    assert swapped["fixed_label"] is pair["moving_label"]
    assert swapped["moving_mask"] is pair["fixed_mask"]
    assert {"moving_label", "fixed_mask", "fixed_keypoints", "moving_landmarks"} & swapped.keys() == set()


def test_swap_happens_as_often_as_it_should_and_is_seeded() -> None:
    pair, swap = two_sided_pair(), RandSwapPaird(0.25)
    first, second = (
        [swap(pair)["moving"] is pair["fixed"] for _ in range(400)] for _ in map(swap.set_random_state, (5, 5))
    )
    assert first == second
    assert abs(np.mean(first) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)
    unchanged = RandSwapPaird(0.0)(pair)
    assert all(unchanged[key] is value for key, value in pair.items())
