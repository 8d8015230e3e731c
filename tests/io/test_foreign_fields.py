"""Fields of other tools: each moves points as that tool, or its own library, moves them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from field_cases import (
    GRIDS,
    LPS,
    MOVING_AFFINE,
    MOVING_SHAPE,
    PLANE,
    SHAPE,
    field_ras,
    itk_move,
    move,
    oblique,
    points_inside,
    random_grid,
)
from nibabel.affines import apply_affine
from transform_readers import program

from monai_regplugins.checks import InputError
from monai_regplugins.io.foreign_fields import (
    FOREIGN_FORMATS,
    VECTOR_SUFFIXES,
    save_foreign_field,
    write_fsl,
    write_vectors,
    write_x5,
)
from monai_regplugins.io.formats import format_of, load_field
from monai_regplugins.readers.image_grid import ImageGrid

MOVINGS = {
    "right-handed": ImageGrid(MOVING_AFFINE, MOVING_SHAPE),
    "left-handed": ImageGrid(oblique((-1.1, 0.8, 1.3), (-0.2, 0.3), MOVING_SHAPE), MOVING_SHAPE),
}


def positions(affine: np.ndarray) -> np.ndarray:
    """Where each voxel goes, (3, X, Y, Z), RAS mm."""
    return np.moveaxis(apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1)), -1, 0) + field_ras()


def save(path: Path, values: np.ndarray, affine: np.ndarray, intent: int, name: str = "", p1: float = 0) -> Path:
    image = nib.Nifti1Image(values.astype(np.float32), affine)
    image.header["intent_code"], image.header["intent_name"], image.header["intent_p1"] = intent, name, p1
    nib.save(image, path)
    return path


def five_axes(field: np.ndarray) -> np.ndarray:
    return np.moveaxis(field, 0, -1)[:, :, :, None]


def check(path: Path, affine: np.ndarray, format: str | None = None, **grids: ImageGrid) -> None:
    displacement, grid = load_field(path, None, format, **grids)
    points = points_inside(affine, SHAPE)
    expected = move(points, field_ras(), affine)
    np.testing.assert_allclose(move(points, displacement, grid), expected, atol=1e-3)


@pytest.mark.parametrize("name", GRIDS)
def test_niftyreg(tmp_path: Path, name: str) -> None:
    """NiftyReg 1.5: positions (intent_p1 0) and displacements (1) in RAS mm, seen with its own programs."""
    affine = GRIDS[name]
    deformation = save(tmp_path / "def.nii.gz", five_axes(positions(affine)), affine, 1007, "NREG_TRANS", 0)
    displacement = save(tmp_path / "disp.nii.gz", five_axes(field_ras()), affine, 1007, "NREG_TRANS", 1)
    for path in (deformation, displacement):
        assert format_of(path) == "niftyreg"
        check(path, affine)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["def", "disp"])
def test_what_niftyreg_writes(tmp_path: Path, kind: str, seed: int) -> None:
    """Its own program makes positions or displacements of our file."""
    command, affine = program("reg_transform"), random_grid(seed)
    save_foreign_field("niftyreg", field_ras(), affine, tmp_path / "ours.nii", None)
    files = [str(tmp_path / "ours.nii"), str(tmp_path / "theirs.nii")]
    subprocess.run([command, f"-{kind}", *files], check=True, stdout=subprocess.DEVNULL)
    assert format_of(files[1]) == "niftyreg"
    assert int(nib.load(files[1]).header["intent_p1"]) == (kind == "disp")
    displacement, grid = load_field(files[1])
    np.testing.assert_allclose(displacement, field_ras(), atol=1e-4)
    np.testing.assert_allclose(grid, affine, atol=1e-4)


def test_niftyreg_splines_and_velocities_are_refused(tmp_path: Path) -> None:
    for kind, message in [(2, "a spline grid"), (3, "a velocity"), (5, "a spline velocity"), (9, "of kind 9")]:
        path = save(tmp_path / "a.nii", five_axes(field_ras()), np.eye(4), 1007, "NREG_TRANS", kind)
        with pytest.raises(InputError, match=f"{message}, expected positions or a displacement") as caught:
            load_field(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", GRIDS)
def test_spm(tmp_path: Path, name: str) -> None:
    """SPM: positions in RAS mm, named ``Mapping`` by its Deformations utility and without intent by Segment."""
    affine = GRIDS[name]
    mapping = save(tmp_path / "mapping.nii", five_axes(positions(affine)), affine, 1007, "Mapping")
    assert format_of(mapping) == "spm"
    check(mapping, affine)
    segment = save(tmp_path / "y_a.nii", five_axes(positions(affine)), affine, 0)
    with pytest.raises(InputError, match="5 axes and intent 0, as fields of AFNI and SPM have; name its format"):
        load_field(segment)
    check(segment, affine, "spm")


@pytest.mark.parametrize("name", GRIDS)
def test_afni(tmp_path: Path, name: str) -> None:
    """AFNI counts along left, posterior, superior, as nitransforms reads it, too."""
    affine = GRIDS[name]
    path = save(tmp_path / "warp.nii.gz", five_axes(np.tensordot(LPS[:3, :3], field_ras(), 1)), affine, 0)
    check(path, affine, "afni")
    afni = pytest.importorskip("nitransforms.io.afni", reason="needs nitransforms")
    theirs = afni.AFNIDisplacementsField.from_filename(path)
    displacement, _ = load_field(path, format="afni")
    np.testing.assert_allclose(np.squeeze(np.asarray(theirs.dataobj)), np.moveaxis(displacement, 0, -1), atol=1e-5)


@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
@pytest.mark.parametrize("moving", MOVINGS)
@pytest.mark.parametrize("name", GRIDS)
def test_fsl_means_what_fslpy_says(tmp_path: Path, name: str, moving: str, relative: bool) -> None:
    images = pytest.importorskip("fsl.data.image", reason="needs fslpy")
    from fsl.transform import fnirt

    affine, grid = GRIDS[name], MOVINGS[moving]
    path, format = tmp_path / "warp.nii.gz", "fsl_relative" if relative else "fsl_absolute"
    write_fsl(field_ras(), affine, path, grid, relative)
    grids = {"fixed": ImageGrid(affine, SHAPE), "moving": grid}
    check(path, affine, format, **grids)

    for side, one in grids.items():
        nib.save(nib.Nifti1Image(np.zeros(one.shape, np.float32), one.affine), tmp_path / f"{side}.nii.gz")
    source, reference = (images.Image(str(tmp_path / f"{side}.nii.gz")) for side in ("moving", "fixed"))
    kind = "relative" if relative else "absolute"
    theirs = fnirt.readFnirt(str(path), source, reference, defType=kind)
    points = apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1).reshape(-1, 3))  # fslpy takes the nearest voxel
    found = theirs.transform(points, "world", "world")
    np.testing.assert_allclose(found, positions(affine).reshape(3, -1).T, atol=1e-3)


def test_a_format_that_is_not_what_it_is_called_is_refused(tmp_path: Path) -> None:
    """Displacements that are taken for positions shrink the image to nothing; positions double it as displacements."""
    affine, moving = GRIDS["oblique"], MOVINGS["left-handed"]
    grids = {"fixed": ImageGrid(affine, SHAPE), "moving": moving}
    for name in ("afni", "spm"):
        write = FOREIGN_FORMATS[name].write
        assert write is not None
        write(field_ras(), affine, tmp_path / f"{name}.nii", moving)
    for relative in (True, False):
        write_fsl(field_ras(), affine, tmp_path / f"fsl_{relative}.nii", moving, relative)
    for name, format in [
        ("afni", "spm"),
        ("afni", "niftyreg"),
        ("spm", "afni"),
        ("fsl_True", "fsl_absolute"),
        ("fsl_False", "fsl_relative"),
    ]:
        with pytest.raises(InputError, match=r"times as large, expected between 0\.2 and 5; it is rather"):
            load_field(tmp_path / f"{name}.nii", None, format, **grids)


def test_fsl_needs_both_images_and_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "warp.nii.gz"
    write_fsl(field_ras(), np.eye(4), path, MOVINGS["left-handed"])
    with pytest.raises(InputError, match="does not state whether it is relative; name its format"):
        load_field(path)
    with pytest.raises(InputError, match="needs both images"):
        load_field(path, None, "fsl_relative", ImageGrid(np.eye(4), SHAPE))
    with pytest.raises(InputError, match="needs the moving image"):
        write_fsl(field_ras(), np.eye(4), path, None)


@pytest.mark.parametrize("name", GRIDS)
def test_dipy(tmp_path: Path, name: str) -> None:
    """Where DIPY's own functions, which write and read the file, look for each voxel: images of coordinates state."""
    align = pytest.importorskip("dipy.align", reason="needs dipy")
    from dipy.align.imwarp import DiffeomorphicMap

    affine = GRIDS[name]
    mapping = DiffeomorphicMap(
        3, SHAPE, disp_grid2world=affine, domain_shape=SHAPE, codomain_shape=SHAPE, codomain_grid2world=affine
    )
    mapping.forward = np.zeros((*SHAPE, 3), np.float32)
    mapping.backward = np.ascontiguousarray(np.moveaxis(field_ras(), 0, -1))
    align.write_mapping(mapping, str(tmp_path / "mapping.nii.gz"))
    assert format_of(tmp_path / "mapping.nii.gz") == "dipy"
    check(tmp_path / "mapping.nii.gz", affine)

    shape = (60, 60, 60)
    around = oblique((2.0, 2.0, 2.0), (0.1, 0.2), shape)
    world = np.moveaxis(apply_affine(around, np.moveaxis(np.indices(shape), 0, -1)), -1, 0)
    static, moving = (nib.Nifti1Image(np.zeros(n, np.float32), A) for n, A in ((SHAPE, affine), (shape, around)))
    read = align.read_mapping(str(tmp_path / "mapping.nii.gz"), static, moving)
    grid = {"image_world2grid": np.linalg.inv(around), "out_shape": SHAPE, "out_grid2world": affine}
    found = [read.transform(one.astype(np.float32), **grid) for one in world]
    np.testing.assert_allclose(found, positions(affine), atol=2e-3)


