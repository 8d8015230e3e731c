from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from monai_regplugins.networks.blocks import AlignerHeads, AlignerRegressor, ResidualAligner
from monai_regplugins.networks.blocks.residual_aligner import HEAD_WEIGHTINGS, regressor_width

CONV = {2: F.conv2d, 3: F.conv3d}
SIZE = {2: (6, 5), 3: (4, 5, 6)}


def aligner(spatial_dims: int, first: bool, channels: int = 3, num_heads: int = 2, **options: Any) -> ResidualAligner:
    """An aligner whose scales and biases all differ from where they start."""
    heads = AlignerHeads(spatial_dims, num_heads, options.pop("head_kernel", 1))
    module = ResidualAligner(spatial_dims, channels, options.pop("dilation", 2), heads, num_heads, first, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module


def inputs(
    spatial_dims: int, first: bool, channels: int = 3, num_heads: int = 2, batch: int = 2
) -> tuple[torch.Tensor, ...]:
    size = SIZE[spatial_dims]
    features = (torch.randn(batch, channels, *size), torch.randn(batch, channels, *size))
    if first:
        return features
    return *features, torch.randn(batch, spatial_dims, *size), torch.randn(batch, num_heads, *size)


def reference_warp(image: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.arange(n, dtype=ddf.dtype) for n in image.shape[2:]], indexing="ij")
    positions = [2 * (x + ddf[:, k]) / (x.shape[k] - 1) - 1 for k, x in enumerate(axes)]
    return F.grid_sample(image, torch.stack(positions[::-1], dim=-1), align_corners=True)


