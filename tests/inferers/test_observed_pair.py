"""What instance optimization sees of a pair, and what judges it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.inferers.observed_pair import (
    Judgement,
    ObservedPair,
    _smoothed_as_by,
    held_out_voxels,
)
from monai_regplugins.losses import InstanceLoss
from monai_regplugins.losses.instance import WeightedImage


@pytest.mark.parametrize("size", [(16, 24), (16, 8, 8)])
def test_one_voxel_in_eight_is_held_out_and_no_two_share_a_face_or_an_edge(size: tuple[int, ...]) -> None:
    held_out = held_out_voxels(size)[0, 0].numpy()
    assert held_out.mean() == pytest.approx(1 / 8)
    neighbors = ndimage.convolve(
        held_out.astype(int), ndimage.generate_binary_structure(len(size), 2).astype(int), mode="constant"
    )
    assert (neighbors[held_out] == 1).all()


@pytest.mark.parametrize("size", [[12, 14], [6, 7], [9, 10]])
def test_what_does_not_count_leaves_no_trace(size: list[int]) -> None:
    """Neither smoothing nor resizing carries it into what counts."""
    moving, fixed = torch.rand(2, 1, 1, 12, 14)
    mask = torch.ones_like(fixed)
    mask[..., 9:] = 0
    (clean,) = ObservedPair(moving, fixed, mask, mask, smoothing=0.8).at([size])
    (planted,) = ObservedPair(moving + 90 * (1 - mask), fixed - 50 * (1 - mask), mask, mask, smoothing=0.8).at([size])
    for one, other in zip(clean, planted, strict=True):
        assert one.weights is not None
        counts = one.weights > 0
        assert counts.any()
        torch.testing.assert_close(one.image[counts], other.image[counts])


def test_the_optimization_does_not_see_what_judges_it() -> None:
    moving, fixed = torch.rand(2, 1, 1, 16, 16)
    other = torch.where(held_out_voxels([16, 16]), torch.rand_like(fixed), fixed)
    pairs = [ObservedPair(moving, image, smoothing=0.8) for image in (fixed, other)]
    seen = [pair.at([[16, 16]])[0][1] for pair in pairs]
    counts = seen[0].weights > 0  # type: ignore[operator]
    assert torch.equal(seen[0].image[counts], seen[1].image[counts])
    still = torch.zeros(1, 2, 16, 16)
    judged = [pair.judge(InstanceLoss(), [16, 16], "zeros")(still).similarity for pair in pairs]
    assert judged[0] != judged[1]


@pytest.mark.parametrize("size", [[24, 26], [16, 14, 18]])
def test_what_is_held_out_moves_nothing(size: list[int]) -> None:
    """A ramp is the same ramp after smoothing, as the moving image is: an even gap would move it to one side."""
    ramp = torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij")).sum(0)[None, None].float()
    moving, fixed = ObservedPair(ramp, ramp, smoothing=0.75).at([size])[0]
    inner = (..., *(slice(5, -5) for _ in size))
    torch.testing.assert_close(fixed.image[inner], ramp[inner])
    torch.testing.assert_close(moving.image[inner], ramp[inner])


@pytest.mark.parametrize("size", [(17, 13, 11), (23, 19)])
@pytest.mark.parametrize("masked", [False, True])
def test_slab_by_slab_it_is_the_same(size: tuple[int, ...], masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    moving, fixed, mask = torch.rand(3, 1, 1, *size)
    pair = ObservedPair(moving, fixed, (mask > 0.3).float() if masked else None, smoothing=0.75)
    whole = pair.at([list(size)])[0][1].image
    for voxels in (50, 700):
        monkeypatch.setattr(fields, "SLAB_VOXELS", voxels)
        torch.testing.assert_close(pair.at([list(size)])[0][1].image, whole)


def test_the_true_field_is_judged_better_than_none_and_than_a_folded_one() -> None:
    scene = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).random((48, 48)), 2)).float()
    moving = ((scene - scene.min()) / (scene.max() - scene.min()))[None, None]
    shift = torch.full((1, 2, 48, 48), 1.5)
    fixed = fields.warp(moving, shift, padding="border")
    judge = ObservedPair(moving, fixed).judge(InstanceLoss(), [48, 48], "border")
    none, true = judge(torch.zeros_like(shift)), judge(shift)
    folded = judge(shift + 3 * torch.randn_like(shift))
    assert true.is_better_than(none)
    assert true.similarity > 0.95
    assert none.is_better_than(folded)
    assert folded.folding_percent > 1


@pytest.mark.parametrize("axis", [0, 1])
def test_what_lies_still_beside_a_field_is_smoothed_half_as_much_as_that_smooths(axis: int) -> None:
    """A cosine: linear interpolation at a fraction f leaves 1 - f (1 - f) (2 - 2 cos k) of its power."""
    k, f = 2 * torch.pi / 8, 0.3
    wave = torch.cos(k * torch.arange(32.0)).view(*((32, 1) if axis == 0 else (1, 32))).expand(32, 32)
    field = torch.zeros(1, 2, 32, 32)
    field[:, axis] = 5 + f
    pair = WeightedImage(wave[None, None], None)
    still = _smoothed_as_by(pair, field).image[0, 0]
    lost = f * (1 - f) * (2 - 2 * np.cos(k)) / 2  # of the amplitude
    torch.testing.assert_close(still[1:-1, 1:-1], (1 - lost / 2) * wave[1:-1, 1:-1])
    moved = fields.warp(
        wave[None, None], torch.zeros_like(field).index_fill(1, torch.tensor(axis), f), padding="border"
    )
    rows = moved[0, 0].movedim(axis, 0)[8:24, 8]
    assert float(1 - (2 * rows.square().mean()).sqrt()) == pytest.approx(lost, abs=lost**2)
    assert torch.equal(_smoothed_as_by(pair, field.round()).image, pair.image)


def test_what_does_not_count_is_not_smoothed_into_what_lies_still() -> None:
    image, field = torch.rand(1, 1, 12, 10), torch.full((1, 2, 12, 10), 0.5)
    counts = torch.ones_like(image)
    counts[..., 6:] = 0
    seen = [_smoothed_as_by(WeightedImage(image + add * (1 - counts), counts), field).image for add in (0, 90)]
    torch.testing.assert_close(seen[0][..., :6], seen[1][..., :6])


def test_folding_counts_first_and_similarity_second() -> None:
    assert Judgement(0.5, 0.0).is_better_than(Judgement(0.9, 0.1))
    assert Judgement(0.9, 0.005).is_better_than(Judgement(0.5, 0.0))
    assert not Judgement(0.5, 0.0).is_better_than(Judgement(0.5, 0.0))


def test_a_voxel_pulls_as_hard_against_the_smoothness_within_a_small_mask_as_without_one() -> None:
    """Where all voxels next to it count, the gradient of the loss is that of the whole image."""
    moving, fixed = torch.rand(2, 1, 1, 24, 24, dtype=torch.float64)
    ddf = torch.rand(1, 2, 24, 24, dtype=torch.float64)
    fixed_mask = torch.zeros(1, 1, 24, 24)
    fixed_mask[..., 4:12, 6:16] = 1

    def gradient(**masks: torch.Tensor) -> torch.Tensor:
        observed = ObservedPair(moving, fixed, **masks)
        loss = observed.loss_of_pair(InstanceLoss("mse", smoothness_weight=0.3, similarity_weight=2.0))
        variable = ddf.clone().requires_grad_()
        loss.of_pair(*observed.at([[24, 24]])[0])(variable).backward()
        assert variable.grad is not None
        return variable.grad[..., 5:11, 7:15]

    torch.testing.assert_close(gradient(fixed_mask=fixed_mask), gradient(), rtol=1e-9, atol=0)
    assert torch.equal(gradient(fixed_mask=torch.ones_like(fixed_mask)), gradient())


@pytest.mark.parametrize(
    ("threshold", "similarity", "share"), [(None, "lncc", 0.125), (0.5, "lncc", 0.25), (0.5, "mse", 0.125)]
)
def test_the_share_is_that_of_the_voxels_that_are_compared(
    threshold: float | None, similarity: str, share: float
) -> None:
    """The threshold leaves half of the image, of which one mask leaves a half, too, and both leave a quarter."""
    fixed, fixed_mask, moving_mask = torch.zeros(3, 1, 1, 16, 16)
    fixed[..., :8, :] = 1
    fixed_mask[..., :4, :] = 1
    moving_mask[..., 8:] = 1
    loss = InstanceLoss(similarity, threshold=threshold, similarity_weight=2.0)
    found = ObservedPair(fixed, fixed, fixed_mask, moving_mask).loss_of_pair(loss)
    assert found.weights == {**loss.weights, "similarity": 2 * share}
    assert ObservedPair(fixed, fixed).loss_of_pair(loss).weights == loss.weights
    assert (
        ObservedPair(fixed, fixed, 1 - fixed, 1 - fixed).loss_of_pair(InstanceLoss(threshold=0.5)).weights["similarity"]
        == 1
    )


def test_masks_without_a_common_voxel_are_refused() -> None:
    image, mask = torch.rand(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    with pytest.raises(InputError, match=r"^no voxel counts in both images: [^\n]*$"):
        ObservedPair(image, image, mask, 1 - mask)
