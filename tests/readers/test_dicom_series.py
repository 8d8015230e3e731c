"""DICOM series as volumes: written with pydicom, compared with NIfTI, NRRD and SimpleITK's series reader."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from dicom_names import CHARACTER_SETS, EXAMPLES
from dicom_series import SERIES, Array, write_slice, write_volume
from monai.data import DataLoader, Dataset, decollate_batch
from pydicom.uid import CTImageStorage, RLELossless
from scipy import ndimage

from monai_regplugins.checks import InputError
from monai_regplugins.io.dicom_identity import DicomIdentity
from monai_regplugins.io.dicom_registration import check_dicom_registration, write_dicom_registration
from monai_regplugins.readers.dicom_series import (
    dicom_phases,
    read_dicom_series,
    same_frame_of_reference,
    series_of,
)
from monai_regplugins.readers.phases import Phase
from monai_regplugins.transforms.load import LoadPaird
from monai_regplugins.transforms.prepare import ResampleToFixedd, ScalePaird

STORED = np.random.default_rng(0).integers(-50, 900, (7, 6, 5)).astype(np.int16)
SLOPE, INTERCEPT = 0.5, -1000.0
VALUES = (STORED * SLOPE + INTERCEPT).astype(np.float32)
PLAIN = np.diag([1.5, 2.0, 4.0, 1.0])
OBLIQUE = np.array(  # rotated about two axes, anisotropic also in the plane of the slices, right-handed
    [[1.2, -1.28, 1.44, 15.1], [0.0, 1.2, 2.4, 3.03], [-0.9, -0.96 * 16 / 9, 1.92, -4.07], [0.0, 0.0, 0.0, 1.0]]
)
OBLIQUE[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] * [1.2, 1.6, 3.0]
GRIDS = {"plain": PLAIN, "oblique": OBLIQUE, "mirrored": OBLIQUE @ np.diag([1.0, 1.0, -1.0, 1.0])}


def in_formats(folder: Path, affine: Array) -> dict[str, Path]:
    """One volume as NIfTI, NRRD and DICOM."""
    nib.save(nib.Nifti1Image(VALUES, affine), folder / "scan.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(folder / "scan.nii.gz")), str(folder / "scan.nrrd"))
    write_volume(folder / "scan", STORED, affine, SLOPE, INTERCEPT)
    return {"nifti": folder / "scan.nii.gz", "nrrd": folder / "scan.nrrd", "dicom": folder / "scan"}


def load(path: Path, **others: Any) -> dict[Any, Any]:
    return LoadPaird()({"fixed": path, "moving": path, "pair_id": "a_to_a", **others})


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_the_same_intensities_lie_at_the_same_places_in_all_formats(tmp_path: Path, affine: Array) -> None:
    for path in in_formats(tmp_path, affine).values():
        image = load(path)["fixed"]
        assert image.dtype == torch.float32
        to_written = np.linalg.inv(affine) @ image.affine.numpy()  # voxels here to voxels there: flips at most
        voxels = np.indices(image.shape[1:]).reshape(3, -1)
        there = to_written[:3, :3] @ voxels + to_written[:3, 3:]
        np.testing.assert_allclose(there, there.round(), atol=1e-4)
        np.testing.assert_array_equal(image[0].numpy().ravel(), VALUES[tuple(there.round().astype(int))])


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_the_moving_image_is_resampled_alike_from_all_formats(tmp_path: Path, affine: Array) -> None:
    fixed = tmp_path / "fixed.nii.gz"
    nib.save(nib.Nifti1Image(VALUES[::-1, :, ::-1], affine @ np.diag([0.9, 1.1, 0.8, 1.0])), fixed)
    moved = [
        ResampleToFixedd()(LoadPaird()({"fixed": fixed, "moving": path}))["moving"].numpy()
        for path in in_formats(tmp_path, affine).values()
    ]
    assert np.ptp(moved[0]) > 100
    for other in moved[1:]:
        np.testing.assert_allclose(other, moved[0], atol=0.01)  # of 500; headers in float32


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_the_grid_is_that_of_simpleitk(tmp_path: Path, affine: Array) -> None:
    write_volume(tmp_path, STORED, affine, SLOPE, INTERCEPT)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path), SERIES))
    image = reader.Execute()
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    volume = read_dicom_series(tmp_path, "image")
    np.testing.assert_allclose(volume.affine, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps, atol=1e-5)
    np.testing.assert_array_equal(volume.values, sitk.GetArrayFromImage(image).T)


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    slopes = [1.0, 0.5, 0.25, 2.0, 0.125]
    write_volume(tmp_path, STORED, PLAIN, slopes, INTERCEPT)
    np.testing.assert_array_equal(read_dicom_series(tmp_path, "image").values, STORED * slopes + INTERCEPT)


def test_a_file_stands_for_its_series_among_others(tmp_path: Path) -> None:
    files = write_volume(tmp_path, STORED, PLAIN)
    other = tmp_path / "other"
    for file in write_volume(other, STORED[::-1], PLAIN, SeriesInstanceUID=f"{SERIES}.8", SeriesDescription="Scout\n2"):
        file.rename(tmp_path / f"other_{file.name}")
    np.testing.assert_array_equal(read_dicom_series(files[2], "image").values, STORED)
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "other_IM001.dcm", "image").values, STORED[::-1])
    with pytest.raises(InputError, match=r"2 DICOM series \(.*'Chest 5.0': 5 files as IM00\d.dcm") as error:
        read_dicom_series(tmp_path, "fixed image")
    assert "'Scout 2': 5 files as other_IM00" in str(error.value)
    assert str(error.value).startswith(f"fixed image '{tmp_path}'")


def test_a_file_alone_is_a_slice_in_2d(tmp_path: Path) -> None:
    files = write_volume(tmp_path, STORED, PLAIN, SLOPE, INTERCEPT)
    pair = LoadPaird(spatial_dims=2)({"fixed": files[1], "moving": files[2]})
    np.testing.assert_array_equal(pair["fixed"][0], VALUES[:, :, 1])
    np.testing.assert_allclose(
        pair["moving"].affine, PLAIN @ [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.25, 2], [0, 0, 0, 1]]
    )


def test_compressed_slices(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 900, (16, 18, 3)).astype(np.int16)
    for file in write_volume(tmp_path, stored, PLAIN):
        data = pydicom.dcmread(file)
        data.compress(RLELossless)
        data.save_as(file)
    np.testing.assert_array_equal(read_dicom_series(tmp_path, "image").values, stored)


def test_other_objects_of_the_study_do_not_matter(tmp_path: Path) -> None:
    files = write_volume(tmp_path, STORED, PLAIN)
    structures = pydicom.dcmread(files[0])
    structures.SOPClassUID = structures.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    for keyword in ("Rows", "Columns", "PixelData", "BitsAllocated"):
        delattr(structures, keyword)
    structures.save_as(tmp_path / "structures.dcm")
    (tmp_path / "notes.txt").write_text("of the radiologist")
    np.testing.assert_array_equal(read_dicom_series(tmp_path, "image").values, STORED)


# --- which scan it is -------------------------------------------------------------------------------------------------


def test_the_identity_of_the_series_stays_with_the_images(tmp_path: Path) -> None:
    paths = in_formats(tmp_path, OBLIQUE)
    nib.save(nib.Nifti1Image(VALUES, PLAIN), tmp_path / "other.nii")
    pair = {"fixed": paths["dicom"], "moving": paths["dicom"] / "IM003.dcm"}
    prepared = [ResampleToFixedd(keep_original=True), ScalePaird()]
    item = LoadPaird()(pair)
    for transform in prepared:
        item = transform(item)
    (batch,) = DataLoader(Dataset([item]), batch_size=1)
    (item,) = decollate_batch(batch)
    files = [pydicom.dcmread(file) for file in sorted(paths["dicom"].iterdir(), reverse=True)]
    for key in ("fixed", "moving", "moving_original"):
        identity = series_of(item[key])
        assert identity is not None
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPClassUID"):
            assert identity[keyword] == str(files[0][keyword].value)
        assert identity["SeriesInstanceUID"] == SERIES
        assert identity["AccessionNumber"] == ""
        assert identity["SOPInstanceUID"].split("\\") == [str(file.SOPInstanceUID) for file in files]
    assert series_of(load(paths["nifti"])["fixed"]) is None


@pytest.mark.parametrize("charset", CHARACTER_SETS)
def test_names_in_all_character_sets_reach_a_dicom_registration(tmp_path: Path, charset: str) -> None:
    name = CHARACTER_SETS[charset]
    word = name.split("=")[-1].split("^")[0][:4]
    texts = {"PatientName": name, "ReferringPhysicianName": name, "PatientID": word, "StudyID": word}
    write_volume(tmp_path / "scan", STORED, PLAIN, SpecificCharacterSet=charset.split("\\"), **texts)
    identity = read_dicom_series(tmp_path / "scan", "image").identity
    assert {keyword: identity[keyword] for keyword in texts} == texts
    known = DicomIdentity.from_keywords(identity)
    write_dicom_registration(np.zeros((3, 4, 4, 4), np.float32), PLAIN, tmp_path / "field.dcm", known, known)
    written = pydicom.dcmread(tmp_path / "field.dcm")
    assert written.SpecificCharacterSet == "ISO_IR 192"
    assert {keyword: str(written[keyword].value) for keyword in texts} == texts


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_bytes_of_the_standards_examples_in_a_file(tmp_path: Path, example: str) -> None:
    charset, raw, name = EXAMPLES[example]
    files = write_volume(tmp_path, STORED, PLAIN, PatientName="Patient^Name", SpecificCharacterSet=charset.split("\\"))
    for file in files:
        content, padded = file.read_bytes(), raw + b" " * (len(raw) % 2)
        place = content.index(b"\x10\x00\x10\x00PN")
        size = int.from_bytes(content[place + 6 : place + 8], "little")
        head = content[: place + 6] + len(padded).to_bytes(2, "little") + padded
        file.write_bytes(head + content[place + 8 + size :])
    assert read_dicom_series(files[0], "image").identity["PatientName"] == name


def test_a_name_that_cannot_be_read_is_not_written(tmp_path: Path) -> None:
    files = write_volume(tmp_path, STORED, PLAIN, SpecificCharacterSet="ISO_IR 100", PatientName="Müller")
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 6  "))
    known = DicomIdentity.from_keywords(read_dicom_series(tmp_path, "image").identity)
    with pytest.raises(InputError, match=r"PatientName of the DICOM series of the fixed image cannot be read") as error:
        check_dicom_registration(known, known)
    assert "\n" not in str(error.value)
    check_dicom_registration(None, known)


def test_frames_of_reference(tmp_path: Path) -> None:
    names = {"a": "1.2.3", "b": "1.2.3", "c": "1.2.4", "d": None}
    for name, frame in names.items():
        write_volume(tmp_path / name, STORED, PLAIN, FrameOfReferenceUID=frame)
    images = {name: load(tmp_path / name)["fixed"] for name in names}
    assert same_frame_of_reference(images["a"], images["b"])
    assert not same_frame_of_reference(images["a"], images["c"])
    assert not same_frame_of_reference(images["d"], images["d"])


# --- files of others, and copies --------------------------------------------------------------------------------------


def litter(folder: Path) -> None:
    """What systems leave in a folder: macOS's companions of its files, an index, thumbnails."""
    for file in list(folder.iterdir()):
        (folder / f"._{file.name}").write_bytes(bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(4000))
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"\0\0\0\1Bud1" * 50)
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + SERIES.encode() * 4)
    (folder / "__MACOSX").mkdir()


