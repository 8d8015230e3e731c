"""Images as they are compared: what was measured, averages, and centers of mass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass as scipys_center

from monai_regplugins.checks import InputError
from monai_regplugins.transforms import alignment_scan
from monai_regplugins.transforms.alignment_scan import center_of_mass, coarser, scan_of, shrunk

TURNED = np.array([[0.0, 2.0, 0.0, 5.0], [3.0, 0.0, 0.0, 6.0], [0.0, 0.0, 4.0, 7.0], [0.0, 0.0, 0.0, 1.0]])


def world(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World points of all voxels, (*shape, d)."""
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:-1, :-1].T + affine[:-1, -1]


@pytest.mark.parametrize("keep", [[0, 1, 2, 3], [0, 1, 3]])
def test_center_of_mass_equals_scipys(keep: list[int]) -> None:
    affine = TURNED[np.ix_(keep, keep)]
    image = np.random.default_rng(0).gamma(2.0, size=(5, 6, 7)[: len(keep) - 1])
    expected = affine @ np.r_[scipys_center(np.maximum(image - image.mean(), 0)), 1.0]
    found = center_of_mass(torch.from_numpy(image)[None], torch.from_numpy(affine))
    np.testing.assert_allclose(found, expected[:-1], atol=1e-10)


@pytest.mark.parametrize("padding", [-2000.0, -3024.0, -1025.0])
def test_padding_does_not_pull_the_center_of_mass(padding: float) -> None:
    """The same body, with and without padding in the corners."""
    x, y = np.indices((40, 40))
    image = np.where((x - 14) ** 2 + (y - 22) ** 2 < 64, 40.0, -1000.0)
    padded = np.where((x - 20) ** 2 + (y - 20) ** 2 > 18**2, padding, image)
    centers = [center_of_mass(torch.from_numpy(one)[None], torch.eye(3)) for one in (image, padded)]
    torch.testing.assert_close(*centers, atol=0.15, rtol=0)


def test_padding_leaves_the_values_that_are_compared() -> None:
    image = torch.full((1, 8, 8), 100.0)
    image[0, ::2, ::2] = 50.0
    image[0, :2] = -2000.0
    scan = scan_of(image, torch.eye(3))
    assert float(scan.image.min()) >= 50
    assert scan.counts[0, :, 0].tolist() == [False, False, *[True] * 6]


def test_masks_that_do_not_fit_are_refused() -> None:
    image, affine = torch.rand(1, 9, 9), torch.eye(3)
    with pytest.raises(InputError, match="fixed mask is empty"):
        scan_of(image, affine, torch.zeros(1, 9, 9), "fixed")
    with pytest.raises(InputError, match="moving mask has size 1 x 3 x 3 but moving image has 1 x 9 x 9"):
        scan_of(image, affine, torch.ones(1, 3, 3), "moving")


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
    scan = alignment_scan.Scan(image, torch.from_numpy(affine), torch.ones_like(image))
    found, matrix, weight = shrunk(scan, alignment_scan.VOXELS)
    assert tuple(found.shape[1:]) == expected
    assert np.prod(expected) <= alignment_scan.VOXELS
    np.testing.assert_allclose(found[0], world(expected, matrix.numpy()) @ slope, atol=1e-4)
    assert bool((weight == 1).all())


def test_averages_are_weighted() -> None:
    image = torch.tensor([[[1.0, 3.0, 5.0, 100.0]] * 2])
    weight = torch.tensor([[[1.0, 1.0, 1.0, 0.0]] * 2])
    found = coarser(alignment_scan.Scan(image, torch.eye(3).double(), weight), 2.0)
    torch.testing.assert_close(found.image, torch.tensor([[[2.0, 5.0]]]))
    torch.testing.assert_close(found.weight, torch.tensor([[[1.0, 0.5]]]))


def test_blocks_leave_enough_voxels() -> None:
    image = torch.rand(1, 20, 40)
    found = coarser(alignment_scan.Scan(image, torch.eye(3).double(), torch.ones_like(image)), 4.0, smallest=8)
    assert tuple(found.image.shape[1:]) == (10, 10)
