"""Displacement fields and grids for the tests of files, and what they mean, computed without the package."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

SHAPE = (9, 8, 7)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique(spacing: tuple[float, ...], angles: tuple[float, ...], shape: tuple[float, ...]) -> np.ndarray:
    """A voxel-to-RAS matrix along no world axis, its grid around a fixed point; a negative spacing turns the hand."""
    a, b = angles
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x * spacing
    affine[:3, 3] = np.array([-40.0, 25.0, 130.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def random_grid(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A voxel-to-RAS matrix of any directions, of edges of 0.5 to 5 mm, right-handed for even seeds, left for odd."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * np.exp(rng.uniform(*np.log([0.5, 5.0]), 3))
    affine[:3, rng.integers(3)] *= (-1) ** seed
    affine[:3, 3] = rng.uniform(-200, 200, 3) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


GRIDS = {
    "RAS": oblique((1.0, 1.0, 1.0), (0.0, 0.0), SHAPE),
    "LPS": oblique((-1.0, -1.0, 1.0), (0.0, 0.0), SHAPE),
    "oblique": oblique((0.9, 1.5, 2.0), (0.3, -0.4), SHAPE),
    "anisotropic": oblique((0.7, 0.7, 5.0), (0.0, 0.0), SHAPE),
    "left-handed": oblique((-0.9, 1.5, 2.0), (0.3, -0.4), SHAPE),
}
MOVING_SHAPE = (20, 22, 18)
MOVING_AFFINE = oblique((1.1, 0.8, 1.3), (-0.2, 0.3), MOVING_SHAPE)
PLANE = oblique((-0.9, 1.5, 1.0), (0.3, 0.0), (5.0, 3.0, 0.0))  # of a 2D image


def field_ras(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A field in mm with another pattern in each component, so that no swap or sign goes unnoticed."""
    x, y, z = np.indices(shape) / 3.0
    return np.stack([1.0 + np.sin(x + z), 0.5 * np.cos(y) - 2.0, 1.5 * np.sin(y - z)]).astype(np.float32)


def points_inside(affine: np.ndarray, shape: tuple[int, ...], count: int = 200) -> np.ndarray:
    """Random world points (N, d) between the voxel centers of a grid, not at them."""
    d = len(shape)
    index = np.random.default_rng(1).uniform(0.05, np.array(shape) - 1.05, (count, d))
    return index @ affine[:d, :d].T + affine[:d, 3]


def move(points: np.ndarray, displacement: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """``p + D(p)``, with ``D`` between the voxel centers by SciPy's linear interpolation."""
    d = len(displacement)
    index = (points - affine[:d, 3]) @ np.linalg.inv(affine[:d, :d]).T
    return points + np.stack([map_coordinates(part.astype(np.float64), index.T, order=1) for part in displacement], 1)


def itk_move(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Points (N, d) in RAS, moved by SimpleITK in its own frame."""
    signs = np.diag(LPS)[: points.shape[1]]
    return np.array([transform.TransformPoint(point) for point in (points * signs).tolist()]) * signs


def itk_image(values: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An image of SimpleITK on a grid given in RAS, made without a file."""
    lps, d = LPS @ affine, values.ndim
    spacing = np.linalg.norm(lps[:d, :d], axis=0)
    image = sitk.GetImageFromArray(values.T)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:d, :d] / spacing).ravel().tolist())
    image.SetOrigin(lps[:d, 3].tolist())
    return image


def itk_affine(matrix_ras: np.ndarray) -> sitk.AffineTransform:
    """An affine map of RAS points, (4, 4), as SimpleITK's."""
    lps = LPS @ matrix_ras @ LPS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform
