"""Bundles as functions: what they return is what the command line writes, and nothing else happens."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from bundle_files import files_of
from dicom_series import SERIES, write_volume
from field_cases import PLANE, oblique
from monai.bundle import ComponentLocator, ConfigParser, create_workflow
from monai.data import DataLoader, Dataset, MetaTensor
from monai.utils import SpaceKeys, set_determinism

from monai_regplugins import fields
from monai_regplugins.bundle_folders import packaged_bundles
from monai_regplugins.checks import InputError
from monai_regplugins.register_transform import RegisterPaird
from monai_regplugins.registration import Registration, _parser, load_bundle

pytestmark = pytest.mark.bundle
Array = npt.NDArray[Any]

TINY: dict[str, dict[str, Any]] = {
    "ran": {"spatial_size": [16, 16, 16]},
    "r2n2": {"spatial_size": [32, 32], "steps": 3},
    "regnet": {"voxel_size": 3.0, "width": 0.2, "tile": 16},
}
FIXED, MOVING = (20, 18, 22), (21, 19, 15)
MOVING_GRID = (1.9, 2.3, 3.0), (0.2, 0.1)
MOVED = np.array([[1, 0, 0, 4], [0, 1, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1.0]])
LOADED_LATER = ("created", "seconds")


class Pair(NamedTuple):
    """The files of a pair."""

    fixed: Path
    moving: Path
    fixed_label: Path
    moving_label: Path
    fixed_points: Path
    moving_points: Path
    mask: Path

    def of(self, *names: str) -> dict[str, str]:
        return {name: str(getattr(self, name)) for name in names or self._fields}


def scene(size: tuple[int, ...], seed: int) -> Array:
    """A bright ball in noise, in HU."""
    squares = [((x - (n - 1) / 2) / n) ** 2 for x, n in zip(np.indices(size), size, strict=True)]
    noise = np.random.default_rng(seed).normal(size=size) * 20
    values: Array = (300 * np.exp(-12 * np.sum(squares, axis=0)) - 150 + noise).astype(np.float32)
    return values


def save(path: Path, values: Array, affine: Array) -> Path:
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def make_pair(folder: Path, spatial_dims: int = 3) -> Pair:
    """A pair on two grids, with all that may come with it; in 2D two slices of one plane."""
    folder.mkdir(parents=True, exist_ok=True)
    d = spatial_dims
    affines = {"fixed": oblique((2.0, 2.5, 2.2), (0.0, 0.0), FIXED), "moving": MOVED @ oblique(*MOVING_GRID, MOVING)}
    if d == 2:
        affines = {"fixed": PLANE, "moving": PLANE @ np.diag([1.1, 0.9, 1.0, 1.0])}
    for seed, (side, size) in enumerate({"fixed": FIXED[:d], "moving": MOVING[:d]}.items()):
        image = scene(size, seed)
        save(folder / f"{side}.nii.gz", image, affines[side])
        save(folder / f"{side}_label.nii.gz", np.digitize(image, [-100, 0, 80]).astype(np.uint8), affines[side])
        points = np.random.default_rng(seed).uniform(6, 10, (3, d))
        np.savetxt(folder / f"{side}_points.csv", points, delimiter=",", fmt="%.3f")
    save(folder / "mask.nii.gz", (scene(FIXED[:d], 0) > -100).astype(np.uint8), affines["fixed"])
    names = [f"{name}.csv" if name.endswith("points") else f"{name}.nii.gz" for name in Pair._fields]
    return Pair(*(folder / name for name in names))


@pytest.fixture(scope="module")
def bundles(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the three bundles with random weights that move voxels by up to a few."""
    folder = tmp_path_factory.mktemp("home") / "bundles"
    for name, settings in TINY.items():
        shutil.copytree(repository / "bundles" / name / "configs", folder / name / "configs")
        config = ConfigParser.load_config_file(folder / name / "configs" / "inference.json")
        torch.manual_seed(2)
        network = ConfigParser({**config, **settings}).get_parsed_content("network_def")
        for weight in network.parameters():
            weight.data += 0.03 * torch.randn_like(weight)
        (folder / name / "models").mkdir()
        torch.save(network.state_dict(), folder / name / "models" / "model.pt")
    return folder


