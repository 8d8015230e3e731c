"""What is done with transform files, against SimpleITK on the written files and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_series import write_volume
from field_cases import (
    GRIDS,
    MOVING_SHAPE,
    field_ras,
    itk_affine,
    itk_image,
    itk_move,
    oblique,
    points_inside,
    random_grid,
)
from nibabel.affines import apply_affine
from nifti_headers import KINDS, save_kind
from peak_memory import peak_growth
from scipy.ndimage import gaussian_filter

from monai_regplugins.checks import InputError
from monai_regplugins.io import operations
from monai_regplugins.io.formats import FORMATS, FieldPair, load_field, save_field
from monai_regplugins.io.linear import load_linear, save_linear
from monai_regplugins.io.operations import WRITTEN_FORMS, apply, compose, convert, inspect, invert, jacobian
from monai_regplugins.readers.points import read_points

SHAPE = (18, 16, 14)
AFFINE = oblique((-1.4, 1.5, 1.3), (0.3, -0.4), SHAPE)
MOVING_AFFINE = oblique((1.5, 1.2, 1.6), (-0.2, 0.3), MOVING_SHAPE)
T = np.array([[1.02, -0.1, 0.02, 3.0], [0.1, 0.99, -0.05, 1.0], [0.0, 0.05, 1.01, -7.0], [0, 0, 0, 1]])
FIELD = field_ras(SHAPE)
VOLUME = gaussian_filter(np.random.default_rng(0).normal(size=MOVING_SHAPE), 1.0).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two images, a field and an affine, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), AFFINE), "fixed.nii.gz")
    nib.save(nib.Nifti1Image(VOLUME, MOVING_AFFINE), "moving.nii.gz")
    save_field("itk_nifti", FIELD, AFFINE, "1Warp.nii.gz")
    save_linear(T, "0GenericAffine.mat")
    return tmp_path


def field_of(path: str) -> sitk.Transform:
    return sitk.DisplacementFieldTransform(sitk.ReadImage(path, sitk.sitkVectorFloat64))


def resampled(transform: sitk.Transform, values: np.ndarray = VOLUME) -> np.ndarray:
    target = itk_image(np.zeros(SHAPE, np.float32), AFFINE)
    image = sitk.Resample(itk_image(values, MOVING_AFFINE), target, transform, sitk.sitkLinear, float(values.min()))
    return sitk.GetArrayFromImage(image).T


def test_apply_to_an_image() -> None:
    assert apply("1Warp.nii.gz", "moving.nii.gz", "out/warped.nii.gz", "fixed.nii.gz") == [Path("out/warped.nii.gz")]
    written = nib.load("out/warped.nii.gz")
    assert written.get_data_dtype() == np.float32
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(written.get_fdata(), resampled(field_of("1Warp.nii.gz")), atol=1e-3 * np.ptp(VOLUME))
    apply("1Warp.nii.gz", "moving.nii.gz", "own.nii.gz")  # on the grid of the field
    np.testing.assert_array_equal(nib.load("own.nii.gz").get_fdata(), written.get_fdata())


def test_apply_a_chain_to_several_files() -> None:
    nib.save(nib.Nifti1Image(2 * VOLUME, MOVING_AFFINE), "double.nii")
    written = apply(["1Warp.nii.gz", "0GenericAffine.mat"], ["moving.nii.gz", "double.nii"], "out", "fixed.nii.gz")
    assert [str(path) for path in written] == ["out/moving.nii.gz", "out/double.nii.gz"]
    expected = resampled(sitk.CompositeTransform([itk_affine(T), field_of("1Warp.nii.gz")]))
    for factor, path in enumerate(written, 1):
        off = np.abs(nib.load(path).get_fdata() - factor * expected) > 1e-3 * factor * np.ptp(VOLUME)
        assert off.mean() < 2e-3


def test_apply_to_times() -> None:
    times = np.stack([VOLUME, -VOLUME, 3 * VOLUME], -1)
    image = nib.Nifti1Image(times, MOVING_AFFINE)
    image.header.set_zooms((1.5, 1.2, 1.6, 2.5))
    image.header.set_xyzt_units("mm", "msec")
    nib.save(image, "times.nii.gz")
    apply("1Warp.nii.gz", "times.nii.gz", "warped.nii.gz", "fixed.nii.gz", padding_value=0.0)
    written = nib.load("warped.nii.gz")
    assert written.shape == (*SHAPE, 3)
    assert (written.header.get_zooms()[3], written.header.get_xyzt_units()) == (2.5, ("mm", "msec"))
    for number in range(3):
        nib.save(nib.Nifti1Image(times[..., number], MOVING_AFFINE), "one.nii.gz")
        apply("1Warp.nii.gz", "one.nii.gz", "single.nii.gz", "fixed.nii.gz", padding_value=0.0)
        np.testing.assert_array_equal(written.get_fdata()[..., number], nib.load("single.nii.gz").get_fdata())


@pytest.mark.parametrize("numbers", [(0, 1, 200), (-5, 0, 300), (0, 70_000, 2**24 + 1)])
def test_labels_keep_their_numbers(numbers: tuple[int, ...]) -> None:
    values = np.array(numbers)[np.random.default_rng(0).integers(0, 3, MOVING_SHAPE)].astype(np.int32)
    nib.save(nib.Nifti1Image(values, MOVING_AFFINE), "label.nii.gz")
    apply("1Warp.nii.gz", "label.nii.gz", "warped.nii.gz", "fixed.nii.gz", "nearest")
    written = np.asanyarray(nib.load("warped.nii.gz").dataobj)
    target = itk_image(np.zeros(SHAPE, np.float32), AFFINE)
    image = itk_image(values, MOVING_AFFINE)
    theirs = sitk.Resample(image, target, field_of("1Warp.nii.gz"), sitk.sitkNearestNeighbor, 0)
    assert (written == sitk.GetArrayFromImage(theirs).T).mean() > 0.998
    assert set(np.unique(written)) <= {*numbers, 0}
    assert written.dtype == {200: np.uint8, 300: np.int16}.get(numbers[2], np.int32)


def test_apply_to_a_dicom_series() -> None:
    """Its rows go to the left, its slices upwards."""
    values = (1000 * np.abs(VOLUME)).astype(np.int16)
    write_volume(Path("series"), values, np.diag([2.0, 2.0, 3.0, 1.0]))
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames("series")
    image = sitk.ReadImage(names)
    target = itk_image(np.zeros(SHAPE, np.float32), AFFINE)
    target.SetOrigin([-35.0, -35.0, 5.0])
    target.SetDirection(np.eye(3).ravel().tolist())
    sitk.WriteImage(target, "like.nii.gz")
    save_linear(np.eye(4), "identity.tfm")
    apply("identity.tfm", "series", "out.nii.gz", "like.nii.gz", padding_value=-1.0)
    theirs = sitk.Resample(sitk.Cast(image, sitk.sitkFloat32), target, sitk.Transform(), sitk.sitkLinear, -1.0)
    np.testing.assert_allclose(nib.load("out.nii.gz").get_fdata(), sitk.GetArrayFromImage(theirs).T, atol=0.5)


@pytest.mark.parametrize("kind", ["aligned sform beside a qform", "neither", "pixdim beside the sform"])
def test_files_that_itk_places_elsewhere(kind: str) -> None:
    """A field of ITK is in ITK's worlds of the very files; SimpleITK applied to them makes the same image."""
    save_kind(Path("fixed.nii.gz"), np.zeros(SHAPE, np.float32), AFFINE, KINDS[kind])
    save_kind(Path("moving.nii.gz"), VOLUME, MOVING_AFFINE, KINDS[kind])
    fixed, image = sitk.ReadImage("fixed.nii.gz"), sitk.ReadImage("moving.nii.gz")
    center, to = (
        np.array(one.TransformContinuousIndexToPhysicalPoint([n / 2 for n in one.GetSize()])) for one in (fixed, image)
    )
    shift = sitk.TranslationTransform(3, (to - center + [0.7, -1.2, 0.4]).tolist())
    filter_ = sitk.TransformToDisplacementFieldFilter()
    filter_.SetReferenceImage(fixed)
    sitk.WriteImage(sitk.Cast(filter_.Execute(shift), sitk.sitkVectorFloat32), "field.nrrd")
    sitk.WriteTransform(shift, "shift.tfm")
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, fixed, shift, sitk.sitkLinear, float(VOLUME.min()))).T
    for name in ("field.nrrd", "shift.tfm"):
        apply(name, "moving.nii.gz", "warped.nii.gz", "fixed.nii.gz")
        off = np.abs(nib.load("warped.nii.gz").get_fdata() - theirs) > 2e-3 * np.ptp(VOLUME)
        assert off.mean() < 5e-3
    convert("shift.tfm", "again.h5", like="fixed.nii.gz", moving_image="moving.nii.gz", to="itk_h5")
    point = [float(number) for number in center]
    np.testing.assert_allclose(
        sitk.ReadTransform("again.h5").TransformPoint(point), shift.TransformPoint(point), atol=1e-3
    )


def test_apply_to_points() -> None:
    ras = points_inside(AFFINE, SHAPE, 20)
    lps = ras * [-1, -1, 1]
    Path("p.csv").write_text("x,y,z,t\n" + "".join(",".join(map(repr, [*row, 0.0])) + "\n" for row in lps.tolist()))
    apply(["1Warp.nii.gz", "0GenericAffine.mat"], "p.csv", "moved.csv")
    theirs = itk_move(sitk.CompositeTransform([itk_affine(T), field_of("1Warp.nii.gz")]), ras)
    np.testing.assert_allclose(read_points(Path("moved.csv"), "points").points * [-1, -1, 1], theirs, atol=1e-4)

    voxels = apply_affine(np.linalg.inv(AFFINE), ras)
    np.savetxt("voxels.csv", voxels, delimiter=",")
    apply("1Warp.nii.gz", "voxels.csv", "out.csv", "fixed.nii.gz", moving_image="moving.nii.gz")
    found = apply_affine(MOVING_AFFINE, np.loadtxt("out.csv", delimiter=","))
    np.testing.assert_allclose(found, itk_move(field_of("1Warp.nii.gz"), ras), atol=1e-3)
    with pytest.raises(InputError, match="points in voxels need both images"):
        apply("1Warp.nii.gz", "voxels.csv", "no.csv", "fixed.nii.gz")
    np.savetxt("ras.csv", ras, delimiter=",")
    with pytest.raises(InputError, match="lie far outside of the fixed image"):
        apply("1Warp.nii.gz", "ras.csv", "no.csv", "fixed.nii.gz", moving_image="moving.nii.gz")
    assert not Path("no.csv").exists()


