"""R2N2's configurations: training, evaluation, pairs, series, MONAI's tools, and what is refused in one line."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import torch
import torch.distributed as dist
from bundle_files import configs, files_of, killed_in_second_epoch, predictions, read_weights, same, table
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, create_workflow, load, verify_metadata
from monai.bundle import verify_net_in_out as verify_network
from monai.data import DistributedSampler
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.parallel import DistributedDataParallel

from monai_regplugins.checks import InputError
from monai_regplugins.data import validation_pairs
from monai_regplugins.inferers import SequenceInferer, StoppingRule
from monai_regplugins.networks.blocks.local_gaussian import field, from_json
from monai_regplugins.networks.nets import R2N2
from monai_regplugins.optimizers import Muon

pytestmark = pytest.mark.bundle
Array = npt.NDArray[Any]
Create = Callable[..., ConfigWorkflow]
Infer = Callable[..., Path]

CPU = "$torch.device('cpu')"
SIZE = (32, 32)
ARCHITECTURE = ("channels", "num_residual", "sigma_max", "sigma_min", "v_max", "padding")
TRANSVERSE = np.diag([1.5, 2.0, 5.0, 1.0])


def shipped_network(bundle: Path, steps: int = 3) -> R2N2:
    """The network as the configurations have it."""
    settings = json.loads((bundle / "configs" / "inference.json").read_text())
    return R2N2(steps=steps, **{key: settings[key] for key in ARCHITECTURE}).eval()


def smooth(size: tuple[int, ...] = SIZE, seed: int = 0) -> Array:
    """Blobs of some hundred gray values."""
    noise: Array = np.random.default_rng(seed).normal(size=size)
    return (gaussian_filter(noise, 2.0) * 900 + 200).astype(np.float32)


def save(path: Path, values: Array, affine: Array = TRANSVERSE) -> str:
    nib.save(nib.Nifti1Image(values, affine), path)
    return str(path)


def read(path: Path) -> tuple[Array, Array]:
    """Values and affine of a NIfTI file."""
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return np.asarray(image.dataobj), np.asarray(image.affine)


def resampled(image: Array, ddf: Array) -> Array:
    """Warp (H, W) with a field (2, H, W) in pixels by SciPy."""
    values: Array = map_coordinates(image.astype(np.float64), np.indices(ddf.shape[1:]) + ddf, order=1, mode="nearest")
    return values


@pytest.fixture(scope="module")
def ckpt(r2n2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the shipped network that move pixels by up to a few."""
    torch.manual_seed(0)
    network = shipped_network(r2n2)
    with torch.no_grad():
        for weight in network.parameter_net.parameters():
            weight += 0.2 * torch.randn_like(weight)
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def infer(r2n2: Path, create_r2n2: Create, ckpt: Path, tmp_path: Path) -> Infer:
    """Return a function that runs inference, on a series with the overlay, and gives the output folder."""

    def run(*overlays: str, **changes: Any) -> Path:
        files = configs(r2n2, "inference", *overlays)
        workflow = create_r2n2(files, tmp_path / "output", "infer", ckpt=str(ckpt), **changes)
        workflow.run()
        workflow.finalize()
        return tmp_path / "output"

    return run


