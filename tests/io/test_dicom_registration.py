"""DICOM Deformable Spatial Registration by the rule of PS3.3 C.20.3, written here a second time on pydicom alone."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from field_cases import GRIDS, MOVING_SHAPE, SHAPE, field_ras, move, points_inside, random_grid
from scipy.ndimage import map_coordinates
from transform_readers import program

from monai_regplugins.checks import InputError
from monai_regplugins.io.dicom_identity import DicomIdentity
from monai_regplugins.io.dicom_registration import (
    FrameOfReferenceError,
    check_dicom_registration,
    load_dicom_registration,
    write_dicom_registration,
)
from monai_regplugins.io.foreign_fields import write_vectors

pydicom = pytest.importorskip("pydicom", reason="needs pydicom")

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
FIXED = DicomIdentity("1.2.3", "1.2.4", "1.2.5", ((CT, "1.2.5.1"), (CT, "1.2.5.2")), {"PatientName": "Müller^Ana"})
MOVING = DicomIdentity("1.3.3", "1.3.4", "1.3.5", ((MR, "1.3.5.1"),), {"PatientName": "of no interest"})


def apply_c_20_3(path: Path, points: np.ndarray) -> np.ndarray:
    """Map points (N, 3) of the registered frame to the source frame: ``M_post (M_pre x + D(x))``, LPS, mm.

    The grid's third axis is the cross product of the first two; vectors follow each other with x fastest.
    """
    item = pydicom.dcmread(path).DeformableRegistrationSequence[0]
    grid = item.DeformableRegistrationGridSequence[0]
    row, column = np.array(grid.ImageOrientationPatient[:3], float), np.array(grid.ImageOrientationPatient[3:], float)
    axes = np.array([row, column, np.cross(row, column)])
    index = (points - np.array(grid.ImagePositionPatient, float)) @ axes.T / np.array(grid.GridResolution)
    columns, rows, planes = grid.GridDimensions
    vectors = np.frombuffer(grid.VectorGridData, np.dtype("<f4")).reshape(planes, rows, columns, 3)
    moved = np.stack([map_coordinates(vectors[..., k].astype(float), index.T[::-1], order=1) for k in range(3)], 1)
    before, behind = np.eye(4), np.eye(4)
    if "PreDeformationMatrixRegistrationSequence" in item:
        before = matrix_of(item.PreDeformationMatrixRegistrationSequence[0])
    if "PostDeformationMatrixRegistrationSequence" in item:
        behind = matrix_of(item.PostDeformationMatrixRegistrationSequence[0])
    moved = moved + points @ before[:3, :3].T + before[:3, 3]
    return moved @ behind[:3, :3].T + behind[:3, 3]


def matrix_of(item: Any) -> np.ndarray:
    return np.array(item.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)


def changed(path: Path, change: Any) -> Path:
    """Change the file's only registration item."""
    dataset = pydicom.dcmread(path)
    change(dataset.DeformableRegistrationSequence[0])
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("name", GRIDS)
def test_the_standards_rule_moves_points_to_the_same_place(tmp_path: Path, name: str) -> None:
    affine, path, signs = GRIDS[name], tmp_path / "field.dcm", [-1, -1, 1]
    write_dicom_registration(field_ras(), affine, path)
    points = points_inside(affine, SHAPE)
    expected = move(points, field_ras(), affine)
    np.testing.assert_allclose(apply_c_20_3(path, points * signs) * signs, expected, atol=1e-6)
    np.testing.assert_allclose(move(points, *load_dicom_registration(path)), expected, atol=1e-6)


def test_a_right_handed_grid_comes_back_as_it_was_and_a_left_handed_one_turned(tmp_path: Path) -> None:
    path = tmp_path / "field.dcm"
    right, left = ("oblique", "RAS"), ("left-handed",)
    for name in right + left:
        write_dicom_registration(field_ras(), GRIDS[name], path)
        displacement, affine = load_dicom_registration(path)
        assert np.linalg.det(affine) > 0
        assert np.array_equal(displacement, field_ras() if name in right else field_ras()[..., ::-1])
        if name in right:
            np.testing.assert_allclose(affine, GRIDS[name], atol=1e-11)  # decimal strings of 16 characters


