from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from monai_regplugins.checks import InputError
from monai_regplugins.optimizers import Muon, orthogonalized


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    """Losses of learning a shifted difference of neighbors."""
    losses = []
    for k in steps:
        image = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(k))
        truth = torch.stack([image[:, 0, 2:-2, 2:-2] - image[:, 0, 3:-1, 2:-2], image[:, 0, 1:-3, 2:-2]], 1)
        loss = (model(image) - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (12, 12)])
def test_orthogonalized_keeps_singular_vectors_and_evens_singular_values(shape: tuple[int, int]) -> None:
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), False)
    values = torch.logspace(0, -2, len(right))
    result = orthogonalized(left * values @ right)
    inner = left.T @ result @ right.T  # diagonal in the basis of the given matrix
    assert inner.diagonal().min() > 0.6
    assert inner.diagonal().max() < 1.3
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-4


def test_orthogonalized_does_not_depend_on_scale_and_stands_zeros() -> None:
    matrix = torch.randn(5, 9)
    torch.testing.assert_close(orthogonalized(matrix * 1e-4), orthogonalized(matrix), rtol=1e-4, atol=1e-4)
    assert torch.equal(orthogonalized(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_a_step_moves_a_weight_by_its_share() -> None:
    layer = nn.Conv3d(2, 4, 3)
    before = layer.weight.detach().clone()
    layer(torch.rand(1, 2, 5, 5, 5)).sum().backward()
    Muon(layer.parameters(), lr=0.03).step()
    moved = (layer.weight.detach() - before).norm() / before.norm()
    assert float(moved) == pytest.approx(0.03, rel=1e-4)


def test_all_but_matrices_are_adams() -> None:
    ours, theirs = nn.BatchNorm1d(5), nn.BatchNorm1d(5)
    muon, adam = Muon(ours.parameters(), lr=0.02, adam_ratio=0.5), torch.optim.Adam(theirs.parameters(), lr=0.01)
    for k in range(5):
        for norm, optimizer in ((ours, muon), (theirs, adam)):
            optimizer.zero_grad()
            norm(torch.randn(7, 5, generator=torch.Generator().manual_seed(k))).pow(3).mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_a_weight_of_zeros_leaves_zero() -> None:
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    layer(torch.rand(4, 3)).sum().backward()
    Muon(layer.parameters()).step()
    assert layer.weight.abs().min() > 0


def test_it_learns_faster_than_adam() -> None:
    ours, theirs = network(), network()
    muon = train(ours, Muon(ours.parameters()), range(150))
    adam = train(theirs, torch.optim.Adam(theirs.parameters()), range(150))
    assert muon[0] == adam[0]
    assert muon[-1] < 0.5 * adam[-1]


def test_a_stopped_training_goes_on_as_if_it_had_not() -> None:
    whole, first, second = network(), network(), network()
    expected = train(whole, Muon(whole.parameters()), range(6))
    stopped = Muon(first.parameters())
    train(first, stopped, range(3))
    resumed = Muon(second.parameters(), lr=1.0)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    assert train(second, resumed, range(3, 6)) == expected[3:]


def test_a_schedule_changes_both_rates() -> None:
    layer = nn.Linear(3, 2)
    optimizer = Muon(layer.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.0)
    layer(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    schedule.step()
    before = copy.deepcopy(layer.state_dict())
    optimizer.step()
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


def test_parameters_without_gradient_stay_and_a_closure_is_called() -> None:
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([used, unused])

    def closure() -> float:
        optimizer.zero_grad()
        loss = used.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert torch.equal(unused, torch.ones(2, 2))
    assert not torch.equal(used, torch.ones(2, 2))


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"adam_ratio": -0.1}, {"momentum": 1.0}, {"betas": (0.9, 1.5)}])
def test_wrong_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"expected"):
        Muon(nn.Linear(2, 2).parameters(), **wrong)