class TestTraining:
    """What a training leaves, and how it goes on."""

    def test_it_writes_its_files_and_no_others(self, trained_r2n2: Path, r2n2: Path) -> None:
        names = files_of(trained_r2n2)
        events = [name for name in names if name.startswith("eval/tensorboard/events.out.tfevents.")]
        assert events
        expected = ["curves.csv", "curves.png", "metrics.csv", "provenance.json"]
        expected += ["registration.png", "registration_2.png"]  # the better and the worse of two pairs
        assert {*names} - {*events} == {f"eval/{name}" for name in expected} | {
            "models/checkpoint.pt",
            "models/model_last.pt",
        }
        for name in ("curves", "registration"):
            Image.open(trained_r2n2 / "eval" / f"{name}.png").verify()
        assert {name.split("/")[0] for name in files_of(r2n2)} <= {"LICENSE", "configs", "docs"}

    def test_model_is_trained_and_scored_by_the_error_at_the_landmarks(self, trained_r2n2: Path, r2n2: Path) -> None:
        checkpoint = read_weights(trained_r2n2 / "models" / "checkpoint.pt")
        model = checkpoint["model"]
        torch.manual_seed(0)
        network = shipped_network(r2n2)
        assert not same(network.state_dict(), model)
        network.load_state_dict(model)
        rows = table(trained_r2n2 / "eval" / "metrics.csv")
        assert len(rows) == 4  # two pairs, mean and sd
        assert {"tre_before", "tre", "tre_max_before", "tre_max", "dsc"} <= set(rows["mean"])
        assert all(re.fullmatch(r"(\d{4})_\d{4}_to_\1_\d{4}", name) for name in [*rows][:2])
        errors = [float(row["tre"]) for row in rows.values()][:2]
        curves = table(trained_r2n2 / "eval" / "curves.csv", "epoch")
        assert float(curves["1"]["score"]) == pytest.approx(-np.mean(errors), rel=1e-5)
        assert np.mean(errors) > float(rows["mean"]["tre_before"]), "so there is no best model"

    def test_tensorboard_shows_each_loss_term(self, trained_r2n2: Path, r2n2: Path) -> None:
        events = EventAccumulator(str(trained_r2n2 / "eval" / "tensorboard")).Reload()
        last = {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
        weight = json.loads((r2n2 / "configs" / "train.json").read_text())["smoothness_weight"]
        assert last["loss"] == pytest.approx(last["similarity"] + weight * last["smoothness"], rel=1e-5)
        assert last["similarity"] > 0
        assert last["score"] < 0

    @pytest.mark.slow
    def test_resumed_it_ends_with_the_same_weights(self, r2n2: Path, create_r2n2: Create, tmp_path: Path) -> None:
        def training(name: str, **changes: Any) -> ConfigWorkflow:
            schedule = {"max_epochs": 2, "warmup_steps": 1, "noise_std": 0.5}  # noise: also the dice must go on
            return create_r2n2(configs(r2n2, "train"), tmp_path / name, **schedule, **changes)

        training("straight").run()
        path = killed_in_second_epoch(training("broken"), tmp_path / "broken")
        halfway = read_weights(path)
        training("broken", ckpt=str(path)).run()
        resumed, straight = (
            read_weights(tmp_path / name / "models" / "checkpoint.pt") for name in ("broken", "straight")
        )
        assert resumed["trainer"]["epoch"] == 2
        assert not same(resumed["model"], halfway["model"])
        assert same(resumed["model"], straight["model"])
        curves = [(tmp_path / name / "eval" / "curves.csv").read_text() for name in ("broken", "straight")]
        assert curves[0] == curves[1]

    def test_the_papers_settings_train(self, r2n2: Path, create_r2n2: Create, tmp_path: Path) -> None:
        small = {"channels": [4, 4, 4], "batch_size": 1, "num_residual": 1}
        workflow = create_r2n2(configs(r2n2, "train", "paper"), tmp_path, **small)
        workflow.run()
        (group,) = read_weights(tmp_path / "models" / "checkpoint.pt")["optimizer"]["param_groups"]
        assert (group["lr"], group["amsgrad"]) == (1e-4, True)
        network = workflow.network_def
        assert (network.padding, network.noise_std, network.return_sequence) == ("zeros", 2**0.5, True)

    @pytest.mark.slow
    def test_the_published_weights_train_on(
        self, repository: Path, r2n2: Path, create_r2n2: Create, tmp_path: Path
    ) -> None:
        published = str(repository / "bundles" / "r2n2" / "models" / "model.pt")
        workflow = create_r2n2(configs(r2n2, "train", "finetune"), tmp_path, ckpt=published, learning_rate=0.0)
        assert isinstance(workflow.trainer.optimizer, Muon)
        workflow.run()
        checkpoint = read_weights(tmp_path / "models" / "checkpoint.pt")
        assert same(checkpoint["model"], read_weights(Path(published)))
        assert checkpoint["start_metric"] == workflow.evaluator.state.metrics["score"]
        assert checkpoint["best_epoch"] is None, "the same weights are not better"

    def test_one_series_alone_trains(self, r2n2: Path, create_r2n2: Create, tmp_path: Path) -> None:
        workflow = create_r2n2(configs(r2n2, "train", "train_series"), tmp_path / "output")
        workflow.run()
        names = files_of(tmp_path / "output")
        assert {"eval/curves.csv", "eval/metrics.csv", "models/checkpoint.pt", "models/model.pt"} <= {*names}
        first, *_ = rows = table(tmp_path / "output" / "eval" / "metrics.csv")
        assert re.fullmatch(r"frame_0000_to_000\d", first)
        assert workflow.evaluator.state.metrics["score"] == pytest.approx(float(rows["mean"]["ncc"]), rel=1e-4)

    @pytest.mark.slow
    def test_volumes_train_and_register(self, r2n2: Path, create_r2n2: Create, phantoms: Path, tmp_path: Path) -> None:
        small = {"channels": [2, 4, 4], "num_residual": 1, "spatial_size": [32, 32, 32], "dataset_dir": str(phantoms)}
        workflow = create_r2n2(configs(r2n2, "train", "volume"), tmp_path, val_pairs=1, **small)
        workflow.run()
        rows = table(tmp_path / "eval" / "metrics.csv")
        assert workflow.evaluator.state.metrics["score"] == pytest.approx(-float(rows["mean"]["tre"]), rel=1e-4)
        small["ckpt"] = str(tmp_path / "models" / "model.pt")
        workflow = create_r2n2(configs(r2n2, "inference", "volume"), tmp_path / "out", "infer", **small)
        found = predictions(workflow)
        workflow.run()
        (folder,) = (tmp_path / "out").iterdir()
        ddf = found[0]["ddf"]
        assert ddf.shape == (3, 20, 16, 20)
        field, affine = read(folder / "displacement_itk.nii.gz")
        millimeters = np.moveaxis(ddf.numpy(), 0, -1) * np.abs(np.diag(affine)[:3]) * (-1, -1, 1)
        np.testing.assert_allclose(field.squeeze(), millimeters, atol=1e-3)
        assert len(json.loads((folder / "network_transformations.json").read_text())[0]["rotation"]) == 4

    def test_the_papers_network(self, r2n2: Path) -> None:
        parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in configs(r2n2, "train", "paper")]))
        network = parser.get_parsed_content("network_def")
        assert sum(parameter.numel() for parameter in network.parameters()) == 3_593_611
        assert network.steps == 25
        assert parser.get_parsed_content("spatial_size") == [256, 256]


