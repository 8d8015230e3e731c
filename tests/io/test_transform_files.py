"""Transform files as chains: SimpleITK and ANTs move the points of the very files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from field_cases import (
    GRIDS,
    LPS,
    MOVING_AFFINE,
    MOVING_SHAPE,
    SHAPE,
    field_ras,
    itk_affine,
    itk_move,
    move,
    points_inside,
)

from monai_regplugins.checks import InputError
from monai_regplugins.io.formats import FORMATS, FieldPair, save_field
from monai_regplugins.io.linear import save_linear
from monai_regplugins.io.transform_files import TransformSource, load_transform, transform_format, transform_source
from monai_regplugins.readers.image_grid import ImageGrid

T = np.array([[1.05, -0.1, 0.02, 3.0], [0.12, 0.95, -0.05, -2.0], [0.0, 0.06, 1.02, -4.0], [0, 0, 0, 1]])
AFFINE = GRIDS["left-handed"]
POINTS = points_inside(AFFINE, SHAPE)
FIELD = move(POINTS, field_ras(), AFFINE)
BOTH = FIELD @ T[:3, :3].T + T[:3, 3]


def moved(sources: object, **given: object) -> np.ndarray:
    return load_transform(sources, **given).move(torch.from_numpy(POINTS)).numpy()  # type: ignore[arg-type]


@pytest.fixture
def field(tmp_path: Path) -> Path:
    save_field("itk_nifti", field_ras(), AFFINE, tmp_path / "1Warp.nii.gz")
    return tmp_path / "1Warp.nii.gz"


@pytest.fixture
def affine(tmp_path: Path) -> Path:
    save_linear(T, tmp_path / "0GenericAffine.mat")
    return tmp_path / "0GenericAffine.mat"


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_a_chain_of_one(tmp_path: Path, format: str) -> None:
    if format == "dicom":
        pytest.importorskip("pydicom", reason="needs pydicom")
    path = tmp_path / FORMATS[format].file_name
    save_field(format, field_ras(), AFFINE, path, FieldPair(moving_affine=AFFINE, moving_shape=SHAPE))
    given = {"fixed": ImageGrid(AFFINE, SHAPE)} if format == "learn2reg" else {}
    np.testing.assert_allclose(moved(path, **given), FIELD, atol=1e-4)
    chain = load_transform(path, **given)
    assert (chain.fixed_by_itk, chain.moving_by_itk) == (FORMATS[format].by_itk,) * 2


def test_the_order_is_that_of_ants(field: Path, affine: Path) -> None:
    np.testing.assert_allclose(moved([field, affine]), BOTH, atol=1e-4)
    assert np.abs(moved([affine, field]) - BOTH).max() > 1
    ants = pytest.importorskip("ants", reason="needs antspyx")
    pandas = pytest.importorskip("pandas")
    signs = np.diag(LPS)[:3]
    table = pandas.DataFrame(POINTS * signs, columns=list("xyz"))
    found = ants.apply_transforms_to_points(3, table, [str(field), str(affine)], whichtoinvert=[False, False])
    np.testing.assert_allclose(found[list("xyz")].to_numpy() * signs, BOTH, atol=1e-3)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".tfm"])
def test_itk_composites_of_any_order(tmp_path: Path, suffix: str) -> None:
    """ANTs' Composite has the field last, its InverseComposite first; elastix' have B-splines."""
    image = sitk.Image([9, 8, 7], sitk.sitkUInt8)
    image.SetOrigin([-20.0, -30.0, 100.0])
    image.SetSpacing([8.0, 8.0, 9.0])
    spline = sitk.BSplineTransformInitializer(image, [3, 3, 3])
    spline.SetParameters(np.random.default_rng(0).normal(size=len(spline.GetParameters())).tolist())
    save_field("itk_h5", field_ras(), AFFINE, tmp_path / "field.h5")
    warp = sitk.CompositeTransform(sitk.ReadTransform(str(tmp_path / "field.h5"))).GetNthTransform(0)
    turn = sitk.Euler3DTransform([40.0, -25.0, 130.0], 0.03, -0.02, 0.01, [0.4, -0.5, 0.6])
    for members in ([itk_affine(T), warp], [warp, turn], [turn, warp, turn], [spline, itk_affine(T)], [spline, warp]):
        composite, path = sitk.CompositeTransform(members), tmp_path / f"composite{suffix}"
        sitk.WriteTransform(composite, str(path))
        inside = POINTS[np.linalg.norm(POINTS - [-40.0, 25.0, 130.0], axis=1) < 3]  # turned ones are on the grid, too
        found = load_transform(path).move(torch.from_numpy(inside)).numpy()
        np.testing.assert_allclose(found, itk_move(sitk.ReadTransform(str(path)), inside), atol=1e-4)
        assert transform_format(path) == "itk_h5"


def test_inverses(tmp_path: Path, field: Path, affine: Path) -> None:
    back = load_transform([f"inverse:{affine}", f"inverse:{field}"]).move(torch.from_numpy(BOTH)).numpy()
    np.testing.assert_allclose(back, POINTS, atol=1e-3)
    back = load_transform(TransformSource(affine, inverse=True)).move(torch.from_numpy(BOTH)).numpy()
    np.testing.assert_allclose(back, FIELD, atol=1e-4)
    sitk.WriteTransform(sitk.BSplineTransform(3), str(tmp_path / "spline.h5"))
    with pytest.raises(InputError, match=r"by formulas alone .* make a field of it first"):
        load_transform(f"inverse:{tmp_path / 'spline.h5'}")


def test_names_of_files(tmp_path: Path) -> None:
    assert transform_source("inverse:lta:a.lta") == TransformSource(Path("a.lta"), "lta", True)
    assert transform_source("ras:a.txt", "fsl") == TransformSource(Path("a.txt"), "ras")
    assert transform_source("a.txt", "fsl") == TransformSource(Path("a.txt"), "fsl")
    assert transform_source("C:a.txt") == TransformSource(Path("C:a.txt"))
    odd = tmp_path / "ras:a.txt"
    odd.write_text("")
    assert transform_source(str(odd)) == TransformSource(odd)


def test_formats_of_files(tmp_path: Path, field: Path, affine: Path) -> None:
    assert (transform_format(field), transform_format(affine)) == ("itk_nifti", "itk")
    np.savetxt(tmp_path / "a.txt", T)
    with pytest.raises(InputError, match="do not say what they map"):
        transform_format(tmp_path / "a.txt")
    np.testing.assert_allclose(moved(f"ras:{tmp_path / 'a.txt'}"), POINTS @ T[:3, :3].T + T[:3, 3], atol=1e-9)
    np.testing.assert_allclose(moved(tmp_path / "a.txt", format="ras"), moved(f"ras:{tmp_path / 'a.txt'}"))


def test_formats_that_count_voxels_of_both_images(tmp_path: Path, affine: Path) -> None:
    fixed, moving = ImageGrid(AFFINE, SHAPE), ImageGrid(MOVING_AFFINE, MOVING_SHAPE)
    save_linear(T, tmp_path / "flirt.mat", "fsl", fixed, moving)
    source = f"fsl:{tmp_path / 'flirt.mat'}"
    expected = POINTS @ T[:3, :3].T + T[:3, 3]
    np.testing.assert_allclose(moved(source, fixed=fixed, moving=moving), expected, atol=1e-9)
    chain = load_transform(f"inverse:{source}", None, moving, fixed)  # where fixed and moving have changed places
    np.testing.assert_allclose(chain.move(torch.from_numpy(expected)), POINTS, atol=1e-9)
    with pytest.raises(InputError, match="counts voxels of its two images, which stand at no place of a chain"):
        load_transform([source, affine], None, fixed, moving)


def test_what_is_no_transform_is_refused_in_one_line(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), tmp_path / "image.nii.gz")
    (tmp_path / "text.txt").write_text("something else")
    for source, message in [
        ("image.nii.gz", r"has shape \(4, 5, 6\) and intent 0, expected a field"),
        ("text.txt", "is no linear transform, expected"),
        ("missing.h5", "does not exist"),
        ("fls:text.txt", "does not exist"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            load_transform(str(tmp_path / source) if ":" not in source else source)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no transform is given"):
        load_transform([])
    with pytest.raises(InputError, match=r"format is 'slicer_nift'; choose one of .* Did you mean 'slicer_nifti'"):
        load_transform(tmp_path / "image.nii.gz", "slicer_nift")
