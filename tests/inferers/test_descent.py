"""Gradient descent over nodes; more of it is tested with the inferer that uses it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.inferers.descent import NodeDescent, _of_exponential


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


def test_the_gradient_by_a_velocity_is_that_of_differences() -> None:
    """Through the squarings, with another number of voxels from node to node along each axis."""
    growth = torch.tensor([2.0, 1.5]).double().view(1, 2, 1, 1)
    target = torch.rand(1, 2, 4, 5, dtype=torch.float64)
    loss = _of_exponential(lambda u: ((u - target).pow(4).sum(), 4 * (u - target).pow(3)), growth)
    velocity = 0.6 + 0.6 * torch.rand(1, 2, 4, 5, dtype=torch.float64)  # between nodes
    _, gradient = loss(velocity)
    for index in np.ndindex(*velocity.shape):
        step = torch.zeros_like(velocity)
        step[index] = 1e-6
        difference = (loss(velocity + step)[0] - loss(velocity - step)[0]) / 2e-6
        assert float(gradient[index]) == pytest.approx(float(difference), rel=1e-5, abs=1e-7)


def test_it_finds_a_velocity() -> None:
    """The field of a velocity at the nodes, which no sum of smaller fields is."""
    x = torch.linspace(-1, 1, 8)
    true = torch.stack([2 * torch.cos(2 * x)[:, None] * x, 1 - x[:, None] * x])[None]
    target = fields.resize(fields.exponential(true), [16, 16])
    found = NodeDescent(200, smallest_change=0).of_velocity(
        lambda u: (u - target).square().mean(), torch.zeros_like(true), [16, 16]
    )
    assert found.losses[0] == pytest.approx(float(target.square().mean()))
    assert (fields.resize(fields.exponential(found.residual), [16, 16]) - target).abs().mean() < 0.01
    assert (found.residual - true).abs().mean() < 0.03 < 0.1 < (fields.exponential(true) - true).abs().mean()


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="steps, spacing and patience are 1, 0 and 10"):
        NodeDescent(1, spacing=0)