class TestSeveralProcesses:
    """The overlay for several processes."""

    @pytest.mark.usefixtures("lone_process")
    def test_one_process_alone(self, r2n2: Path, create_r2n2: Create, tmp_path: Path) -> None:
        workflow = create_r2n2(configs(r2n2, "train", "multi_gpu_train"), tmp_path)
        assert workflow.check_properties() == []
        workflow.run()
        assert isinstance(workflow.trainer.network, DistributedDataParallel)
        assert isinstance(workflow.evaluator.data_loader.sampler, DistributedSampler)
        workflow.finalize()
        assert not dist.is_initialized()
        shipped_network(r2n2).load_state_dict(read_weights(tmp_path / "models" / "checkpoint.pt")["model"])

    @pytest.mark.slow
    def test_two_processes_train_one_model(self, r2n2: Path, tiny_r2n2: Any, run_cli: Any, tmp_path: Path) -> None:
        files = configs(r2n2, "train", "multi_gpu_train")
        words = ["run", "training", "--config_file", str([str(file) for file in files])]
        module = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
        overrides = tiny_r2n2(files, tmp_path / "output", val_pairs=3)
        said = run_cli(words, tmp_path, overrides, module)
        assert len(re.findall(r"pairs? +before +after", said)) == 1
        assert len(table(tmp_path / "output" / "eval" / "metrics.csv")) == 3 + 2
        shipped_network(r2n2).load_state_dict(read_weights(tmp_path / "output" / "models" / "checkpoint.pt")["model"])


class TestEvaluation:
    """All validation pairs, with all steps or as many as help."""

    def test_with_all_steps_it_repeats_the_validation(
        self, trained_r2n2: Path, r2n2: Path, create_r2n2: Create, tmp_path: Path
    ) -> None:
        model = str(trained_r2n2 / "models" / "model_last.pt")
        workflow = create_r2n2(configs(r2n2, "evaluate"), tmp_path, "infer", ckpt=model)
        workflow.run()
        assert files_of(tmp_path) == [
            f"eval/{name}" for name in ("evaluation.csv", "evaluation.png", "provenance.json")
        ]
        Image.open(tmp_path / "eval" / "evaluation.png").verify()
        evaluation, validation = (
            table(path) for path in (tmp_path / "eval" / "evaluation.csv", trained_r2n2 / "eval" / "metrics.csv")
        )
        assert evaluation.keys() == validation.keys()
        for name, row in validation.items():
            for key in row.keys() - {"pair_id"}:
                assert float(evaluation[name][key]) == pytest.approx(float(row[key]), rel=1e-3, abs=1e-4), key
        assert workflow.evaluator.inferer.inferer.stopping is None

    def test_with_stopping(self, ckpt: Path, r2n2: Path, create_r2n2: Create, tmp_path: Path) -> None:
        changes = {"ckpt": str(ckpt), "stopping": True, "smallest_update": 1e6, "steps": 5}
        workflow = create_r2n2(configs(r2n2, "evaluate"), tmp_path, "infer", **changes)
        workflow.run()
        inferer = workflow.evaluator.inferer.inferer
        assert inferer.stopping == StoppingRule(patience=2, smallest_update=1e6, smallest_decrease=1e-3)
        assert [int(output["pred"]["steps"]) for output in workflow.evaluator.state.output] == [2]
        rows = table(tmp_path / "eval" / "evaluation.csv")
        assert workflow.evaluator.state.metrics["score"] == pytest.approx(-float(rows["mean"]["tre"]), rel=1e-5)


