"""Linear transforms as files, with SimpleITK as the program that reads and writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_registration_objects import spatial_registration

from monai_regplugins.checks import InputError
from monai_regplugins.io.linear import save_linear
from monai_regplugins.io.linear_transform import read_linear_transforms, write_linear_transform
from monai_regplugins.io.transform_files import load_transform
from monai_regplugins.readers.image_grid import ImageGrid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MATRIX = np.array([[0.9, -0.3, 0.1, 5.0], [0.2, 1.1, 0.0, -60.0], [0.0, 0.1, 0.8, 17.0], [0.0, 0.0, 0.0, 1.0]])
SECOND = np.array([[1.0, 0.0, 0.2, 1.0], [0.0, 0.9, 0.0, 2.0], [0.1, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
POINT = np.array([31.0, -7.0, 12.5])


def moved(matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
    """A point under a homogeneous matrix."""
    return (matrix @ [*point, 1.0])[:-1]


@pytest.mark.parametrize("name", ["a.tfm", "a.txt", "a.h5"])
def test_simpleitk_moves_points_as_the_matrix_does(name: str, tmp_path: Path) -> None:
    write_linear_transform(MATRIX, tmp_path / name)
    read = sitk.ReadTransform(str(tmp_path / name))
    expected = moved(MATRIX, POINT) * [-1, -1, 1]
    np.testing.assert_allclose(read.TransformPoint((POINT * [-1, -1, 1]).tolist()), expected, atol=1e-9)
    np.testing.assert_allclose(read_linear_transforms(tmp_path / name, 3), MATRIX, atol=1e-12)


def test_in_the_plane(tmp_path: Path) -> None:
    matrix = MATRIX[np.ix_([0, 1, 3], [0, 1, 3])]
    write_linear_transform(matrix, tmp_path / "a.tfm")
    read = sitk.ReadTransform(str(tmp_path / "a.tfm"))
    np.testing.assert_allclose(read.TransformPoint((-POINT[:2]).tolist()), -moved(matrix, POINT[:2]), atol=1e-9)
    np.testing.assert_allclose(read_linear_transforms(str(tmp_path / "a.tfm"), 2), matrix, atol=1e-12)


def test_where_itk_places_the_files_elsewhere(tmp_path: Path) -> None:
    """The point that ITK sees at W_f p goes to where it sees the moving point."""
    fixed_map, moving_map = SECOND, np.diag([-1.0, 1.0, 1.0, 1.0])
    write_linear_transform(MATRIX, tmp_path / "a.tfm", fixed_map, moving_map)
    read = sitk.ReadTransform(str(tmp_path / "a.tfm"))
    seen = moved(LPS @ fixed_map, POINT).tolist()
    np.testing.assert_allclose(read.TransformPoint(seen), moved(LPS @ moving_map @ MATRIX, POINT), atol=1e-9)
    np.testing.assert_allclose(read_linear_transforms(tmp_path / "a.tfm", 3, fixed_map, moving_map), MATRIX, atol=1e-12)


@pytest.mark.parametrize("kind", ["euler", "versor", "similarity", "translation", "mat"])
def test_linear_transforms_of_other_programs(kind: str, tmp_path: Path) -> None:
    made = {
        "euler": lambda: sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, 0.2, 0.3, (4.0, 5.0, 6.0)),
        "versor": lambda: sitk.VersorRigid3DTransform((0.0, 0.0, 1.0), 0.5, (1.0, 2.0, 3.0)),
        "similarity": lambda: sitk.Similarity3DTransform(1.2, (0.0, 1.0, 0.0), 0.4, (1.0, 2.0, 3.0)),
        "translation": lambda: sitk.TranslationTransform(3, (1.0, 2.0, 3.0)),
        "mat": lambda: sitk.AffineTransform(MATRIX[:3, :3].ravel().tolist(), MATRIX[:3, 3].tolist()),
    }
    transform = made[kind]()
    path = tmp_path / ("a.mat" if kind == "mat" else "a.tfm")
    sitk.WriteTransform(transform, str(path))
    expected = np.array(transform.TransformPoint((POINT * [-1, -1, 1]).tolist())) * [-1, -1, 1]
    np.testing.assert_allclose(moved(read_linear_transforms(path, 3), POINT), expected, atol=1e-5)


def test_several_are_chained_as_ants_chains_them(tmp_path: Path) -> None:
    """The first file meets a point first, the last one of ITK's composite; a matrix as text may be among them."""
    np.savetxt(tmp_path / "second.txt", SECOND)
    write_linear_transform(MATRIX, tmp_path / "first.tfm")
    write_linear_transform(SECOND, tmp_path / "second.tfm")
    chain = sitk.CompositeTransform([sitk.ReadTransform(str(tmp_path / f"{n}.tfm")) for n in ("second", "first")])
    expected = np.array(chain.TransformPoint((POINT * [-1, -1, 1]).tolist())) * [-1, -1, 1]
    names = [str(tmp_path / name) for name in ("first.tfm", "second.txt")]
    for given in (names, repr(names)):
        np.testing.assert_allclose(moved(read_linear_transforms(given, 3), POINT), expected, atol=1e-9)


