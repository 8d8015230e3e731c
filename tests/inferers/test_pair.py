from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.fields import identity_grid
from monai_regplugins.inferers import PairInferer


class FakeNetwork:
    """Return the field that ``field`` makes from the input, and remember the input."""

    def __init__(self, field: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.field = field
        self.seen = torch.empty(0)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.seen = image
        return self.field(image)


def coordinates(image: torch.Tensor) -> torch.Tensor:
    """A field that says at each voxel where it is."""
    return identity_grid(image.shape[2:]).expand(len(image), -1, *[-1] * (image.dim() - 2))


def constant(*values: float) -> Callable[[torch.Tensor], torch.Tensor]:
    column = torch.tensor(values).reshape(1, -1, *[1] * len(values))
    return lambda image: column.expand(len(image), -1, *image.shape[2:])


@pytest.mark.parametrize(
    ("size", "options", "grid"),
    [
        ((16, 20), {}, (16, 20)),
        ((9, 20), {}, (16, 20)),
        ((8, 15, 17), {}, (16, 16, 17)),
        ((17, 20), {"divisor": 8}, (24, 24)),
        ((5, 9), {"minimum_size": 10, "divisor": 4}, (12, 12)),
        ((30, 10), {"spatial_size": [10, -1], "divisor": 8}, (16, 16)),
    ],
)
def test_padding(size: tuple[int, ...], options: dict[str, object], grid: tuple[int, ...]) -> None:
    network, image = FakeNetwork(coordinates), 1 + torch.rand(2, 2, *size)
    ddf = PairInferer(**options)(image, network)["ddf"]  # type: ignore[arg-type]

    assert network.seen.shape == (2, 2, *grid)
    assert ddf.shape == (2, len(size), *size)
    if "spatial_size" not in options:
        inside = (slice(None), slice(None), *[slice(n) for n in size])
        assert torch.equal(network.seen[inside], image)
        assert network.seen.count_nonzero() == image.numel()  # the rest is zero
        assert torch.equal(ddf[0], identity_grid(size))


def test_resizing_scales_a_constant_field() -> None:
    network = FakeNetwork(constant(1.0, 2.0, -3.0))
    ddf = PairInferer(spatial_size=[16, 20, -1])(torch.rand(1, 2, 32, 10, 18), network)["ddf"]
    assert network.seen.shape == (1, 2, 16, 20, 18)
    for component, value in zip(ddf[0], (2.0, 1.0, -3.0), strict=True):
        torch.testing.assert_close(component, torch.full_like(component, value))


@pytest.mark.parametrize(("native", "grid"), [(32, 16), (16, 32), (24, 18)])
def test_resizing_keeps_a_linear_field(native: int, grid: int) -> None:
    # u = (x + 0.5) / 4 about the grid's face reads the same in voxels of any grid, away from the border.
    network = FakeNetwork(lambda image: (coordinates(image) + 0.5) / 4)
    ddf = PairInferer(spatial_size=[grid, grid])(torch.rand(1, 2, native, native), network)["ddf"]
    inner = slice(2, -2)
    torch.testing.assert_close(ddf[0, :, inner, inner], ((identity_grid([native, native]) + 0.5) / 4)[:, inner, inner])


def test_network_sees_the_mean_of_the_voxels_that_merge() -> None:
    network, image = FakeNetwork(constant(0.0, 0.0)), torch.rand(3, 2, 32, 16)
    PairInferer(spatial_size=[16, -1])(image, network)
    expected = image.numpy().reshape(3, 2, 16, 2, 16).mean(axis=3)
    np.testing.assert_allclose(network.seen.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("keep", [[], [-1, -1], [0, -1], [18, 20]])
def test_axes_are_kept(keep: list[int]) -> None:
    network, image = FakeNetwork(coordinates), torch.rand(1, 2, 18, 20)
    ddf = PairInferer(spatial_size=keep)(image, network)["ddf"]
    assert torch.equal(network.seen, image)
    assert torch.equal(ddf[0], identity_grid((18, 20)))


def test_result_is_a_dictionary_of_field_and_warped_moving_image() -> None:
    image = torch.rand(2, 2, 16, 17)
    pred = PairInferer()(image, FakeNetwork(constant(2.0, -3.0)))
    assert set(pred) == {"ddf", "warped"}
    expected = torch.zeros(2, 1, 16, 17)
    expected[..., :-2, 3:] = image[:, :1, 2:, :-3]
    torch.testing.assert_close(pred["warped"], expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_warped_is_that_of_the_fields(padding: str) -> None:
    image, ddf = torch.rand(1, 2, 16, 17, 18), 5 * torch.randn(1, 3, 16, 17, 18)
    pred = PairInferer(padding=padding)(image, FakeNetwork(lambda _: ddf))
    assert torch.equal(pred["ddf"], ddf)
    assert torch.equal(pred["warped"], fields.warp(image[:, :1], ddf, padding=padding))
    other = {"zeros": "border", "border": "zeros"}[padding]
    assert not torch.equal(pred["warped"], fields.warp(image[:, :1], ddf, padding=other))


def test_resized_field_warps_the_native_image() -> None:
    # A shift of one coarse voxel is one of two fine voxels; the moving image keeps its detail.
    image = torch.rand(1, 2, 32, 32)
    pred = PairInferer(spatial_size=[16, 16])(image, FakeNetwork(constant(1.0, 0.0)))
    torch.testing.assert_close(pred["warped"][..., :-2, :], image[:, :1, 2:], atol=1e-5, rtol=0.0)


def test_each_pass_sees_what_is_left_on_a_grid_twice_as_fine() -> None:
    seen: list[torch.Tensor] = []

    def network(image: torch.Tensor) -> torch.Tensor:
        seen.append(image)
        return constant(1.0, 0.0)(image)

    image = torch.rand(1, 2, 64, 64)
    pred = PairInferer(spatial_size=[16, 16], passes=3)(image, network)
    assert [item.shape[2:] for item in seen] == [(16, 16), (32, 32), (64, 64)]
    torch.testing.assert_close(pred["ddf"], constant(4.0 + 2.0 + 1.0, 0.0)(image))
    torch.testing.assert_close(pred["warped"][..., :-7, :], image[:, :1, 7:], atol=1e-5, rtol=0.0)
    torch.testing.assert_close(seen[2][:, :1, :-6], image[:, :1, 6:], atol=1e-5, rtol=0.0)
    torch.testing.assert_close(seen[2][:, 1:], image[:, 1:])
    assert torch.equal(pred["ddf"], PairInferer([16, 16], passes=3)(image[:, :1], network, image[:, 1:])["ddf"])


def test_no_pass_sees_finer_voxels_than_those_of_the_images() -> None:
    seen: list[list[int]] = []

    def network(image: torch.Tensor) -> torch.Tensor:
        seen.append(list(image.shape[2:]))
        return constant(0.0, 0.0)(image)

    PairInferer(spatial_size=[16, 24], passes=4)(torch.rand(1, 2, 40, 20), network)
    assert seen == [[16, 24], [32, 24], [40, 24], [40, 24]]


def test_passes_compose_their_fields() -> None:
    image, u = torch.rand(1, 2, 16, 17), torch.randn(2, 1, 2, 16, 17)
    answers = iter(u)
    pred = PairInferer(passes=2)(image, lambda _: next(answers))
    assert torch.equal(pred["ddf"], fields.compose(u[0], u[1]))
    with pytest.raises(InputError, match="passes is 0, expected at least 1"):
        PairInferer(passes=0)


def test_moving_and_fixed_apart() -> None:
    image, inferer = torch.rand(2, 2, 18, 10), PairInferer(spatial_size=[12, -1])
    network = FakeNetwork(lambda x: x[:, :1] - 2 * x[:, 1:].expand(-1, 2, -1, -1))
    together, apart = inferer(image, network), inferer(image[:, :1], network, fixed=image[:, 1:])
    assert all(torch.equal(together[key], apart[key]) for key in ("ddf", "warped"))
    swapped = inferer(image[:, 1:], network, fixed=image[:, :1])
    assert not torch.equal(together["ddf"], swapped["ddf"])


def test_further_arguments_reach_the_network() -> None:
    def network(image: torch.Tensor, shift: float, scale: float = 1.0) -> torch.Tensor:
        return torch.full_like(image, shift * scale)

    pred = PairInferer()(torch.rand(1, 2, 16, 16), network, None, 3.0, scale=2.0)
    assert (pred["ddf"] == 6).all()


def test_warp_runs_in_float32_under_autocast() -> None:
    image = torch.rand(1, 2, 16, 16)
    conv = torch.nn.Conv2d(2, 2, 3, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv(image).dtype == torch.bfloat16
        pred = PairInferer()(image, conv)
    assert pred["ddf"].dtype == pred["warped"].dtype == torch.float32
    assert torch.equal(pred["warped"], fields.warp(image[:, :1], pred["ddf"]))


def test_half_precision_images() -> None:
    image = torch.rand(1, 2, 16, 16).half()
    network = FakeNetwork(constant(0.5, 0.25))
    pred = PairInferer()(image, network)
    assert network.seen.dtype == pred["ddf"].dtype == pred["warped"].dtype == torch.float32
    assert torch.equal(pred["warped"], fields.warp(image[:, :1].float(), pred["ddf"]))


@pytest.mark.parametrize("spatial_size", [[], [-1, 32]])
def test_too_small_image(spatial_size: list[int]) -> None:
    inferer = PairInferer(spatial_size=spatial_size)
    with pytest.raises(InputError, match=r"image has 7 x (16|32) voxels, expected at least 8 x 8"):
        inferer(torch.rand(1, 2, 7, 16), FakeNetwork(constant(0.0, 0.0)))
    assert inferer(torch.rand(1, 2, 8, 8), FakeNetwork(constant(0.0, 0.0)))["ddf"].shape == (1, 2, 8, 8)


@pytest.mark.parametrize("slices", [2, 3, 7])
def test_a_stack_of_few_slices_is_seen_on_the_grid_of_the_network(slices: int) -> None:
    network = FakeNetwork(constant(3.0, 1.0))
    found = PairInferer(spatial_size=[16, 24])(torch.rand(1, 2, slices, 20), network)["ddf"]
    assert network.seen.shape[2:] == (16, 24)
    np.testing.assert_allclose(found[0, 0], 3.0 * slices / 16, rtol=1e-5)
    np.testing.assert_allclose(found[0, 1], 1.0 * 20 / 24, rtol=1e-5)


@pytest.mark.parametrize("key", ["ddf", "warped"])
def test_gradient_reaches_network_and_image(key: str) -> None:
    image, conv = torch.rand(1, 2, 20, 9, requires_grad=True), torch.nn.Conv2d(2, 2, 3, padding=1)
    pred = PairInferer(spatial_size=[10, -1])(image, conv)
    gradients = torch.autograd.grad(pred[key].square().sum(), [image, *conv.parameters()])
    assert all(g.isfinite().all() and g.count_nonzero() > 0 for g in gradients)


def test_samples_do_not_mix() -> None:
    image = torch.rand(3, 2, 20, 9)
    network = FakeNetwork(lambda x: x.cumsum(2))
    inferer = PairInferer(spatial_size=[10, 16])
    together = inferer(image, network)
    for i in range(3):
        alone = inferer(image[i : i + 1], network)
        for key in ("ddf", "warped"):
            torch.testing.assert_close(together[key][i : i + 1], alone[key])


def test_gradient_of_the_warped_image_to_the_moving_one() -> None:
    image = torch.rand(1, 2, 16, 16, requires_grad=True)
    warped = PairInferer()(image, FakeNetwork(constant(2.0, 0.0)))["warped"]
    (gradient,) = torch.autograd.grad(warped.sum(), image)
    expected = torch.zeros(1, 2, 16, 16)
    expected[:, 0, 2:] = 1.0  # rows 0 and 1 are sampled by no voxel, the fixed image by none at all
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_returns_no_numbers(value: float) -> None:
    """Without gradients the pair ends there; a training looks at its loss."""

    def one_wrong(image: torch.Tensor) -> torch.Tensor:
        ddf = constant(1.0, 2.0)(image).clone()
        ddf[0, 1, 3, 4] = value
        return ddf

    image = torch.rand(1, 2, 16, 20)
    with torch.no_grad(), pytest.raises(InputError, match="the network returned 1 of 640 displacements that are not"):
        PairInferer()(image, one_wrong)
    assert not PairInferer()(image, one_wrong)["ddf"].isfinite().all()


@pytest.mark.parametrize(("size", "minimum", "least"), [([8, 7], 16, 8), ([16, 15], 32, 16), ([-1, 2], 5, 3)])
def test_sizes_that_no_image_may_have_are_refused_at_once(size: list[int], minimum: int, least: int) -> None:
    with pytest.raises(InputError, match=rf"spatial_size is .*, expected at least {least} voxels along each axis"):
        PairInferer(size, minimum)
    PairInferer([max(n, least) for n in size], minimum)