@pytest.fixture
def copy(bundles: Path, tmp_path: Path) -> Path:
    """A copy of RAN's bundle, to be damaged."""
    return Path(shutil.copytree(bundles / "ran", tmp_path / "copy"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def register(bundles: Path) -> Registration:
    """RAN's bundle as a function."""
    return load_bundle(bundles / "ran", device="cpu", **TINY["ran"])


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start in an empty folder, and without a folder of downloads."""
    monkeypatch.setattr(sys, "argv", ["host"])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return a function that runs a bundle's inference as MONAI's command line does, and gives the pair's folder."""
    factory, hook, path = logging.getLogRecordFactory(), sys.excepthook, list(sys.path)

    def run(bundle: Path, output_dir: Path, **settings: Any) -> Path:
        workflow = create_workflow(
            config_file=str(bundle / "configs" / "inference.json"),
            workflow_type="inference",
            logging_file=False,
            device="$torch.device('cpu')",
            output_dir=str(output_dir),
            **settings,
        )
        workflow.run()
        workflow.finalize()
        (folder,) = output_dir.iterdir()
        return folder

    yield run
    logging.setLogRecordFactory(factory)
    sys.excepthook, sys.path[:] = hook, path
    set_determinism(None)


def read(path: Path) -> Any:
    """The content of a result, as far as it is not the time of day."""
    if path.name == "provenance.json":
        return {key: value for key, value in json.loads(path.read_text()).items() if key not in LOADED_LATER}
    if path.name.endswith(".nii.gz"):
        image = nib.load(path)
        assert isinstance(image, nib.Nifti1Image)
        return np.asarray(image.dataobj).tobytes(), image.affine.tobytes(), image.header.get_data_dtype()
    if path.suffix == ".npz":
        return {name: array.tobytes() for name, array in np.load(path).items()}
    return path.read_bytes()


def assert_same_files(ours: Path, theirs: Path) -> None:
    assert files_of(ours) == files_of(theirs)
    assert [name for name in files_of(ours) if read(ours / name) != read(theirs / name)] == []


def loaded(path: Path) -> MetaTensor:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return MetaTensor(np.asarray(image.dataobj), affine=image.affine)


def values_of(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(nib.load(path).dataobj))  # type: ignore[attr-defined]


# --- the same as the command line


@pytest.mark.parametrize("name", ["ran", *(pytest.param(name, marks=pytest.mark.slow) for name in ("r2n2", "regnet"))])
def test_it_writes_what_the_command_line_writes(
    name: str, bundles: Path, tmp_path: Path, command_line: Callable[..., Path]
) -> None:
    pair = make_pair(tmp_path / "images", spatial_dims=2 if name == "r2n2" else 3)
    settings = {**TINY[name], "formats": "native", "inverse": True, "initial_alignment": "center"}
    expected = command_line(bundles / name, tmp_path / "theirs", **pair.of(), **settings)

    register = load_bundle(bundles / name, device="cpu", **settings)
    result = register(**pair.of())
    folder = result.save(tmp_path / "ours")
    assert folder == tmp_path / "ours" / "moving_to_fixed"
    assert_same_files(folder, expected)
    assert json.loads((folder / "provenance.json").read_text())["seconds"] == round(result.seconds, 3) > 0

    total = fields.warp(result.warped[None], torch.zeros_like(result.ddf)[None])  # it is an image on the grid of ddf
    with np.load(expected / "displacement.npz") as saved:
        assert total.shape[2:] == saved["ddf"].shape[1:]
    assert torch.equal(result.warped.as_tensor()[0], values_of(expected / "warped.nii.gz"))
    assert result.warped_label is not None
    assert torch.equal(result.warped_label.as_tensor()[0], values_of(expected / "warped_label.nii.gz"))
    assert result.fixed_points_in_moving is not None
    points = np.loadtxt(expected / "fixed_points_in_moving.csv", delimiter=",")
    np.testing.assert_allclose(result.fixed_points_in_moving, points, atol=1e-6)
    reported = json.loads((expected / "metrics.json").read_text())
    assert (reported.pop("verdict"), reported.pop("reasons")) == (result.verdict.level, list(result.verdict.reasons))
    values = result.metrics | result.inverse_metrics
    assert {key: value if np.isfinite(value) else None for key, value in values.items()} == reported
    assert {"tre", "dsc", "ncc"} <= reported.keys()
    assert ("network_transformations.json" in files_of(folder)) == (name == "r2n2")


@pytest.mark.parametrize("name", ["ran", *(pytest.param(name, marks=pytest.mark.slow) for name in ("r2n2", "regnet"))])
@pytest.mark.slow
def test_masks_count_alike_from_wherever_they_come(name: str, bundles: Path, tmp_path: Path) -> None:
    """From a call, a transform, an option, a list and the json file of a data set."""
    d = 2 if name == "r2n2" else 3
    made, data = make_pair(tmp_path / "images", d), tmp_path / "data"
    images = {side: str(getattr(made, side)) for side in ("fixed", "moving")}
    masks = {}
    for side in images:
        values = values_of(Path(images[side])) > 0
        affine = nib.load(images[side]).affine  # type: ignore[attr-defined]
        masks[f"{side}_mask"] = str(save(tmp_path / f"{side}_mask.nii.gz", values.byte().numpy(), affine))
    files = {**images, **masks}
    (tmp_path / "list.json").write_text(json.dumps([files]))
    data.mkdir()
    subjects = [{"image": files[side], "mask": files[f"{side}_mask"]} for side in ("moving", "fixed")]
    pairs = [{side: files[side] for side in images}]
    (data / "Own_dataset.json").write_text(
        json.dumps({"name": "Own", "tensorImageSize": f"{d}D", "training": subjects, "registration_val": pairs})
    )
    settings = {**TINY[name], "refine_steps": 4, "refine_levels": 1, "device": "cpu"}
    register = load_bundle(bundles / name, **settings)
    expected = register(**files).ddf
    assert not torch.equal(expected, register(**images).ddf)
    ways = [files, {"pairs_file": str(tmp_path / "list.json")}, {"dataset_dir": str(data)}]
    config = ConfigParser.load_config_file(bundles / name / "configs" / "inference.json")
    for way in ways:
        (pair,) = ConfigParser({**config, **way, "bundle_root": str(bundles / name)}).get_parsed_content("pairs")
        assert torch.equal(register._register(pair).ddf, expected), way
    transform = RegisterPaird(bundle=register, mask_key="fixed_mask", moving_mask_key="moving_mask")
    displacement = transform({key: loaded(Path(path)) for key, path in files.items()})["displacement"]
    assert torch.equal(displacement, register(**files).displacement)
    for_measures = load_bundle(bundles / name, **settings, masked_loss=False)
    assert torch.equal(for_measures(**files).ddf, for_measures(**images).ddf)
    assert for_measures(**files).metrics["ncc"] != for_measures(**images).metrics["ncc"]


@pytest.mark.parametrize("name", ["r2n2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ran", "regnet"))])
def test_labels_and_landmarks_drive_and_are_measured_apart(name: str, bundles: Path, tmp_path: Path) -> None:
    """From a call and a transform; the label and the points that are left out are measured as ever."""
    made = make_pair(tmp_path / "images", 2 if name == "r2n2" else 3)
    files = {key: path for key, path in made.of().items() if key != "mask"}
    settings = {**TINY[name], "refine_steps": 20, "refine_levels": 1, "refine_node_smoothing": 0, "device": "cpu"}
    labels = {"refine_label_weight": 10.0, "driving_labels": [3]}
    points = {"refine_landmark_weight": 1.0, "driving_landmarks": [0, 2]}
    plain, by_labels = (load_bundle(bundles / name, **settings, **more)(**files).metrics for more in ({}, labels))
    assert by_labels["driving_dsc"] == by_labels["dsc_3"] > plain["dsc_3"]
    assert by_labels["dsc"] == pytest.approx((by_labels["dsc_1"] + by_labels["dsc_2"]) / 2)
    result = (register := load_bundle(bundles / name, **settings, **labels, **points))(**files)
    found = result.metrics
    assert found["tre_before"] == pytest.approx(3 * plain["tre_before"] - 2 * found["driving_tre_before"])
    assert found["driving_tre"] < min(found["driving_tre_before"], by_labels["tre"])
    assert found["driving_dsc_before"] == plain["dsc_before_3"]
    keys = {f"{key}_key": key for key in files if key not in ("fixed", "moving")}
    transformed = RegisterPaird(bundle=register, **keys)(files)  # type: ignore[arg-type]
    assert torch.equal(transformed["displacement"], result.displacement)
    with pytest.raises(InputError, match="refine_label_weight is above 0, but the pair has no fixed label map"):
        register(**{key: path for key, path in files.items() if key != "fixed_label"})
    with pytest.raises(InputError, match="labels or landmarks are to drive instance optimization, which is off"):
        load_bundle(bundles / name, **{**settings, **points, "refine_steps": 0})