def test_matrices_before_and_behind_the_deformation_count(tmp_path: Path) -> None:
    affine, path, signs = GRIDS["left-handed"], tmp_path / "field.dcm", [-1, -1, 1]
    matrices = {
        "PreDeformationMatrixRegistrationSequence": [1.0, 0.1, 0, 3, -0.1, 1, 0, -2, 0, 0.2, 1, 1, 0, 0, 0, 1],
        "PostDeformationMatrixRegistrationSequence": [0.9, 0, 0.1, -5, 0, 1.1, 0, 4, 0.3, 0, 1, 2, 0, 0, 0, 1],
    }

    def add_matrices(item: Any) -> None:
        for keyword, values in matrices.items():
            step = pydicom.Dataset()
            step.FrameOfReferenceTransformationMatrixType = "AFFINE"
            step.FrameOfReferenceTransformationMatrix = values
            setattr(item, keyword, [step])

    write_dicom_registration(field_ras(), affine, path)
    changed(path, add_matrices)
    points = points_inside(affine, SHAPE)
    found = move(points, *load_dicom_registration(path))
    assert np.abs(found - move(points, field_ras(), affine)).max() > 5
    np.testing.assert_allclose(found * signs, apply_c_20_3(path, points * signs), atol=2e-5)


def test_object_says_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "field.dcm"
    write_dicom_registration(field_ras(), GRIDS["RAS"], path, FIXED, MOVING)
    dataset = pydicom.dcmread(path)
    item = dataset.DeformableRegistrationSequence[0]
    assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.3"
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert (dataset.Modality, dataset.PatientName) == ("REG", "Müller^Ana")
    assert (dataset.FrameOfReferenceUID, dataset.StudyInstanceUID) == ("1.2.3", "1.2.4")
    assert dataset.SeriesInstanceUID not in ("1.2.5", "1.3.5")
    assert item.SourceFrameOfReferenceUID == "1.3.3"
    assert [ref.ReferencedSOPInstanceUID for ref in item.ReferencedImageSequence] == ["1.3.5.1"]
    [own], [other] = dataset.ReferencedSeriesSequence, dataset.StudiesContainingOtherReferencedInstancesSequence
    assert own.SeriesInstanceUID == "1.2.5"
    assert [ref.ReferencedSOPInstanceUID for ref in own.ReferencedInstanceSequence] == ["1.2.5.1", "1.2.5.2"]
    assert other.StudyInstanceUID == "1.3.4"
    assert other.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.3.5"
    assert other.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPClassUID == MR


def test_images_of_one_series_are_named_once(tmp_path: Path) -> None:
    path = tmp_path / "field.dcm"
    phases = [DicomIdentity("1.2.3", "1.2.4", "1.2.5", ((CT, f"1.2.5.{n}"), (CT, "1.2.5.9")), {}) for n in range(2)]
    write_dicom_registration(field_ras(), GRIDS["RAS"], path, *phases)
    dataset = pydicom.dcmread(path)
    [series] = dataset.ReferencedSeriesSequence
    named = [ref.ReferencedSOPInstanceUID for ref in series.ReferencedInstanceSequence]
    assert named == ["1.2.5.0", "1.2.5.9", "1.2.5.1"]
    assert "StudiesContainingOtherReferencedInstancesSequence" not in dataset


