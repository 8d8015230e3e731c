"""Transforms of MINC against SimpleITK, which writes them, and the MINC toolkit, which moves points by them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from field_cases import SHAPE, random_grid
from nibabel.affines import apply_affine
from transform_readers import program

from monai_regplugins.checks import InputError
from monai_regplugins.io.operations import convert, inspect
from monai_regplugins.io.transform_files import load_transform, transform_format

pytest.importorskip("h5py", reason="needs h5py")

AFFINE = random_grid(3)
CENTER = apply_affine(AFFINE, (np.array(SHAPE) - 1) / 2)
STRETCH = np.array([[0.05, 0.02, -0.03], [0.04, -0.06, 0.01], [0.02, 0.03, 0.07]])
SHIFT = np.array([0.5, -0.7, 0.3])
MATRIX = np.array([[1.02, -0.01, 0.02, 0], [0.012, 0.97, -0.05, 0], [0, 0.06, 1.02, 0], [0, 0, 0, 1]])
MATRIX[:3, 3] = CENTER - MATRIX[:3, :3] @ CENTER + [0.3, -0.2, 0.4]  # around the middle of the field
LINEAR = "MNI Transform File\n% by hand\n\nTransform_Type = Linear;\nLinear_Transform =\n{};\n"
POINTS = apply_affine(AFFINE, np.random.default_rng(0).uniform(2.5, np.array(SHAPE) - 3.5, (20, 3)))


def stretched(points: np.ndarray) -> np.ndarray:
    """Where the field takes points: it is linear, so that MINC's cubic interpolation of it is exact, too."""
    return points + (points - CENTER) @ STRETCH.T + SHIFT


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field and a matrix; ITK takes the world of MINC for its own, so its numbers are RAS."""
    monkeypatch.chdir(tmp_path)
    world = apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1))
    image = sitk.GetImageFromArray(np.moveaxis(stretched(world) - world, (0, 1, 2), (2, 1, 0)), isVector=True)
    spacing = np.linalg.norm(AFFINE[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((AFFINE[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(AFFINE[:3, 3].tolist())
    sitk.WriteTransform(sitk.DisplacementFieldTransform(image), "field.xfm")
    rows = "\n".join(" ".join(map(str, row)) for row in MATRIX[:3].tolist())
    Path("matrix.xfm").write_text(LINEAR.format(rows))


def moved(source: str, points: np.ndarray) -> np.ndarray:
    return load_transform(source).move(torch.from_numpy(points)).numpy()


def test_a_fixed_point_goes_against_the_file() -> None:
    """The file takes points of the moving image to the fixed one."""
    assert transform_format("field.xfm") == "minc"
    np.testing.assert_allclose(moved("field.xfm", stretched(POINTS)), POINTS, atol=1e-3)
    np.testing.assert_allclose(moved("inverse:field.xfm", POINTS), stretched(POINTS), atol=1e-5)
    np.testing.assert_allclose(moved("matrix.xfm", apply_affine(MATRIX, POINTS)), POINTS, atol=1e-9)
    np.testing.assert_allclose(moved("inverse:matrix.xfm", POINTS), apply_affine(MATRIX, POINTS), atol=1e-9)


def test_several_and_inverted_ones() -> None:
    parts = [re.split(r"\n(?=Transform_Type)", Path(f"{name}.xfm").read_text())[1] for name in ("matrix", "field")]
    Path("both.xfm").write_text("\n".join(["MNI Transform File", *parts]))
    np.testing.assert_allclose(moved("both.xfm", stretched(apply_affine(MATRIX, POINTS))), POINTS, atol=1e-3)
    Path("turned.xfm").write_text(
        "\n".join(["MNI Transform File", *(part.replace(";", ";\nInvert_Flag = True;", 1) for part in parts[::-1])])
    )
    np.testing.assert_allclose(moved("turned.xfm", POINTS), stretched(apply_affine(MATRIX, POINTS)), atol=1e-5)
    facts = inspect("both.xfm").facts
    assert (facts["1. kind"], facts["2. kind"]) == ("inverse of a displacement field", "linear")
    assert facts["1. grid"].startswith("9 x 8 x 7 voxels")


def test_it_becomes_a_field_of_another_format() -> None:
    fixed = sitk.GetImageFromArray(np.zeros((5, 5, 5), np.float32))
    fixed.SetOrigin((CENTER * [-1, -1, 1] - 2).tolist())
    sitk.WriteImage(fixed, "fixed.nii.gz")
    convert("field.xfm", "a.nii.gz", like="fixed.nii.gz")
    points = np.random.default_rng(1).uniform(-1.5, 1.5, (10, 3)) + CENTER
    np.testing.assert_allclose(stretched(moved("a.nii.gz", points)), points, atol=1e-3)


@pytest.mark.slow
def test_the_minc_toolkit_moves_points_to_the_same_place() -> None:
    command = program("transformtags")
    subprocess.run([program("xfmconcat"), "matrix.xfm", "field.xfm", "both.xfm"], check=True)
    rows = [f' {" ".join(map(repr, point))} ""' for point in POINTS.tolist()]
    Path("a.tag").write_text("MNI Tag Point File\nVolumes = 1;\n\nPoints =\n" + "\n".join(rows) + ";\n")
    for name in ("matrix.xfm", "field.xfm", "both.xfm"):
        subprocess.run([command, "-transformation", name, "a.tag", f"{name}.tag"], check=True)
        lines = Path(f"{name}.tag").read_text().split("Points =")[1].strip().splitlines()
        theirs = np.array([line.split()[:3] for line in lines], float)
        np.testing.assert_allclose(moved(name, theirs), POINTS, atol=1e-3)


def test_other_files_are_refused_in_one_line() -> None:
    text = Path("field.xfm").read_text()
    Path("old_grid_0.mnc").write_bytes(b"CDF\x01 an older MINC")
    Path("bad_grid_0.mnc").write_bytes(b"something else")
    for content, message in [
        ("MNI Transform File\nTransform_Type = Thin_Plate_Spline_Transform;\n", "holds a Thin_Plate_Spline_Transform"),
        ("MNI Transform File\n", "cannot be read in the format 'minc'"),
        (LINEAR.format("1 2 3"), "cannot be read in the format 'minc'"),
        (LINEAR.format("0 0 0 0\n" * 3), "a matrix without inverse"),
        (text.replace("field_grid", "../field_grid"), "expected a plain name in its folder"),
        (text.replace("field_grid", "no_grid"), "does not exist"),
        (text.replace("field_grid", "old_grid"), "is of MINC 1, expected MINC 2; convert it"),
        (text.replace("field_grid", "bad_grid"), "cannot be read as MINC"),
    ]:
        Path("a.xfm").write_text(content)
        with pytest.raises(InputError, match=message) as caught:
            load_transform("a.xfm")
        assert "\n" not in str(caught.value)
