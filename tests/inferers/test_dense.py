from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.inferers import DenseInferer, predict_at_points
from monai_regplugins.networks.nets import RegNet


def network(spatial_dims: int = 2, **options: Any) -> RegNet:
    """A narrow network whose field is some voxels long."""
    net = RegNet(spatial_dims, width=0.2, **options)
    torch.nn.init.normal_(net.head[1].weight, std=1.0)
    return net.eval()


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize(
    ("size", "tile"),
    [((21, 34), 8), ((9, 7), 2), pytest.param((10, 9, 13), 4, marks=pytest.mark.slow), ((10, 9, 13), 64)],
)
def test_tiles_meet_without_seams(mode: str, size: tuple[int, ...], tile: int) -> None:
    net, image = network(len(size), dense_mode=mode), torch.rand(2, 2, *size)
    with torch.no_grad():
        expected = net(image)
        found = DenseInferer(mode, None, tile=tile)(image, net)
    scale = expected.abs().max().item()
    torch.testing.assert_close(found["ddf"], expected, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(found["warped"], fields.warp(image[:, :1], found["ddf"]))


def test_works_on_voxels_of_its_own_size() -> None:
    """Voxels of 2 x 1 mm are brought to 1 mm, and displacements back to voxels."""
    net, image = network(dense_mode="exact"), torch.rand(1, 2, 10, 20)
    fine = image.repeat_interleave(2, dim=2)
    with torch.no_grad():
        on_fine = DenseInferer("exact", 1.0)(fine, net, spacing=torch.ones(1, 2))["ddf"]
        coarse = torch.nn.functional.avg_pool2d(fine, (2, 1))
        assert torch.equal(coarse, image)
        found = DenseInferer("exact", 1.0)(image, net, spacing=torch.tensor([[2.0, 1.0]]))["ddf"]
        seen = torch.nn.functional.interpolate(image, size=(20, 20), mode="bilinear", align_corners=False)
        expected = fields.resize(net(seen), (10, 20))
    assert found.shape == image.shape
    assert on_fine.shape == fine.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_mask_limits_the_work() -> None:
    net, image, mask = network(dense_mode="exact"), torch.rand(1, 2, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., 9, 3] = 1
    inferer = DenseInferer("exact", None, tile=8)
    with torch.no_grad():
        whole, limited = inferer(image, net)["ddf"], inferer(image, net, fixed_mask=mask)["ddf"]
    torch.testing.assert_close(limited[..., 8:, :8], whole[..., 8:, :8])
    assert bool((limited[..., :8, :] == 0).all())
    assert bool((limited[..., 8:, 8:] == 0).all())


class Constant(RegNet):
    """Stands in for a trained network: finds one voxel along the first axis, whatever the resolution."""

    def dense_field(self, window: torch.Tensor) -> torch.Tensor:
        ddf = torch.zeros(len(window), self.spatial_dims, *(n - 53 for n in window.shape[2:]))
        ddf[:, 0] = 1
        return ddf


def test_stages_compose() -> None:
    """Shifts of 4, 2 and 1 voxels add up to 7."""
    image = torch.rand(1, 2, 32, 16)
    ddf = DenseInferer("exact", None, stages=[4, 2, 1])(image, Constant(2, width=0.1).eval())["ddf"]
    torch.testing.assert_close(ddf[:, 0], torch.full((1, 32, 16), 7.0))
    torch.testing.assert_close(ddf[:, 1], torch.zeros(1, 32, 16))


def test_a_stage_may_be_repeated() -> None:
    """Two shifts of 2 voxels and two of 1 add up to 6: each sees what is left, also where its factor is the first's."""
    image = torch.rand(1, 2, 32, 16)
    ddf = DenseInferer("exact", None, stages=[2, 2, 1, 1])(image, Constant(2, width=0.1).eval())["ddf"]
    torch.testing.assert_close(ddf[:, 0], torch.full((1, 32, 16), 6.0))


def test_each_stage_sees_what_the_last_has_left() -> None:
    """With stages the warped image is that of all fields together, with one interpolation of the original.

    Between the stages the image continues at its edges, as it does for the network.
    """
    net, image = network(dense_mode="exact"), torch.rand(1, 2, 24, 20)
    with torch.no_grad():
        first = DenseInferer("exact", None, stages=[2], padding="border")(image, net)
        second = DenseInferer("exact", None)(torch.cat([first["warped"], image[:, 1:]], dim=1), net)
        both = DenseInferer("exact", None, stages=[2, 1])(image, net)
    torch.testing.assert_close(both["ddf"], fields.compose(first["ddf"], second["ddf"]))
    torch.testing.assert_close(both["warped"], fields.warp(image[:, :1], both["ddf"]))


def test_stages_may_have_networks_of_their_own() -> None:
    image, one, other = torch.rand(1, 2, 16, 16), network(), network()
    with torch.no_grad():
        found = DenseInferer("fast", None, stages=[2, 1], networks={2: other})(image, one)["ddf"]
        swapped = DenseInferer("fast", None, stages=[2, 1], networks={1: one})(image, other)["ddf"]
    torch.testing.assert_close(found, swapped)


def test_window_mode_is_the_forward_of_the_network() -> None:
    net, window = RegNet(2, width=0.2, dense_mode="window").train(), torch.rand(2, 2, 58, 58)
    prediction = DenseInferer("window")(window, net)
    assert list(prediction) == ["ddf"]
    assert prediction["ddf"].shape == (2, 2, 3, 3)
    assert prediction["ddf"].requires_grad


def test_batch_norms_stay_in_the_network() -> None:
    net = network(2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        DenseInferer("fast", None)(torch.rand(1, 2, 9, 9), net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_prediction_at_points(spatial_dims: int) -> None:
    net = network(spatial_dims, dense_mode="exact")
    image = torch.rand(1, 2, *(12, 9, 10)[:spatial_dims])
    points = torch.rand(7, spatial_dims) * (torch.tensor(image.shape[2:]) - 1)
    points[0] = torch.tensor(image.shape[2:]) - 1  # the last voxel
    with torch.no_grad():
        expected = fields.sample_at(net(image), points[None])[0]
    torch.testing.assert_close(predict_at_points(net, image, points, batch=3), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "quick"}, "mode"),
        ({"voxel_size": 0.0}, "voxel_size"),
        ({"tile": 7}, "even"),
        ({"tile": 0}, "even"),
        ({"stages": []}, "stages"),
        ({"stages": [2, 0]}, "stages"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DenseInferer(**options)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({}, "no spacing"),
        ({"spacing": torch.tensor([[1.0, 1.0], [1.0, 2.0]])}, "expected one"),
        ({"spacing": torch.zeros(2, 2)}, "above 0"),
        ({"spacing": torch.ones(2, 2), "fixed_mask": torch.ones(2, 1, 9, 8)}, "fixed mask"),
    ],
)
def test_bad_input(extra: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DenseInferer("fast")(torch.rand(2, 2, 9, 9), network(), **extra)


def test_points_outside_and_training_networks_are_refused() -> None:
    with pytest.raises(InputError, match="outside"):
        predict_at_points(network(), torch.rand(1, 2, 9, 9), torch.tensor([[3.0, 9.5]]))
    with pytest.raises(InputError, match="eval"):
        predict_at_points(network().train(), torch.rand(1, 2, 9, 9), torch.tensor([[3.0, 3.0]]))


@pytest.mark.parametrize("bfloat16", [True, False, None])
def test_windows_in_reduced_precision(bfloat16: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in bfloat16 where it is asked for or, by default, fast; the field is float32 and almost the same."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    net, window, seen = network(dense_mode="window"), torch.rand(2, 2, 58, 58), []
    net.original[0][0].register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    ddf = DenseInferer("window", bfloat16=bfloat16)(window, net)["ddf"]
    assert seen == [torch.bfloat16 if bfloat16 else torch.float32]
    assert ddf.dtype == torch.float32
    expected = net(window)
    assert (ddf - expected).abs().mean() <= 0.03 * expected.abs().mean()


def test_a_network_that_returns_no_numbers() -> None:
    net = network()
    net.head[1].bias.data[0] = float("nan")
    with torch.no_grad(), pytest.raises(InputError, match=r"the network returned .* displacements that are not"):
        DenseInferer(voxel_size=None)(torch.rand(1, 2, 20, 20), net)