@pytest.mark.parametrize("output", ["total.nii.gz", "total.h5", "total.nrrd", "total.mha"])
def test_compose(output: str) -> None:
    compose(["1Warp.nii.gz", "0GenericAffine.mat"], output, "fixed.nii.gz")
    total = sitk.ReadTransform(output) if output.endswith(".h5") else field_of(output)
    points = apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1)[1:-1, 1:-1, 1:-1].reshape(-1, 3))
    theirs = sitk.CompositeTransform([itk_affine(T), field_of("1Warp.nii.gz")])
    np.testing.assert_allclose(itk_move(total, points), itk_move(theirs, points), atol=1e-3)


def test_linear_transforms_stay_linear() -> None:
    save_linear(np.linalg.inv(T) @ np.diag([1.1, 1, 1, 1]), "other.tfm")
    compose(["other.tfm", "0GenericAffine.mat"], "both.tfm")
    np.testing.assert_allclose(load_linear("both.tfm"), np.diag([1.1, 1, 1, 1]), atol=1e-9)
    compose(["0GenericAffine.mat"], "field.nii.gz", "fixed.nii.gz")
    points = points_inside(AFFINE, SHAPE)
    expected = apply_affine(T, points)
    np.testing.assert_allclose(itk_move(field_of("field.nii.gz"), points), expected, atol=1e-4)
    with pytest.raises(InputError, match="has no grid of its own"):
        compose(["0GenericAffine.mat"], "no.nii.gz")
    with pytest.raises(InputError, match="can hold a matrix only, but the transform is not linear"):
        compose(["1Warp.nii.gz"], "no.mat")
    with pytest.raises(InputError, match="does not name the format of a field"):
        compose(["1Warp.nii.gz"], "no.jpg")


