"""Linear transforms in the files of other tools, against what those tools make of the very files."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_registration_objects import spatial_registration
from field_cases import GRIDS, LPS, MOVING_AFFINE, MOVING_SHAPE, SHAPE, itk_affine, itk_move, oblique

from monai_regplugins.checks import InputError
from monai_regplugins.io.linear import fsl_matrix, linear_format, load_linear, save_linear
from monai_regplugins.readers.image_grid import ImageGrid

T = np.array([[1.05, -0.1, 0.02, 3.0], [0.12, 0.95, -0.05, -2.0], [0.0, 0.06, 1.02, -4.0], [0, 0, 0, 1]])
POINTS = np.random.default_rng(3).uniform(-80, 80, (50, 3))
MOVED = POINTS @ T[:3, :3].T + T[:3, 3]
FIXED = {name: ImageGrid(affine, SHAPE) for name, affine in GRIDS.items()}
MOVING = {
    "right-handed": ImageGrid(MOVING_AFFINE, MOVING_SHAPE),
    "left-handed": ImageGrid(oblique((-1.1, 0.8, 1.3), (-0.2, 0.3), MOVING_SHAPE), MOVING_SHAPE),
}


def moved_by(matrix: torch.Tensor) -> np.ndarray:
    assert (matrix.dtype, tuple(matrix.shape)) == (torch.float64, (4, 4))
    return POINTS @ matrix.numpy()[:3, :3].T + matrix.numpy()[:3, 3]


def image(path: Path, grid: ImageGrid) -> Path:
    nib.save(nib.Nifti1Image(np.zeros(grid.shape, np.float32), grid.affine), path)
    return path


ITK = {
    "affine": itk_affine(T),
    "Euler": sitk.Euler3DTransform([1.0, 2.0, 3.0], 0.3, -0.2, 0.1, [4.0, -5.0, 6.0]),
    "versor": sitk.VersorRigid3DTransform([0.1, 0.2, 0.3, 0.9273618495495703], [4.0, -5.0, 6.0], [1.0, 2.0, 3.0]),
    "similarity": sitk.Similarity3DTransform(1.2, [0.0, 0.1, 0.0], 0.4, [4.0, -5.0, 6.0], [1.0, 2.0, 3.0]),
    "translation": sitk.TranslationTransform(3, [4.0, -5.0, 6.0]),
    "identity": sitk.Transform(3, sitk.sitkIdentity),
    "composite": sitk.CompositeTransform([itk_affine(T), sitk.TranslationTransform(3, [4.0, -5.0, 6.0])]),
}


@pytest.mark.parametrize("suffix", [".txt", ".tfm", ".mat", ".h5", ".hdf5"])
@pytest.mark.parametrize("name", ITK)
def test_itk_files_move_points_as_simpleitk_does(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    try:
        sitk.WriteTransform(ITK[name], str(path))
        written = sitk.ReadTransform(str(path))
    except RuntimeError:
        pytest.skip("ITK itself does not write and read this")
    theirs = itk_move(written, POINTS)
    np.testing.assert_allclose(moved_by(load_linear(path)), theirs, atol=1e-9)


@pytest.mark.parametrize("suffix", [".txt", ".tfm", ".mat", ".h5"])
def test_simpleitk_moves_points_by_what_is_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save_linear(torch.from_numpy(T), path)
    np.testing.assert_allclose(itk_move(sitk.ReadTransform(str(path)), POINTS), MOVED, atol=1e-9)
    np.testing.assert_allclose(moved_by(load_linear(path)), MOVED, atol=1e-9)


def test_ants_takes_and_writes_the_same(tmp_path: Path) -> None:
    ants = pytest.importorskip("ants", reason="needs antspyx")
    save_linear(T, tmp_path / "ours.mat")
    theirs = ants.read_transform(str(tmp_path / "ours.mat"))
    signs = np.diag(LPS)[:3]
    found = np.array([theirs.apply_to_point(point) for point in (POINTS * signs).tolist()]) * signs
    np.testing.assert_allclose(found, MOVED, atol=1e-4)
    ants.write_transform(theirs, str(tmp_path / "theirs.mat"))
    np.testing.assert_allclose(moved_by(load_linear(tmp_path / "theirs.mat")), MOVED, atol=1e-4)


def test_planes_leave_the_third_axis_alone(tmp_path: Path) -> None:
    turn = sitk.Euler2DTransform([1.0, 2.0], 0.3, [4.0, -5.0])
    sitk.WriteTransform(turn, str(tmp_path / "a.tfm"))
    matrix = load_linear(tmp_path / "a.tfm").numpy()
    assert matrix[2].tolist() == [0, 0, 1, 0]
    assert matrix[:, 2].tolist() == [0, 0, 1, 0]
    theirs = itk_move(turn, POINTS[:, :2])
    np.testing.assert_allclose(POINTS[:, :2] @ matrix[:2, :2].T + matrix[:2, 3], theirs, atol=1e-9)


@pytest.mark.parametrize("moving", MOVING)
@pytest.mark.parametrize("fixed", FIXED)
def test_fsl_means_what_fslpy_says(tmp_path: Path, fixed: str, moving: str) -> None:
    fsl_image = pytest.importorskip("fsl.data.image", reason="needs fslpy")
    from fsl.transform import affine as fsl_affine
    from fsl.transform import flirt

    grids = FIXED[fixed], MOVING[moving]
    save_linear(T, tmp_path / "a.mat", "fsl", *grids)
    target, source = (fsl_image.Image(str(image(tmp_path / f"{k}.nii.gz", grid))) for k, grid in enumerate(grids))
    xform = flirt.readFlirt(str(tmp_path / "a.mat"))
    to_fixed = flirt.fromFlirt(xform, source, target, "world", "world")
    np.testing.assert_allclose(fsl_affine.transform(MOVED, to_fixed), POINTS, atol=1e-4)
    np.testing.assert_allclose(moved_by(load_linear(tmp_path / "a.mat", "fsl", *grids)), MOVED, atol=1e-9)


@pytest.mark.parametrize("name", ["RAS", "left-handed"])
def test_fsl_coordinates(name: str) -> None:
    """Voxels times their sizes, the first axis from the other end where the affine's determinant is positive."""
    grid, size = FIXED[name], np.linalg.norm(GRIDS[name][:3, :3], axis=0)
    corner = fsl_matrix(grid) @ [0, 1, 2, 1]
    first = 0 if np.linalg.det(grid.affine[:3, :3]) < 0 else (SHAPE[0] - 1) * size[0]
    np.testing.assert_allclose(corner[:3], [first, size[1], 2 * size[2]])


