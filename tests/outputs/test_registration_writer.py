"""Folders of results: closed-form fields, and failures that leave the earlier result alone."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from field_cases import oblique
from ignite.engine import Engine
from matplotlib.figure import Figure
from monai.data import MetaTensor
from nifti_headers import KINDS, save_kind
from PIL import Image

from monai_regplugins.checks import InputError
from monai_regplugins.io import nifti
from monai_regplugins.io.formats import FORMATS, load_field
from monai_regplugins.io.provenance import Provenance
from monai_regplugins.outputs import RegistrationWriter, registration_writer
from monai_regplugins.readers.itk_world import itk_affine
from monai_regplugins.result import RegistrationResult
from monai_regplugins.transforms import LoadPaird, ResampleToFixedd
from monai_regplugins.transforms.warp_original import resample_original

SIZE = (9, 8, 10)
AFFINE = np.array([[0.0, -2.0, 0.0, 7.0], [1.5, 0.0, 0.0, -4.0], [0.0, 0.0, 3.0, 11.0], [0.0, 0.0, 0.0, 1.0]])
FILES = [
    "displacement_itk.nii.gz",
    "metrics.json",
    "provenance.json",
    "registration.png",
    "warped.nii.gz",
    "warped_label.nii.gz",
]


def engine(shift: Sequence[int], pair_id: str = "a_to_b", labels: bool = True) -> Any:
    """An engine that has just registered one pair of noise on one grid, with a field of the same shift everywhere."""
    size, generator = SIZE[: len(shift)], torch.Generator().manual_seed(1)

    def on_grid(values: torch.Tensor) -> MetaTensor:
        return MetaTensor(values, affine=torch.as_tensor(AFFINE))

    pair: dict[str, Any] = {"moving": on_grid(torch.rand(1, *size, generator=generator) * 300 - 100)}
    pair |= {"fixed": on_grid(torch.rand(1, *size, generator=generator)), "pair_id": pair_id}
    if labels:
        pair["moving_label"] = on_grid(torch.randint(0, 5, (1, *size), generator=generator, dtype=torch.uint8) * 50)
    item = ResampleToFixedd(keep_original=True)(pair)
    ddf = torch.tensor(shift, dtype=torch.float32).reshape(-1, *[1] * len(size)).expand(-1, *size)
    targets = {key: item[key].as_tensor() for key in ("moving", "fixed")} | {"spacing": item["spacing"]}
    output = {"pred": {"ddf": ddf, "warped": targets["moving"]}, "label": targets}
    return SimpleNamespace(state=SimpleNamespace(batch=[item], output=[output]))


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the picture, which takes most of the time."""
    monkeypatch.setattr(RegistrationResult, "figure", Figure(figsize=(1, 1)))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(path: Path) -> np.ndarray[Any, Any]:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    np.testing.assert_allclose(image.affine, AFFINE)
    return np.asarray(image.dataobj)


def test_a_shift_in_closed_form(tmp_path: Path) -> None:
    running = engine((1, -2, 0))
    RegistrationWriter(tmp_path)(running)

    folder, (item,) = tmp_path / "a_to_b", running.state.batch
    assert sorted(path.name for path in folder.iterdir()) == FILES
    for key, name, outside in (
        ("moving_original", "warped", float(item["moving_original"].min())),
        ("moving_label_original", "warped_label", 0.0),
    ):
        moving = item[key].numpy()[0]
        expected = np.full(SIZE, outside, dtype=moving.dtype)
        expected[:-1, 2:] = moving[1:, :-2]  # warped(x) = moving(x + (1, -2, 0))
        found = read(folder / f"{name}.nii.gz")
        assert found.dtype == moving.dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-2 if name == "warped" else 0)
    displacement = read(folder / "displacement_itk.nii.gz")
    assert displacement.shape == (*SIZE, 1, 3)
    np.testing.assert_allclose(displacement, np.broadcast_to([-4.0, -1.5, 0.0], displacement.shape), atol=1e-6)  # LPS
    with Image.open(folder / "registration.png") as picture:
        assert picture.width > 500


