"""What was found of a pair so far, as displacements and as a velocity."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.inferers.descent import NodeDescent
from monai_regplugins.inferers.refined import Refined, RefinedDisplacement, RefinedVelocity, faded
from monai_regplugins.metrics.regularity import folding_strict

START = torch.full((1, 2, 16, 16), 1.5)


def begun(form: str, start: torch.Tensor | None) -> RefinedDisplacement | RefinedVelocity:
    like = torch.zeros(1, 2, 16, 16)
    if form == "velocity":
        return RefinedVelocity.begun(like, start, [4, 4])
    return RefinedDisplacement.begun(like, start, [8, 8])


def towards(target: float) -> Callable[[list[int]], Callable[[torch.Tensor], torch.Tensor]]:
    """The loss of a field at a size; the target is in voxels of the image."""
    return lambda size: lambda u: (u - target * size[0] / 16).square().mean()


@pytest.mark.parametrize("form", ["displacement", "velocity"])
class TestForms:
    def test_it_begins_at_the_field(self, form: str) -> None:
        refined = begun(form, START)
        torch.testing.assert_close(refined.at([16, 16]), START)
        torch.testing.assert_close(refined.at([8, 8]), START[..., :8, :8] / 2)
        assert not begun(form, None).at([16, 16]).any()
        assert not refined.still().at([16, 16]).any()

    def test_levels_lead_to_the_minimum(self, form: str) -> None:
        descend = NodeDescent(60, smallest_change=0)
        found = begun(form, START).descended(descend, towards(3.0), [[8, 8], [16, 16]])
        assert (found.before, found.steps) == (pytest.approx(1.5**2), 60 + 30)
        assert found.after < 1e-3
        output = found.outputs([16, 16])
        torch.testing.assert_close(output["ddf"], torch.full_like(START, 3.0), atol=0.05, rtol=0)
        torch.testing.assert_close(output["refinement"], torch.tensor([[found.before, found.after]]))

    def test_a_start_that_the_last_level_likes_better_is_kept(self, form: str) -> None:
        """The levels disagree: the first one leads away from where the last one wants to be."""

        def at(size: list[int]) -> Callable[[torch.Tensor], torch.Tensor]:
            return towards(9.0)(size) if size == [8, 8] else towards(1.5)(size)

        found = begun(form, START).descended(NodeDescent(5), at, [[8, 8], [16, 16]])
        assert found.after == found.before == pytest.approx(0, abs=1e-6)
        torch.testing.assert_close(found.at([16, 16]), START)

    def test_what_was_added_falls_off_where_nothing_counts(self, form: str) -> None:
        counts = torch.zeros(1, 1, 16, 16)
        counts[..., :4] = 1
        found = begun(form, START).descended(NodeDescent(60, smallest_change=0), towards(3.0), [[8, 8], [16, 16]])
        less = found.faded(counts).at([16, 16])
        torch.testing.assert_close(less[..., :2], found.at([16, 16])[..., :2], atol=0.06, rtol=0)
        added = less - START
        assert bool((added.diff(dim=-1) < 1e-4).all())
        assert float(added[..., -1].max()) < 0.6 * 1.5
        torch.testing.assert_close(found.faded(torch.ones(1, 1, 16, 16)).at([16, 16]), found.at([16, 16]))

    def test_folds_leave_the_result_on_request_alone(self, form: str) -> None:
        refined: Refined
        if form == "displacement":
            refined = RefinedDisplacement(None, (5 * torch.randn(1, 2, 8, 8),), [8, 8])
        else:
            velocity = 5 * torch.randn(1, 2, 8, 8)
            refined = RefinedVelocity(velocity, velocity)
        folds = [folding_strict(refined.outputs([16, 16], unfolds=unfolds)["ddf"][0])[0] for unfolds in (False, True)]
        assert folds[0] > 0 == folds[1]


def test_far_from_folds_nothing_changes() -> None:
    start, residual = torch.zeros(1, 2, 48, 48), torch.zeros(1, 2, 24, 24)
    start[:, 1], residual[:, 0, 12, 12] = 0.3, 9.0
    refined = RefinedDisplacement(start, (residual,), [24, 24])
    before, after = (refined.outputs([48, 48], unfolds=unfolds)["ddf"] for unfolds in (False, True))
    assert folding_strict(after[0])[0] == 0 < folding_strict(before[0])[0]
    torch.testing.assert_close(after[..., :10], before[..., :10])


def test_a_velocity_begins_at_the_logarithm() -> None:
    x = torch.pi * fields.identity_grid((16, 16))[None] / 15
    start = 2.0 * x.sin().square().prod(dim=1, keepdim=True) * torch.tensor([1.0, -0.7]).view(1, 2, 1, 1)
    refined = RefinedVelocity.begun(start, start, [16, 16])
    assert (fields.exponential(start) - start).abs().max() > 0.3
    assert (refined.at([16, 16]) - start).abs().max() < 0.05


class TestFaded:
    @pytest.mark.parametrize("most", [2**22, 500])
    @pytest.mark.parametrize("size", [(40, 36), (20, 18, 16)])
    def test_it_falls_by_the_distance(self, size: tuple[int, ...], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Exact on the grid, and to a few percent by distances on a coarser one; where something counts, exact."""
        monkeypatch.setattr("monai_regplugins.inferers.refined.MOST_DISTANCES", most)
        counts = torch.zeros(1, 1, *size)
        counts[:, :, :8] = 1
        found = faded(torch.ones(1, len(size), *size), counts)
        assert bool((found[:, :, :8] == 1).all())
        distance = torch.arange(size[0]).sub(7).clamp_min(0).float()
        k = 1 if most > 500 else size[0] / round(size[0] / math.ceil((math.prod(size) / most) ** (1 / len(size))))
        expected = torch.exp(-distance / (8 * k)).view(-1, *(1,) * (len(size) - 1)).expand(found.shape)
        torch.testing.assert_close(found, expected, atol=0.0 if k == 1 else 0.12, rtol=1e-5)

    def test_large_displacements_do_not_fold(self) -> None:
        """Into the mask and out of it."""
        counts = torch.zeros(1, 1, 64, 64)
        counts[:, :, 24:40] = 1
        for sign in (1, -1):
            field = torch.zeros(1, 2, 64, 64)
            field[:, 0] = 20.0 * sign
            assert float(fields.jacobian_determinant(faded(field, counts)).min()) > 0.2

    def test_nothing_changes_where_all_counts(self) -> None:
        field = torch.randn(1, 2, 12, 10)
        assert torch.equal(faded(field, torch.ones(1, 1, 24, 20)), field)
