from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from monai_regplugins.checks import InputError
from monai_regplugins.networks.nets import RegNet
from monai_regplugins.networks.nets.regnet import (
    MARGIN_BEFORE,
    padded,
    refined,
    window_size,
)

PATCH = 54


def trained(spatial_dims: int, **options: Any) -> RegNet:
    """A narrow network in double precision with batch norms that have seen something."""
    network = RegNet(spatial_dims, width=0.2, **options).double()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.eval()


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def kernels(module: nn.Module) -> int:
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv3d))


# --- the paper's network


def test_number_of_parameters(meta: torch.device) -> None:
    network = RegNet()
    assert count(network) == 904_878
    assert kernels(network) == 902_124
    parts = (network.streams, network.low_streams, network.original, network.low, network.merged, network.head)
    assert [kernels(part) for part in parts if part is not None] == [28_512, 28_512, 41_850, 124_200, 656_100, 22_950]


def test_ablations(meta: torch.device) -> None:
    assert count(RegNet(scales="single")) == 702_783
    assert kernels(RegNet(fusion="early")) == 959_148


def test_two_dimensional_twin(meta: torch.device) -> None:
    assert count(RegNet(spatial_dims=2)) == pytest.approx(316_000, rel=0.01)


def test_layer_sizes(meta: torch.device) -> None:
    """Widths and sizes of the paper's Figure 1; pooling drops a plane of 19, which is not computed here, hence 18."""
    network, seen = RegNet(dense_mode="window").eval(), {}
    assert network.low is not None
    assert network.low_streams is not None
    parts = {"streams": network.streams, "low_streams": network.low_streams, "original": network.original}
    parts |= {"low": network.low, "merged": network.merged, "head": network.head}
    for name, part in parts.items():
        part.register_forward_hook(lambda _, __, output, name=name: seen.update({name: tuple(output.shape[1:])}))
    assert network(torch.empty(1, 2, 54, 54, 54)).shape == (1, 3, 1, 1, 1)
    assert seen == {
        "streams": (32, 22, 22, 22),
        "original": (30, 18, 18, 18),
        "low_streams": (32, 21, 21, 21),
        "low": (30, 9, 9, 9),
        "merged": (150, 1, 1, 1),
        "head": (3, 1, 1, 1),
    }


def operations(network: RegNet, size: int) -> float:
    """Multiply-adds of the convolutions."""
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 2, size, size, size))
    return counter.get_total_flops() / 2


def test_cost_per_patch(meta: torch.device) -> None:
    unused = 0  # what a patch of 29 voxels costs more than one of 28, whose pooled features are the same
    for channels, size in (((1, 16), 27), ((16, 16), 25), ((16, 16), 23)):
        unused += 2 * channels[0] * channels[1] * 27 * (size**3 - (size - 1) ** 3)
    for channels, size in (((32, 25), 21), ((25, 30), 19)):
        unused += channels[0] * channels[1] * 27 * (size**3 - (size - 1) ** 3)
    assert operations(RegNet(dense_mode="window").eval(), PATCH) + unused == 1_484_085_942


def test_cost_per_voxel_of_a_dense_field(meta: torch.device) -> None:
    size = 20_000  # so large that the continued border does not count
    per_voxel = operations(RegNet(dense_mode="exact"), size) / size**3
    assert per_voxel == pytest.approx(902_124, rel=0.01)
    assert 1_484_085_942 / per_voxel == pytest.approx(1645, rel=0.01)
    assert operations(RegNet(dense_mode="fast"), size) / size**3 == pytest.approx(174_332, rel=0.01)


def test_network_begins_by_comparing() -> None:
    """Equal images have equal features and no difference where they are joined; both streams have their own weights."""
    network = RegNet(2, width=0.2)
    image = torch.rand(1, 1, 60, 60).expand(1, 2, 60, 60)
    for streams, joined in ((network.streams, network.original), (network.low_streams, network.low)):
        assert streams is not None
        assert joined is not None
        fixed, moving = streams(image).chunk(2, dim=1)
        assert torch.equal(fixed, moving)
        assert joined[0][0](streams(image)).abs().max() < 1e-6
        weights = [next(stream.parameters()) for stream in (streams.fixed, streams.moving) if stream is not None]
        assert weights[0] is not weights[1]


# --- a dense field is what the patches give