class TestPairs:
    """Inference on two files."""

    @pytest.mark.parametrize("stopping", [False, True])
    @pytest.mark.slow
    def test_results_of_given_files(self, stopping: bool, infer: Infer, r2n2: Path, ckpt: Path, tmp_path: Path) -> None:
        arrays = {"moving": smooth(seed=1), "fixed": smooth(seed=2)}
        paths = {key: save(tmp_path / f"{key}.nii.gz", values) for key, values in arrays.items()}
        settings = {"stopping": stopping, "patience": 99, "smallest_update": 0.0, "refine_steps": 0}
        folder = infer(**paths, **settings) / "moving_to_fixed"

        names = ["displacement.npz", "metrics.json", "provenance.json", "registration.png"]
        names += ["transformations.json", "transformations.png", "warped.nii.gz"]
        assert files_of(folder.parent) == [f"moving_to_fixed/{name}" for name in names]
        for name in ("registration.png", "transformations.png"):
            Image.open(folder / name).verify()
        steps = json.loads((folder / "transformations.json").read_text())
        assert len(steps) == 3
        ddf = field(from_json(steps), list(SIZE))[0].numpy()
        if not stopping:  # else it may be that of an earlier step
            standardized = [np.clip((v - v.mean()) / v.std(ddof=1), -2, 2) for v in arrays.values()]
            network = shipped_network(r2n2)
            network.load_state_dict(read_weights(ckpt))
            with torch.no_grad():
                expected = network(torch.from_numpy(np.stack(standardized))[None])[0].numpy()
            assert np.abs(expected).max() > 1.0, "the field is too small to show anything"
            np.testing.assert_allclose(ddf, expected, rtol=1e-3, atol=0.01)
        warped, affine = read(folder / "warped.nii.gz")
        np.testing.assert_allclose(affine, TRANSVERSE)
        positions = np.indices(SIZE) + ddf
        inside = ((positions >= 0) & (positions <= SIZE[0] - 1)).all(axis=0)
        assert inside.mean() > 0.5
        np.testing.assert_allclose(warped[inside], resampled(arrays["moving"], ddf)[inside], atol=0.5)

    @pytest.mark.parametrize("kind", ["localization", "weights"])
    @pytest.mark.slow
    def test_uncertainty(self, kind: str, infer: Infer, r2n2: Path, ckpt: Path, tmp_path: Path) -> None:
        arrays = {"moving": smooth(seed=1), "fixed": smooth(seed=2)}
        paths = {key: save(tmp_path / f"{key}.nii.gz", values) for key, values in arrays.items()}
        options = {"uncertainty": True, "network_uncertainty": kind, "samples": 3, "refine_steps": 0}
        folder = infer(**paths, **options) / "moving_to_fixed"
        found, affine = read(folder / "uncertainty.nii.gz")
        np.testing.assert_allclose(affine, TRANSVERSE)
        standardized = [np.clip((v - v.mean()) / v.std(ddof=1), -2, 2) for v in arrays.values()]
        network = shipped_network(r2n2)  # with the noise of the paper, the default of the class
        network.load_state_dict(read_weights(ckpt))
        with torch.no_grad():
            inferer = SequenceInferer(uncertainty=kind, samples=3)
            expected = inferer(torch.from_numpy(np.stack(standardized))[None], network)["uncertainty"]
        assert expected.max() > 0.1, "too small to show anything"
        spacing = np.linalg.norm(TRANSVERSE[:3, :2], axis=0)
        length = np.linalg.norm(expected[0].numpy() * spacing[:, None, None], axis=0)
        np.testing.assert_allclose(found, length, rtol=1e-2, atol=0.01)

    @pytest.mark.slow
    def test_the_phantom_by_default(self, infer: Infer, cine_lung: Path) -> None:
        output = infer()
        (pair, *_) = validation_pairs(cine_lung)
        assert [path.name for path in output.iterdir()] == [pair["pair_id"]]
        warped, affine = read(output / pair["pair_id"] / "warped.nii.gz")
        fixed, expected = read(Path(pair["fixed"]))
        assert warped.shape == fixed.shape == (40, 40)
        np.testing.assert_allclose(affine, expected)


