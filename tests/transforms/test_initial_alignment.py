"""Pre-alignment recovers known maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

from monai_regplugins.checks import InputError
from monai_regplugins.transforms import initial_alignment as prealign
from monai_regplugins.transforms import initial_alignment_choice as prealign_choice
from monai_regplugins.transforms.prepare import MovingToFixedGridd

SHAPE = (24, 24, 24)
FIXED_AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
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


def image_pair(matrix: np.ndarray, moving_affine: np.ndarray, d: int = 3) -> tuple[torch.Tensor, ...]:
    """Fixed and moving phantom such that fixed world -> moving world is ``matrix``, with air at -1000."""
    fixed_affine = np.diag([2.0] * d + [1.0])
    inverse = np.linalg.inv(matrix)
    fixed = phantom(world(SHAPE[:d], fixed_affine))
    moving = phantom(world(SHAPE[:d], moving_affine) @ inverse[:-1, :-1].T + inverse[:-1, -1])
    images = [torch.from_numpy(1000 * image - 1000).float()[None] for image in (fixed, moving)]
    return images[0], torch.from_numpy(fixed_affine), images[1], torch.from_numpy(moving_affine)


def mean_error(found: torch.Tensor, matrix: np.ndarray) -> float:
    """Mean distance of the mapped fixed points in the middle half of the phantom, mm."""
    points = world(SHAPE, FIXED_AFFINE)[6:18, 6:18, 6:18].reshape(-1, 3)
    difference = found.numpy() - matrix
    return float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


def test_center_of_mass_equals_scipys() -> None:
    image = np.random.default_rng(0).gamma(2.0, size=(5, 6, 7))
    affine = np.array([[0.0, 2.0, 0.0, 5.0], [3.0, 0.0, 0.0, 6.0], [0.0, 0.0, 4.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
    expected = affine @ np.r_[center_of_mass(np.maximum(image - image.mean(), 0)), 1.0]
    found = prealign.center_of_mass(torch.from_numpy(image)[None], torch.from_numpy(affine))
    np.testing.assert_allclose(found, expected[:3], atol=1e-10)


def test_moments_recover_a_shift_of_20_mm() -> None:
    shift = 20.0 * np.array([0.6, -0.48, 0.64])  # a unit vector
    matrix, moving_affine = np.eye(4), FIXED_AFFINE.copy()
    matrix[:3, 3] = shift
    moving_affine[:3, 3] = shift + np.array([1.0, -1.0, 0.5])
    found = prealign.moments_matrix(*image_pair(matrix, moving_affine))
    assert np.linalg.norm(found[:3, 3].numpy() - shift) < 0.5
    assert torch.equal(found[:3, :3], torch.eye(3, dtype=torch.float64))


def rotation_scale_and_shift() -> np.ndarray:
    """About the middle of the phantom, far enough that the moments alone are not enough."""
    matrix, center = np.eye(4), np.full(3, 23.0)
    matrix[:3, :3] = Rotation.from_euler("xyz", [12, -10, 15], degrees=True).as_matrix() @ np.diag([1.1, 0.92, 1.05])
    matrix[:3, 3] = center - matrix[:3, :3] @ center + [6.0, -4.0, 5.0]
    return matrix


BOTH = pytest.mark.parametrize("register", [prealign.affine_matrix, prealign.correlation_matrix])


@BOTH
def test_affine_recovers_rotation_scale_and_shift_on_another_grid(register: Callable[..., torch.Tensor]) -> None:
    matrix = rotation_scale_and_shift()
    moving_affine = np.diag([-2.0, 2.0, 2.0, 1.0])  # left-handed
    moving_affine[:3, 3] = [51.0, -3.0, 4.0]
    pair = image_pair(matrix, moving_affine)
    found = register(*pair)
    assert mean_error(prealign.moments_matrix(*pair), matrix) > 2.0, "the moments alone must not be enough"
    assert mean_error(found, matrix) < 1.0, "half a voxel"


@BOTH
def test_the_same_images_give_the_same_matrix(register: Callable[..., torch.Tensor]) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", 10, degrees=True).as_matrix()
    pair = image_pair(matrix, FIXED_AFFINE)
    found = {register(*pair, iterations=10).numpy().tobytes() for _ in range(3)}
    assert len(found) == 1
    assert found != {register(*pair, iterations=10, seed=2).numpy().tobytes()}


@BOTH
def test_affine_in_2d(register: Callable[..., torch.Tensor]) -> None:
    angle = np.deg2rad(10)
    matrix = np.array([[np.cos(angle), -np.sin(angle), 5.0], [np.sin(angle), np.cos(angle), -6.0], [0.0, 0.0, 1.0]])
    found = register(*image_pair(matrix, np.diag([2.0, 2.0, 1.0]), d=2))
    points = world((24, 24), np.diag([2.0, 2.0, 1.0]))[6:18, 6:18].reshape(-1, 2)
    difference = found.numpy() - matrix
    assert np.linalg.norm(points @ difference[:2, :2].T + difference[:2, 2], axis=1).mean() < 1.0


def test_correlation_ignores_a_linear_change_of_the_intensities() -> None:
    fixed, fixed_affine, moving, moving_affine = image_pair(rotation_scale_and_shift(), FIXED_AFFINE)
    found, changed = (
        prealign.correlation_matrix(fixed, fixed_affine, image, moving_affine) for image in (moving, 0.25 * moving + 9)
    )
    assert mean_error(changed, found.numpy()) < 0.01


def test_correlation_goes_on_to_its_optimum() -> None:
    """A fifth of a voxel; where the gradient gets small it is still 0.9 mm off."""
    matrix = rotation_scale_and_shift()
    assert mean_error(prealign.correlation_matrix(*image_pair(matrix, FIXED_AFFINE)), matrix) < 0.4


def test_correlation_has_the_papers_five_resolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = []

    def note(method: sitk.ImageRegistrationMethod, found: dict[int, float], *_: int, **__: float) -> None:
        levels.append(list(found))
        raise InputError("enough")

    monkeypatch.setattr(prealign, "_set_gradient_descent", note)
    for shape in ((246, 130, 348), (64, 70, 65), (24, 90, 90), (9, 9)):
        image = torch.rand(1, *shape)
        with pytest.raises(InputError, match="enough"):
            prealign.correlation_matrix(image, torch.eye(len(shape) + 1), image, torch.eye(len(shape) + 1))
    assert levels == [[16, 8, 4, 2, 1], [8, 4, 2, 1], [2, 1], [1]]


def two_halves() -> tuple[dict[str, MetaTensor], MetaTensor]:
    """A pair whose halves are shifted by 3 mm along the second axis, in opposite directions, and one of the halves."""
    points = world(SHAPE, FIXED_AFFINE)
    upper = points[..., :1] > 23
    shifts = np.where(upper, 3.0, -3.0) * np.array([0.0, 1.0, 0.0])
    images = [torch.from_numpy(1000 * phantom(q)).float()[None] for q in (points + shifts, points)]
    affine = torch.from_numpy(FIXED_AFFINE)
    fixed, moving, mask = (MetaTensor(i, affine=affine) for i in (*images, torch.from_numpy(upper[None, ..., 0])))
    return {"fixed": fixed, "moving": moving}, mask.to(torch.uint8)


@pytest.mark.parametrize("both", [False, True])
def test_correlation_compares_within_the_masks(both: bool) -> None:
    pair, upper = two_halves()
    masks = {"fixed_mask": upper} | ({"moving_mask": upper} if both else {})
    for shift, chosen in ((3.0, masks), (-3.0, {key: 1 - mask for key, mask in masks.items()})):
        found = MovingToFixedGridd(prealign="correlation")(pair | chosen)["prealign_matrix"]
        inside = world(SHAPE, FIXED_AFFINE)[chosen["fixed_mask"][0].numpy() > 0]
        moved = inside @ found[:3, :3].numpy().T + found[:3, 3].numpy() - inside
        np.testing.assert_allclose(moved.mean(axis=0), [0.0, shift, 0.0], atol=0.5)  # a quarter of a voxel


def test_masks_that_do_not_fit_are_refused() -> None:
    pair = image_pair(np.eye(4), FIXED_AFFINE)
    with pytest.raises(InputError, match="fixed mask is empty"):
        prealign.correlation_matrix(*pair, fixed_mask=torch.zeros(1, *SHAPE))
    with pytest.raises(InputError, match="moving mask has size 1 x 3 x 3 x 3 but moving image has 1 x 24 x 24 x 24"):
        prealign.correlation_matrix(*pair, moving_mask=torch.ones(1, 3, 3, 3))


@BOTH
def test_a_failing_optimizer_is_an_input_error(
    monkeypatch: pytest.MonkeyPatch, register: Callable[..., torch.Tensor]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("All samples map outside moving image buffer")

    monkeypatch.setattr(sitk.ImageRegistrationMethod, "Execute", fail)
    with pytest.raises(InputError, match="affine pre-alignment failed"):
        register(*image_pair(np.eye(4), FIXED_AFFINE))


def test_a_map_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would pass as one that stretches by nothing."""
    image, affine = torch.rand(1, 20, 20, 20), torch.eye(4, dtype=torch.float64)
    monkeypatch.setattr(prealign, "_to_matrix", lambda _: torch.full((4, 4), float("nan"), dtype=torch.float64))
    for find in (prealign.affine_matrix, prealign.correlation_matrix):
        with pytest.raises(InputError, match="found a map that is not finite"):
            find(image, affine, image, affine)
    pair = {"fixed": MetaTensor(image, affine=affine), "moving": MetaTensor(image.flip(1), affine=affine)}
    monkeypatch.setattr(prealign_choice, "choose_prealignment", lambda *_, **__: ("affine", "by order"))
    assert MovingToFixedGridd("auto")(pair)["prealign_matrix"].isfinite().all()