class Reference:
    """The formulas of the module, written down again: functional, both masks and all components at once."""

    def __init__(self, module: ResidualAligner, dilation: int) -> None:
        self.state, self.dilation = module.state_dict(), dilation
        self.d, self.m, self.mode = module.spatial_dims, module.num_heads, module.head_weighting

    def conv(self, name: str, x: torch.Tensor, dilation: int = 1) -> torch.Tensor:
        weight = self.state[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        return CONV[self.d](x, weight, self.state[f"{name}.bias"], padding=padding, dilation=dilation)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, correction=0, keepdim=True) + 1e-3)
        return (self.state[f"{name}.weight"] * flat + self.state[f"{name}.bias"]).reshape(x.shape)

    def regress(self, t: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        a1 = F.leaky_relu(self.conv("regressor.first", torch.cat([t, r], 1), self.dilation), 0.01)
        a2 = F.leaky_relu(self.conv("regressor.second", a1, self.dilation), 0.01)
        if "regressor.third.weight" not in self.state:
            return a2
        return F.leaky_relu(self.conv("regressor.third", a2) + a1, 0.01)

    def weights(self, theta: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.mode == "raw":
            return theta
        soft = theta.exp() / theta.exp().sum(1, keepdim=True)
        if self.mode == "softmax":
            return soft
        return soft * self.conv("confidence", F.leaky_relu(mask, 0.01)).clamp(min=0)

    def __call__(
        self, x1: torch.Tensor, x2: torch.Tensor, phi: torch.Tensor | None = None, theta: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        r = self.conv("key", x2)
        r = r if phi is None else reference_warp(r, phi)
        a = self.regress(self.norm("norm_query", x1), self.norm("norm_key", r))
        hidden = F.leaky_relu(self.conv("heads.displacement.0", a), 0.01)
        varphi = self.conv("heads.displacement.2", hidden).unflatten(1, (self.d, self.m))
        hidden = F.leaky_relu(self.norm("norm_mask", self.conv("heads.mask_in", a)), 0.01)
        vartheta = self.conv("heads.mask_out", hidden)
        g = F.leaky_relu(self.norm("norm_attribute", self.conv("heads.attribute", a)), 0.01)
        masks = vartheta if theta is None else torch.cat([vartheta, theta], 1)
        hidden = F.leaky_relu(self.norm("norm_fusion", self.conv("mask_fusion", masks)), 0.01)
        theta_new = self.conv("heads.mask_fusion", hidden)

        channels = [self.weights(theta_new, vartheta)[:, None] * varphi, varphi.mean(2, keepdim=True)]
        if phi is not None and theta is not None:
            channels += [self.weights(theta_new, theta)[:, None] * phi[:, :, None], phi[:, :, None]]
        folded = torch.cat(channels, 2).flatten(0, 1)  # components into the batch
        phi_new = self.conv("heads.field", F.leaky_relu(self.conv("accumulator", folded), 0.01))
        phi_new = phi_new.reshape(len(x1), self.d, *x1.shape[2:])
        feedback = self.conv("feedback", torch.cat([reference_warp(x2, phi_new), g], 1))
        return x1 + F.leaky_relu(feedback, 0.01), phi_new, theta_new


@pytest.mark.parametrize("head_weighting", HEAD_WEIGHTINGS)
@pytest.mark.parametrize(
    ("spatial_dims", "first", "convs", "kernel"), [(2, True, 2, 3), (2, False, 3, 1), (3, False, 2, 3)]
)
def test_formula(spatial_dims: int, first: bool, convs: int, kernel: int, head_weighting: str) -> None:
    options: dict[str, Any] = {"regressor_convs": convs, "head_kernel": kernel, "head_weighting": head_weighting}
    module, data = aligner(spatial_dims, first, **options), inputs(spatial_dims, first)
    for actual, expected in zip(module(*data), Reference(module, 2)(*data), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("convs", "last"), [(2, [0]), (3, [-1, 0, 1])])
@pytest.mark.parametrize("dilation", [1, 3])
def test_receptive_field_of_the_regressor(dilation: int, convs: int, last: list[int]) -> None:
    regressor = AlignerRegressor(2, 1, dilation, convs)
    radius = 2 * dilation + 2
    target, source = torch.randn(2, 1, 1, 2 * radius + 1, 2 * radius + 1).requires_grad_()
    center = regressor(target, source)[0, :, radius, radius].sum()

    steps = [-dilation, 0, dilation]
    reach = {a + b + c for a, b, c in product(steps, steps, last)}
    assert max(reach) == 2 * dilation + convs - 2  # the sum of the dilations, Eq. 5
    for gradient in torch.autograd.grad(center, (target, source)):
        offsets = {(i, j) for i, j in (gradient[0, 0].nonzero() - radius).tolist()}
        assert offsets == set(product(reach, reach))


def test_target_comes_before_source() -> None:
    regressor = AlignerRegressor(2, 2, 1, 2)
    with torch.no_grad():
        regressor.first.get_parameter("weight")[:, 2:] = 0
    target, source, other = torch.randn(3, 1, 2, 5, 5)
    assert torch.equal(regressor(target, source), regressor(target, other))
    assert not torch.equal(regressor(target, source), regressor(other, source))


@pytest.mark.parametrize(("spatial_dims", "width"), [(2, 6), (3, 18)])
def test_width_of_the_regressor(spatial_dims: int, width: int) -> None:
    assert regressor_width(spatial_dims) == width


def test_raw_weights_are_the_mask_itself() -> None:
    module, theta = aligner(2, True, head_weighting="raw"), torch.randn(1, 2, 4, 4)
    assert module.weigh(theta, torch.randn(1, 2, 4, 4)) is theta


def test_softmax_weights_sum_to_one() -> None:
    module, theta = aligner(2, True, head_weighting="softmax"), 50 * torch.randn(1, 2, 4, 4)
    weights = module.weigh(theta, torch.randn(1, 2, 4, 4))
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(1, 4, 4))


def test_confidence_is_one_non_negative_factor_of_all_heads() -> None:
    module, theta, mask = aligner(2, True), torch.randn(1, 2, 8, 8), torch.randn(1, 2, 8, 8)
    torch.nn.init.ones_(module.confidence.get_parameter("weight"))
    torch.nn.init.zeros_(module.confidence.get_parameter("bias"))
    confidence = module.weigh(theta, mask) / theta.softmax(1)
    torch.testing.assert_close(confidence[:, 0], confidence[:, 1])
    assert confidence.min() == 0
    assert confidence.max() > 0
    torch.nn.init.constant_(module.confidence.get_parameter("bias"), -100.0)
    assert module.weigh(theta, mask).abs().max() == 0


def test_only_the_confidence_has_weights_of_its_own() -> None:
    modules = {mode: aligner(3, False, head_weighting=mode) for mode in HEAD_WEIGHTINGS}
    count = {mode: sum(p.numel() for p in module.parameters()) for mode, module in modules.items()}
    assert count["raw"] == count["softmax"] == count["softmax_confidence"] - (2 + 1)


@pytest.mark.parametrize(("first", "mask_channels", "field_channels"), [(True, 6, 7), (False, 12, 14)])
def test_first_level_has_no_previous_field(first: bool, mask_channels: int, field_channels: int) -> None:
    module = aligner(3, first, num_heads=6)
    assert module.mask_fusion.in_channels == mask_channels
    assert module.accumulator.in_channels == field_channels
    with pytest.raises(RuntimeError, match="channels"):
        module(*inputs(3, not first, num_heads=6))


@pytest.mark.parametrize("bias", [1e6, -1e6])
def test_field_is_clipped(bias: float) -> None:
    module, data = aligner(3, False), inputs(3, False)
    torch.nn.init.constant_(module.heads.field.get_parameter("bias"), bias)
    features, phi, _ = module(*data)
    for component, n in zip(phi.unbind(1), SIZE[3], strict=True):
        assert (component == (2 * n - 1) * (1 if bias > 0 else -1)).all()
    assert features.isfinite().all()


def test_integer_field_moves_the_features_that_are_fed_back() -> None:
    module, (target, source) = aligner(2, True), inputs(2, True)
    with torch.no_grad():
        module.heads.field.get_parameter("weight").zero_()
        module.heads.field.get_parameter("bias").fill_(1.0)
        module.feedback.get_parameter("weight").zero_()
        module.feedback.get_parameter("weight")[range(3), range(3)] = 1.0
        module.feedback.get_parameter("bias").zero_()
    features, phi, _ = module(target, source)
    moved = F.pad(source[:, :, 1:, 1:], (0, 1, 0, 1))
    assert (phi == 1).all()
    torch.testing.assert_close(features, target + F.leaky_relu(moved, 0.01), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head_weighting", HEAD_WEIGHTINGS)
@pytest.mark.parametrize(("spatial_dims", "first"), [(2, True), (2, False), (3, False)])
def test_gradcheck(spatial_dims: int, first: bool, head_weighting: str) -> None:
    # In fast mode: one random projection of the whole Jacobian
    module = aligner(spatial_dims, first, channels=1, dilation=1, head_weighting=head_weighting).double()
    widths = (1, 1) if first else (1, 1, spatial_dims, 2)  # target and source, previous field and mask
    data = [torch.randn(1, c, *[4] * spatial_dims, dtype=torch.float64, requires_grad=True) for c in widths]
    assert all(x.dtype == torch.float64 for x in module(*data))
    assert torch.autograd.gradcheck(module, data, fast_mode=True)


@pytest.mark.parametrize("first", [True, False])
def test_torchscript_equals_eager(first: bool) -> None:
    module, data = aligner(2, first), inputs(2, first)
    for scripted, eager in zip(torch.jit.script(module)(*data), module(*data), strict=True):
        torch.testing.assert_close(scripted, eager)


def test_field_and_weights_stay_in_float32_under_autocast() -> None:
    module, data = aligner(2, False), inputs(2, False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, phi, _ = module(*data)
    _, expected, _ = module(*data)
    assert phi.dtype == torch.float32
    assert not torch.equal(phi, phi.bfloat16().float())  # not a widened half precision result
    assert (phi - expected).abs().mean() < 0.05 * expected.abs().mean()
