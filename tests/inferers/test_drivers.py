"""Which labels and landmarks drive, and at what size of the grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.inferers import Drivers
from monai_regplugins.losses import LabelOverlapLoss


def label_map(rows: slice, label: int) -> torch.Tensor:
    """A band of a label."""
    values = torch.zeros(1, 1, 16, 12, dtype=torch.uint8)
    values[:, :, rows] = label
    return values


POINTS = torch.tensor([[[3.0, 4.0], [9.0, 2.0], [12.0, 7.0]]])
LABELS = {"moving_label": label_map(slice(4, 8), 3), "fixed_label": label_map(slice(2, 6), 3)}
PAIR = {"fixed": torch.rand(1, 1, 16, 12), **LABELS, "moving_keypoints": POINTS + 2, "fixed_keypoints": POINTS}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_weight": -1.0}, "refine_label_weight is -1.0, expected a number from 0 on"),
        ({"landmark_weight": "much"}, "refine_landmark_weight is 'much', expected a number"),
        ({"labels": [0, 1]}, r"driving_labels is \[0, 1\], expected a list of labels .* not 0"),
        ({"labels": "liver"}, "driving_labels is 'liver', expected a list"),
        ({"landmarks": [2, 2]}, r"driving_landmarks is \[2, 2\], expected a list of rows"),
        ({"landmarks": [-1]}, "expected a list of rows of the points"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Drivers(**options)


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"label_weight": 1.0}, {"moving_label": None}, "the pair has no moving label map, .* label maps of both"),
        ({"label_weight": 1.0}, {"fixed_label": None}, "the pair has no fixed label map"),
        ({"label_weight": 1.0}, {"fixed_label": label_map(slice(2, 6), 5)}, "no label is in both label maps"),
        ({"label_weight": 1.0, "labels": [3, 7]}, {}, r"driving label 7 is not in the fixed and the moving .*\(3\)"),
        (
            {"label_weight": 1.0, "labels": [5]},
            {"fixed_label": label_map(slice(2, 6), 3) + label_map(slice(9, 11), 5)},
            "driving label 5 is not in the moving label map",
        ),
        ({"landmark_weight": 1.0}, {"fixed_keypoints": None}, "the pair has no fixed points, expected points of both"),
        ({"landmark_weight": 1.0, "landmarks": [1, 3]}, {}, "names row 3, but the pair has 3 points"),
        ({"landmark_weight": [1.0, 2.0]}, {}, "has 2 numbers, expected one, or one for each of the 3 points"),
        ({"landmark_weight": 1.0}, {"moving_keypoints": POINTS[:, :2]}, "there are 2 moving and 3 fixed points"),
    ],
)
def test_pairs_that_lack_what_is_to_drive(options: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    pair = {key: value for key, value in {**PAIR, **changes}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        Drivers(**options).check(pair)
    with pytest.raises(InputError, match=message):
        Drivers(**options).of_pair(pair)


def test_nothing_drives_by_default() -> None:
    drivers = Drivers()
    drivers.check({})
    assert (bool(drivers), drivers.keys, drivers.of_pair(PAIR).outputs()) == (False, (), {})
    assert bool(Drivers(landmark_weight=[0.0, 1.0]))


@pytest.mark.parametrize("size", [[16, 12], [8, 6], [4, 4]])
def test_they_are_matched_by_the_same_motion_at_any_size(size: list[int]) -> None:
    driving = Drivers(0.5, [], 2.0, [0, 2]).of_pair(PAIR)
    assert driving.outputs()["driving_labels"].tolist() == [[3]]
    assert driving.outputs()["driving_landmarks"].tolist() == [[0, 2]]
    label, landmarks = driving.at(size)
    right = torch.tensor([2.0 * n / m for n, m in zip(size, (16, 12), strict=True)]).view(1, 2, 1, 1)
    ddf = right.expand(1, 2, *size)
    assert landmarks(ddf) < 1e-10 < landmarks(0.5 * ddf) < landmarks(0 * ddf)
    assert label(ddf) < 1e-6 < label(0.5 * ddf) < label(0 * ddf)
    torch.testing.assert_close(driving.loss(size)(0 * ddf), label(0 * ddf) + landmarks(0 * ddf))
    assert driving.at(size)[0] is label


def test_a_label_weighs_as_its_dice() -> None:
    found = Drivers(0.7).of_pair(PAIR).loss([16, 12])(still := torch.zeros(1, 2, 16, 12))
    torch.testing.assert_close(found, 0.7 * LabelOverlapLoss()(still, PAIR["moving_label"], PAIR["fixed_label"]))


def test_weights_of_single_landmarks() -> None:
    still = torch.zeros(1, 2, 16, 12)

    def loss(weight: Any, rows: list[int]) -> torch.Tensor:
        return Drivers(landmark_weight=weight, landmarks=rows).of_pair(PAIR).loss([16, 12])(still)

    torch.testing.assert_close(loss([1.0, 3.0], [0, 2]), loss(1.0, [0]) + loss(3.0, [2]))


def test_what_masks_leave_out_does_not_pull() -> None:
    still = torch.zeros(1, 2, 16, 12)
    differs = label_map(slice(0, 16), 1)
    differs[:, :, 2:8] = 0  # where either label map has the label
    for key in ("fixed_mask", "moving_mask"):
        mask = {key: torch.maximum(differs, label_map(slice(4, 6), 1))}  # and where both have it
        assert Drivers(1.0).of_pair({**PAIR, **mask}).loss([16, 12])(still) == 0
