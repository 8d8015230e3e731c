"""Initial alignment recovers known maps, or says that it did not."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from monai_regplugins.checks import InputError
from monai_regplugins.transforms import initial_alignment
from monai_regplugins.transforms.alignment_descent import CORRELATION, MUTUAL_INFORMATION, Descent
from monai_regplugins.transforms.initial_alignment import (
    LINEAR,
    alignment_name,
    center_of_mass_matrix,
    linear_alignment,
)
from monai_regplugins.transforms.prepare import ResampleToFixedd

SHAPE = (24, 24, 24)
DRAW = np.random.default_rng(1)
BLOBS = np.column_stack([DRAW.uniform(12, 34, (12, 3)), DRAW.uniform(2.5, 6, 12), DRAW.uniform(0.4, 1, 12)])


def phantom(points: np.ndarray) -> np.ndarray:
    """Sum of Gaussian blobs at world points (..., d): positions in mm, standard deviation in mm, height."""
    d = points.shape[-1]
    distance = ((points[..., None, :] - BLOBS[:, :d]) ** 2).sum(-1)
    return (BLOBS[:, 4] * np.exp(-distance / (2 * BLOBS[:, 3] ** 2))).sum(-1)


def world(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World points of all voxels, (*shape, d)."""
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:-1, :-1].T + affine[:-1, -1]


def image_pair(matrix: np.ndarray, moving_affine: np.ndarray | None = None) -> tuple[torch.Tensor, ...]:
    """Fixed and moving phantom such that fixed world -> moving world is ``matrix``, with air at -1000."""
    d = len(matrix) - 1
    fixed_affine = np.diag([2.0] * d + [1.0])
    moving_affine = fixed_affine if moving_affine is None else moving_affine
    inverse = np.linalg.inv(matrix)
    fixed = phantom(world(SHAPE[:d], fixed_affine))
    moving = phantom(world(SHAPE[:d], moving_affine) @ inverse[:-1, :-1].T + inverse[:-1, -1])
    images = [torch.from_numpy(1000 * image - 1000).float()[None] for image in (fixed, moving)]
    return images[0], torch.from_numpy(fixed_affine), images[1], torch.from_numpy(moving_affine)


def mean_error(found: torch.Tensor, matrix: np.ndarray) -> float:
    """Mean distance of the mapped fixed points in the middle half of the phantom, mm."""
    d = len(matrix) - 1
    points = world(SHAPE[:d], np.diag([2.0] * d + [1.0]))[(slice(6, 18),) * d].reshape(-1, d)
    difference = found.numpy() - matrix
    return float(np.linalg.norm(points @ difference[:-1, :-1].T + difference[:-1, -1], axis=1).mean())


def about_the_middle(linear: np.ndarray, shift: tuple[float, ...]) -> np.ndarray:
    """A linear map about the middle of the phantom, and a shift."""
    d = len(linear)
    matrix, center = np.eye(d + 1), np.full(d, 23.0)
    matrix[:d, :d] = linear
    matrix[:d, d] = center - linear @ center + np.array(shift)
    return matrix


def in_the_plane(degrees: float, scale: float = 1.0, shift: tuple[float, ...] = (5.0, -6.0)) -> np.ndarray:
    """A rotation of a slice, with a scale and a shift."""
    angle = np.deg2rad(degrees)
    return about_the_middle(scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), shift)


def in_space(degrees: float, shift: tuple[float, ...] = (6.0, -4.0, 5.0)) -> np.ndarray:
    """A rotation about an oblique axis, with a shift."""
    axis = np.array([0.6, -0.48, 0.64])
    return about_the_middle(Rotation.from_rotvec(np.deg2rad(degrees) * axis).as_matrix(), shift)


