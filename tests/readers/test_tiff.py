"""TIFF stacks written by tifffile, as ImageJ and OME write them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from monai_regplugins.checks import InputError
from monai_regplugins.readers.images import read_scan, scan_phases, scan_shape
from monai_regplugins.readers.phases import Phase
from monai_regplugins.transforms.load import LoadPaird

tifffile = pytest.importorskip("tifffile")

STACK = np.random.default_rng(0).integers(0, 60000, (5, 6, 7)).astype(np.uint16)  # z, y, x
TIMES = np.stack([STACK, STACK // 2, STACK // 3])
SIZES = [0.5, 0.75, 2.0]  # x, y, z


def ome(unit: str, factor: float) -> dict[str, Any]:
    known = {f"PhysicalSize{axis}": size * factor for axis, size in zip("XYZ", SIZES, strict=True)}
    return {"ome": True, "metadata": {"axes": "ZYX", **known, **{f"{key}Unit": unit for key in known}}}


def imagej(unit: str, factor: float) -> dict[str, Any]:
    resolution = tuple(1 / (size * factor) for size in SIZES[:2])
    return {
        "imagej": True,
        "resolution": resolution,
        "metadata": {"axes": "ZYX", "unit": unit, "spacing": SIZES[2] * factor},
    }


WRITERS = {
    "ome mm": ome("mm", 1.0),
    "ome um": ome("µm", 1000.0),
    "imagej mm": imagej("mm", 1.0),
    "imagej um": imagej("micron", 1000.0),
    "imagej u": imagej("\\u00B5m", 1000.0),
    "imagej inch": imagej("inch", 1 / 25.4),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("suffix", [".tif", ".ome.tiff"])
def test_a_stack_has_its_voxel_size_in_mm(tmp_path: Path, kind: str, suffix: str) -> None:
    if suffix == ".ome.tiff" and "imagej" in kind:
        pytest.skip("tifffile writes OME by this name")
    file = tmp_path / f"a{suffix}"
    tifffile.imwrite(file, STACK, **WRITERS[kind])
    scan = read_scan(file, "image")
    np.testing.assert_array_equal(scan.values, STACK.T)
    np.testing.assert_allclose(np.diag(scan.affine), [*SIZES, 1], rtol=1e-4)
    assert scan_shape(file, "image") == STACK.T.shape
    read_by_itk = sitk.ReadImage(str(file))  # without OME's sizes
    np.testing.assert_array_equal(scan.values, sitk.GetArrayFromImage(read_by_itk).T)


def test_labels_are_exact(tmp_path: Path) -> None:
    labels = STACK.astype(np.uint32) + 2**24
    tifffile.imwrite(tmp_path / "a.tif", labels, **ome("mm", 1.0))
    np.testing.assert_array_equal(read_scan(tmp_path / "a.tif", "label", exact=True).values, labels.T)


def test_a_picture_lies_on_the_grid_of_identity_as_a_png_does(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], resolution=(300, 300), resolutionunit="INCH")
    pair = LoadPaird(spatial_dims=2)({"fixed": tmp_path / "a.tif", "moving": tmp_path / "a.tif"})
    np.testing.assert_array_equal(pair["fixed"][0], STACK[0].T)
    np.testing.assert_array_equal(pair["fixed"].affine, np.eye(4))


@pytest.mark.parametrize("form", ["imagej", "ome"])
def test_times_are_volumes(tmp_path: Path, form: str) -> None:
    tags = imagej("mm", 1.0) if form == "imagej" else ome("mm", 1.0)
    tags["metadata"]["axes"] = "TZYX"
    tifffile.imwrite(tmp_path / "a.tif", TIMES, **tags)
    assert scan_phases(tmp_path / "a.tif", "image") == ["0", "1", "2"]
    scan = read_scan(tmp_path / "a.tif", "image", phase=Phase("1", "fixed_phase"))
    np.testing.assert_array_equal(scan.values, TIMES[1].T)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", STACK, photometric="minisblack")
    with pytest.raises(InputError, match=r"has no spacing, its voxel size is \[0.0, 0.0, 0.0\] mm"):
        read_scan(tmp_path / "plain.tif", "image")
    tifffile.imwrite(tmp_path / "color.tif", np.zeros((6, 7, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="holds 3 values per voxel, expected one real number"):
        read_scan(tmp_path / "color.tif", "image")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "plain.tif").read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_scan(tmp_path / "cut.tif", "image")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(InputError, match="need tifffile, which is missing; install it with: pip install tifffile"):
        read_scan(tmp_path / "plain.tif", "image")


def test_other_files_that_ome_names_are_not_opened(tmp_path: Path) -> None:
    """The header of OME may list files anywhere; only the file itself is read."""
    tifffile.imwrite(tmp_path / "other.tif", STACK)
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[:1], **ome("mm", 1.0))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        text = tiff.ome_metadata
    corrupted = text.replace('SizeZ="1"', 'SizeZ="2"').replace(
        "</Pixels>", '<TiffData FirstZ="1" IFD="0"><UUID FileName="other.tif">urn:uuid:1</UUID></TiffData></Pixels>'
    )
    tifffile.tiffcomment(tmp_path / "a.ome.tif", corrupted.encode())
    values = read_scan(tmp_path / "a.ome.tif", "image").values.numpy()
    assert not (values.squeeze() == STACK[1].T).all()
    assert values.shape[:2] == (7, 6)
