"""Field errors against NumPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.metrics.field_error import field_errors


def test_the_error_is_summed_over_the_axes() -> None:
    """As in the paper's table: 0.36 + 0.38 + 0.43 = 1.17."""
    true = torch.full((3, 4, 4, 4), 2.0)
    offsets = torch.tensor([0.36, -0.38, 0.43], dtype=torch.float64)
    values = field_errors(true + offsets.view(3, 1, 1, 1), true)
    assert [values[f"mae_axis_{k}"] for k in range(3)] == pytest.approx([0.36, 0.38, 0.43])
    assert values["mae"] == pytest.approx(1.17)
    assert values["mae_zero"] == 6.0


@pytest.mark.parametrize("with_channel", [False, True])
def test_spacing_mask_and_capture_range_equal_numpys(with_channel: bool) -> None:
    ddf, true = 5 * torch.randn(2, 3, 7, 6, 5)
    mask, spacing = torch.rand(7, 6, 5) > 0.4, torch.tensor([0.5, 1.0, 2.5])
    values = field_errors(ddf, true, spacing, mask[None] if with_channel else mask, within=8.0)
    found, expected = (field.double().numpy() * spacing.numpy()[:, None, None, None] for field in (ddf, true))
    inside = mask.numpy() & (np.abs(expected).max(axis=0) <= 8)
    assert 20 < inside.sum() < mask.sum()
    error = np.abs(found - expected)[:, inside].mean(axis=1)
    zero = np.abs(expected)[:, inside].mean(axis=1)
    assert values["voxels"] == inside.sum()
    assert [values[f"mae_axis_{k}"] for k in range(3)] == pytest.approx(error, rel=1e-12)
    assert [values[f"mae_zero_axis_{k}"] for k in range(3)] == pytest.approx(zero, rel=1e-12)
    assert (values["mae"], values["mae_zero"]) == pytest.approx((error.sum(), zero.sum()), rel=1e-12)


def test_without_spacing_the_range_is_in_voxels() -> None:
    true = torch.zeros(2, 1, 4)
    true[1, 0] = torch.tensor([1.0, 2.0, 3.0, -4.0])
    values = field_errors(torch.zeros_like(true), true, within=2.0)
    assert (values["voxels"], values["mae"], values["mae_zero"]) == (2.0, 1.5, 1.5)
    assert field_errors(torch.zeros_like(true), true, [1.0, 0.5], within=2.0)["mae"] == pytest.approx(10 / 8)


def test_no_voxels_are_unknown() -> None:
    true = torch.ones(2, 3, 3)
    values = field_errors(true, true, mask=torch.zeros(3, 3))
    assert values["voxels"] == 0
    assert math.isnan(values["mae"])
    assert math.isnan(values["mae_zero_axis_1"])


def test_what_does_not_fit_is_refused() -> None:
    true = torch.ones(2, 3, 3)
    with pytest.raises(InputError, match="field has size 2 x 3 x 4 but true field has 2 x 3 x 3"):
        field_errors(torch.ones(2, 3, 4), true)
    with pytest.raises(InputError, match="expected 2 numbers"):
        field_errors(true, true, [1.0, 1.0, 1.0])
    with pytest.raises(InputError, match="mask has size 2 x 3 x 3 but field has 3 x 3"):
        field_errors(true, true, mask=torch.ones(2, 3, 3))
