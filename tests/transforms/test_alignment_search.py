"""The search of starts, against correlations that are counted voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from monai_regplugins.transforms import alignment_search
from monai_regplugins.transforms.alignment_scan import Scan
from monai_regplugins.transforms.alignment_search import find_starts, rotations


def scan_of(values: np.ndarray, affine: np.ndarray | None = None, weight: np.ndarray | None = None) -> Scan:
    """An array as an image that counts everywhere, or by its weights."""
    image = torch.from_numpy(np.ascontiguousarray(values)).float()[None]
    matrix = np.eye(values.ndim + 1) if affine is None else affine
    counts = torch.ones_like(image) if weight is None else torch.from_numpy(weight).float()[None]
    return Scan(image, torch.from_numpy(matrix), counts)


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Smooth noise, brightest in the middle, for there is something to find."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return noise / noise.std()


@pytest.mark.parametrize("d", [2, 3])
def test_rotations_are_rotations_and_near_to_any(d: int) -> None:
    found = rotations(d)
    torch.testing.assert_close(found @ found.transpose(1, 2), torch.eye(d).double().expand(len(found), d, d))
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(len(found)).double())
    assert torch.equal(found[0], torch.eye(d).double())
    if d == 3:
        drawn = torch.from_numpy(Rotation.random(500, random_state=0).as_matrix())
        cosines = (torch.einsum("nij,mij->nm", drawn, found).max(dim=1).values - 1) / 2
        assert float(torch.rad2deg(torch.arccos(cosines.clamp(-1, 1))).max()) < 40
        assert float(torch.rad2deg(torch.arccos(cosines.clamp(-1, 1))).mean()) < 25


def test_scores_equal_correlations_of_the_common_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """By masks and shifts in numpy; nothing is added to the variances here."""
    monkeypatch.setattr(alignment_search, "FLATTEST", 0.0)
    rng = np.random.default_rng(1)
    fixed, moving = rng.normal(size=(2, 12, 14))
    moving[2:, 2:] += 3 * fixed[:-2, :-2]  # so that the best shift is known
    masks = rng.random((2, 12, 14)) < 0.9
    stacks = [torch.from_numpy(np.stack([v * m, m])).float() for v, m in zip((fixed, moving), masks, strict=True)]
    ((score, shift),) = alignment_search._correlations(stacks[0], stacks[1:])
    assert shift.tolist() == [2, 2]
    both = masks[0][:-2, :-2] & masks[1][2:, 2:]
    expected = np.corrcoef(fixed[:-2, :-2][both], moving[2:, 2:][both])[0, 1]
    assert score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("degrees", [45, 90, 150, 270])
def test_a_turned_and_moved_slice_is_found(degrees: float) -> None:
    fixed, t = smooth((32, 32)), np.deg2rad(degrees)
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    middle = np.full(2, 15.5)
    affine = np.eye(3)
    affine[:2, 2] = [300.0, -200.0]
    moving = affine_transform(fixed, turn.T, middle - turn.T @ middle, order=1)  # fixed = turn^T (moving - c) + c
    best = find_starts(scan_of(fixed), scan_of(moving, affine))[0]
    truth = np.eye(3)
    truth[:2, :2], truth[:2, 2] = turn, middle - turn @ middle + affine[:2, 2]
    np.testing.assert_allclose(best.matrix[:2, :2], turn, atol=1e-6)
    np.testing.assert_allclose(
        best.matrix.numpy()[:2] @ [*middle, 1.0], truth[:2] @ [*middle, 1.0], atol=2.1
    )  # a coarse voxel


def test_what_does_not_count_is_not_looked_at() -> None:
    """A bright object that is elsewhere in the moving image decides, unless it is masked."""
    fixed = smooth((32, 32))
    shifted = np.roll(fixed, 6, axis=0)
    weight = np.ones((2, 32, 32))
    for image, mask, place in zip((fixed, shifted), weight, (4, 18), strict=True):
        image[place : place + 6, 8:24] = 50.0
        mask[place : place + 6, 8:24] = 0
    upright = rotations(2)[0]

    def found(scans: list[Scan]) -> float:
        (start,) = [s for s in find_starts(*scans) if torch.equal(s.matrix[:2, :2], upright)]
        return float(start.matrix[0, 2])

    images = (fixed, shifted)
    assert found([scan_of(image) for image in images]) == pytest.approx(14, abs=2)
    masked = [scan_of(image, None, mask) for image, mask in zip(images, weight, strict=True)]
    assert found(masked) == pytest.approx(6, abs=2)
