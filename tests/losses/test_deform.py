from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.losses import (
    EdgeAwareSmoothnessLoss,
    FoldingLoss,
    GradientLoss,
    IsotropicTVLoss,
    isotropic_tv,
)
from monai_regplugins.metrics import folding

LOSSES = [
    lambda ddf, fixed: EdgeAwareSmoothnessLoss("l1")(ddf, fixed),
    lambda ddf, fixed: EdgeAwareSmoothnessLoss("l2", 25.0)(ddf, fixed),
    lambda ddf, fixed: GradientLoss(1)(ddf),
    lambda ddf, fixed: GradientLoss(2)(ddf),
    lambda ddf, fixed: IsotropicTVLoss()(ddf),
    lambda ddf, fixed: IsotropicTVLoss(normalized=False)(ddf),
    lambda ddf, fixed: FoldingLoss()(ddf),
]


def field_and_image(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ddf = torch.randn(2, len(shape), *shape, generator=generator, dtype=dtype)
    return ddf, torch.rand(2, 1, *shape, generator=generator, dtype=dtype)


def ramp(shape: tuple[int, ...], slope: float) -> torch.Tensor:
    """A field whose first component rises along the last axis."""
    ddf = torch.zeros(1, len(shape), *shape)
    ddf[:, 0] = slope * torch.arange(shape[-1])
    return ddf


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_a_ramp_on_a_flat_image(shape: tuple[int, ...]) -> None:
    d, ddf, flat = len(shape), ramp(shape, -3.0), torch.full((1, 1, *shape), 0.5)

    # One of d components on one of d axes, and 4 of the 5 differences: the first index counts as zero.
    assert EdgeAwareSmoothnessLoss("l1")(ddf, flat).item() == pytest.approx(3 * 0.8 / d**2)
    assert EdgeAwareSmoothnessLoss("l2")(ddf, flat).item() == pytest.approx(9 * 0.8)
    assert GradientLoss(1)(ddf).item() == pytest.approx(3 / d**2)
    assert GradientLoss(2)(ddf).item() == pytest.approx(9 / d**2)


def test_a_step_at_an_edge_costs_less() -> None:
    fixed, ddf = torch.zeros(1, 1, 4, 6), torch.zeros(1, 2, 4, 6)
    fixed[..., 3:], ddf[:, 0, :, 3:] = 0.8, 2.0
    # All of the field's change is in one column of six, in one component of two along one axis of two.
    l1 = 2 * math.exp(-25 * 0.8**2 / (0.2 + 0.8) ** 2) / 6 / 4
    l2 = 4 * math.exp(-1 * 0.8**2) ** 2 / 6

    assert EdgeAwareSmoothnessLoss("l1")(ddf, fixed).item() == pytest.approx(l1)
    assert EdgeAwareSmoothnessLoss("l2")(ddf, fixed).item() == pytest.approx(l2)
    assert EdgeAwareSmoothnessLoss("l1", 0.0)(ddf, fixed).item() == pytest.approx(2 / 6 / 4)


@pytest.mark.parametrize("shape", [(5, 4), (4, 5, 3)])
def test_random_fields_against_numpy(shape: tuple[int, ...]) -> None:
    ddf, fixed = field_and_image(shape)
    axes = range(2, 2 + len(shape))

    def backward(values: torch.Tensor) -> np.ndarray:
        array = values.numpy()
        return np.stack(
            [array - np.concatenate([array.take([0], k), array.take(range(array.shape[k] - 1), k)], k) for k in axes]
        )

    du, di = backward(ddf), backward(fixed)
    g1 = np.exp(-9 * (di**2).sum(0) / (0.2 + fixed.numpy()) ** 2)
    g2 = np.exp(-3 * (di**2).sum(0))

    assert EdgeAwareSmoothnessLoss("l1", 9.0)(ddf, fixed).item() == pytest.approx((np.abs(du) * g1).mean())
    per_voxel = ((du * g2) ** 2).sum(axis=(0, 2))  # over axes and components
    assert EdgeAwareSmoothnessLoss("l2", 3.0)(ddf, fixed).item() == pytest.approx(per_voxel.mean())


@pytest.mark.parametrize("power", [1, 2])
def test_gradient_against_numpy(power: int) -> None:
    ddf, _ = field_and_image((5, 4, 3))
    expected = np.mean([(np.abs(np.diff(ddf.numpy(), axis=k)) ** power).mean() for k in (2, 3, 4)])

    assert GradientLoss(power)(ddf).item() == pytest.approx(expected)


def test_total_variation_of_one_gaussian() -> None:
    x = np.linspace(-1, 1, 256)
    bell = 0.08 * np.exp(-0.5 * (x[:, None] ** 2 + x**2) / 0.1**2)
    ddf = torch.zeros(1, 2, 256, 256, dtype=torch.float64)
    ddf[0, 1] = torch.from_numpy(bell * 127.5)

    assert IsotropicTVLoss()(ddf).item() == pytest.approx(6.18e-5, abs=0.005e-5)
    assert IsotropicTVLoss(normalized=False)(ddf).item() == pytest.approx(6.18e-5 * 127.5, rel=1e-3)


@pytest.mark.parametrize("shape", [(5, 4), (4, 5, 3)])
def test_total_variation_against_numpy(shape: tuple[int, ...]) -> None:
    ddf, _ = field_and_image(shape)
    f = ddf.numpy() * 2 / (np.array(shape).reshape(-1, *[1] * len(shape)) - 1)
    lengths = []
    for b, c, *index in np.ndindex(2, len(shape), *(n - 1 for n in shape)):
        here = np.array(index) + 1
        lengths.append(
            np.linalg.norm([f[(b, c, *here)] - f[(b, c, *(here - e))] for e in np.eye(len(shape), dtype=int)])
        )

    assert IsotropicTVLoss()(ddf).item() == pytest.approx(np.mean(lengths))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(4, 3), (3, 4, 3)])