@pytest.mark.parametrize("name", ["r2n2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ran", "regnet"))])
def test_a_velocity_gives_a_field_with_an_inverse(name: str, bundles: Path, tmp_path: Path) -> None:
    images = make_pair(tmp_path, 2 if name == "r2n2" else 3).of("fixed", "moving")
    found = {}
    for transform in ("displacement", "velocity"):
        settings = {**TINY[name], "refine_transform": transform, "refine_steps": 10, "refine_levels": 2}
        found[transform] = load_bundle(bundles / name, device="cpu", **settings)(**images)
        assert found[transform].metrics["folding_strict_percent"] == 0
        assert found[transform].inverse_metrics["inverse_residual99"] < 0.01
    moved = [torch.linalg.vector_norm(result.ddf, dim=0).mean() for result in found.values()]
    assert min(moved) > 0.1
    assert not torch.allclose(*(result.ddf for result in found.values()), atol=0.01)


@pytest.mark.slow
def test_it_equals_the_program(
    register: Registration, bundles: Path, pair: Pair, repository: Path, tmp_path: Path
) -> None:
    flags = {**pair.of("fixed", "moving"), **TINY["ran"], "output_dir": str(tmp_path / "theirs")}
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    file = bundles / "ran" / "configs" / "inference.json"
    subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", str(file), *words],
        check=True,
        env={**os.environ, "PYTHONPATH": str(repository), "CUDA_VISIBLE_DEVICES": ""},
    )
    ours = register(pair.fixed, pair.moving).save(tmp_path / "ours")
    assert_same_files(ours, tmp_path / "theirs" / "moving_to_fixed")


def test_fields_and_grids(bundles: Path, pair: Pair) -> None:
    """The displacement is the field in mm, after the initial alignment; both say where the fixed points lie."""
    register = load_bundle(bundles / "ran", device="cpu", initial_alignment="center", **TINY["ran"])
    result = register(pair.fixed, pair.moving, fixed_points=pair.fixed_points)
    affine = {side: torch.from_numpy(nib.load(getattr(pair, side)).affine) for side in ("fixed", "moving")}  # type: ignore[attr-defined]
    assert torch.equal(result.displacement.affine, affine["fixed"])
    assert torch.equal(result.warped.affine, affine["fixed"])
    assert result.ddf.shape == result.displacement.shape == (3, *FIXED)
    assert type(result.ddf) is torch.Tensor
    without = result.displacement.as_tensor() - torch.einsum(
        "kj,j...->k...", affine["fixed"][:3, :3].float(), result.ddf
    )
    shift = without.flatten(1).mean(dim=1)  # centers of mass: a translation
    torch.testing.assert_close(without, shift[:, None, None, None].expand_as(without), atol=1e-3, rtol=0)
    assert shift.norm() > 1

    points = torch.from_numpy(np.loadtxt(pair.fixed_points, delimiter=","))
    moved = points + fields.sample_at(result.ddf[None].double(), points[None])[0]
    world = moved @ affine["fixed"][:3, :3].T + affine["fixed"][:3, 3] + shift.double()
    expected = (world - affine["moving"][:3, 3]) @ torch.linalg.inv(affine["moving"][:3, :3]).T
    assert result.fixed_points_in_moving is not None
    torch.testing.assert_close(result.fixed_points_in_moving, expected, atol=1e-3, rtol=0)


def test_a_plain_pair_has_nothing_more(register: Registration, pair: Pair) -> None:
    result = register(pair.fixed, pair.moving)
    assert (result.warped_label, result.fixed_points_in_moving, result.uncertainty) == (None, None, None)
    assert result.pair_id == "moving_to_fixed"