@pytest.mark.slow
@pytest.mark.parametrize("low_res", ["mean", "stride"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_dense_equals_patch_by_patch(spatial_dims: int, low_res: str) -> None:
    network = trained(spatial_dims, low_res=low_res)
    image = torch.rand(2, 2, *(57, 56, 55)[:spatial_dims], dtype=torch.float64)
    with torch.no_grad():
        dense = network.dense_field(image)
        assert dense.shape[2:] == (4, 3, 2)[:spatial_dims]
        patches = torch.zeros_like(dense)
        for corner in product(*map(range, dense.shape[2:])):
            patch = image
            for axis, start in enumerate(corner, start=2):
                patch = patch.narrow(axis, start, PATCH)
            patches[(..., *corner)] = network.window_field(patch).flatten(1)
    torch.testing.assert_close(dense, patches, rtol=0, atol=1e-12)
    shifted = dense.roll(1, dims=2)  # the comparison sees a shift by one voxel
    assert (shifted - patches).abs().max() > 1e-6


@pytest.mark.parametrize("low_res", ["mean", "stride"])
def test_window_is_every_second_voxel(low_res: str) -> None:
    network = trained(3, low_res=low_res)
    image = torch.rand(1, 2, window_size(3), window_size(2), window_size(1), dtype=torch.float64)
    with torch.no_grad():
        window, dense = network.window_field(image), network.dense_field(image)
    assert window.shape == (1, 3, 3, 2, 1)
    torch.testing.assert_close(window, dense[..., ::2, ::2, ::2], rtol=0, atol=1e-12)


def test_receptive_field() -> None:
    """The field of a voxel c depends on c - 27 to c + 26 along each axis, and on nothing else."""
    network = trained(2)
    image = torch.rand(1, 2, 100, 100, dtype=torch.float64, requires_grad=True)
    network.dense_mode = "exact"
    network(image)[0, :, 50, 50].sum().backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (50 - MARGIN_BEFORE, 50 + 26)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_fast_mode_meets_the_exact_one_at_every_second_voxel(spatial_dims: int) -> None:
    network = trained(spatial_dims)
    image = torch.rand(1, 2, *(8, 7, 5)[:spatial_dims], dtype=torch.float64)
    fields = {}
    for network.dense_mode in ("exact", "fast"):
        with torch.no_grad():
            fields[network.dense_mode] = network(image)
        assert fields[network.dense_mode].shape == (1, spatial_dims, *image.shape[2:])
    every_second = (..., *[slice(None, None, 2)] * spatial_dims)
    torch.testing.assert_close(fields["fast"][every_second], fields["exact"][every_second], rtol=0, atol=1e-12)
    between = fields["fast"][(..., *[slice(1, 3, 2)] * spatial_dims)]
    corners = [fields["exact"][(..., *corner)] for corner in product((0, 2), repeat=spatial_dims)]
    torch.testing.assert_close(between.flatten(), torch.stack(corners).mean(0).flatten(), rtol=0, atol=1e-12)


def test_refined_is_linear_between_the_samples() -> None:
    positions = torch.arange(0.0, 9.0, 2.0)  # 0, 2, ..., 8
    assert torch.equal(refined(positions.expand(1, 1, 5, 5), [9, 8])[0, 0, 0], torch.arange(8.0))


def test_border_continues_the_image() -> None:
    assert padded(torch.ones(1, 1, 5, 6), False).shape == (1, 1, 58, 59)
    assert bool((padded(torch.ones(1, 1, 5, 6), True) == 1).all())


# --- what MONAI needs of it


@pytest.mark.parametrize("dense_mode", ["fast", "exact", "window"])
@pytest.mark.parametrize("options", [{}, {"scales": "single"}, {"fusion": "early"}, {"low_res": "stride"}])
def test_scripted_equals_eager(dense_mode: str, options: dict[str, Any]) -> None:
    network = trained(2, dense_mode=dense_mode, **options)
    image = torch.rand(2, 2, 60, 58, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(image), network(image))


def test_folded_batch_norms_change_nothing() -> None:
    network = trained(3)
    image = torch.rand(1, 2, 55, 54, 54, dtype=torch.float64)
    folded = network.folded()
    assert not any(isinstance(module, nn.BatchNorm3d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm3d) for module in network.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded.window_field(image), network.window_field(image))
        torch.testing.assert_close(folded.folded().window_field(image), network.window_field(image))


def test_samples_of_a_batch_do_not_influence_each_other() -> None:
    network = trained(2)
    image = torch.rand(3, 2, 20, 24, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), torch.cat([network(one) for one in image.split(1)]))


@pytest.mark.parametrize("options", [{}, {"scales": "single"}, {"fusion": "early"}])
def test_learns_one_batch(options: dict[str, Any]) -> None:
    network = RegNet(2, dense_mode="window", width=0.3, **options)
    image, true_ddf = torch.rand(4, 2, 58, 58), torch.rand(4, 2, 3, 3).sub(0.5).mul(8)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = (network(image) - true_ddf).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"in_channels": 1}, "in_channels"),
        ({"fusion": "middle"}, "fusion"),
        ({"scales": "two"}, "scales"),
        ({"low_res": "max"}, "low_res"),
        ({"dense_mode": "slow"}, "dense_mode"),
        ({"width": 0.0}, "width"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RegNet(**options)


def test_window_smaller_than_a_patch() -> None:
    with pytest.raises(InputError, match="54"):
        RegNet(2, dense_mode="window")(torch.rand(1, 2, 54, 53))
