"""Images and points through transforms, against SimpleITK and ANTs applying the very files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from field_cases import GRIDS, MOVING_SHAPE, PLANE, field_ras, itk_affine, itk_image, itk_move, oblique
from monai.data import MetaTensor
from nibabel.affines import apply_affine
from scipy.ndimage import gaussian_filter

from monai_regplugins.checks import InputError
from monai_regplugins.io.formats import save_field
from monai_regplugins.io.linear import save_linear
from monai_regplugins.io.point_map import Chain, FieldMap, LinearMap
from monai_regplugins.io.resampling import apply_to_image, apply_to_points, displacement_on
from monai_regplugins.io.transform_files import load_transform
from monai_regplugins.readers.image_grid import ImageGrid
from monai_regplugins.readers.points import PointFile
from monai_regplugins.transforms.warp_original import resample_original

SHAPE = (18, 16, 14)
AFFINE = oblique((-1.4, 1.5, 1.3), (0.3, -0.4), SHAPE)
MOVING_AFFINE = oblique((1.5, 1.2, 1.6), (-0.2, 0.3), MOVING_SHAPE)
T = np.array([[1.02, -0.1, 0.02, 3.0], [0.1, 0.99, -0.05, 1.0], [0.0, 0.05, 1.01, -7.0], [0, 0, 0, 1]])
FIELD = field_ras(SHAPE)
VOLUME = gaussian_filter(np.random.default_rng(0).normal(size=MOVING_SHAPE), 1.0).astype(np.float32)
LABELS = np.round(60 * gaussian_filter(np.random.default_rng(1).normal(size=MOVING_SHAPE), 2.5)).astype(np.int64) % 5
LIKE = ImageGrid(AFFINE, SHAPE)
OTHER = ImageGrid(oblique((2.0, 1.1, 1.9), (-0.3, 0.2), (9, 14, 8)), (9, 14, 8))  # nearly within the field


def moving(values: np.ndarray) -> MetaTensor:
    return MetaTensor(torch.from_numpy(values)[None], affine=torch.from_numpy(MOVING_AFFINE))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    save_field("itk_nifti", FIELD, AFFINE, tmp_path / "1Warp.nii.gz")
    save_linear(T, tmp_path / "0GenericAffine.mat")
    return [tmp_path / "1Warp.nii.gz", tmp_path / "0GenericAffine.mat"]


def by_simpleitk(files: list[Path], values: np.ndarray, like: ImageGrid, how: int) -> np.ndarray:
    """SimpleITK's own resampling through the files, its list the other way round."""
    field = sitk.DisplacementFieldTransform(sitk.ReadImage(str(files[0]), sitk.sitkVectorFloat64))
    parts = [sitk.ReadTransform(str(path)) for path in files[:0:-1]]
    transform = sitk.CompositeTransform([*parts, field])
    target = itk_image(np.zeros(like.shape, np.float32), like.affine)
    image = itk_image(values, MOVING_AFFINE)
    outside = 0.0 if how == sitk.sitkNearestNeighbor else float(values.min())
    return sitk.GetArrayFromImage(sitk.Resample(image, target, transform, how, outside)).T


HOW = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "cubic": sitk.sitkBSpline}


@pytest.mark.parametrize("number", [1, 2], ids=["a field", "a field and an affine"])
@pytest.mark.parametrize("like", [LIKE, OTHER], ids=["its grid", "another grid"])
@pytest.mark.parametrize("interpolation", HOW)
def test_simpleitk_makes_the_same_image(files: list[Path], interpolation: str, like: ImageGrid, number: int) -> None:
    values = LABELS if interpolation == "nearest" else VOLUME
    found = apply_to_image(load_transform(files[:number]), moving(values), like, interpolation)
    expected = by_simpleitk(files[:number], values, like, HOW[interpolation])
    assert found.dtype == (torch.int64 if interpolation == "nearest" else torch.float32)
    np.testing.assert_allclose(found.affine, like.affine)
    points = apply_affine(like.affine, np.moveaxis(np.indices(like.shape), 0, -1).reshape(-1, 3))
    covered = (
        FieldMap(FIELD, AFFINE).covers(torch.from_numpy(points)).numpy().reshape(like.shape)
    )  # elsewhere ITK rests
    assert covered.mean() > 0.9
    off = (np.abs(found[0].numpy() - expected) > 1e-3 * np.ptp(values))[covered]
    assert off.mean() < 2e-3  # at the border of the image, and where a point lies in the middle of two labels
    assert (expected != expected.min()).mean() > 0.3


