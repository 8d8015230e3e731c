from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.losses import LocalNormalizedCrossCorrelationLoss

from monai_regplugins.checks import InputError
from monai_regplugins.losses import MaskedLNCCLoss, MaskedMSELoss


def pair(
    shape: tuple[int, ...], batch: int = 1, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    fixed = torch.rand(batch, 1, *shape, generator=generator, dtype=dtype)
    return 0.5 * fixed + 0.5 * torch.rand(batch, 1, *shape, generator=generator, dtype=dtype), fixed


def loop_over_windows(i: np.ndarray, j: np.ndarray, window: int, eps: float) -> np.ndarray:
    """The definition, voxel by voxel."""
    result = np.zeros_like(i)
    for index in itertools.product(*map(range, i.shape)):
        box = tuple(slice(max(x - (window - 1) // 2, 0), x + window // 2 + 1) for x in index)
        a, b = i[box] - i[box].mean(), j[box] - j[box].mean()
        result[index] = (a * b).sum() ** 2 / ((a * a).sum() * (b * b).sum() + eps)
    return result


@pytest.mark.parametrize("shape", [(7, 6), (6, 6, 6)])
@pytest.mark.parametrize("window", [2, 3, 4, 8])
def test_lncc_equals_the_definition(window: int, shape: tuple[int, ...]) -> None:
    warped, fixed = pair(shape, dtype=torch.float64)
    expected = loop_over_windows(warped[0, 0].numpy(), fixed[0, 0].numpy(), window, 1e-5)

    loss = MaskedLNCCLoss(window)

    np.testing.assert_allclose(loss.correlation(warped, fixed)[0, 0].numpy(), expected, atol=1e-9)
    inside = fixed[0, 0].numpy() > 0.1
    assert loss(warped, fixed).item() == pytest.approx(-expected[inside].mean(), abs=1e-9)


@pytest.mark.parametrize("dims", [2, 3])
def test_lncc_equals_monai_away_from_the_border(dims: int) -> None:
    warped, fixed = pair((12,) * dims, dtype=torch.float64)
    monai = LocalNormalizedCrossCorrelationLoss(
        dims, 5, "rectangular", reduction="none", smooth_nr=0.0, smooth_dr=1e-12
    )
    inside = (..., *([slice(2, -2)] * dims))

    ours = -MaskedLNCCLoss(5, threshold=None, eps=1e-12).correlation(warped, fixed)

    torch.testing.assert_close(ours[inside], monai(warped, fixed)[inside], atol=1e-9, rtol=0)


def test_lncc_does_not_see_gain_and_offset() -> None:
    warped, fixed = pair((10, 9, 8))
    loss = MaskedLNCCLoss(5, threshold=None)

    assert loss(0.4 + 0.5 * fixed, fixed).item() == pytest.approx(-1, abs=1e-3)
    torch.testing.assert_close(loss(0.3 + 0.6 * warped, fixed), loss(warped, fixed), atol=1e-3, rtol=0)


def test_lncc_keeps_its_digits_on_bright_images() -> None:
    warped, fixed = pair((10, 10, 10))
    warped, fixed = 0.9 + 0.1 * warped, 0.9 + 0.1 * fixed
    loss = MaskedLNCCLoss(7, threshold=None)

    assert loss(warped, fixed).item() == pytest.approx(loss(warped.double(), fixed.double()).item(), abs=1e-5)


def test_lncc_averages_over_the_mask_of_each_sample() -> None:
    warped, fixed = pair((8, 8), batch=2)
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    mask[0, 0, 1:3, 2:4], mask[1, 0, :, 5:] = 1, 1
    loss = MaskedLNCCLoss(3)
    correlation = loss.correlation(warped, fixed)

    expected = -(correlation[0, 0, 1:3, 2:4].mean() + correlation[1, 0, :, 5:].mean()) / 2

    torch.testing.assert_close(loss(warped, fixed, mask), expected)


@pytest.mark.parametrize("loss", [MaskedLNCCLoss(3), MaskedMSELoss()])
def test_an_empty_mask_gives_zero_and_finite_gradients(loss: torch.nn.Module) -> None:
    warped, fixed = pair((6, 6))
    warped.requires_grad_()

    for value in (loss(warped, fixed, torch.zeros_like(fixed)), loss(warped, torch.zeros_like(fixed))):
        (gradient,) = torch.autograd.grad(value, warped)
        assert value.item() == 0
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_lncc_of_flat_images_is_zero_with_finite_gradients(level: float) -> None:
    warped = torch.full((1, 1, 9, 9, 9), level, requires_grad=True)
    value = MaskedLNCCLoss(threshold=None)(warped, torch.full((1, 1, 9, 9, 9), 0.7))

    value.backward()

    assert value.item() == pytest.approx(0, abs=1e-6)
    assert warped.grad is not None
    assert warped.grad.isfinite().all()


def test_mse_is_masked_but_averaged_over_all_voxels() -> None:
    warped, fixed = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.0, 0.005], [0.5, 1.0]]]])

    assert MaskedMSELoss()(warped, fixed).item() == pytest.approx((0.25 + 1) / 4)
    assert MaskedMSELoss(None)(warped, fixed).item() == pytest.approx((0.005**2 + 0.25 + 1) / 4)
    only_first = torch.tensor([[[[0, 1], [0, 0]]]])
    assert MaskedMSELoss()(warped, fixed, only_first).item() == pytest.approx(0.005**2 / 4)


@pytest.mark.parametrize("loss", [MaskedLNCCLoss(3), MaskedLNCCLoss(4, None), MaskedMSELoss()])
@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 4)])
def test_gradients(loss: torch.nn.Module, shape: tuple[int, ...]) -> None:
    warped, fixed = pair(shape, batch=2, dtype=torch.float64)

    assert torch.autograd.gradcheck(lambda x: loss(x, fixed), warped.requires_grad_())


@pytest.mark.parametrize("loss", [MaskedLNCCLoss(), MaskedMSELoss()])
def test_half_precision_is_widened_and_autocast_ignored(loss: torch.nn.Module) -> None:
    warped, fixed = (image.bfloat16() for image in pair((9, 9, 9)))
    expected = loss(warped.float(), fixed.float())

    with torch.autocast("cpu", torch.bfloat16):
        value = loss(warped, fixed)

    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


@pytest.mark.parametrize("loss", [MaskedLNCCLoss(), MaskedMSELoss()])
def test_shapes_that_would_broadcast_are_refused(loss: torch.nn.Module) -> None:
    image = torch.rand(2, 1, 6, 6)

    with pytest.raises(InputError, match="fixed"):
        loss(image, image[:1])
    with pytest.raises(InputError, match="channels"):
        loss(image, image.expand(-1, 3, -1, -1))
    with pytest.raises(InputError, match="mask"):
        loss(image, image, image[..., :1])


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="window is 1"):
        MaskedLNCCLoss(window=1)
    with pytest.raises(InputError, match="eps"):
        MaskedLNCCLoss(eps=0)
    with pytest.raises(InputError, match="eps"):
        MaskedLNCCLoss(eps=float("nan"))