def test_center_of_mass_in_2d_equals_scipys() -> None:
    image = np.random.default_rng(0).gamma(2.0, size=(9, 7))
    affine = np.array([[0.0, 2.0, 5.0], [3.0, 0.0, 6.0], [0.0, 0.0, 1.0]])
    expected = affine @ np.r_[center_of_mass(np.maximum(image - image.mean(), 0)), 1.0]
    found = prealign.center_of_mass(torch.from_numpy(image)[None], torch.from_numpy(affine))
    np.testing.assert_allclose(found, expected[:2], atol=1e-10)


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [((70, 90, 110), (2.0, 2.0, 2.0), (35, 45, 110)), ((200, 200, 30), (0.5, 0.5, 5.0), (66, 100, 30))],
)
def test_large_images_are_shrunk_where_they_are(
    shape: tuple[int, ...], spacing: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    """The finest axes come first; a linear image is the same function of the world after blocks of it are averaged."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [5.0, -7.0, 11.0]
    slope = np.array([0.3, -0.2, 0.1])
    image = torch.from_numpy(world(shape, affine) @ slope).float()[None]
    found, matrix = prealign._shrunk(image, torch.from_numpy(affine))
    assert tuple(found.shape[1:]) == expected
    assert np.prod(expected) <= prealign.VOXELS
    np.testing.assert_allclose(found[0], world(expected, matrix.numpy()) @ slope, atol=1e-4)


def test_small_images_are_not_shrunk() -> None:
    image, affine = torch.rand(1, *SHAPE), torch.from_numpy(FIXED_AFFINE)
    found, matrix = prealign._shrunk(image, affine)
    assert torch.equal(found, image)
    torch.testing.assert_close(matrix, affine)


def test_affine_of_an_image_too_large_to_be_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prealign, "VOXELS", 24**3)
    matrix, sizes = rotation_scale_and_shift(), []
    inverse, affine = np.linalg.inv(matrix), np.diag([1.0, 1.0, 1.0, 1.0])
    points = world((48, 48, 48), affine)
    images = [torch.from_numpy(phantom(q)).float()[None] for q in (points, points @ inverse[:3, :3].T + inverse[:3, 3])]

    def note(scan: prealign._Scan) -> sitk.Image:
        sizes.append(scan.image.shape[1:].numel())
        return clipped(scan)

    clipped = prealign._clipped_to_sitk
    monkeypatch.setattr(prealign, "_clipped_to_sitk", note)
    found = prealign.affine_matrix(images[0], torch.from_numpy(affine), images[1], torch.from_numpy(affine))
    assert mean_error(found, matrix) < 1.0, "a voxel, half a voxel of what is registered"
    assert sizes == [24**3, 24**3]