@pytest.mark.parametrize("name", GRIDS)
def test_x5_is_what_nitransforms_writes_and_reads(tmp_path: Path, name: str) -> None:
    """Displacements both ways, and positions as it writes them."""
    pytest.importorskip("h5py", reason="needs h5py")
    x5 = pytest.importorskip("nitransforms.io.x5", reason="needs a nitransforms with X5")
    nonlinear = pytest.importorskip("nitransforms.nonlinear")
    affine = GRIDS[name]
    write_x5(field_ras(), affine, tmp_path / "ours.x5")
    assert format_of(tmp_path / "ours.x5") == "x5"
    check(tmp_path / "ours.x5", affine)
    transform = nonlinear.DenseFieldTransform.from_filename(tmp_path / "ours.x5", fmt="X5")
    points = apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1)[1:-1, 1:-1, 1:-1].reshape(-1, 3))
    expected = positions(affine)[:, 1:-1, 1:-1, 1:-1].reshape(3, -1).T
    np.testing.assert_allclose(transform.map(points), expected, atol=1e-3)

    x5.to_filename(tmp_path / "theirs.x5", [transform.to_x5()])
    check(tmp_path / "theirs.x5", affine)
    node = transform.to_x5()
    node.representation, node.transform = "deformations", np.moveaxis(positions(affine), 0, -1)
    x5.to_filename(tmp_path / "positions.x5", [node])
    check(tmp_path / "positions.x5", affine)


def test_other_x5_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py", reason="needs h5py")
    with h5py.File(tmp_path / "a.x5", "w") as file:
        file.attrs["Format"] = "X5"
        file.create_group("TransformGroup/0").attrs["Type"] = "linear"
    with pytest.raises(InputError, match="holds linear None, expected one dense field"):
        load_field(tmp_path / "a.x5")
    (tmp_path / "b.x5").write_bytes(b"something else")
    with pytest.raises(InputError, match="cannot be read as X5"):
        load_field(tmp_path / "b.x5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="X5 files need h5py, which is missing; install it with: pip install"):
        load_field(tmp_path / "a.x5")


@pytest.mark.parametrize("suffix", VECTOR_SUFFIXES)
@pytest.mark.parametrize("name", GRIDS)
def test_vector_images_move_points_as_simpleitk_does(tmp_path: Path, name: str, suffix: str) -> None:
    affine, path = GRIDS[name], tmp_path / f"a{suffix}"
    write_vectors(field_ras(), affine, path)
    assert format_of(path) == "vectors"
    check(path, affine)
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    points = points_inside(affine, SHAPE)
    np.testing.assert_allclose(itk_move(transform, points), move(points, field_ras(), affine), atol=1e-5)


def test_vector_images_of_a_plane(tmp_path: Path) -> None:
    write_vectors(field_ras()[:2, ..., 0], PLANE, tmp_path / "a.mha")
    displacement, grid = load_field(tmp_path / "a.mha")
    points = points_inside(PLANE, SHAPE[:2])
    expected = move(points, field_ras()[:2, ..., 0], PLANE)
    np.testing.assert_allclose(move(points, displacement, grid), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["list", "vector last"])
def test_nrrd_files_of_other_layouts(tmp_path: Path, kind: str) -> None:
    """As pynrrd and 3D Slicer write them: a list of components, or the components on the last axis."""
    nrrd = pytest.importorskip("nrrd", reason="needs pynrrd")
    affine = GRIDS["left-handed"]
    lps = LPS @ affine
    values = np.tensordot(LPS[:3, :3], field_ras(), 1)
    axes = [row.tolist() for row in lps[:3, :3].T]
    none = [float("nan")] * 3
    header = {"space": "left-posterior-superior", "space origin": lps[:3, 3], "encoding": "gzip"}
    if kind == "list":
        header |= {"kinds": ["list", "domain", "domain", "domain"], "space directions": [none, *axes]}
    else:
        values = np.moveaxis(values, 0, -1)
        header |= {"kinds": ["domain", "domain", "domain", "vector"], "space directions": [*axes, none]}
    nrrd.write(str(tmp_path / "a.nrrd"), values.astype(np.float32), header)
    check(tmp_path / "a.nrrd", affine)


def test_images_are_no_fields(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkFloat32), str(tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match="is a 3D image of 1 values per voxel, expected a displacement field"):
        load_field(tmp_path / "a.nrrd")
    (tmp_path / "b.mha").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"b\.mha' cannot be read"):
        load_field(tmp_path / "b.mha")
    with pytest.raises(InputError, match=r"has shape \(4, 5, 6\), expected \(X, Y, Z, 1, 3\) in this format"):
        load_field(save(tmp_path / "c.nii", np.zeros((4, 5, 6)), np.eye(4), 0), format="spm")


