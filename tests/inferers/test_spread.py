"""The standard deviation of an optimized field in closed form, its smoothing and bending as SciPy and NumPy do them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_regplugins.inferers.spread import LEAST, SMOOTHING, bending, deviation


def test_in_closed_form() -> None:
    """A smoother solution 3 voxels away along one axis; along the other a ramp of slopes 1.2 and 1.6, 2 together."""
    x, y = torch.meshgrid(torch.arange(9.0), torch.arange(8.0), indexing="ij")
    ddf = torch.stack([torch.zeros_like(x), 1.2 * x + 1.6 * y])[None]
    before, smoother = ddf.clone(), ddf + torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)
    found = deviation(ddf, smoother, factor=1.5)
    assert torch.equal(ddf, before)
    torch.testing.assert_close(found[0, 0], torch.full((9, 8), 1.5 * (9 + LEAST**2) ** 0.5))
    torch.testing.assert_close(found[0, 1], 1.5 * (0.5 * 4 + (0.15 * ddf[0, 1]).square() + LEAST**2).sqrt())


@pytest.mark.parametrize("size", [(24, 20), (14, 16, 12)])
def test_distances_are_averaged_as_scipy_does(size: tuple[int, ...]) -> None:
    smoother = torch.randn(1, len(size), *size, generator=torch.Generator().manual_seed(0))
    found = deviation(torch.zeros_like(smoother), smoother, factor=2.0)[0]
    squares = smoother[0].square().double().numpy()
    averaged = [ndimage.gaussian_filter(one, SMOOTHING, mode="nearest", truncate=4.0) for one in squares]
    np.testing.assert_allclose(found, 2 * np.sqrt(np.stack(averaged) + LEAST**2), rtol=1e-3)


@pytest.mark.parametrize("size", [(7, 6), (6, 5, 8)])
def test_bending_is_numpys_gradient(size: tuple[int, ...]) -> None:
    ddf = torch.randn(1, len(size), *size, generator=torch.Generator().manual_seed(0))
    expected = [np.square(np.gradient(component)).sum(axis=0) for component in ddf[0].double().numpy()]
    np.testing.assert_allclose(bending(ddf)[0], np.stack(expected), rtol=1e-4)