def test_the_initial_alignment_is_written_beside_the_field(tmp_path: Path, no_drawing: None) -> None:
    """ITK maps a point as the matrix does; the result folder and the provenance know of it; no alignment, no file."""
    running = engine((0, 0, 0))
    turn = np.array([[0.8, -0.6, 0.0, 3.0], [0.6, 0.8, 0.0, -5.0], [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
    running.state.batch[0]["initial_alignment_matrix"] = torch.from_numpy(turn)
    RegistrationWriter(tmp_path)(running)
    folder = tmp_path / "a_to_b"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "initial_alignment.tfm"])
    record = json.loads((folder / "provenance.json").read_text())
    assert "initial_alignment.tfm" in record["files"]
    np.testing.assert_allclose(record["initial_alignment"], turn)
    written = sitk.ReadTransform(str(folder / "initial_alignment.tfm"))
    point = np.array([7.0, -4.0, 11.0])
    expected = (turn @ [*point, 1.0])[:3] * [-1, -1, 1]
    np.testing.assert_allclose(written.TransformPoint((point * [-1, -1, 1]).tolist()), expected, atol=1e-9)
    displacement = read(folder / "displacement_itk.nii.gz")[0, 0, 0, 0] * [-1, -1, 1]  # of voxel 0, whose field is 0
    np.testing.assert_allclose(displacement, (turn @ [*AFFINE[:3, 3], 1.0])[:3] - AFFINE[:3, 3], atol=1e-4)

    RegistrationWriter(tmp_path)(engine((0, 0, 0)))
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_planar_pair_without_label(tmp_path: Path, no_drawing: None) -> None:
    running = engine((0, 1), labels=False)
    RegistrationWriter(tmp_path)(running)

    moving = running.state.batch[0]["moving_original"].numpy()[0]
    names = ["displacement.npz", "metrics.json", "provenance.json", "registration.png", "warped.nii.gz"]
    assert sorted(contents(tmp_path)) == [f"a_to_b/{name}" for name in names]
    np.testing.assert_allclose(read(tmp_path / "a_to_b" / "warped.nii.gz")[:, :-1], moving[:, 1:], atol=2e-2)


@pytest.mark.parametrize(("shift", "refined"), [((0, 1), False), ((1, -2, 0), True)])
def test_uncertainty_in_mm(shift: tuple[int, ...], refined: bool, tmp_path: Path, no_drawing: None) -> None:
    running = engine(shift)
    components = torch.rand(len(shift), *SIZE[: len(shift)])
    refinement = {"refinement": torch.zeros(2)} if refined else {}
    running.state.output[0]["pred"] |= {"uncertainty": components, **refinement}
    RegistrationWriter(tmp_path)(running)

    image = nib.load(tmp_path / "a_to_b" / "uncertainty.nii.gz")
    warped = nib.load(tmp_path / "a_to_b" / "warped.nii.gz")
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, warped.affine)
    steps = np.linalg.norm(warped.affine[:3, : len(shift)], axis=0)
    expected = np.linalg.norm(components.numpy() * steps.reshape(-1, *[1] * len(shift)), axis=0)
    np.testing.assert_allclose(image.get_fdata(), expected, rtol=1e-6)


def test_all_formats_and_their_inverses_hold_the_same_shift(tmp_path: Path, no_drawing: None) -> None:
    running = engine((1, -2, 0))
    RegistrationWriter(tmp_path, formats="all", inverse=True)(running)

    folder = tmp_path / "a_to_b"
    shift = AFFINE[:3, :3] @ [1, -2, 0]
    found = {path.name: load_field(path, AFFINE)[0] for path in folder.glob("*disp*")}
    assert len(found) == 2 * len(FORMATS)
    for name, displacement in found.items():
        back = name.startswith("inverse")
        expected = np.broadcast_to(shift.reshape(3, 1, 1, 1) * (-1 if back else 1), displacement.shape)
        np.testing.assert_allclose(displacement, expected, atol=1e-4, err_msg=name)


def test_of_a_plane_all_formats_are_those_that_hold_it(tmp_path: Path, no_drawing: None) -> None:
    RegistrationWriter(tmp_path, formats="all")(engine((0, 1), labels=False))
    names = sorted(path.name for path in (tmp_path / "a_to_b").glob("*disp*"))
    assert names == ["displacement.npz", "displacement_itk.h5", "displacement_itk.nii.gz"]


def test_an_unknown_format_is_refused_before_anything_is_registered(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="itk_nifti"):
        RegistrationWriter(tmp_path, formats="itk_nifty")


def test_fixed_points_come_as_voxels_of_the_moving_image(tmp_path: Path, no_drawing: None) -> None:
    running = engine((1, -2, 0))
    running.state.batch[0]["fixed_landmarks"] = torch.tensor([[2.0, 4.0, 3.0], [1.5, 3.0, 2.0]])
    RegistrationWriter(tmp_path)(running)
    moved = np.loadtxt(tmp_path / "a_to_b" / "fixed_points_in_moving.csv", delimiter=",")
    np.testing.assert_allclose(moved, [[3.0, 2.0, 3.0], [2.5, 1.0, 2.0]], atol=1e-5)