def test_a_chain_that_does_not_meet_is_refused() -> None:
    away = AFFINE.copy()
    away[:3, 3] += 500
    save_field("itk_nifti", FIELD, away, "other_subject.nii.gz")
    with pytest.raises(InputError, match="no point of the grid lies on the field of transform 1 of 1"):
        apply("other_subject.nii.gz", "moving.nii.gz", "no.nii.gz", "fixed.nii.gz")
    with pytest.raises(InputError, match="no point of the grid lies on the field of transform 2 of 2"):
        compose(["1Warp.nii.gz", "other_subject.nii.gz"], "no.nii.gz")
    with pytest.raises(InputError, match="no point of the grid lies on the field of transform 1 of 1"):
        apply("inverse:other_subject.nii.gz", "moving.nii.gz", "no.nii.gz", "fixed.nii.gz")
    assert not Path("no.nii.gz").exists()


@pytest.mark.parametrize("format", [form for form in WRITTEN_FORMS if form not in operations.LINEAR])
def test_convert_there_and_back(format: str) -> None:
    if format == "dicom":
        pytest.importorskip("pydicom", reason="needs pydicom")
    if format == "x5":
        pytest.importorskip("h5py", reason="needs h5py")
    others = {"vectors": "a.nrrd", "x5": "a.x5", "freesurfer": "a.mgz"}
    name = FORMATS[format].file_name if format in FORMATS else others.get(format, "a.nii.gz")
    images = {"like": "fixed.nii.gz", "moving_image": "fixed.nii.gz" if format == "learn2reg" else "moving.nii.gz"}
    convert("1Warp.nii.gz", name, format, **images)
    convert(f"{format}:{name}", "back.nii.gz", "itk_nifti", **images)
    displacement, affine = load_field("back.nii.gz")
    np.testing.assert_allclose(displacement, FIELD, atol=1e-4)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)
    exact = ("itk_nifti", "itk_h5", "slicer_nifti", "vectors", "x5", "afni", "freesurfer")
    assert np.array_equal(displacement, FIELD) or format not in exact


def test_convert_linear_transforms_there_and_back() -> None:
    images = {"like": "fixed.nii.gz", "moving_image": "moving.nii.gz"}
    for format, name in [("itk", "a.tfm"), ("lta", "a.lta"), ("fsl", "b.mat"), ("ras", "r.txt"), ("lps", "l.txt")]:
        convert("0GenericAffine.mat", name, format, **images)
        convert(f"{format}:{name}", "back.tfm", **images)
        np.testing.assert_allclose(load_linear("back.tfm"), T, atol=1e-8)
    with pytest.raises(InputError, match="format 'lta' holds a matrix only"):
        operations._save_field(operations.FieldMap(FIELD, AFFINE), Path("a.lta"), "lta", None, None)


def test_convert_to_another_grid() -> None:
    coarse = oblique((2.0, 2.2, 2.4), (0.3, -0.4), (8, 7, 6))
    nib.save(nib.Nifti1Image(np.zeros((8, 7, 6), np.float32), coarse), "coarse.nii.gz")
    convert("1Warp.nii.gz", "coarse_field.nii.gz", like="coarse.nii.gz")
    displacement, affine = load_field("coarse_field.nii.gz")
    assert displacement.shape == (3, 8, 7, 6)
    points = apply_affine(coarse, np.moveaxis(np.indices((8, 7, 6)), 0, -1).reshape(-1, 3))
    theirs = itk_move(field_of("1Warp.nii.gz"), points)
    np.testing.assert_allclose(points + displacement.reshape(3, -1).T, theirs, atol=1e-4)
    np.testing.assert_allclose(affine, coarse, atol=1e-5)


def test_invert(caplog: pytest.LogCaptureFixture) -> None:
    smooth = 3 * np.stack([gaussian_filter(np.random.default_rng(k).normal(size=SHAPE), 3.0) for k in range(3)]) / 0.04
    save_field("itk_nifti", smooth.clip(-4, 4).astype(np.float32), AFFINE, "smooth.nii.gz")
    report = invert(["smooth.nii.gz", "0GenericAffine.mat"], "inverse.nii.gz", "moving.nii.gz")
    forward = sitk.CompositeTransform([itk_affine(T), field_of("smooth.nii.gz")])
    voxels = np.random.default_rng(1).integers(0, MOVING_SHAPE, (400, 3))
    moving = apply_affine(MOVING_AFFINE, voxels)
    back = itk_move(field_of("inverse.nii.gz"), moving)
    inside = apply_affine(np.linalg.inv(AFFINE), back)
    kept = np.all((inside > 0) & (inside < np.array(SHAPE) - 1), axis=1)
    assert kept.sum() > 50
    misses = np.linalg.norm(itk_move(forward, back[kept]) - moving[kept], axis=1)
    assert misses.max() <= report.max + 2e-4
    assert np.median(misses) < 1e-3
    _, affine = load_field("inverse.nii.gz")
    np.testing.assert_allclose(affine, MOVING_AFFINE, atol=1e-5)
    with pytest.raises(InputError, match="on the grid of the moving image; give that"):
        invert("1Warp.nii.gz", "no.nii.gz")


