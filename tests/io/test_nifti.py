"""NIfTI files against those that nibabel writes."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from peak_memory import peak_growth

from monai_regplugins.io.nifti import PLANES, write_nifti

AFFINE = np.array([[0.0, -2.0, 0.0, 10.0], [1.5, 0.0, 0.0, -20.0], [0.0, 0.0, 2.5, 5.0], [0.0, 0.0, 0.0, 1.0]])


def content(path: Path) -> bytes:
    """Return the bytes of a file, without its compression."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 2 * PLANES + 3), (5, 4, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_bytes_are_those_of_nibabel(
    tmp_path: Path, shape: tuple[int, ...], dtype: type, order: str, suffix: str
) -> None:
    values = np.asarray(np.random.default_rng(0).uniform(0, 200, shape), dtype=dtype, order=order)  # type: ignore[call-overload]
    image = nib.Nifti1Image(values, AFFINE)
    nib.save(image, tmp_path / f"expected{suffix}")
    write_nifti(image, tmp_path / f"found{suffix}")
    assert content(tmp_path / f"found{suffix}") == content(tmp_path / f"expected{suffix}")


@pytest.mark.parametrize("order", ["C", "F"])
def test_volumes_one_after_the_other_are_the_last_axis(tmp_path: Path, order: str) -> None:
    volumes = [np.asarray(v, order=order) for v in np.random.default_rng(0).normal(size=(3, 5, 4, 40)).astype("f")]  # type: ignore[call-overload]
    before = np.copy(volumes)
    factors = np.array([-1, -1, 1], np.float32)
    nib.save(nib.Nifti1Image(np.stack([-volumes[0], -volumes[1], volumes[2]], -1), AFFINE), tmp_path / "expected.nii")
    image = nib.Nifti1Image(np.broadcast_to(np.float32(0), (5, 4, 40, 3)), AFFINE)
    write_nifti(image, tmp_path / "found.nii", volumes, factors)
    assert content(tmp_path / "found.nii") == content(tmp_path / "expected.nii")
    np.testing.assert_array_equal(volumes, before)


def test_same_values_same_file(tmp_path: Path) -> None:
    """A gzip header may hold the time and the name of the file; that of a result does not."""
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(nib.Nifti1Image(np.ones((4, 4, 4), np.float32), AFFINE), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("kind", ["measured", "labels"])
def test_files_are_about_as_large_as_those_of_nibabel(tmp_path: Path, kind: str) -> None:
    axis = torch.linspace(-1, 1, 48)
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt().numpy()
    values = np.sin(9 * radius) + np.random.default_rng(0).normal(0, 0.01, radius.shape)
    data = values.astype(np.float32) if kind == "measured" else (5 * radius).astype(np.uint8)
    image = nib.Nifti1Image(data, AFFINE)
    nib.save(image, tmp_path / "theirs.nii.gz")
    write_nifti(image, tmp_path / "ours.nii.gz")
    assert (tmp_path / "ours.nii.gz").stat().st_size <= 1.03 * (tmp_path / "theirs.nii.gz").stat().st_size


@pytest.mark.slow
def test_writing_a_field_holds_little_beyond_it(tmp_path: Path) -> None:
    """A slab; it was the field in the other frame, and a component in the file's order: 20 bytes a voxel."""
    prepare = """
import numpy as np
from pathlib import Path
from monai_regplugins.io.displacement import write_itk_nifti
field = np.random.default_rng(0).random((3, 160, 160, 160), dtype=np.float32)
"""
    code = f"write_itk_nifti(field, np.eye(4), Path({str(tmp_path / 'field.nii.gz')!r}))"
    assert peak_growth(prepare, code) < 4 * 160**3
