from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.networks.blocks.local_gaussian import field, grid_axes, jacobian_of
from monai_regplugins.networks.nets import R2N2
from monai_regplugins.networks.nets.r2n2 import RegistrationState


def small(spatial_dims: int = 2, stir: bool = True, **options: Any) -> R2N2:
    """A narrow network in evaluation, whose field is a few voxels long unless it starts as R2N2 does."""
    network = R2N2(
        spatial_dims, **{"channels": (2, 3, 4), "num_residual": 1, "steps": 3, "padding": "border", **options}
    )
    if stir:
        nn.init.normal_(network.parameter_net.output.weight, std=0.3)
        nn.init.normal_(network.parameter_net.output.bias, std=0.3)
    return network.eval()


def blobs(batch: int, *size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Pairs of smooth images."""
    return F.interpolate(torch.rand(batch, 2, *[5] * len(size), dtype=dtype), size, mode="nearest").mul(2).sub(1)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- the paper's network


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 3_593_611),
        ({"num_residual": 6, "coordinate_channels": False}, 4_753_035),  # defaults of the authors' code
        ({"num_residual": 6}, 4_756_171),
        ({"norm": "none", "activation": "leaky_relu"}, 3_593_611),
    ],
)
def test_number_of_parameters(meta: torch.device, options: dict[str, Any], expected: int) -> None:
    assert count(R2N2(**options)) == expected


@pytest.mark.parametrize("weighted", [True, False])
def test_positions_of_the_levels_are_averaged(weighted: bool) -> None:
    network, image = small(certainty_weights=weighted), blobs(2, 32, 40)
    transform, found, _ = network.step(image[:, :1], network.start(image))
    assert (found.certainty == 1).all() != weighted
    weights = found.certainty / found.certainty.sum(1, keepdim=True)
    torch.testing.assert_close(transform.position[:, 0], (weights[..., None] * found.position).sum(1))
    assert torch.allclose(transform.position[:, 0], found.position.mean(1), atol=1e-6) != weighted


def test_parameters_by_part(meta: torch.device) -> None:
    network = R2N2()
    assert [count(part) for part in (network.input, *network.levels, network.parameter_net)] == [
        6_304,
        129_442,
        516_930,
        2_066_050,
        874_885,
    ]


def test_sizes_of_the_levels(meta: torch.device) -> None:
    network, image, seen = R2N2(), torch.empty(1, 2, 256, 256), []
    network.parameter_net.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    _, found, state = network.step(image[:, :1], network.start(image))
    assert state.features.shape == (1, 32, 128, 128)
    assert [h.shape for h in state.hidden] == [(1, 32, 128, 128), (1, 64, 64, 64), (1, 128, 32, 32)]
    assert [p.shape for p in found.probability] == [(1, 128, 128), (1, 64, 64), (1, 32, 32)]
    assert seen == [(1, 256, 16, 16)]


def test_multiplications_per_step(meta: torch.device) -> None:
    network, image = R2N2().eval(), torch.empty(1, 2, 256, 256)
    with FlopCounterMode(display=False) as counter:
        state = network.start(image)
    features = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        _, _, state = network.step(image[:, :1], state)
    first = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        network.step(image[:, :1], state)
    later = counter.get_total_flops()

    assert (features + later) / 2 == pytest.approx(5.96e9, abs=0.005e9)
    assert later - first == pytest.approx(2.7e9, abs=0.05e9)  # there is no state to convolve yet
    assert features == pytest.approx(0.154e9, rel=0.01)  # three of four input channels, once instead of 25 times


def test_numbers_of_a_transformation() -> None:
    found = R2N2(channels=(1, 1, 1), num_residual=0).local_transforms(torch.rand(1, 2, 32, 32))
    numbers = sum(values.numel() for values in found)
    assert numbers == 7 * 25 == 175
    assert numbers / (34 * 34 * 2) == pytest.approx(0.0757, abs=5e-5)  # of the paper's B-spline


# --- the start


@pytest.mark.parametrize("d", [2, 3])
def test_f_is_zero_at_the_start(d: int) -> None:
    network, image = small(d, stir=False).train(), torch.rand(1, 2, *[32] * d)
    assert torch.equal(network(image), torch.zeros(1, d, *[32] * d))
    found = network.local_transforms(image)
    torch.testing.assert_close(found.sigma, torch.full((1, 3, d), 0.15 + 1e-5))
    if d == 2:
        torch.testing.assert_close(found.rotation, torch.full((1, 3, 1), math.pi / 2))
    assert found.position.abs().max() < 0.5


@pytest.mark.parametrize("fold_free", [None, 0.9])
@pytest.mark.parametrize("content", [0.0, None])
def test_gradients_are_finite_where_f_is_zero(content: float | None, fold_free: float | None) -> None:
    network = small(stir=False, fold_free=fold_free).train()
    image = torch.rand(1, 2, 32, 32) if content is None else torch.full((1, 2, 32, 32), content)
    ddf = network(image.requires_grad_())
    (ddf * torch.randn_like(ddf)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert image.grad is not None
    assert image.grad.isfinite().all()
    moved = {name for name, p in network.named_parameters() if p.grad.abs().max() > 0}
    assert moved == {"parameter_net.output.weight", "parameter_net.output.bias"}


# --- the sequence


def test_split_first_convolution_equals_the_full_one() -> None:
    for d in (2, 3):
        size = [9, 12, 10][:d]
        fixed, warped = torch.rand(2, 2, 1, *size)
        layer = small(d).input
        axes = grid_axes(size, size, None, 0, fixed)
        x_first = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in size], indexing="ij")[::-1])
        full = torch.cat([fixed, warped, x_first.expand(2, d, *size)], dim=1)
        conv = F.conv2d if d == 2 else F.conv3d
        expected = torch.tanh(F.instance_norm(conv(full, layer.weight, layer.bias, stride=2, padding=3)))
        torch.testing.assert_close(layer(layer.features(fixed, axes), warped), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"spacing": [1.0, 2.5]}, {"padding": "zeros", "exact_centers": True}])
def test_steps_from_outside_are_those_of_the_network(options: dict[str, Any]) -> None:
    network, image = small(return_sequence=True, **options), blobs(2, 32, 37)
    spacing = options.get("spacing")
    with torch.no_grad():
        sequence = network(image)
        state, ddf = network.start(image), torch.zeros(2, 2, 32, 37)
        for t in range(3):
            warped = fields.warp(image[:, :1], ddf, padding=network.padding)
            transform, found, state = network.step(warped, state)
            ddf = ddf + field(transform, [32, 37], spacing)
            torch.testing.assert_close(sequence[:, t], ddf)
            assert found.certainty.shape == (2, 3)
            assert ((found.certainty >= 0) & (found.certainty <= 2.0001)).all()
            covariance = network.localization_covariance(found, warped)
            assert torch.linalg.eigvalsh(covariance).min() > 0
    assert sequence.diff(dim=1).flatten(2).std(2).min() > 0.01
    assert network.unit_spacing() == spacing
    torch.testing.assert_close(field(network.local_transforms(image), [32, 37], spacing), ddf)
    torch.testing.assert_close(field(network.local_transforms(image, 2), [32, 37], spacing), sequence[:, 1])
    network.return_sequence = False
    torch.testing.assert_close(network(image), ddf)


def test_the_first_step_sees_the_moving_image_itself() -> None:
    network, image, seen = small(padding="zeros"), torch.randn(1, 2, 128, 131), []
    network.input.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    with torch.no_grad():
        network(image)
    assert len(seen) == 3
    assert (seen[0] - image[:, :1]).abs().max() <= 2e-4
    assert (seen[1] - image[:, :1]).abs().max() > 0.1


def test_finished_samples_can_be_dropped() -> None:
    network, image, kept = small(), blobs(3, 32, 33), torch.tensor([0, 2])
    with torch.no_grad():
        _, _, state = network.step(image[:, :1], network.start(image))
        expected, _, _ = network.step(image[:, 1:], state)
        fewer = RegistrationState(state.features[kept], [h[kept] for h in state.hidden])
        actual, _, _ = network.step(image[kept, 1:], fewer)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b[kept])


@pytest.mark.parametrize("size", [(32, 35), (32, 33, 34)])
def test_a_batch_equals_single_runs(size: tuple[int, ...]) -> None:
    network, image = small(len(size)), blobs(2, *size)
    with torch.no_grad():
        alone = torch.cat([network(image[b : b + 1]) for b in range(2)])
        torch.testing.assert_close(network(image), alone, rtol=1e-4, atol=1e-4)


def test_one_voxel_thick_equals_2d() -> None:
    flat, thick = small(2), small(3)
    flat.minimum_size = thick.minimum_size = 1
    weights = {}
    for name, value in thick.state_dict().items():
        value = value.narrow(2, value.shape[2] // 2, 1).squeeze(2) if value.ndim == 5 else value
        weights[name] = value if name != "input.weight" else value[:, :4]  # no z coordinate
    angle, head = 0.7, "parameter_net.output."
    with torch.no_grad():
        w, b = thick.get_parameter(head + "weight"), thick.get_parameter(head + "bias")
        w[5:], b[5:] = 0, 0  # no motion along z, and one angle about it
        b[6], b[9] = math.cos(angle / 2) - 1, math.sin(angle / 2)
        rows = [0, 1, 3, 4, 5]
        weights[head + "weight"], weights[head + "bias"] = w[rows].clone(), b[rows].clone()
        weights[head + "bias"][4] = math.log(angle / (math.pi - angle))
        flat.load_state_dict(weights)
        image = blobs(2, 32, 35)
        expected, ddf = flat(image), thick(image.unsqueeze(2))
    torch.testing.assert_close(ddf[:, 1:, 0], expected, rtol=1e-4, atol=1e-4)
    assert ddf[:, 0].abs().max() == 0
    assert expected.abs().max() > 1


def test_exact_centers_are_those_of_the_strided_convolutions() -> None:
    network = small(exact_centers=True)
    image = torch.zeros(1, 1, 256, 256)
    for n, last in enumerate([0.992, 0.976, 0.945]):
        axis = network.level_axes(n, [128 >> n] * 2, image)[0]
        assert axis[0].item() == -1
        assert axis[-1].item() == pytest.approx(last, abs=5e-4)
        assert small().level_axes(n, [128 >> n] * 2, image)[0][-1].item() == pytest.approx(1)


def test_fold_free_steps() -> None:
    image = blobs(1, 32, 32)
    free, bound = small(), small(fold_free=0.5)
    bound.load_state_dict(free.state_dict())
    with torch.no_grad():
        smallest = []
        for network in (free, bound):
            network.parameter_net.output.bias += torch.tensor([-1.0, -1.0, 2.0, 2.0, 0.0])  # narrow and far
            one, axis = network.local_transforms(image, 1), torch.linspace(-0.3, 0.3, 121)
            near = one.position + torch.cartesian_prod(axis, axis)
            smallest.append(torch.linalg.det(jacobian_of(one, near)).min().item())
    assert smallest[0] < 0
    assert smallest[1] == pytest.approx(0.5, abs=0.01)


# --- noise


def test_noise_only_in_training() -> None:
    network, image = small(), blobs(1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
        network.train()
        assert not torch.allclose(network(image), network(image))
        network.noise_std = 0.0
        assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("d", [2, 3])
def test_noise_has_mean_one_and_a_deviation_of_the_root_of_two(d: int) -> None:
    network = R2N2(d, channels=(8, 16))
    for noise, level in zip(network.draw_noise(), network.levels, strict=True):
        assert noise.shape == level.unit.gru.state.shape
        assert noise.mean().item() == pytest.approx(1, abs=0.15)
        assert noise.std().item() == pytest.approx(math.sqrt(2), abs=0.1)


@pytest.mark.parametrize(("noise_per", "draws"), [("step", 2), ("sequence", 1)])
def test_noise_is_fresh_in_each_step_or_the_same(monkeypatch: pytest.MonkeyPatch, noise_per: str, draws: int) -> None:
    network, calls = small(noise_per=noise_per).train(), []
    monkeypatch.setattr(network, "draw_noise", lambda generator: calls.append(1) or R2N2.draw_noise(network))
    network(blobs(1, 32, 32))
    assert len(calls) == draws  # the first of the three steps has no state


@pytest.mark.parametrize("noise_per", ["step", "sequence"])
def test_gradient_with_noise_equals_finite_differences(noise_per: str) -> None:
    network, image = small(noise_per=noise_per).double().train(), blobs(1, 32, 32, dtype=torch.float64)
    weights, h = torch.randn(1, 2, 32, 32, dtype=torch.float64), 1e-6
    directions = {name: torch.randn_like(p) for name, p in network.named_parameters()}

    def value(shift: float) -> torch.Tensor:
        torch.manual_seed(1)  # the same noise each time
        moved = {name: p + shift * directions[name] for name, p in network.named_parameters()}
        return (torch.func.functional_call(network, moved, (image,)) * weights).sum()

    gradients = torch.autograd.grad(value(0.0), list(network.parameters()))
    slope = sum((g * d).sum() for g, d in zip(gradients, directions.values(), strict=True))
    with torch.no_grad():
        torch.testing.assert_close(slope, (value(h) - value(-h)) / (2 * h), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noise_per", ["step", "sequence"])
def test_checkpointed_gradients_are_the_plain_ones(noise_per: str) -> None:
    network, image = small(noise_per=noise_per, return_sequence=True).train(), blobs(1, 32, 33)
    results = []
    for network.checkpointing in (False, True):
        network.zero_grad()
        torch.manual_seed(1)
        ddf = network(image)
        ddf.square().sum().backward()
        results.append([ddf, *[p.grad.clone() for p in network.parameters()]])
    for plain, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(plain, checkpointed)


# --- what a user meets


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (32, 35, 33)])
def test_sizes(size: tuple[int, ...]) -> None:
    d = len(size)
    network = small(d, return_sequence=True)
    with torch.no_grad():
        sequence = network(torch.rand(2, 2, *size))
    assert sequence.shape == (2, 3, d, *size)
    assert sequence.dtype == torch.float32
    assert sequence.isfinite().all()
    assert sequence[:, -1].std() > 0


def test_too_small_images() -> None:
    network = small()
    assert network.minimum_size == 32
    for call in (network, network.start, network.local_transforms):
        with pytest.raises(InputError, match="image has 32 x 31 voxels, expected at least 32 x 32"):
            call(torch.rand(1, 2, 32, 31))
    assert small(channels=(2, 3)).minimum_size == 16
    assert small(channels=(2, 3))(torch.rand(1, 2, 16, 17)).shape == (1, 2, 16, 17)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 1}, "R2N2 takes a moving and a fixed image and returns a field"),
        ({"spatial_dims": 4}, "R2N2 takes"),
        ({"out_channels": 3}, "R2N2 takes"),
        ({"noise_per": "steps"}, "Did you mean 'step'"),
        ({"activation": "tan"}, "Did you mean 'tanh'"),
        ({"norm": "instance"}, "norm is 'instance'"),
        ({"padding": "zero"}, "Did you mean 'zeros'"),
        ({"steps": 0}, "steps is 0, expected a number above 0"),
        ({"sigma_min": 0.0}, "sigma_min is 0.0"),
        ({"noise_std": -1.0}, "noise_std is -1.0, expected zero or more"),
        ({"channels": []}, "channels is "),
        ({"fold_free": 1.0}, "fold_free is 1.0, expected a number between 0 and 1, or None"),
        ({"spacing": [1.0]}, r"spacing is \[1.0\], expected 2 numbers above 0"),
        ({"spacing": [1.0, 0.0]}, "spacing is "),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        R2N2(**options)


def test_one_set_of_weights_for_all_uses() -> None:
    network = small()
    other = small(return_sequence=True, checkpointing=True, steps=7, spacing=(1.0, 2.0), fold_free=0.9, v_max=0.1)
    other.load_state_dict(network.state_dict())
    assert not list(network.buffers())


# --- numerics


def test_double_precision() -> None:
    network, image = small(), blobs(1, 32, 33)
    with torch.no_grad():
        expected, ddf = network(image), network.double()(image.double())
    assert ddf.dtype == torch.float64
    torch.testing.assert_close(ddf.float(), expected, rtol=1e-3, atol=1e-3)


def test_positions_and_field_stay_in_float32_under_autocast() -> None:
    network, image = small(), blobs(1, 32, 33)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = network.local_transforms(image)
        ddf = network(image)
    assert all(values.dtype == torch.float32 for values in found)
    assert ddf.dtype == torch.float32
    torch.testing.assert_close(ddf, field(found, [32, 33]))


@pytest.mark.parametrize("options", [{"norm": "none"}, {"activation": "leaky_relu"}, {"num_residual": 0}])
def test_variants_run(options: dict[str, Any]) -> None:
    assert small(**options)(blobs(1, 32, 32)).isfinite().all()


# --- leaving Python


@pytest.mark.parametrize("size", [(32, 35), (32, 33, 32)])
@pytest.mark.parametrize("return_sequence", [True, False])
def test_torchscript_equals_eager(size: tuple[int, ...], return_sequence: bool) -> None:
    spacing = [1.0, 2.0, 1.5][: len(size)] if return_sequence else None
    network, image = small(len(size), return_sequence=return_sequence, spacing=spacing), blobs(1, *size)
    scripted = torch.jit.script(network)
    with torch.no_grad():
        torch.testing.assert_close(scripted(image), network(image))
        assert scripted.unit_spacing() == spacing
        for actual, expected in zip(
            scripted.local_transforms(image, 2), network.local_transforms(image, 2), strict=True
        ):
            torch.testing.assert_close(actual, expected)
        state = scripted.start(image)
        _, found, _ = scripted.step(image[:, :1], state)
        _, expected, _ = network.step(image[:, :1], network.start(image))
        torch.testing.assert_close(found.certainty, expected.certainty)
        covariance = network.localization_covariance(expected, image)
        torch.testing.assert_close(scripted.localization_covariance(found, image), covariance)


def test_torchscript_survives_a_file(tmp_path: Any) -> None:
    network, image = small(fold_free=0.5, exact_centers=True), blobs(1, 32, 32)
    torch.jit.script(network).save(tmp_path / "r2n2.ts")
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "r2n2.ts")(image), network(image))
