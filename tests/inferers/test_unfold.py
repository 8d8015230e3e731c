"""Fields without folds: what folds is smoothed, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from monai_regplugins import fields
from monai_regplugins.inferers.gaussian import gaussian_mean
from monai_regplugins.inferers.unfold import unfold, unfolded_field
from monai_regplugins.metrics.regularity import folding_strict, folds_strict


def rough(size: tuple[int, ...], strength: float, seed: int = 0) -> torch.Tensor:
    """A field that folds here and there."""
    generator = torch.Generator().manual_seed(seed)
    return strength * gaussian_mean(torch.randn(1, len(size), *size, generator=generator), 1.0)


@pytest.mark.parametrize("size", [(40, 36), (20, 18, 16)])
def test_nothing_folds_afterwards_and_what_is_far_from_folds_stays(size: tuple[int, ...]) -> None:
    before = rough(size, 2.5)
    after = before.clone()
    unfold(after)
    folds = folds_strict(before[0])
    assert 10 < folds.sum() < 0.4 * folds.numel()
    assert folding_strict(after[0])[0] == 0
    pool = functional.max_pool2d if len(size) == 2 else functional.max_pool3d
    far = pool(folds[None, None].float(), 13, 1, 6)[0, 0] == 0
    if len(size) == 2:
        assert far.any()
    assert torch.equal(after[0][:, far], before[0][:, far])


def test_the_box_around_the_folds_is_all_that_matters() -> None:
    """Slow and plain: the whole field in every round."""
    field = torch.zeros(1, 2, 48, 48)
    field[..., 30:44, 10:30] = rough((14, 20), 4.0)
    expected = field.clone()
    while bool((folds := folds_strict(expected[0])).any()):
        near = functional.max_pool2d(folds[None, None].float(), 3, 1, 1) > 0
        expected = torch.where(near, gaussian_mean(expected, 0.75), expected)
    unfold(field)
    torch.testing.assert_close(field, expected, atol=1e-6, rtol=0)


def test_what_does_not_fold_and_what_is_not_finite_stay() -> None:
    for field in (0.2 * rough((12, 12), 1.0), torch.full((1, 2, 6, 6), torch.nan)):
        after = field.clone()
        unfold(after)
        torch.testing.assert_close(after, field, atol=0, rtol=0, equal_nan=True)


def test_a_rough_velocity_is_smoothed_where_its_field_folds() -> None:
    velocity = torch.zeros(1, 2, 24, 24)
    velocity[..., :10, :10] = rough((10, 10), 12.0)

    def field_of(velocity: torch.Tensor) -> torch.Tensor:
        return fields.resize(fields.exponential(velocity), [48, 48])

    found = unfolded_field(velocity, field_of)
    assert folding_strict(field_of(velocity)[0])[0] > 0 == folding_strict(found[0])[0]
    assert torch.equal(found[..., 40:, 40:], field_of(velocity)[..., 40:, 40:])


def test_large_fields_are_smoothed_tile_by_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds across the borders of tiles are removed, too, and what is far from folds stays."""
    monkeypatch.setattr("monai_regplugins.inferers.unfold.TILE", 8)
    before = torch.zeros(1, 2, 60, 60)
    before[..., 10:34, 20:40] = rough((24, 20), 4.0)
    after = before.clone()
    unfold(after)
    assert folding_strict(before[0])[0] > 10
    assert folding_strict(after[0])[0] == 0
    far = functional.max_pool2d(folds_strict(before[0])[None, None].float(), 17, 1, 8)[0, 0] == 0
    assert torch.equal(after[0][:, far], before[0][:, far])
