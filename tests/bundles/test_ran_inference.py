"""RAN's inference on a user's two files: results on the fixed grid that other tools read the same way."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import torch
from bundle_files import table
from dicom_series import SERIES, write_volume
from monai.bundle import ConfigParser, create_workflow
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.inferers import PairInferer
from monai_regplugins.io import apply, nifti
from monai_regplugins.networks.nets import RAN

pytestmark = pytest.mark.bundle
Array = npt.NDArray[Any]
Infer = Callable[..., Path]

FILES = ["displacement_itk.nii.gz", "metrics.json", "provenance.json", "registration.png", "warped.nii.gz"]
FIXED_SIZE, MOVING_SIZE = (18, 16, 20), (21, 19, 15)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Pair(NamedTuple):
    """Two images of one scene and the moving label, as files."""

    fixed: Path
    moving: Path
    moving_label: Path

    def settings(self) -> dict[str, str]:
        return {key: str(path) for key, path in self._asdict().items()}


def grid(size: tuple[int, ...], spacing: tuple[float, ...], center: tuple[float, ...], oblique: bool) -> Array:
    """Voxel-to-RAS matrix, 4 x 4, of a grid around ``center``; the first axis runs to the left."""
    angle, tilt = (0.3, 0.2) if oblique else (0.0, 0.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tip = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tip @ np.diag([-1, 1, 1]) * np.asarray(spacing)
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ ((np.asarray(size) - 1) / 2)
    return affine


def save(path: Path, values: Array, affine: Array) -> Path:
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


@pytest.fixture
def make_pair(tmp_path: Path) -> Callable[..., Pair]:
    """Return a function that saves a bright ball in noise on two grids, one of them oblique."""

    def make(oblique: str = "moving", center: tuple[float, ...] = (3.0, -2.0, 1.0)) -> Pair:
        grids = {
            "fixed": (FIXED_SIZE, grid(FIXED_SIZE, (2.0, 2.5, 2.2), (0.0, 0.0, 0.0), oblique == "fixed")),
            "moving": (MOVING_SIZE, grid(MOVING_SIZE, (1.9, 2.3, 3.0), center, oblique == "moving")),
        }
        random = np.random.default_rng(3)
        for name, (size, affine) in grids.items():
            squares = [((x - (n - 1) / 2) / n) ** 2 for x, n in zip(np.indices(size), size, strict=True)]
            noise = gaussian_filter(random.normal(size=size), 1.0) * 60
            values = (300 * np.exp(-12 * np.sum(squares, axis=0)) - 150 + noise).astype(np.float32)
            save(tmp_path / f"{name}.nii.gz", values, affine)
            label = np.digitize(values, [-100, 0, 80]).astype(np.uint8) * 70
            save(tmp_path / f"{name}_label.nii.gz", label, affine)
        return Pair(*(tmp_path / f"{name}.nii.gz" for name in ("fixed", "moving", "moving_label")))

    return make


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that move voxels by up to a few."""
    torch.manual_seed(2)
    network = RAN()
    for weight in network.parameters():
        weight.data += 0.03 * torch.randn_like(weight)
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def infer(repository: Path, tmp_path: Path, ckpt: Path) -> Infer:
    """Return a function that runs the configuration and gives its output folder."""

    def run(**settings: Any) -> Path:
        workflow = create_workflow(
            config_file=str(repository / "bundles" / "ran" / "configs" / "inference.json"),
            workflow_type="inference",
            logging_file=False,
            **{
                "device": "$torch.device('cpu')",
                "ckpt": str(ckpt),
                "spatial_size": [16, 16, 16],
                "output_dir": str(tmp_path / "output"),
                "refine_steps": 0,
                **settings,
            },
        )
        workflow.run()
        workflow.finalize()
        return tmp_path / "output"

    return run