def test_measures_and_provenance_are_written(tmp_path: Path, no_drawing: None) -> None:
    running = engine((0, 0, 0))
    RegistrationWriter(tmp_path, provenance=Provenance({"initial_alignment": "none"}))(running)
    measures = json.loads((tmp_path / "a_to_b" / "metrics.json").read_text())
    assert measures["folding_percent"] == 0.0
    assert measures["ncc"] == pytest.approx(measures["ncc_before"])
    record = json.loads((tmp_path / "a_to_b" / "provenance.json").read_text())
    assert record["parameters"] == {"initial_alignment": "none"}
    assert record["seconds"] >= 0
    sizes = {name: entry["bytes"] for name, entry in record["files"].items()}
    assert sizes == {name: len(text) for name, text in contents(tmp_path / "a_to_b").items() if name in sizes}
    assert sorted([*sizes, "provenance.json"]) == FILES


def test_results_are_recognized_by_files_weights_and_configuration(tmp_path: Path, no_drawing: None) -> None:
    pair = {"pair_id": "a_to_b"}
    for side in ("fixed", "moving"):
        pair[side] = str(tmp_path / f"{side}.nii.gz")
        Path(pair[side]).write_bytes(b"image")

    def writer(steps: int) -> RegistrationWriter:
        return RegistrationWriter(tmp_path / "output", provenance=Provenance({"steps": steps}))

    def is_done(writer: RegistrationWriter) -> bool:
        return writer.folder(pair).is_complete(writer.provenance.describe(pair)["fingerprint"])

    assert not is_done(writer(0))
    state = engine((0, 0, 0)).state
    writer(0).write(RegistrationResult(state.batch[0], state.output[0], pair, seconds=1.0))
    assert is_done(writer(0))
    assert not is_done(writer(1))
    Path(pair["fixed"]).write_bytes(b"another image")
    assert not is_done(writer(0))
    (tmp_path / "output" / "a_to_b" / "provenance.json").write_text("{")
    assert not is_done(writer(0))


def test_further_parts_belong_to_the_result(tmp_path: Path, no_drawing: None) -> None:
    def part(result: RegistrationResult, folder: Path) -> None:
        (folder / "part.txt").write_text(result.pair_id)

    RegistrationWriter(tmp_path, parts=[part])(engine((0, 0, 0)))
    assert (tmp_path / "a_to_b" / "part.txt").read_text() == "a_to_b"
    assert "part.txt" in json.loads((tmp_path / "a_to_b" / "provenance.json").read_text())["files"]


def test_attached_it_writes_each_batch(tmp_path: Path, no_drawing: None) -> None:
    def register(running: Engine, pair_id: str) -> Any:
        state = engine((0, 0, 0), pair_id).state
        running.state.batch = state.batch
        return state.output

    runner = Engine(register)
    RegistrationWriter(tmp_path / "new" / "output").attach(runner)
    runner.run(["a_to_b", "c_to_d"])

    assert sorted(os.listdir(tmp_path / "new" / "output")) == ["a_to_b", "c_to_d"]


def test_an_earlier_result_of_the_same_images_is_replaced(tmp_path: Path, no_drawing: None) -> None:
    write = RegistrationWriter(tmp_path)
    write(engine((0, 0, 0)))
    before = contents(tmp_path)
    (tmp_path / "a_to_b" / "mine.txt").write_text("by hand")

    write(engine((1, 0, 0), labels=False))

    after = contents(tmp_path)
    assert after.pop("a_to_b/mine.txt") == b"by hand"
    assert sorted(after) == [f"a_to_b/{name}" for name in FILES[:5]]
    assert after["a_to_b/warped.nii.gz"] != before["a_to_b/warped.nii.gz"]


def test_a_result_of_other_images_is_not_replaced(tmp_path: Path, no_drawing: None) -> None:
    write = RegistrationWriter(tmp_path)
    write(engine((0, 0, 0)))
    before = contents(tmp_path)
    other = engine((0, 0, 0))
    other.state.batch[0]["moving_original"] += 1
    with pytest.raises(InputError, match=r"'.*a_to_b' is there already and holds other things"):
        write(other)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("failing", ["first file", "field", "rename"])
