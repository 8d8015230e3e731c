"""Every format of a displacement field says the same, on every kind of grid; what cannot be said is refused."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from field_cases import GRIDS, MOVING_AFFINE, MOVING_SHAPE, PLANE, SHAPE, field_ras, move, points_inside, random_grid
from nibabel.affines import apply_affine
from transform_readers import READERS

from monai_regplugins.checks import InputError
from monai_regplugins.io.dicom_identity import DicomIdentity
from monai_regplugins.io.dicom_registration import FrameOfReferenceError
from monai_regplugins.io.foreign_fields import FOREIGN_FORMATS, save_foreign_field
from monai_regplugins.io.formats import (
    FORMATS,
    FieldPair,
    format_of,
    load_field,
    output_name,
    save_field,
    write_field,
)
from monai_regplugins.readers.image_grid import ImageGrid

PLANAR = ["itk_h5", "itk_nifti", "native"]
SHEARED = np.array([[1.0, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    """Each format whose dependencies are there."""
    name: str = request.param
    if name == "dicom":
        pytest.importorskip("pydicom", reason="needs pydicom")
    return name


def save(format: str, folder: Path, affine: np.ndarray) -> Path:
    """Write the field of the tests, with both images on its grid."""
    path = folder / FORMATS[format].file_name
    save_field(format, field_ras(), affine, path, FieldPair(moving_affine=affine, moving_shape=SHAPE))
    return path


CASES = {f"{form} by {reads.__name__}": (form, name, reads) for form in READERS for name, reads in READERS[form]}


def check_random_grids(case: str, folder: Path, seeds: range) -> None:
    """On grids of any directions and hand, this package and another reader take points to one place."""
    form, name, other = CASES[case]
    for seed in seeds:
        fixed = ImageGrid(random_grid(seed), SHAPE)
        moving = ImageGrid(random_grid(seed + 1000, MOVING_SHAPE), MOVING_SHAPE)
        moving = fixed if form == "learn2reg" else moving  # it knows one grid only
        field = np.random.default_rng(seed).uniform(-20, 20, (3, 1, 1, 1)).astype(np.float32) + field_ras()
        index = np.random.default_rng(seed).integers(1, np.array(SHAPE) - 1, (40, 3))
        points, path = apply_affine(fixed.affine, index), folder / name
        if form in FORMATS:
            save_field(
                form, field, fixed.affine, path, FieldPair(moving_affine=moving.affine, moving_shape=moving.shape)
            )
        else:
            save_foreign_field(form, field, fixed.affine, path, moving)
        expected = points + field[(slice(None), *index.T)].T
        ours = move(points, *load_field(path, None, form, fixed, moving))
        np.testing.assert_allclose(ours, expected, atol=1e-3, err_msg=f"read back, seed {seed}")
        np.testing.assert_allclose(other(path, points, fixed, moving), expected, atol=1e-3, err_msg=f"seed {seed}")


@pytest.mark.parametrize("case", CASES)
def test_other_programs_read_every_format_on_random_grids(tmp_path: Path, case: str) -> None:
    check_random_grids(case, tmp_path, range(4))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_other_programs_read_every_format_on_many_random_grids(tmp_path: Path, case: str) -> None:
    check_random_grids(case, tmp_path, range(4, 40))


def test_every_format_that_is_written_has_a_reader() -> None:
    assert set(READERS) == {*FORMATS, *(name for name, form in FOREIGN_FORMATS.items() if form.write is not None)}


@pytest.mark.parametrize("name", GRIDS)
def test_every_format_samples_the_same_points_of_a_moving_image_on_another_grid(
    tmp_path: Path, format: str, name: str
) -> None:
    affine = GRIDS[name]
    shared = format == "learn2reg"  # it knows one grid only
    moving_affine, moving_shape = (affine, SHAPE) if shared else (MOVING_AFFINE, MOVING_SHAPE)
    path = tmp_path / FORMATS[format].file_name
    save_field(format, field_ras(), affine, path, FieldPair(moving_affine=moving_affine, moving_shape=moving_shape))

    displacement, grid = load_field(path, affine if shared else None)

    points, to_voxel = points_inside(affine, SHAPE), np.linalg.inv(moving_affine)
    found = apply_affine(to_voxel, move(points, displacement, grid))
    expected = apply_affine(to_voxel, move(points, field_ras(), affine))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)  # voxels of the moving image
    assert (displacement.dtype, grid.dtype, grid.shape) == (np.float32, np.float64, (4, 4))
    assert format_of(path) == format
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("format", PLANAR)
def test_planar_fields_come_back(tmp_path: Path, format: str) -> None:
    displacement, path = field_ras()[:2, ..., 0], tmp_path / FORMATS[format].file_name
    save_field(format, displacement, PLANE, path)
    back, grid = load_field(path)
    points = points_inside(PLANE, SHAPE[:2])
    np.testing.assert_allclose(move(points, back, grid), move(points, displacement, PLANE), atol=1e-5)


def test_other_formats_have_no_planar_meaning(tmp_path: Path, format: str) -> None:
    assert (2 in FORMATS[format].spatial_dims) == (format in PLANAR)
    if format not in PLANAR:
        with pytest.raises(InputError, match="holds 3D fields only, and this one is 2D; choose one of 'itk_h5'"):
            save_field(format, field_ras()[:2, ..., 0], PLANE, tmp_path / FORMATS[format].file_name)
        assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_that_cannot_be_held(tmp_path: Path, format: str) -> None:
    path, broken = tmp_path / FORMATS[format].file_name, field_ras()
    broken[0, 0, 0, 0] = np.nan
    for field, affine, name, message in [
        (field_ras(), SHEARED, path, "sheared"),
        (broken, np.eye(4), path, "NaN or infinite"),
        (field_ras()[:2], np.eye(4), path, "expected \\(3, X, Y, Z\\)"),
        (
            field_ras(),
            np.eye(4),
            tmp_path / "field.nrrd",
            f"no name for the format '{format}', expected one that ends in",
        ),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            save_field(format, field, affine, name)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_two_grids_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    pair = FieldPair(moving_affine=MOVING_AFFINE, moving_shape=MOVING_SHAPE)
    with pytest.raises(InputError, match="lie on two grids"):
        save_field("learn2reg", field_ras(), np.eye(4), tmp_path / "disp.nii.gz", pair)
    with pytest.raises(InputError, match=r"format is 'itk_h4'; choose one of .* Did you mean 'itk_h5'"):
        save_field("itk_h4", field_ras(), np.eye(4), tmp_path / "field.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder in which nobody may write, not even a test that runs as root."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield Path(name)
        os.seteuid(user)
        os.chmod(name, 0o755)


def test_a_read_only_folder_is_reported(format: str, read_only_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"cannot write '.*' \(Permission denied\)") as caught:
        save(format, read_only_folder, GRIDS["RAS"])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(read_only_folder.iterdir()) == []


def test_a_disk_that_fills_leaves_the_old_file(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(format, tmp_path, GRIDS["RAS"])
    before = path.read_bytes()

    def half(path: Path, error: Exception) -> None:
        path.write_bytes(b"half a file")
        raise error

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("monai_regplugins.io.nifti._opened", lambda path: half(path, full))
    monkeypatch.setattr(np, "savez_compressed", lambda stream, **arrays: half(Path(stream.name), full))
    monkeypatch.setattr(sitk, "WriteTransform", lambda transform, name: half(Path(name), RuntimeError("HDF5")))
    if format == "dicom":
        monkeypatch.setattr("pydicom.Dataset.save_as", lambda dataset, path, **options: half(path, full))
    with pytest.raises(InputError, match=r"cannot write '.*' \(.*\), and what was there before is unchanged"):
        save(format, tmp_path, GRIDS["LPS"])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    pair = FieldPair(moving_affine=np.eye(4), moving_shape=SHAPE)
    with pytest.raises(OSError, match=r"space|ITK"):  # who replaces a whole folder sees the system's error
        write_field(format, field_ras(), np.eye(4), tmp_path / f"other-{path.name}", pair)


def test_write_field_writes_the_same(tmp_path: Path) -> None:
    save_field("slicer_nifti", field_ras(), np.eye(4), tmp_path / "a.nii")
    write_field("slicer_nifti", field_ras(), np.eye(4), tmp_path / "b.nii")
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()


def test_damaged_files_are_refused(tmp_path: Path, format: str) -> None:
    path = save(format, tmp_path, GRIDS["oblique"])
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[: len(whole) // 20], b"foreign " * 100, b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"'{path}'") as caught:
            load_field(path, np.eye(4))
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        load_field(path)


def test_what_is_in_a_file_is_checked(tmp_path: Path) -> None:
    field = field_ras()
    field[2, 3, 4, 5] = np.nan
    np.savez(tmp_path / "field.npz", ddf=field, affine=np.eye(4))
    with pytest.raises(InputError, match=r"'.*field.npz' is of no use: the field holds NaN"):
        load_field(tmp_path / "field.npz")


@pytest.mark.parametrize(
    ("shape", "intent", "message"),
    [
        ((*SHAPE, 1, 3), 0, "5 axes and intent 0, as fields of AFNI and SPM have; name its format"),
        ((*SHAPE, 3), 2006, "a field of FSL .*, which does not state whether it is relative; name its format"),
        ((*SHAPE, 3), 1005, "intent 1005, expected a field"),
        (SHAPE, 0, "expected a field of intent"),
        ((*SHAPE, 3), 1006, "expected \\(X, Y, Z, 1, 3\\)"),
        ((*SHAPE, 3), 1007, "expected \\(X, Y, Z, 1, 3\\)"),
    ],
)
def test_other_niftis_are_refused(tmp_path: Path, shape: tuple[int, ...], intent: int, message: str) -> None:
    image = nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4))
    image.header.set_intent(intent)
    nib.save(image, tmp_path / "field.nii")
    with pytest.raises(InputError, match=message):
        load_field(tmp_path / "field.nii")


def test_format_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "field.jpg").write_bytes(bytes(200))
    with pytest.raises(InputError, match=r"ends in one of \.dcm, \.h5, \.hdf5, \.mgh, .* \.npz, \.nrrd, \.tfm"):
        format_of(tmp_path / "field.jpg")
    assert format_of(save("itk_h5", tmp_path, GRIDS["RAS"]).rename(tmp_path / "field.HDF5")) == "itk_h5"
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(10))
    assert format_of(tmp_path / "IM0001") == "dicom"


@pytest.mark.parametrize(
    ("name", "reported"), [("NREG_TRANS", True), ("Mapping", True), ("Something", False), ("", True)]
)
def test_what_a_vector_image_is_called_counts(tmp_path: Path, name: str, reported: bool) -> None:
    """SimpleITK, ANTs, greedy and elastix leave the name empty; NiftyReg's and SPM's vectors are something else."""
    path = save("itk_nifti", tmp_path, GRIDS["RAS"])
    image = nib.load(path)
    image.header.set_intent(1007, name=name)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    if reported:
        assert format_of(path) == {"NREG_TRANS": "niftyreg", "Mapping": "spm", "": "itk_nifti"}[name]
    else:
        with pytest.raises(InputError, match="a vector image named 'Something', which no known tool writes"):
            format_of(path)
    displacement, _ = load_field(path, format="itk_nifti")
    np.testing.assert_allclose(displacement, field_ras(), atol=1e-6)


def test_a_field_with_a_place_is_not_taken_for_one_of_learn2reg(tmp_path: Path) -> None:
    """Nitransforms writes FSL's fields so, in mm."""
    image = nib.Nifti1Image(np.moveaxis(field_ras(), 0, -1), GRIDS["oblique"])
    nib.save(image, tmp_path / "field.nii.gz")
    with pytest.raises(InputError, match=r"position of its own, so that it may be of Learn2Reg .* or of FSL"):
        load_field(tmp_path / "field.nii.gz", GRIDS["oblique"])
    displacement, _ = load_field(tmp_path / "field.nii.gz", GRIDS["oblique"], "learn2reg")
    np.testing.assert_allclose(displacement, np.tensordot(GRIDS["oblique"][:3, :3], field_ras(), 1), atol=1e-5)