def test_a_header_cannot_read_files_of_elsewhere(tmp_path: Path) -> None:
    write_vectors(field_ras(), np.eye(4), tmp_path / "a.mhd")
    text = (tmp_path / "a.mhd").read_text()
    (tmp_path / "a.mhd").write_text(text.replace("ElementDataFile = a", "ElementDataFile = ../a"))
    with pytest.raises(InputError, match="expected a plain name in the header's own folder"):
        load_field(tmp_path / "a.mhd")


def test_what_a_format_cannot_hold_is_not_written(tmp_path: Path) -> None:
    for name, field, file, message in [
        ("spm", field_ras()[:2, ..., 0], "y_a.nii", "the format 'spm' holds 3D fields only, and this one is 2D"),
        ("dipy", field_ras(), "a.nii.gz", "the format 'dipy' is read only"),
        ("x5", field_ras(), "a.h5", r"is no name for the format 'x5', expected \.x5"),
        ("vectors", field_ras(), "a.nhdr", r"is no name for the format 'vectors', expected \.nrrd or \.mha"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            save_foreign_field(name, field, PLANE, tmp_path / file, None)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_each_format_says_whose_it_is() -> None:
    assert all(format.tools for format in FOREIGN_FORMATS.values())
    assert [name for name, format in FOREIGN_FORMATS.items() if format.by_itk] == ["vectors"]
