"""Folding and spread of the volume change of maps that are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_regplugins.metrics import folding, sdlogj


def scaling(factors: tuple[float, ...], size: int = 8) -> torch.Tensor:
    """Return the field of x -> factors * x."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(size))] * len(factors), indexing="ij"))
    return grid * (torch.tensor(factors).reshape(-1, *[1] * len(factors)) - 1)


@pytest.mark.parametrize("factors", [(1.0, 1.0), (1.5, 0.5), (0.9, 1.1, 2.0)])
def test_even_scaling_neither_folds_nor_varies(factors: tuple[float, ...]) -> None:
    assert folding(scaling(factors)) == (0, 0.0)
    assert sdlogj(scaling(factors)) == pytest.approx(0, abs=1e-6)


def test_reflection_folds_everywhere() -> None:
    assert folding(scaling((-1.0, 1.0, 1.0))) == (512, 100.0)
    assert folding(scaling((0.0, 1.0))) == (64, 100.0)  # a collapsed axis has determinant zero


def test_fold_of_known_width() -> None:
    """A displacement of -1.5 x over rows 3..6 gives slope -1.5 inside: det J = -0.5 there, mixed at the two ends."""
    ddf = torch.zeros(2, 12, 5)
    profile = torch.tensor([0, 0, 0, 0, -1.5, -3.0, -4.5, -4.5, -4.5, -4.5, -4.5, -4.5])
    ddf[0] = profile[:, None]
    determinant = 1 + np.gradient(profile.numpy())  # 0.25 at rows 3 and 6, -0.5 at rows 4 and 5
    assert determinant[3:7].tolist() == [0.25, -0.5, -0.5, 0.25]
    assert folding(ddf) == (2 * 5, pytest.approx(100 * 2 / 12))
    mask = torch.zeros(1, 12, 5)
    mask[:, 4:8] = 1
    assert folding(ddf, mask) == (2 * 5, pytest.approx(50.0))
    logs = np.log(np.clip(determinant, 1e-9, None))
    assert sdlogj(ddf) == pytest.approx(logs.std(), rel=1e-6)
    assert sdlogj(ddf, mask) == pytest.approx(logs[4:8].std(), rel=1e-6)


def test_volume_change_that_varies() -> None:
    """Along the first axis x -> exp(a x) / a has det J = exp(a x) to the order of the differences."""
    a, x = 0.05, np.arange(40.0)
    ddf = torch.zeros(3, 40, 3, 3)
    ddf[0] = torch.as_tensor(np.exp(a * x) / a - x).float()[:, None, None]
    inner = torch.zeros(40, 3, 3)
    inner[1:-1] = 1
    assert sdlogj(ddf, inner) == pytest.approx((a * x[1:-1]).std(), rel=1e-4)


def test_empty_mask_is_unknown() -> None:
    ddf, mask = torch.zeros(2, 5, 5), torch.zeros(5, 5)
    assert folding(ddf, mask)[0] == 0
    assert math.isnan(folding(ddf, mask)[1])
    assert math.isnan(sdlogj(ddf, mask))
