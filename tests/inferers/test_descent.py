"""Gradient descent over nodes; more of it is tested with the inferer that uses it."""

from __future__ import annotations

import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.inferers.descent import NodeDescent


def test_it_finds_what_the_nodes_can_express() -> None:
    """A linear ramp is in the span of the nodes, away from the ends that extrapolate."""
    ramp = torch.linspace(-1, 1, 16).view(1, 1, 1, 16).expand(1, 2, 16, 16)
    found = NodeDescent(300, smallest_change=0)(lambda u: (u - ramp).square().mean(), torch.zeros(1, 2, 16, 16))
    torch.testing.assert_close(found.residual[..., 1:-1], ramp[..., 1:-1], atol=0.03, rtol=0)
    assert len(found.losses) == 301


def test_its_steps_are_those_of_adam() -> None:
    target = torch.rand(1, 2, 8, 8)
    nodes = torch.zeros(1, 2, 8, 8, requires_grad=True)
    optimizer, losses = torch.optim.Adam([nodes], lr=0.1), []
    for _ in range(21):
        value = (nodes - target).square().mean()
        losses.append(value.item())
        nodes.grad = torch.autograd.grad(value, nodes)[0] * 64
        optimizer.step()
    found = NodeDescent(20, spacing=1)(lambda u: (u - target).square().mean(), torch.zeros(1, 2, 8, 8))
    assert found.losses == pytest.approx(losses, rel=1e-4)


def test_the_best_residual_is_kept() -> None:
    found = NodeDescent(5, learning_rate=50.0)(lambda u: u.square().mean(), torch.zeros(1, 2, 8, 8))
    assert torch.equal(found.residual, torch.zeros(1, 2, 8, 8))


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="steps, spacing and patience are 1, 0 and 10"):
        NodeDescent(1, spacing=0)
