from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from monai_regplugins.losses.window_sum import box_sum


@pytest.mark.parametrize("shape", [(9, 7), (6, 9, 8)])
@pytest.mark.parametrize("window", [1, 2, 3, 7, 8, 11])
def test_equals_the_filter_of_scipy(window: int, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    # SciPy's even window leans to the low side, ours to the high one.
    origin = 0 if window % 2 else -1
    expected = uniform_filter(values, size=window, mode="constant", origin=origin) * window ** len(shape)

    result = box_sum(torch.from_numpy(values)[None, None], window)

    np.testing.assert_allclose(result[0, 0].numpy(), expected, atol=1e-11)


@pytest.mark.parametrize("window", [3, 4])
def test_gradients(window: int) -> None:
    values = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: box_sum(x, window), values)
    assert torch.autograd.gradgradcheck(lambda x: box_sum(x, window) ** 2, values)