def input_error(error: BaseException | None) -> str:
    """Message of the input error behind what the workflow raised."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return str(error)


def read(path: Path) -> tuple[Array, Array]:
    """Values and voxel-to-RAS matrix of a NIfTI file."""
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return np.asarray(image.dataobj), np.asarray(image.affine)


def moving_positions(folder: Path, pair: Pair) -> Array:
    """Where each fixed voxel comes from, (3, *fixed), voxels of the moving image, from the files alone."""
    displacement, affine = read(folder / "displacement_itk.nii.gz")
    points = np.einsum("kj,j...->k...", LPS @ affine, np.stack([*np.indices(FIXED_SIZE), np.ones(FIXED_SIZE)]))
    points[:3] += np.moveaxis(displacement[..., 0, :], -1, 0)
    to_voxel = np.linalg.inv(LPS @ read(pair.moving)[1])
    return np.einsum("kj,j...->k...", to_voxel, points)[:3]


def resampled(folder: Path, pair: Pair, image: Path, interpolator: int) -> Array:
    """Resample a moving image with the field as ITK does it."""
    field = sitk.Cast(sitk.ReadImage(str(folder / "displacement_itk.nii.gz")), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(field)
    fixed, moving = sitk.ReadImage(str(pair.fixed)), sitk.ReadImage(str(image))
    return sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, interpolator, -9999.0)).T


def inside(positions: Array, margin: float = 0.0) -> Array:
    """Whether positions (3, *fixed) lie between the centers of moving voxels, and ``margin`` further in."""
    limits = np.asarray(MOVING_SIZE).reshape(3, 1, 1, 1) - 1 - margin
    return np.asarray(((positions >= margin) & (positions <= limits)).all(axis=0))


@pytest.mark.parametrize("initial_alignment", ["none", "center"])
@pytest.mark.parametrize("oblique", ["fixed", "moving"])
def test_itk_warps_as_the_bundle_does(
    oblique: str, initial_alignment: str, make_pair: Callable[..., Pair], infer: Infer
) -> None:
    pair = make_pair(oblique)
    folder = infer(**pair.settings(), initial_alignment=initial_alignment) / "moving_to_fixed"

    made = [] if initial_alignment == "none" else ["initial_alignment.tfm"]
    assert sorted(os.listdir(folder)) == sorted([*FILES, "warped_label.nii.gz", *made])
    for name in ("warped", "warped_label", "displacement_itk"):
        values, affine = read(folder / f"{name}.nii.gz")
        assert values.shape[:3] == FIXED_SIZE
        np.testing.assert_allclose(affine, read(pair.fixed)[1], atol=1e-4)
    positions = moving_positions(folder, pair)
    seen = inside(positions, margin=1e-3)
    assert seen.mean() > 0.4
    warped = read(folder / "warped.nii.gz")[0]
    expected = resampled(folder, pair, pair.moving, sitk.sitkLinear)
    np.testing.assert_allclose(warped[seen], expected[seen], rtol=0, atol=0.05)  # of some 400 gray values
    unseen = ~inside(positions, margin=-1.001)
    assert unseen.any()
    np.testing.assert_array_equal(warped[unseen], read(pair.moving)[0].min())

    label, sure = read(folder / "warped_label.nii.gz")[0], (abs(positions % 1 - 0.5) > 1e-3).all(axis=0)
    expected = resampled(folder, pair, pair.moving_label, sitk.sitkNearestNeighbor)
    np.testing.assert_array_equal(label[seen & sure], expected[seen & sure])
    assert set(np.unique(label)) == {0, 70, 140, 210}

    for name, image, how in [("warped", pair.moving, "linear"), ("warped_label", pair.moving_label, "nearest")]:
        again = folder / f"again_{name}.nii.gz"
        apply(folder / "displacement_itk.nii.gz", image, again, like=pair.fixed, interpolation=how)
        np.testing.assert_array_equal(read(again)[0], read(folder / f"{name}.nii.gz")[0])


def test_the_field_is_the_one_of_the_network(make_pair: Callable[..., Pair], infer: Infer, ckpt: Path) -> None:
    """Images on one grid at the network's own size, with steps that are done by hand here."""
    fixed, affine = make_pair().fixed, grid((16, 16, 16), (2.0, 2.5, 2.2), (0.0, 0.0, 0.0), oblique=True)
    random, paths, scaled = np.random.default_rng(5), [fixed.with_name("f.nii"), fixed.with_name("m.nii")], []
    for path in paths:
        values = (gaussian_filter(random.normal(size=(16, 16, 16)), 1.5) * 900).astype(np.float32)
        save(path, values, affine)
        window = np.clip(values, -160, 240)
        scaled.append(torch.from_numpy((window - window.min()) / (window.max() - window.min())))
    folder = infer(fixed=str(paths[0]), moving=str(paths[1])) / "m_to_f"

    network = RAN()
    network.load_state_dict(torch.load(ckpt, weights_only=True))
    with torch.no_grad():
        ddf = network.eval()(torch.stack(scaled[::-1])[None])[0].numpy()
    assert np.abs(ddf).mean() > 0.5, "the field is too small to show anything"
    expected = np.einsum("kj,j...->...k", (LPS @ affine)[:3, :3], ddf)
    displacement = read(folder / "displacement_itk.nii.gz")[0]
    np.testing.assert_allclose(displacement[..., 0, :], expected, rtol=0, atol=1e-3)


