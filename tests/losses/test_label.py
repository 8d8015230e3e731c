"""Overlap of labels as a loss."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.losses import LabelOverlapLoss


def ball(center: tuple[float, ...], radius: float, size: tuple[int, ...] = (14, 15, 16)) -> torch.Tensor:
    middle = torch.tensor(center).reshape(-1, *[1] * len(size))
    inside: torch.Tensor = (fields.identity_grid(size) - middle).square().sum(0) <= radius**2
    return inside[None, None]


def two_organs(shift: float = 0.0) -> torch.Tensor:
    return ball((4.0 + shift, 7.0, 8.0), 3.0).long() + 2 * ball((9.0 + shift, 7.0, 8.0), 2.0).long()


def test_equal_labels_cost_nothing_and_a_shift_is_undone() -> None:
    moving, fixed, ddf = two_organs(1.0), two_organs(), torch.zeros(1, 3, 14, 15, 16)
    loss = LabelOverlapLoss()
    assert loss(ddf, fixed, fixed) == pytest.approx(0, abs=1e-6)
    assert loss(ddf, moving, fixed) > 0.1
    ddf[:, 0] = 1.0
    assert loss(ddf, moving, fixed) == pytest.approx(0, abs=1e-6)


def test_it_is_monais_dice_of_warped_indicators() -> None:
    moving, fixed, ddf = two_organs(1.0), two_organs(), torch.randn(1, 3, 14, 15, 16)
    indicators = [torch.cat([label == 1, label == 2], dim=1).float() for label in (moving, fixed)]
    expected = DiceLoss(squared_pred=True, smooth_nr=0, smooth_dr=0)(fields.warp(indicators[0], ddf), indicators[1])
    assert float(LabelOverlapLoss([1, 2])(ddf, moving, fixed)) == pytest.approx(float(expected), abs=1e-6)


def test_labels_that_only_one_image_has_count_if_they_are_asked_for() -> None:
    moving, fixed, ddf = two_organs(), two_organs() * (two_organs() == 1), torch.zeros(1, 3, 14, 15, 16)
    assert LabelOverlapLoss()(ddf, moving, fixed) == pytest.approx(0, abs=1e-6)
    assert LabelOverlapLoss([1, 2])(ddf, moving, fixed) == pytest.approx(0.5, abs=1e-6)


def test_the_mean_is_over_samples_and_one_without_labels_counts_zero() -> None:
    loss, ddf = LabelOverlapLoss(), torch.zeros(2, 3, 14, 15, 16, requires_grad=True)
    moving = torch.cat([two_organs(1.0), two_organs()])
    fixed = torch.cat([two_organs(), torch.zeros_like(two_organs())])
    value = loss(ddf, moving, fixed)
    assert float(value.detach()) == pytest.approx(0.5 * float(loss(ddf[:1], moving[:1], fixed[:1]).detach()))
    (gradient,) = torch.autograd.grad(value, ddf)
    assert bool(gradient.isfinite().all())
    assert float(gradient[0].abs().max()) > 0
    assert float(gradient[1].abs().max()) == 0


def test_only_the_mask_counts() -> None:
    moving, fixed, ddf = two_organs(1.0), two_organs(), 0.5 * torch.randn(1, 3, 14, 15, 16)
    mask = torch.rand(1, 1, 14, 15, 16) > 0.4
    indicators = [torch.cat([label == 1, label == 2], dim=1).float() for label in (moving, fixed)]
    expected = DiceLoss(squared_pred=True, smooth_nr=0, smooth_dr=0)(
        fields.warp(indicators[0], ddf) * mask, indicators[1] * mask
    )
    loss = LabelOverlapLoss([1, 2])
    assert float(loss(ddf, moving, fixed, mask)) == pytest.approx(float(expected), abs=1e-6)
    assert torch.equal(loss(ddf, moving, fixed, torch.ones_like(mask)), loss(ddf, moving, fixed))
    with pytest.raises(InputError, match="mask has size"):
        loss(ddf, moving, fixed, mask[..., :5])


def test_gradient() -> None:
    moving, fixed = (ball((3.0, 3.0 + shift), 2.0, (7, 8)).long() for shift in (0.0, 1.0))
    ddf = (0.3 * torch.randn(1, 2, 7, 8, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: LabelOverlapLoss([1])(u, moving, fixed), ddf)


def test_half_precision_is_computed_in_float32() -> None:
    ddf = torch.zeros(1, 3, 14, 15, 16, dtype=torch.bfloat16)
    assert LabelOverlapLoss()(ddf, two_organs(1.0), two_organs()).dtype == torch.float32


def test_mistakes() -> None:
    with pytest.raises(InputError, match="0, the background"):
        LabelOverlapLoss([0, 1])
    with pytest.raises(InputError, match=r"moving label has size .* but fixed label has"):
        LabelOverlapLoss()(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 5), torch.ones(1, 1, 4, 4))
