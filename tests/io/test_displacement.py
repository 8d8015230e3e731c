"""Displacement field files against SimpleITK, nibabel and SciPy."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from field_cases import (
    GRIDS,
    LPS,
    MOVING_AFFINE,
    MOVING_SHAPE,
    SHAPE,
    field_ras,
    itk_image,
    itk_move,
    move,
    oblique,
    points_inside,
)
from nibabel.affines import apply_affine
from nifti_headers import KINDS, save_kind
from scipy.ndimage import map_coordinates

from monai_regplugins.checks import InputError
from monai_regplugins.io.displacement import (
    load_itk_nifti,
    load_slicer_nifti,
    save_itk_nifti,
    write_slicer_nifti,
)


@pytest.mark.parametrize("name", ["oblique", "left-handed"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_simpleitk_moves_an_image_of_another_grid_to_the_same_place(tmp_path: Path, name: str, suffix: str) -> None:
    affine, displacement = GRIDS[name], field_ras()
    save_itk_nifti(displacement, affine, tmp_path / f"field{suffix}")
    i, j, k = np.indices(MOVING_SHAPE)
    moving = np.sin(i / 3.0) + np.cos(j / 2.5) * np.sin(k / 4.0)

    read = sitk.ReadImage(str(tmp_path / f"field{suffix}"), sitk.sitkVectorFloat64)
    assert (read.GetDimension(), read.GetNumberOfComponentsPerPixel(), read.GetSize()) == (3, 3, SHAPE)
    fixed = itk_image(np.zeros(SHAPE), affine)
    transform = sitk.DisplacementFieldTransform(read)  # takes the field out of the image
    resampled = sitk.Resample(itk_image(moving, MOVING_AFFINE), fixed, transform, sitk.sitkLinear, -100.0)
    found = sitk.GetArrayFromImage(resampled).transpose(2, 1, 0)

    world = apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1)) + np.moveaxis(displacement, 0, -1)
    at = np.moveaxis(apply_affine(np.linalg.inv(MOVING_AFFINE), world), -1, 0)
    expected = map_coordinates(moving, at, order=1, mode="constant", cval=-100.0)
    inside = (expected > -2) & (found > -2)  # at the very border ITK continues by half a voxel and SciPy does not
    assert inside.mean() > 0.7
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-4)


def test_axis_of_one_voxel_comes_back(tmp_path: Path) -> None:
    for shape in [(3, 5, 4, 1), (3, 1, 4, 5), (2, 1, 4), (2, 4, 1)]:
        displacement = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        save_itk_nifti(displacement, np.eye(4), tmp_path / "field.nii.gz")
        assert np.array_equal(load_itk_nifti(tmp_path / "field.nii.gz")[0], displacement)


@pytest.mark.parametrize("first_spacing", [0.9, -0.9])
def test_simpleitk_moves_a_2d_image_to_the_same_place(tmp_path: Path, first_spacing: float) -> None:
    affine = oblique((first_spacing, 1.5, 1.0), (0.3, 0.0), (5.0, 3.0, 0.0))
    moving_affine = oblique((1.1, 1.2, 1.0), (-0.2, 0.0), (0.0, 0.0, 0.0))
    moving_affine[:, 3] = affine @ [4, 3.5, 0, 1] - moving_affine @ [14.5, 15.5, 0, 0]  # around the fixed image
    displacement = field_ras()[:2, ..., 0]
    save_itk_nifti(displacement, affine, tmp_path / "field.nii.gz")
    i, j = np.indices((30, 32))
    moving = np.sin(i / 3.0) + np.cos(j / 2.5)

    read = sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64)
    assert (read.GetDimension(), read.GetNumberOfComponentsPerPixel(), read.GetSize()) == (2, 2, SHAPE[:2])
    transform = sitk.DisplacementFieldTransform(read)  # takes the field out of the image
    fixed, image = itk_image(np.zeros(SHAPE[:2]), affine), itk_image(moving, moving_affine)
    found = sitk.GetArrayFromImage(sitk.Resample(image, fixed, transform, sitk.sitkLinear, -100.0)).T

    x = np.moveaxis(np.indices(SHAPE[:2]), 0, -1)
    world = x @ affine[:2, :2].T + affine[:2, 3] + np.moveaxis(displacement, 0, -1)
    at = np.moveaxis((world - moving_affine[:2, 3]) @ np.linalg.inv(moving_affine[:2, :2]).T, -1, 0)
    assert ((at > 0) & (at < np.array([29, 31]).reshape(2, 1, 1))).all()
    np.testing.assert_allclose(found, map_coordinates(moving, at, order=1), atol=1e-4)

    back, grid = load_itk_nifti(tmp_path / "field.nii.gz")
    assert np.array_equal(back, displacement)
    np.testing.assert_allclose(grid, affine, atol=1e-5)


@pytest.mark.parametrize("name", ["oblique", "left-handed"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"field{suffix}"
    save_itk_nifti(field_ras(), GRIDS[name], str(path))
    displacement, affine = load_itk_nifti(str(path))
    assert displacement.dtype == np.float32
    assert affine.dtype == np.float64
    assert np.array_equal(displacement, field_ras())
    np.testing.assert_allclose(affine, GRIDS[name], atol=1e-5)  # the header holds float32
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == (suffix == ".nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_field_is_read_into_its_own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Part by part, in the order of the file, so that no more has to be free."""
    monkeypatch.setattr("monai_regplugins.io.displacement.PART", 100)
    save_itk_nifti(field_ras(), GRIDS["oblique"], tmp_path / name)
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", str(field_ras().nbytes))
    np.testing.assert_array_equal(load_itk_nifti(tmp_path / name)[0], field_ras())
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", str(field_ras().nbytes - 1))
    with pytest.raises(InputError, match="voxels, which take about"):
        load_itk_nifti(tmp_path / name)


