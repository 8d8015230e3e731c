"""Loading a pair: formats, types, affines, and one message for each mistake."""

from __future__ import annotations

import gzip
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from dicom_series import Array, write_volume
from monai.data import MetaTensor
from PIL import Image

from monai_regplugins.checks import InputError
from monai_regplugins.transforms.load import LoadPaird, LoadSubjectd, load_points
from monai_regplugins.transforms.prepare import MovingToFixedGridd

RNG = np.random.default_rng(0)
VOLUME = RNG.normal(size=(4, 5, 6)).astype(np.float32)
LABELS = np.arange(120, dtype=np.int16).reshape(4, 5, 6) % 7
SLICE = RNG.integers(0, 255, size=(6, 4), dtype=np.uint8)  # PNG rows, columns
AFFINE = np.array([[0.0, -1.2, 1.6, 3.0], [-3.0, 0.0, 0.0, 4.0], [0.0, 1.6, 1.2, 5.0], [0.0, 0.0, 0.0, 1.0]])


def write_nifti(path: Path, data: np.ndarray[Any, Any], affine: np.ndarray[Any, Any] = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Any]:
    """A valid pair of volumes on one oblique, left-handed grid."""
    return {
        "moving": write_nifti(tmp_path / "moving.nii.gz", VOLUME),
        "fixed": write_nifti(tmp_path / "fixed.nii", VOLUME + 1),
        "pair_id": "moving_to_fixed",
    }


def test_images_labels_masks_and_points(pair: dict[str, Any], tmp_path: Path) -> None:
    pair["fixed_label"] = write_nifti(tmp_path / "label.nii.gz", LABELS)
    pair["moving_mask"] = write_nifti(tmp_path / "mask.nii.gz", LABELS)
    pair["fixed_keypoints"] = tmp_path / "points.csv"
    pair["fixed_keypoints"].write_text("1,2,3\n4.5,5,6\n")
    loaded = LoadPaird()(pair)
    np.testing.assert_array_equal(loaded["moving"][0], VOLUME)
    assert loaded["moving"].dtype == torch.float32
    np.testing.assert_allclose(loaded["fixed"].affine, AFFINE, atol=1e-6)
    np.testing.assert_array_equal(loaded["fixed_label"][0], LABELS)
    assert loaded["fixed_label"].dtype == torch.uint8
    np.testing.assert_array_equal(loaded["moving_mask"][0], LABELS > 0)
    assert loaded["fixed_keypoints"].tolist() == [[1.0, 2.0, 3.0], [4.5, 5.0, 6.0]]
    assert loaded["fixed_keypoints"].dtype == torch.float32
    assert loaded["pair_id"] == "moving_to_fixed"
    assert str(loaded["fixed"].meta["filename_or_obj"]).endswith("fixed.nii")
    assert isinstance(pair["moving"], Path), "the given dictionary must not change"


@pytest.mark.parametrize(
    ("value", "dtype"), [(255, torch.uint8), (256, torch.int16), (-1, torch.int16), (40_000, torch.int32)]
)
def test_labels_take_the_smallest_type_that_holds_them(
    pair: dict[str, Any], tmp_path: Path, value: int, dtype: torch.dtype
) -> None:
    labels = LABELS.astype(np.int32)
    labels[0, 0, 0] = value
    pair["moving_label"] = write_nifti(tmp_path / "label.nii.gz", labels)
    label = LoadPaird()(pair)["moving_label"]
    assert label.dtype == dtype
    np.testing.assert_array_equal(label[0], labels)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16"])
