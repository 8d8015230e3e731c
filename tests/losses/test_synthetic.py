from __future__ import annotations

import math

import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.losses import SyntheticFieldLoss


def fields(shape: tuple[int, ...] = (4, 3)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    ddf, true_ddf = torch.randn(2, 3, len(shape), *shape, generator=generator, dtype=torch.float64) * 2
    return ddf, true_ddf


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("l2", (9 + 0.25) / 4),
        ("l1", (3 - 0.5 + 0.25 / 2) / 4),
        ("mae", (3 + 0.5) / 4),
        ("log", 0.5 * (math.log(7) + math.log(2)) / 4),
    ],
)
def test_closed_form(norm: str, expected: float) -> None:
    ddf, true_ddf = torch.zeros(1, 2, 1, 2), torch.tensor([[[[3.0, 0.0]], [[-0.5, 0.0]]]])

    assert SyntheticFieldLoss(norm)(ddf, true_ddf).item() == pytest.approx(expected)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_only_known_samples_count(norm: str) -> None:
    loss, (ddf, true_ddf) = SyntheticFieldLoss(norm), fields((3, 4, 2))
    known = torch.tensor([1.0, 0.0, 1.0])

    torch.testing.assert_close(loss(ddf, true_ddf, known), loss(ddf[[0, 2]], true_ddf[[0, 2]]))
    torch.testing.assert_close(loss(ddf, true_ddf, known[:, None]), loss(ddf[[0, 2]], true_ddf[[0, 2]]))
    torch.testing.assert_close(loss(ddf, true_ddf, torch.ones(3)), loss(ddf, true_ddf))


@pytest.mark.parametrize("norm", ["l1", "l2", "mae", "log"])
def test_only_voxels_of_the_mask_count(norm: str) -> None:
    loss, (ddf, true_ddf) = SyntheticFieldLoss(norm), fields((2, 3, 4))
    mask = torch.zeros(len(ddf), 1, *ddf.shape[2:], dtype=torch.bool)
    mask[:, :, 0, 1, 2:] = True
    inside = loss(ddf[:, :, :1, 1:2, 2:], true_ddf[:, :, :1, 1:2, 2:])

    torch.testing.assert_close(loss(ddf, true_ddf, None, mask), inside)
    torch.testing.assert_close(loss(ddf, true_ddf, None, torch.ones_like(mask)), loss(ddf, true_ddf))
    assert float(loss(ddf, true_ddf, None, torch.zeros_like(mask))) == 0
    with pytest.raises(InputError, match="mask"):
        loss(ddf, true_ddf, None, mask[..., :2])


def test_nothing_known_gives_zero_that_can_be_differentiated() -> None:
    ddf, true_ddf = fields()
    value = SyntheticFieldLoss()(ddf.requires_grad_(), true_ddf, torch.zeros(3))

    value.backward()

    assert value.item() == 0
    assert ddf.grad is not None
    assert torch.equal(ddf.grad, torch.zeros_like(ddf))


@pytest.mark.parametrize("norm", ["l1", "l2", "log"])
@pytest.mark.parametrize("known", [None, torch.tensor([0, 1, 1])])
def test_gradients(norm: str, known: torch.Tensor | None) -> None:
    ddf, true_ddf = fields()

    assert torch.autograd.gradcheck(lambda u: SyntheticFieldLoss(norm)(u, true_ddf, known), ddf.requires_grad_())


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_half_precision_is_widened_and_autocast_ignored(norm: str) -> None:
    loss, (ddf, true_ddf) = SyntheticFieldLoss(norm), fields((3, 4, 2))
    ddf, true_ddf = ddf.bfloat16(), true_ddf.float()

    with torch.autocast("cpu", torch.bfloat16):
        value = loss(ddf, true_ddf)

    assert value.dtype == torch.float32
    assert torch.equal(value, loss(ddf.float(), true_ddf))


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="norm"):
        SyntheticFieldLoss("l3")
    with pytest.raises(InputError, match="true_ddf"):
        SyntheticFieldLoss()(torch.zeros(2, 2, 3, 3), torch.zeros(1, 2, 3, 3))
    with pytest.raises(InputError, match="known"):
        SyntheticFieldLoss()(torch.zeros(2, 2, 3, 3), torch.zeros(2, 2, 3, 3), torch.ones(1))
