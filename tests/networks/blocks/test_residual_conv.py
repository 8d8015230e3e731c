from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from monai_regplugins.networks.blocks import ConvNorm, ResidualConvBlock
from monai_regplugins.networks.blocks.residual_conv import PointwiseConv, channels_last, same_conv

CONV = {2: F.conv2d, 3: F.conv3d}


def normalized(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    flat = x.flatten(1)
    scaled = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, correction=0, keepdim=True) + 1e-3)
    return (weight * scaled + bias).reshape(x.shape)


def randomize(module: torch.nn.Module) -> None:
    """Give every parameter, also scales and biases, a value of its own."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_residual_block_formula(spatial_dims: int) -> None:
    block, x = ResidualConvBlock(spatial_dims, 2, 3), torch.randn(2, 2, *[7, 8, 6][:spatial_dims])
    randomize(block)
    state: dict[str, Any] = dict(block.state_dict())

    def conv_norm(name: str, x: torch.Tensor, dilation: int) -> torch.Tensor:
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        y = CONV[spatial_dims](x, weight, bias, padding=dilation, dilation=dilation)
        return normalized(y, state[f"{name}.1.weight"], state[f"{name}.1.bias"])

    r = F.leaky_relu(conv_norm("shortcut", x, 1), 0.2)
    f = conv_norm("dilated", F.leaky_relu(conv_norm("inner", r, 1), 0.2), 3)
    torch.testing.assert_close(block(x), F.leaky_relu(r + f, 0.2), rtol=1e-4, atol=1e-4)


def test_input_is_left_alone() -> None:
    block, x = ResidualConvBlock(2, 2, 2), torch.randn(1, 2, 6, 6)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("slope", [None, 0.2])
def test_conv_norm_ends_in_an_activation_only_where_it_has_a_slope(slope: float | None) -> None:
    torch.manual_seed(0)
    block = ConvNorm(2, 1, 4, slope=slope)
    x = torch.randn(1, 1, 8, 8)
    y = normalized(block[0](x), torch.ones(1), torch.zeros(1))
    torch.testing.assert_close(block(x), y if slope is None else F.leaky_relu(y, slope), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (3, 4)])
def test_same_conv_keeps_the_size_and_spreads_by_its_dilation(kernel_size: int, dilation: int) -> None:
    x = torch.zeros(1, 1, 11, 13)
    x[..., 5, 6] = 1
    reached = same_conv(2, 1, 1, kernel_size, dilation)(x)[0, 0].nonzero() - torch.tensor([5, 6])

    steps = [0] if kernel_size == 1 else [-dilation, 0, dilation]
    assert sorted(map(tuple, reached.tolist())) == [(i, j) for i in steps for j in steps]


def test_same_conv_starts_he_normal() -> None:
    conv = same_conv(3, 16, 64)
    weight = conv.get_parameter("weight")
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 27)), rel=0.02)
    assert (weight / weight.std()).pow(4).mean().item() == pytest.approx(3.0, abs=0.2)  # 1.8 if uniform
    assert conv.get_parameter("bias").abs().max() == 0


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_channels_last_changes_the_layout_only(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    y = channels_last(x)
    assert torch.equal(x, y)
    assert y.stride(1) == 1


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, channels_last])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_pointwise_is_a_convolution_with_kernel_one(spatial_dims: int, layout: Any) -> None:
    conv, x = PointwiseConv(spatial_dims, 3, 4), layout(torch.randn(2, 3, *[5, 6, 7][:spatial_dims]))
    torch.nn.init.normal_(conv.weight)
    torch.nn.init.normal_(conv.bias)
    torch.testing.assert_close(conv(x), CONV[spatial_dims](x, conv.weight, conv.bias))
    assert conv(channels_last(x)).is_contiguous(
        memory_format=[torch.channels_last, torch.channels_last_3d][spatial_dims - 2]
    )