class TestSeries:
    """Inference on a series of one slice."""

    FILES = (
        "aligned.nii.gz",
        "animation.gif",
        "frames.csv",
        "frames.png",
        "provenance.json",
        "respiration.csv",
        "respiration.png",
        "transformations.json",
    )

    def test_results_of_the_phantom(self, infer: Infer, cine_lung: Path) -> None:
        output = infer("series", save_fields=True, spatial_size=[40, 40])
        assert files_of(output) == sorted([*self.FILES, "fields.npy"])
        (source,) = sorted((cine_lung / "series").iterdir())[:1]
        original, aligned = (nib.load(path) for path in (source, output / "aligned.nii.gz"))
        assert aligned.shape == original.shape == (40, 40, 1, 4)
        np.testing.assert_allclose(aligned.affine, original.affine)
        np.testing.assert_allclose(aligned.header.get_zooms(), original.header.get_zooms(), rtol=1e-6)
        assert aligned.header.get_xyzt_units() == original.header.get_xyzt_units() == ("mm", "sec")

        ddf = np.load(output / "fields.npy")
        assert (ddf.shape, ddf.dtype) == ((4, 2, 40, 40), np.float32)
        assert np.abs(ddf).max() > 1.0, "the fields are too small to show anything"
        frames = np.moveaxis(np.asarray(original.dataobj)[:, :, 0], -1, 0).astype(np.float32)
        expected = np.stack([resampled(frame, one) for frame, one in zip(frames, ddf, strict=True)])
        np.testing.assert_allclose(np.moveaxis(aligned.get_fdata()[:, :, 0], -1, 0), expected, atol=0.05)

        content = json.loads((output / "transformations.json").read_text())
        means = frames.mean(axis=(1, 2))
        assert content["fixed_frame"] == int(np.abs(means - means.mean()).argmin())
        assert [len(steps) for steps in content["frames"]] == [3] * 4
        for steps, one in zip(content["frames"], ddf, strict=True):
            np.testing.assert_allclose(field(from_json(steps), [40, 40])[0].numpy(), one, atol=1e-3)

        rows = table(output / "respiration.csv", "frame")
        assert [*rows] == ["0", "1", "2", "3"]
        np.testing.assert_allclose([float(row["seconds"]) for row in rows.values()], [0.0, 0.4, 0.8, 1.2], atol=1e-3)
        curve = 6.4 * ddf[:, 0].mean(axis=(1, 2))  # rows run to the feet
        np.testing.assert_allclose([float(row["mm"]) for row in rows.values()], curve, atol=1e-3)
        with Image.open(output / "animation.gif") as animation:
            assert animation.n_frames == 4

    def test_a_list_of_frames_with_fields_pictures_and_provenance(self, infer: Infer, tmp_path: Path) -> None:
        """A frame is found as in the pair of it and the fixed one."""
        frames, affine = [smooth((40, 48), seed) for seed in range(3)], TRANSVERSE
        names = [save(tmp_path / f"f{number}.nii.gz", frame[..., None], affine) for number, frame in enumerate(frames)]
        (tmp_path / "list.csv").write_text("\n".join(["image", *map(str, names)]))
        given = {"series": str(tmp_path / "list.csv"), "fixed_frame": 1, "formats": ["itk_nifti", "native"]}
        output = infer("series", **given)
        folders = ["frame_0000_to_0001", "frame_0002_to_0001"]
        assert sorted(path.name for path in output.iterdir() if path.is_dir()) == folders
        assert {*self.FILES} <= {path.name for path in output.iterdir()}
        assert read(output / "aligned.nii.gz")[0].shape == (40, 48, 1, 3)
        record = json.loads((output / "provenance.json").read_text())
        assert len(record["weights"]["sha256"]) == 64
        assert record["parameters"]["steps"] > 0
        assert Path(record["inputs"]["series"]["file"]).name == "list.csv"
        alone = infer(fixed=str(names[1]), moving=str(names[2]), formats=["native"], refine_steps=0, pair_id="alone")
        fields = [np.load(folder / "displacement.npz") for folder in (output / folders[1], alone / "alone")]
        assert np.abs(fields[0]["ddf"]).max() > 0.1
        np.testing.assert_allclose(fields[0]["ddf"], fields[1]["ddf"], atol=1e-3)
        np.testing.assert_allclose(fields[0]["affine"], fields[1]["affine"])
        for folder in folders:
            files = {path.name for path in (output / folder).iterdir()}
            assert {"displacement_itk.nii.gz", "metrics.json", "registration.png", "transformations.json"} <= files
        rows = table(output / "frames.csv", "frame")
        measures = json.loads((output / folders[1] / "metrics.json").read_text())
        assert float(rows["2"]["ncc"]) == pytest.approx(measures["ncc"], rel=1e-4)
        assert rows["2"]["verdict"] == measures["verdict"]

    def test_a_given_file_and_frame(self, infer: Infer, tmp_path: Path) -> None:
        frames = np.stack([smooth((40, 48), seed) for seed in range(3)], axis=-1)
        given = {"series": save(tmp_path / "cine.nii.gz", frames), "fixed_frame": 2, "stopping": True}
        output = infer("series", **given, uncertainty="localization")
        assert files_of(output) == sorted([*self.FILES, "uncertainty.nii.gz"])
        assert read(output / "aligned.nii.gz")[0].shape == (40, 48, 3)
        assert json.loads((output / "transformations.json").read_text())["fixed_frame"] == 2
        rows = table(output / "respiration.csv", "frame")
        assert [row["seconds"] for row in rows.values()] == ["", "", ""]
        # nothing lowers a difference of zero, so the fixed frame stays where it is
        assert float(rows["2"]["mm"]) == 0.0
        aligned = read(output / "aligned.nii.gz")[0]
        np.testing.assert_allclose(aligned[..., 2], frames[..., 2], atol=0.01)
        uncertainty = read(output / "uncertainty.nii.gz")[0]
        assert uncertainty.shape == (40, 48, 3)
        assert uncertainty[..., 2].max() == 0 < uncertainty[..., 0].max()


