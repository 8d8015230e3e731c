"""RAN's configurations: training, resuming, evaluation and inference, each as small as it can be."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from bundle_files import configs, files_of, killed_in_second_epoch, read_weights, same, table
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_regplugins.checks import input_error_message
from monai_regplugins.data import validation_pairs
from monai_regplugins.networks.nets import RAN

pytestmark = pytest.mark.bundle
Create = Callable[..., ConfigWorkflow]
CopyBundle = Callable[[str, Path], Path]

TABLES = ["eval/curves.csv", "eval/metrics.csv", "eval/provenance.json"]
FIGURES = ["eval/curves.png", "eval/registration.png"]
WEIGHTS = ["models/checkpoint.pt", "models/model.pt"]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def modified(path: Path) -> int:
    """Return when a file was last written, 0 if there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def written_after(path: Path, moment: int) -> bool:
    return modified(path) > moment


class TestTraining:
    """What one epoch leaves behind."""

    def test_it_writes_its_files_and_no_others(self, trained_ran: Path) -> None:
        names = files_of(trained_ran)
        events = [name for name in names if name.startswith("eval/tensorboard/events.out.tfevents.")]
        assert events
        assert {*names} - {*events} == {*TABLES, *FIGURES, *WEIGHTS}
        for name in FIGURES:
            Image.open(trained_ran / name).verify()

    def test_bundle_and_working_directory_stay_as_they_are(
        self, trained_ran: Path, ran: Path, repository: Path
    ) -> None:
        shipped = repository / "bundles" / "ran"
        assert {name.split("/")[0] for name in files_of(ran)} == {"LICENSE", "configs", "docs"}
        assert all((ran / name).read_bytes() == (shipped / name).read_bytes() for name in files_of(ran))
        assert [path.name for path in trained_ran.parent.iterdir()] == ["output"]

    def test_model_is_a_bare_state_dict(self, trained_ran: Path) -> None:
        network = RAN(spatial_dims=3, preset="ran4_released")
        initial = {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(read_weights(trained_ran / "models" / "model.pt"), strict=True)
        assert not same(network.state_dict(), initial)

    def test_checkpoint_knows_the_model(self, trained_ran: Path) -> None:
        checkpoint = read_weights(trained_ran / "models" / "checkpoint.pt")
        assert checkpoint["trainer"] == {"epoch": 1, "iteration": 1}
        assert checkpoint["best_epoch"] == 1
        assert same(checkpoint["model"], read_weights(trained_ran / "models" / "model.pt"))

    def test_score_is_the_mean_of_the_table(self, trained_ran: Path) -> None:
        rows = table(trained_ran / "eval" / "metrics.csv")
        assert [*rows] == ["0004_to_0005", "mean", "sd"] or [*rows] == ["0005_to_0004", "mean", "sd"]
        score = read_weights(trained_ran / "models" / "checkpoint.pt")["best_metric"]
        assert float(rows["mean"]["ncc"]) == pytest.approx(score, rel=1e-5)
        assert float(rows["mean"]["ncc_before"]) < score

    def test_tensorboard_shows_each_loss_term(self, trained_ran: Path, ran: Path) -> None:
        weights = json.loads((ran / "configs" / "train.json").read_text())
        events = EventAccumulator(str(trained_ran / "eval" / "tensorboard")).Reload()
        assert {"loss", "similarity", "smoothness", "synthetic", "score"} <= set(events.Tags()["scalars"])
        last = {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
        total = sum(weights[f"{name}_weight"] * last[name] for name in ("similarity", "smoothness", "synthetic"))
        assert last["loss"] == pytest.approx(total, rel=1e-5)
        assert -1.0 <= last["similarity"] < 0.0 < last["smoothness"]

    @pytest.mark.slow
    @pytest.mark.parametrize("warm", [True, False])
    def test_it_begins_from_scratch_or_with_given_weights(
        self, warm: bool, trained_ran: Path, copy_bundle: CopyBundle, create: Create, tmp_path: Path
    ) -> None:
        bundle = copy_bundle("ran", tmp_path)
        published = bundle / "models" / "model.pt"
        published.parent.mkdir()
        shutil.copy(trained_ran / "models" / "model.pt", published)
        before = digest(published)
        changes = {"ckpt": str(published)} if warm else {}
        create(configs(bundle, "train"), bundle / "runs" / "train", learning_rate=0.0, **changes).run()
        assert digest(published) == before
        assert {path.name for path in bundle.iterdir()} == {"LICENSE", "configs", "docs", "models", "runs"}
        weights = read_weights(bundle / "runs" / "train" / "models" / "checkpoint.pt")["model"]
        assert same(weights, read_weights(published)) is warm

    @pytest.mark.slow
    def test_a_second_one_leaves_the_first_as_it_is(self, ran: Path, create: Create, tmp_path: Path) -> None:
        output = tmp_path / "output"
        create(configs(ran, "train"), output).run()
        before = {name: digest(output / name) for name in files_of(output)}
        with pytest.raises(RuntimeError) as raised:
            create(configs(ran, "train"), output).run()
        message = input_error_message(raised.value)
        assert message is not None
        assert f"--ckpt '{output}/models/checkpoint.pt', or give another --output_dir" in message
        assert {name: digest(output / name) for name in files_of(output)} == before

    def test_a_diverged_one_leaves_no_weights(self, ran: Path, create: Create, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError) as raised:
            create(configs(ran, "train"), tmp_path, similarity_weight=1e38, max_epochs=2, learning_rate=1e30).run()
        message = input_error_message(raised.value)
        assert message is not None
        assert "the training diverged in epoch" in message
        for file in tmp_path.rglob("*.pt"):
            assert all(value.isfinite().all() for value in read_weights(file)["model"].values())
        assert not (tmp_path / "models" / "model.pt").exists()

    def test_labels_that_are_not_there(self, ran: Path, create: Create, phantoms: Path, tmp_path: Path) -> None:
        data = shutil.copytree(phantoms, tmp_path / "data")
        (file,) = data.glob("*_dataset.json")
        content = json.loads(file.read_text())
        for entry in content["training"]:
            (data / entry.pop("label")).unlink()
        file.write_text(json.dumps(content))
        with pytest.raises(RuntimeError) as raised:
            create(configs(ran, "train"), tmp_path / "output", dataset_dir=str(data), label_weight=1.0).run()
        message = input_error_message(raised.value)
        assert message is not None
        assert "label_weight is 1.0, but 6 of 6 training pairs lack labels" in message


class TestConfigurations:
    """The files as hosts read them, and the overlays."""

    @pytest.mark.parametrize(
        ("names", "workflow_type"),
        [
            (["train"], "train"),
            (["train", "pretrain"], "train"),
            (["train", "paper"], "train"),
            (["train", "train_shapes"], "train"),
            (["evaluate"], "infer"),
            (["inference"], "infer"),
        ],
        ids=lambda value: "+".join(value) if isinstance(value, list) else "",
    )
    @pytest.mark.slow
    def test_no_property_is_missing(
        self, names: list[str], workflow_type: str, ran: Path, create: Create, tmp_path: Path
    ) -> None:
        changes = {"crop_margin": 0} if "paper" in names else {}
        workflow = create(configs(ran, *names), tmp_path / "output", workflow_type, **changes)
        assert workflow.check_properties() == []
        assert workflow.version == json.loads((ran / "configs" / "metadata.json").read_text())["version"]
        assert workflow.bundle_root == str(ran)

    @pytest.mark.slow
    def test_pretraining_learns_from_true_fields(self, ran: Path, create: Create, tmp_path: Path) -> None:
        workflow = create(configs(ran, "train", "pretrain"), tmp_path)
        workflow.run()
        last = workflow.parser.get_parsed_content("loss").last
        assert sorted(last) == ["field", "image", "smoothness"]
        assert all(torch.isfinite(value) for value in last.values())
        assert last["field"] > 0.0
        trained = read_weights(tmp_path / "models" / "checkpoint.pt")["model"]
        assert same(trained, workflow.network_def.state_dict())

    @pytest.mark.slow
    def test_random_pairs_need_no_data_to_train_on(self, ran: Path, create: Create, tmp_path: Path) -> None:
        workflow = create(configs(ran, "train", "train_shapes"), tmp_path, num_phantoms=0)
        workflow.run()
        last = workflow.parser.get_parsed_content("loss").last
        assert sorted(last) == ["field", "labels", "smoothness"]
        assert all(torch.isfinite(value) for value in last.values())
        assert 0 < last["labels"] < 1
        assert [item["fixed"].shape for item in workflow.trainer.state.batch] == [(1, 16, 16, 16)] * 2
        assert "average" in read_weights(tmp_path / "models" / "checkpoint.pt")["optimizer"]["state"][0]

    @pytest.mark.slow
    def test_labels_may_help(self, ran: Path, create: Create, tmp_path: Path) -> None:
        settings = {"label_weight": 1.0, "synthetic_probability": 0.5, "crop_margin": [0, 1, 2]}
        workflow = create(configs(ran, "train"), tmp_path, spatial_size=[16, 18, 20], **settings)
        workflow.run()
        last = workflow.parser.get_parsed_content("loss").last
        assert sorted(last) == ["labels", "similarity", "smoothness", "synthetic"]
        assert 0 < last["labels"] < 1

    @pytest.mark.slow
    def test_the_papers_settings_train(self, ran: Path, create: Create, tmp_path: Path) -> None:
        workflow = create(configs(ran, "train", "paper"), tmp_path, crop_margin=[0, 1, 2], spatial_size=[16, 18, 20])
        workflow.run()
        checkpoint = read_weights(tmp_path / "models" / "checkpoint.pt")
        assert checkpoint["optimizer"]["param_groups"][0]["lr"] == 0.001
        assert checkpoint["trainer"]["epoch"] == 1
        assert [item["fixed"].shape for item in workflow.trainer.state.batch] == [(1, 16, 16, 16)] * 2


@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_the_hippocampus_overlay_fits_each_configuration_and_its_weights_the_network(
    name: str, repository: Path
) -> None:
    ran = repository / "bundles" / "ran"
    overlay = json.loads((ran / "configs" / "hippocampus.json").read_text())
    plain = json.loads((ran / "configs" / f"{name}.json").read_text())
    assert overlay.keys() - plain.keys() <= (
        {"refine_smoothing", "refine_folding", "refine_bending"} if name == "train" else set()
    )
    parser = ConfigParser({**plain, **overlay, "bundle_root": str(ran)})
    weights = read_weights(Path(parser.get_parsed_content("ckpt")))
    parser.get_parsed_content("network_def").load_state_dict(weights)


@pytest.mark.parametrize("name", ["evaluate", "inference"])
def test_the_weights_of_random_shapes_run_in_two_passes(name: str, repository: Path) -> None:
    ran = repository / "bundles" / "ran"
    parser = ConfigParser(ConfigParser.load_config_files(configs(ran, name, "shapes")))
    parser["bundle_root"] = str(ran)
    parser.get_parsed_content("network_def").load_state_dict(read_weights(Path(parser.get_parsed_content("ckpt"))))
    assert parser.get_parsed_content("registration").passes == 2


class TestResuming:
    """A training that stops goes on as if it had not, and never loses its best model."""

    @pytest.mark.slow
    def test_it_ends_with_the_same_weights(self, ran: Path, create: Create, tmp_path: Path) -> None:
        def training(name: str, **changes: Any) -> ConfigWorkflow:
            return create(configs(ran, "train"), tmp_path / name, max_epochs=2, synthetic_probability=0.5, **changes)

        training("straight").run()
        ckpt = killed_in_second_epoch(training("broken"), tmp_path / "broken")
        training("broken", ckpt=str(ckpt)).run()
        straight = tmp_path / "straight" / "models"
        assert same(read_weights(ckpt)["model"], read_weights(straight / "checkpoint.pt")["model"])
        assert read_weights(ckpt)["lr_scheduler"] == read_weights(straight / "checkpoint.pt")["lr_scheduler"]
        assert digest(ckpt.with_name("model.pt")) == digest(straight / "model.pt")
        assert (tmp_path / "broken" / "eval" / "curves.csv").read_text() == (
            tmp_path / "straight" / "eval" / "curves.csv"
        ).read_text()

    @pytest.mark.slow
    def test_a_longer_training_has_a_longer_schedule(
        self, trained_ran: Path, ran: Path, create: Create, tmp_path: Path
    ) -> None:
        ckpt = str(trained_ran / "models" / "checkpoint.pt")
        workflow = create(configs(ran, "train"), tmp_path, max_epochs=8, warmup_steps=2, ckpt=ckpt)
        parts = {name: workflow.parser.get_parsed_content(name) for name in ("checkpointing", "lr_scheduler")}
        parts["checkpointing"].attach(workflow.trainer, workflow.evaluator)
        schedule = parts["lr_scheduler"]
        assert schedule.last_epoch == 1
        rates = []
        for _ in range(2, 9):
            schedule.optimizer.step()
            schedule.step()
            rates += schedule.get_last_lr()
        peak = json.loads((ran / "configs" / "train.json").read_text())["learning_rate"]
        expected = [0.5 * peak * (1.0 + math.cos(math.pi * step / 6.0)) for step in range(7)]
        assert rates == pytest.approx(expected)

    @pytest.mark.slow
    @pytest.mark.parametrize(("best", "kept"), [(1.0, True), (-1.0, False)])
    def test_a_worse_model_does_not_replace_the_best(
        self, best: float, kept: bool, trained_ran: Path, ran: Path, create: Create, tmp_path: Path
    ) -> None:
        shutil.copytree(trained_ran, tmp_path / "output")
        ckpt, model = (tmp_path / "output" / name for name in WEIGHTS)
        torch.save(read_weights(ckpt) | {"best_metric": best}, ckpt)
        before = model.read_bytes()
        settings = {"max_epochs": 2, "ckpt": str(ckpt), "learning_rate": 1e-5}  # stays better than doing nothing
        create(configs(ran, "train"), tmp_path / "output", **settings).run()
        checkpoint = read_weights(ckpt)
        assert checkpoint["trainer"]["epoch"] == 2
        assert (model.read_bytes() == before) is kept
        assert (checkpoint["best_metric"] == best) is kept
        assert checkpoint["best_epoch"] == (1 if kept else 2)

    @pytest.mark.slow
    def test_killed_three_times_it_still_finishes(self, ran: Path, tiny: Any, start_cli: Any, tmp_path: Path) -> None:
        moments = random.Random(0)
        output = tmp_path / "output"
        ckpt, model = (output / name for name in WEIGHTS)
        words = ["run", "training", "--config_file", str(ran / "configs" / "train.json")]

        def start(max_epochs: int) -> Any:
            resume = {"ckpt": str(ckpt)} if ckpt.exists() else {}
            return start_cli(words, tmp_path, tiny(configs(ran, "train"), output, max_epochs=max_epochs, **resume))

        epochs, scores = [0], [-1.0]
        for _ in range(3):
            before = modified(ckpt)
            process = start(max_epochs=1000)
            wait_until(partial(written_after, ckpt, before), process)
            time.sleep(moments.uniform(0.0, 3.0))
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            checkpoint = read_weights(ckpt)
            epochs.append(checkpoint["trainer"]["epoch"])
            scores.append(checkpoint["best_metric"])
            assert model.exists() or checkpoint["best_epoch"] == epochs[-1]
        assert epochs == sorted(set(epochs))
        assert scores == sorted(scores)
        last = start(max_epochs=epochs[-1] + 2)
        _, errors = last.communicate(timeout=120)
        assert last.returncode == 0, errors
        checkpoint = read_weights(ckpt)
        assert checkpoint["trainer"]["epoch"] == epochs[-1] + 2
        assert checkpoint["best_metric"] >= scores[-1]
        assert same(read_weights(model), checkpoint["model"]) is (checkpoint["best_epoch"] == epochs[-1] + 2)
        rows = (output / "eval" / "curves.csv").read_text().splitlines()[1:]
        assert [int(row.split(",")[0]) for row in rows] == [*range(1, epochs[-1] + 3)]


def wait_until(happened: Callable[[], bool], process: Any, seconds: float = 120.0) -> None:
    """Wait for something that a running process does."""
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


class TestTrainedModel:
    """Evaluation and inference with the weights of a training."""

    def test_evaluation_repeats_the_validation(
        self, trained_ran: Path, ran: Path, create: Create, tmp_path: Path
    ) -> None:
        ckpt = str(trained_ran / "models" / "model.pt")
        create(configs(ran, "evaluate"), tmp_path / "output", "infer", ckpt=ckpt).run()
        names = ("evaluation.csv", "evaluation.png", "provenance.json")
        assert files_of(tmp_path) == [f"output/eval/{name}" for name in names]
        Image.open(tmp_path / "output" / "eval" / "evaluation.png").verify()
        evaluation = (tmp_path / "output" / "eval" / "evaluation.csv").read_text()
        assert evaluation == (trained_ran / "eval" / "metrics.csv").read_text()

    def test_inference_writes_what_itk_reads(
        self, trained_ran: Path, ran: Path, create: Create, phantoms: Path, tmp_path: Path
    ) -> None:
        ckpt = str(trained_ran / "models" / "model.pt")
        create(configs(ran, "inference"), tmp_path / "output", "infer", ckpt=ckpt).run()
        pair = validation_pairs(phantoms)[0]
        folder = tmp_path / "output" / pair["pair_id"]
        names = ["displacement_itk.nii.gz", "fixed_points_in_moving.csv", "metrics.json", "provenance.json"]
        names += ["registration.png", "warped.nii.gz", "warped_label.nii.gz"]
        assert files_of(tmp_path) == [f"output/{pair['pair_id']}/{name}" for name in names]
        field = sitk.ReadImage(str(folder / names[0]), sitk.sitkVectorFloat64)
        assert np.abs(sitk.GetArrayFromImage(field)).max() > 4.0  # mm, a quarter of a voxel
        transform = sitk.DisplacementFieldTransform(field)
        fixed, moving, label = (sitk.ReadImage(pair[key]) for key in ("fixed", "moving", "moving_label"))
        inner = sitk.BinaryErode(sitk.Add(sitk.Multiply(label, 0), 1), [1, 1, 1], boundaryToForeground=False)

        def by_itk(image: sitk.Image, interpolator: int) -> Any:
            return sitk.GetArrayFromImage(sitk.Resample(image, fixed, transform, interpolator, 0.0))

        inside = by_itk(inner, sitk.sitkNearestNeighbor) > 0
        assert inside.mean() > 0.5
        warped, warped_label = (sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name))) for name in names[-2:])
        expected = by_itk(sitk.Cast(moving, sitk.sitkFloat32), sitk.sitkLinear)
        np.testing.assert_allclose(warped[inside], expected[inside], atol=0.1)
        assert np.mean(warped_label != by_itk(label, sitk.sitkNearestNeighbor)) < 0.002


@pytest.mark.slow
def test_two_workflows_do_not_disturb_each_other(
    trained_ran: Path, create: Create, copy_bundle: CopyBundle, tmp_path: Path
) -> None:
    """Both are made before either runs, and each writes into its own bundle."""
    first, second = (copy_bundle("ran", tmp_path / name) for name in ("first", "second"))
    workflows = [
        create(configs(bundle, "train"), bundle, **changes)
        for bundle, changes in ((first, {"geometry": "ran0"}), (second, {}))
    ]
    for workflow in reversed(workflows):
        workflow.run()
    assert same(read_weights(second / "models" / "model.pt"), read_weights(trained_ran / "models" / "model.pt"))
    checkpoint = read_weights(first / "models" / "checkpoint.pt")
    RAN(spatial_dims=3, preset="ran0").load_state_dict(checkpoint["model"])
    assert checkpoint["trainer"]["epoch"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
