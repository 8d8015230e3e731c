"""Affines, grid changes and sampling, against NumPy, SciPy and SimpleITK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable, Transform
from monai.utils import SpaceKeys
from scipy.spatial.transform import Rotation

from monai_regplugins import data, grids, synthesis, transforms
from monai_regplugins.checks import InputError

AXIAL = [[0.0, 2.0, 0.0, 5.0], [3.0, 0.0, 0.0, 6.0], [0.0, 0.0, 4.0, 7.0], [0.0, 0.0, 0.0, 1.0]]
SAGITTAL = [[0.0, 0.0, 4.0, 5.0], [3.0, 0.0, 0.0, 6.0], [0.0, 2.0, 0.0, 7.0], [0.0, 0.0, 0.0, 1.0]]


def test_world_affine_keeps_the_matrix_of_a_volume() -> None:
    assert torch.equal(grids.world_affine(torch.tensor(AXIAL), 3, "x"), torch.tensor(AXIAL, dtype=torch.float64))


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        (AXIAL, [[0.0, 2.0, 5.0], [3.0, 0.0, 6.0], [0.0, 0.0, 1.0]]),
        (SAGITTAL, [[3.0, 0.0, 6.0], [0.0, 2.0, 7.0], [0.0, 0.0, 1.0]]),
        ([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [0.0, 0.0, 1.0]], [[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [0.0, 0.0, 1.0]]),
    ],
    ids=["axial", "sagittal", "3x3"],
)
def test_world_affine_of_a_slice_leaves_out_its_normal(affine: list[list[float]], expected: list[list[float]]) -> None:
    assert grids.world_affine(torch.tensor(affine), 2, "slice").tolist() == expected


def test_an_oblique_slice_is_refused() -> None:
    affine = torch.eye(4)
    affine[:3, :3] = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.8, -0.6], [0.0, 0.6, 0.8]])
    with pytest.raises(InputError, match="oblique slice"):
        grids.world_affine(affine, 2, "slice")


def test_a_sheared_affine_is_refused() -> None:
    affine = torch.eye(4)
    affine[0, 1] = 0.2
    with pytest.raises(InputError, match="sheared"):
        grids.world_affine(affine, 3, "image")


def test_an_affine_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(3, 3\), expected \(4, 4\)"):
        grids.world_affine(torch.eye(3), 3, "image")


def test_voxel_spacing_is_nibabels() -> None:
    affine = np.array([[0.0, -1.2, 1.6, 0.0], [3.0, 0.0, 0.0, 0.0], [0.0, 1.6, 1.2, 0.0], [0.0, 0.0, 0.0, 1.0]])
    expected = nib.affines.voxel_sizes(affine)
    spacing = grids.voxel_spacing(torch.from_numpy(affine), 3)
    assert spacing.dtype == torch.float32
    np.testing.assert_allclose(spacing, expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [4e-4, 1.0, 30.0], ids=["micrometer", "mm", "cm"])
def test_one_grid_is_a_matter_of_voxels(scale: float) -> None:
    """Two voxel sizes below a thousandth of a mm are two; a step of 1e-4 counts at voxel 512 and not at voxel 50."""
    a = scale * torch.tensor(AXIAL)
    a[3] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    half, longer = a.clone(), a.clone()
    half[:3] /= 2
    longer[:3, 0] *= 1 + 1e-4
    assert grids.same_affine(a, a.clone(), (9, 9, 9))
    assert not grids.same_affine(a, half, (9, 9, 9))
    assert grids.same_affine(a, longer, (50, 9, 9))
    assert not grids.same_affine(a, longer, (512, 9, 9))
    assert not grids.same_affine(a, torch.eye(3), (9, 9, 9))


def test_grid_distance_is_that_of_the_farthest_voxel() -> None:
    draw = np.random.default_rng(0)
    a, b = (np.vstack([draw.normal(size=(3, 4)), [0, 0, 0, 1]]) for _ in range(2))
    voxels = np.vstack([np.indices((4, 5, 6)).reshape(3, -1), np.ones(120)])
    expected = np.linalg.norm((np.linalg.solve(a, b @ voxels) - voxels)[:3], axis=0).max()
    assert grids.grid_distance(torch.from_numpy(a), torch.from_numpy(b), (4, 5, 6)) == pytest.approx(expected)
    assert grids.grid_distance(torch.eye(4), torch.diag(torch.tensor([2.0, 1, 1, 1])), (3, 4)) == pytest.approx(2)
    assert grids.grid_distance(torch.zeros(4, 4), torch.eye(4), (2, 2, 2)) == float("inf")


def test_an_affine_in_lps_becomes_one_in_ras() -> None:
    affine, shape = torch.tensor(AXIAL, dtype=torch.float64), (1, 2, 2, 2)
    lps = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)) @ affine
    for space in (SpaceKeys.LPS, "LPS"):
        assert torch.equal(grids.ras_affine(MetaTensor(torch.zeros(shape), affine=lps, meta={"space": space})), affine)
    assert torch.equal(grids.ras_affine(MetaTensor(torch.zeros(shape), affine=affine)), affine)
    with pytest.raises(InputError, match="space of the image is 'LAS', expected RAS or LPS"):
        grids.ras_affine(MetaTensor(torch.zeros(shape), affine=affine, meta={"space": "LAS"}))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (torch.int32, [2**24 + 1, -(2**24) - 1, 2**31 - 1, 0]),
        (torch.int64, [614454277, 2**53 + 1, -(2**62) - 1, 2**63 - 1]),
        (torch.uint8, [255, 1, 0, 7]),
        (torch.float64, [2.0**53, 0.1, -1e300, 5.0]),
    ],
)
def test_the_nearest_voxel_is_copied_bit_by_bit(dtype: torch.dtype, values: list[float]) -> None:
    image = torch.tensor(values, dtype=dtype).reshape(1, 4, 1, 1).expand(1, 4, 3, 2)
    turned = torch.tensor([[-1.0, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    sampled = grids.sample_affine(image, turned, (4, 3, 2), "nearest", 0)
    assert sampled.dtype == dtype
    assert torch.equal(sampled, image.flip(1))


def test_map_points_is_the_homogeneous_product() -> None:
    matrix, points = torch.tensor(SAGITTAL), torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    expected = np.asarray(matrix) @ np.c_[points.numpy(), np.ones(2)].T
    np.testing.assert_allclose(grids.map_points(points, matrix), expected[:3].T, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_offset_field_is_the_affine_map_minus_identity(shape: tuple[int, ...]) -> None:
    d = len(shape)
    matrix = torch.eye(d + 1, dtype=torch.float64)
    matrix[:d] += torch.from_numpy(np.random.default_rng(0).normal(size=(d, d + 1)))
    voxels = np.indices(shape).reshape(d, -1)
    expected = (matrix.numpy() @ np.r_[voxels, np.ones((1, voxels.shape[1]))])[:d] - voxels
    field = grids.offset_field(matrix, shape, torch.float64)
    np.testing.assert_allclose(field.reshape(d, -1), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 5), (6, 4, 5)])
def test_a_slab_of_an_affine_field_is_part_of_it(shape: tuple[int, ...]) -> None:
    matrix = torch.eye(len(shape) + 1, dtype=torch.float64) + 0.1 * torch.rand(len(shape) + 1, len(shape) + 1)
    whole = grids.offset_field(matrix, shape)
    for slab in (slice(0, 2), slice(3, 4), slice(2, shape[0])):
        torch.testing.assert_close(grids.offset_field(matrix, shape, slab=slab), whole[:, slab], rtol=1e-6, atol=1e-6)
        assert torch.equal(
            grids.inside_mask(whole[:, slab], (3, 4, 5)[: len(shape)], slab.start),
            grids.inside_mask(whole, (3, 4, 5)[: len(shape)])[slab],
        )


@pytest.mark.parametrize("shape", [(280, 270), (34, 45, 44)])
@pytest.mark.parametrize(
    ("mode", "dtype"), [("linear", torch.float32), ("linear", torch.int16), ("nearest", torch.uint8)]
)
@pytest.mark.parametrize("padding", [None, 3.0])
def test_sampling_a_grid_in_slabs_is_that_in_one_piece(
    shape: tuple[int, ...], mode: str, dtype: torch.dtype, padding: float | None
) -> None:
    d = len(shape)
    image = (200 * torch.rand(2, *[n - 4 for n in shape])).to(dtype)
    matrix = torch.eye(d + 1, dtype=torch.float64)
    matrix[:d] += 0.04 * torch.randn(d, d + 1)
    offset = grids.offset_field(matrix, shape)
    expected = grids.sample_with_offset(image, offset, mode, padding)
    assert torch.equal(grids.sample_affine(image, matrix, shape, mode, padding), expected)
    linear, field = torch.randn(d, d, dtype=torch.float64), torch.randn(d, *shape)
    moved = offset + torch.einsum("kj,j...->k...", linear.float(), field)
    expected = grids.sample_with_offset(image, moved, mode, padding)
    sampled = grids.sample_affine(image, matrix, shape, mode, padding, linear, field)
    assert sampled.dtype == dtype
    torch.testing.assert_close(sampled, expected, rtol=0, atol=1e-3 if dtype == torch.float32 else 0)


def test_grids_overlap_where_one_voxel_lies_in_the_other() -> None:
    """The last corner of a grid of several slabs reaches half a voxel into the other image, or just does not."""
    shape, other = (34, 45, 44), (5, 6, 7)
    matrix = torch.eye(4, dtype=torch.float64)
    for beyond, expected in ((0.49, True), (0.51, False)):
        matrix[:3, 3] = -torch.tensor(shape, dtype=torch.float64) + 1 - beyond
        assert grids.grids_overlap(matrix, shape, other) is expected


def test_sampling_pads_beyond_half_a_voxel_and_holds_the_border_value_before() -> None:
    image = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    offset = torch.zeros(2, 2, 2)
    offset[0, 1] = torch.tensor([0.4, 0.6])
    assert grids.sample_with_offset(image, offset, "linear", -9.0).tolist() == [[[1.0, 2.0], [3.0, -9.0]]]


def test_nearest_sampling_keeps_the_integer_type() -> None:
    label = torch.tensor([[[1, 2], [3, 250]]], dtype=torch.uint8)
    sampled = grids.sample_with_offset(label, torch.full((2, 2, 2), 0.4), "nearest", 0.0)
    assert torch.equal(sampled, label)
    assert sampled.dtype == torch.uint8


def test_shifted_affine_is_nibabels_slicer() -> None:
    image = nib.Nifti1Image(np.zeros((4, 5, 6), dtype=np.float32), np.array(SAGITTAL))
    expected = image.slicer[1:, 2:, 3:].affine
    np.testing.assert_allclose(grids.shifted_affine(torch.tensor(SAGITTAL), (1, 2, 3)), expected, atol=1e-6)


@pytest.mark.parametrize("affine", [torch.eye(4), torch.eye(3)], ids=["4x4", "3x3"])
def test_rescaled_affine_keeps_the_outer_corners_of_a_slice(affine: torch.Tensor) -> None:
    scaled = grids.rescaled_affine(affine, (8, 6), (4, 9))
    corners = np.array([[-0.5, -0.5], [7.5, 5.5]]), np.array([[-0.5, -0.5], [3.5, 8.5]])
    old, new = (
        points @ matrix[:2, :2].double().numpy().T + matrix[:2, -1].double().numpy()
        for points, matrix in zip(corners, (affine, scaled), strict=True)
    )
    np.testing.assert_allclose(new, old, atol=1e-12)


def test_as_meta_tensor_keeps_the_file_name_and_drops_stale_geometry() -> None:
    stale = {"filename_or_obj": "a.nii", "original_affine": np.eye(4), "spatial_shape": (9, 9, 9)}
    result = grids.as_meta_tensor(torch.zeros(1, 2, 2, 2), torch.tensor(AXIAL), stale)
    assert isinstance(result, MetaTensor)
    assert result.meta["filename_or_obj"] == "a.nii"
    assert not {"original_affine", "spatial_shape"} & set(result.meta)
    assert result.affine.tolist() == AXIAL


def test_sampling_through_an_offset_equals_simpleitk() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(6, 7, 8)).astype(np.float32)
    offset = rng.uniform(-3, 3, size=(3, 5, 6, 7))
    field = sitk.GetImageFromArray(offset.transpose(3, 2, 1, 0), isVector=True)
    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    reference = sitk.Image(5, 6, 7, sitk.sitkFloat32)
    expected = sitk.Resample(sitk.GetImageFromArray(image.T), reference, transform, sitk.sitkLinear, -5.0)
    sampled = grids.sample_with_offset(torch.from_numpy(image)[None], torch.from_numpy(offset), "linear", -5.0)[0]
    np.testing.assert_allclose(sampled, sitk.GetArrayFromImage(expected).T, atol=1e-5)


# --- what an image was made of ----------------------------------------------------------------------------------------

TRANSFORMS = {
    name: found
    for part in (transforms, synthesis, data)
    for name in part.__all__
    if isinstance(found := getattr(part, name), type) and issubclass(found, Transform)
    if name != "CheckSeriesPaird"  # which only looks
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "PreparePaird": {"scaling": transforms.StandardizePaird(), "keep_original": True, "extend_border": True},
    "ScaleRangePaird": {"intensity_range": [-1000.0, 3095.0]},
    "IsotropicSubjectd": {"voxel_size": 2.0},
    "ResampleToFixedd": {"keep_original": True},
    "RandPairCropd": {"margin": 1},
    "RandSwapPaird": {"prob": 1.0},
    "ResizePaird": {"spatial_size": 7},
    "SyntheticPaird": {"density": False},
}


def item_of_dicom_series() -> dict[Any, Any]:
    """Whatever a transform of the package may ask for, each image with the series that it was read from."""
    draw = np.random.default_rng(0)

    def image(side: str, label: bool = False) -> MetaTensor:
        values = torch.from_numpy(draw.integers(0, 3, (1, 9, 10, 11)).astype(np.float32 if not label else np.uint8))
        spacing = {"fixed": 1.0, "moving": 1.1, "image": 1.2}[side]
        meta = {"filename_or_obj": f"{side}.dcm", "dicom_series": {"PatientID": side, "SeriesInstanceUID": "1.2"}}
        return MetaTensor(values, affine=torch.diag(torch.tensor([spacing] * 3 + [1.0]).double()), meta=meta)

    item: dict[Any, Any] = {"image": image("image"), "mask": image("image", label=True)}
    for side in ("fixed", "moving"):
        item |= {side: image(side), f"{side}_label": image(side, label=True), f"{side}_mask": image(side, label=True)}
    item |= {"moving_original": item["moving"], "moving_label_original": item["moving_label"]}
    field = {"family": "miccai2017", "preset": "low", "seed": 0, "next": False}
    about = {
        "ddf": torch.rand(3, 9, 10, 11),
        "initial_alignment_matrix": torch.eye(4).double(),
        "spacing": torch.ones(3),
    }
    return {**item, **about, "field": field, "pair_id": "moving_to_fixed"}


EXCHANGED = {"moving": "fixed", "fixed": "moving"}


def series_by_key(item: Mapping[Any, Any]) -> dict[Any, dict[str, str]]:
    """The series of each image, label and mask."""
    return {key: value.meta["dicom_series"] for key, value in item.items() if isinstance(value, MetaTensor)}


def made_of(name: str, key: str) -> set[str]:
    """What images the entry of a transform's result may be made of."""
    side = "moving" if key.startswith(("moving", "warped")) else "image" if key in ("image", "mask") else "fixed"
    if name == "RandSyntheticPaird" and side != "image":  # one of the two is the base of both
        return {"moving", "fixed"}
    if name == "SyntheticPaird" and key in ("moving", "fixed", "fixed_mask"):
        return {"image"}
    return {EXCHANGED[side] if name == "RandSwapPaird" and side in EXCHANGED and "original" not in key else side}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_no_transform_forgets_which_series_an_image_is_of(name: str) -> None:
    transform = TRANSFORMS[name](**ARGUMENTS.get(name, {}))
    if isinstance(transform, Randomizable):
        transform.set_random_state(0)
    item = item_of_dicom_series()
    result = transform(item)
    if name == "RandSyntheticWindowd":  # windows of a mirrored grid, for a loss alone: tensors that claim no place
        assert all(type(value) is torch.Tensor for window in result for value in window.values())
        return
    changed = {key for key, value in result.items() if value is not item.get(key)}
    assert changed
    images = {key for key, value in result.items() if isinstance(value, torch.Tensor) and value.ndim == 4}
    series = series_by_key(result)  # raises KeyError if one has lost it
    assert images - {"coefficients", "ddf", "true_ddf"} == series.keys() >= {"fixed", "moving"}
    for key, found in series.items():
        assert found == {"PatientID": found["PatientID"], "SeriesInstanceUID": "1.2"}
        assert found["PatientID"] in made_of(name, key), key
        assert result[key].meta["filename_or_obj"] == f"{found['PatientID']}.dcm"


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (np.eye(3), "translation"),
        (Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix(), "rigid"),
        (1.1 * Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix(), "similarity"),
        (np.diag([1.0, 1.0, 1.01]), "affine"),
        (np.diag([1.0, 1.0, -1.0]), "affine"),
    ],
)
def test_kinds_of_linear_maps(part: np.ndarray[Any, Any], kind: str) -> None:
    matrix = torch.eye(4, dtype=torch.float64)
    assert grids.linear_kind(matrix) == "none"
    matrix[:3, :3], matrix[:3, 3] = torch.from_numpy(part), torch.tensor([1.0, 2.0, 3.0])
    assert grids.linear_kind(matrix) == kind
    if kind != "translation":
        assert grids.linear_kind(matrix.float()) == kind  # rounded


def test_samples_do_not_depend_on_the_order_of_a_field_in_memory() -> None:
    """A field as a network leaves it, and as a file holds it, sample an image alike to the bit."""
    random = torch.Generator().manual_seed(0)
    image, field = torch.rand(1, 12, 11, 10, generator=random), torch.randn(3, 12, 11, 10, generator=random)
    linear = torch.linalg.inv(torch.randn(3, 3, generator=random, dtype=torch.float64))  # column by column in memory
    matrix = torch.eye(4, dtype=torch.float64)
    orders = [field, field.movedim(0, -1).contiguous().movedim(-1, 0), field.mT.contiguous().mT]
    first, *others = [grids.sample_affine(image, matrix, (12, 11, 10), "linear", 0.0, linear, one) for one in orders]
    assert all(torch.equal(first, other) for other in others)


def test_above_zero() -> None:
    values = torch.tensor([[-1.0, 0.0, 0.25, torch.nan]])
    assert grids.above_zero(values).tolist() == [[False, False, True, False]]
    assert grids.above_zero(torch.tensor([0, 3], dtype=torch.uint8)).tolist() == [False, True]
    mask = torch.tensor([True, False])
    assert grids.above_zero(mask) is mask
