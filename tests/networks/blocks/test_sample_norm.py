from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_regplugins.networks.blocks import SampleNorm


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (3, 2, 4, 3, 5)])
def test_closed_form(shape: tuple[int, ...]) -> None:
    norm = SampleNorm(len(shape) - 2)
    torch.nn.init.constant_(norm.weight, 1.5)
    torch.nn.init.constant_(norm.bias, -0.25)
    x = 4 * torch.randn(shape) + 7

    for sample, normalized in zip(x.double().numpy(), norm(x).detach().numpy(), strict=True):
        expected = 1.5 * (sample - sample.mean()) / (sample.std(ddof=0) + 1e-3) - 0.25
        np.testing.assert_allclose(normalized, expected, atol=1e-5)


def test_epsilon_joins_the_standard_deviation_not_the_variance() -> None:
    x = torch.tensor([-0.01, 0.01]).reshape(1, 1, 1, 2)
    expected = torch.tensor([-0.01, 0.01]) / (0.01 + 0.001)
    torch.testing.assert_close(SampleNorm(2)(x).flatten(), expected, rtol=1e-4, atol=0.0)


def test_one_scale_and_one_shift_and_no_state() -> None:
    norm, x = SampleNorm(3), torch.randn(2, 4, 3, 3, 3)
    assert {name: tuple(p.shape) for name, p in norm.named_parameters()} == {"weight": (1,), "bias": (1,)}
    assert not list(norm.buffers())
    assert torch.equal(norm.train()(x), norm.eval()(x))


def test_samples_do_not_mix() -> None:
    norm, x = SampleNorm(2), torch.randn(2, 3, 6, 6)
    changed = x.clone()
    changed[1] *= 100
    assert torch.equal(norm(x)[0], norm(changed)[0])


def test_gradient_of_a_constant_input() -> None:
    # Where the deviation is zero, y = (x - mean) / 0.001 up to the tiny constant under the root.
    x = torch.full((1, 2, 3, 4), 5.0, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    y = SampleNorm(2).double()(x)
    (gradient,) = torch.autograd.grad((weights * y).sum(), x)

    assert y.abs().max() == 0
    torch.testing.assert_close(gradient, (weights - weights.mean()) / 1e-3, rtol=2e-3, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_normalized_in_float32(dtype: torch.dtype) -> None:
    x = (200 + 100 * torch.randn(1, 4, 8, 8)).to(dtype)  # its squares exceed the range of float16
    y = SampleNorm(2)(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, SampleNorm(2)(x.float()))


def test_gradcheck() -> None:
    norm = SampleNorm(2).double()
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert norm(x).dtype == torch.float64
    assert torch.autograd.gradcheck(norm, x)
