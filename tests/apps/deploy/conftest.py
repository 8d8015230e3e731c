"""A bundle of known displacement, pairs made for it, and the environment of MONAI Deploy."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from dicom_series import SERIES, write_volume
from scipy.spatial.transform import Rotation

Array = npt.NDArray[Any]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

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


@pytest.fixture(scope="session")
def run_deploy() -> Run:
    """Return a function that runs Python in the environment of MONAI Deploy, or skip the test."""
    python = os.environ.get("MONAI_DEPLOY_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("needs MONAI_DEPLOY_PYTHON, the Python of an environment as docs/how-to/deploy.md makes it")
    libraries = next(Path(python).parents[1].glob("lib/python3*/site-packages/nvidia/cu13/lib"), Path())

    def run(*words: str | Path, **variables: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HOLOSCAN_")}
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "LD_LIBRARY_PATH": str(libraries)}
        environment |= {key: str(value) for key, value in variables.items()}
        command = [python, *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)

    return run


@pytest.fixture(scope="session")
def bundle(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RAN's bundle with a network that answers ``SHIFT`` to any pair, and no instance optimisation after it."""
    folder = tmp_path_factory.mktemp("bundles") / "ran"
    config = json.loads((repository / "bundles" / "ran" / "configs" / "inference.json").read_text())
    config["network_def"] = {"_target_": "torch.nn.Conv3d", "in_channels": 2, "out_channels": 3, "kernel_size": 1}
    config["spatial_size"] = [0, 0, 0]  # as it comes
    config["refine_steps"] = 0
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "models").mkdir()
    weights = {"weight": torch.zeros(3, 2, 1, 1, 1), "bias": torch.tensor(SHIFT)}
    torch.save(weights, folder / "models" / "model.pt")
    return folder


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


@pytest.fixture(params=[f"{plane}-{pixels}" for plane in ("axial", "sagittal") for pixels in SPACING])
def series_pair(request: pytest.FixtureRequest, tmp_path: Path) -> SeriesPair:
    """Two series of two studies of a patient, in folders of their own."""
    plane, pixels = request.param.split("-")
    return make_series_pair(tmp_path / "input", plane, pixels)


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


@pytest.fixture
def file_pair(tmp_path: Path) -> Path:
    """A folder with the pair as NIfTI files."""
    folder = tmp_path / "input"
    folder.mkdir()
    fixed = grid((2.0, 2.2, 2.6), FIXED_SHAPE, DIRECTIONS["axial"], CENTER)
    for role, shift in {"fixed": np.zeros(3), "moving": fixed[:3, :3] @ SHIFT}.items():
        points = world(fixed, FIXED_SHAPE) - shift
        nib.save(nib.Nifti1Image(intensity(points).astype(np.float32), LPS @ fixed), folder / f"{role}.nii.gz")
        nib.save(nib.Nifti1Image(labels(points), LPS @ fixed), folder / f"{role}_label.nii.gz")
    (folder / "fixed_label.nii.gz").unlink()
    return folder
