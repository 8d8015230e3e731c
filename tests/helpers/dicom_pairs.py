"""DICOM pairs of a known displacement, and a bundle that finds it in any pair."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import torch
from dicom_series import SERIES, write_volume
from scipy.spatial.transform import Rotation

Array = npt.NDArray[Any]

SHIFT = (1.3, -2.0, 0.8)  # voxels of the fixed grid, the displacement that the bundle finds in any pair
CENTER = np.array([12.0, -30.0, 55.0])  # LPS, mm, as all coordinates here
FIXED_SHAPE, MOVING_SHAPE = (20, 18, 16), (24, 22, 18)
BALLS = {1: (np.array([-4.0, 5.0, -3.0]), 9.0), 2: (np.array([9.0, -8.0, 5.0]), 6.0)}  # center, radius, around CENTER
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
DIRECTIONS = {  # along columns, rows, slices
    "axial": np.eye(3),
    "sagittal": np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    "oblique": Rotation.from_euler("xz", (20, 12), degrees=True).as_matrix(),
}
SPACING = {"square": (2.5, 2.5, 3.0), "oblong": (2.0, 3.2, 3.0)}  # between columns, rows, slices
MARGIN = 2.9  # mm, more than half of the diagonal of a moving voxel


class SeriesPair(NamedTuple):
    """Two series of the same anatomy, the moving one displaced.

    Attributes:
        folder: holds the files.
        fixed: voxels of the fixed series to LPS, (4, 4).
        shift: where a point of the fixed series lies in the moving one, (3,), LPS.
    """

    folder: Path
    fixed: Array
    shift: Array


def make_shift_bundle(source: Path, folder: Path) -> Path:
    """Make RAN's bundle with a network that answers ``SHIFT`` to any pair, and no instance optimisation after it."""
    bundle = folder / "ran"
    config = json.loads((source / "configs" / "inference.json").read_text())
    config["network_def"] = {"_target_": "torch.nn.Conv3d", "in_channels": 2, "out_channels": 3, "kernel_size": 1}
    config["spatial_size"] = [0, 0, 0]  # as it comes
    config["refine_steps"] = 0
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    (bundle / "models").mkdir()
    weights = {"weight": torch.zeros(3, 2, 1, 1, 1), "bias": torch.tensor(SHIFT)}
    torch.save(weights, bundle / "models" / "model.pt")
    return bundle


def grid(spacing: tuple[float, ...], shape: tuple[int, ...], direction: Array, center: Array) -> Array:
    """Voxels to LPS of a grid around a point."""
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = center - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def world(affine: Array, shape: tuple[int, ...]) -> Array:
    """The points of a grid, (*shape, 3)."""
    points: Array = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    return points


def intensity(points: Array) -> Array:
    """The anatomy at points, smooth, in stored values."""
    x, y, z = np.moveaxis(points - CENTER, -1, 0) / 9.0
    values: Array = 300 * np.exp(-(x**2 + y**2 + z**2) / 8) * (1.5 + np.sin(x) * np.cos(y + z))
    return values


def depth(points: Array, ball: int) -> Array:
    """How deep points lie in a ball of the anatomy, mm; negative outside."""
    center, radius = BALLS[ball]
    found: Array = radius - np.linalg.norm(points - CENTER - center, axis=-1)
    return found


def labels(points: Array) -> Array:
    """The number of the ball that a point lies in, 0 for none."""
    return np.sum([number * (depth(points, number) > 0) for number in BALLS], axis=0).astype(np.uint8)


def make_series_pair(folder: Path, plane: str, pixels: str, **tags: Any) -> SeriesPair:
    """Write two series; a tag of ``fixed_`` or ``moving_`` is of that series only."""
    direction, spacing = DIRECTIONS[plane], SPACING[pixels]
    fixed = grid(spacing, FIXED_SHAPE, direction, CENTER)
    shift = fixed[:3, :3] @ SHIFT
    moving = grid(tuple(0.9 * edge for edge in spacing), MOVING_SHAPE, direction, CENTER + shift)
    places = {"fixed": (fixed, FIXED_SHAPE, np.zeros(3)), "moving": (moving, MOVING_SHAPE, shift)}
    for number, (role, (affine, shape, moved)) in enumerate(places.items(), 1):
        own = {key.removeprefix(f"{role}_"): value for key, value in tags.items() if key.startswith(f"{role}_")}
        written = {
            "SeriesDescription": role.upper(),
            "SeriesInstanceUID": f"{SERIES}.{number}",
            "StudyInstanceUID": f"{SERIES}.{number}.1",
            "FrameOfReferenceUID": f"{SERIES}.{number}.2",
            "StudyDate": "20240611",
            "StudyTime": "1012",
            "StudyID": "7",
            "BodyPartExamined": "ABDOMEN",
            **{key: value for key, value in tags.items() if "_" not in key},
            **own,
        }
        stored = np.round(intensity(world(affine, shape) - moved)).astype(np.int16)
        write_volume(folder / f"study{number}" / role, stored, LPS @ affine, **written)
    np.save(folder / "moving_label.npy", labels(world(moving, MOVING_SHAPE) - shift))  # (columns, rows, slices)
    return SeriesPair(folder, fixed, shift)


def frames_of(segmentation: Any) -> list[tuple[int, Array, Array]]:
    """Segment, points in LPS (rows, columns, 3) and pixels of each frame, by the standard."""
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    rows, columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    along = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    j, i = np.indices((segmentation.Rows, segmentation.Columns))
    plane = i[..., None] * columns * along[0] + j[..., None] * rows * along[1]
    found = []
    for group, pixels in zip(segmentation.PerFrameFunctionalGroupsSequence, segmentation.pixel_array, strict=True):
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        found.append((group.SegmentIdentificationSequence[0].ReferencedSegmentNumber, place + plane, pixels))
    return found


def field_of(registration: Any) -> sitk.Transform:
    """The grid of a Deformable Spatial Registration as SimpleITK's transform, by the standard."""
    (item,) = registration.DeformableRegistrationSequence
    (grid,) = item.DeformableRegistrationGridSequence
    shape = [int(size) for size in grid.GridDimensions]
    field = sitk.GetImageFromArray(np.frombuffer(grid.VectorGridData, "<f4").reshape(*shape[::-1], 3).astype(float))
    along = np.reshape(grid.ImageOrientationPatient, (2, 3)).astype(float)
    field.SetDirection(np.column_stack([*along, np.cross(*along)]).ravel())
    field.SetSpacing([float(edge) for edge in grid.GridResolution])
    field.SetOrigin([float(place) for place in grid.ImagePositionPatient])
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def check_segments(frames: list[tuple[int, Array, Array]], pair: SeriesPair) -> None:
    """Pixels well inside of a ball are set, those well outside are not, and no slice through it is missing."""
    deep = {ball: int((depth(world(pair.fixed, FIXED_SHAPE), ball) > MARGIN).sum()) for ball in BALLS}
    for ball in BALLS:
        marked = 0
        for segment, points, pixels in frames:
            if segment == ball:
                inside = depth(points, ball)
                assert pixels[inside > MARGIN].all()
                assert not pixels[inside < -MARGIN].any()
                marked += int((inside > MARGIN).sum())
        assert marked == deep[ball] > 0


def found_by_dciodvfy(path: Path) -> list[str]:
    """Its errors and warnings."""
    if not (program := shutil.which("dciodvfy")):
        pytest.skip("needs dciodvfy, of Debian's dicom3tools")
    done = subprocess.run([program, path], capture_output=True, text=True, check=False, errors="replace")
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