class TestTools:
    """The bundle in MONAI's tools."""

    @pytest.fixture
    def bundle(self, ckpt: Path, copy_bundle: Callable[[str, Path], Path], tmp_path: Path) -> Path:
        """R2N2's bundle with random weights."""
        copy = copy_bundle("r2n2", tmp_path)
        (copy / "models").mkdir()
        shutil.copy(ckpt, copy / "models" / "model.pt")
        return copy

    @pytest.mark.parametrize(
        ("names", "workflow_type"),
        [
            (["train"], "train"),
            (["train", "paper"], "train"),
            (["train", "train_series"], "train"),
            (["evaluate"], "infer"),
            (["inference"], "infer"),
            (["inference", "series"], "infer"),
        ],
        ids=lambda value: "+".join(value) if isinstance(value, list) else "",
    )
    def test_no_property_is_missing(
        self, names: list[str], workflow_type: str, r2n2: Path, create_r2n2: Create, tmp_path: Path
    ) -> None:
        workflow = create_r2n2(configs(r2n2, *names), tmp_path / "output", workflow_type)
        assert workflow.check_properties() == []
        assert workflow.version == json.loads((r2n2 / "configs" / "metadata.json").read_text())["version"]
        assert workflow.bundle_root == str(r2n2)

    def test_metadata_are_valid(self, r2n2: Path, tmp_path: Path) -> None:
        """Against what MONAI's schema of 2024-07-25 asks for, laid where the tool would download it to."""
        texts = ["schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description"]
        tensor = {
            "type": "object",
            "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
            "properties": {"num_channels": {"type": "integer"}, "value_range": {"items": {"type": "number"}}},
        }
        ports = {"type": "object", "additionalProperties": tensor}
        schema = {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "required": [*texts, "authors", "copyright", "required_packages_version", "network_data_format"],
            "properties": {
                **{name: {"type": "string"} for name in [*texts, "authors", "copyright", "name", "intended_use"]},
                "changelog": {"type": "object", "additionalProperties": {"type": "string"}},
                "network_data_format": {
                    "required": ["inputs", "outputs"],
                    "properties": {"inputs": ports, "outputs": ports},
                },
            },
        }
        path = tmp_path / "schema.json"
        path.write_text(json.dumps(schema))
        known = {"hash_val": hashlib.sha256(path.read_bytes()).hexdigest(), "hash_type": "sha256"}
        metadata = r2n2 / "configs" / "metadata.json"
        verify_metadata(meta_file=str(metadata), filepath=str(path), **known)
        content = json.loads(metadata.read_text())
        assert content["version"] in content["changelog"]
        assert "optional_packages_version" not in content
        versions = [content[f"{name}_version"] for name in ("monai", "pytorch", "numpy")]
        versions += content["required_packages_version"].values()
        assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in versions)

    @pytest.mark.parametrize("name", ["evaluate", "inference"])
    @pytest.mark.parametrize("n", [0, 5])
    def test_the_network_gives_what_the_metadata_say(self, name: str, n: int, r2n2: Path) -> None:
        files = {"meta_file": str(r2n2 / "configs/metadata.json"), "config_file": str(r2n2 / f"configs/{name}.json")}
        verify_network(net_id="network_def", device="cpu", n=n, any=32, steps=2, **files)

    @pytest.mark.slow
    def test_exported_it_is_the_same_function(self, bundle: Path) -> None:
        ckpt_export(bundle_root=str(bundle), config_file=str(bundle / "configs" / "inference.json"))
        extra = {"inference.json": "", "metadata.json": ""}
        scripted = torch.jit.load(bundle / "models" / "model.ts", _extra_files=extra)
        settings = json.loads(extra["inference.json"])
        eager = shipped_network(bundle, settings["steps"])
        eager.load_state_dict(read_weights(bundle / "models" / "model.pt"))
        for size in ((32, 32), (35, 40)):
            image = torch.from_numpy(np.stack([smooth(size, 3), smooth(size, 4)]))[None] / 100 - 2
            with torch.no_grad():
                expected = eager(image)
                torch.testing.assert_close(scripted(image), expected, rtol=1e-3, atol=1e-3)
            assert expected.abs().max() > 1.0

    def test_monai_loads_it_with_its_weights(self, bundle: Path) -> None:
        network = load("r2n2", bundle_dir=str(bundle.parent), device="cpu")
        assert isinstance(network, R2N2)
        assert same(network.state_dict(), read_weights(bundle / "models" / "model.pt"))


