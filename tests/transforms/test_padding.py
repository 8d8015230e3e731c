from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.transforms.padding import ExtendBorderd, extend_border


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


def test_both_images_are_extended_and_nothing_else() -> None:
    image = MetaTensor(torch.nn.functional.pad(torch.ones(1, 2, 2), [1, 1, 1, 1]), affine=torch.eye(3))
    pair = {"moving": image, "fixed": image, "fixed_label": image}
    extended = ExtendBorderd()(pair)
    assert extended["moving"].eq(1).all()
    assert extended["fixed"].eq(1).all()
    assert extended["fixed_label"] is image
    assert ExtendBorderd(enabled=False)(pair)["moving"] is image