LTA_FIXED = FIXED["oblique"]


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("moving", MOVING)
def test_lta_means_what_nitransforms_says(tmp_path: Path, moving: str, kind: int) -> None:
    lta = pytest.importorskip("nitransforms.io.lta", reason="needs nitransforms")
    grid = MOVING[moving]
    save_linear(T, tmp_path / "a.lta", None, LTA_FIXED, grid)
    text = (tmp_path / "a.lta").read_text()
    if kind == 0:  # the same in voxels, which the volumes in the file place
        voxels = np.linalg.inv(LTA_FIXED.affine) @ np.linalg.inv(T) @ grid.affine
        rows = "\n".join(" ".join(map(repr, row)) for row in voxels.tolist())
        text = text.replace("type      = 1", "type      = 0")
        text = re.sub(r"(?<=1 4 4\n)(?:.*\n){4}", rows + "\n", text)
        (tmp_path / "a.lta").write_text(text)
    theirs = lta.FSLinearTransform.from_string(text)
    theirs.set_type(1)
    to_fixed = np.asarray(theirs["m_L"])
    np.testing.assert_allclose(MOVED @ to_fixed[:3, :3].T + to_fixed[:3, 3], POINTS, atol=1e-3)
    np.testing.assert_allclose(moved_by(load_linear(tmp_path / "a.lta")), MOVED, atol=1e-8)