def test_png_in_2d_has_array_axes_x_y_and_an_identity_affine(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(SLICE.astype(np.uint16) * 3) if mode == "I;16" else Image.fromarray(SLICE).convert(mode)
    picture.save(tmp_path / "slice.png")
    loaded = LoadPaird(spatial_dims=2)({"moving": tmp_path / "slice.png", "fixed": tmp_path / "slice.png"})
    expected = SLICE.T.astype(np.float32) * (3 if mode == "I;16" else 1)
    np.testing.assert_array_equal(loaded["moving"][0], expected)
    np.testing.assert_array_equal(loaded["moving"].affine, np.eye(4))


def test_a_slice_stored_as_a_volume_loses_its_trailing_axis(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "slice.nii.gz", VOLUME[:, :, :1])
    loaded = LoadPaird(spatial_dims=2)({"moving": path, "fixed": path})
    np.testing.assert_array_equal(loaded["fixed"][0], VOLUME[:, :, 0])


def test_a_volume_stored_as_one_time_point_loses_its_trailing_axis(pair: dict[str, Any], tmp_path: Path) -> None:
    pair["moving"] = write_nifti(tmp_path / "time.nii.gz", VOLUME[..., None])
    np.testing.assert_array_equal(LoadPaird()(pair)["moving"][0], VOLUME)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_itk_formats_give_the_array_and_affine_of_the_same_nifti(tmp_path: Path, suffix: str) -> None:
    nifti = write_nifti(tmp_path / "image.nii.gz", VOLUME)
    other = tmp_path / f"image{suffix}"
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(other))
    loaded = LoadPaird()({"moving": other, "fixed": nifti})
    assert isinstance(loaded["moving"], MetaTensor)
    np.testing.assert_array_equal(loaded["moving"], loaded["fixed"])
    np.testing.assert_allclose(loaded["moving"].affine, AFFINE, atol=1e-5)


def test_points_may_be_a_single_row(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("1,2\n")
    assert load_points(tmp_path / "points.csv", 2, "points").tolist() == [[1.0, 2.0]]


# --- one test per mistake ---------------------------------------------------------------------------------------------


def replaced(data: np.ndarray[Any, Any], value: float) -> np.ndarray[Any, Any]:
    copy = data.copy()
    copy[0, 0, 0] = value
    return copy


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (replaced(VOLUME, np.nan), "NaN or infinite"),
        (replaced(VOLUME, np.inf), "NaN or infinite"),
        (np.ones((4, 5, 6), np.float32), "constant"),
        (VOLUME[:, :, 0], "2 spatial dimensions"),
        (VOLUME[:, :, :1], "2 spatial dimensions|single slice"),
        (VOLUME[:1], "single slice"),
        (np.stack([VOLUME, VOLUME], axis=-1), "4 spatial dimensions"),
    ],
    ids=["nan", "inf", "constant", "2d", "one-slice", "one-sagittal-slice", "4d"],
)
def test_bad_image(pair: dict[str, Any], tmp_path: Path, data: np.ndarray[Any, Any], message: str) -> None:
    pair["moving"] = write_nifti(tmp_path / "bad.nii.gz", data)
    with pytest.raises(InputError, match=message) as error:
        LoadPaird()(pair)
    assert "\n" not in str(error.value)
    assert "moving image" in str(error.value)
    assert "bad.nii.gz" in str(error.value)


@pytest.mark.parametrize(
    ("data", "affine", "message"),
    [
        (LABELS[:, :, :5], AFFINE, "size"),
        (LABELS, AFFINE + 0.01 * np.eye(4, k=3), "another affine"),
        (np.zeros_like(LABELS), AFFINE, "empty"),
        (LABELS + np.float32(0.5), AFFINE, "fractions"),
        (replaced(LABELS.astype(np.float32), np.nan), AFFINE, "fractions"),
    ],
    ids=["shape", "affine", "empty", "fractions", "nan"],
)
def test_bad_label(
    pair: dict[str, Any], tmp_path: Path, data: np.ndarray[Any, Any], affine: np.ndarray[Any, Any], message: str
) -> None:
    pair["fixed_label"] = write_nifti(tmp_path / "label.nii.gz", data, affine)
    with pytest.raises(InputError, match=message):
        LoadPaird()(pair)


def test_empty_mask(pair: dict[str, Any], tmp_path: Path) -> None:
    pair["moving_mask"] = write_nifti(tmp_path / "mask.nii.gz", np.zeros_like(LABELS))
    with pytest.raises(InputError, match=r"moving mask .*empty"):
        LoadPaird()(pair)


