from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from monai_regplugins.checks import InputError
from monai_regplugins.networks.blocks.residual_conv import PointwiseConv
from monai_regplugins.networks.nets import RAN
from monai_regplugins.networks.nets.ran import PRESETS, place, upsample_high

# The same nets with the RA module of the authors' code
CODE: dict[str, Any] = {"regressor_convs": 3, "head_kernel": 1, "shared_heads": True}
SMALL: dict[str, Any] = {  # three levels, one of them upsampling
    "encoder_channels": (4, 6),
    "decoder_channels": (6, 4, 3),
    "scales": (2, 2, 1),
    "dilations": (2, 1, 1),
    "skip_channels": 4,
    "first_skips": 2,
    "num_heads": 3,
    "start_as_sum": False,  # so that fields are several voxels long
}


def small(spatial_dims: int = 2, **options: Any) -> RAN:
    return RAN(spatial_dims, **{**SMALL, **options})


def in_code_geometry(preset: str) -> dict[str, Any]:
    return {"preset": preset} if preset == "ran4_released" else {"preset": preset, **CODE}


def swapped(image: torch.Tensor) -> torch.Tensor:
    return image.flip(1)


# --- geometry


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"head_weighting": "raw"}, 738_030),  # the sum of all variables of the authors' checkpoint
        ({"head_weighting": "softmax"}, 738_030),
        ({}, 738_065),
        ({"first_skips": 3}, 751_889),
        ({"preset": "ran0", **CODE}, 631_161),
        ({"preset": "ran3", **CODE}, 670_713),
        ({"preset": "ran4", **CODE}, 661_729),
        ({"preset": "ran4_plus", **CODE}, 687_665),
        ({"preset": "ran0", **CODE, "shared_heads": False}, 735_385),
        ({"preset": "ran3", **CODE, "shared_heads": False}, 774_937),
        ({"preset": "ran4", **CODE, "shared_heads": False}, 765_953),
        ({"preset": "ran4_plus", **CODE, "shared_heads": False}, 791_889),
        ({"preset": "ran0"}, 768_775),
        ({"preset": "ran3"}, 808_327),
        ({"preset": "ran4"}, 799_343),
        ({"preset": "ran4_plus"}, 825_279),
        ({"spatial_dims": 2}, 180_171),
    ],
)
def test_number_of_parameters(options: dict[str, Any], expected: int) -> None:
    assert sum(p.numel() for p in RAN(**options).parameters()) == expected


