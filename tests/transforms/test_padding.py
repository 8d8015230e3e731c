from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.transforms.padding import extend_border, extend_borders


@pytest.mark.parametrize("shape", [(5, 7), (4, 6, 5)])
def test_the_frame_repeats_the_faces_of_the_box(shape: tuple[int, ...]) -> None:
    margins = [(1, 2)] * len(shape)
    inner = torch.rand(*shape) + 1
    framed = torch.from_numpy(np.pad(inner.numpy(), margins))[None]
    np.testing.assert_array_equal(extend_border(framed)[0].numpy(), np.pad(inner.numpy(), margins, mode="edge"))


def test_zeros_inside_the_box_stay() -> None:
    image = torch.zeros(1, 6, 6)
    image[0, 1, 1] = image[0, 4, 4] = 1.0
    assert extend_border(image)[0, 2:4, 2:4].eq(0).all()


def test_an_image_without_a_frame_or_without_content_stays() -> None:
    image = torch.rand(1, 4, 4, 4)
    assert extend_border(image).equal(image)
    assert extend_border(torch.ones(1, 4, 4)).equal(torch.ones(1, 4, 4))


def framed_pair() -> dict[Any, Any]:
    """Ones in a frame of zeros, the moving image within a mask of its own."""
    image = MetaTensor(torch.nn.functional.pad(torch.ones(1, 2, 2), [1, 1, 1, 1]), affine=torch.eye(3))
    mask = MetaTensor((torch.arange(16) % 4 < 2).view(1, 4, 4).to(torch.uint8), affine=torch.eye(3))
    return {"moving": image, "fixed": image, "fixed_label": image, "moving_mask": mask}


def test_both_images_are_extended_and_their_frames_leave_the_masks() -> None:
    given, pair = framed_pair(), framed_pair()
    extend_borders(pair)
    assert pair["moving"].eq(1).all()
    assert pair["fixed"].eq(1).all()
    assert pair["fixed_label"].equal(given["fixed_label"])
    assert pair["fixed_mask"].equal(given["fixed"].to(torch.uint8))
    assert pair["moving_mask"].equal(given["moving_mask"] * given["moving"].to(torch.uint8))


def test_masks_stay_if_they_are_not_wanted_and_where_there_is_no_frame() -> None:
    pair = framed_pair()
    extend_borders(pair, mask=False)
    assert pair["fixed"].eq(1).all()
    assert pair.keys() == framed_pair().keys()
    assert pair["moving_mask"].equal(framed_pair()["moving_mask"])
    whole = {key: MetaTensor(torch.rand(1, 3, 3)) for key in ("moving", "fixed")}
    extend_borders(extended := dict(whole))
    assert extended.keys() == whole.keys()
    assert extended["fixed"] is whole["fixed"]