@pytest.mark.slow
class TestCommandLine:
    """The commands, from everywhere a user may give them."""

    @pytest.fixture
    def copy(self, copy_bundle: Callable[[str, Path], Path], tmp_path: Path) -> Path:
        """A user's copy of the bundle, without weights."""
        return copy_bundle("r2n2", tmp_path / "copies")

    def test_all_commands(
        self, repository: Path, copy: Path, tiny_r2n2: Any, run_here: Any, cine_lung: Path, tmp_path: Path
    ) -> None:
        """Training, evaluation, a pair and a series with the weights of that training."""
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        cwd, folder = elsewhere, str(copy / "configs")
        before = [files_of(bundle) for bundle in (repository / "bundles" / "r2n2", copy)]

        def run(command: str, *names: str, **changes: Any) -> str:
            files = [f"{folder}/{name}.json" for name in names]
            overrides = tiny_r2n2([cwd / file for file in files], tmp_path / command, **changes)
            config = files[0] if len(files) == 1 else str(files)
            return str(run_here(["run", command.split("_")[0], "--config_file", config], cwd, overrides))

        run("training", "train")
        ckpt = str(tmp_path / "training" / "models" / "checkpoint.pt")
        run("evaluating", "evaluate", ckpt=ckpt)
        scores = [
            table(tmp_path / name)["mean"] for name in ("training/eval/metrics.csv", "evaluating/eval/evaluation.csv")
        ]
        assert float(scores[1]["tre"]) == pytest.approx(float(scores[0]["tre"]), rel=1e-3)
        pair = validation_pairs(cine_lung)[0]
        images = {key: pair[key] for key in ("fixed", "moving")}
        run("inference_pair", "inference", ckpt=ckpt, uncertainty="weights", samples=2, **images)
        names = ["displacement.npz", "metrics.json"]
        names += [f"network_{name}" for name in ("transformations.json", "transformations.png")]
        names += ["provenance.json", "registration.png", "uncertainty.nii.gz"]
        (result,) = (tmp_path / "inference_pair").iterdir()
        assert files_of(result) == [*names, "warped.nii.gz"]
        series = next((cine_lung / "series").iterdir())
        run("inference_series", "inference", "series", ckpt=ckpt, series=series, stopping=True)
        assert files_of(tmp_path / "inference_series") == sorted(TestSeries.FILES)

        assert before == [files_of(bundle) for bundle in (repository / "bundles" / "r2n2", copy)]
        assert not any(elsewhere.iterdir())

    def test_a_copy_is_trained_in_its_own_folder_and_exported(
        self, copy: Path, tiny_r2n2: Any, run_cli: Any, run_here: Any, tmp_path: Path
    ) -> None:
        """Without a given output folder everything lies in the copy, whose own weights only a person replaces."""
        overrides = tiny_r2n2(configs(copy, "train"), "")
        del overrides["output_dir"]
        run_cli(["run", "training", "--config_file", "configs/train.json"], copy, overrides)
        assert not (copy / "models").exists()
        (copy / "models").mkdir()
        trained = read_weights(copy / "runs" / "train" / "models" / "checkpoint.pt")["model"]
        torch.save(trained, copy / "models" / "model.pt")
        run_here(["run", "--config_file", "configs/inference.json"], copy, {"dataset_dir": overrides["dataset_dir"]})
        (result,) = (copy / "output").iterdir()
        assert (result / "warped.nii.gz").is_file()
        run_here(["ckpt_export"], copy, {"bundle_root": ".", "config_file": "configs/inference.json"})
        scripted = torch.jit.load(copy / "models" / "model.ts")
        eager = shipped_network(copy, json.loads((copy / "configs" / "inference.json").read_text())["steps"])
        eager.load_state_dict(read_weights(copy / "models" / "model.pt"))
        image = torch.from_numpy(np.stack([smooth(seed=3), smooth(seed=4)]))[None] / 100 - 2
        with torch.no_grad():
            torch.testing.assert_close(scripted(image), eager(image), rtol=1e-3, atol=1e-3)
        folders = {name.split("/")[0] for name in files_of(copy)}
        assert folders == {"LICENSE", "configs", "docs", "models", "output", "runs"}