def test_lta_means_what_surfa_says(tmp_path: Path) -> None:
    surfa = pytest.importorskip("surfa", reason="needs surfa")
    save_linear(T, tmp_path / "a.lta", None, LTA_FIXED, MOVING["right-handed"])
    theirs = surfa.load_affine(str(tmp_path / "a.lta")).convert(space="world")
    np.testing.assert_allclose(theirs.transform(MOVED), POINTS, atol=1e-3)
    source, target = theirs.source, theirs.target
    np.testing.assert_allclose(source.vox2world.matrix, MOVING_AFFINE, atol=1e-3)
    np.testing.assert_allclose(target.vox2world.matrix, LTA_FIXED.affine, atol=1e-3)
    theirs.convert(space="voxel").save(str(tmp_path / "voxel.lta"))
    np.testing.assert_allclose(moved_by(load_linear(tmp_path / "voxel.lta")), MOVED, atol=1e-2)


def test_lta_of_surface_coordinates(tmp_path: Path) -> None:
    """Type 21 counts in nibabel's ``get_vox2ras_tkr`` of each volume."""
    fixed, moving = (
        nib.MGHImage(np.zeros(grid.shape, np.float32), grid.affine) for grid in (LTA_FIXED, MOVING["right-handed"])
    )
    surface = [grid.header.get_vox2ras_tkr() @ np.linalg.inv(grid.affine) for grid in (fixed, moving)]
    matrix = surface[0] @ np.linalg.inv(T) @ np.linalg.inv(surface[1])
    save_linear(T, tmp_path / "a.lta", None, LTA_FIXED, MOVING["right-handed"])
    rows = "\n".join(" ".join(map(repr, row)) for row in matrix.tolist())
    text = (tmp_path / "a.lta").read_text().replace("type      = 1", "type      = 21")
    (tmp_path / "a.lta").write_text(re.sub(r"(?<=1 4 4\n)(?:.*\n){4}", rows + "\n", text))
    np.testing.assert_allclose(moved_by(load_linear(tmp_path / "a.lta")), MOVED, atol=1e-3)


def test_matrices_as_text(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "ras.txt", T)
    np.savetxt(tmp_path / "lps.csv", LPS @ T @ LPS, delimiter=",")
    np.testing.assert_allclose(moved_by(load_linear(tmp_path / "ras.txt", "ras")), MOVED, atol=1e-9)
    np.testing.assert_allclose(moved_by(load_linear(tmp_path / "lps.csv", "lps")), MOVED, atol=1e-9)
    for format in ("ras", "lps"):
        save_linear(T, tmp_path / f"{format}.mat", format)
        np.testing.assert_allclose(moved_by(load_linear(tmp_path / f"{format}.mat", format)), MOVED, atol=1e-9)
    with pytest.raises(InputError, match=r"do not say what they map; name the format: fsl .* ras or lps"):
        load_linear(tmp_path / "ras.txt")