def test_a_failure_leaves_the_earlier_result(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_drawing: None
) -> None:
    write = RegistrationWriter(tmp_path)
    write(engine((0, 0, 0)))
    before = contents(tmp_path)
    opened, rename = nifti._opened, Path.rename

    def full() -> OSError:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing_open(path: Path) -> Any:
        if failing == "first file" or (failing == "field" and "displacement" in path.name):
            raise full()
        return opened(path)

    def failing_rename(path: Path, target: Path) -> Path:
        if failing == "rename" and path.parent.name == "new":
            raise full()
        return rename(path, target)

    monkeypatch.setattr(nifti, "_opened", failing_open)
    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(InputError, match=r"cannot write '.*a_to_b' \(No space left on device\)"):
        write(engine((1, 0, 0)))

    assert contents(tmp_path) == before
    assert os.listdir(tmp_path) == ["a_to_b"], "a temporary folder is left"


# --- the field for ITK, applied by SimpleITK to the very files --------------------------------------------------------


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    """A smooth image without a flat part."""
    x = np.indices(shape) / 4.0
    phase = np.random.default_rng(seed).uniform(0, 6, len(shape))
    return sum(np.sin(x[k] + phase[k] + 0.3 * x[k - 1]) for k in range(len(shape))).astype(np.float32)


def result_of(fixed: Path, moving: Path, d: int) -> RegistrationResult:
    """Two files with a smooth field, as a network would have made it."""
    pair = LoadPaird(spatial_dims=d)({"fixed": fixed, "moving": moving, "pair_id": "pair"})
    item = ResampleToFixedd(keep_original=True)(pair)
    shape = item["fixed"].shape[1:]
    ddf = torch.from_numpy(np.stack([0.8 * blobs(shape, 10 + k) / d for k in range(d)]))
    targets = {key: item[key].as_tensor() for key in ("moving", "fixed")} | {"spacing": item["spacing"]}
    given = {"fixed": str(fixed), "moving": str(moving)}
    return RegistrationResult(item, {"pred": {"ddf": ddf, "warped": targets["moving"]}, "label": targets}, given)


def resampled(path: Path, fixed: Path, moving: Path) -> np.ndarray[Any, Any]:
    """The moving file on the fixed file's grid, both as SimpleITK reads them."""
    images = [sitk.ReadImage(str(file), sitk.sitkFloat64) for file in (moving, fixed)]
    if path.suffix == ".h5":
        transform = sitk.ReadTransform(str(path))
    else:
        transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    image = sitk.Resample(*images, transform, sitk.sitkLinear, np.nan)
    return np.asarray(sitk.GetArrayFromImage(image)).T


def agrees(theirs: np.ndarray[Any, Any], ours: torch.Tensor, inside: float) -> None:
    """Equal where SimpleITK finds the other image."""
    found = np.isfinite(theirs)
    assert found.mean() > inside
    np.testing.assert_allclose(theirs[found], ours.numpy()[found], atol=2e-3 * float(ours.max() - ours.min()))


@pytest.mark.parametrize("inverse", [False, True])
def test_the_measures_state_how_exact_a_written_inverse_is(
    inverse: bool, tmp_path: Path, no_drawing: None, caplog: pytest.LogCaptureFixture
) -> None:
    running = engine((1, -2, 0))
    ddf = running.state.output[0]["pred"]["ddf"].clone()
    ddf[0] = -torch.arange(ddf.shape[1]).view(-1, 1, 1)  # all goes to the first plane
    running.state.output[0]["pred"]["ddf"] = ddf
    RegistrationWriter(tmp_path, inverse=inverse)(running)
    values = json.loads((tmp_path / "a_to_b" / "metrics.json").read_text())
    assert ("inverse_residual99" in values) == ("inverse_failed_percent" in values) == inverse
    assert any("the field has no inverse at" in line for line in caplog.messages) == inverse
    if inverse:
        assert values["inverse_residual_max"] > 0.5


# each kind of header once for either image, by a fixed draw
KINDS_OF_PAIRS = list(zip(KINDS, np.random.default_rng(5).permutation(list(KINDS)).tolist(), strict=True))
FIELDS = ("displacement_itk.nii.gz", "displacement_itk.h5", "displacement_slicer.nii.gz")