def test_gradients(loss, shape: tuple[int, ...]) -> None:
    ddf, fixed = field_and_image(shape)

    assert torch.autograd.gradcheck(lambda u: loss(u, fixed), ddf.requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
def test_no_displacement_gives_zero_and_no_gradient(loss) -> None:
    ddf = torch.zeros(1, 3, 4, 4, 4, requires_grad=True)
    value = loss(ddf, torch.rand(1, 1, 4, 4, 4))

    value.backward()

    assert value.item() == 0
    assert ddf.grad is not None
    assert torch.equal(ddf.grad, torch.zeros_like(ddf))


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_widened_and_autocast_ignored(loss) -> None:
    ddf, fixed = (values.bfloat16() for values in field_and_image((4, 4, 4), torch.float32))

    with torch.autocast("cpu", torch.bfloat16):
        value = loss(ddf, fixed)

    assert value.dtype == torch.float32
    assert torch.equal(value, loss(ddf.float(), fixed.float()))


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="form"):
        EdgeAwareSmoothnessLoss("l3")
    with pytest.raises(InputError, match="edge_scale"):
        EdgeAwareSmoothnessLoss(edge_scale=-1.0)
    with pytest.raises(InputError, match="edge_scale"):
        EdgeAwareSmoothnessLoss(edge_scale=float("nan"))
    with pytest.raises(InputError, match="power"):
        GradientLoss(3)
    for margin in (-0.1, 1.0):
        with pytest.raises(InputError, match="margin"):
            FoldingLoss(margin)
    with pytest.raises(InputError, match="ddf has 4 x 1 voxels"):
        IsotropicTVLoss()(torch.zeros(1, 2, 4, 1))
    with pytest.raises(InputError, match="fixed"):
        EdgeAwareSmoothnessLoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 1))


def test_total_variation_of_a_gaussian() -> None:
    y, x = np.meshgrid(*[np.linspace(-1, 1, 256)] * 2, indexing="ij")
    f = np.stack([np.zeros_like(x), 0.08 * np.exp(-(x**2 + y**2) / 2 / 0.1**2)])
    steps = [np.diff(f, axis=1)[:, :, 1:], np.diff(f, axis=2)[:, 1:]]

    value = isotropic_tv(torch.from_numpy(f)[None] * 127.5)

    assert value.item() == pytest.approx(np.hypot(*steps).mean(), rel=1e-12)
    assert value.item() == pytest.approx(6.18e-5, rel=1e-3)
    # In the plane, the mean slope of a Gaussian: its length integrates to v sigma pi sqrt(2 pi), over an area of 4.
    assert value.item() == pytest.approx(0.08 * 0.1 * math.pi * math.sqrt(2 * math.pi) / 4 / 2 * (2 / 255), rel=0.01)


@pytest.mark.parametrize("size", [(4, 5), (3, 4, 3)])
def test_total_variation_has_gradients(size: tuple[int, ...]) -> None:
    ddf = torch.randn(2, len(size), *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(isotropic_tv, ddf)

    zero = torch.zeros_like(ddf, requires_grad=True)
    isotropic_tv(zero).sum().backward()
    assert zero.grad is not None
    assert (zero.grad == 0).all()


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_what_turns_space_over_costs_its_determinant(shape: tuple[int, ...]) -> None:
    turned = ramp(shape, 0.0)
    turned[:, -1] = -3.0 * torch.arange(shape[-1])  # 1 - 3 is the determinant

    assert FoldingLoss(0.1)(turned).item() == pytest.approx(0.1 + 2)
    assert FoldingLoss(0.0)(turned / 4).item() == 0  # compressed to a quarter
    assert FoldingLoss(0.5)(turned / 4).item() == pytest.approx(0.25)
    assert FoldingLoss()(ramp(shape, -3.0)).item() == 0  # sheared


@pytest.mark.parametrize("shape", [(2, 2, 5, 7), (2, 2, 2, 2), (1, 3, 12, 5, 6), (2, 3, 2, 3, 2)])
def test_gradient_of_folding_is_that_of_its_formula(shape: tuple[int, ...]) -> None:
    """At the border of the image and between slabs too; with most voxels compressed, some or none."""
    for scale in (1.5, 0.4, 0.01):
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale
        ddf, same = drawn.clone().requires_grad_(), drawn.clone().requires_grad_()
        determinants = torch.linalg.det(torch.movedim(fields.jacobian(same), (1, 2), (-2, -1)))
        expected = (0.1 - determinants).relu().mean()
        found = FoldingLoss(0.1)(ddf)
        torch.testing.assert_close(found, expected)
        expected.backward()
        found.backward()
        torch.testing.assert_close(ddf.grad, same.grad, rtol=1e-9, atol=1e-12)


def test_descent_unfolds() -> None:
    generator = torch.Generator().manual_seed(0)
    ddf = torch.randn(1, 2, 16, 16, generator=generator).mul(1.5).requires_grad_()
    before = folding(ddf[0].detach())[1]
    optimizer = torch.optim.Adam([ddf], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        FoldingLoss()(ddf).backward()
        optimizer.step()
    assert before > 20
    assert folding(ddf[0].detach())[1] == 0
