from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_regplugins.checks import InputError
from monai_regplugins.losses import SequenceMSELoss


def some(shape: tuple[int, ...], steps: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sequence = 1.5 * torch.randn(2, steps, len(shape), *shape, dtype=torch.float64)
    moving, fixed = torch.rand(2, 2, 1, *shape, dtype=torch.float64)
    return sequence, moving, fixed


@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6)])
@pytest.mark.parametrize("outside", ["ignore", "border"])
def test_against_scipy(shape: tuple[int, ...], outside: str) -> None:
    sequence, moving, fixed = some(shape)
    last = np.array(shape).reshape(-1, *[1] * len(shape)) - 1
    values = []
    for b in range(2):
        for ddf in sequence[b].numpy():
            points = np.indices(shape) + ddf
            warped = ndimage.map_coordinates(moving[b, 0].numpy(), points, order=1, mode="nearest")
            error = (warped - fixed[b, 0].numpy()) ** 2
            inside = ((points >= 0) & (points <= last)).all(0) if outside == "ignore" else np.ones(shape, bool)
            values.append(error[inside].mean())
    assert SequenceMSELoss(outside)(sequence, moving, fixed).item() == pytest.approx(np.mean(values))


def test_the_identity_keeps_every_voxel() -> None:
    _, moving, fixed = some((6, 7))
    still = torch.zeros(2, 3, 2, 6, 7, dtype=torch.float64)
    for outside in ("ignore", "border"):
        value = SequenceMSELoss(outside)(still, moving, fixed)
        assert value.item() == pytest.approx(np.square((moving - fixed).numpy()).mean())


def test_everything_outside_is_finite() -> None:
    _, moving, fixed = some((6, 7))
    away = torch.full((2, 3, 2, 6, 7), 100.0, dtype=torch.float64, requires_grad=True)
    value = SequenceMSELoss()(away, moving, fixed)
    value.backward()
    assert value.item() == 0
    assert away.grad.abs().max() == 0
    # one sample outside does not change the weight of the other
    half = torch.cat([away[:1].detach(), torch.zeros_like(away[:1])])
    assert SequenceMSELoss()(half, moving, fixed).item() == pytest.approx(
        (moving - fixed)[1].square().mean().item() / 2
    )


@pytest.mark.parametrize("outside", ["ignore", "border"])
def test_gradients(outside: str) -> None:
    sequence, moving, fixed = some((3, 4), 2)
    loss = SequenceMSELoss(outside)
    assert torch.autograd.gradcheck(lambda s: loss(s, moving, fixed), sequence.requires_grad_(), fast_mode=True)


def test_half_precision_is_widened_and_autocast_ignored() -> None:
    sequence, moving, fixed = (values.bfloat16() for values in some((5, 6)))
    with torch.autocast("cpu", torch.bfloat16):
        value = SequenceMSELoss()(sequence, moving, fixed)
    assert value.dtype == torch.float32
    assert torch.equal(value, SequenceMSELoss()(sequence.float(), moving.float(), fixed.float()))


def test_bad_input_is_refused() -> None:
    sequence, moving, fixed = some((4, 5))
    with pytest.raises(InputError, match="Did you mean 'ignore'"):
        SequenceMSELoss("ignored")
    with pytest.raises(InputError, match="fields of all steps"):
        SequenceMSELoss()(sequence[:, 0], moving, fixed)
    with pytest.raises(InputError, match="field of the sequence"):
        SequenceMSELoss()(sequence[:1], moving, fixed)
    with pytest.raises(InputError, match="moving"):
        SequenceMSELoss()(sequence, moving[..., :3], fixed)
