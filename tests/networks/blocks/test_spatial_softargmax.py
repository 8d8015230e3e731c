from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_regplugins.networks.blocks.spatial_softargmax import position_covariance, soft_argmax, spatial_softmax


def axes_of(*sizes: int) -> list[torch.Tensor]:
    return [torch.linspace(-1, 1, n, dtype=torch.float64) ** 3 for n in sizes]


@pytest.mark.parametrize("size", [(4, 7), (3, 5, 4)])
def test_softmax_of_each_channel_over_space(size: tuple[int, ...]) -> None:
    logits = 3 * torch.randn(2, 3, *size)
    p = spatial_softmax(logits)
    e = np.exp(logits.double().numpy())
    np.testing.assert_allclose(p, e / e.sum(axis=tuple(range(2, e.ndim)), keepdims=True), rtol=1e-5)


def test_softmax_of_large_and_of_half_precision_logits() -> None:
    assert spatial_softmax(torch.full((1, 1, 2, 2), 1e4)).flatten().tolist() == [0.25] * 4
    half = torch.randn(1, 2, 5, 5).bfloat16()
    p = spatial_softmax(half)
    assert p.dtype == torch.float32
    assert torch.equal(p, spatial_softmax(half.float()))


@pytest.mark.parametrize("size", [(4, 7), (3, 5, 4)])
def test_moments_against_numpy(size: tuple[int, ...]) -> None:
    p, axes = spatial_softmax(torch.randn(2, 1, *size, dtype=torch.float64))[:, 0], axes_of(*size)
    mean = soft_argmax(p, axes)
    grid = np.stack([g.ravel() for g in np.meshgrid(*[a.numpy() for a in axes], indexing="ij")][::-1])  # x first
    for b in range(2):
        weights = p[b].numpy().ravel()
        np.testing.assert_allclose(mean[b], np.average(grid, axis=1, weights=weights), rtol=1e-10)
        expected = np.cov(grid, aweights=weights, ddof=0)
        np.testing.assert_allclose(position_covariance(p, axes, mean)[b], expected, atol=1e-12)


def test_a_peak_is_found_where_it_is() -> None:
    p, axes = torch.zeros(1, 4, 7, dtype=torch.float64), axes_of(4, 7)
    p[0, 1, 5] = 1
    assert soft_argmax(p, axes)[0].tolist() == [axes[1][5], axes[0][1]]
    assert position_covariance(p, axes, soft_argmax(p, axes)).abs().max() == 0


def test_gradients() -> None:
    logits, axes = torch.randn(2, 1, 3, 4, dtype=torch.float64, requires_grad=True), axes_of(3, 4)

    def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        p = spatial_softmax(x)[:, 0]
        mean = soft_argmax(p, axes)
        return mean, position_covariance(p, axes, mean)

    assert torch.autograd.gradcheck(moments, logits)


def test_moments_ignore_autocast() -> None:
    p, axes = spatial_softmax(torch.randn(1, 1, 9, 9))[:, 0], [a.float() for a in axes_of(9, 9)]
    mean = soft_argmax(p, axes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(soft_argmax(p, axes), mean)
        covariance = position_covariance(p, axes, mean)
    assert torch.equal(covariance, position_covariance(p, axes, mean))