@pytest.mark.parametrize("interpolation", HOW)
def test_ants_makes_the_same_image(files: list[Path], tmp_path: Path, interpolation: str) -> None:
    values = LABELS.astype(np.float32) if interpolation == "nearest" else VOLUME
    ants = pytest.importorskip("ants", reason="needs antspyx")
    for name, content, affine in (("fixed", np.zeros(SHAPE, np.float32), AFFINE), ("moving", values, MOVING_AFFINE)):
        sitk.WriteImage(itk_image(content, affine), str(tmp_path / f"{name}.nii.gz"))
    fixed, image = (ants.image_read(str(tmp_path / f"{name}.nii.gz")) for name in ("fixed", "moving"))
    listed = [str(path) for path in files]
    how = {"linear": "linear", "nearest": "nearestNeighbor", "cubic": "bSpline"}[interpolation]
    theirs = ants.apply_transforms(fixed, image, listed, how)
    found = apply_to_image(load_transform(files), moving(values), LIKE, interpolation, padding_value=0.0)[0].numpy()
    off = np.abs(found - theirs.numpy()) > 1e-3 * np.ptp(values)
    assert off.mean() < 2e-3


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_on_the_grid_of_the_field_it_is_what_a_registration_writes(files: list[Path], mode: str) -> None:
    """To the bit."""
    values = LABELS.astype(np.uint8) if mode == "nearest" else VOLUME
    found = apply_to_image(load_transform(files[0]), moving(values), LIKE, mode)
    image, displacement = moving(values), torch.from_numpy(FIELD)
    expected = resample_original(image, image.affine, torch.from_numpy(AFFINE), displacement, mode)
    assert torch.equal(found.as_tensor(), expected)


def test_a_chain_is_sampled_once() -> None:
    """Half a voxel forth and back leaves an image as it is, which two samplings would blur."""
    half, back = np.eye(4), np.eye(4)
    half[:3, 3], back[:3, 3] = MOVING_AFFINE[:3, 0] / 2, -MOVING_AFFINE[:3, 0] / 2
    grid = ImageGrid(MOVING_AFFINE, MOVING_SHAPE)
    found = apply_to_image(Chain([LinearMap(half), LinearMap(back)]), moving(VOLUME), grid)
    np.testing.assert_allclose(found[0], VOLUME, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["nearest", "labels"])
def test_labels_keep_numbers_that_float32_cannot_hold(interpolation: str) -> None:
    number = 2**53 + 1
    values = np.where(LABELS == 1, number, np.where(LABELS == 2, number + 1, 0))
    grid = ImageGrid(MOVING_AFFINE, MOVING_SHAPE)
    found = apply_to_image(Chain([LinearMap(np.eye(4))]), moving(values), grid, interpolation)
    assert set(found.unique().tolist()) == {0, number, number + 1}
    if interpolation == "nearest":
        np.testing.assert_array_equal(found[0], values)


def test_labels_are_smoothed_each_by_itself() -> None:
    """As in SimpleITK's label interpolation, which takes the same Gaussian: nearly all voxels agree."""
    blobs = (gaussian_filter(np.random.default_rng(2).normal(size=MOVING_SHAPE), 3.0) > 0.02).astype(np.int64) * 7
    found = apply_to_image(Chain([FieldMap(FIELD, AFFINE)]), moving(blobs), LIKE, "labels")[0].numpy()
    transform = sitk.DisplacementFieldTransform(sitk.Cast(_vector_image(), sitk.sitkVectorFloat64))
    target = itk_image(np.zeros(SHAPE, np.float32), AFFINE)
    theirs = sitk.Resample(
        itk_image(blobs.astype(np.uint8), MOVING_AFFINE), target, transform, sitk.sitkLabelGaussian, 0
    )
    theirs = sitk.GetArrayFromImage(theirs).T
    assert set(np.unique(found)) == {0, 7}
    assert (found != theirs).mean() < 0.03


def _vector_image() -> sitk.Image:
    image = sitk.GetImageFromArray((FIELD * np.array([-1, -1, 1]).reshape(3, 1, 1, 1)).T, isVector=True)
    image.CopyInformation(itk_image(np.zeros(SHAPE, np.float32), AFFINE))
    return image


def test_beyond_the_field_its_border_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    shift = np.broadcast_to(np.array([1.0, 2.0, 3.0], np.float32).reshape(3, 1, 1, 1), (3, 3, 3, 3))
    small = MOVING_AFFINE @ np.array([[1.0, 0, 0, 8], [0, 1, 0, 8], [0, 0, 1, 8], [0, 0, 0, 1]])
    chain = Chain([FieldMap(np.ascontiguousarray(shift), small)])
    whole = np.eye(4)
    whole[:3, 3] = 1, 2, 3
    grid = ImageGrid(MOVING_AFFINE, MOVING_SHAPE)
    found = apply_to_image(chain, moving(VOLUME), grid)
    np.testing.assert_allclose(found, apply_to_image(Chain([LinearMap(whole)]), moving(VOLUME), grid), atol=1e-4)
    assert "voxels of the result lie beyond the field, which goes on with its border there" in caplog.text


