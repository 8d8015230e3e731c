from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from monai_regplugins.networks.blocks import Localization, PositionNet
from monai_regplugins.networks.blocks.position_net import fuse_positions, localization_covariance


def axes_of(*sizes: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.linspace(-1, 1, n, dtype=dtype) for n in sizes]


@pytest.mark.parametrize("size", [(6, 9), (4, 5, 6)])
def test_equations_14_15_and_17(size: tuple[int, ...]) -> None:
    net, x = PositionNet(len(size), 5), torch.randn(3, 5, *size)
    position, certainty, probability = net(x, axes_of(*size))

    kernels = net.paths.weight.detach().double().flatten(1).numpy()
    logits = np.einsum("kc,bcn->bkn", kernels, x.double().flatten(2).numpy())
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij")[::-1]).reshape(len(size), -1)
    np.testing.assert_allclose(position.detach(), p[:, 0] @ grid.T, atol=1e-6)
    np.testing.assert_allclose(certainty.detach(), 2 - np.abs(p[:, 0] - p[:, 1]).sum(1), atol=1e-5)
    np.testing.assert_allclose(probability.detach().flatten(1), p[:, 0], atol=1e-6)


def test_certainty_lies_between_disjoint_and_equal_maps() -> None:
    net, x = PositionNet(2, 2), torch.zeros(1, 2, 8, 8)
    x[0, 0, 1, 1] = x[0, 1, 6, 6] = 1
    with torch.no_grad():
        net.paths.weight.copy_(torch.tensor([[100.0, 0.0], [0.0, 100.0]]).view(2, 2, 1, 1))
        assert net(x, axes_of(8, 8))[1].item() == pytest.approx(0, abs=1e-30)
        net.paths.weight[1] = net.paths.weight[0]
        assert net(x, axes_of(8, 8))[1].item() == pytest.approx(2)


def test_parameters_and_start() -> None:
    net = PositionNet(2, 1000)
    assert sum(p.numel() for p in net.parameters()) == 2 * 1001
    for path in net.paths.weight:  # Glorot, normal, one output each
        assert path.std().item() == pytest.approx((2 / 1001) ** 0.5, rel=0.1)


def test_fusion_is_the_weighted_mean_of_equation_16() -> None:
    position, certainty = torch.randn(2, 3, 2), 2 * torch.rand(2, 3)
    expected = [np.average(x, axis=0, weights=w) for x, w in zip(position.numpy(), certainty.numpy(), strict=True)]
    np.testing.assert_allclose(fuse_positions(position, certainty), expected, rtol=1e-5)
    nowhere = torch.zeros(1, 3, requires_grad=True)
    fused = fuse_positions(position[:1], nowhere)
    fused.sum().backward()
    assert fused.abs().max() == 0
    assert nowhere.grad.isfinite().all()


def test_covariance_is_that_of_the_mixture_of_all_levels() -> None:
    sizes = [(8, 6), (4, 3)]
    axes = [axes_of(*size, dtype=torch.float64) for size in sizes]
    nets = [PositionNet(2, 3).double() for _ in sizes]
    x = [torch.randn(2, 3, *size, dtype=torch.float64) for size in sizes]
    outputs = [net(values, grid) for net, values, grid in zip(nets, x, axes, strict=True)]
    position, certainty = (torch.stack([o[i] for o in outputs], 1) for i in (0, 1))
    found = Localization(position, certainty, [o[2] for o in outputs])
    covariance = localization_covariance(found, axes).detach().numpy()

    grids = [np.stack(np.meshgrid(*[a.numpy() for a in grid], indexing="ij")[::-1]).reshape(2, -1) for grid in axes]
    for b in range(2):
        w = certainty[b].detach().numpy()
        mixture = np.concatenate([w[n] * found.probability[n][b].detach().numpy().ravel() for n in range(2)])
        expected = np.cov(np.concatenate(grids, axis=1), aweights=mixture, ddof=0)
        np.testing.assert_allclose(covariance[b], expected, atol=1e-12)


def test_autocast_leaves_it_alone() -> None:
    net, x, axes = PositionNet(2, 4), torch.randn(1, 4, 9, 9), axes_of(9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        actual = net(x, axes)
        assert net(x.bfloat16(), axes)[0].dtype == torch.float32
    for a, b in zip(actual, net(x, axes), strict=True):
        assert torch.equal(a, b)


def test_gradients() -> None:
    net, axes = PositionNet(2, 2).double(), axes_of(3, 4, dtype=torch.float64)
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: net(values, axes), x)
    assert torch.autograd.gradcheck(
        fuse_positions, (torch.randn(1, 3, 2).double().requires_grad_(), x[:1, 0, :, 0] ** 2)
    )


def test_biases_do_not_matter() -> None:
    net, x, axes = PositionNet(2, 4), torch.randn(1, 4, 9, 9), axes_of(9, 9)
    before = net(x, axes)[0]
    nn.init.constant_(net.paths.bias, 3.0)
    torch.testing.assert_close(net(x, axes)[0], before)