def test_dicom_spatial_spatial_registration(tmp_path: Path) -> None:
    """PS3.3 C.20.2.1.1: each matrix leads from an image's frame of reference to the object's own."""
    to_fixed, eye = LPS @ np.linalg.inv(T) @ LPS, np.eye(4)
    simple = spatial_registration(tmp_path / "a.dcm", {"1.1": [eye], "1.2": [to_fixed]}, "1.1")
    assert linear_format(simple) == "dicom"
    np.testing.assert_allclose(moved_by(load_linear(simple)), MOVED, atol=1e-6)
    alone = spatial_registration(tmp_path / "b.dcm", {"1.2": [to_fixed]}, "1.1")
    np.testing.assert_allclose(moved_by(load_linear(alone)), MOVED, atol=1e-6)
    there = load_linear(simple, frames=("1.2", "1.1")).numpy()
    np.testing.assert_allclose(there, np.linalg.inv(T), atol=1e-6)

    third = np.array([[0.0, -1, 0, 5], [1, 0, 0, 7], [0, 0, 1, 9], [0, 0, 0, 1]])  # both lead to an atlas
    both = spatial_registration(tmp_path / "c.dcm", {"1.1": [third], "1.2": [third, to_fixed]}, "1.9")
    np.testing.assert_allclose(moved_by(load_linear(both, frames=("1.1", "1.2"))), MOVED, atol=1e-6)
    with pytest.raises(InputError, match="registers 2 other frames of reference, expected one; give the DICOM series"):
        load_linear(both)
    with pytest.raises(InputError, match=r"does not register the frame of reference 1\.7, but 1\.1, 1\.2"):
        load_linear(simple, frames=("1.7", "1.2"))


REFUSED = {
    "no file": (None, "does not exist"),
    "an image": (b"\x5c\1\0\0" + bytes(400), "is no linear transform, expected"),
    "words": (b"a transform", "is no linear transform, expected"),
    "15 numbers": (b"1 0 0 0 0 1 0 0 0 0 1 0 0 0 0", "is no linear transform"),
    "a damaged ITK text": (b"#Insight Transform File V1.0\nTransform: Affine", "cannot be read as an ITK transform"),
    "an LTA without a matrix": (b"type      = 1\nnxforms   = 1\n", "cannot be read in the format 'lta'"),
    "an LTA of another type": (b"type      = 14\nnxforms   = 1\n", "holds 1 transforms of type 14, expected one of"),
    "many transforms": (b"type      = 1\nnxforms   = 2\n", "holds 2 transforms of type 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, message = REFUSED[name]
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_linear(tmp_path / "a.txt")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_matrices_that_map_no_points_are_refused(tmp_path: Path) -> None:
    for matrix, message in [
        (np.diag([1.0, 1, 0, 1]), "has no inverse"),
        (np.diag([1.0, 1, np.nan, 1]), "is no affine map"),
        (np.diag([1.0, 1, 1, 2]), "last row 0 0 0 1"),
        (np.eye(3), "expected a finite 4 x 4 matrix"),
    ]:
        with pytest.raises(InputError, match=message):
            save_linear(matrix, tmp_path / "a.tfm")
    np.savetxt(tmp_path / "a.txt", np.diag([1.0, 1, 0, 1]))
    with pytest.raises(InputError, match="has no inverse"):
        load_linear(tmp_path / "a.txt", "ras")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_needs_both_images_says_so(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "flirt.mat", T)
    for given in ({}, {"fixed": LTA_FIXED}, {"moving": MOVING["right-handed"]}):
        with pytest.raises(InputError, match=r"an FSL matrix .* give the fixed and the moving image too"):
            load_linear(tmp_path / "flirt.mat", "fsl", **given)
    with pytest.raises(InputError, match=r"an LTA file .* give the fixed and the moving image too"):
        save_linear(T, tmp_path / "a.lta")
    with pytest.raises(InputError, match=r"no name for the format 'lta', expected .lta"):
        save_linear(T, tmp_path / "a.txt", "lta", LTA_FIXED, LTA_FIXED)
    with pytest.raises(InputError, match=r"format is 'itkk'; choose one of .* Did you mean 'itk'"):
        save_linear(T, tmp_path / "a.txt", "itkk")


def test_a_field_is_no_linear_transform(tmp_path: Path) -> None:
    field = sitk.DisplacementFieldTransform(sitk.Image([4, 4, 4], sitk.sitkVectorFloat64, 3))
    sitk.WriteTransform(field, str(tmp_path / "a.h5"))
    with pytest.raises(InputError, match="holds DisplacementFieldTransform, expected linear transforms alone"):
        load_linear(tmp_path / "a.h5")