def test_invert_a_linear_transform() -> None:
    assert invert("0GenericAffine.mat", "inverse.tfm") == (0.0, 0.0, 0)
    np.testing.assert_allclose(load_linear("inverse.tfm"), np.linalg.inv(T), atol=1e-9)


def test_where_a_field_folds_the_inverse_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    x = np.indices((20, 20, 20))[0]
    fold = np.stack([-3 * np.sin(0.7 * x), 0 * x, 0 * x]).astype(np.float32)
    save_field("itk_nifti", fold, np.eye(4), "fold.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 20), np.float32), np.eye(4)), "image.nii.gz")
    report = invert("fold.nii.gz", "inverse.nii.gz", "image.nii.gz")
    assert (report.unsolved > 0) == ("voxels have no inverse" in caplog.text)


STRETCH = np.array([[0.2, 0.1, 0.0], [0.0, -0.1, 0.05], [0.1, 0.0, 0.3]])  # per mm of the world


@pytest.mark.parametrize("name", [*GRIDS, *map(str, range(4))])
def test_jacobian_of_an_analytic_field(name: str) -> None:
    """``D(p) = G p + q z(p)^2``: its determinant at each point, on grids of all directions and hands."""
    affine, shape = random_grid(int(name)) if name.isdigit() else GRIDS[name], (9, 8, 7)
    world = np.moveaxis(apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)), -1, 0)
    center = apply_affine(affine, (np.array(shape) - 1) / 2)
    local = world - center.reshape(3, 1, 1, 1)
    q = np.array([0.01, -0.02, 0.005])
    displacement = np.tensordot(STRETCH, local, 1) + q.reshape(3, 1, 1, 1) * local[2] ** 2
    save_field("itk_nifti", displacement.astype(np.float32), affine, "analytic.nii.gz")
    gradient = STRETCH + np.eye(3) + np.einsum("i,xyz,j->xyzij", 2 * q, local[2], [0, 0, 1])
    expected = np.linalg.det(gradient)[1:-1, 1:-1, 1:-1]
    jacobian("analytic.nii.gz", "det.nii.gz")
    written = nib.load("det.nii.gz")
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    np.testing.assert_allclose(written.get_fdata()[1:-1, 1:-1, 1:-1], expected, atol=1e-4)
    jacobian("analytic.nii.gz", "log.nii.gz", log=True)
    np.testing.assert_allclose(nib.load("log.nii.gz").get_fdata()[1:-1, 1:-1, 1:-1], np.log(expected), atol=2e-4)


def test_jacobian_of_a_matrix_and_of_folds(caplog: pytest.LogCaptureFixture) -> None:
    jacobian("0GenericAffine.mat", "det.nii.gz", "fixed.nii.gz")
    np.testing.assert_allclose(nib.load("det.nii.gz").get_fdata(), np.linalg.det(T[:3, :3]), atol=1e-4)
    x = np.indices((9, 9, 9))[0]
    save_field("itk_nifti", np.stack([-1.5 * x, 0 * x, 0 * x]).astype(np.float32), np.eye(4), "fold.nii.gz")
    jacobian("fold.nii.gz", "log.nii.gz", log=True)
    assert np.isnan(nib.load("log.nii.gz").get_fdata()).all()
    assert "the transform folds at 729 voxels, whose logarithm is NaN" in caplog.text


