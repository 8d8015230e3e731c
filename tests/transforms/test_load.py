"""Loading a pair: formats, types, affines, and one message for each mistake."""

from __future__ import annotations

import itertools
import os
import resource
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from damaged_pairs import AFFINE, DAMAGES, VOLUME, damaged_pair, good_pair, write_nifti
from dicom_series import write_volume
from monai.data import MetaTensor
from monai.utils import SpaceKeys
from PIL import Image

from monai_regplugins.checks import InputError
from monai_regplugins.transforms.load import LoadPaird, LoadSubjectd, load_points
from monai_regplugins.transforms.prepare import ResampleToFixedd, resize_image

LABELS = np.arange(120, dtype=np.int16).reshape(4, 5, 6) % 7
SLICE = np.random.default_rng(0).integers(0, 255, size=(6, 4), dtype=np.uint8)  # PNG rows, columns


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Any]:
    return good_pair(tmp_path)


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


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_slice_may_be_any_axis_of_a_volume(tmp_path: Path, axis: int, suffix: str) -> None:
    """Its pixels lie where nibabel and SimpleITK place those of the file."""
    values = np.moveaxis(VOLUME[..., :1], 2, axis)
    nifti = path = write_nifti(tmp_path / "slice.nii.gz", values)
    if suffix == ".nrrd":
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path := tmp_path / "slice.nrrd"))
    loaded = LoadPaird(spatial_dims=2)({"moving": path, "fixed": path})["fixed"]
    np.testing.assert_array_equal(loaded[0], VOLUME[..., 0])
    for pixel in ([0, 0], [3, 1], [2, 4]):
        there = np.insert(pixel, axis, 0)
        expected = nib.affines.apply_affine(nib.load(nifti).affine, there)
        found = nib.affines.apply_affine(loaded.affine.numpy(), [*pixel, 0])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_slice_in_memory_may_be_any_axis() -> None:
    for axis in (1, 2):  # the first one would be that of channels
        values = np.moveaxis(VOLUME[..., :1], 2, axis)
        loaded = LoadPaird(spatial_dims=2)({"moving": values, "fixed": values})
        np.testing.assert_array_equal(loaded["fixed"][0], VOLUME[..., 0])


def test_each_image_has_its_phase(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "4d.nii.gz", np.stack([VOLUME, VOLUME + 1, VOLUME * 2], axis=-1))
    mask = write_nifti(tmp_path / "mask.nii.gz", (VOLUME > 0).astype(np.uint8))
    pair = LoadPaird()(
        {"fixed": path, "moving": path, "fixed_phase": "2", "moving_phase": "1", "fixed_mask": mask, "pair_id": "a"}
    )
    np.testing.assert_array_equal(pair["fixed"][0], VOLUME * 2)
    np.testing.assert_array_equal(pair["moving"][0], VOLUME + 1)
    assert pair["fixed_mask"].shape == pair["fixed"].shape
    with pytest.raises(InputError, match="fixed image is an array, but fixed_phase is given"):
        LoadPaird()({"fixed": VOLUME, "moving": path, "fixed_phase": "2", "moving_phase": "1"})


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
        (np.stack([VOLUME, VOLUME], axis=-1), r"holds 2 volumes by their number \(0, 1\), .* with moving_phase"),
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
        (LABELS[:, :, :5], np.eye(4), "size"),
        (LABELS, np.eye(4), "another affine than the fixed image and no position of its own"),
        (LABELS, AFFINE + 100 * np.eye(4, k=3), "lies outside of the fixed image"),
        (LABELS, AFFINE @ (np.eye(4) + 0.1 * np.eye(4, k=1)), "affine of fixed label .* is sheared"),
        (np.zeros_like(LABELS), AFFINE, "empty"),
        (LABELS + np.float32(0.5), AFFINE, "fractions"),
        (replaced(LABELS.astype(np.float32), np.nan), AFFINE, "fractions"),
    ],
    ids=["shape", "affine", "elsewhere", "sheared", "empty", "fractions", "nan"],
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
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(5, 4, 3)).save(path)
    with pytest.raises(InputError, match="color picture"):
        LoadPaird(spatial_dims=2)({"moving": path, "fixed": path})