def test_a_transform_that_leads_away_is_refused() -> None:
    away = np.eye(4)
    away[0, 3] = 1000
    with pytest.raises(InputError, match="leads nowhere into the moving image"):
        apply_to_image(Chain([LinearMap(away)]), moving(VOLUME), LIKE)
    with pytest.raises(InputError, match="the image has 3 axes and the grid 2"):
        apply_to_image(Chain([LinearMap(np.eye(4))]), moving(VOLUME), ImageGrid(np.eye(4), (4, 4)))
    with pytest.raises(InputError, match="interpolation is 'spline'"):
        apply_to_image(Chain([LinearMap(np.eye(4))]), moving(VOLUME), LIKE, "spline")


def test_planes() -> None:
    shape = (9, 8)
    image = MetaTensor(torch.rand(1, 20, 20), affine=torch.from_numpy(PLANE))
    field = FieldMap(field_ras()[:2, ..., 0], PLANE)
    found = apply_to_image(Chain([field]), image, ImageGrid(PLANE, shape))
    affine = torch.from_numpy(PLANE)
    expected = resample_original(image, affine, affine, torch.from_numpy(field.displacement))
    np.testing.assert_array_equal(found.as_tensor(), expected)
    through = apply_to_image(Chain([field, LinearMap(np.eye(4))]), image, ImageGrid(PLANE, shape))
    np.testing.assert_allclose(through, expected, atol=1e-5)


@pytest.mark.parametrize("name", GRIDS)
def test_one_field_of_a_chain(name: str) -> None:
    affine = GRIDS[name]
    chain = Chain([FieldMap(field_ras(), affine), LinearMap(T)])
    like = ImageGrid(affine, (9, 8, 7))
    total = displacement_on(chain, like)
    points = apply_affine(affine, np.moveaxis(np.indices(like.shape), 0, -1).reshape(-1, 3))
    target = (points + field_ras().reshape(3, -1).T) @ T[:3, :3].T + T[:3, 3]
    np.testing.assert_allclose(points + total.displacement.reshape(3, -1).T, target, atol=2e-5)


def test_points_go_from_the_fixed_to_the_moving_image(files: list[Path]) -> None:
    field = sitk.DisplacementFieldTransform(sitk.ReadImage(str(files[0]), sitk.sitkVectorFloat64))
    transform = sitk.CompositeTransform([itk_affine(T), field])
    voxels = np.random.default_rng(0).uniform(1, 12, (30, 3))
    ras = apply_affine(AFFINE, voxels)
    theirs = itk_move(transform, ras)
    chain, signs = load_transform(files), np.array([-1.0, -1.0, 1.0])
    to = ImageGrid(MOVING_AFFINE, MOVING_SHAPE)

    found = apply_to_points(chain, PointFile(ras * signs, "lps", "ants", ("a",)), None, None)
    np.testing.assert_allclose(found.points * signs, theirs, atol=1e-4)
    assert (found.space, found.kind, found.names) == ("lps", "ants", ("a",))
    found = apply_to_points(chain, PointFile(ras, "ras", "table"), LIKE, to)
    np.testing.assert_allclose(found.points, theirs, atol=1e-4)
    found = apply_to_points(chain, PointFile(voxels, "voxel", "table"), LIKE, to)
    np.testing.assert_allclose(apply_affine(MOVING_AFFINE, found.points), theirs, atol=1e-4)


def test_points_of_programs_that_place_images_as_itk() -> None:
    """Where ITK mirrors both files, its points and its transforms agree; RAS points of a table are this package's."""
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    fixed, to = ImageGrid(AFFINE, SHAPE, mirror), ImageGrid(MOVING_AFFINE, MOVING_SHAPE, mirror)
    shift = np.eye(4)
    shift[0, 3] = 5.0
    itk = Chain([LinearMap(shift)], fixed_by_itk=True, moving_by_itk=True)
    ours = apply_affine(AFFINE, [[3.0, 4, 5]])
    slicer = apply_to_points(itk, PointFile(apply_affine(mirror, ours), "ras", "fcsv"), fixed, to)
    np.testing.assert_allclose(slicer.points, apply_affine(mirror, ours) + np.array([5.0, 0, 0]), atol=1e-9)
    table = apply_to_points(itk, PointFile(ours, "ras", "table"), fixed, to)
    np.testing.assert_allclose(table.points, ours - [5, 0, 0], atol=1e-9)


def test_points_elsewhere_are_refused(files: list[Path]) -> None:
    chain, to = load_transform(files), ImageGrid(MOVING_AFFINE, MOVING_SHAPE)
    ras = apply_affine(AFFINE, [[3.0, 4, 5]])
    with pytest.raises(InputError, match="points in voxels need both images"):
        apply_to_points(chain, PointFile(ras, "voxel", "table"), LIKE, None)
    with pytest.raises(InputError, match=r"1 of 1 points lie far outside of the fixed image, .*points_space") as caught:
        apply_to_points(chain, PointFile(ras, "voxel", "table"), LIKE, to)  # mm read as voxels
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="lie far outside"):
        apply_to_points(chain, PointFile(ras, "lps", "table"), None, None)  # RAS read as LPS
