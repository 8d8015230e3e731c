"""What network and loss receive."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.checks import InputError
from monai_regplugins.engines import PairPrepareBatch


def batch() -> dict[str, object]:
    return {
        "moving": MetaTensor(torch.rand(2, 1, 5, 6, 7, dtype=torch.float64)),
        "fixed": MetaTensor(torch.rand(2, 1, 5, 6, 7)),
        "fixed_label": MetaTensor(torch.ones(2, 1, 5, 6, 7, dtype=torch.uint8)),
        "spacing": torch.ones(2, 3),
        "moving_original": MetaTensor(torch.rand(2, 1, 9, 9, 9)),
        "moving_label": ["a.nii.gz", "b.nii.gz"],
        "pair_id": ["1_to_2", "2_to_3"],
    }


def test_image_and_targets_are_plain() -> None:
    data = batch()
    image, targets, args, kwargs = PairPrepareBatch()(data, torch.device("cpu"))
    assert (args, kwargs) == ((), {})
    assert set(targets) == {"moving", "fixed", "fixed_label", "spacing"}
    assert {type(value) for value in (image, *targets.values())} == {torch.Tensor}
    assert (image.shape, image.dtype) == ((2, 2, 5, 6, 7), torch.float32)
    assert torch.equal(image[:, :1], torch.as_tensor(data["moving"]).float())
    assert torch.equal(image[:, 1:], torch.as_tensor(data["fixed"]))
    assert torch.equal(image[:, :1], targets["moving"])
    assert torch.equal(image[:, 1:], targets["fixed"])
    assert targets["fixed_label"].dtype == torch.uint8


def test_images_of_several_channels() -> None:
    moving, fixed = torch.rand(2, 1, 3, 6, 7)
    image, targets, *_ = PairPrepareBatch()({"moving": moving, "fixed": fixed}, torch.device("cpu"))
    assert torch.equal(image, torch.cat([moving, fixed], dim=1))
    assert torch.equal(targets["moving"], moving)
    assert torch.equal(targets["fixed"], fixed)


def test_inferer_gets_what_it_asks_for() -> None:
    _, targets, _, kwargs = PairPrepareBatch(inferer_keys=["spacing", "fixed_mask"])(batch(), torch.device("cpu"))
    assert list(kwargs) == ["spacing"]
    assert kwargs["spacing"] is targets["spacing"]


def test_device_and_further_keys() -> None:
    image, targets, _, _ = PairPrepareBatch(keys=["moving_original"])(batch(), "meta", True)
    assert set(targets) == {"moving", "fixed", "moving_original"}
    assert {value.device.type for value in (image, *targets.values())} == {"meta"}


def test_sizes_must_agree() -> None:
    data = batch() | {"fixed": torch.rand(2, 1, 5, 6, 8)}
    with pytest.raises(InputError, match="moving image has size"):
        PairPrepareBatch()(data)


def test_images_of_the_batch_are_those_of_the_input() -> None:
    """Held once; what is of another type keeps its own values, and a view keeps the header."""
    data = batch()
    before = {key: torch.as_tensor(data[key]).clone() for key in ("moving", "fixed")}
    image, *_ = PairPrepareBatch()(data, torch.device("cpu"))
    fixed, moving = data["fixed"], data["moving"]
    assert isinstance(fixed, MetaTensor)
    assert isinstance(moving, MetaTensor)
    assert fixed.data_ptr() == image[:, 1:].data_ptr()
    assert torch.equal(fixed.affine, torch.eye(4, dtype=torch.float64))
    assert moving.dtype == torch.float64
    assert torch.equal(fixed.as_tensor(), before["fixed"])
    assert torch.equal(moving.as_tensor(), before["moving"])
