"""Squared differences of a field, against the losses of the trainings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import huber_loss

from monai_regplugins.losses import EdgeAwareSmoothnessLoss, GradientLoss
from monai_regplugins.losses.roughness import (
    Bending,
    Roughness,
    bending,
    bending_scale,
    edge_huber,
    edge_roughness,
    plain_roughness,
)

SIZES = [(9, 8), (4, 5, 6)]


def drawn(size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A fixed image and a field."""
    image = torch.rand(1, 1, *size, dtype=torch.float64)
    return image, torch.randn(1, len(size), *size, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_loss_of_the_training_and_its_gradient(size: tuple[int, ...]) -> None:
    fixed, ddf = drawn(size)
    pairs = [
        (edge_roughness(fixed)(ddf), EdgeAwareSmoothnessLoss("l2")(ddf, fixed)),
        (plain_roughness(fixed)(ddf), GradientLoss()(ddf)),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(loss, ddf)[0] for loss in (found, expected)))


@pytest.mark.parametrize("size", SIZES)
def test_gradient_check(size: tuple[int, ...]) -> None:
    fixed, ddf = drawn(size)
    assert torch.autograd.gradcheck(edge_roughness(fixed, scale=3.0), (ddf,))
    assert torch.autograd.gradcheck(Roughness([1.0 + k for k in range(len(size))]), (ddf,))


@pytest.mark.parametrize("size", SIZES)
def test_hubers_forms_are_those_of_torch_and_numpy(size: tuple[int, ...]) -> None:
    fixed, ddf = drawn(size)
    fixed, d = torch.zeros_like(fixed), len(size)
    huber = [huber_loss(u, torch.zeros_like(u), reduction="sum", delta=0.1) / 0.1 for u in differences(ddf, 1)]
    torch.testing.assert_close(edge_huber(fixed)(ddf), sum(huber) / (d * ddf.numel()))
    huber = [huber_loss(u, torch.zeros_like(u), reduction="sum", delta=0.5) / 0.5 for u in differences(ddf, 2)]
    bending = Bending([bending_scale(fixed.shape[2:])] * d, 0.5)
    torch.testing.assert_close(bending(ddf), sum(huber) / (d * ddf.numel()))
    assert torch.autograd.gradcheck(edge_huber(torch.rand_like(fixed)), (0.1 * ddf,))
    assert torch.autograd.gradcheck(bending, (ddf,))


def differences(ddf: torch.Tensor, order: int) -> list[torch.Tensor]:
    """Of an order, along each axis."""
    return [torch.from_numpy(np.diff(ddf.detach(), order, axis)) for axis in range(2, ddf.ndim)]


def test_a_jump_costs_hardly_more_than_a_ramp_and_a_ramp_does_not_bend() -> None:
    ramp = torch.linspace(0, 8, 40).expand(1, 2, 1, 40)
    jump = 8.0 * (torch.arange(40.0) >= 20).expand(1, 2, 1, 40)
    huber, squares = Roughness([0.0, 1.0], 0.1), Roughness([0.0, 1.0])
    # the loss of each difference but the first delta / 2: of 39 differences, or of one
    assert huber(ramp).item() == pytest.approx(2 * (8 - 39 * 0.05), rel=1e-5)
    assert huber(jump).item() == pytest.approx(2 * (8 - 0.05), rel=1e-5)
    assert squares(jump) > 30 * squares(ramp)
    assert Bending([1.0, 1.0])(ramp).item() == pytest.approx(0, abs=1e-6)


def test_edges_count_only_between_voxels_that_do() -> None:
    fixed, ddf = drawn((9, 8))
    weights = torch.ones_like(fixed)
    weights[..., 5:] = 0
    other = torch.where(weights > 0, fixed, 7.0)
    assert torch.equal(edge_roughness(fixed, weights)(ddf), edge_roughness(other, weights)(ddf))
    assert not torch.equal(edge_roughness(fixed)(ddf), edge_roughness(other)(ddf))


@pytest.mark.parametrize("size", SIZES)
def test_second_differences_count_as_their_middle_voxel_does(size: tuple[int, ...]) -> None:
    fixed, ddf = drawn(size)
    weights, expected, d = torch.rand_like(fixed), torch.zeros(()), len(size)
    for axis, bends in enumerate(differences(ddf, 2), start=2):
        middle = weights.narrow(axis, 1, size[axis - 2] - 2)
        expected = expected + (middle * huber_loss(bends, torch.zeros_like(bends), reduction="none", delta=0.05)).sum()
    found = bending(fixed.shape[2:], weights)
    torch.testing.assert_close(found(ddf), expected / 0.05 / (d * ddf.numel()))
    assert torch.autograd.gradcheck(found, (0.1 * ddf,))