def test_centers_of_mass_bring_distant_images_together(
    make_pair: Callable[..., Pair], infer: Infer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, distance = make_pair(center=(400.0, -300.0, 200.0)), np.array([-400.0, 300.0, 200.0])  # LPS
    with pytest.raises(RuntimeError) as raised:
        infer(**pair.settings())
    assert "do not overlap" in input_error(raised.value)
    assert "initial_alignment='center'" in input_error(raised.value)

    def still(self: PairInferer, image: torch.Tensor, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        ddf = torch.zeros(1, 3, *image.shape[2:])
        return {"ddf": ddf, "warped": fields.warp(image[:, :1], ddf)}

    monkeypatch.setattr(PairInferer, "__call__", still)
    displacement = read(infer(**pair.settings(), initial_alignment="center") / "moving_to_fixed" / FILES[0])[0]
    np.testing.assert_allclose(displacement.reshape(-1, 3), np.broadcast_to(distance, (18 * 16 * 20, 3)), atol=3.0)


@pytest.mark.slow
def test_nrrd_gives_the_same_result(make_pair: Callable[..., Pair], infer: Infer) -> None:
    pair = make_pair()
    copies = {}
    for key, path in pair._asdict().items():
        copies[key] = str(path).replace(".nii.gz", "_copy.nrrd")
        sitk.WriteImage(sitk.ReadImage(str(path)), copies[key])

    output = infer(**pair.settings())
    infer(**copies)

    assert sorted(os.listdir(output)) == ["moving_copy_to_fixed_copy", "moving_to_fixed"]
    for name, tolerance in (("warped", 0.1), ("displacement_itk", 1e-2)):
        of_nifti, of_nrrd = (read(output / folder / f"{name}.nii.gz") for folder in sorted(os.listdir(output)))
        np.testing.assert_allclose(of_nrrd[0], of_nifti[0], rtol=0, atol=tolerance)
        np.testing.assert_allclose(of_nrrd[1], of_nifti[1], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_rerun_replaces_the_folder_and_a_failed_one_does_not(
    make_pair: Callable[..., Pair], infer: Infer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair()
    folder = infer(**pair.settings()) / "moving_to_fixed"
    (folder / "mine.txt").write_text("of someone else", encoding="utf-8")
    images = {"fixed": str(pair.fixed), "moving": str(pair.moving)}

    infer(**images)

    assert (folder / "mine.txt").read_text(encoding="utf-8") == "of someone else"
    (folder / "mine.txt").unlink()
    assert sorted(os.listdir(folder)) == FILES
    assert os.listdir(folder.parent) == [folder.name]
    before, opened = {name: (folder / name).read_bytes() for name in FILES}, nifti._opened

    def full(path: Path) -> Any:
        if "displacement" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path)

    monkeypatch.setattr(nifti, "_opened", full)
    with pytest.raises(RuntimeError) as raised:
        infer(**images, initial_alignment="center")

    assert "No space left on device" in input_error(raised.value)
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before
    assert os.listdir(folder.parent) == [folder.name], "a temporary folder is left"


@pytest.fixture
def pair_list(make_pair: Callable[..., Pair], tmp_path: Path) -> Path:
    """A list of three pairs, the second of which is damaged."""
    pair = make_pair()
    (tmp_path / "damaged.nii.gz").write_bytes(pair.moving.read_bytes()[:2000])
    label = "moving_label.nii.gz,fixed_label.nii.gz"
    lines = [
        "fixed,moving,moving_label,fixed_label,pair_id",
        f"fixed.nii.gz,moving.nii.gz,{label},first",
        f"fixed.nii.gz,damaged.nii.gz,{label},second",
        f"fixed.nii.gz,moving.nii.gz,{label},third",
    ]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_bad_pair_does_not_stop_the_others_and_those_done_are_left_out(
    pair_list: Path, infer: Infer, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError) as raised:
        infer(pairs_file=str(pair_list))
    assert "1 of 3 pairs failed (second)" in input_error(raised.value)
    output = tmp_path / "output"
    assert sorted(os.listdir(output)) == ["first", "metrics.csv", "provenance.json", "report.html", "third"]
    assert list(table(output / "metrics.csv")) == ["first", "third", "second", "mean", "sd"]
    before = (output / "first" / "provenance.json").stat().st_mtime_ns

    (tmp_path / "damaged.nii.gz").write_bytes((tmp_path / "moving.nii.gz").read_bytes())
    with pytest.raises(RuntimeError) as raised:  # the images are noise
        infer(pairs_file=str(pair_list))
    assert "3 of 3 results are not to be trusted (first, second, third)" in input_error(raised.value)
    written = (output / "second" / "provenance.json").stat().st_mtime_ns
    infer(pairs_file=str(pair_list), fail_on="never")
    assert (output / "second" / "provenance.json").stat().st_mtime_ns == written, "registered again"

    assert list(table(output / "metrics.csv")) == ["first", "second", "third", "mean", "sd"]
    assert (output / "first" / "provenance.json").stat().st_mtime_ns == before
    assert '<h3><a href="second/">second</a></h3>' in (output / "report.html").read_text(encoding="utf-8")


def test_refinement_is_told_and_changes_the_field(
    make_pair: Callable[..., Pair], infer: Infer, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_pair().settings()
    plain = read(infer(**settings) / "moving_to_fixed" / FILES[0])[0]
    with caplog.at_level(logging.INFO):
        refined = read(infer(**settings, refine_steps=5) / "moving_to_fixed" / FILES[0])[0]
    (line,) = [record.getMessage() for record in caplog.records if "refined" in record.getMessage()]
    before, after = (float(word) for word in re.findall(r"-?[\d.]+(?= ->| in)", line))
    assert after < before
    assert np.abs(refined - plain).max() > 0.01


@pytest.mark.slow
def test_a_dicom_series_gives_the_same_result(make_pair: Callable[..., Pair], infer: Infer, tmp_path: Path) -> None:
    """The same moving volume as NIfTI and as the slices that SimpleITK writes of it, whose values are whole numbers."""
    pair, series = make_pair(), tmp_path / "series"
    series.mkdir()
    volume = sitk.Cast(sitk.Round(sitk.ReadImage(str(pair.moving))), sitk.sitkInt16)
    whole = tmp_path / "whole.nii.gz"
    sitk.WriteImage(volume, str(whole))
    direction, uid = volume.GetDirection(), "1.2.826.0.1.3680043.2.1125.7"
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(volume.GetSize()[2]):
        one = volume[:, :, k]
        tags = {
            "0008|0060": "CT",
            "0020|000d": f"{uid}.1",
            "0020|000e": f"{uid}.2",
            "0008|0018": f"{uid}.3.{k}",
            "0020|0052": f"{uid}.4",
            "0020|0032": "\\".join(f"{x:.6f}" for x in volume.TransformIndexToPhysicalPoint((0, 0, k))),
            "0020|0037": "\\".join(f"{direction[i]:.8f}" for i in (0, 3, 6, 1, 4, 7)),
            "0020|0013": str(k),
        }
        for tag, value in tags.items():
            one.SetMetaData(tag, value)
        writer.SetFileName(str(series / f"{k:03d}.dcm"))
        writer.Execute(one)

    infer(fixed=str(pair.fixed), moving=str(whole))
    output = infer(fixed=str(pair.fixed), moving=str(series))
    of_nifti, of_dicom = (
        {name: read(output / f"{moving}_to_fixed" / f"{name}.nii.gz")[0] for name in ("warped", "displacement_itk")}
        for moving in ("whole", "series")
    )
    np.testing.assert_allclose(of_dicom["displacement_itk"], of_nifti["displacement_itk"], rtol=0, atol=1e-2)
    np.testing.assert_allclose(of_dicom["warped"], of_nifti["warped"], rtol=0, atol=0.2)  # of some 400 gray values


@pytest.mark.slow
def test_two_patients_on_the_command_line(infer: Infer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {}
    for number, side in enumerate(("fixed", "moving")):
        stored = np.random.default_rng(number).integers(-100, 300, FIXED_SIZE).astype(np.int16)
        about = {"SeriesInstanceUID": f"{SERIES}.{number}", "PatientBirthDate": f"197001{11 + number}"}
        write_volume(tmp_path / side, stored, np.diag([2.0, 2.5, 2.2, 1.0]), **about)
        settings[side] = str(tmp_path / side)
    with pytest.raises(RuntimeError) as error:
        infer(**settings)
    assert "two patients by their PatientBirthDate, expected one" in input_error(error.value)
    assert not (tmp_path / "output").exists()
    with caplog.at_level(logging.WARNING):
        assert (infer(**settings, other_patient=True) / "moving_to_fixed" / "warped.nii.gz").is_file()
    assert "PatientBirthDate, which other_patient allows" in caplog.text


def correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])


def overlap(a: Array, b: Array) -> float:
    """Mean Dice coefficient of the labels above 0 of the first image."""
    masks = [(a == label, b == label) for label in np.unique(a) if label]
    return float(np.mean([2 * (x & y).sum() / (x.sum() + y.sum()) for x, y in masks]))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_the_measures_are_those_of_the_written_files(make_pair: Callable[..., Pair], infer: Infer) -> None:
    window, pair = (-100.0, 120.0), make_pair("fixed")
    paths = {"fixed_label": str(pair.fixed.with_name("fixed_label.nii.gz")), "window": list(window)}
    folder = infer(**pair.settings(), **paths) / "moving_to_fixed"
    measures = json.loads((folder / "metrics.json").read_text())

    fixed, fixed_label = read(pair.fixed)[0].clip(*window), read(Path(paths["fixed_label"]))[0]
    warped, warped_label = (read(folder / f"{name}.nii.gz")[0] for name in ("warped", "warped_label"))
    seen = inside(moving_positions(folder, pair), margin=-0.5)  # beyond the moving image there is nothing to compare
    assert 0.4 < seen.mean() < 0.9
    assert measures["ncc"] == pytest.approx(correlation(warped.clip(*window)[seen], fixed[seen]), abs=1e-6)
    assert measures["dsc"] == pytest.approx(overlap(fixed_label, warped_label), abs=1e-9)
    assert abs(measures["ncc"] - correlation(warped[seen], fixed[seen])) > 1e-3, "the window makes no difference"
    one_hot = [
        torch.from_numpy(np.stack([label == value for value in (0, 70, 140, 210)]))[None]
        for label in (warped_label, fixed_label)
    ]
    distances = compute_hausdorff_distance(*one_hot, spacing=(2.0, 2.5, 2.2))
    assert measures["hd"] == pytest.approx(distances.mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("file", "inferers"),
    [("train", ["train#inferer", "validate#inferer"]), ("evaluate", ["registration"]), ("inference", ["registration"])],
)
def test_the_moving_image_is_warped_as_it_was_resampled(file: str, inferers: list[str], repository: Path) -> None:
    """Beyond its border an extended image goes on, any other is air."""
    config = ConfigParser.load_config_file(repository / "bundles" / "ran" / "configs" / f"{file}.json")
    for extended, padding in ((True, "border"), (False, "zeros")):
        parser = ConfigParser({**config, "extend_border": extended})
        assert [parser.get_parsed_content(name).padding for name in inferers] == [padding] * len(inferers)