def files_of_kinds(folder: Path, fixed_kind: str, moving_kind: str) -> tuple[Path, Path]:
    """A fixed and a moving image whose headers are of these kinds."""
    fixed, moving = folder / "fixed.nii.gz", folder / "moving.nii"
    grids = {fixed: ((1.5, 1.2, -1.4), (0.3, 0.2), (12, 13, 11)), moving: ((1.1, 1.0, 1.2), (-0.2, 0.3), (34, 36, 32))}
    for seed, (file, kind) in enumerate(((fixed, fixed_kind), (moving, moving_kind))):
        affine = oblique(*grids[file])
        affine[:3, 3] += [40.0, -25.0, -130.0]  # around the origin, where files without a position lie
        save_kind(file, blobs(grids[file][2], seed), affine, KINDS[kind])
    return fixed, moving


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize(("fixed_kind", "moving_kind"), KINDS_OF_PAIRS)
def test_ants_and_nibabel_agree_with_what_is_written(tmp_path: Path, fixed_kind: str, moving_kind: str) -> None:
    ants = pytest.importorskip("ants", reason="needs antspyx")
    fixed, moving = files_of_kinds(tmp_path, fixed_kind, moving_kind)
    result = result_of(fixed, moving, 3)
    folder = RegistrationWriter(tmp_path / "out", ["itk_nifti", "itk_h5", "slicer_nifti"]).write(result)
    images, outside = [ants.image_read(str(file)) for file in (fixed, moving)], -1e4
    for name in FIELDS:
        theirs = ants.apply_transforms(*images, [str(folder / name)], "linear", defaultvalue=outside).numpy()
        agrees(np.where(theirs < outside / 2, np.nan, theirs), result.warped[0], inside=0.95)
    written = nib.load(folder / "warped.nii.gz")
    np.testing.assert_allclose(written.affine, result.fixed.affine, atol=1e-4)
    np.testing.assert_allclose(itk_affine(folder / "warped.nii.gz"), written.affine, atol=5e-4)  # ITK squares shear off
    np.testing.assert_allclose(written.get_fdata(), result.warped[0], atol=1e-3 * float(np.ptp(result.warped[0])))


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize(("fixed_kind", "moving_kind"), KINDS_OF_PAIRS)
def test_fields_fit_the_files_where_itk_places_them(tmp_path: Path, fixed_kind: str, moving_kind: str) -> None:
    fixed, moving = files_of_kinds(tmp_path, fixed_kind, moving_kind)
    result = result_of(fixed, moving, 3)
    folder = RegistrationWriter(tmp_path / "out", ["itk_nifti", "itk_h5", "slicer_nifti"], True).write(result)
    places = result.fixed.affine, result.moving.affine
    back = resample_original(result.fixed, *places, result.inverse_displacement)
    for name in FIELDS:
        agrees(resampled(folder / name, fixed, moving), result.warped[0], inside=0.95)
        agrees(resampled(folder / f"inverse_{name}", moving, fixed), back[0], inside=0.03)


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("names", [("a.png", "b.png"), ("a.bmp", "b.jpg"), ("a.jpg", "b.nii")])
def test_fields_fit_pictures(tmp_path: Path, names: tuple[str, str]) -> None:
    fixed, moving = (tmp_path / name for name in names)
    for seed, file in enumerate((fixed, moving)):
        values = np.round(40 * blobs((24, 20), seed) + 120).astype(np.uint8)
        if file.suffix == ".nii":
            nib.save(nib.Nifti1Image(values, np.diag([1.1, 0.9, 1.0, 1.0])), file)
        else:
            Image.fromarray(values.T).save(file, **({"dpi": (30, 25)} if file.suffix == ".jpg" else {}))
    result = result_of(fixed, moving, 2)
    folder = RegistrationWriter(tmp_path / "out", ["itk_nifti", "itk_h5"], True).write(result)
    for name in FIELDS[:2]:
        agrees(resampled(folder / name, fixed, moving), result.warped[0], inside=0.75)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"ncc": 0.9}, []),
        ({"dsc": float("nan"), "dsc_before": 0.5}, []),
        (
            {"dsc_before": 0.25, "dsc_aligned": 0.5, "dsc": 0.75},
            ["Dice before 0.250 -> aligned 0.500 -> registered 0.750"],
        ),
        (
            {"dsc_before": 0.25, "dsc": 0.75, "tre_before": 9.0, "tre": 1.5},
            ["Dice before 0.250 -> registered 0.750", "TRE (mm) before 9.00 -> registered 1.50"],
        ),
    ],
)
def test_the_line_of_the_verdict_has_overlap_and_landmark_error(metrics: dict[str, float], expected: list[str]) -> None:
    assert registration_writer._progress(metrics) == expected
