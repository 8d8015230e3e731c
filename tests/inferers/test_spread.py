"""The standard deviation of an optimized field in closed form, and its smoothing as SciPy does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_regplugins.inferers.spread import LEAST, SMOOTHING, deviation


def test_constant_differences_in_closed_form() -> None:
    """3 and 4 voxels away along one axis, nothing along the other."""
    ddf = torch.rand(1, 2, 8, 8)
    shifts = [torch.tensor([shift, 0.0]).view(1, 2, 1, 1) for shift in (3.0, -4.0)]
    before = ddf.clone()
    found = deviation(ddf, (ddf + shift for shift in shifts), 1.5)
    assert torch.equal(ddf, before)
    torch.testing.assert_close(found[0, 0], torch.full((8, 8), 1.5 * (25 + LEAST**2) ** 0.5))
    torch.testing.assert_close(found[0, 1], torch.full((8, 8), 1.5 * LEAST))


@pytest.mark.parametrize("size", [(24, 20), (14, 16, 12)])
def test_squares_are_averaged_as_scipy_does(size: tuple[int, ...]) -> None:
    ddf, other = torch.randn(2, 1, len(size), *size, generator=torch.Generator().manual_seed(0))
    found = deviation(ddf, [other], 2.0)[0]
    squares = (other - ddf)[0].square().double().numpy()
    averaged = [ndimage.gaussian_filter(one, SMOOTHING, mode="nearest", truncate=4.0) for one in squares]
    np.testing.assert_allclose(found, 2 * np.sqrt(np.stack(averaged) + LEAST**2), rtol=1e-3)