@pytest.mark.parametrize("of", ["folder", "file"])
def test_hidden_and_foreign_files_do_not_matter(tmp_path: Path, of: str) -> None:
    files = write_volume(tmp_path / "clean", STORED, PLAIN)
    expected = read_dicom_series(tmp_path / "clean", "image").values
    litter(tmp_path / "clean")
    found = read_dicom_series(files[0] if of == "file" else tmp_path / "clean", "image")
    np.testing.assert_array_equal(found.values, expected)


def test_an_instance_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    """Byte for byte, without a UID, and written again with another comment."""
    files = write_volume(tmp_path, STORED, PLAIN)
    empty(files[3], "SOPInstanceUID")
    expected = read_dicom_series(tmp_path, "image")
    for number in (1, 3):
        shutil.copy(files[number], files[number].with_name(f"{files[number].stem} (1).dcm"))
    shutil.copy(files[2], tmp_path / "again.dcm")
    rewrite(tmp_path / "again.dcm", ImageComments="copied")
    found = read_dicom_series(tmp_path, "image")
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert found.identity == expected.identity


@pytest.mark.parametrize("change", ["pixels", "place"])
def test_two_files_of_one_instance_that_differ_are_named(tmp_path: Path, change: str) -> None:
    files = write_volume(tmp_path, STORED, PLAIN)
    shutil.copy(files[1], tmp_path / "other.dcm")
    data = pydicom.dcmread(tmp_path / "other.dcm")
    if change == "pixels":
        rewrite(tmp_path / "other.dcm", PixelData=bytes(len(data.PixelData)))
    else:
        rewrite(tmp_path / "other.dcm", ImagePositionPatient=[0, 0, 400])
    with pytest.raises(InputError, match=rf"two files of one instance that differ, '{files[1].name}' and 'other.dcm'"):
        read_dicom_series(tmp_path, "image")


