"""Warps of FreeSurfer against surfa, FreeSurfer's own library, which writes and reads them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from field_cases import MOVING_SHAPE, SHAPE, field_ras, random_grid
from nibabel.affines import apply_affine
from transform_readers import needs

from monai_regplugins.checks import InputError
from monai_regplugins.io.formats import format_of, load_field
from monai_regplugins.io.freesurfer_warp import HEADER, META, write_freesurfer_warp
from monai_regplugins.readers.image_grid import ImageGrid

FIXED, MOVING = ImageGrid(random_grid(1), SHAPE), ImageGrid(random_grid(2, MOVING_SHAPE), MOVING_SHAPE)


@pytest.fixture(scope="module")
def surfa() -> Any:
    return needs("surfa", "surfa")


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh", "a.nii.gz"])
@pytest.mark.parametrize("kind", ["abs_crs", "disp_crs", "abs_ras", "disp_ras"])
def test_what_surfa_writes(tmp_path: Path, surfa: Any, kind: str, name: str) -> None:
    """Voxels or mm, positions or displacements: surfa makes each of the others; in NIfTI it always writes mm."""
    source, target = (surfa.ImageGeometry(one.shape, vox2world=one.affine) for one in (MOVING, FIXED))
    displacement = np.ascontiguousarray(np.moveaxis(field_ras(), 0, -1))
    warp = surfa.Warp(displacement, source=source, target=target, format=surfa.Warp.Format.disp_ras)
    warp.convert(format=getattr(surfa.Warp.Format, kind)).save(str(tmp_path / name))
    assert format_of(tmp_path / name) == ("slicer_nifti" if name.endswith(".nii.gz") else "freesurfer")
    found, affine = load_field(tmp_path / name)
    np.testing.assert_allclose(affine, FIXED.affine, atol=1e-4)
    np.testing.assert_allclose(found, field_ras(), atol=5e-4)  # surfa computes in float32


def written(folder: Path) -> bytes:
    """The content of a warp of this package, uncompressed."""
    write_freesurfer_warp(field_ras(), FIXED.affine, folder / "a.mgh", MOVING)
    return (folder / "a.mgh").read_bytes()


def test_compressed_or_not_by_the_name(tmp_path: Path) -> None:
    content = written(tmp_path)
    write_freesurfer_warp(field_ras(), FIXED.affine, tmp_path / "a.mgz", MOVING)
    assert gzip.decompress((tmp_path / "a.mgz").read_bytes()) == content
    np.testing.assert_array_equal(load_field(tmp_path / "a.mgz")[0], field_ras())


@pytest.mark.parametrize("kind", range(4))
def test_the_kinds_of_numbers(tmp_path: Path, kind: int) -> None:
    """By their definition, without surfa."""
    content = written(tmp_path)
    index = np.moveaxis(np.indices(SHAPE), 0, -1)
    there = apply_affine(FIXED.affine, index) + np.moveaxis(field_ras(), 0, -1)
    voxels = apply_affine(np.linalg.inv(MOVING.affine), there)
    numbers = [voxels, voxels - index, there, np.moveaxis(field_ras(), 0, -1)][kind]
    values = numbers.astype(">f4").tobytes(order="F")
    meta = META.pack(kind, 1, 0.0)
    path = tmp_path / "b.mgh"
    path.write_bytes(content[: HEADER.size] + values + content[HEADER.size + len(values) : -META.size] + meta)
    np.testing.assert_allclose(load_field(path)[0], field_ras(), atol=1e-4)


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    content = written(tmp_path)
    values = HEADER.size + 12 * field_ras()[0].size
    nib.save(nib.MGHImage(np.zeros((4, 5, 6), np.float32), np.eye(4)), tmp_path / "image.mgz")
    files = {
        "image.mgz": ((tmp_path / "image.mgz").read_bytes(), "is an image of 1 frames, expected a warp"),
        "half.mgh": (content[: values // 2], "cannot be read as MGZ"),
        "foreign.mgz": (b"something else" * 30, "cannot be read as MGZ"),
        "empty.mgz": (b"", "is empty"),
        "bare.mgh": (content[:values], "does not state what its numbers are"),
        "coarse.mgh": (content[: -META.size] + META.pack(3, 2, 0.0), "does not state what its numbers are"),
        "unknown.mgh": (content[: -META.size] + META.pack(7, 1, 0.0), "does not state what its numbers are"),
        "half.mgz": (gzip.compress(content)[:200], "cannot be read as MGZ"),
    }
    for name, (held, message) in files.items():
        (tmp_path / name).write_bytes(held)
        with pytest.raises(InputError, match=message) as caught:
            load_field(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_warp_of_another_grid_than_it_states_is_refused(tmp_path: Path) -> None:
    content = written(tmp_path)
    wrong = ImageGrid(FIXED.affine, (9, 8, 8))
    write_freesurfer_warp(np.zeros((3, *wrong.shape), np.float32), wrong.affine, tmp_path / "b.mgh", MOVING)
    other = (tmp_path / "b.mgh").read_bytes()
    start, end = HEADER.size + 12 * 9 * 8 * 7, HEADER.size + 12 * 9 * 8 * 8
    (tmp_path / "c.mgh").write_bytes(content[:start] + other[end:])
    with pytest.raises(InputError, match=r"a warp of \(9, 8, 7\) voxels for an image of \(9, 8, 8\)"):
        load_field(tmp_path / "c.mgh")


def test_both_images_are_stated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="states both images; give the moving image"):
        write_freesurfer_warp(field_ras(), FIXED.affine, tmp_path / "a.mgz", None)
    assert list(tmp_path.iterdir()) == []