@pytest.mark.parametrize(
    ("preset", "widths", "scales"),
    [
        ("ran0", [32, 64, 48, 32, 24], [16, 8, 4, 2, 1]),
        ("ran3", [32, 48, 48, 32, 32], [2, 2, 2, 2, 1]),
        ("ran4", [36, 44, 44, 28, 28], [1, 1, 1, 1, 1]),
        ("ran4_plus", [48, 48, 48, 32, 32], [1, 1, 1, 1, 1]),
        ("ran4_released", [32, 48, 48, 48, 32], [2, 2, 2, 2, 1]),
    ],
)
def test_widths_of_table_3_and_sizes_of_the_levels(
    meta: torch.device, preset: str, widths: list[int], scales: list[int]
) -> None:
    seen: list[tuple[int, torch.Size, bool]] = []

    def look(_: nn.Module, args: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        seen.append((args[0].shape[1], output[1].shape, args[1] is None))

    network = RAN(preset=preset)
    for level in network.levels:
        level.register_forward_hook(look)
    assert network(torch.empty(1, 2, 72, 60, 88)).shape == (1, 3, 72, 60, 88)

    assert [width for width, _, _ in seen] == widths
    floors = [(3, *[n // scale for n in (72, 60, 88)]) for scale in scales]
    assert [tuple(shape[1:]) for _, shape, _ in seen] == floors
    assert [shape[0] for _, shape, _ in seen] == [2, 2, 2, 2, 1]  # both directions but for the last level
    assert [first for _, _, first in seen] == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("preset", "expected", "saved"),
    [
        ("ran0", 212_761, 0.37),
        ("ran3", 335_415, 0.24),
        ("ran4_released", 353_751, 0.22),
        ("ran4", 1_404_888, 0.06),
        ("ran4_plus", 1_441_455, 0.06),
    ],
)
@pytest.mark.slow
def test_multiplications_per_voxel(meta: torch.device, preset: str, expected: int, saved: float) -> None:
    network, image, total = RAN(**in_code_geometry(preset)), torch.empty(1, 2, 32, 32, 32), [0]

    def count(module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        places = args[0] if isinstance(module, nn.ConvTranspose3d) else output
        total[0] += module.get_parameter("weight").numel() * places[:, 0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d | PointwiseConv):
            module.register_forward_hook(count)
    network.both_directions(image)
    both, total[0] = total[0] / 32**3, 0
    network(image)

    assert round(both - 27 * 11 * 3) == expected  # one last convolution, not two
    assert 1 - total[0] / 32**3 / both == pytest.approx(saved, abs=0.01)


def test_heads_are_shared_or_not() -> None:
    for shared, count in ((True, 1), (False, 3)):
        assert len({id(level.aligner.heads) for level in small(shared_heads=shared).levels}) == count


def test_geometry_from_a_configuration_file() -> None:
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in SMALL.items()}
    network, other = small(), RAN(2, **lists)
    assert network.geometry == other.geometry
    assert other.geometry["dilations"] == (2, 1, 1)
    other.load_state_dict(network.state_dict())


def test_presets_are_the_printed_ones() -> None:
    assert list(PRESETS) == ["ran0", "ran3", "ran4", "ran4_plus", "ran4_released"]
    for preset, geometry in PRESETS.items():
        q = {"ran0": 0, "ran3": 3, "ran4": 4, "ran4_plus": 4, "ran4_released": 3}[preset]
        # Pool sizes and dilations of a net whose levels 0..q share one grid, Sec. 2.3
        assert geometry.scales == tuple(2 ** (4 - max(k, q)) for k in range(5))
        assert geometry.dilations == tuple(2 ** max(q - k, 0) for k in range(5))


def test_random_start_of_the_last_layer() -> None:
    weight = RAN(start_as_sum=False).field.get_parameter("weight")
    bound = math.sqrt(6 / (27 * (11 + 3)))  # Glorot, uniform: not zero, not small
    assert 0.95 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(("spatial_dims", "shared_heads"), [(2, True), (2, False), (3, True)])
def test_start_as_the_sum_of_the_residuals(spatial_dims: int, shared_heads: bool) -> None:
    network = small(spatial_dims, start_as_sum=True, shared_heads=shared_heads)
    residuals: list[torch.Tensor] = []
    with torch.no_grad():  # without the filters that come on top, the sum is exact
        network.field.get_parameter("weight")[:, :-spatial_dims] = 0
        for level in network.levels:
            level.aligner.heads.field.get_parameter("weight")[:, 2:] = 0

        def look(_: nn.Module, args: tuple[Any, ...], varphi: torch.Tensor) -> None:
            residuals.append(varphi.unflatten(1, (spatial_dims, SMALL["num_heads"])).mean(2))

        for heads in {level.aligner.heads for level in network.levels}:
            heads.displacement.register_forward_hook(look)
        ddf = network(torch.rand(1, 2, *[8] * spatial_dims))

    coarse = 2 * (residuals[0] + residuals[1])[1:]
    expected = nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest") + residuals[2]
    assert residuals[2].abs().max() > 0
    torch.testing.assert_close(ddf, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_first_field_is_short(preset: str) -> None:
    network, image = RAN(2, preset=preset), torch.rand(2, 2, 32, 32)
    random = RAN(2, preset=preset, start_as_sum=False)(image)
    assert 0 < network(image).abs().mean() < 0.5 * random.abs().mean()
    assert all(p.count_nonzero() > 0 for p in network.parameters() if p.dim() > 1)


# --- the two directions


@pytest.mark.parametrize("size", [(12, 12), (13, 10), (8, 9, 11)])
def test_directions_swap_with_the_images(size: tuple[int, ...]) -> None:
    network, image = small(len(size)), torch.rand(2, 2, *size)
    forward, backward = network.both_directions(image)
    forward_swapped, backward_swapped = network.both_directions(swapped(image))

    torch.testing.assert_close(forward_swapped, backward, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(backward_swapped, forward, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(image), forward, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(swapped(image)), backward, rtol=1e-4, atol=1e-4)
    assert (forward - backward).abs().max() > 0.01


@pytest.mark.parametrize("preset", PRESETS)
def test_directions_of_the_presets(preset: str) -> None:
    network, image = RAN(2, preset=preset), torch.rand(1, 2, 18, 16)
    forward, backward = network.both_directions(image)
    torch.testing.assert_close(network(image), forward, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(network(swapped(image)), backward, rtol=1e-3, atol=1e-3)


def test_samples_do_not_mix() -> None:
    network, image = small(), torch.rand(3, 2, 10, 11)
    alone = torch.cat([network(image[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(image), alone, rtol=1e-4, atol=1e-4)


# --- a level


def test_field_grows_with_the_grid() -> None:
    network, seen = small(), []
    level = network.levels[2]
    level.aligner.register_forward_pre_hook(lambda _, args: seen.append(args))
    phi, theta = torch.randn(2, 2, 3, 4), torch.randn(2, 3, 3, 4)
    width = SMALL["decoder_channels"][1] + SMALL["skip_channels"]
    level(torch.randn(2, width, 3, 4), phi, theta, [7, 8], True)

    (target, source, finer_phi, finer_theta) = seen[0]
    cells = phi.numpy().repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_array_equal(finer_phi[:, :, :6].numpy(), 2 * cells)
    np.testing.assert_array_equal(finer_phi[:, :, 6].numpy(), 2 * cells[:, :, 5])
    np.testing.assert_array_equal(finer_theta[:, :, :6], theta.numpy().repeat(2, axis=2).repeat(2, axis=3))
    assert torch.equal(target.flip(0), source)  # the other image of the pair


def test_field_is_passed_on_where_the_grid_stays() -> None:
    network, seen = small(), []
    network.levels[1].aligner.register_forward_pre_hook(lambda _, args: seen.append(args))
    phi, theta = torch.randn(2, 2, 5, 4), torch.randn(2, 3, 5, 4)
    network.levels[1](torch.randn(2, 10, 5, 4), phi, theta, [5, 4], False)
    assert torch.equal(seen[0][2], phi[1:])
    assert torch.equal(seen[0][3], theta[1:])


def test_skip_is_zero_where_pooling_dropped_voxels() -> None:
    skip = 1 + torch.rand(1, 2, 3, 2)
    placed = place(skip, [15, 11], 2).numpy()
    expected = np.zeros((1, 2, 15, 11), dtype=np.float32)
    expected[:, :, :12, :8] = skip.numpy().repeat(4, axis=2).repeat(4, axis=3)
    np.testing.assert_array_equal(placed, expected)
    assert place(skip, [3, 2], 0) is skip


def test_last_odd_voxel_repeats_its_neighbor() -> None:
    x = torch.arange(3.0).reshape(1, 1, 3, 1)
    assert upsample_high(x, [7, 2])[0, 0, :, 1].tolist() == [0, 0, 1, 1, 2, 2, 2]


# --- what a user meets


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_in_3d_at_an_odd_size(preset: str) -> None:
    size = (17, 16, 19) if PRESETS[preset].scales[0] == 1 else (17, 19, 23)
    with torch.no_grad():
        ddf = RAN(preset=preset)(torch.rand(1, 2, *size))
    assert ddf.shape == (1, 3, *size)
    assert ddf.dtype == torch.float32
    assert ddf.isfinite().all()
    assert ddf.std() > 0


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (19, 23)])
def test_sizes_in_2d(size: tuple[int, int]) -> None:
    ddf = RAN(2)(torch.rand(2, 2, *size))
    assert ddf.shape == (2, 2, *size)
    assert ddf.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_images_give_finite_gradients(value: float) -> None:
    network, image = small(), torch.full((1, 2, 8, 8), value, requires_grad=True)
    network(image).square().sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("call", ["forward", "both_directions"])
def test_too_small_images(call: str) -> None:
    network = RAN()
    assert network.minimum_size == 16
    with pytest.raises(InputError, match="image has 16 x 15 x 20 voxels, expected at least 16 x 16 x 16"):
        getattr(network, call)(torch.rand(1, 2, 16, 15, 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "ran4plus"}, r"preset is 'ran4plus'; .*Did you mean 'ran4_plus'\?"),
        ({"head_weighting": "softmax_confidense"}, r"head_weighting .*Did you mean 'softmax_confidence'\?"),
    ],
)
def test_unknown_names(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RAN(**options)


@pytest.mark.parametrize("options", [{"in_channels": 1}, {"spatial_dims": 4}, {"spatial_dims": 2, "out_channels": 3}])
def test_channels_are_those_of_a_pair_and_a_field(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="RAN takes a moving and a fixed image and returns a field"):
        RAN(**options)
    assert RAN(2, 2, 2, **SMALL)(torch.rand(1, 2, 8, 8)).shape == (1, 2, 8, 8)


@pytest.mark.parametrize(
    ("geometry", "message"),
    [({"scales": [2, 2, 1]}, "does not fit together"), ({"dilation": [1, 1]}, "Did you mean 'dilations'")],
)
def test_a_geometry_has_to_fit_together(geometry: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RAN(**geometry)


# --- numerics


@pytest.mark.parametrize("options", [{}, {"shared_heads": True, "regressor_convs": 3}, {"skip_channels": 0}])
@pytest.mark.parametrize("head_weighting", ["softmax_confidence", "softmax", "raw"])
def test_gradients_reach_every_parameter(options: dict[str, Any], head_weighting: str) -> None:
    network, image = small(**options, head_weighting=head_weighting), torch.rand(2, 2, 9, 10, requires_grad=True)
    network(image).square().mean().backward()
    for name, tensor in [*network.named_parameters(), ("image", image)]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.count_nonzero() > 0, name


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_checkpointing_changes_no_gradient(spatial_dims: int) -> None:
    plain, saving = small(spatial_dims), small(spatial_dims, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    image, calls = torch.rand(1, 2, *[9, 8, 7][:spatial_dims]), []
    saving.levels[2].register_forward_pre_hook(lambda *_: calls.append(1))
    for network in (plain, saving):
        network(image).square().mean().backward()

    assert len(calls) == 2  # once forward, once more in the backward pass
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(saving.get_parameter(name).grad, parameter.grad, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(saving(image), plain(image))


def test_half_precision() -> None:
    network, image = small(), torch.rand(1, 2, 12, 13)
    expected = network(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ddf = network(image)
    ddf.sum().backward()

    assert ddf.dtype == torch.float32
    assert 0 < (ddf - expected).abs().mean() < 0.05 * expected.abs().mean()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_double_precision() -> None:
    network, image = small(), torch.rand(1, 2, 12, 13)
    expected = network(image)
    ddf = network.double()(image.double())
    assert ddf.dtype == torch.float64
    torch.testing.assert_close(ddf.float(), expected, rtol=1e-3, atol=1e-3)


# --- leaving Python


@pytest.mark.parametrize("size", [(9, 12), (8, 9, 10)])
def test_torchscript_equals_eager(size: tuple[int, ...]) -> None:
    network, image = small(len(size)).eval(), torch.rand(2, 2, *size)
    scripted = torch.jit.script(network)
    with torch.no_grad():
        torch.testing.assert_close(scripted(image), network(image))
        for actual, expected in zip(scripted.both_directions(image), network.both_directions(image), strict=True):
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("preset", ["ran0", "ran4_released"])
@pytest.mark.slow
def test_torchscript_of_the_presets(preset: str) -> None:
    network, image = RAN(2, preset=preset).eval(), torch.rand(1, 2, 19, 16)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(image), network(image))


@pytest.mark.slow
def test_torch_export() -> None:
    network, image = small(scales=(1, 1, 1)).eval(), torch.rand(1, 2, 8, 9)
    with torch.no_grad():
        program = torch.export.export(network, (image,))
        torch.testing.assert_close(program.module()(image), network(image))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 9), (9, 8, 10)])
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_onnx(size: tuple[int, ...], tmp_path: Any) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    network, image = small(len(size)).eval(), torch.rand(1, 2, *size)
    torch.onnx.export(network, (image,), tmp_path / "ran.onnx", dynamo=True, verbose=False)

    session = runtime.InferenceSession(tmp_path / "ran.onnx")
    (actual,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    np.testing.assert_allclose(actual, network(image).detach().numpy(), rtol=1e-3, atol=1e-3)