def test_inspect() -> None:
    text = str(inspect("1Warp.nii.gz"))
    length = np.linalg.norm(FIELD, axis=0)
    assert text.startswith(
        "1Warp.nii.gz\n  format: itk_nifti\n  direction: points of the fixed image to the moving image"
    )
    for part in (
        "grid: 18 x 16 x 14 voxels of 1.4 x 1.5 x 1.3 mm, oblique, left-handed in RAS",
        f"motion: mean {length.mean():.3f}, largest {length.max():.3f} mm",
        "folds: ",
        "image position: as ITK takes it",
    ):
        assert part in text
    text = str(inspect("0GenericAffine.mat"))
    assert f"volume change: {np.linalg.det(T[:3, :3]):.4f}" in text
    save_field("itk_h5", FIELD, AFFINE, "a.h5")
    warp = sitk.CompositeTransform(sitk.ReadTransform("a.h5")).GetNthTransform(0)
    sitk.WriteTransform(sitk.CompositeTransform([itk_affine(T), warp]), "both.h5")
    facts = inspect("both.h5").facts
    assert (facts["1. kind"], facts["2. kind"]) == ("displacement field", "linear")


@pytest.mark.parametrize("format", ["fsl_relative", "fsl_absolute"])
def test_what_needs_both_images_takes_them(format: str) -> None:
    images = {"like": "fixed.nii.gz", "moving_image": "moving.nii.gz"}
    convert("1Warp.nii.gz", "fsl.nii.gz", format, **images)
    expected = inspect("1Warp.nii.gz").facts
    found = inspect("fsl.nii.gz", format, **images).facts
    assert {key: found[key] for key in ("grid", "motion", "folds")} == {
        key: expected[key] for key in ("grid", "motion", "folds")
    }
    jacobian(f"{format}:fsl.nii.gz", "fsl_det.nii.gz", **images)
    jacobian("1Warp.nii.gz", "det.nii.gz")
    values = [nib.load(name).get_fdata() for name in ("fsl_det.nii.gz", "det.nii.gz")]
    np.testing.assert_allclose(*values, atol=1e-4)


