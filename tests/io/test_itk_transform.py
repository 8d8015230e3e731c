"""ITK transform files against SimpleITK, which moves points by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from field_cases import GRIDS, PLANE, SHAPE, field_ras, itk_affine, itk_image, itk_move, move, points_inside

from monai_regplugins.checks import InputError
from monai_regplugins.io.field_grid import displacement_of_ddf
from monai_regplugins.io.itk_transform import load_itk_transform, write_itk_transform
from monai_regplugins.transforms.warp_original import total_displacement

INITIAL_ALIGNMENT = np.array(
    [[1.05, -0.1, 0.02, 3.0], [0.12, 0.95, -0.05, -2.0], [0.0, 0.06, 1.02, -4.0], [0, 0, 0, 1]]
)


def read_field(path: Path) -> sitk.Transform:
    """The field itself, the only member of what is written, for ITK nests no composites in a file."""
    composite = sitk.CompositeTransform(sitk.ReadTransform(str(path)))
    assert composite.GetNumberOfTransforms() == 1
    return composite.GetNthTransform(0)


@pytest.mark.parametrize("name", GRIDS)
def test_simpleitk_moves_points_to_the_same_place(tmp_path: Path, name: str) -> None:
    affine, displacement = GRIDS[name], field_ras()
    write_itk_transform(displacement, affine, tmp_path / "field.h5")
    transform = sitk.ReadTransform(str(tmp_path / "field.h5"))
    assert isinstance(read_field(tmp_path / "field.h5"), sitk.DisplacementFieldTransform)
    points = points_inside(affine, SHAPE)
    np.testing.assert_allclose(itk_move(transform, points), move(points, displacement, affine), atol=1e-6)

    back, grid = load_itk_transform(tmp_path / "field.h5")
    assert (back.dtype, grid.dtype) == (np.float32, np.float64)
    assert np.array_equal(back, displacement)
    np.testing.assert_allclose(grid, affine, atol=1e-12)


def test_nitransforms_moves_points_to_the_same_place(tmp_path: Path) -> None:
    """A bare field is an empty list to it."""
    manip = pytest.importorskip("nitransforms.manip", reason="needs nitransforms")
    affine, displacement = GRIDS["left-handed"], field_ras()
    write_itk_transform(displacement, affine, tmp_path / "field.h5")
    chain = manip.TransformChain.from_filename(tmp_path / "field.h5", fmt="itk")
    index = np.moveaxis(np.indices(SHAPE), 0, -1)[1:-1, 1:-1, 1:-1].reshape(-1, 3)
    points = index @ affine[:3, :3].T + affine[:3, 3]  # between voxels it interpolates by splines
    expected = points + displacement[:, 1:-1, 1:-1, 1:-1].reshape(3, -1).T
    np.testing.assert_allclose(chain.map(points), expected, atol=1e-5)


def test_simpleitk_moves_points_of_a_plane(tmp_path: Path) -> None:
    displacement = field_ras()[:2, ..., 0]
    write_itk_transform(displacement, PLANE, tmp_path / "field.h5")
    transform = sitk.ReadTransform(str(tmp_path / "field.h5"))
    assert transform.GetDimension() == 2
    points = points_inside(PLANE, SHAPE[:2])
    np.testing.assert_allclose(itk_move(transform, points), move(points, displacement, PLANE), atol=1e-6)

    back, grid = load_itk_transform(tmp_path / "field.h5")
    assert np.array_equal(back, displacement)
    np.testing.assert_allclose(grid[:2, [0, 1, 3]], PLANE[:2, [0, 1, 3]], atol=1e-12)
    assert np.array_equal(grid[2:], np.eye(4)[2:])


def test_a_plane_that_is_not_axial_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leaves the world's x-y plane"):
        write_itk_transform(field_ras()[:2, ..., 0], GRIDS["oblique"], tmp_path / "field.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["oblique", "left-handed"])
def test_initial_alignment_composes_as_simpleitk_does_it(tmp_path: Path, name: str) -> None:
    """``T(x + u)``: the field meets the point first, so it is the last of SimpleITK's list; the other order differs."""
    affine, ddf = GRIDS[name], field_ras()
    total = total_displacement(
        torch.from_numpy(ddf), torch.from_numpy(affine), torch.from_numpy(INITIAL_ALIGNMENT)
    ).numpy()
    write_itk_transform(total, affine, tmp_path / "total.h5")
    write_itk_transform(displacement_of_ddf(ddf, affine), affine, tmp_path / "field.h5")
    field = read_field(tmp_path / "field.h5")
    right, wrong = (
        sitk.CompositeTransform(order)
        for order in ([itk_affine(INITIAL_ALIGNMENT), field], [field, itk_affine(INITIAL_ALIGNMENT)])
    )

    points = points_inside(affine, SHAPE)
    found = itk_move(sitk.ReadTransform(str(tmp_path / "total.h5")), points)
    np.testing.assert_allclose(found, itk_move(right, points), atol=1e-5)
    assert np.abs(found - itk_move(wrong, points)).max() > 1.0

    sitk.WriteTransform(right, str(tmp_path / "composite.h5"))
    back, grid = load_itk_transform(tmp_path / "composite.h5")
    np.testing.assert_allclose(back, total, atol=1e-5)
    np.testing.assert_allclose(grid, affine, atol=1e-12)


def test_several_linear_transforms_keep_their_order(tmp_path: Path) -> None:
    affine = GRIDS["oblique"]
    write_itk_transform(field_ras(), affine, tmp_path / "field.h5")
    turn = sitk.Euler3DTransform([1.0, 2.0, 3.0], 0.3, -0.2, 0.1, [4.0, -5.0, 6.0])
    field = read_field(tmp_path / "field.h5")
    composite = sitk.CompositeTransform([turn, itk_affine(INITIAL_ALIGNMENT), field])
    sitk.WriteTransform(composite, str(tmp_path / "composite.h5"))
    points = points_inside(affine, SHAPE)
    found = move(points, *load_itk_transform(tmp_path / "composite.h5"))
    np.testing.assert_allclose(found, itk_move(composite, points), atol=3e-5)


def test_other_transforms_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    write_itk_transform(field_ras(), GRIDS["RAS"], path)
    field, spline = read_field(path), sitk.BSplineTransform(3)
    others = {
        "holds BSplineTransform, expected": spline,
        "holds AffineTransform, expected": itk_affine(INITIAL_ALIGNMENT),
        "holds DisplacementFieldTransform, AffineTransform": sitk.CompositeTransform(
            [field, itk_affine(INITIAL_ALIGNMENT)]
        ),
        "holds BSplineTransform, DisplacementFieldTransform": sitk.CompositeTransform([spline, field]),
    }
    for message, transform in others.items():
        sitk.WriteTransform(transform, str(path))
        with pytest.raises(InputError, match=message):
            load_itk_transform(path)


def test_damaged_and_foreign_files_are_refused_without_pages_of_text(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "field.h5"
    write_itk_transform(field_ras(), GRIDS["RAS"], path)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:20], b"something else" * 100):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as an ITK transform") as caught:
            load_itk_transform(path)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")

    sitk.WriteImage(itk_image(np.zeros(SHAPE, np.float32), GRIDS["RAS"]), str(path), imageIO="HDF5ImageIO")
    with pytest.raises(InputError, match="cannot be read as an ITK transform"):
        load_itk_transform(path)
