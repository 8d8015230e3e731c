"""A bundle of known displacement, pairs made for it, and the environment of MONAI Deploy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_pairs import (
    CENTER,
    DIRECTIONS,
    FIXED_SHAPE,
    LPS,
    SHIFT,
    SPACING,
    SeriesPair,
    grid,
    intensity,
    labels,
    make_series_pair,
    make_shift_bundle,
    world,
)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


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
    return make_shift_bundle(repository / "bundles" / "ran", tmp_path_factory.mktemp("bundles"))


@pytest.fixture(params=[f"{plane}-{pixels}" for plane in ("axial", "sagittal") for pixels in SPACING])
def series_pair(request: pytest.FixtureRequest, tmp_path: Path) -> SeriesPair:
    """Two series of two studies of a patient, in folders of their own."""
    plane, pixels = request.param.split("-")
    return make_series_pair(tmp_path / "input", plane, pixels)


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
