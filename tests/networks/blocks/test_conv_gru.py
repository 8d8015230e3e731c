from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_regplugins.networks.blocks import ConvGRU, GatedRegistrationUnit, RegistrationResidualBlock
from monai_regplugins.networks.blocks.conv_gru import channel_norm, conv_layer, nonlinearity


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def code_form(gru: ConvGRU, x: torch.Tensor, h: torch.Tensor, state: list[torch.Tensor]) -> torch.Tensor:
    """The GRU as the authors' code blends it, h = z h + (1 - z) proposal, with six separate kernels."""
    W, b = gru.input.weight.chunk(3), gru.input.bias.chunk(3)
    r = torch.sigmoid(F.conv2d(x, W[0], b[0], padding=1) + F.conv2d(h, state[0], padding=1))
    z = torch.sigmoid(F.conv2d(x, -W[1], -b[1], padding=1) + F.conv2d(h, -state[1], padding=1))
    proposal = torch.tanh(F.conv2d(x, W[2], b[2], padding=1) + F.conv2d(r * h, state[2], padding=1))
    return z * h + (1 - z) * proposal


# --- the GRU


def test_paper_form_equals_code_form_with_negated_z_weights() -> None:
    gru, x, h = ConvGRU(2, 3), torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5)
    nn.init.normal_(gru.input.bias)
    torch.testing.assert_close(gru(x, h), code_form(gru, x, h, list(gru.state.chunk(3))))


@pytest.mark.parametrize("d", [2, 3])
def test_no_state_is_a_state_of_zeros(d: int) -> None:
    gru, x = ConvGRU(d, 2), torch.randn(2, 2, *[4] * d)
    torch.testing.assert_close(gru(x), gru(x, torch.zeros_like(x)))


def test_parameters_and_start() -> None:
    C = 32
    gru = ConvGRU(2, C)
    assert count(gru) == 54 * C**2 + 3 * C == 55_392
    assert gru.input.bias.tolist() == [0.0] * 2 * C + [1.0] * C
    for kernel in (*gru.input.weight.chunk(3), *gru.state.chunk(3)):  # Glorot, normal, of each kernel by itself
        assert kernel.std().item() == pytest.approx(math.sqrt(2 / (18 * C)), rel=0.05)


def test_gradient_with_fresh_noise_in_each_step() -> None:
    gru, x = ConvGRU(2, 2).double(), torch.randn(3, 1, 2, 4, 4, dtype=torch.float64)
    noise = [1 + math.sqrt(2) * torch.randn_like(gru.state) for _ in range(3)]
    h = torch.zeros_like(x[0])
    for values, n in zip(x, noise, strict=True):
        h = gru(values, h, n)
    (gradient,) = torch.autograd.grad(h.square().sum(), gru.state)

    kernels = [(gru.state * n).detach().requires_grad_() for n in noise]  # each step has kernels of its own
    h = torch.zeros_like(x[0])
    for values, kernel in zip(x, kernels, strict=True):
        h = code_form(gru, values, h, list(kernel.chunk(3)))
    by_step = torch.autograd.grad(h.square().sum(), kernels)
    torch.testing.assert_close(gradient, sum(g * n for g, n in zip(by_step, noise, strict=True)))
    stale = sum(g * noise[-1] for g in by_step)  # what reusing one buffer for the noise would give
    assert (gradient - stale).norm() > 0.1 * gradient.norm()


def test_one_voxel_thick_equals_2d() -> None:
    thick, flat = ConvGRU(3, 2), ConvGRU(2, 2)
    flat.load_state_dict({k: v[:, :, 1] if v.ndim == 5 else v for k, v in thick.state_dict().items()})
    x, h = torch.randn(1, 2, 5, 6), torch.randn(1, 2, 5, 6)
    torch.testing.assert_close(thick(x.unsqueeze(2), h.unsqueeze(2)).squeeze(2), flat(x, h))


@pytest.mark.parametrize("d", [2, 3])
def test_gradcheck(d: int) -> None:
    gru, x = ConvGRU(d, 1).double(), torch.randn(2, 1, 1, *[3] * d, dtype=torch.float64, requires_grad=True)
    noise = torch.randn_like(gru.state, requires_grad=True)
    assert torch.autograd.gradcheck(gru, (x[0], x[1], noise), fast_mode=True)


# --- what is around it


@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (2, 3, 4, 3, 5)])
def test_norm_equals_the_instance_norm(shape: tuple[int, ...]) -> None:
    instance: Any = {4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}[len(shape)](shape[1])
    x = (3 * torch.randn(shape) + 2).requires_grad_()
    weights, outputs = torch.randn(shape), [norm(x) for norm in (channel_norm("group", shape[1]), instance)]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*[torch.autograd.grad((y * weights).sum(), x)[0] for y in outputs], rtol=1e-4, atol=1e-5)
    assert count(channel_norm("group", 4)) == 0
    assert channel_norm("none", shape[1])(x) is x


def test_residual_block() -> None:
    block, x = RegistrationResidualBlock(2, 3), torch.randn(2, 3, 6, 7)
    first, second = (m for m in block.modules() if isinstance(m, nn.Conv2d))
    y = torch.tanh(F.instance_norm(F.conv2d(x, first.weight, first.bias, padding=1)))
    y = torch.tanh(F.instance_norm(F.conv2d(y, second.weight, second.bias, padding=1)) + x)
    torch.testing.assert_close(block(x), y, rtol=1e-4, atol=1e-5)


def test_unit_skips_the_gru_but_the_state_does_not() -> None:
    unit, x, h = GatedRegistrationUnit(2, 3, 2), torch.randn(1, 3, 5, 6), torch.randn(1, 3, 5, 6)
    out, state = unit(x, h)
    torch.testing.assert_close(state, unit.gru(unit.residual(x), h))
    torch.testing.assert_close(out, torch.tanh(state + unit.residual(x)))
    assert count(GatedRegistrationUnit(2, 32)) == 55_488 + 55_392
    assert count(unit) == 2 * 2 * (9 * 9 + 3) + 54 * 9 + 9


def test_start_of_convolutions_suits_the_activation() -> None:
    n, fan = 64, 9 * 64
    tanh, leaky = conv_layer(2, n, n, "tanh").weight, conv_layer(2, n, n, "leaky_relu").weight
    assert tanh.std().item() == pytest.approx(5 / 3 * math.sqrt(1 / fan), rel=0.03)
    assert leaky.std().item() == pytest.approx(math.sqrt(2 / (1 + 1e-4) / fan), rel=0.03)


def test_activations() -> None:
    assert nonlinearity("tanh")(torch.tensor(0.5)).item() == pytest.approx(math.tanh(0.5))
    assert nonlinearity("leaky_relu")(torch.tensor(-1.0)).item() == pytest.approx(-0.01)
