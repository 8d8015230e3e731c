"""Units of MetaImage and NRRD headers, and headers without a voxel size."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.readers.image_grid import read_image_grid
from monai_regplugins.readers.images import read_scan
from monai_regplugins.readers.itk_world import itk_affine

VALUES = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
IN_MM = np.array([[0.0, -1.5, 0.0, 12.0], [2.0, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 40.0], [0.0, 0.0, 0.0, 1.0]])
UNITS = {"um": 1e3, "microns": 1e3, "Millimeters": 1.0, "cm": 0.1, "m": 1e-3, "": 1.0}


def write(path: Path, affine: np.ndarray, unit: str) -> Path:
    """Write VALUES at an affine in RAS, whose numbers are of a unit."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    if path.suffix == ".nrrd":
        directions = " ".join(f"({','.join(map(str, column))})" for column in lps[:3, :3].T)
        lines = ["NRRD0004", "type: short", "dimension: 3", "sizes: 3 4 5", "endian: little", "encoding: raw"]
        lines += ["space: left-posterior-superior", f"space directions: {directions}"]
        lines += [
            f"space origin: ({','.join(map(str, lps[:3, 3]))})",
            f'space units: "{unit}" "{unit}" "{unit}"',
            "",
            "",
        ]
    else:
        lines = ["NDims = 3", "DimSize = 3 4 5", "ElementType = MET_SHORT"]
        lines += [f"TransformMatrix = {' '.join(map(str, (lps[:3, :3] / edges).T.ravel()))}"]
        lines += [f"Offset = {' '.join(map(str, lps[:3, 3]))}", f"ElementSpacing = {' '.join(map(str, edges))}"]
        lines += [*([f"DistanceUnits = {unit}"] if unit else []), "ElementDataFile = LOCAL", ""]
    path.write_bytes("\n".join(lines).encode() + VALUES.tobytes("F"))
    return path


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_lengths_become_mm_whatever_their_unit(tmp_path: Path, suffix: str, unit: str) -> None:
    affine = np.diag([UNITS[unit]] * 3 + [1.0]) @ IN_MM
    path = write(tmp_path / f"a{suffix}", affine, unit)
    scan, grid = read_scan(path, "image"), read_image_grid(path, "image")
    np.testing.assert_array_equal(scan.values, VALUES)
    np.testing.assert_allclose(scan.affine, IN_MM, atol=1e-6)
    np.testing.assert_allclose(grid.affine, IN_MM, atol=1e-6)
    np.testing.assert_allclose(grid.by_itk, affine, rtol=1e-6)
    np.testing.assert_allclose(grid.by_itk, itk_affine(path), rtol=1e-6)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_an_unknown_unit_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", IN_MM, "inch")
    with pytest.raises(InputError, match="states lengths in inch, expected one of mm"):
        read_scan(path, "image")
    with pytest.raises(InputError, match="states lengths in inch"):
        read_image_grid(path, "image")


def test_axes_of_different_units_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nrrd", IN_MM, "mm")
    path.write_bytes(path.read_bytes().replace(b'"mm" "mm" "mm"', b'"mm" "mm" "um"'))
    with pytest.raises(InputError, match="states lengths in mm, um, expected one of"):
        read_scan(path, "image")


@pytest.mark.parametrize(
    ("suffix", "line"),
    [
        (".nrrd", b"spacings: 1.5 2 3"),
        (".nrrd", b"spacings: NaN NaN NaN"),
        (".nrrd", b""),
        (".mha", b"ElementSize = 1.5 2 3"),
        (".mha", b""),
    ],
)
def test_a_header_without_a_voxel_size_is_reported(
    tmp_path: Path, suffix: str, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / f"a{suffix}", IN_MM, "")
    content = path.read_bytes()
    keep = [one for one in content.split(b"\n") if not one.lower().startswith((b"space", b"elementspacing"))]
    keep.insert(3, *([line] if line else [b"Comment = none" if suffix == ".mha" else b"# none"]))
    path.write_bytes(b"\n".join(keep))
    with caplog.at_level(logging.WARNING):
        scan = read_scan(path, "image")
    edges = np.linalg.norm(scan.affine.numpy()[:3, :3], axis=0)
    reported = [record.getMessage() for record in caplog.records]
    if b"3" in line:
        np.testing.assert_allclose(edges, [1.5, 2, 3])
        assert reported == []
    else:
        np.testing.assert_allclose(edges, 1.0)
        assert reported == [
            f"image '{path}' states no voxel size, so its voxels are taken for 1 mm; set it in the header."
        ]
