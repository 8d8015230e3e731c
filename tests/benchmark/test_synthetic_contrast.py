"""Images in other contrasts: closed forms, monotony, and seeds."""

from __future__ import annotations

import pytest
import torch

from monai_regplugins.benchmark.synthetic_contrast import CONTRASTS, in_other_contrast
from monai_regplugins.benchmark.synthetic_motion import motion_pair
from monai_regplugins.checks import InputError

RAMP = torch.linspace(0, 1, 1001)[None, :, None].expand(1, 1001, 3)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_the_seed_decides(contrast: str) -> None:
    first, again, other = (in_other_contrast(RAMP, contrast, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (contrast in ("equal", "inverted"))
    assert first.shape == RAMP.shape
    assert first.dtype == RAMP.dtype


def test_closed_forms() -> None:
    assert torch.equal(in_other_contrast(RAMP, "equal"), RAMP)
    assert torch.equal(in_other_contrast(RAMP, "inverted"), 1 - RAMP)
    for seed in range(5):
        mapped = in_other_contrast(RAMP.double(), "gamma", seed)[0, 1:-1, 0]
        exponent = mapped.log() / RAMP.double()[0, 1:-1, 0].log()
        assert torch.allclose(exponent, exponent[0].expand_as(exponent))
        assert 1.5 <= max(exponent[0], 1 / exponent[0]) <= 2.5


@pytest.mark.parametrize(("contrast", "turns"), [("monotone", 0), ("not monotone", 2)])
@pytest.mark.parametrize("seed", range(5))
def test_maps_turn_as_often_as_stated(contrast: str, turns: int, seed: int) -> None:
    mapped = in_other_contrast(RAMP, contrast, seed)[0, :, 0]
    rises = mapped.diff().sign()
    assert int((rises.diff() != 0).sum()) in ((0,) if turns == 0 else (2, 3, 4))  # a step may hold a turn
    assert mapped.min() >= 0
    assert mapped.max() <= 1
    assert mapped.max() - mapped.min() > 0.4
    if turns == 0:
        assert (rises > 0).all()


def test_a_bias_field_is_smooth_and_differs_from_place_to_place() -> None:
    gain = in_other_contrast(torch.full((1, 24, 24, 24), 0.5), "bias field") / 0.5
    assert gain.max() / gain.min() > 1.1
    assert (gain.diff(dim=1).abs() < 0.05).all()


def test_only_the_fixed_image_of_a_pair_has_another_contrast() -> None:
    equal, other = (motion_pair(3, size=24, amplitude=2, noise=0, contrast=name) for name in ("equal", "inverted"))
    assert torch.equal(equal.moving.image, other.moving.image)
    assert torch.equal(equal.ddf, other.ddf)
    assert torch.allclose(other.fixed.image, 1 - equal.fixed.image)


def test_an_unknown_contrast_is_refused() -> None:
    with pytest.raises(InputError, match="contrast is 'T9'; choose one of"):
        in_other_contrast(RAMP, "T9")