def test_centers_of_mass_recover_a_shift_of_20_mm() -> None:
    shift = 20.0 * np.array([0.6, -0.48, 0.64])  # a unit vector
    matrix, moving_affine = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0])
    matrix[:3, 3] = shift
    moving_affine[:3, 3] = shift + np.array([1.0, -1.0, 0.5])
    found = center_of_mass_matrix(*image_pair(matrix, moving_affine))
    assert np.linalg.norm(found[:3, 3].numpy() - shift) < 0.5
    assert torch.equal(found[:3, :3], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("degrees", [0, 20, 60, 90, 120, 180])
def test_rotations_of_a_slice_are_found(kind: str, degrees: float) -> None:
    matrix = in_the_plane(degrees, 1.0 if kind == "rigid" else 1.1)
    far = np.diag([2.0, 2.0, 1.0])
    far[:2, 2] = [200.0, -100.0]
    moved = far @ np.linalg.inv(np.diag([2.0, 2.0, 1.0])) @ matrix
    found = linear_alignment(*image_pair(moved, far), kind)
    assert mean_error(found.matrix, moved) < 1.0, "half a voxel"
    assert found.after > max(found.before - 1e-3, 0.98)
    assert found.lies_apart
    assert found.doubt == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("degrees", [20, 60, 90, 120])
def test_rotations_in_space_are_found(kind: str, degrees: float) -> None:
    moving_affine = np.diag([-2.0, 2.0, 2.0, 1.0])  # left-handed
    moving_affine[:3, 3] = [51.0, -3.0, 4.0]
    matrix = in_space(degrees)
    found = linear_alignment(*image_pair(matrix, moving_affine), kind)
    assert mean_error(found.matrix, matrix) < 1.0, "half a voxel"


def test_an_affine_map_in_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near enough that the rotations need not be looked at."""
    monkeypatch.setattr(initial_alignment, "find_starts", lambda *_: [])
    matrix = about_the_middle(
        Rotation.from_euler("xyz", [12, -10, 15], degrees=True).as_matrix() @ np.diag([1.1, 0.92, 1.05]), (6, -4, 5)
    )
    images = image_pair(matrix)
    assert mean_error(center_of_mass_matrix(*images), matrix) > 2.0, "the centers of mass alone must not be enough"
    assert mean_error(linear_alignment(*images).matrix, matrix) < 0.4, "a fifth of a voxel"
    turned = linear_alignment(*images, "rigid").matrix[:3, :3]
    torch.testing.assert_close(turned @ turned.T, torch.eye(3).double(), atol=1e-9, rtol=0)


def test_the_same_images_give_the_same_matrix() -> None:
    images = image_pair(in_the_plane(70))
    assert torch.equal(linear_alignment(*images).matrix, linear_alignment(*images).matrix)


def test_the_metric_follows_the_contrast() -> None:
    matrix = in_the_plane(40)
    fixed, fixed_affine, moving, moving_affine = image_pair(matrix)
    linear = linear_alignment(fixed, fixed_affine, 0.25 * moving + 9, moving_affine)
    assert linear.metric == CORRELATION
    assert mean_error(linear.matrix, matrix) < 1.0
    other = linear_alignment(fixed, fixed_affine, -moving, moving_affine, "rigid")
    assert other.metric == MUTUAL_INFORMATION
    assert mean_error(other.matrix, matrix) < 2.0, "a voxel"


def two_halves() -> tuple[dict[str, MetaTensor], MetaTensor]:
    """A pair whose halves are shifted by 3 mm along the second axis, in opposite directions, and one of the halves."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    points = world(SHAPE, affine)
    upper = points[..., :1] > 23
    shifts = np.where(upper, 3.0, -3.0) * np.array([0.0, 1.0, 0.0])
    images = [torch.from_numpy(1000 * phantom(q)).float()[None] for q in (points + shifts, points)]
    fixed, moving, mask = (
        MetaTensor(i, affine=torch.from_numpy(affine)) for i in (*images, torch.from_numpy(upper[None, ..., 0]))
    )
    return {"fixed": fixed, "moving": moving}, mask.to(torch.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", LINEAR)
def test_only_what_the_masks_hold_is_compared(kind: str, both: bool) -> None:
    pair, upper = two_halves()
    masks = {"fixed_mask": upper} | ({"moving_mask": upper} if both else {})
    for shift, chosen in ((3.0, masks), (-3.0, {key: 1 - mask for key, mask in masks.items()})):
        found = ResampleToFixedd(initial_alignment=kind)(pair | chosen)["initial_alignment_matrix"]
        inside = world(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))[chosen["fixed_mask"][0].numpy() > 0]
        moved = inside @ found[:3, :3].numpy().T + found[:3, 3].numpy() - inside
        np.testing.assert_allclose(moved.mean(axis=0), [0.0, shift, 0.0], atol=0.5)  # a quarter of a voxel


@pytest.mark.parametrize("side", ["fixed", "moving"])
@pytest.mark.parametrize("kind", ["center", *LINEAR])
def test_a_bright_object_outside_of_a_mask_changes_nothing(kind: str, side: str) -> None:
    matrix = in_the_plane(0, shift=(7.0, -5.0))
    images = list(image_pair(matrix))
    index = 0 if side == "fixed" else 2
    clean = linear_alignment(*images, kind)
    mask = torch.ones_like(images[index])
    mask[:, :4, :8] = 0
    masked = linear_alignment(*images, kind, **{f"{side}_mask": mask})
    images[index] = torch.where(mask > 0, images[index], torch.tensor(9000.0))
    planted = linear_alignment(*images, kind, **{f"{side}_mask": mask})
    torch.testing.assert_close(planted.matrix, masked.matrix, atol=1e-6, rtol=0)
    assert mean_error(planted.matrix, clean.matrix.numpy()) < 1.0


@pytest.mark.parametrize("kind", ["center", *LINEAR])
def test_padding_is_no_measurement(kind: str) -> None:
    """A corner of CT padding in each image, elsewhere in each, against the pair without."""
    matrix = in_the_plane(0, shift=(7.0, -5.0))
    images = list(image_pair(matrix))
    images[0][:, :5, :9] = -2000.0
    images[2][:, -9:, -5:] = -3024.0
    found = linear_alignment(*images, kind)
    assert mean_error(found.matrix, matrix) < (2.0 if kind == "center" else 1.0)


def test_masks_that_do_not_fit_are_refused() -> None:
    pair = image_pair(np.eye(3))
    with pytest.raises(InputError, match="fixed mask is empty"):
        linear_alignment(*pair, fixed_mask=torch.zeros(1, 24, 24))
    with pytest.raises(InputError, match="moving mask has size 1 x 3 x 3 but moving image has 1 x 24 x 24"):
        linear_alignment(*pair, moving_mask=torch.ones(1, 3, 3))


def test_a_descent_that_always_fails_leaves_the_start_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise InputError("no")

    monkeypatch.setattr(Descent, "run", fail)
    found = linear_alignment(*image_pair(in_the_plane(30)))
    assert torch.equal(found.matrix, torch.eye(3).double())
    assert (found.before, "no descent" in found.doubt) == (found.after, True)


def test_images_that_fit_in_two_ways_raise_a_doubt() -> None:
    """An ellipse looks the same when it is turned by half a turn."""
    x = world((32, 32), np.eye(3)) - 15.5
    values = [np.exp(-((x @ np.array(a)) ** 2) / 60 - (x @ np.array(b)) ** 2 / 15) for a, b in
              (((1, 0), (0, 1)), ((0.6, 0.8), (-0.8, 0.6)))]  # fmt: skip
    images = [torch.from_numpy(value).float()[None] for value in values]
    found = linear_alignment(images[0], torch.eye(3).double(), images[1], torch.eye(3).double(), "rigid")
    assert found.after > 0.95
    assert "nearly as well elsewhere" in found.doubt


def test_noise_raises_a_doubt() -> None:
    images = torch.rand(2, 1, 30, 30, generator=torch.Generator().manual_seed(0))
    found = linear_alignment(images[0], torch.eye(3).double(), images[1], torch.eye(3).double(), "rigid")
    assert found.doubt != "" or found.after <= found.before, "either is reported in a line"


def test_former_names_go_on_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert [alignment_name(name) for name in ("moments", "correlation")] == ["center", "affine"]
    assert [r.getMessage() for r in caplog.records] == [
        "initial_alignment 'moments' is called 'center' now; the old name goes with the next release.",
        "initial_alignment 'correlation' is called 'affine' now; the old name goes with the next release.",
    ]
    with pytest.raises(InputError, match="Did you mean 'rigid'"):
        alignment_name("rigidd")


def test_frames_around_crops_do_not_turn_them() -> None:
    """Two crops that share half of their content, of different size in frames of one size."""

    def crop(seed: int, low: Sequence[int], high: Sequence[int]) -> torch.Tensor:
        common, own = (
            gaussian_filter(np.random.default_rng(number).normal(size=(24, 32, 24)), 1.5) for number in (0, seed)
        )
        box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        framed = np.zeros(common.shape)
        framed[box] = (100 + 300 * (common + own))[box]
        return torch.tensor(framed[None], dtype=torch.float32)

    fixed, moving = crop(1, (3, 2, 2), (20, 29, 22)), crop(2, (1, 6, 2), (22, 26, 21))
    eye = torch.eye(4, dtype=torch.float64)
    found = linear_alignment(fixed, eye, moving, eye, "affine").matrix[:3, :3]
    assert float((found - eye[:3, :3]).abs().max()) < 0.3