def test_missing_file(pair: dict[str, Any]) -> None:
    pair["fixed"] = Path(pair["fixed"]).with_name("fixd.nii")
    with pytest.raises(InputError, match=r"fixed image .*does not exist.*'fixed.nii'"):
        LoadPaird()(pair)


@pytest.mark.parametrize("name", ["bad.nii.gz", "bad.nii", "bad.png", "bad.nrrd", "bad.mha", "bad.docx"])
def test_not_an_image(pair: dict[str, Any], tmp_path: Path, name: str) -> None:
    pair["moving"] = tmp_path / name
    pair["moving"].write_bytes(b"not an image at all" * 40)
    with pytest.raises(InputError, match="cannot be read as an image"):
        LoadPaird()(pair)


def test_missing_key(pair: dict[str, Any]) -> None:
    del pair["moving"]
    with pytest.raises(InputError, match="no 'moving'"):
        LoadPaird()(pair)


def test_color_picture(tmp_path: Path) -> None:
    path = tmp_path / "color.png"
    Image.fromarray(RNG.integers(0, 255, size=(5, 4, 3), dtype=np.uint8)).save(path)
    with pytest.raises(InputError, match="color picture"):
        LoadPaird(spatial_dims=2)({"moving": path, "fixed": path})


def test_png_for_a_3d_method(tmp_path: Path) -> None:
    path = tmp_path / "slice.png"
    Image.fromarray(SLICE).save(path)
    with pytest.raises(InputError, match="expected 3"):
        LoadPaird(spatial_dims=3)({"moving": path, "fixed": path})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,z\n1,2,3\n", "not a table"),
        ("1,2\n3,4\n", "3 finite"),
        ("1,2,nan\n", "3 finite"),
        ("\n", "at least one row"),
    ],
    ids=["header", "columns", "nan", "none"],
)
def test_bad_points(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_points(tmp_path / "points.csv", 3, "moving landmarks")


def test_points_without_partner(pair: dict[str, Any], tmp_path: Path) -> None:
    for side, text in (("moving", "1,2,3\n"), ("fixed", "1,2,3\n4,5,6\n")):
        pair[f"{side}_landmarks"] = tmp_path / f"{side}.csv"
        pair[f"{side}_landmarks"].write_text(text)
    with pytest.raises(InputError, match="moving landmarks has 1 points but fixed landmarks has 2"):
        LoadPaird()(pair)


def test_companions_that_are_not_wanted_are_dropped_unread(pair: dict[str, Any]) -> None:
    absent = {"moving_label": "none.nii.gz", "fixed_landmarks": "none.csv"}
    loaded = LoadPaird(companions=["mask"])({**pair, **absent})
    assert not absent.keys() & loaded.keys()


def test_unknown_companion_is_refused() -> None:
    with pytest.raises(InputError, match="label"):
        LoadPaird(companions=["labels"])


def test_single_image_with_its_mask(tmp_path: Path) -> None:
    files = {
        "image": write_nifti(tmp_path / "image.nii.gz", VOLUME),
        "mask": write_nifti(tmp_path / "mask.nii.gz", LABELS),
    }
    item = LoadSubjectd()({**files, "image_id": "7"})
    np.testing.assert_array_equal(item["image"][0], VOLUME)
    np.testing.assert_array_equal(item["mask"][0], LABELS > 0)
    np.testing.assert_allclose(item["spacing"], [3.0, 2.0, 2.0], rtol=1e-6)
    assert item["image_id"] == "7"


def test_mask_of_another_grid_than_its_image(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "image.nii.gz", VOLUME)
    with pytest.raises(InputError, match=r"mask '.*' has size .* but the image has"):
        LoadSubjectd()({"image": image, "mask": write_nifti(tmp_path / "mask.nii.gz", LABELS[1:])})
    moved = write_nifti(tmp_path / "mask.nii.gz", LABELS, AFFINE + 9 * np.eye(4, k=3))
    with pytest.raises(InputError, match="another affine than the image"):
        LoadSubjectd()({"image": image, "mask": moved})


def test_header_without_voxel_size(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    image = nib.Nifti1Image(VOLUME, None)
    image.header["pixdim"][1:4] = [2.0, 0.0, 2.0]
    nib.save(image, path)
    with pytest.raises(InputError, match=r"image '.*' tells no spacing, its voxel size is \[2.0, 0.0, 2.0\] mm"):
        LoadSubjectd()({"image": path})


def test_affine_that_is_not_finite(pair: dict[str, Any]) -> None:
    header = bytearray(pair["fixed"].read_bytes())
    header[280:284] = np.float32(np.nan).tobytes()  # first number of the sform
    pair["fixed"].write_bytes(header)
    with pytest.raises(InputError, match=r"affine of fixed image .* is not finite"):
        LoadPaird()(pair)


def test_points_outside_their_image(pair: dict[str, Any], tmp_path: Path) -> None:
    pair["moving_landmarks"] = tmp_path / "points.csv"
    pair["moving_landmarks"].write_text("-1.5,0,0\n4.5,5.5,6.5\n")  # a voxel beyond the border, on either side
    LoadPaird()(pair)
    pair["moving_landmarks"].write_text("1,1,1\n1,1,6.6\n-30,2,2\n")
    with pytest.raises(
        InputError, match=r"holds 2 points outside the moving image, .* 4 x 5 x 6 voxels.* mm to voxels"
    ):
        LoadPaird()(pair)


def test_labels_too_large_to_be_told_apart(pair: dict[str, Any], tmp_path: Path) -> None:
    labels = LABELS.astype(np.int32)
    labels[0, 0, 0] = 2**24 + 1
    pair["moving_label"] = write_nifti(tmp_path / "label.nii.gz", labels)
    with pytest.raises(InputError, match="holds labels up to 16777216, expected less than"):
        LoadPaird()(pair)


def test_a_folder_is_no_label_map(pair: dict[str, Any], tmp_path: Path) -> None:
    write_volume(tmp_path / "series", LABELS, np.eye(4))
    pair["fixed_label"] = tmp_path / "series"
    with pytest.raises(InputError, match=r"fixed label '.*' is a folder"):
        LoadPaird()(pair)


# --- a hundred ways to spoil a pair -----------------------------------------------------------------------------------

Spoil = Callable[[np.random.Generator, dict[str, Any]], None]
SPOILS: dict[str, Spoil] = {}
ENCODED = ("moving.nii.gz", "moving.nii", "moving.nrrd", "moving.mha", "moving")  # the last is a DICOM series
DIMENSIONS, NUMBER_TYPE, SPACING, SFORM = slice(40, 56), slice(70, 74), slice(80, 92), slice(280, 328)  # of NIfTI


def spoils(function: Spoil) -> Spoil:
    SPOILS[function.__name__] = function
    return function


def one_file(draw: np.random.Generator, pair: dict[str, Any], names: tuple[str, ...] = ENCODED) -> Path:
    """Take the moving image from one of its formats and return the file that holds it (one of them for DICOM)."""
    pair["moving"] = pair["folder"] / str(draw.choice(names))
    files = sorted(pair["moving"].iterdir()) if pair["moving"].is_dir() else [pair["moving"]]
    return files[draw.integers(len(files))]


def overwrite(file: Path, place: slice, content: bytes) -> None:
    old = file.read_bytes()
    assert len(content) == place.stop - place.start
    file.write_bytes(old[: place.start] + content + old[place.stop :])


def rewritten(draw: np.random.Generator, pair: dict[str, Any], key: str, data: Array, affine: Array = AFFINE) -> None:
    suffix = str(draw.choice([".nii", ".nii.gz"]))
    pair[key] = write_nifti(pair["folder"] / f"{key}_new{suffix}", data, affine)


@spoils
def cut_short(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    file = one_file(draw, pair)
    file.write_bytes(file.read_bytes()[: draw.integers(1, file.stat().st_size - 8)])


@spoils
def header_of_noise(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    file = one_file(draw, pair)
    overwrite(file, slice(0, 340), draw.bytes(340))


@spoils
def file_of_noise(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    one_file(draw, pair).write_bytes(draw.bytes(int(draw.integers(1, 3000))))
    if pair["moving"].is_dir():  # noise alone says of no series that a file of it is lost
        for file in pair["moving"].iterdir():
            file.write_bytes(draw.bytes(500))


@spoils
def swapped_bytes(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    file = one_file(draw, pair, ("moving.nii",))
    head = np.frombuffer(file.read_bytes()[4:348], np.uint8).reshape(-1, 2)[:, ::-1]
    overwrite(file, slice(4, 348), head.tobytes())


@spoils
def another_format_behind_the_suffix(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    first, second = draw.choice(ENCODED[:-1], 2, replace=False)
    pair["moving"] = pair["folder"] / str(first)
    pair["moving"].write_bytes((pair["folder"] / str(second)).read_bytes())


@spoils
def affine_that_is_not_finite(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    affine = np.frombuffer(np.float32(AFFINE[:3]).tobytes(), np.float32).copy()
    affine[draw.integers(12)] = draw.choice([np.nan, np.inf, -np.inf])
    overwrite(one_file(draw, pair, ("moving.nii",)), SFORM, affine.tobytes())


@spoils
def spacing_of_zero(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    file = one_file(draw, pair, ("moving.nii", "moving"))
    if pair["moving"].is_dir():
        data = pydicom.dcmread(file)
        data.PixelSpacing = [[0, 1], [1, 0], [-1, 1]][draw.integers(3)]
        data.save_as(file)
    else:
        size = draw.uniform(0.5, 3, 3).astype(np.float32)
        size[draw.integers(3)] = draw.choice([0, -1, np.nan])
        overwrite(file, SPACING, size.tobytes())
        overwrite(file, slice(254, 256), bytes(2))  # no sform, so that the spacing counts


@spoils
def huge_shape(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    file = one_file(draw, pair)
    size = [int(n) for n in draw.integers(2000, 30_000, 3)]
    if pair["moving"].is_dir():
        data = pydicom.dcmread(file)
        data.Rows, data.Columns = size[:2]
        data.save_as(file)
    elif file.suffix in (".nrrd", ".mha"):
        text = b"4 5 6", " ".join(map(str, size)).encode()
        assert text[0] in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(*text))
    else:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        content = content[:40] + np.int16([3, *size, 1, 1, 1, 1]).tobytes() + content[56:]
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


@spoils
def complex_values(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    values = (VOLUME + 1j * VOLUME).astype(draw.choice([np.complex64, np.complex128]))
    if draw.random() < 0.5:
        pair["moving"] = pair["folder"] / "complex.nrrd"
        sitk.WriteImage(sitk.GetImageFromArray(values), str(pair["moving"]))
    else:
        rewritten(draw, pair, "moving", values)


@spoils
def color_values(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    colors = draw.integers(0, 255, (4, 5, 6, 3), dtype=np.uint8)
    if draw.random() < 0.5:
        pair["moving"] = pair["folder"] / "colors.mha"
        sitk.WriteImage(sitk.GetImageFromArray(colors, isVector=True), str(pair["moving"]))
    else:
        rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        rewritten(draw, pair, "moving", colors.view(rgb)[..., 0])


@spoils
def unknown_number_type(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    code = np.int16([draw.choice([0, 1, 3, 255, 999, -8]), 0])
    overwrite(one_file(draw, pair, ("moving.nii",)), NUMBER_TYPE, code.tobytes())


@spoils
def values_that_are_not_finite(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    values = VOLUME.astype(np.float64)
    values[tuple(draw.integers(4, size=3))] = draw.choice([np.nan, np.inf, 1e300])
    rewritten(draw, pair, str(draw.choice(["moving", "fixed"])), values)


@spoils
def dimensions_of_no_volume(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    sizes = [[0, 4, 5, 6], [3, -4, 5, 6], [3, 0, 5, 6], [9, 4, 5, 6], [2, 4, 30, 1], [3, 120, 1, 1], [4, 4, 5, 3]]
    chosen = [*sizes[draw.integers(len(sizes))], 2, 1, 1, 1]
    overwrite(one_file(draw, pair, ("moving.nii",)), DIMENSIONS, np.int16(chosen).tobytes())


@spoils
def empty_label(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    kind = str(draw.choice(["moving_label", "fixed_label", "fixed_mask", "moving_mask"]))
    rewritten(draw, pair, kind, np.zeros((4, 5, 6), draw.choice([np.uint8, np.int16, np.float32])))


@spoils
def label_on_another_grid(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    shape, affine = [4, 5, 6], AFFINE.copy()
    if draw.random() < 0.5:
        shape[draw.integers(3)] += 1
    else:
        affine[:3, 3] += draw.uniform(0.1, 50, 3)
    rewritten(draw, pair, "fixed_label", np.ones(shape, np.uint8), affine)


@spoils
def points_outside(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    points = draw.uniform(0, 3, (5, 3))
    points[draw.integers(5), draw.integers(3)] = draw.choice([-200.0, 40.0, 1e30, np.nan, np.inf])
    pair["fixed_landmarks"] = pair["folder"] / "points.csv"
    np.savetxt(pair["fixed_landmarks"], points, delimiter=",")


@spoils
def points_that_are_no_table(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    pair["moving_keypoints"] = pair["folder"] / str(draw.choice(["points.csv", "points.csv.gz", "points.csv.xz"]))
    pair["moving_keypoints"].write_bytes(draw.bytes(int(draw.integers(1, 200))))


@spoils
def folder_instead_of_file(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    folder = pair["folder"] / str(draw.choice(["empty", "empty.nii.gz"]))
    folder.mkdir()
    pair[str(draw.choice(["moving", "fixed", "moving_label", "fixed_mask", "fixed_keypoints"]))] = folder


@spoils
def path_to_nowhere(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    paths = ["", "nowhere.nii", "no/where", "\0", "x" * 5000, "/dev/null", str(pair["fixed"]) + "/inside"]
    pair[str(draw.choice(["moving", "fixed", "fixed_label", "moving_landmarks"]))] = str(draw.choice(paths))


@spoils
def scan_of_elsewhere(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    affine = AFFINE.copy()
    affine[draw.integers(3), 3] += draw.choice([-1, 1]) * draw.uniform(100, 1e6)
    rewritten(draw, pair, "moving", VOLUME, affine)


@pytest.mark.parametrize("spoil", SPOILS)
def test_spoiled_pairs_are_refused_in_one_line(pair: dict[str, Any], tmp_path: Path, spoil: str) -> None:
    """Five seeds for each of twenty kinds: quickly, without filling the memory, and never by another exception."""
    assert len(SPOILS) == 20
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for name in ("moving.nii", "moving.nii.gz"):
            write_nifti(folder / name, VOLUME)
        for name in ("moving.nrrd", "moving.mha"):
            sitk.WriteImage(sitk.ReadImage(str(folder / "moving.nii")), str(folder / name))
        write_volume(folder / "moving", (100 * VOLUME).astype(np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
        spoiled = {**pair, "folder": folder}
        SPOILS[spoil](np.random.default_rng(seed), spoiled)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        with pytest.raises(InputError) as error:
            MovingToFixedGridd()(LoadPaird()(spoiled))
        assert time.perf_counter() - start < 5, "it must not hang"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "half a gigabyte, in kB"
        assert len(str(error.value)) > 20
        assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_permission_denied(pair: dict[str, Any]) -> None:
    pair["fixed"].chmod(0)
    with pytest.raises(InputError, match=r"fixed image '.*' cannot be opened \(permission denied\)"):
        LoadPaird()(pair)