def test_unknown_images_get_new_uids(tmp_path: Path) -> None:
    uids = set()
    for number in range(2):
        write_dicom_registration(field_ras(), GRIDS["RAS"], tmp_path / f"{number}.dcm")
        dataset = pydicom.dcmread(tmp_path / f"{number}.dcm")
        item = dataset.DeformableRegistrationSequence[0]
        keywords = ("FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        found = [dataset[keyword].value for keyword in keywords] + [item.SourceFrameOfReferenceUID]
        assert all(uid.is_valid for uid in found)
        uids.update(found)
        assert "ReferencedImageSequence" not in item
        assert "ReferencedSeriesSequence" not in dataset
    assert len(uids) == 10


@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_a_frame_of_reference_is_not_invented_for_a_series(tmp_path: Path, role: str) -> None:
    images = {"fixed": FIXED, "moving": MOVING}
    images[role] = dataclasses.replace(images[role], frame_of_reference_uid="")
    for attempt in (
        lambda: check_dicom_registration(**images),
        lambda: write_dicom_registration(field_ras(), GRIDS["RAS"], tmp_path / "field.dcm", **images),
    ):
        with pytest.raises(FrameOfReferenceError, match=f"the {role} image has no frame of reference") as error:
            attempt()
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
    check_dicom_registration(FIXED, MOVING)
    check_dicom_registration(None, None)


def test_an_unreadable_text_of_the_fixed_series_is_not_written(tmp_path: Path) -> None:
    unread = dataclasses.replace(FIXED, patient_and_study={"PatientName": "M\ufffdller", "StudyID": "1\ufffd"})
    with pytest.raises(
        InputError, match=r"^PatientName, StudyID of the DICOM series of the fixed image cannot be read"
    ):
        write_dicom_registration(field_ras(), GRIDS["RAS"], tmp_path / "field.dcm", unread, MOVING)
    assert not list(tmp_path.iterdir())
    check_dicom_registration(FIXED, unread)  # of the moving image, no text is written


def test_a_little_shear_that_others_hold_is_refused(tmp_path: Path) -> None:
    sheared = GRIDS["oblique"].copy()
    sheared[:3, 2] += 9e-4 * sheared[:3, 0]  # less than what counts as shear elsewhere
    long = np.zeros((3, 4, 4, 60), np.float32)
    with pytest.raises(InputError, match=r"sheared .* voxels in DICOM"):
        write_dicom_registration(long, sheared, tmp_path / "field.dcm")
    with pytest.raises(InputError, match="pydicom refuses"):
        write_dicom_registration(field_ras(), GRIDS["RAS"], tmp_path / "field.dcm", DicomIdentity(7))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_other_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "field.dcm"

    def cut(item: Any) -> None:
        grid = item.DeformableRegistrationGridSequence[0]
        grid.VectorGridData = grid.VectorGridData[:-12]

    def undefine(item: Any) -> None:
        grid = item.DeformableRegistrationGridSequence[0]
        grid.VectorGridData = np.full(3, np.nan, "<f4").tobytes() + grid.VectorGridData[12:]

    def drop(keyword: str) -> Any:
        return lambda item: delattr(item.DeformableRegistrationGridSequence[0], keyword)

    changes = {
        "grid in '.*' is damaged": [cut, drop("GridResolution"), drop("VectorGridData")],
        "leaves displacements undefined": [undefine],
        "holds 0 deformation grids": [lambda item: delattr(item, "DeformableRegistrationGridSequence")],
    }
    for message, all_changes in changes.items():
        for change in all_changes:
            write_dicom_registration(field_ras(), GRIDS["RAS"], path)
            with pytest.raises(InputError, match=message):
                load_dicom_registration(changed(path, change))

    write_dicom_registration(field_ras(), GRIDS["RAS"], path)
    dataset = pydicom.dcmread(path)
    dataset.DeformableRegistrationSequence.append(dataset.DeformableRegistrationSequence[0])
    dataset.save_as(path)
    with pytest.raises(InputError, match="holds 2 deformation grids"):
        load_dicom_registration(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 4])
def test_what_plastimatch_writes(tmp_path: Path, seed: int) -> None:
    """Made of a vector image of a right-handed grid; left-handed ones, which DICOM does not know, it writes wrong."""
    command, affine = program("plastimatch"), random_grid(seed)
    write_vectors(field_ras(), affine, tmp_path / "field.mha")
    images = []
    for name, grid, shape in (("fixed", affine, SHAPE), ("moving", random_grid(9, MOVING_SHAPE), MOVING_SHAPE)):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), grid), tmp_path / f"{name}.nii.gz")
        images += [f"--{name}-image", str(tmp_path / f"{name}.nii.gz")]
    out = ["--output-dicom", str(tmp_path / "dicom")]
    subprocess.run(
        [command, "xf-convert", "--input", str(tmp_path / "field.mha"), *images, *out], check=True, capture_output=True
    )
    (file,) = (tmp_path / "dicom").glob("*.dcm")
    points = points_inside(affine, SHAPE)
    found = move(points, *load_dicom_registration(file))
    np.testing.assert_allclose(found, move(points, field_ras(), affine), atol=1e-3)
