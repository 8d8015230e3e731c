"""Points in the files of other programs, against what those programs take and give."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from field_cases import LPS, MOVING_AFFINE, MOVING_SHAPE, itk_image
from monai.data import MetaTensor
from nibabel.affines import apply_affine
from nifti_headers import KINDS, save_kind

from monai_regplugins.checks import InputError
from monai_regplugins.readers.images import read_scan
from monai_regplugins.readers.points import (
    PointFile,
    points_in_voxels,
    points_in_world,
    read_points,
    write_points,
)
from monai_regplugins.transforms.load import load_points

VOXELS = np.array([[3.25, 10.5, 4.0], [12.0, 2.75, 16.125]])
RAS = apply_affine(MOVING_AFFINE, VOXELS)
LPS_POINTS = RAS * np.diag(LPS)[:3]


def rows(points: np.ndarray, separator: str = ",") -> str:
    return "".join(separator.join(map(repr, point)) + "\n" for point in points.tolist())


def fcsv(points: np.ndarray, system: str) -> str:
    head = f"# Markups fiducial file version = 4.11\n# CoordinateSystem = {system}\n"
    lines = [f"{k},{row},0,0,0,1,1,1,0,F-{k},," for k, row in enumerate(rows(points).split(), 1)]
    return head + "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n" + "\n".join(lines)


def markups(points: np.ndarray, system: str) -> str:
    controls = [{"id": str(k), "label": f"F-{k}", "position": point} for k, point in enumerate(points.tolist())]
    return json.dumps({"markups": [{"type": "Fiducial", "coordinateSystem": system, "controlPoints": controls}]})


FILES = {
    "Slicer, LPS": ("a.fcsv", fcsv(LPS_POINTS, "LPS"), None),
    "Slicer, RAS": ("a.fcsv", fcsv(RAS, "RAS"), None),
    "old Slicer, RAS": ("a.fcsv", fcsv(RAS, "0"), None),
    "old Slicer, LPS": ("a.fcsv", fcsv(LPS_POINTS, "1"), None),
    "markups, LPS": ("a.mrk.json", markups(LPS_POINTS, "LPS"), None),
    "markups, RAS": ("a.mrk.json", markups(RAS, "RAS"), None),
    "ANTs": ("a.csv", "x,y,z,t\n" + "".join(f"{line},0\n" for line in rows(LPS_POINTS).split()), None),
    "ANTs with labels": ("a.csv", "x,y,z,t,label\n" + "".join(f"{r},0,7\n" for r in rows(LPS_POINTS).split()), None),
    "elastix, mm": ("a.txt", f"point\n2\n{rows(LPS_POINTS, ' ')}", None),
    "elastix, voxels": ("a.txt", f"index\n2\n{rows(VOXELS, ' ')}", None),
    "table": ("a.csv", rows(VOXELS), None),
    "table with names": ("a.csv", "i,j,k\n" + rows(VOXELS), None),
    "table, quoted names, blanks": ("a.csv", '"x", "y", "z"\n' + rows(VOXELS, " , "), None),
    "semicolons": ("a.csv", rows(VOXELS, ";"), None),
    "tabs": ("a.txt", rows(VOXELS, "\t"), None),
    "Windows": ("a.csv", "\ufeff" + rows(VOXELS).replace("\n", "\r\n"), None),
    "exponents": ("a.csv", "".join(",".join(f"{n:.17e}" for n in p) + "\n" for p in VOXELS), None),
    "table in RAS": ("a.csv", rows(RAS), "ras"),
    "table in LPS": ("a.csv", rows(LPS_POINTS), "lps"),
}


@pytest.mark.parametrize("name", FILES)
def test_each_file_means_the_same_voxels(tmp_path: Path, name: str) -> None:
    file, text, space = FILES[name]
    path = tmp_path / file
    path.write_text(text, encoding="utf-8", newline="")
    found = read_points(path, "points", space)
    np.testing.assert_allclose(points_in_voxels(found, MOVING_AFFINE), VOXELS, atol=1e-9)
    np.testing.assert_allclose(points_in_world(found, MOVING_AFFINE), RAS, atol=1e-9)

    image = MetaTensor(torch.zeros(1, *MOVING_SHAPE), affine=torch.from_numpy(MOVING_AFFINE))
    loaded = load_points(path, 3, "points", image, space)
    np.testing.assert_allclose(loaded.numpy(), VOXELS, atol=1e-5)


def test_simpleitk_finds_the_same_voxels() -> None:
    image = itk_image(np.zeros(MOVING_SHAPE, np.float32), MOVING_AFFINE)
    theirs = [image.TransformPhysicalPointToContinuousIndex(point) for point in LPS_POINTS.tolist()]
    np.testing.assert_allclose(points_in_voxels(PointFile(LPS_POINTS, "lps", "ants"), MOVING_AFFINE), theirs, atol=1e-9)


@pytest.mark.parametrize("kind", ["aligned sform beside a qform", "neither"])
def test_points_of_itk_programs_lie_where_itk_places_the_image(tmp_path: Path, kind: str) -> None:
    """A header that nibabel and ITK read differently: points of 3D Slicer follow ITK, RAS points of a table nibabel."""
    sitk = pytest.importorskip("SimpleITK")
    path = save_kind(tmp_path / "a.nii.gz", np.zeros(MOVING_SHAPE, np.float32), MOVING_AFFINE, KINDS[kind])
    scan = read_scan(path, "image")
    image = MetaTensor(scan.values[None], affine=scan.affine, meta=scan.meta)
    theirs = sitk.ReadImage(str(path))
    points = np.array([theirs.TransformContinuousIndexToPhysicalPoint(voxel) for voxel in VOXELS.tolist()])
    (tmp_path / "points.fcsv").write_text(fcsv(points, "LPS"))
    np.testing.assert_allclose(load_points(tmp_path / "points.fcsv", 3, "points", image), VOXELS, atol=1e-3)
    (tmp_path / "points.csv").write_text(rows(apply_affine(scan.affine.numpy(), VOXELS)))
    np.testing.assert_allclose(load_points(tmp_path / "points.csv", 3, "points", image, "ras"), VOXELS, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in FILES if "names" not in name])
def test_written_files_are_read_again(tmp_path: Path, name: str) -> None:
    file, text, space = FILES[name]
    (tmp_path / file).write_text(text, encoding="utf-8", newline="")
    found = read_points(tmp_path / file, "points", space)
    written = tmp_path / f"written-{file}"
    write_points(written, found)
    again = read_points(written, "points", space)
    assert (again.space, again.kind, again.names) == (found.space, found.kind, found.names)
    np.testing.assert_array_equal(again.points, found.points)


def test_ants_reads_what_is_written(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write_points(tmp_path / "a.csv", PointFile(LPS_POINTS, "lps", "ants"))
    table = pandas.read_csv(tmp_path / "a.csv")
    assert list(table.columns) == ["x", "y", "z", "t"]
    np.testing.assert_array_equal(table[["x", "y", "z"]].to_numpy(), LPS_POINTS)


def test_planes_take_two_of_three_coordinates(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y,z,t\n-4,-6,0,0\n")
    image = MetaTensor(torch.zeros(1, 9, 9), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    assert load_points(tmp_path / "a.csv", 2, "points", image).tolist() == [[2.0, 2.0]]


def test_compressed_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(rows(VOXELS).encode()))
    np.testing.assert_array_equal(read_points(tmp_path / "a.csv.gz", "points").points, VOXELS)


REFUSED = {
    "no points": ("a.csv", "", "cannot be read as points"),
    "words": ("a.csv", "a,b,c\n1,2,three\n", "points_space ras or lps makes voxels of points in mm"),
    "ragged": ("a.csv", "1,2,3\n4,5\n", "cannot be read"),
    "four columns": ("a.csv", "1,2,3,4\n", "cannot be read"),
    "not finite": ("a.csv", "1,2,nan\n", "cannot be read"),
    "another number": ("a.txt", "point\n3\n1 2 3\n", "cannot be read"),
    "two lists": ("a.mrk.json", '{"markups": [{}, {}]}', "cannot be read"),
    "undefined": ("a.mrk.json", markups(RAS, "RAS").replace(repr(float(RAS[0, 0])), "null"), "cannot be read"),
    "no system": ("a.fcsv", "1,2,3,4\n", "cannot be read"),
    "another system": ("a.fcsv", fcsv(RAS, "IJK"), "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    file, text, message = REFUSED[name]
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_points(tmp_path / file, "fixed points")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"fixed points '{tmp_path / file}'")


def test_a_space_that_the_file_contradicts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.fcsv").write_text(fcsv(RAS, "RAS"))
    with pytest.raises(InputError, match="says itself that its numbers are ras, but points_space is 'voxel'"):
        read_points(tmp_path / "a.fcsv", "points", "voxel")
    with pytest.raises(InputError, match="points_space is 'mm'; choose one of 'voxel', 'ras', 'lps'"):
        read_points(tmp_path / "a.fcsv", "points", "mm")
    with pytest.raises(InputError, match="is in mm"):
        load_points(tmp_path / "a.fcsv", 3, "points")
    with pytest.raises(InputError, match="would hold voxels, expected mm"):
        write_points(tmp_path / "b.fcsv", PointFile(VOXELS, "voxel", "fcsv"))
    assert not (tmp_path / "b.fcsv").exists()