# --- what is refused --------------------------------------------------------------------------------------------------


def rewrite(file: Path, **tags: Any) -> None:
    """Change tags of a file."""
    data = pydicom.dcmread(file)
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.save_as(file)


def empty(file: Path, keyword: str) -> None:
    """Remove a tag of a file."""
    data = pydicom.dcmread(file)
    del data[keyword]
    data.save_as(file)


def cut(file: Path, count: int = 60) -> None:
    """Remove the last bytes of a file."""
    file.write_bytes(file.read_bytes()[:-count])


MISTAKES: dict[str, tuple[Callable[[list[Path]], Any], str]] = {
    "missing slices": (
        lambda files: rewrite(files[4], ImagePositionPatient=[0, 0, 29]),
        r"slices 17 mm apart \('IM002.dcm' and 'IM001.dcm'\) where 4 mm",
    ),
    "same place": (
        lambda files: rewrite(files[2], ImagePositionPatient=[0, 0, 4]),
        r"another one lies already \('IM00[34].dcm' and 'IM00[34].dcm'\), and nothing states them apart",
    ),
    "nearly the same place": (
        lambda files: rewrite(files[2], ImagePositionPatient=[0, 0, 4.1]),
        r"another one lies already \('IM004.dcm' and 'IM003.dcm', 0.1 mm apart\)",
    ),
    "no position": (lambda files: empty(files[2], "ImagePositionPatient"), "IM003.dcm' has no image position of 3"),
    "no orientation": (lambda files: empty(files[2], "ImageOrientationPatient"), "no image orientation of 6 numbers"),
    "no pixel size": (lambda files: empty(files[2], "PixelSpacing"), "IM003.dcm' has no pixel spacing of 2 numbers"),
    "pixels of no size": (
        lambda files: rewrite(files[2], PixelSpacing=[0, 1]),
        r"pixels of \[1.0, 0.0\] mm|\[0.0, 1.0\]",
    ),
    "skewed pixels": (lambda files: rewrite(files[2], ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]), "perpendicular"),
    "not parallel": (lambda files: rewrite(files[2], ImageOrientationPatient=[1, 0, 0, 0, 0, 1]), "not parallel"),
    "other pixels": (lambda files: rewrite(files[2], PixelSpacing=[2, 1.6]), "different sizes"),
    "two patients": (
        lambda files: rewrite(files[2], PatientID="P 18"),
        r"slices of two patients by their PatientID \('IM\d*.dcm' and 'IM\d*.dcm'\)",
    ),
    "cut short": (lambda files: cut(files[4]), "IM001.dcm' is damaged and may be of the DICOM series"),
    "huge": (lambda files: rewrite(files[4], Rows=60_000, Columns=60_000), "60000 x 60000 pixels, more than the file"),
    "many frames": (
        lambda files: rewrite(files[4], NumberOfFrames=3, Rows=2),
        "3 frames in one file and states the places of 0|cannot be read as an image",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(tmp_path: Path, mistake: str) -> None:
    corrupt, message = MISTAKES[mistake]
    corrupt(write_volume(tmp_path, STORED, PLAIN))
    with pytest.raises(InputError, match=message) as error:
        read_dicom_series(tmp_path, "moving image")
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_slices_of_different_sizes(tmp_path: Path) -> None:
    write_volume(tmp_path, STORED, PLAIN)
    larger = np.concatenate([STORED, STORED], axis=0)
    below = PLAIN.copy()
    below[2, 3] = -4.0
    (file,) = write_volume(tmp_path / "more", larger[:, :, :1], below)
    rewrite(file, SOPInstanceUID="1.2.3")
    file.rename(tmp_path / "IM009.dcm")
    with pytest.raises(InputError, match=r"different sizes .*\(14, 6\)"):
        read_dicom_series(tmp_path, "image")


# --- slices that lie unevenly or aslant -------------------------------------------------------------------------------

BROAD = (12, 16, 9)
FLAT = np.array([3.0, -2.0, 5.0])  # change of the values per mm along the axes of RAS


def plane_wave(places: Array) -> Array:
    """Values that are linear in space, (..., 3) mm in RAS, which linear sampling keeps."""
    return places @ FLAT + 400.0


def write_flat(folder: Path, affine: Array, step: Array, at: Sequence[float]) -> None:
    """Slices of a plane wave, ``at`` steps from the first one."""
    pixels = np.moveaxis(np.indices((*BROAD[:2], 1)), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    stored = np.concatenate([plane_wave(pixels + k * step) for k in at], axis=2)
    files = write_volume(folder, np.zeros((*BROAD[:2], len(at))), affine, SOPClassUID=CTImageStorage)
    for k, file, values in zip(at, files, np.moveaxis(np.rint(stored * 8), 2, 0), strict=True):
        place = np.diag([-1.0, -1.0, 1.0]) @ (affine[:3, 3] + k * step)
        tags = {"PixelData": values.T.astype("<i2").tobytes(), "RescaleSlope": 0.125}
        rewrite(file, ImagePositionPatient=[f"{x:.8g}" for x in place], **tags)


@pytest.mark.parametrize("degrees", [0.0, 12.0, -20.0])
@pytest.mark.parametrize("at", [range(9), [0, 1, 2, 3, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5.5, 7, 8.5]])
@pytest.mark.parametrize("grid", ["plain", "mirrored"])
def test_tilted_and_uneven_slices_lie_where_their_headers_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, grid: str, at: Sequence[float], degrees: float
) -> None:
    affine = GRIDS[grid]
    step = affine[:3, 2] + np.tan(np.radians(degrees)) * np.linalg.norm(affine[:3, 2]) * affine[:3, 1] / np.linalg.norm(
        affine[:3, 1]
    )
    write_flat(tmp_path, affine, step, at)
    volume = read_dicom_series(tmp_path, "image")
    places = np.moveaxis(np.indices(volume.values.shape), 0, -1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    scanned = volume.values > volume.values.min() + 1e-3
    inner = ndimage.binary_erosion(scanned, iterations=2)
    assert inner.sum() > 100
    np.testing.assert_allclose(volume.values[inner], plane_wave(places)[inner], atol=0.2)
    cosines = volume.affine[:3, :3].T @ volume.affine[:3, :3]
    np.testing.assert_allclose(cosines, np.diag(np.diag(cosines)), atol=1e-4)
    reported = [record.message for record in caplog.records]
    tilted, uneven = degrees != 0, list(at) != list(range(9))
    assert len(reported) == (tilted or uneven)
    assert ("tilted by" in "".join(reported), "may be missing" in "".join(reported)) == (tilted, uneven)
    if tilted:
        assert f"tilted by {abs(degrees):.1f} degrees" in reported[0]


def test_all_of_a_tilted_volume_is_kept(tmp_path: Path) -> None:
    """What a slice shows at its border is within the grid; where no slice has been lies the least value."""
    stored = np.full((6, 5, 4), 100, np.int16)
    stored[0, 0] = 20
    write_volume(tmp_path, stored, np.diag([2.0, 2.0, 4.0, 1.0]), step=np.array([0.0, 2.0, 4.0]))
    volume = read_dicom_series(tmp_path, "image")
    assert volume.values.shape == (6, 5 + 3, 4)
    for k in range(4):
        expected = np.full((6, 8), 20.0)
        expected[:, k : k + 5] = stored[..., 0]
        np.testing.assert_allclose(volume.values[..., k], expected, atol=1e-4)
    np.testing.assert_allclose(volume.affine[:3, 3], [0.0, 0.0, 0.0], atol=1e-6)


# --- several volumes in one series ------------------------------------------------------------------------------------

PHASES = {
    "temporal position": ("TemporalPositionIdentifier", [1, 2, 3]),
    "trigger time": ("TriggerTime", [0, 250.5, 600]),
    "image comments": ("ImageComments", ["0% Ex", "20% In", "100% In"]),
    "acquisition number": ("AcquisitionNumber", [4, 5, 11]),
}


def write_phases(folder: Path, keyword: str, values: Sequence[Any], **tags: Any) -> None:
    """Volumes of one series, each brighter by 1000 than the one before."""
    for k, value in reversed(list(enumerate(values))):
        files = write_volume(folder / "one", STORED + 1000 * k, PLAIN, **{keyword: value}, **tags)
        for file in files:
            rewrite(file, SOPInstanceUID=f"{SERIES}.{k}.{int(file.stem[2:])}")
            file.rename(folder / f"{k}_{file.name}")


@pytest.mark.parametrize("by", PHASES)
def test_phases_of_one_series_are_offered_by_name(tmp_path: Path, by: str) -> None:
    keyword, values = PHASES[by]
    write_phases(tmp_path, keyword, values)
    names = dicom_phases(tmp_path, "image")
    assert [float(name.split("%")[0]) for name in names] == [float(str(value).split("%")[0]) for value in values]
    for k, name in enumerate(names):
        for asked in (name, name.split("%")[0]):
            volume = read_dicom_series(tmp_path, "fixed image", phase=Phase(asked, "fixed_phase"))
            np.testing.assert_array_equal(volume.values, STORED + 1000 * k)
    files = [tmp_path / f"1_IM00{number}.dcm" for number in range(5, 0, -1)]  # written from the last slice down
    expected = sitk.GetArrayFromImage(sitk.ReadImage([str(file) for file in files])).T
    np.testing.assert_array_equal(read_dicom_series(tmp_path, "a", phase=Phase(names[1], "a")).values, expected)
    with pytest.raises(InputError, match=rf"3 volumes by {by} \({', '.join(names)}\), .* with fixed_phase") as error:
        read_dicom_series(tmp_path, "fixed image", phase=Phase("", "fixed_phase"))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=f"no volume '77' by {by}, expected one of {names[0]}, "):
        read_dicom_series(tmp_path, "fixed image", phase=Phase("77", "fixed_phase"))


def test_times_that_differ_from_slice_to_slice_count_the_volumes(tmp_path: Path) -> None:
    write_phases(tmp_path, "InstanceNumber", [None] * 3)
    for file in tmp_path.glob("*.dcm"):
        phase, number = int(file.stem[0]), int(file.stem[-1])
        rewrite(file, TriggerTime=100 * phase + number)
    assert dicom_phases(tmp_path, "image") == ["0", "1", "2"]
    volume = read_dicom_series(tmp_path, "image", phase=Phase("2", "fixed_phase"))
    np.testing.assert_array_equal(volume.values, STORED + 2000)


def test_the_identity_is_that_of_the_phase(tmp_path: Path) -> None:
    write_phases(tmp_path, *PHASES["trigger time"])
    identity = read_dicom_series(tmp_path, "image", phase=Phase("600", "fixed_phase")).identity
    assert identity["SOPInstanceUID"].split("\\") == [f"{SERIES}.2.{k}" for k in range(5, 0, -1)]


@pytest.mark.parametrize("seed", range(3))
def test_rounded_positions_are_no_mistake(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    for k, file in enumerate(write_volume(tmp_path, STORED, PLAIN)):
        place = [*draw.uniform(-0.05, 0.05, 2), 4.0 * k + draw.uniform(-0.05, 0.05)]
        rewrite(file, ImagePositionPatient=[f"{x:.3f}" for x in place])
    volume = read_dicom_series(tmp_path, "image")
    np.testing.assert_array_equal(volume.values, STORED)
    np.testing.assert_allclose(volume.affine[:3, :3], np.diag([1.5, 2.0, 4.0]), atol=0.03)


def test_color_pictures(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 255, (6, 7, 3)).astype(np.uint8)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8}
    bits = {
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "SOPInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2",
    }
    write_slice(tmp_path / "a.dcm", colors, **tags, **bits)
    with pytest.raises(InputError, match="color picture"):
        read_dicom_series(tmp_path, "image")


def test_a_volume_that_the_memory_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_volume(tmp_path, STORED, PLAIN)
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", str(8 * STORED.size - 1))
    size = " x ".join(map(str, STORED.shape))
    with pytest.raises(InputError, match=f"image '.*' has {size} voxels, which take about .* of memory to read"):
        read_dicom_series(tmp_path, "image")