def test_a_palette_is_gray_in_an_image_and_numbers_in_a_label_map(tmp_path: Path) -> None:
    picture = Image.frombytes("P", (4, 6), (SLICE % 3).tobytes())
    picture.putpalette([90, 90, 90, 7, 7, 7, 200, 200, 200])
    picture.save(tmp_path / "gray.png")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "label.png")
    images = {"moving": tmp_path / "gray.png", "fixed": tmp_path / "gray.png"}
    loaded = LoadPaird(spatial_dims=2)({**images, "fixed_label": tmp_path / "label.png"})
    np.testing.assert_array_equal(loaded["fixed"][0], np.array([90, 7, 200])[SLICE.T % 3])
    np.testing.assert_array_equal(loaded["fixed_label"][0], SLICE.T % 3)
    with pytest.raises(InputError, match="color picture"):
        LoadPaird(spatial_dims=2)({**images, "fixed": tmp_path / "label.png"})


def test_png_for_a_3d_method(tmp_path: Path) -> None:
    path = tmp_path / "slice.png"
    Image.fromarray(SLICE).save(path)
    with pytest.raises(InputError, match="expected 3"):
        LoadPaird(spatial_dims=3)({"moving": path, "fixed": path})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,z\n1,2,three\n", "cannot be read as points, .* points_space ras or lps makes voxels of points in mm"),
        ("1,2\n3,4\n", "3 finite"),
        ("1,2,nan\n", "cannot be read as points"),
        ("\n", "cannot be read as points"),
    ],
    ids=["words", "columns", "nan", "none"],
)
def test_bad_points(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_points(tmp_path / "points.csv", 3, "moving landmarks")


def test_points_in_mm_of_a_pair(pair: dict[str, Any], tmp_path: Path) -> None:
    """Points of the same place, in mm of RAS and in a file of 3D Slicer, become the voxels of their image."""
    image = LoadPaird()(pair)["fixed"]
    world = image.affine.numpy()[:3, :3] @ [1.0, 2.0, 3.0] + image.affine.numpy()[:3, 3]
    pair["fixed_landmarks"], pair["fixed_keypoints"] = tmp_path / "ras.csv", tmp_path / "slicer.fcsv"
    pair["fixed_landmarks"].write_text(",".join(map(repr, world.tolist())) + "\n")
    numbers = ",".join(map(repr, (world * [-1, -1, 1]).tolist()))
    pair["fixed_keypoints"].write_text(f"# CoordinateSystem = LPS\n# columns = id,x,y,z\n1,{numbers}\n")
    slicer = LoadPaird(companions=["keypoints"])(pair)["fixed_keypoints"]
    table = LoadPaird(companions=["landmarks"], points_space="ras")(pair)["fixed_landmarks"]
    np.testing.assert_allclose(slicer, [[1, 2, 3]], atol=1e-4)
    np.testing.assert_allclose(table, [[1, 2, 3]], atol=1e-4)
    with pytest.raises(InputError, match=r"outside the fixed image, .* points_space ras or lps makes voxels"):
        LoadPaird(companions=["landmarks"])(pair)
    with pytest.raises(InputError, match="points_space is 'mm'"):
        LoadPaird(points_space="mm")


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
        LoadSubjectd()({"image": image, "mask": write_nifti(tmp_path / "mask.nii.gz", LABELS[1:], np.eye(4))})
    moved = write_nifti(tmp_path / "mask.nii.gz", LABELS, AFFINE + 99 * np.eye(4, k=3))
    with pytest.raises(InputError, match="lies outside of the image by their headers"):
        LoadSubjectd()({"image": image, "mask": moved})


def test_header_without_voxel_size(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    image = nib.Nifti1Image(VOLUME, None)
    image.header["pixdim"][1:4] = [2.0, 0.0, 2.0]
    nib.save(image, path)
    with pytest.raises(InputError, match=r"image '.*' has no spacing, its voxel size is \[2.0, 0.0, 2.0\] mm"):
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
        InputError, match=r"holds 2 points outside the moving image, .* 4 x 5 x 6 voxels.* points in mm"
    ):
        LoadPaird()(pair)


# --- labels on other grids of the same world --------------------------------------------------------------------------


@pytest.mark.parametrize("flips", list(itertools.product([1, -1], repeat=3)))
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_label_with_other_axes_is_turned_onto_its_image(
    pair: dict[str, Any], tmp_path: Path, order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    """As nibabel reorients it, which moves no voxel in the world."""
    reorientation = np.array(list(zip(order, flips, strict=True)))
    turned = nib.Nifti1Image(LABELS, AFFINE).as_reoriented(reorientation)
    nib.save(turned, tmp_path / "label.nii.gz")
    loaded = LoadPaird()({**pair, "fixed_label": tmp_path / "label.nii.gz", "moving_mask": tmp_path / "label.nii.gz"})
    np.testing.assert_array_equal(loaded["fixed_label"][0], LABELS)
    np.testing.assert_array_equal(loaded["moving_mask"][0], LABELS > 0)
    assert torch.equal(loaded["fixed_label"].affine, loaded["fixed"].affine)


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz", ".mha"])
def test_a_cropped_label_is_put_back_into_its_image(pair: dict[str, Any], tmp_path: Path, suffix: str) -> None:
    """As 3D Slicer saves a segmentation; and one that goes beyond the image."""
    write_nifti(tmp_path / "full.nii", LABELS)
    full = sitk.ReadImage(str(tmp_path / "full.nii"))
    sitk.WriteImage(full[1:3, 1:, 2:5], str(tmp_path / f"label{suffix}"))
    expected = np.zeros_like(LABELS)
    expected[1:3, 1:, 2:5] = LABELS[1:3, 1:, 2:5]
    loaded = LoadPaird()({**pair, "fixed_label": tmp_path / f"label{suffix}"})
    np.testing.assert_array_equal(loaded["fixed_label"][0], expected)
    sitk.WriteImage(sitk.ConstantPad(full, (2, 0, 1), (0, 3, 4), 5), str(tmp_path / f"label{suffix}"))
    loaded = LoadPaird()({**pair, "fixed_label": tmp_path / f"label{suffix}"})
    np.testing.assert_array_equal(loaded["fixed_label"][0], LABELS)


def test_a_label_of_other_voxels_is_sampled_as_simpleitk_does(
    pair: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw = np.random.default_rng(3)
    shape, turn = (9, 11, 10), np.array([[0.0, -0.8, 0.6], [1.0, 0.0, 0.0], [0.0, 0.6, 0.8]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [1.3, 1.1, 1.7]
    affine[:3, 3] = AFFINE[:3] @ [1.5, 2, 2.5, 1] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    path = write_nifti(tmp_path / "label.nii.gz", draw.integers(1, 9, shape, dtype=np.int16), affine)
    loaded = LoadPaird()({**pair, "fixed_label": path})
    image = sitk.ReadImage(str(pair["fixed"]))
    theirs = sitk.Resample(sitk.ReadImage(str(path)), image, sitk.Transform(), sitk.sitkNearestNeighbor)
    np.testing.assert_array_equal(loaded["fixed_label"][0], sitk.GetArrayFromImage(theirs).T)
    assert [record.getMessage() for record in caplog.records] == [
        f"fixed label '{path}' has other voxels than the fixed image; each voxel takes the nearest label."
    ]


def test_a_label_slice_with_flipped_axes(tmp_path: Path) -> None:
    affine = np.array([[-2.0, 0, 0, 9], [0, -3, 0, 4], [0, 0, 5, 7], [0, 0, 0, 1]])
    values = LABELS[:, :, 0]
    files = {"moving": write_nifti(tmp_path / "image.nii.gz", VOLUME[:, :, 0], affine)}
    flipped = affine @ np.array([[-1.0, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    files |= {"fixed": files["moving"], "fixed_label": write_nifti(tmp_path / "l.nii.gz", values[::-1], flipped)}
    np.testing.assert_array_equal(LoadPaird(spatial_dims=2)(files)["fixed_label"][0], values)


def test_arrays_lie_on_their_image_and_tensors_where_they_say(pair: dict[str, Any]) -> None:
    crop = MetaTensor(torch.from_numpy(LABELS[1:])[None], affine=torch.tensor(AFFINE))
    crop.affine[:3, 3] += crop.affine[:3, 0]
    pair |= {"fixed": MetaTensor(torch.from_numpy(VOLUME), affine=torch.tensor(AFFINE)), "fixed_label": crop}
    expected = np.where(np.arange(4)[:, None, None] > 0, LABELS, 0)
    np.testing.assert_array_equal(LoadPaird()(pair)["fixed_label"][0], expected)
    np.testing.assert_array_equal(LoadPaird()({**pair, "fixed_label": LABELS})["fixed_label"][0], LABELS)
    with pytest.raises(InputError, match="size"):
        LoadPaird()({**pair, "fixed_label": LABELS[1:]})


@pytest.mark.parametrize("space", ["LPS", SpaceKeys.LPS])
def test_a_tensor_in_lps_lies_where_it_says(space: str) -> None:
    image = MetaTensor(torch.from_numpy(VOLUME)[None], affine=torch.tensor(AFFINE))
    lps = MetaTensor(image.as_tensor(), affine=torch.diag(torch.tensor([-1.0, -1, 1, 1])).double() @ image.affine)
    lps.meta["space"] = space
    loaded = LoadPaird()({"fixed": image, "moving": lps, "moving_label": np.ones((4, 5, 6), np.uint8)})
    assert torch.equal(loaded["moving"].affine, loaded["fixed"].affine)
    assert torch.equal(loaded["moving_label"].affine, loaded["fixed"].affine)
    assert loaded["moving"].meta["space"] == SpaceKeys.RAS


# --- label values -----------------------------------------------------------------------------------------------------

LARGE = np.array([2**24 + 1, 2**24, -(2**24) - 1, -3, 614454277, 0])  # the last but one is of the Allen atlas


@pytest.mark.parametrize("name", ["label.nii.gz", "label.nrrd", "label.mha", "array", "tensor"])
def test_large_and_negative_labels_survive(pair: dict[str, Any], tmp_path: Path, name: str) -> None:
    """Loading, resampling onto another grid, and resizing; float32 would let the first two fall together."""
    labels = LARGE[np.arange(120).reshape(4, 5, 6) % 6]
    source: Any = {"array": labels, "tensor": torch.from_numpy(labels)}.get(name, tmp_path / name)
    if isinstance(source, Path):
        write_nifti(tmp_path / "a.nii", labels.astype(np.int32))
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii")), str(source))
    reorientation = np.array([[1, -1], [0, 1], [2, -1]])
    nib.save(nib.Nifti1Image(VOLUME, AFFINE).as_reoriented(reorientation), tmp_path / "turned.nii")
    loaded = LoadPaird()({**pair, "moving_label": source, "fixed": tmp_path / "turned.nii"})
    assert loaded["moving_label"].dtype == torch.int32
    np.testing.assert_array_equal(loaded["moving_label"][0], labels)
    moved = ResampleToFixedd(keep_original=True)(loaded)["moving_label"][0]
    expected = nib.Nifti1Image(labels.astype(np.int32), AFFINE).as_reoriented(reorientation)
    np.testing.assert_array_equal(moved, np.asarray(expected.dataobj))
    resized = resize_image(loaded["moving_label"].as_tensor(), [8, 10, 12], nearest=True)
    np.testing.assert_array_equal(resized[0], labels.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def test_labels_of_64_bits(pair: dict[str, Any], tmp_path: Path) -> None:
    labels = np.full((4, 5, 6), 2**53 + 1)
    labels[0] = -(2**60) - 1
    nib.save(nib.Nifti1Image(labels, AFFINE, dtype=np.int64), tmp_path / "label.nii.gz")
    loaded = LoadPaird()({**pair, "fixed_label": tmp_path / "label.nii.gz"})["fixed_label"]
    np.testing.assert_array_equal(loaded[0], labels)
    for wrong in (labels.astype(np.uint64), labels * 1e6):
        nib.save(nib.Nifti1Image(wrong, AFFINE, dtype=wrong.dtype), tmp_path / "label.nii.gz")
        with pytest.raises(InputError, match=r"holds labels from .* to .*, expected 64 bits at most"):
            LoadPaird()({**pair, "fixed_label": tmp_path / "label.nii.gz"})


def test_a_folder_is_no_label_map(pair: dict[str, Any], tmp_path: Path) -> None:
    write_volume(tmp_path / "series", LABELS, np.eye(4))
    pair["fixed_label"] = tmp_path / "series"
    with pytest.raises(InputError, match=r"fixed label '.*' is a folder"):
        LoadPaird()(pair)


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_pairs_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    """Five seeds for each of twenty kinds: quickly, without filling the memory, and never by another exception."""
    assert len(DAMAGES) == 20
    for seed in range(5):
        damaged = damaged_pair(tmp_path / str(seed), kind, seed)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        with pytest.raises(InputError) as error:
            ResampleToFixedd()(LoadPaird()(damaged))
        assert time.perf_counter() - start < 5, "it must not hang"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "half a gigabyte, in kB"
        assert len(str(error.value)) > 20
        assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_permission_denied(pair: dict[str, Any]) -> None:
    pair["fixed"].chmod(0)
    with pytest.raises(InputError, match=r"fixed image '.*' cannot be opened \(permission denied\)"):
        LoadPaird()(pair)


def test_one_file_twice(pair: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    LoadPaird(3)({"fixed": pair["fixed"], "moving": pair["moving"]})
    assert not caplog.messages
    LoadPaird(3)({"fixed": pair["fixed"], "moving": pair["fixed"]})
    assert caplog.messages == [f"fixed and moving image are one file, '{pair['fixed']}'."]


def test_pictures_without_pixel_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_regplugins.transforms.pair_log._said", set())
    values = np.random.default_rng(0).integers(0, 255, (3, 12, 10), np.uint8)
    for number in range(2):
        Image.fromarray(values[number]).save(tmp_path / f"{number}.png")
    nib.save(nib.Nifti1Image(values[2].astype(np.int16), np.diag([-2.0, -2, 2, 1])), tmp_path / "2.nii.gz")
    files = [str(tmp_path / name) for name in ("0.png", "1.png", "2.nii.gz")]
    for _ in range(2):
        LoadPaird(2)({"fixed": files[0], "moving": files[1]})
    assert caplog.messages == [f"pictures, such as '{files[0]}', state no pixel size: a pixel counts as 1 mm."]
    caplog.clear()
    LoadPaird(2)({"fixed": files[0], "moving": files[2]})
    (line,) = caplog.messages
    assert line.startswith(f"'{files[0]}' is a picture, without pixel size and orientation")


def test_an_image_as_label_map(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    generator = np.random.default_rng(0)
    gray = generator.integers(0, 300, (16, 20, 12)).astype(np.int16)
    parts = np.kron(np.arange(125).reshape(5, 5, 5), np.ones((4, 4, 4))).astype(np.int16)  # many labels, in blocks
    nib.save(nib.Nifti1Image(gray, np.eye(4)), tmp_path / "gray.nii.gz")
    nib.save(nib.Nifti1Image(parts, np.eye(4)), tmp_path / "parts.nii.gz")
    moving = generator.random((20, 20, 20), np.float32)
    for label, lines in (("parts", 0), ("gray", 1)):
        caplog.clear()
        fixed = moving if label == "parts" else gray.astype(np.float32)
        LoadPaird(3)({"fixed": fixed, "moving": moving, "fixed_label": str(tmp_path / f"{label}.nii.gz")})
        found = [line for line in caplog.messages if "is it a label map?" in line]
        assert len(found) == lines
    assert found[0].startswith(f"fixed label '{tmp_path / 'gray.nii.gz'}' has 300 different labels")
