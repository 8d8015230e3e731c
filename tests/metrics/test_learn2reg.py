"""The formulas of Learn2Reg's evaluation script, written out here a second time with SciPy alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import correlate1d, gaussian_filter

from monai_regplugins.metrics import sdlogj
from monai_regplugins.metrics.learn2reg import sdlogj_l2r


def smooth_field(*size: int, height: float = 3.0) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(size=(len(size), *size))
    field = np.stack([gaussian_filter(component, 1.5) for component in noise])
    return torch.from_numpy(field * height / np.abs(field).max())


def script_determinant(ddf: torch.Tensor) -> npt.NDArray[np.float64]:
    """Determinant of central differences as the script filters them, two voxels cropped."""
    u, d = ddf.numpy(), len(ddf)
    matrix = np.stack(
        [[correlate1d(u[i], [-0.5, 0, 0.5], axis=j, mode="constant") for j in range(d)] for i in range(d)]
    )
    matrix += np.eye(d).reshape(d, d, *[1] * d)
    return np.linalg.det(np.moveaxis(matrix, (0, 1), (-2, -1)))[(slice(2, -2),) * d]


@pytest.mark.parametrize("size", [(14, 11), (12, 11, 10)])
def test_spread_is_that_of_the_script(size: tuple[int, ...]) -> None:
    ddf = smooth_field(*size)
    logs = np.log((script_determinant(ddf) + 3).clip(1e-9, 1e9))
    assert sdlogj_l2r(ddf) == pytest.approx(logs.std(), rel=1e-12)
    mask = torch.rand(1, *size) > 0.5
    inner = mask[0].numpy()[(slice(2, -2),) * len(size)]
    assert sdlogj_l2r(ddf, mask) == pytest.approx(np.ma.MaskedArray(logs, ~inner).std(), rel=1e-12)


def test_spread_of_a_small_volume_change_is_a_quarter() -> None:
    """Log (det J + 3) has the slope 1/4 where det J is 1."""
    ddf = smooth_field(12, 12, 12, height=0.01)
    inner = torch.zeros(12, 12, 12)
    inner[2:-2, 2:-2, 2:-2] = 1
    assert sdlogj_l2r(ddf) == pytest.approx(sdlogj(ddf, inner) / 4, rel=0.01)


def test_even_stretch_has_no_spread() -> None:
    ddf = torch.stack([0.5 * torch.arange(8.0)[:, None].expand(8, 7), torch.zeros(8, 7)])
    assert sdlogj_l2r(ddf) == pytest.approx(0, abs=1e-12)


def test_spread_of_two_stretches_in_closed_form() -> None:
    """Half of the voxels have det J = 1.5, half 0.5: both logarithms lie (log 4.5 - log 3.5) / 2 off the mean."""
    profile = torch.cat([0.5 * torch.arange(8.0), 3.5 - 0.5 * torch.arange(1.0, 9.0)])
    ddf = torch.stack([profile[:, None].expand(16, 9), torch.zeros(16, 9)])
    mask = torch.zeros(16, 9)
    mask[2:6], mask[9:13] = 1, 1
    assert sdlogj_l2r(ddf, mask) == pytest.approx(math.log(4.5 / 3.5) / 2, rel=1e-7)


def test_small_fields_have_nothing_left() -> None:
    assert math.isnan(sdlogj_l2r(torch.zeros(2, 4, 9)))
    assert math.isnan(sdlogj_l2r(torch.zeros(2, 9, 9), torch.zeros(9, 9)))


def test_spread_over_several_slabs_is_that_of_the_script() -> None:
    ddf = smooth_field(34, 45, 44, height=6.0)
    logs = np.log((script_determinant(ddf) + 3).clip(1e-9, 1e9))
    assert sdlogj_l2r(ddf) == pytest.approx(logs.std(), rel=1e-12)


def test_a_field_that_is_not_finite_has_no_measure() -> None:
    """Even where the script does not look."""
    ddf = smooth_field(9, 9, 9)
    ddf[0, 0, 0, 0] = math.nan
    assert math.isnan(sdlogj_l2r(ddf))