@pytest.mark.parametrize("name", [*TINY])
@pytest.mark.slow
def test_uncertainty(name: str, bundles: Path, tmp_path: Path) -> None:
    """An image on the fixed grid, in proportion to the factor; without it everything else is the same."""
    pair = make_pair(tmp_path / "pair", spatial_dims=2 if name == "r2n2" else 3)
    settings = {"device": "cpu", "refine_steps": 3, **TINY[name]}
    given = ({}, {"uncertainty": True}, {"uncertainty": True, "uncertainty_factor": 7.0})
    plain, found, wider = (load_bundle(bundles / name, **settings, **more)(pair.fixed, pair.moving) for more in given)
    assert plain.uncertainty is None
    assert found.uncertainty is not None
    assert wider.uncertainty is not None
    assert found.uncertainty.shape == plain.fixed.shape
    assert torch.equal(found.uncertainty.affine, plain.fixed.affine)
    assert found.uncertainty.min() > 0
    assert torch.equal(found.ddf, plain.ddf)
    assert found.metrics == pytest.approx(plain.metrics, nan_ok=True)
    config = ConfigParser.load_config_file(bundles / name / "configs" / "inference.json")
    torch.testing.assert_close(wider.uncertainty, found.uncertainty * (7.0 / config["uncertainty_factor"]))
    saved = [result.save(tmp_path / folder) for folder, result in (("plain", plain), ("found", found))]
    assert set(files_of(saved[1])) - set(files_of(saved[0])) == {"uncertainty.nii.gz"}
    assert torch.equal(values_of(saved[1] / "uncertainty.nii.gz"), found.uncertainty[0].as_tensor())


def test_uncertainty_of_r2n2_alone(bundles: Path, tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "plane", spatial_dims=2)
    settings = {"device": "cpu", "refine_steps": 0, "uncertainty": True, **TINY["r2n2"]}
    one, other = (
        load_bundle(bundles / "r2n2", **settings, **more)(pair.fixed, pair.moving).uncertainty
        for more in ({}, {"network_uncertainty": "weights", "samples": 2})
    )
    assert one is not None
    assert other is not None
    assert one.shape == other.shape == (1, *FIXED[:2])
    assert not torch.allclose(one, other)


def test_uncertainty_without_optimization_is_refused(bundles: Path) -> None:
    with pytest.raises(InputError, match="instance optimization, which is off; set refine_steps to 30"):
        load_bundle(bundles / "ran", device="cpu", refine_steps=0, uncertainty=True, **TINY["ran"])


# --- images in memory


@pytest.mark.slow
def test_images_in_memory_are_the_same_as_their_files(register: Registration, pair: Pair, tmp_path: Path) -> None:
    tables = {name: np.loadtxt(getattr(pair, name), delimiter=",") for name in ("fixed_points", "moving_points")}
    images = {name: loaded(path) for name, path in pair._asdict().items() if name not in tables}
    copies = {name: image.clone() for name, image in images.items()}
    result, expected = register(**images, **tables), register(**pair.of())
    assert torch.equal(result.ddf, expected.ddf)
    assert torch.equal(result.warped, expected.warped)
    assert torch.equal(result.warped.affine, expected.warped.affine)
    assert result.metrics == pytest.approx(expected.metrics, rel=0, abs=0, nan_ok=True)
    assert all(torch.equal(image, copies[name]) for name, image in images.items())
    folders = result.save(tmp_path / "a"), expected.save(tmp_path / "b")
    different = [name for name in files_of(folders[0]) if read(folders[0] / name) != read(folders[1] / name)]
    assert different == ["provenance.json"]
    inputs = read(folders[0] / "provenance.json")["inputs"]
    assert inputs.pop("pair_id") == "moving_to_fixed"
    assert all("sha256" in identity for identity in inputs.values())
    assert inputs["fixed"]["array"] == list(FIXED)


