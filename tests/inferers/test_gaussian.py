"""The Gaussian mean against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_regplugins.inferers.gaussian import gaussian_mean


@pytest.mark.parametrize("sigma", [0.3, 0.75, 1.2])
@pytest.mark.parametrize("size", [(9, 3), (5, 8, 2)])
def test_noise_is_averaged_as_scipy_does(size: tuple[int, ...], sigma: float) -> None:
    image = torch.rand(1, 1, *size)
    expected = ndimage.gaussian_filter(image[0, 0].numpy(), sigma, mode="nearest")
    np.testing.assert_allclose(gaussian_mean(image, sigma)[0, 0], expected, rtol=0, atol=1e-6)