def test_reads_what_simpleitk_writes(tmp_path: Path) -> None:
    affine, lps = GRIDS["left-handed"], field_ras() * np.array([-1, -1, 1], np.float32)[:, None, None, None]
    image = sitk.GetImageFromArray(np.moveaxis(lps, 0, -1).transpose(2, 1, 0, 3).copy(), isVector=True)
    image.CopyInformation(itk_image(np.zeros(SHAPE), affine))
    sitk.WriteImage(image, str(tmp_path / "field.nii.gz"))
    displacement, found = load_itk_nifti(tmp_path / "field.nii.gz")
    assert np.array_equal(displacement, field_ras())
    np.testing.assert_allclose(found, affine, atol=1e-4)


def test_header_says_what_the_numbers_are(tmp_path: Path) -> None:
    save_itk_nifti(field_ras(), GRIDS["left-handed"], tmp_path / "field.nii.gz")
    image = nib.load(tmp_path / "field.nii.gz")
    assert image.shape == (*SHAPE, 1, 3)
    assert image.get_data_dtype() == np.float32
    assert image.header.get_intent()[0] == "vector"
    assert int(image.header["intent_code"]) == 1007
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) > 0
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms()[:3], [0.9, 1.5, 2.0], rtol=1e-5)


@pytest.mark.parametrize("name", GRIDS)
def test_simpleitk_reads_the_field_for_slicer_and_the_one_for_itk_alike(tmp_path: Path, name: str) -> None:
    affine, displacement = GRIDS[name], field_ras()
    points = points_inside(affine, SHAPE)
    save_itk_nifti(displacement, affine, tmp_path / "1007.nii.gz")
    write_slicer_nifti(displacement, affine, tmp_path / "1006.nii.gz")
    for intent in ("1007", "1006"):
        read = sitk.ReadImage(str(tmp_path / f"{intent}.nii.gz"), sitk.sitkVectorFloat64)
        assert read.GetMetaData("intent_code") == intent
        found = itk_move(sitk.DisplacementFieldTransform(read), points)
        np.testing.assert_allclose(found, move(points, displacement, affine), atol=3e-5)  # mm; the header is float32