ARRAYS: dict[str, Callable[[Array], Any]] = {
    "array": np.asarray,
    "tensor": torch.as_tensor,
    "channel first": lambda array: array[None],
    "flipped twice": lambda array: np.flip(np.flip(array).copy()),
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.slow
def test_arrays_lie_on_the_grid_of_their_spacing(
    make: Callable[[Array], Any], register: Registration, tmp_path: Path
) -> None:
    fixed, moving = scene(FIXED, 0), scene(MOVING, 1)
    spacing = (2.0, 2.5, 2.25)
    files = [save(tmp_path / f"{n}.nii", image, np.diag([*spacing, 1.0])) for n, image in enumerate((fixed, moving))]
    label = np.digitize(moving, [0])
    result = register(make(fixed), make(moving), spacing=spacing, moving_label=make(label), pair_id="mine")
    expected = register(*files)
    assert torch.equal(result.displacement, expected.displacement)
    assert torch.equal(result.warped, expected.warped)
    assert result.warped_label is not None
    assert set(result.warped_label.unique().tolist()) == {0, 1}
    assert (result.pair_id, expected.pair_id) == ("mine", "1_to_0")


@pytest.mark.slow
def test_integers_read_only_and_other_byte_orders(register: Registration) -> None:
    fixed, moving = scene(FIXED, 0).round(), scene(FIXED, 1).round()
    expected = register(fixed, moving)
    frozen = moving.astype(">i2")
    frozen.flags.writeable = False
    assert torch.equal(register(fixed.astype(np.int16), frozen).ddf, expected.ddf)
    assert torch.equal(register(torch.tensor(fixed, requires_grad=True), moving.astype(np.float64)).ddf, expected.ddf)


@pytest.mark.slow
def test_a_file_and_an_array(register: Registration, pair: Pair, tmp_path: Path) -> None:
    result = register(pair.fixed, loaded(pair.moving), moving_label=pair.moving_label)
    expected = register(**pair.of("fixed", "moving", "moving_label"))
    assert torch.equal(result.ddf, expected.ddf)
    inputs = read(result.save(tmp_path) / "provenance.json")["inputs"]
    assert inputs["fixed"]["file"] == str(pair.fixed.resolve())
    assert inputs["moving_label"]["file"] == str(pair.moving_label.resolve())
    assert sorted(inputs["moving"]) == ["array", "sha256", "type"]


BAD_PAIRS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"fixed": "nowhere.nii.gz"}, r"^fixed image 'nowhere.nii.gz' does not exist"),
    "complex": ({"moving": np.ones(MOVING, complex)}, "^moving image holds values of type complex128"),
    "complex tensor": ({"moving": torch.ones(MOVING, dtype=torch.cfloat)}, r"of type torch.complex64"),
    "words": ({"moving": ["a", "b"]}, "^moving image holds values of type <U1"),
    "flat": ({"moving": np.ones((9, 9))}, "^moving image has 2 spatial dimensions"),
    "a batch": ({"moving": np.ones((1, 1, *MOVING))}, "^moving image has 5 spatial dimensions"),
    "constant": ({"moving": np.ones(MOVING)}, "^moving image is constant"),
    "slice": ({"moving": np.ones((9, 9, 1)) * np.arange(9)[:, None, None]}, "^moving image is a single slice"),
    "NaN": ({"moving": np.full(MOVING, np.nan)}, "^moving image holds NaN"),
    "label of another size": ({"fixed_label": np.ones((4, 4, 4), int)}, "^fixed label has size .* expected the same"),
    "label elsewhere": ({"fixed_label": MetaTensor(torch.ones(1, *FIXED))}, "^fixed label has another affine"),
    "fractions": ({"fixed_label": scene(FIXED, 0)}, "^fixed label holds fractions"),
    "no mask": ({"mask": np.zeros(FIXED)}, "^fixed mask is empty"),
    "points outside": ({"fixed_points": np.full((2, 3), 99.0)}, "^fixed keypoints holds 2 points outside"),
    "points of 2D": ({"fixed_points": np.ones((2, 2))}, "^fixed keypoints holds 2 x 2 numbers"),
    "one point": ({"fixed_points": np.ones(3)}, "^fixed keypoints holds 3 numbers"),
    "unequal points": ({"fixed_points": [[9, 9, 9]], "moving_points": [[9, 9, 9]] * 2}, "^moving keypoints has 2"),
    "spacing": ({"moving": np.ones(MOVING), "spacing": (1, 0, 1)}, r"^spacing is \[1, 0, 1\]"),
    "spacing of a file": ({"spacing": (1, 1, 1)}, "^spacing is given, but both images have their own"),
    "pair_id": ({"pair_id": "a/b"}, "^pair_id 'a/b' names no folder"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_bad_pairs(changes: dict[str, Any], message: str, register: Registration, pair: Pair) -> None:
    with pytest.raises(InputError, match=message):
        register(**{**pair.of("fixed", "moving"), **changes})


@pytest.mark.parametrize("name", ["$print(1)", "@fixed", "%a#b::c", "=1+1", "20240611"])
@pytest.mark.slow
def test_names_of_files_are_never_evaluated(name: str, register: Registration, pair: Pair, tmp_path: Path) -> None:
    place = tmp_path / name
    place.mkdir()
    files = {side: shutil.copy(getattr(pair, side), place / f"{name}{side}.nii.gz") for side in ("fixed", "moving")}
    result = register(**files, pair_id=name)
    folder = result.save(place / name / "out")
    assert folder == place / name / "out" / name
    record = read(folder / "provenance.json")
    assert record["inputs"]["fixed"]["file"] == str(Path(files["fixed"]).resolve())
    assert record["inputs"]["pair_id"] == name
    assert register(**files).pair_id == f"{name}moving_to_{name}fixed"


@pytest.mark.slow
def test_a_bundle_may_lie_in_any_folder(bundles: Path, pair: Pair, tmp_path: Path, register: Registration) -> None:
    place = Path(shutil.copytree(bundles / "ran", tmp_path / "$a @b" / "%c#d::e" / "ran"))
    other = load_bundle(place, device="cpu", **TINY["ran"])
    result = other(pair.fixed, pair.moving)
    assert torch.equal(result.ddf, register(pair.fixed, pair.moving).ddf)
    assert read(result.save("out") / "provenance.json")["weights"]["file"] == str(place / "models" / "model.pt")


@pytest.mark.slow
def test_a_result_of_other_images_is_not_replaced(register: Registration, pair: Pair, tmp_path: Path) -> None:
    folder = register(pair.fixed, pair.moving).save(tmp_path / "out")
    before = {name: (folder / name).read_bytes() for name in files_of(folder)}
    register(pair.fixed, pair.moving).save(tmp_path / "out")
    with pytest.raises(InputError, match="holds other things than results of these images"):
        register(pair.moving, pair.fixed, pair_id=folder.name).save(tmp_path / "out")
    with pytest.raises(InputError, match="holds the pair's fixed"):
        register(pair.fixed, pair.moving, pair_id=pair.fixed.parent.name).save(pair.fixed.parent.parent)
    assert sorted(files_of(folder)) == sorted(before)
    assert (folder / "warped.nii.gz").read_bytes() == before["warped.nii.gz"]


# --- one after the other


@pytest.mark.slow
def test_pairs_do_not_influence_each_other(register: Registration, pair: Pair) -> None:
    first = register(pair.fixed, pair.moving)
    kept = first.ddf.clone()
    other = register(pair.moving, pair.fixed)
    with pytest.raises(InputError):
        register("nowhere.nii", pair.fixed)
    again = register(pair.fixed, pair.moving)
    assert torch.equal(first.ddf, kept)
    assert torch.equal(again.ddf, kept)
    assert other.ddf.shape[1:] == MOVING


@pytest.mark.slow
def test_threads_take_turns(register: Registration, pair: Pair) -> None:
    orders = [(pair.fixed, pair.moving), (pair.moving, pair.fixed)] * 2
    expected = [register(*order).ddf for order in orders[:2]]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda order: register(*order).ddf, orders))
    assert all(torch.equal(ddf, expected[n % 2]) for n, ddf in enumerate(found))


