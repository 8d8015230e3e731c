"""A function's own gradient takes the place of the graph."""

from __future__ import annotations

import torch

from monai_regplugins.losses.with_gradient import with_gradient


def test_the_gradient_is_that_of_the_function() -> None:
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: with_gradient(lambda x: ((weights * x**3).sum(), 3 * weights * x**2), x), x
    )
    assert torch.autograd.gradcheck(lambda x: with_gradient(lambda x: (x.sin(), x.cos()), x), x)


def test_the_function_is_called_once_and_outside_of_the_graph() -> None:
    calls = []

    def square(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(torch.is_grad_enabled())
        return x * x, 2 * x

    x = torch.tensor(3.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(5 * with_gradient(square, x), x)
    assert gradient == 30.0
    assert calls == [False]


def test_without_a_gradient() -> None:
    assert with_gradient(lambda x: (x * x, None), torch.tensor(3.0)) == 9.0
