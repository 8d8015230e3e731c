"""Squared differences of a field, against the losses of the trainings."""

from __future__ import annotations

import pytest
import torch

from monai_regplugins.losses import EdgeAwareSmoothnessLoss, GradientLoss
from monai_regplugins.losses.roughness import Roughness, edge_roughness, plain_roughness

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


def test_edges_count_only_between_voxels_that_do() -> None:
    fixed, ddf = drawn((9, 8))
    weights = torch.ones_like(fixed)
    weights[..., 5:] = 0
    other = torch.where(weights > 0, fixed, 7.0)
    assert torch.equal(edge_roughness(fixed, weights)(ddf), edge_roughness(other, weights)(ddf))
    assert not torch.equal(edge_roughness(fixed)(ddf), edge_roughness(other)(ddf))