@pytest.mark.slow
def test_two_bundles_side_by_side(bundles: Path, pair: Pair, register: Registration) -> None:
    other = load_bundle("regnet", bundle_dir=bundles, device="cpu", **TINY["regnet"])
    before = register(pair.fixed, pair.moving).ddf
    assert not torch.equal(other(pair.fixed, pair.moving).ddf, before)
    assert torch.equal(register(pair.fixed, pair.moving).ddf, before)


def test_the_process_stays_as_it_is(bundles: Path, pair: Pair, tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        flags = torch.backends.cudnn
        return sys.excepthook, logging.getLogRecordFactory(), tuple(sys.path), flags.deterministic, flags.benchmark

    before = state()
    load_bundle(bundles / "ran", device="cpu", **TINY["ran"])(pair.fixed, pair.moving)
    assert state() == before
    assert list(tmp_path.iterdir()) == []
    assert torch.is_grad_enabled()


@pytest.mark.slow
def test_tensors_in_lps_are_registered_where_they_lie(register: Registration, pair: Pair) -> None:
    ras, lps = {}, {}
    for side in ("fixed", "moving"):
        image = nib.load(getattr(pair, side))
        values, affine = torch.from_numpy(np.asarray(image.dataobj))[None], torch.from_numpy(image.affine)
        flipped = torch.diag(torch.tensor([-1.0, -1, 1, 1])).double() @ affine
        ras[side] = MetaTensor(values, affine=affine)
        lps[side] = MetaTensor(values, affine=flipped, meta={"space": SpaceKeys.LPS})
    expected = register(**ras).displacement
    for images in (lps, {**lps, "moving": ras["moving"]}):
        found = register(**images).displacement
        torch.testing.assert_close(found.affine, expected.affine)
        torch.testing.assert_close(found.as_tensor(), expected.as_tensor())


@pytest.mark.slow
def test_labels_keep_their_numbers_and_their_place(register: Registration, pair: Pair, tmp_path: Path) -> None:
    """Large ones, on flipped axes, from file to file."""
    image = nib.load(pair.moving_label)
    label = np.asarray(image.dataobj).astype(np.int64)
    large = np.where(label > 0, 2**24 + label, -label - 5)
    turned = nib.Nifti1Image(large, image.affine, dtype=np.int64).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nib.save(turned, tmp_path / "turned.nii.gz")
    expected = register(pair.fixed, pair.moving, moving_label=pair.moving_label).warped_label
    result = register(pair.fixed, pair.moving, moving_label=tmp_path / "turned.nii.gz")
    written = np.asarray(nib.load(result.save(tmp_path / "out") / "warped_label.nii.gz").dataobj)
    inside = written != 0  # outside of the moving image a label is 0
    assert inside.mean() > 0.5
    assert expected is not None
    assert set(np.unique(written)) >= set(np.unique(large))
    back = np.where(written > 0, written - 2**24, -written - 5)
    np.testing.assert_array_equal(back[inside], expected[0].numpy()[inside])


@pytest.mark.slow
def test_results_outlive_their_function(bundles: Path, pair: Pair) -> None:
    result = load_bundle(bundles / "ran", device="cpu", **TINY["ran"])(pair.fixed, pair.moving)
    gc.collect()
    assert result.save("out").is_dir()


def test_a_result_that_cannot_be_saved(register: Registration, pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"^cannot write"):
        register(pair.fixed, pair.moving).save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


# --- which bundle


def load_ran(place: Any, **options: Any) -> Registration:
    return load_bundle(place, device="cpu", **TINY["ran"], **options)


@pytest.mark.parametrize("place", ["bundles", "mine", "torch/hub/bundle", "."])
def test_a_bundle_is_found_by_its_name(place: str, bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "ran").mkdir()  # a folder of this name that is no bundle
    shutil.copytree(bundles / "ran" / "configs", tmp_path / place / "ran" / "configs")
    weights = tmp_path / place / "ran" / "models" / "model.pt"
    with pytest.raises(InputError, match=re.escape(f"there is no model at '{weights}'")):
        load_ran("ran", **({"bundle_dir": "mine"} if place == "mine" else {}))


def test_no_such_bundle(bundles: Path) -> None:
    with pytest.raises(InputError, match=r"^there is no bundle 'rann', .*download it first .*Did you mean 'ran'\?$"):
        load_bundle("rann", bundle_dir=bundles)
    with pytest.raises(InputError, match=r"neither here nor in bundles nor in .*bundle nor in .*bundles; give"):
        load_bundle("rann")


@pytest.mark.slow
def test_the_bundles_of_the_package_are_found_by_name(tmp_path: Path) -> None:
    register = load_bundle("r2n2", device="cpu", **TINY["r2n2"])
    pair = make_pair(tmp_path / "plane", spatial_dims=2)
    weights = read(register(pair.fixed, pair.moving).save("out") / "provenance.json")["weights"]
    assert weights["file"] == str(packaged_bundles() / "r2n2" / "models" / "model.pt")


SPOILED: dict[str, tuple[Mapping[str, Any], str]] = {
    "mistyped": ({"refine_step": 3}, r"^unknown override 'refine_step'.*Did you mean 'refine_steps'\?$"),
    "nested": (
        {"network_deff#preset": "ran0"},
        r"^unknown override 'network_deff#preset'.*Did you mean 'network_def'\?$",
    ),
    "of the pair": ({"moving_label": "a.nii"}, "^moving_label belongs to a pair, not to the bundle"),
    "output_dir": ({"output_dir": "out"}, "^output_dir belongs to a pair"),
    "value": ({"initial_alignment": "rigit"}, "^initial_alignment is 'rigit'; choose one of"),
    "code": (
        {"initial_alignment": "$print(1)"},
        "^override initial_alignment is '.print.1.', an expression .* expected a value",
    ),
    "a reference": ({"window": "@spatial_size"}, "^override window is '@spatial_size', an expression"),
    "code in a list": ({"window": ["$print(1)", 2]}, "^override window is '.print.1.', an expression"),
    "code in a mapping": ({"network_def": {"preset": ["@ckpt"]}}, "^override network_def is '@ckpt', an expression"),
    "code as weights": ({"ckpt": "$print(1)"}, r"^there is no model at '\$print\(1\)'"),
    "weights": ({"ckpt": "nowhere.pt"}, "^there is no model at 'nowhere.pt'"),
    "other weights": ({"geometry": "ran0"}, "does not fit RAN"),
}


@pytest.mark.parametrize(("overrides", "message"), SPOILED.values(), ids=SPOILED)
def test_bad_overrides(overrides: Mapping[str, Any], message: str, bundles: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_ran(bundles / "ran", **overrides)


def test_names_in_a_list_of_files_are_no_code(bundles: Path, pair: Pair, tmp_path: Path) -> None:
    touch = f"$open({str(tmp_path / 'run')!r}, 'w')"
    register = load_ran(bundles / "ran", initial_transform=[touch, "@ckpt"])
    with pytest.raises(InputError, match=r"^initial transform '\$open.*' does not exist"):
        register(pair.fixed, pair.moving)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_overrides_count(bundles: Path, pair: Pair, register: Registration) -> None:
    refined = load_ran(bundles / "ran", refine_steps=3, window=None, **{"inferer#learning_rate": 0.2})
    result = refined(pair.fixed, pair.moving)
    assert not torch.equal(result.ddf, register(pair.fixed, pair.moving).ddf)
    parameters = read(result.save("out") / "provenance.json")["parameters"]
    assert (parameters["refine_steps"], parameters["window"]) == (3, None)


def test_a_foreign_bundle_is_refused_unseen(copy: Path, tmp_path: Path) -> None:
    file = copy / "configs" / "inference.json"
    touch = f"$__import__('pathlib').Path({str(tmp_path / 'run')!r}).touch()"
    file.write_text(json.dumps({"imports": [touch], "bundle_root": touch, "evaluator": touch}))
    with pytest.raises(InputError, match=r"has no ckpt, .*; expected a registration bundle of this package"):
        load_bundle(copy)
    file.write_text("{")
    with pytest.raises(InputError, match=r"^configuration .* cannot be read"):
        load_bundle(copy)
    assert not (tmp_path / "run").exists()


# --- weights


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_weights_is_not_run(write: Callable[[Any, Path], Any], copy: Path, tmp_path: Path) -> None:
    write({"weight": Touch(tmp_path / "run")}, copy / "models" / "model.pt")
    with pytest.raises(InputError, match="cannot be read, expected a PyTorch file of weights"):
        load_ran(copy)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sums", "name"),
    [("SHA256SUMS", "models/model.pt"), ("SHA256SUMS", "./models/model.pt"), ("models/SHA256SUMS", "model.pt")],
)
@pytest.mark.slow
def test_listed_weights(sums: str, name: str, copy: Path) -> None:
    digest = hashlib.sha256((copy / "models" / "model.pt").read_bytes()).hexdigest()
    (copy / sums).write_text(f"{'0' * 64}  ran_v0.1.0.zip\n{digest}  {name}\n")
    load_ran(copy)
    (copy / sums).write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(InputError, match=r"'model.pt' is not the published file"):
        load_ran(copy)
    (copy / "mine.pt").write_bytes((copy / "models" / "model.pt").read_bytes())
    load_ran(copy, ckpt=str(copy / "mine.pt"))  # a user's own weights are in no list


@pytest.mark.slow
def test_results_tell_the_weights_they_come_from(copy: Path, pair: Pair) -> None:
    digest = hashlib.sha256((copy / "models" / "model.pt").read_bytes()).hexdigest()
    register = load_ran(copy)
    (copy / "models" / "model.pt").write_bytes(b"another training's")
    reported = read(register(pair.fixed, pair.moving).save("out") / "provenance.json")
    assert reported["weights"]["sha256"] == digest


def test_a_network_without_numbers_has_no_result(copy: Path, pair: Pair, tmp_path: Path) -> None:
    """Weights that are NaN are refused; those that are too large to compute with are reported when they are used."""
    file = copy / "models" / "model.pt"
    state = torch.load(file, weights_only=True)
    torch.save({key: value * 1e30 for key, value in state.items()}, file)
    register = load_ran(copy)
    with pytest.raises(InputError, match=re.escape(f"the network with the weights '{file}' returned ")) as caught:
        register(pair.fixed, pair.moving).save(tmp_path / "out")
    assert "register again" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    torch.save({key: value * float("nan") for key, value in state.items()}, file)
    with pytest.raises(InputError, match=re.escape(f"checkpoint '{file}' holds weights that are not finite")):
        load_ran(copy)


# --- DICOM series -----------------------------------------------------------------------------------------------------


def series_pair(folder: Path, spatial_dims: int = 3, **of_moving: Any) -> dict[str, Path]:
    """The scene as two DICOM series of one patient with a Japanese name, the moving one with tags of its own."""
    name = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Haruno^Shun=春野^俊"}
    found = {}
    for seed, (side, tags) in enumerate({"fixed": name, "moving": name | of_moving}.items()):
        stored = np.round(scene(FIXED, seed)).astype(np.int16)
        about = {"SeriesInstanceUID": f"{SERIES}.{seed}", "FrameOfReferenceUID": f"{SERIES}.{seed}.2", **tags}
        files = write_volume(folder / side, stored, np.diag([2.0, 2.5, 2.2, 1.0]), **about)
        found[side] = folder / side if spatial_dims == 3 else files[11]
    return found


@pytest.mark.parametrize("name", TINY)
@pytest.mark.slow
def test_two_patients_are_refused_unless_they_are_allowed(
    bundles: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    pair = series_pair(tmp_path, 2 if name == "r2n2" else 3, PatientID="P 18")
    with pytest.raises(InputError, match="are of two patients by their PatientID, expected one"):
        load_bundle(bundles / name, device="cpu", **TINY[name])(**pair)
    with caplog.at_level(logging.WARNING):
        load_bundle(bundles / name, device="cpu", other_patient=True, **TINY[name])(**pair)
    assert "are of two patients by their PatientID, which other_patient allows" in caplog.text


@pytest.mark.slow
def test_a_name_in_another_alphabet_reaches_the_dicom_registration(bundles: Path, tmp_path: Path) -> None:
    pair = series_pair(tmp_path)
    register = load_bundle(bundles / "ran", device="cpu", formats="dicom", extend_border=True, **TINY["ran"])
    written = pydicom.dcmread(register(**pair).save(tmp_path / "out") / "displacement.dcm")
    assert (str(written.PatientName), written.SpecificCharacterSet) == ("Haruno^Shun=春野^俊", "ISO_IR 192")
    assert written.FrameOfReferenceUID == f"{SERIES}.0.2"
    (item,) = written.DeformableRegistrationSequence
    assert item.SourceFrameOfReferenceUID == f"{SERIES}.1.2"


def test_what_can_be_written_without_a_frame_of_reference_is_written(
    bundles: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = series_pair(tmp_path, FrameOfReferenceUID=None)
    register = load_bundle(bundles / "ran", device="cpu", formats="dicom", **TINY["ran"])
    folder = register(**pair).save(tmp_path / "out")
    assert "the DICOM series of the moving image has no frame of reference" in caplog.text
    assert {"displacement.nii.gz", "warped.nii.gz"} <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("*.dcm"))


def thick(slices: int, shift: float) -> MetaTensor:
    """Blobs in slices of 8 mm, moved by so many mm along x."""
    grid = np.stack(np.meshgrid(np.arange(32) * 2.0, np.arange(32) * 2.0, np.arange(slices) * 8.0, indexing="ij"))
    centers = np.random.default_rng(0).uniform(8, 52, (12, 3)) * [1, 1, 0.4]
    centers += [shift, 0.0, 0.0]
    squares = [np.sum((grid - center[:, None, None, None]) ** 2, axis=0) for center in centers]
    image = np.sum([np.exp(-square / 80) for square in squares], axis=0)
    return MetaTensor(
        torch.from_numpy((300 * image / image.max() - 120).astype(np.float32))[None],
        affine=torch.diag(torch.tensor([2.0, 2.0, 8.0, 1.0], dtype=torch.float64)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("slices", [2, 3, 5, 7])
def test_stacks_of_few_thick_slices(repository: Path, slices: int) -> None:
    register = load_bundle(repository / "bundles" / "ran", device="cpu", refine_steps=30)
    fixed = thick(slices, 0.0)
    found = register(fixed, thick(slices, 3.0)).displacement.as_tensor().numpy()
    shown = fixed.numpy()[0] > 0
    np.testing.assert_allclose([component[shown].mean() for component in found], [3.0, 0.0, 0.0], atol=0.3)


# --- in other processes -----------------------------------------------------------------------------------------------


def test_a_loaded_bundle_can_be_pickled(register: Registration, pair: Pair) -> None:
    sent = pickle.loads(pickle.dumps(register))
    expected, found = register(pair.fixed, pair.moving), sent(pair.fixed, pair.moving)
    assert torch.equal(expected.ddf, found.ddf)
    assert torch.equal(expected.warped.as_tensor(), found.warped.as_tensor())


def test_a_pickled_bundle_notices_other_weights(copy: Path) -> None:
    written = pickle.dumps(load_bundle(copy, device="cpu", **TINY["ran"]))
    weights = torch.load(copy / "models" / "model.pt")
    torch.save({name: value + 1 for name, value in weights.items()}, copy / "models" / "model.pt")
    with pytest.raises(InputError, match=r"model.pt' are others than when the bundle was loaded"):
        pickle.loads(written)


@pytest.mark.slow
def test_a_loaded_bundle_goes_to_spawned_workers(register: Registration, pair: Pair) -> None:
    data = [{"fixed": str(pair.fixed), "moving": str(pair.moving)}] * 2
    transform = RegisterPaird(bundle=register)
    loader = DataLoader(Dataset(data, transform), batch_size=1, num_workers=1, multiprocessing_context="spawn")
    for batch, item in zip(loader, map(transform, data), strict=True):
        assert torch.equal(batch["displacement"][0].as_tensor(), item["displacement"].as_tensor())


def test_a_bundle_is_loaded_while_another_thread_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI lists all modules; a server imports some at its first request."""
    listed, sizes = ComponentLocator._find_module_names, [RuntimeError("dictionary changed size during iteration")] * 2

    def find(locator: ComponentLocator) -> list[str]:
        if sizes:
            raise sizes.pop()
        return listed(locator)

    monkeypatch.setattr(ComponentLocator, "_find_module_names", find)
    assert _parser({"net": {"_target_": "torch.nn.Identity"}}).get_parsed_content("net")(1) == 1
    assert not sizes
