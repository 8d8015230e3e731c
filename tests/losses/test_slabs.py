"""The loss in slabs is the loss of the whole, and so is its gradient by the nodes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_regplugins.checks import InputError
from monai_regplugins.losses import InstanceLoss
from monai_regplugins.losses.axis_products import along_axes, interpolation_matrix
from monai_regplugins.losses.drivers import Driver, LabelDistance, LandmarkDistance
from monai_regplugins.losses.instance import WeightedImage
from monai_regplugins.losses.slabs import SlabLoss

LOSSES: dict[str, dict[str, Any]] = {
    "ran": {"window": 5, "threshold": 0.2, "similarity_weight": 2.0, "smoothness": "edges_l2"},
    "strided": {"window": 5, "stride": 2, "smoothness": "edges_l2", "smoothness_weight": 0.3},
    "even window": {"window": 4, "stride": 3},
    "regnet": {"window": 5, "smoothness_weight": 3.0},
    "bending": {"window": 5, "smoothness_weight": 0.3, "bending_weight": 5.0},
    "bending alone": {"similarity": "mse", "smoothness_weight": 0.0, "bending_weight": 2.0},
    "mse": {"similarity": "mse", "outside": "ignore"},
}


def rows_of(ddf: Tensor) -> Callable[[slice], Tensor]:
    """Return what gives some rows of a field."""
    return lambda rows: ddf[:, :, rows]


@pytest.mark.parametrize("voxels", [1, 300, 10**6])
@pytest.mark.parametrize("size", [(17, 9), (14, 9, 8)])
@pytest.mark.parametrize("options", LOSSES.values(), ids=LOSSES)
def test_value_and_gradient(options: dict[str, Any], size: tuple[int, ...], voxels: int) -> None:
    loss, d = InstanceLoss(**options), len(size)
    moving, fixed = torch.rand(2, 1, 1, *size, dtype=torch.float64)
    masks = [(torch.rand_like(fixed) > 0.1).double() for _ in range(2)]
    pair = WeightedImage(moving, masks[0]), WeightedImage(fixed, masks[1])
    start = torch.randn(1, d, *size, dtype=torch.float64)
    weights = [interpolation_matrix(n, -(-n // 2), start) for n in size]
    nodes = torch.randn(1, d, *(w.shape[1] for w in weights), dtype=torch.float64, requires_grad=True)

    expected = loss.of_pair(*pair, padding="border")(start + along_axes(nodes, weights))
    (slope,) = torch.autograd.grad(expected, nodes)
    slabs = SlabLoss(loss, *pair, padding="border", voxels=voxels)
    value, gradient = slabs.of_nodes(rows_of(start), weights)(nodes.detach())

    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, slope)
    torch.testing.assert_close(slabs(start + along_axes(nodes.detach(), weights)), expected.detach())


@pytest.mark.parametrize("voxels", [1, 200])
def test_drivers_come_in_slabs_too(voxels: int) -> None:
    size = (14, 9, 8)
    moving, fixed, label = torch.rand(3, 1, 1, *size, dtype=torch.float64)
    region, points = (label > 0.5).double(), torch.tensor([[3.2, 4.1, 5.0], [9.0, 2.0, 7.5]], dtype=torch.float64)
    drivers: list[Driver] = [LabelDistance([(region, region.roll(2, 3))]), LandmarkDistance(points, -points / 9, size)]
    pair, loss = (WeightedImage(moving), WeightedImage(fixed)), InstanceLoss()
    start = torch.randn(1, 3, *size, dtype=torch.float64)
    weights = [interpolation_matrix(n, -(-n // 2), start) for n in size]
    nodes = torch.randn(1, 3, *(w.shape[1] for w in weights), dtype=torch.float64, requires_grad=True)
    ddf = start + along_axes(nodes, weights)
    expected = loss.of_pair(*pair)(ddf) + sum(driver(ddf) for driver in drivers)
    value, gradient = SlabLoss(loss, *pair, voxels=voxels, drivers=drivers).of_nodes(rows_of(start), weights)(
        nodes.detach()
    )
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, nodes)[0])


def test_images_of_several_channels_are_refused() -> None:
    image = WeightedImage(torch.rand(1, 2, 8, 8))
    with pytest.raises(InputError, match="images of 2 channels cannot be computed in slabs"):
        SlabLoss(InstanceLoss(), image, image)


def test_terms_that_do_not_come_in_slabs_are_refused() -> None:
    image = WeightedImage(torch.rand(1, 1, 8, 8))
    for options in ({"smoothness": "tv"}, {"folding_weight": 1.0}, {"similarity": "mind"}):
        loss = InstanceLoss(**options)  # type: ignore[arg-type]
        assert not SlabLoss.takes(loss)
        with pytest.raises(InputError, match="cannot be computed in slabs"):
            SlabLoss(loss, image, image)


def test_derivatives_of_earlier_slabs_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them take the memory of six images."""
    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    shares = SlabLoss._shares

    def counted(self: SlabLoss, *of: Any) -> Any:
        alive.append(sum(one() is not None for one in made))
        found = shares(self, *of)
        made.extend(weakref.ref(slope) for slope in found[1])
        return found

    monkeypatch.setattr(SlabLoss, "_shares", counted)
    pair, ddf = [WeightedImage(image) for image in torch.rand(2, 1, 1, 24, 9)], torch.zeros(1, 2, 24, 9)
    slabs = SlabLoss(InstanceLoss(window=3), *pair, voxels=18)
    slabs(ddf)
    slabs.of_nodes(rows_of(ddf), [interpolation_matrix(n, -(-n // 2), ddf) for n in (24, 9)])(torch.zeros(1, 2, 12, 5))
    assert len(made) == 2 * 2 * 12
    assert max(alive) <= 2  # of the slab before
