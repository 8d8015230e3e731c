"""A small datastore and bundles with freshly made weights, and a server where there is MONAI Label."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from label_server import LabelServer, fill_studies, fresh_bundle

from monai_regplugins.phantoms import make_abdomen, make_cine_lung


@pytest.fixture(scope="session")
def bundle_dir(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three bundles with fresh weights."""
    folder = tmp_path_factory.mktemp("bundles")
    for name in ("ran", "r2n2", "regnet"):
        fresh_bundle(repository / "bundles" / name, folder)
    return folder


@pytest.fixture(scope="session")
def abdomen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The abdomen phantom, five subjects with coarse voxels."""
    folder = tmp_path_factory.mktemp("phantom") / "abdomen"
    return make_abdomen(folder, num_training=3, num_validation=2, spatial_shape=(20, 16, 20), spacing=16.0)


@pytest.fixture
def studies(abdomen: Path, tmp_path: Path) -> Path:
    """Folder of five images, one of them with a label."""
    return fill_studies(tmp_path / "studies", abdomen)


@pytest.fixture(scope="session")
def cine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series of one slice over time, four frames in one file (H, W, T)."""
    folder = tmp_path_factory.mktemp("phantom") / "cine"
    make_cine_lung(folder, num_training=1, num_validation=1, num_frames=4, spatial_shape=(40, 40), spacing=6.4)
    files = sorted((folder / "imagesTr").glob("*.nii.gz"))[:4]
    frames = [np.asarray(nib.load(file).dataobj).reshape(40, 40) for file in files]
    path = folder / "cine.nii.gz"
    nib.save(nib.Nifti1Image(np.stack(frames, -1).astype(np.float32), np.diag([6.4, 6.4, 5.0, 1.0])), path)
    return path


@pytest.fixture(scope="session")
def label_python() -> str:
    """Python of an environment with MONAI Label."""
    python = os.environ.get("MONAI_LABEL_PYTHON", "")
    if not python:
        pytest.skip("needs MONAI_LABEL_PYTHON, the Python of an environment with MONAI Label and this package")
    return python


@pytest.fixture(scope="session")
def label_server(
    label_python: str, bundle_dir: Path, abdomen: Path, cine: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabelServer]:
    """A server with RAN and R2N2, an atlas with a label, four other images and a series."""
    folder = tmp_path_factory.mktemp("label")
    studies = fill_studies(folder / "studies", abdomen)
    shutil.copy(cine, studies / "cine.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((128, 128, 8), np.uint8), np.eye(4)), studies / "huge.nii.gz")
    server = LabelServer(label_python, folder / "app", studies, bundle_dir)
    yield server
    server.stop()
