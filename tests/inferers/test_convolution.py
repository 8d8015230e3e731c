from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from monai_regplugins.inferers.convolution import fast_convolutions


def kernels(convolution: torch.nn.Module, volume: torch.Tensor) -> set[str]:
    """The ways that PyTorch's convolutions take."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        convolution(volume)
    ways = {"aten::slow_conv3d_forward", "aten::mkldnn_convolution"}
    return ways & {event.key for event in seen.key_averages()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": "same"},
        {"stride": 2, "padding": (1, 0, 1)},
        {"dilation": (1, 2, 1)},
        {"groups": 2},
        {"bias": False},
    ],
)
@torch.no_grad()
def test_same_values(options: dict[str, Any]) -> None:
    convolution, volume = torch.nn.Conv3d(4, 6, 3, **options), torch.rand(1, 4, 9, 8, 7)
    with fast_convolutions(volume):
        fast = convolution(volume)
    exact = convolution.double()(volume.double()).float()
    torch.testing.assert_close(fast, exact, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_single_volume_goes_to_onednn() -> None:
    convolution, volume = torch.nn.Conv3d(4, 6, 3), torch.rand(1, 4, 9, 8, 7)
    with fast_convolutions(volume):
        assert kernels(convolution, volume) == {"aten::mkldnn_convolution"}


def test_gradients_are_left_to_pytorch() -> None:
    convolution, volume = torch.nn.Conv3d(4, 6, 3), torch.rand(1, 4, 9, 8, 7, requires_grad=True)
    with fast_convolutions(volume):
        found = convolution(volume)
    (gradient,) = torch.autograd.grad(found.sum(), volume)
    (expected,) = torch.autograd.grad(convolution(volume).sum(), volume)
    assert torch.equal(gradient, expected)


@torch.no_grad()
def test_doubles_and_autocast_keep_their_types() -> None:
    volume = torch.rand(1, 4, 9, 8, 7)
    with fast_convolutions(volume):
        assert torch.nn.Conv3d(4, 6, 3).double()(volume.double()).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.nn.Conv3d(4, 6, 3)(volume).dtype == torch.bfloat16
