"""Gradient descent over nodes; more of it is tested with the inferer that uses it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.inferers.descent import NodeDescent, _of_exponential
from monai_regplugins.losses.axis_products import along_axes, gaussian_matrix


def test_it_finds_what_the_nodes_can_express() -> None:
    """A linear ramp is in the span of the nodes, away from the ends that extrapolate."""
    ramp = torch.linspace(-1, 1, 16).view(1, 1, 1, 16).expand(1, 2, 16, 16)
    found = NodeDescent(300, smallest_change=0)(lambda u: (u - ramp).square().mean(), torch.zeros(1, 2, 16, 16))
    torch.testing.assert_close(found.residual[..., 1:-1], ramp[..., 1:-1], atol=0.03, rtol=0)
    assert len(found.losses) == 301


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_its_steps_are_those_of_adam(sigma: float) -> None:
    """Over values of which the displacements of the nodes are Gaussian means."""
    target = torch.rand(1, 2, 8, 8)
    nodes = torch.zeros(1, 2, 8, 8, requires_grad=True)
    optimizer, losses = torch.optim.Adam([nodes], lr=0.1), []
    for _ in range(21):
        value = (along_axes(nodes, [gaussian_matrix(8, sigma, target)] * 2) - target).square().mean()
        losses.append(value.item())
        nodes.grad = torch.autograd.grad(value, nodes)[0] * 64
        optimizer.step()
    descend = NodeDescent(20, spacing=1, learning_rate=0.1, smallest_change=0, node_smoothing=sigma)
    found = descend(lambda u: (u - target).square().mean(), torch.zeros(1, 2, 8, 8))
    assert found.losses == pytest.approx(losses, rel=1e-4)


def test_the_best_residual_is_kept() -> None:
    found = NodeDescent(5, learning_rate=50.0)(lambda u: u.square().mean(), torch.zeros(1, 2, 8, 8))
    assert torch.equal(found.residual, torch.zeros(1, 2, 8, 8))


def test_the_gradient_by_a_velocity_is_that_of_differences() -> None:
    """Through the squarings, with another number of voxels from node to node along each axis."""
    growth = torch.tensor([2.0, 1.5]).double().view(1, 2, 1, 1)
    target = torch.rand(1, 2, 4, 5, dtype=torch.float64)
    smoothing = [gaussian_matrix(4, 0.7, target), gaussian_matrix(5, 0.7, target)]
    loss = _of_exponential(
        lambda u: ((u - target).pow(4).sum(), 4 * (u - target).pow(3)),
        lambda nodes: along_axes(nodes, smoothing) / growth,
        growth,
    )
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
    found = NodeDescent(200, smallest_change=0, node_smoothing=0).of_velocity(
        lambda u: (u - target).square().mean(), torch.zeros_like(true), [16, 16]
    )
    assert found.losses[0] == pytest.approx(float(target.square().mean()))
    assert (fields.resize(fields.exponential(found.residual), [16, 16]) - target).abs().mean() < 0.01
    assert (found.residual - true).abs().mean() < 0.03 < 0.1 < (fields.exponential(true) - true).abs().mean()


def test_a_velocity_is_added_to_that_of_the_start() -> None:
    """So that a start which no smooth nodes yield is kept where nothing pulls."""
    start = torch.randn(1, 2, 8, 8)
    found = NodeDescent(5).of_velocity(lambda u: 0.0 * u.sum(), start, [16, 16])
    torch.testing.assert_close(found.residual, start)


def test_noise_in_the_gradient_hardly_moves_smoothed_nodes() -> None:
    """A smooth target is found in spite of what differs from node to node."""
    x = torch.linspace(0, torch.pi, 32)
    target = (torch.sin(x)[:, None] * torch.sin(x)).expand(1, 2, 32, 32)
    noise = torch.randn(1, 2, 32, 32)
    errors = [
        (NodeDescent(30, node_smoothing=s)(lambda u: (u - target - noise).square().mean(), 0 * noise).residual - target)
        .square()
        .mean()
        for s in (0.0, 1.0)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="node_smoothing is -1, expected nodes from 0 on"):
        NodeDescent(1, node_smoothing=-1)
    with pytest.raises(InputError, match="steps, spacing and patience are 1, 0 and 10"):
        NodeDescent(1, spacing=0)