def test_without_pydicom_only_dicom_is_refused(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    if format != "dicom":
        load_field(save(format, tmp_path, GRIDS["RAS"]), GRIDS["RAS"])
        return
    with pytest.raises(InputError, match="pip install"):
        save(format, tmp_path, GRIDS["RAS"])
    assert list(tmp_path.iterdir()) == []


def test_names_in_a_folder_differ(tmp_path: Path) -> None:
    names = [output_name(format) for format in FORMATS]
    assert len(set(names)) == len(FORMATS)
    assert all(name.endswith(format.suffixes) for name, format in zip(names, FORMATS.values(), strict=True))
    pair = FieldPair(fixed_name="LungCT_0003_0000.nii.gz", moving_name="LungCT_0003_0001.nii.gz")
    assert output_name("learn2reg", pair) == "disp_0003_0003.nii.gz"
    with pytest.raises(InputError, match="Did you mean 'native'"):
        output_name("nativ")


def test_the_reader_of_a_learn2reg_field_wants_the_grid(tmp_path: Path) -> None:
    path = save("learn2reg", tmp_path, GRIDS["oblique"])
    wrong: Any
    for wrong, message in [(None, "give the fixed image's affine"), (np.eye(3), "expected \\(4, 4\\)")]:
        with pytest.raises(InputError, match=message):
            load_field(path, wrong)


@pytest.mark.parametrize("also", [False, True], ids=["alone", "beside itk_nifti"])
def test_without_a_frame_of_reference_another_format_takes_the_place_of_dicom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, also: bool
) -> None:
    pytest.importorskip("pydicom", reason="needs pydicom")
    pair = FieldPair(fixed_dicom=DicomIdentity("1.2.3", "1.2.4"), moving_dicom=DicomIdentity("", "1.2.4"))
    if also:
        save("itk_nifti", tmp_path, GRIDS["oblique"])
    for _ in ("the field", "its inverse"):
        write_field("dicom", field_ras(), GRIDS["oblique"], tmp_path / "displacement.dcm", pair)
    reason = "displacement.dcm is left out: the DICOM series of the moving image has no frame of reference (0020,0052)"
    assert [reason in record.getMessage() for record in caplog.records] == [True, True]
    written = {"displacement_itk.nii.gz"} if also else {"displacement.nii.gz", "inverse_displacement.nii.gz"}
    assert {path.name for path in tmp_path.iterdir()} == written
    for path in tmp_path.iterdir():
        displacement, affine = load_field(path)
        np.testing.assert_allclose(affine, GRIDS["oblique"], atol=1e-5)
        np.testing.assert_allclose(displacement, field_ras(), atol=1e-5)
    with pytest.raises(FrameOfReferenceError, match="moving image has no frame of reference"):
        save_field("dicom", field_ras(), GRIDS["oblique"], tmp_path / "displacement.dcm", pair)
    assert {path.name for path in tmp_path.iterdir()} == written