def test_formats_and_inverses_are_said_in_front_of_a_file(tmp_path: Path) -> None:
    fixed, moving = ImageGrid(np.diag([2.0, 2, 2, 1]), (8, 8, 8)), ImageGrid(np.diag([3.0, 3, 3, 1]), (8, 8, 8))
    save_linear(MATRIX, tmp_path / "a.lta", fixed=fixed, moving=moving)
    save_linear(MATRIX, tmp_path / "a.mat", "fsl", fixed, moving)
    save_linear(MATRIX, tmp_path / "a.txt", "lps")
    for name in ("a.lta", "fsl:a.mat", "lps:a.txt"):
        format, _, file = name.rpartition(":")
        path = f"{format}:{tmp_path / file}" if format else str(tmp_path / file)
        found = read_linear_transforms(path, 3, fixed=fixed, moving=moving)
        np.testing.assert_allclose(found, MATRIX, atol=1e-5, err_msg=name)
        inverse = read_linear_transforms(f"inverse:{path}", 3, fixed=moving, moving=fixed)  # the file's own fixed image
        np.testing.assert_allclose(inverse @ MATRIX, np.eye(4), atol=1e-5, err_msg=name)


def test_inverses_are_about_the_worlds_of_itk_too(tmp_path: Path) -> None:
    """Where ITK mirrors both images, the inverse of its shift to the left is one to the right there."""
    mirror, shift = np.diag([-1.0, 1, 1, 1]), np.eye(4)
    shift[0, 3] = 5.0
    write_linear_transform(shift, tmp_path / "a.tfm")
    found = read_linear_transforms(f"inverse:{tmp_path / 'a.tfm'}", 3, mirror, mirror)
    np.testing.assert_allclose(found, shift, atol=1e-9)  # -5 in ITK's world


def test_dicom_objects_by_the_frames_of_the_series(tmp_path: Path) -> None:
    """An object that registers several series: which it is about, the images state."""
    pytest.importorskip("pydicom", reason="needs pydicom")
    items = {"1.2": [LPS @ np.linalg.inv(MATRIX) @ LPS], "1.3": [np.eye(4)], "1.1": [np.eye(4)]}
    path = spatial_registration(tmp_path / "a.dcm", items, "1.1")
    fixed, moving = (ImageGrid(np.eye(4), (4, 4, 4), None, frame) for frame in ("1.1", "1.2"))
    np.testing.assert_allclose(read_linear_transforms(path, 3, None, None, fixed, moving), MATRIX, atol=1e-5)
    chain = load_transform([path], None, fixed, moving)
    expected = moved(MATRIX, POINT)
    np.testing.assert_allclose(chain.move(torch.from_numpy(POINT[None]))[0], expected, atol=1e-4)
    inverse = read_linear_transforms(f"inverse:{path}", 3, None, None, moving, fixed)
    np.testing.assert_allclose(inverse @ MATRIX, np.eye(4), atol=1e-5)
    with pytest.raises(InputError, match=r"does not register the frame of reference 1\.9"):
        load_transform([path], None, fixed._replace(frame="1.9"), moving)
    with pytest.raises(InputError, match="registers 2 other frames of reference"):
        read_linear_transforms(path, 3)


BAD = {
    "text of another size": ("a.txt", "1 0 0\n0 1 0\n0 0 1\n", "holds 3 x 3 numbers, expected 4 rows of 4"),
    "no last row": ("a.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n1 0 0 1\n", "the last of them 0 0 0 1"),
    "no inverse": ("a.txt", "0 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "has no inverse"),
    "no transform": ("a.tfm", "hello\n", "cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, content, words = BAD[case]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words) as raised:
        read_linear_transforms(tmp_path / name, 3)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_what_is_not_linear_or_of_another_dimension_is_refused(tmp_path: Path) -> None:
    sitk.WriteTransform(sitk.BSplineTransform(3), str(tmp_path / "spline.tfm"))
    with pytest.raises(InputError, match="3D BSplineTransform, expected a linear transform in 3D"):
        read_linear_transforms(tmp_path / "spline.tfm", 3)
    write_linear_transform(MATRIX, tmp_path / "a.tfm")
    with pytest.raises(InputError, match="expected a linear transform in 2D"):
        read_linear_transforms(tmp_path / "a.tfm", 2)
    with pytest.raises(InputError, match=r"nowhere\.tfm"):
        read_linear_transforms(str(tmp_path / "nowhere.tfm"), 3)
    with pytest.raises(InputError, match="expected a file or a list of files"):
        read_linear_transforms("[a.tfm", 3)