def test_slicers_field_is_in_ras_and_comes_back(tmp_path: Path) -> None:
    path, affine = tmp_path / "field.nii.gz", GRIDS["left-handed"]
    write_slicer_nifti(field_ras(), affine, path)

    image = nib.load(path)
    assert (image.shape, image.get_data_dtype()) == ((*SHAPE, 1, 3), np.float32)
    assert image.header.get_intent()[0] == "displacement vector"
    assert np.array_equal(np.asarray(image.dataobj)[:, :, :, 0], np.moveaxis(field_ras(), 0, -1))

    displacement, found = load_slicer_nifti(path)
    assert np.array_equal(displacement, field_ras())
    np.testing.assert_allclose(found, affine, atol=1e-5)
    with pytest.raises(InputError, match=r"intent 1007, expected .* intent 1006"):
        load_slicer_nifti(write(path, (*SHAPE, 1, 3), 1007))
    with pytest.raises(InputError, match="expected \\(X, Y, Z, 1, 3\\)"):
        load_slicer_nifti(write(path, (*SHAPE, 3), 1006))


def write(path: Path, shape: tuple[int, ...], intent: int) -> Path:
    """Write some NIfTI file."""
    image = nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4))
    image.header.set_intent(intent)
    nib.save(image, path)
    return path


def test_other_files_are_refused(tmp_path: Path) -> None:
    garbage, cut, other = tmp_path / "garbage.nii.gz", tmp_path / "cut.nii.gz", tmp_path / "other.mgz"
    garbage.write_bytes(b"not a NIfTI file")
    save_itk_nifti(field_ras(), np.eye(4), cut)
    cut.write_bytes(cut.read_bytes()[:-200])
    nib.save(nib.MGHImage(np.zeros(SHAPE, np.float32), np.eye(4)), other)
    refused = {
        tmp_path / "missing.nii.gz": "does not exist",
        garbage: "cannot be read as NIfTI",
        cut: "cannot be read as NIfTI",
        other: "cannot be read as NIfTI",
        write(tmp_path / "ras.nii.gz", (*SHAPE, 1, 3), 1006): "intent 1006, expected",
        write(tmp_path / "scalar.nii.gz", (*SHAPE, 1, 3), 0): "intent 0, expected",
        write(tmp_path / "channels.nii.gz", (*SHAPE, 3), 1007): "expected \\(X, Y, Z, 1, 3\\) or \\(X, Y, 1, 1, 2\\)",
        write(tmp_path / "two.nii.gz", (*SHAPE, 1, 2), 1007): "expected \\(X, Y, Z, 1, 3\\) or \\(X, Y, 1, 1, 2\\)",
    }
    for path, message in refused.items():
        with pytest.raises(InputError, match=message) as caught:
            load_itk_nifti(path)
        assert "\n" not in str(caught.value)