def test_nothing_is_lost_or_half_written(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for call, message in [
        (lambda: apply("1Warp.nii.gz", "moving.nii.gz", "moving.nii.gz"), "is an input itself and would be lost"),
        (lambda: compose("1Warp.nii.gz", "1Warp.nii.gz"), "is an input itself"),
        (lambda: invert("1Warp.nii.gz", "1Warp.nii.gz", "moving.nii.gz"), "is an input itself"),
        (lambda: jacobian("1Warp.nii.gz", "1Warp.nii.gz"), "is an input itself"),
        (lambda: apply("1Warp.nii.gz", "moving.nii.gz", "1Warp.nii.gz"), "is an input itself"),
        (lambda: apply("inverse:1Warp.nii.gz", "moving.nii.gz", "1Warp.nii.gz"), "is an input itself"),
        (lambda: apply("1Warp.nii.gz", "moving.nii.gz", "fixed.nii.gz", "fixed.nii.gz"), "is an input itself"),
        (lambda: apply("1Warp.nii.gz", "moving.nii.gz", "fixed.nii.gz", moving_image="fixed.nii.gz"), "is an input"),
        (lambda: compose("1Warp.nii.gz", "fixed.nii.gz", "fixed.nii.gz"), "is an input itself"),
        (lambda: convert("1Warp.nii.gz", "moving.nii.gz", moving_image="moving.nii.gz"), "is an input itself"),
        (lambda: invert("1Warp.nii.gz", "moving.nii.gz", "moving.nii.gz"), "is an input itself"),
        (lambda: invert("1Warp.nii.gz", "fixed.nii.gz", "moving.nii.gz", fixed_image="fixed.nii.gz"), "is an input"),
        (lambda: jacobian("1Warp.nii.gz", "fixed.nii.gz", "fixed.nii.gz"), "is an input itself"),
        (lambda: jacobian("1Warp.nii.gz", "moving.nii.gz", moving_image="moving.nii.gz"), "is an input itself"),
        (lambda: apply("1Warp.nii.gz", "fixed.nii.gz", "."), "'fixed.nii.gz' is there already; move it"),
        (lambda: apply("1Warp.nii.gz", "moving.nii.gz", "a.png"), "is no NIfTI name"),
        (lambda: apply("1Warp.nii.gz", ["moving.nii.gz", "fixed.nii.gz"], "a.nii.gz"), "is one file for 2 inputs"),
        (lambda: apply("1Warp.nii.gz", ["moving.nii.gz", "moving.nii.gz"], "out"), "two inputs have one name"),
        (lambda: apply("1Warp.nii.gz", [], "out"), "nothing to apply the transform to"),
        (lambda: apply("1Warp.nii.gz", "1Warp.nii.gz", "a.nii.gz"), "has 5 axes, expected 3"),
        (lambda: apply("moving.nii.gz", "moving.nii.gz", "a.nii.gz"), "expected a field of intent"),
        (lambda: apply("0GenericAffine.mat", "moving.nii.gz", "a.nii.gz"), "has no grid of its own"),
        (lambda: convert("1Warp.nii.gz", "a.nii.gz", "fsl_relative"), "needs the moving image"),
        (lambda: convert("1Warp.nii.gz", "a.h5", "fsl_relative", moving_image="moving.nii.gz"), "is no name for"),
        (lambda: convert("1Warp.nii.gz", "a.mhd"), "is no name for the format 'vectors', expected .nrrd or .mha"),
        (lambda: convert("1Warp.nii.gz", "a.mgz"), "states both images; give the moving image"),
        (lambda: convert("1Warp.nii.gz", "a.nii.gz", "dipy"), "format is 'dipy'; choose one of"),
        (lambda: convert("1Warp.nii.gz", "a.nii.gz", "fls"), "format is 'fls'; choose one of"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_that_belong_to_an_input_stay(folder: Path) -> None:
    image = itk_image(VOLUME, MOVING_AFFINE)
    sitk.WriteImage(image, "moving.mhd")
    Path("moving.raw").rename("voxels.nii.gz")
    Path("moving.mhd").write_text(Path("moving.mhd").read_text().replace("moving.raw", "voxels.nii.gz"))
    write_volume(folder / "series", np.zeros((5, 4, 3), np.int16), np.eye(4))
    for output, like in (("voxels.nii.gz", "moving.mhd"), (str(min((folder / "series").iterdir())), "series")):
        before = Path(output).read_bytes()
        with pytest.raises(InputError, match="is an input itself and would be lost"):
            convert("0GenericAffine.mat", output, "dicom" if like == "series" else "itk_nifti", like=like)
        assert Path(output).read_bytes() == before


def test_a_result_that_the_memory_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    header = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), AFFINE).header
    header.set_data_shape((20000, 20000, 20000))  # a header alone, which states the grid
    Path("huge.nii").write_bytes(header.binaryblock)
    calls: dict[str, Callable[[], object]] = {
        "1": lambda: apply("1Warp.nii.gz", "moving.nii.gz", "a.nii.gz", "huge.nii"),
        "3": lambda: compose("1Warp.nii.gz", "a.nii.gz", "huge.nii"),
        "3 ": lambda: jacobian("1Warp.nii.gz", "a.nii.gz", "huge.nii"),
        "3  ": lambda: invert("1Warp.nii.gz", "a.nii.gz", "huge.nii"),
    }
    for channels, call in calls.items():
        size = f"20000 x 20000 x 20000 x {channels.strip()}"
        with pytest.raises(InputError, match=f"the grid of the result has {size} voxels, which take about .* to fill"):
            call()
    assert not Path("a.nii.gz").exists()
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", "1G")
    apply("1Warp.nii.gz", "moving.nii.gz", "a.nii.gz", "fixed.nii.gz")


@pytest.mark.parametrize("kind", ["field", "matrix", "spline"])
def test_numbers_that_are_not_finite_are_refused(kind: str) -> None:
    field = np.zeros((4, 4, 4, 3))
    field[1, 1, 1, 1] = np.nan
    spline = sitk.BSplineTransform(3)
    spline.SetParameters([float("nan"), *spline.GetParameters()[1:]])
    transforms = {
        "field": sitk.DisplacementFieldTransform(sitk.GetImageFromArray(field, isVector=True)),
        "matrix": sitk.TranslationTransform(3, [0.0, float("nan"), 0.0]),
        "spline": spline,
    }
    warp = field_of("1Warp.nii.gz")  # which makes it a transform that is not linear
    sitk.WriteTransform(sitk.CompositeTransform([warp, transforms[kind]]), "nan.h5")
    calls = [
        lambda: inspect("nan.h5"),
        lambda: apply("nan.h5", "moving.nii.gz", "a.nii.gz", "fixed.nii.gz"),
        lambda: jacobian("nan.h5", "a.nii.gz", "fixed.nii.gz"),
        lambda: invert("nan.h5", "a.nii.gz", "moving.nii.gz"),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"'nan\.h5' (holds NaN or infinite|is no affine map, expected a finite)"):
            call()
    assert not Path("a.nii.gz").exists()


def test_a_registration_and_apply_write_the_same(folder: Path) -> None:
    """The field of a pair, applied to the moving image: the file that the registration has written."""
    from monai.data import MetaTensor

    from monai_regplugins.transforms.warp_original import WarpOriginald

    ddf = torch.from_numpy(field_ras(SHAPE)) / 2
    pair = {
        "fixed": MetaTensor(torch.zeros(1, *SHAPE), affine=torch.from_numpy(nib.load("fixed.nii.gz").affine)),
        "moving_original": MetaTensor(torch.from_numpy(VOLUME)[None], affine=nib.load("moving.nii.gz").affine),
        "ddf": ddf,
        "initial_alignment_matrix": torch.from_numpy(T),
    }
    result = WarpOriginald()(pair)
    affine = result["fixed"].affine.numpy()
    for format in ("itk_nifti", "itk_h5", "slicer_nifti"):
        save_field(format, result["displacement"].numpy(), affine, FORMATS[format].file_name, FieldPair())
        apply(FORMATS[format].file_name, "moving.nii.gz", "warped.nii.gz", "fixed.nii.gz")
        written = nib.load("warped.nii.gz").get_fdata(dtype=np.float32)
        np.testing.assert_array_equal(written, result["warped"][0].numpy())


@pytest.mark.slow
def test_a_field_is_applied_in_little_more_than_its_own_memory() -> None:
    """12 bytes per voxel for the field, 4 each for the image and the result: a CT of 512 x 512 x 300 takes 1.5 GiB."""
    prepare = """
import nibabel as nib, numpy as np
from monai_regplugins.io import apply
from monai_regplugins.io.formats import save_field
for n in (20, 200):
    field = np.broadcast_to(np.sin(np.arange(n, dtype=np.float32)), (3, n, n, n))
    save_field("itk_nifti", field, np.eye(4), f"{n}.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((n, n, n), np.int16), np.eye(4)), f"ct{n}.nii.gz")
del field
apply("20.nii.gz", "ct20.nii.gz", "out.nii.gz", "ct20.nii.gz")
"""
    growth = peak_growth(prepare, 'apply("200.nii.gz", "ct200.nii.gz", "out.nii.gz", "ct200.nii.gz")')
    assert growth < 23 * 200**3  # another copy of the field, be it while that is decompressed, makes 27 at least


@pytest.mark.parametrize("format", ["native", "itk_h5", "itk_nifti", "vectors"])
def test_planes(format: str) -> None:
    """Two-dimensional images and fields, against SimpleITK."""
    affine = oblique((-0.9, 1.5, 1.0), (0.3, 0.0), (9.0, 8.0, 0.0))
    values = gaussian_filter(np.random.default_rng(0).normal(size=(18, 16)), 1.0).astype(np.float32)
    for name, content in (("plane", values), ("grid", np.zeros((18, 16), np.float32))):
        image = nib.Nifti1Image(content, affine)
        nib.save(image, f"{name}.nii.gz")
    field = field_ras(SHAPE)[:2, ..., 0]
    name = FORMATS[format].file_name if format in FORMATS else "a.nrrd"
    save_field("itk_h5", field, affine, "field.h5")
    if format != "itk_h5":
        convert("field.h5", name, format)
    else:
        name = "field.h5"
    apply(name, "plane.nii.gz", "warped.nii.gz", "grid.nii.gz")
    image, target = sitk.ReadImage("plane.nii.gz"), sitk.ReadImage("grid.nii.gz")
    theirs = sitk.Resample(image, target, sitk.ReadTransform("field.h5"), sitk.sitkLinear, float(values.min()))
    found = np.squeeze(nib.load("warped.nii.gz").get_fdata())
    off = np.abs(found - sitk.GetArrayFromImage(theirs).T) > 1e-3 * np.ptp(values)
    assert off.mean() < 0.01
