"""MONAI's way to collect and reduce, with our measures in it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.metrics import folding, landmark_errors, sdlogj
from monai_regplugins.metrics.cumulative import FoldingMetric, SDLogJMetric, TargetRegistrationError
from monai_regplugins.metrics.regularity import folding_strict


@pytest.fixture
def ddf() -> torch.Tensor:
    return torch.randn(3, 2, 7, 6)


@pytest.mark.parametrize(
    ("metric", "function"),
    [
        (FoldingMetric(), lambda *a: folding(*a)[1]),
        (FoldingMetric(strict=True), lambda *a: folding_strict(*a)[1]),
        (SDLogJMetric(), sdlogj),
    ],
)
def test_fields_are_measured_one_by_one(metric: Any, function: Any, ddf: torch.Tensor) -> None:
    mask = torch.rand(3, 1, 7, 6) > 0.3
    for masks in (None, mask):
        expected = torch.tensor([[function(u, None if masks is None else masks[i])] for i, u in enumerate(ddf)])
        metric.reset()
        torch.testing.assert_close(metric(ddf, masks), expected)
        torch.testing.assert_close(metric.aggregate(), expected.mean(dim=0))
        torch.testing.assert_close(metric(list(ddf), None if masks is None else list(masks)), expected)
        torch.testing.assert_close(metric.aggregate("none"), torch.cat([expected, expected]))


def test_target_registration_error_of_batches(ddf: torch.Tensor) -> None:
    fixed, moving = 5 * torch.rand(2, 3, 4, 2)
    spacing = [0.5, 2.0]
    expected = torch.stack(
        [landmark_errors(*one, spacing, u).mean() for *one, u in zip(fixed, moving, ddf, strict=True)]
    )
    points = torch.cat([fixed, moving], dim=-1)
    metric = TargetRegistrationError()
    torch.testing.assert_close(metric(y_pred=ddf, y=points, spacing=spacing)[:, 0], expected.float())
    metric(y_pred=ddf[:1], y=points[:1], spacing=torch.tensor(spacing))  # batches may differ in size
    torch.testing.assert_close(metric.aggregate().double(), (expected.sum() + expected[:1]) / 4)
    metric.reset()
    identity = metric(torch.zeros_like(ddf), points)  # in voxels without a spacing
    torch.testing.assert_close(identity[:, 0], (fixed - moving).norm(dim=-1).mean(dim=1))
    torch.testing.assert_close(metric.aggregate(), identity.mean(dim=0))


def test_pairs_with_fewer_landmarks(ddf: torch.Tensor) -> None:
    points = torch.zeros(3, 2, 4)
    points[:, 0, 2] = torch.tensor([3.0, 5.0, 7.0])
    points[0, 1], points[2] = math.nan, math.nan
    metric = TargetRegistrationError(get_not_nans=True)
    values = metric(torch.zeros_like(ddf), points)
    assert values[:2, 0].tolist() == [3.0, 2.5]
    assert math.isnan(values[2, 0])
    mean, count = metric.aggregate()
    assert (mean.item(), count.item()) == (2.75, 2)


def test_reset_forgets() -> None:
    metric = FoldingMetric(reduction="sum")
    reflection = -2 * torch.stack([torch.arange(5.0)[:, None].expand(5, 5), torch.zeros(5, 5)])[None]
    metric(reflection)
    metric(torch.zeros(1, 2, 5, 5))
    assert metric.aggregate().item() == 100
    metric.reset()
    metric(torch.zeros(1, 2, 5, 5))
    assert metric.aggregate().item() == 0


def test_what_does_not_fit_is_refused(ddf: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"y_pred has shape \(2, 7, 6\)"):
        FoldingMetric()(ddf[0])
    with pytest.raises(InputError, match="y holds 2 items but y_pred 3"):
        SDLogJMetric()(ddf, torch.ones(2, 1, 7, 6))
    for points in (None, torch.zeros(3, 5, 2)):
        with pytest.raises(InputError, match=r"expected \(N, 4\)"):
            TargetRegistrationError()(ddf, points)
