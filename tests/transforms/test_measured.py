"""What of an image was measured."""

from __future__ import annotations

import logging

import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.keys import PADDING_KEY
from monai_regplugins.transforms.measured import exclude_padding, is_measured


def test_what_is_measured() -> None:
    ct = torch.tensor([[-3024.0, -3024.0, -3024.0, -1500.0, -1024.0, 40.0]])
    assert is_measured(ct).tolist() == [[False, False, False, False, True, True]]
    phase = torch.linspace(-4096, 4095, 100)[None]  # another unit: no value is that of padding
    assert bool(is_measured(phase).all())


def test_stated_padding_is_none_whatever_its_value() -> None:
    values = torch.tensor([0.0, 3.0, 0.0, 7.0])
    assert is_measured(values, None, padding=0.0).tolist() == [False, True, False, True]
    assert is_measured(values, None).all()


@pytest.mark.parametrize(("padding", "meta"), [(-3024.0, {}), (30000.0, {PADDING_KEY: 30000.0})])
def test_padding_becomes_air_outside_of_the_mask(
    padding: float, meta: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    values = torch.tensor([[[padding, -1000.0], [40.0, padding]]])
    mask = MetaTensor(torch.tensor([[[1, 1], [0, 1]]], dtype=torch.uint8))
    pair = {"fixed": MetaTensor(values, meta=meta), "moving": MetaTensor(values.clamp(-1000, 40)), "fixed_mask": mask}
    caplog.set_level(logging.INFO)
    exclude_padding(pair, -1024)
    assert pair["fixed"].tolist() == [[[-1000.0, -1000.0], [40.0, -1000.0]]]
    assert pair["fixed_mask"].tolist() == [[[0, 1], [0, 0]]]
    assert "moving_mask" not in pair
    assert PADDING_KEY not in pair["fixed"].meta
    assert caplog.messages == ["50 % of the fixed image are padding: left out, and shown as air (-1000)."]