SHEARED = np.array([[1.0, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("shape", "affine", "name", "message"),
    [
        ((1, 3, 4, 4, 4), np.eye(4), "field.nii.gz", "expected \\(3, X, Y, Z\\)"),
        ((3, 4, 4), np.eye(4), "field.nii.gz", "expected \\(3, X, Y, Z\\) or \\(2, X, Y\\)"),
        ((2, 4, 4), np.eye(3), "field.nii.gz", "expected \\(4, 4\\)"),
        ((2, 4, 4), GRIDS["left-handed"], "field.nii.gz", "leaves the world's x-y plane"),
        ((3, 4, 4, 4), np.eye(3), "field.nii.gz", "expected \\(4, 4\\)"),
        ((3, 4, 4, 4), np.diag([1.0, 0, 1, 1]), "field.nii.gz", "not invertible"),
        ((3, 4, 4, 4), SHEARED, "field.nii.gz", "sheared"),
        ((3, 4, 4, 4), np.eye(4), "field.nrrd", "ends in .nii"),
    ],
)
def test_what_the_file_cannot_hold_is_refused(
    tmp_path: Path, shape: tuple[int, ...], affine: np.ndarray, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        save_itk_nifti(np.zeros(shape), affine, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_failing_to_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "field.nii.gz"
    save_itk_nifti(field_ras(), np.eye(4), path)
    before = path.read_bytes()

    def fail_half_way(filename: Path) -> None:
        Path(filename).write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr("monai_regplugins.io.nifti._opened", fail_half_way)
    with pytest.raises(InputError, match="no space left on device"):
        save_itk_nifti(2 * field_ras(), np.eye(4), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


# --- programs that are neither ours nor SimpleITK --------------------------------------------------------------------


@pytest.fixture
def nonlinear() -> Any:
    """nitransforms' fields; it warns about its own dependencies when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("nitransforms.nonlinear", reason="needs nitransforms")


@pytest.fixture
def ants() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("ants", reason="needs the benchmark extra")


@pytest.mark.parametrize("name", GRIDS)
def test_nitransforms_moves_points_to_the_same_place(nonlinear: Any, tmp_path: Path, name: str) -> None:
    affine, displacement = GRIDS[name], field_ras()
    save_itk_nifti(displacement, affine, tmp_path / "field.nii.gz")
    field = nonlinear.DenseFieldTransform.from_filename(tmp_path / "field.nii.gz", fmt="itk")
    centers = np.moveaxis(np.indices(displacement.shape[1:]), 0, -1).reshape(-1, 3) @ affine[:3, :3].T + affine[:3, 3]
    moved = field.map(centers)  # at the centers of voxels, between which it takes splines where we are linear
    np.testing.assert_allclose(moved, centers + displacement.reshape(3, -1).T, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
def test_ants_moves_points_to_the_same_place_and_composes_in_its_own_order(
    ants: Any, tmp_path: Path, name: str
) -> None:
    """The first transform listed meets a point first."""
    affine, displacement = GRIDS[name], field_ras()
    save_itk_nifti(displacement, affine, tmp_path / "field.nii.gz")
    matrix = sitk.AffineTransform([1.05, 0.1, 0.0, -0.1, 0.95, 0.02, 0.0, 0.03, 1.0], [3.0, -4.0, 5.0])
    sitk.WriteTransform(matrix, str(tmp_path / "affine.mat"))
    points = points_inside(affine, displacement.shape[1:], count=50)

    pandas = pytest.importorskip("pandas")
    signs = np.diag(LPS)[:3]
    table = pandas.DataFrame(points * signs, columns=list("xyz"))
    both = [str(tmp_path / "field.nii.gz"), str(tmp_path / "affine.mat")]
    found = ants.apply_transforms_to_points(3, table, both)[list("xyz")].to_numpy()

    bent = move(points, displacement, affine) * signs
    np.testing.assert_allclose(found, [matrix.TransformPoint(point) for point in bent.tolist()], atol=1e-3)


def test_more_than_the_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "field.nii.gz", (6, 5, 4, 1, 3), 1007)
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", "1K")
    with pytest.raises(InputError, match=r"field '.*' has 6 x 5 x 4 x 1 x 3 voxels, .* of memory to read"):
        load_itk_nifti(path)


def test_a_header_and_its_image_are_two_files(tmp_path: Path) -> None:
    image = nib.Nifti1Pair(np.zeros((6, 5, 4, 1, 3), np.float32), np.eye(4))
    image.header.set_intent(1007)
    nib.save(image, tmp_path / "field.hdr")
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        load_itk_nifti(tmp_path / "field.hdr")


@pytest.mark.parametrize("kind", ["aligned sform beside a qform", "micron", "both alike", "neither"])
def test_a_field_lies_where_itk_places_its_file(tmp_path: Path, kind: str) -> None:
    vectors = np.moveaxis(field_ras(), 0, -1)[:, :, :, None]
    path = save_kind(tmp_path / "field.nii.gz", vectors, GRIDS["oblique"], KINDS[kind])
    image = nib.load(path)
    image.header.set_intent("vector")
    nib.save(nib.Nifti1Image(vectors, None, image.header), path)
    theirs = sitk.ReadImage(str(path))
    _, affine = load_itk_nifti(path)
    axes = LPS[:3, :3] @ np.reshape(theirs.GetDirection(), (3, 3)) * theirs.GetSpacing()
    np.testing.assert_allclose(affine[:3, :3], axes, atol=1e-5)
    np.testing.assert_allclose(affine[:3, 3], LPS[:3, :3] @ theirs.GetOrigin(), atol=1e-3)
