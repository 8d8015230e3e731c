from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_regplugins.networks.blocks import ParameterNet


def stirred(net: ParameterNet, std: float = 1.0) -> ParameterNet:
    nn.init.normal_(net.output.weight, std=std)
    nn.init.normal_(net.output.bias, std=std)
    return net


@pytest.mark.parametrize(("d", "rotation"), [(2, [math.pi / 2]), (3, [1.0, 0.0, 0.0, 0.0])])
def test_start(d: int, rotation: list[float]) -> None:
    sigma, turn, vector = ParameterNet(d, 8)(torch.randn(2, 8, *[3] * d))
    torch.testing.assert_close(sigma, torch.full((2, d), 0.15 + 1e-5))
    torch.testing.assert_close(turn, torch.tensor([rotation] * 2))
    assert torch.equal(vector, torch.zeros(2, d))


def test_number_of_parameters() -> None:
    def count(net: nn.Module) -> int:
        return sum(p.numel() for p in net.parameters())

    assert count(ParameterNet(2, 256)) == 590_080 + 147_584 + 132_096 + 5_125 == 874_885
    assert ParameterNet(3, 8).output.out_features == 3 + 3 + 4


def test_figure_4b_against_numpy() -> None:
    net, x = stirred(ParameterNet(2, 4)).double(), torch.randn(2, 4, 5, 6, dtype=torch.float64)
    y = F.conv2d(x, net.split.weight, net.split.bias, padding=1)
    content = F.conv2d(torch.tanh(y[:, :2]), net.content.weight, net.content.bias, padding=1).detach().numpy()
    e = np.exp(y[:, 2:].detach().numpy())
    p = e / e.sum(axis=(2, 3), keepdims=True)
    pooled = np.tanh(content * p).sum(axis=(2, 3))
    layers = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (net.hidden, net.output)]
    c = np.tanh(pooled @ layers[0][0].T + layers[0][1]) @ layers[1][0].T + layers[1][1]

    sigma, rotation, vector = (values.detach() for values in net(x))
    np.testing.assert_allclose(sigma, 0.3 / (1 + np.exp(-c[:, :2])) + 1e-5)
    np.testing.assert_allclose(vector, np.tanh(c[:, 2:4]))
    np.testing.assert_allclose(rotation, math.pi / (1 + np.exp(-c[:, 4:])))


@pytest.mark.parametrize("d", [2, 3])
def test_ranges(d: int) -> None:
    net = ParameterNet(d, 8, sigma_max=0.4, sigma_min=0.02, v_max=0.1)
    sigma, rotation, vector = net.constrain(30 * torch.randn(20, net.output.out_features))
    assert sigma.min().item() == pytest.approx(0.02, abs=1e-3)
    assert sigma.max().item() == pytest.approx(0.42, abs=1e-3)
    assert vector.abs().max().item() == pytest.approx(0.1, abs=1e-3)
    if d == 2:
        assert 0 <= rotation.min() < 0.01
        assert math.pi - 0.01 < rotation.max() <= math.pi + 1e-6
    else:
        torch.testing.assert_close(rotation.norm(dim=1), torch.ones(20))


def test_a_vanishing_quaternion_has_finite_gradients() -> None:
    net, x = ParameterNet(3, 4), torch.randn(1, 4, 3, 3, 3)
    with torch.no_grad():
        net.output.bias[6] = -1
    net(x)[1].sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_only_the_last_layer_learns_in_the_first_iteration() -> None:
    net = ParameterNet(2, 8)
    sum(values.sum() for values in net(torch.randn(1, 8, 4, 4))).backward()
    moved = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == {"output.weight", "output.bias"}


def test_head_ignores_autocast() -> None:
    net, x = stirred(ParameterNet(2, 8)), torch.randn(1, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net(x)
    assert all(values.dtype == torch.float32 for values in outputs)
    for a, b in zip(outputs, net(x), strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("d", [2, 3])
def test_gradcheck(d: int) -> None:
    net = stirred(ParameterNet(d, 4)).double()
    x = torch.randn(1, 4, *[3] * d, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, x, fast_mode=True)