class TestBadInput:
    """Whatever is wrong with what a user gives, it is reported in one line."""

    @pytest.fixture
    def failure(self, r2n2: Path, tiny_r2n2: Any, tmp_path: Path) -> Callable[..., str]:
        """Return a function that runs configurations, which have to fail, and gives the message of the input error."""

        def fail(*names: str, **changes: Any) -> str:
            files = configs(r2n2, *names)
            settings = tiny_r2n2(files, tmp_path / "output", **changes)
            kind = "train" if "train" in names else "infer"
            with pytest.raises((InputError, RuntimeError)) as raised:
                create_workflow(
                    config_file=[str(file) for file in files], workflow_type=kind, logging_file=False, **settings
                ).run()
            link: BaseException | None = raised.value
            while link is not None and not isinstance(link, InputError):
                link = link.__cause__
            assert link is not None, f"no input error behind {raised.value!r}"
            message = str(link)
            assert "\n" not in message
            assert message.endswith((".", "?"))
            left = files_of(tmp_path / "output")
            assert [name for name in left if not name.startswith("eval/tensorboard/")] == []
            return message

        return fail

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"max_epochs": 0}, "max_epochs is 0"),
            ({"val_interval": 0}, "val_interval is 0"),
            ({"batch_size": 0}, "batch_size is 0"),
            ({"learning_rate": "$float('nan')"}, "learning_rate is nan"),
            ({"learning_rate": -1.0}, "learning_rate is -1.0"),
            ({"smoothness_weight": -1.0}, "smoothness_weight is -1.0"),
        ],
    )
    def test_settings_of_training(self, changes: dict[str, Any], word: str, failure: Callable[..., str]) -> None:
        assert word in failure("train", **changes)

    @pytest.mark.parametrize(
        ("shape", "wrong"),
        [
            ((40, 40, 1), "has 1 frame, expected two or more"),
            ((40, 40), "is a single image"),
            ((40, 40, 3, 4), "is a volume over time"),
        ],
        ids=["one frame", "one image", "volume"],
    )
    def test_no_series(self, shape: tuple[int, ...], wrong: str, failure: Any, ckpt: Path, tmp_path: Path) -> None:
        path = save(tmp_path / "cine.nii.gz", smooth(shape))
        message = failure("inference", "series", series=path, ckpt=str(ckpt))
        assert path in message
        assert wrong in message

    def test_constant_frame(self, failure: Any, ckpt: Path, tmp_path: Path) -> None:
        frames = np.stack([smooth((40, 40), seed) for seed in range(4)], axis=-1)
        frames[..., 2] = 7
        message = failure("inference", "series", series=save(tmp_path / "cine.nii.gz", frames), ckpt=str(ckpt))
        assert "is constant in frame 2" in message

    def test_frames_of_different_sizes(self, failure: Any, ckpt: Path, tmp_path: Path) -> None:
        folder = tmp_path / "dicom"
        folder.mkdir()
        for number, rows in enumerate((40, 36, 40)):
            image = sitk.GetImageFromArray(smooth((rows, 40), number).astype(np.int16)[None])
            tags = {"0008|0060": "MR", "0020|000e": "1.2.826.0.1.3680043.2.1125.7", "0020|0013": str(number)}
            for tag, value in tags.items():
                image.SetMetaData(tag, value)
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetFileName(str(folder / f"{number}.dcm"))
            writer.Execute(image)
        message = failure("inference", "series", series=str(folder), ckpt=str(ckpt))
        assert str(folder) in message
        assert "frames of different sizes" in message

    @pytest.mark.parametrize("number", [-1, 4])
    def test_no_such_frame(self, number: int, failure: Any, ckpt: Path) -> None:
        message = failure("inference", "series", fixed_frame=number, ckpt=str(ckpt))
        assert f"fixed_frame is {number}, expected 0 to 3" in message

    def test_series_smaller_than_the_network_takes(self, failure: Any, ckpt: Path, tmp_path: Path) -> None:
        frames = np.stack([smooth((40, 15), seed) for seed in range(3)], axis=-1)
        message = failure(
            "inference", "series", series=save(tmp_path / "cine.nii.gz", frames), ckpt=str(ckpt), spatial_size=[-1, -1]
        )
        assert "40 x 15 voxels, expected at least 16 x 16" in message

    def test_smaller_than_the_network_takes(self, failure: Any, ckpt: Path, tmp_path: Path) -> None:
        paths = {key: save(tmp_path / f"{key}.nii.gz", smooth((15, 40))) for key in ("moving", "fixed")}
        message = failure("inference", **paths, ckpt=str(ckpt), spatial_size=[-1, -1])
        assert "15 x 40 voxels, expected at least 16 x 16" in message

    @pytest.mark.parametrize(
        ("values", "wrong"),
        [(smooth((40, 40, 40)), "3 spatial dimensions"), (np.ones((40, 40), np.float32), "is constant")],
        ids=["3D", "constant"],
    )
    def test_image(self, values: Array, wrong: str, failure: Any, ckpt: Path, tmp_path: Path) -> None:
        fixed, moving = save(tmp_path / "fixed.nii.gz", smooth((40, 40))), save(tmp_path / "moving.nii.gz", values)
        message = failure("inference", fixed=fixed, moving=moving, ckpt=str(ckpt))
        assert f"moving image '{moving}'" in message
        assert wrong in message

    @pytest.mark.parametrize(
        ("names", "wrong", "right"),
        [
            (["train"], "max_epoch", "max_epochs"),
            (["inference", "series"], "fixed_fram", "fixed_frame"),
            (["inference"], "fixed_frame", None),  # a setting of the overlay alone
        ],
    )
    def test_unknown_override(self, names: list[str], wrong: str, right: str | None, failure: Any) -> None:
        message = failure(*names, **{wrong: 1})
        assert f"unknown override '{wrong}'" in message
        assert right is None or f"Did you mean '{right}'?" in message

    @pytest.mark.parametrize("names", [["train"], ["evaluate"], ["inference"], ["inference", "series"]])
    def test_checkpoint_cut_short(self, names: list[str], failure: Any, ckpt: Path, tmp_path: Path) -> None:
        path = tmp_path / "short.pt"
        path.write_bytes(ckpt.read_bytes()[:-1000])
        message = failure(*names, ckpt=str(path))
        assert f"checkpoint '{path}' cannot be read" in message
        assert "cut short" in message

    @pytest.mark.parametrize("names", [["train"], ["inference", "series"]])
    def test_checkpoint_of_another_width(self, names: list[str], failure: Any, ckpt: Path) -> None:
        message = failure(*names, channels=[16, 16, 16], ckpt=str(ckpt))
        assert f"checkpoint '{ckpt}' does not fit R2N2" in message
