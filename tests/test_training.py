"""Settings that end a training before it begins, and the commands that it ends with."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser
from PIL import Image

from monai_regplugins import training
from monai_regplugins.benchmark.__main__ import parse_arguments
from monai_regplugins.checks import InputError, input_error_message
from monai_regplugins.cli import build_parser, split_overrides
from monai_regplugins.settings import training_record, with_record
from monai_regplugins.training import check_settings, labeled, log_commands

BUNDLES = ["ran", "r2n2", "regnet"]
IMPORTS = ["$import monai_regplugins"]


def checked(**settings: Any) -> str | None:
    """Check settings as a configuration does, and return what is said of them."""
    parser = ConfigParser(
        {"imports": IMPORTS, **settings, "initialize": ["$monai_regplugins.training.check_settings()"]}
    )
    try:
        parser.get_parsed_content("initialize")
    except RuntimeError as error:
        return input_error_message(error) or f"not an input error: {error!r}"
    return None


class TestSettings:
    """One line for each number with which a training cannot work."""

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"max_epochs": 0}, "max_epochs is 0, expected a whole number of at least 1; give such a number by --max"),
            ({"max_epochs": -2}, "max_epochs is -2"),
            ({"max_epochs": 1.5}, "max_epochs is 1.5"),
            ({"max_epochs": True}, "max_epochs is True"),
            ({"max_epochs": "ten"}, "max_epochs is 'ten'"),
            ({"val_interval": 0}, "val_interval is 0"),
            ({"batch_size": 0}, "batch_size is 0"),
            ({"pairs_per_epoch": 0}, "pairs_per_epoch is 0"),
            ({"images_per_epoch": 0}, "images_per_epoch is 0"),
            ({"num_workers": -1}, "num_workers is -1, expected a whole number of at least 0"),
            ({"warmup_steps": -1}, "warmup_steps is -1"),
            ({"val_pairs": -1}, "val_pairs is -1"),
            ({"val_cases": 0.5}, "val_cases is 0.5"),
            ({"learning_rate": -0.1}, "learning_rate is -0.1, expected a finite number of at least 0"),
            ({"learning_rate": float("nan")}, "learning_rate is nan"),
            ({"learning_rate": "nan"}, "learning_rate is 'nan'"),
            ({"learning_rate": "$float('inf')"}, "learning_rate is inf"),
            ({"learning_rate_divisor": 0}, "learning_rate_divisor is 0, expected a finite number above 0"),
            ({"smoothness_weight": -1.0}, "smoothness_weight is -1.0"),
            ({"label_weight": float("nan")}, "label_weight is nan"),
            ({"flip_probability": 1.5}, "flip_probability is 1.5, expected a number from 0 to 1"),
            ({"max_minutes": -1}, "max_minutes is -1"),
        ],
    )
    def test_what_is_refused(self, settings: dict[str, Any], expected: str) -> None:
        message = checked(**settings)
        assert message is not None
        assert expected in message
        assert "\n" not in message

    def test_what_is_good(self) -> None:
        assert checked(max_epochs=4, val_interval=4, learning_rate=0, label_weight=0.5, val_pairs=0, other=-1) is None
        assert checked(max_epochs="$2 * 2", val_interval="@max_epochs", flip_probability=1) is None

    def test_without_a_configuration_it_is_silent(self) -> None:
        check_settings()

    @pytest.mark.parametrize("name", BUNDLES)
    @pytest.mark.parametrize("config", ["train", "multi_gpu_train"])
    def test_each_training_is_checked_before_its_data_are_made(self, repository: Path, name: str, config: str) -> None:
        file = repository / "bundles" / name / "configs" / f"{config}.json"
        content = ConfigParser.load_config_file(file)
        assert content["initialize"][1] == "$monai_regplugins.training.check_settings()"
        assert {*IMPORTS} <= {*content["imports"]}

    @pytest.mark.parametrize("name", BUNDLES)
    def test_the_shipped_settings_are_good(self, repository: Path, name: str) -> None:
        folder = repository / "bundles" / name / "configs"
        settings = json.loads((folder / "train.json").read_text())
        for overlay in sorted(folder.glob("*.json")):
            changed = {**settings, **(json.loads(overlay.read_text()) if overlay.stem in OVERLAYS else {})}
            numbers = {key: value for key, value in changed.items() if isinstance(value, int | float)}
            assert checked(**numbers) is None, overlay


class TestGrid:
    """A grid that the network does not take is said before anything is read or written."""

    @pytest.mark.parametrize(
        ("name", "settings", "expected"),
        [
            ("r2n2", {"spatial_size": [16, 16]}, "spatial_size is [16, 16], but R2N2 is trained on at least 32 voxels"),
            ("r2n2", {"spatial_size": [32, 32]}, ""),
            ("r2n2", {"spatial_size": [32, -1]}, ""),
            ("r2n2", {"spatial_size": [32, 32], "channels": [4, 4, 4, 4]}, "R2N2 is trained on at least 64 voxels"),
            ("ran", {"spatial_size": [7, 16, 16]}, "RAN is trained on at least 8 voxels along each axis; give"),
            ("ran", {"spatial_size": [8, 16, 16]}, ""),
            ("ran", {"spatial_size": [8, 16, 16], "crop_margin": 1}, "each axis beside a crop_margin of 1; give"),
            ("ran", {"spatial_size": [8, 16, 16], "crop_margin": [0, 4, 4]}, ""),
            ("ran", {"spatial_size": []}, "spatial_size is [], but RAN"),
            ("regnet", {}, ""),
        ],
    )
    def test_what_is_refused(self, name: str, settings: dict[str, Any], expected: str, repository: Path) -> None:
        config = json.loads((repository / "bundles" / name / "configs" / "train.json").read_text())
        kept = {key: config[key] for key in config if isinstance(config[key], int | float | list) or key in NETWORK}
        message = checked(**{key: value for key, value in kept.items() if key not in NOT_CHECKED} | settings) or ""
        assert expected in message
        assert bool(expected) == bool(message)
        assert "\n" not in message


NETWORK = ("network_def", "geometry", "head_weighting", "padding", "fusion", "scales", "low_res")
NOT_CHECKED = ("imports", "initialize", "training", "inference_overlays")
OVERLAYS = ("paper", "pretrain", "hippocampus", "finetune", "train_series", "volume", "planar")


class TestLabels:
    """Labels that a loss wants have to be there."""

    PAIRS = [  # noqa: RUF012
        {"pair_id": "a_to_b", "moving_label": "a", "fixed_label": "b"},
        {"pair_id": "c_to_b", "fixed_label": "b"},
        {"pair_id": "d_to_e"},
    ]

    def test_they_are_wanted(self) -> None:
        message = r"label_weight is 0\.5, but 2 of 3 training pairs lack labels \(first 'c_to_b'\)"
        with pytest.raises(InputError, match=message):
            labeled(self.PAIRS, 0.5)
        assert labeled(self.PAIRS[:1], 0.5) == self.PAIRS[:1]

    def test_they_are_not_wanted(self) -> None:
        assert labeled(self.PAIRS, 0.0) == self.PAIRS


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    """Return a function that logs the commands after a training of a bundle, and gives their words by task."""

    def log(repository: Path, name: str, overlays: list[str], **changes: Any) -> dict[str, dict[str, str]]:
        caplog.clear()
        monkeypatch.chdir(repository)
        root = repository / "bundles" / name
        files = [str(root / "configs" / f"{one}.json") for one in ("train", *overlays)]
        output, weights = str(tmp_path / "out"), str(tmp_path / "out" / "models" / "model.pt")
        Path(weights).parent.mkdir(parents=True, exist_ok=True)
        torch.save({}, weights)
        config = {**ConfigParser.load_config_files(files), "bundle_root": str(root), "output_dir": output, **changes}
        call = f"$monai_regplugins.training.log_commands({weights!r}, @output_dir, {config.get('inference_overlays')})"
        with caplog.at_level(logging.INFO):
            ConfigParser({**config, "reported": call.replace("None", "()")}).get_parsed_content("reported")
        lines = [shlex.split(text.splitlines()[-1]) for text in caplog.messages]
        (compared,) = (line for line in lines if line[2] == "monai_regplugins.benchmark")
        assert lines.index(compared) == 1
        parse_arguments(compared[3:])
        lines.remove(compared)
        evaluating, registering = lines
        assert evaluating[:5] == ["python", "-m", "monai.bundle", "run", "evaluating"]
        if registering[0] == "regplugins":
            assert registering[:4] == ["regplugins", "register", "FIXED", "MOVING"]
            own, overrides = split_overrides(registering[1:])
            args = build_parser().parse_args(own)
            assert (args.bundle, args.output_dir) == (f"bundles/{name}", "out")
        else:
            assert registering[:5] == ["python", "-m", "monai.bundle", "run", "inference"]
            overrides = registering[5:]
        found = {"evaluating": evaluating[5:], "inference": overrides}
        return {task: dict(zip(words[::2], words[1::2], strict=True)) for task, words in found.items()}

    return log


class TestCommands:
    """What a training ends with uses its result as it was trained."""

    PLACES = ("--config_file", "--ckpt", "--output_dir")

    @pytest.mark.parametrize("name", ["ran", "regnet"])
    def test_places_alone_where_the_settings_are_the_same(
        self, commands: Any, repository: Path, tmp_path: Path, name: str
    ) -> None:
        model, folder = str(tmp_path / "out" / "models" / "model.pt"), f"bundles/{name}/configs"
        assert commands(repository, name, []) == {
            "evaluating": dict(
                zip(self.PLACES, [f"{folder}/evaluate.json", model, str(tmp_path / "out")], strict=True)
            ),
            "inference": {"--ckpt": model},
        }

    def test_comparison_with_optimization_alone_and_the_published_weights(
        self, commands: Any, repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        commands(repository, "ran", [], dataset_dir=str(tmp_path))
        args = parse_arguments(shlex.split(caplog.messages[1].splitlines()[-1])[3:])
        assert args.bundle == [Path("bundles/ran")]
        assert args.ckpt == [str(tmp_path / "out" / "models" / "model.pt")]
        assert args.dataset_dir == str(tmp_path)
        assert args.methods == ["identity", "optimization", "ran", "published"]

    def test_other_settings_come_with_the_weights(self, commands: Any, repository: Path) -> None:
        changes = {"spatial_size": [32, 40, 32], "window": [], "geometry": "ran0", "initial_alignment": "auto"}
        found = commands(repository, "ran", [], **changes, seed=3, dataset_dir="/data/My Data")
        settings = {
            task: {key[2:]: DefaultParseValue(word) for key, word in words.items() if key not in self.PLACES}
            for task, words in found.items()
        }
        assert settings == {"evaluating": {"seed": 3, "dataset_dir": "/data/My Data"}, "inference": {"seed": 3}}

    @pytest.mark.parametrize(("name", "overlay"), [("r2n2", "volume"), ("regnet", "planar")])
    def test_an_overlay_follows(self, commands: Any, repository: Path, name: str, overlay: str) -> None:
        """What the weights do not bring, such as the phantom, follows in the command."""
        folder = repository / "bundles" / name / "configs"
        files = [str(folder / f"{one}.json") for one in ("train", overlay)]
        training = ConfigParser({**ConfigParser.load_config_files(files), "bundle_root": str(folder.parent)})
        over = {**training_record(training)["settings"]}
        own = json.loads((folder / f"{overlay}.json").read_text())
        for task, words in commands(repository, name, [overlay]).items():
            plain = json.loads((folder / f"{ {'evaluating': 'evaluate'}.get(task, task) }.json").read_text())
            follow = {key[2:]: DefaultParseValue(word) for key, word in words.items() if key not in self.PLACES}
            shared = {key for key in own.keys() & plain.keys() if own[key] != plain[key]} - {"val_pairs", "batch_size"}
            shared -= {"phantom"} if task == "inference" else set()  # it registers two images
            assert {key: {**over, **follow}[key] for key in shared} == {key: own[key] for key in shared}
            assert not over.keys() & follow.keys()

    def test_a_series(self, commands: Any, repository: Path) -> None:
        words = commands(repository, "r2n2", ["train_series"], series="cine,1.nii.gz", fixed_frame=3)["inference"]
        assert words["--config_file"] == "['bundles/r2n2/configs/inference.json','bundles/r2n2/configs/series.json']"
        assert DefaultParseValue(words["--series"]) == "cine,1.nii.gz"
        assert DefaultParseValue(words["--fixed_frame"]) == 3

    @pytest.mark.parametrize("text", ["1", "a,b", "True", "[x", "1e3", "it's", "x y", "plain.nii.gz"])
    def test_texts_stay_texts(self, commands: Any, repository: Path, text: str) -> None:
        words = commands(repository, "r2n2", ["train_series"], series=text)["inference"]
        assert DefaultParseValue(words["--series"]) == text

    def test_data_with_labels_have_a_hint(
        self, commands: Any, repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name in "abcd":
            for kind in ("images", "labels"):
                (tmp_path / "Set" / kind).mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(np.zeros((4, 5, 6)), np.eye(4)), tmp_path / "Set" / kind / f"{name}.nii")
        about = "optimizes the network's field for each pair, which the validations did not"
        about += "; --refine_steps 0 leaves that out"
        title = f"Register your own images with these weights ({about})"
        hint = "; --moving_label LABELS warps a label map along, --fixed_label LABELS measures its overlap"
        for with_labels in (True, False):
            commands(repository, "ran", [], dataset_dir=str(tmp_path / "Set"))
            assert caplog.messages[-1].splitlines()[0] == f"{title}{hint if with_labels else ''}:"
            shutil.rmtree(tmp_path / "Set" / "labels", ignore_errors=True)

    def test_without_a_configuration_it_is_silent(self, caplog: pytest.LogCaptureFixture) -> None:
        log_commands("model.pt", "out")
        assert not caplog.messages


class TestStart:
    """What a training that starts from weights says before it makes anything."""

    def test_a_resumed_one_needs_its_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        ckpt = str(tmp_path / "checkpoint.pt")
        torch.save({"model": {}, "optimizer": {}, "data": str(tmp_path / "my scans")}, ckpt)
        said = checked(ckpt=ckpt, dataset_dir="phantom", embedded_dir="phantom")
        expected = f"'{ckpt}' is of a training on the data set '{tmp_path}/my scans'; give that, too: --dataset_dir "
        assert said == f"checkpoint {expected}'my scans'."
        assert checked(ckpt=ckpt, dataset_dir="elsewhere", embedded_dir="phantom") is None
        torch.save({"model": {}, "optimizer": {}, "data": ""}, ckpt)
        assert checked(ckpt=ckpt, dataset_dir="phantom", embedded_dir="phantom") is None

    def test_settings_of_the_weights_that_hold_for_own_images(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        torch.save({"weight": torch.ones(1)}, ckpt := str(tmp_path / "model.pt"))
        settings = {"ckpt": ckpt, "bundle_root": "ran", "embedded_dir": "phantom"}
        settings |= {"window": [-160, 240], "initial_alignment": "none"}
        with caplog.at_level(logging.INFO):
            assert checked(dataset_dir="phantom", **settings) is None
            assert not caplog.messages
            assert checked(dataset_dir="scans", **settings) is None
        assert caplog.messages == [
            f"Training from '{ckpt}' on own images, prepared as for these weights where nothing else was given: window "
            "[-160, 240], initial_alignment none. 'regplugins describe' proposes what fits your images."
        ]

    def test_weights_of_own_images_that_train_on_the_phantom(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        state = with_record({"weight": torch.ones(1)}, {"version": 1, "settings": {}, "data": "mr"})
        torch.save(state, ckpt := str(tmp_path / "model.pt"))
        assert checked(ckpt=ckpt, dataset_dir="phantom", embedded_dir="phantom", bundle_root="ran") is None
        assert caplog.messages == [
            f"The weights '{ckpt}' were trained on 'mr'; this training is on the phantom: --dataset_dir takes images."
        ]


@pytest.mark.parametrize("steps", [0, 30])
def test_command_after_an_evaluation(
    steps: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = "$monai_regplugins.training.log_registration('my runs/model.pt')"
    places = {"dataset_dir": "own data", "embedded_dir": "phantom"}
    config = {"imports": IMPORTS, "bundle_root": "ran", **places, "refine_steps": steps, "said": call}
    caplog.set_level(logging.INFO)
    ConfigParser(config).get_parsed_content("said")
    compared, text = caplog.messages
    assert " --ckpt 'my runs/model.pt' --dataset_dir 'own data' --pairs 10 " in compared.splitlines()[1]
    title, words = text.splitlines()
    assert ("--refine_steps 0 leaves that out" in title) == (steps == 0)
    option = " --refine_steps 30" if steps else ""
    assert words == f"regplugins register FIXED MOVING --bundle ran --ckpt 'my runs/model.pt'{option} -o out"
    Path("my runs").mkdir()
    torch.save(with_record({}, {"version": 1, "settings": {"refine_steps": 0}}), "my runs/model.pt")
    ConfigParser(config).get_parsed_content("said")
    assert "leaves that out" not in caplog.messages[-1]  # since these weights are not optimized by default


@pytest.mark.parametrize(
    ("dims", "evaluated", "compared"), [(2, 50, " --pairs 50 "), (2, 0, ""), (3, 50, " --pairs 10 ")]
)
def test_in_2d_the_comparison_takes_the_pairs_of_the_evaluation(
    dims: int, evaluated: int, compared: str, caplog: pytest.LogCaptureFixture
) -> None:
    call = "$monai_regplugins.training.log_registration('model.pt')"
    config = {"bundle_root": "r2n2", "dataset_dir": "own", "embedded_dir": "own", "spatial_dims": dims}
    caplog.set_level(logging.INFO)
    ConfigParser({"imports": IMPORTS, **config, "val_pairs": evaluated, "said": call}).get_parsed_content("said")
    words = caplog.messages[0].splitlines()[1]
    assert compared in words
    assert ("--pairs" in words) == bool(compared)


class TestResuming:
    """The command that goes on with a training, by the one that was typed."""

    ARGV = ("/venv/monai/bundle/__main__.py", "run", "training", "--config_file", "train.json", "--ckpt=a b.pt")
    ARGV += ("--max_epochs", "4", "--ckpt", "c.pt", "--output_dir", "my run")

    @pytest.mark.parametrize(
        ("weights", "epoch", "steps", "more"),
        [
            ("model.pt", 4, 0, None),
            ("model.pt", 2, 3, ["--max_epochs", "4", "--output_dir", "my run", "--ckpt", "checkpoint.pt"]),
            ("model_last.pt", 4, 0, ["--output_dir", "my run", "--ckpt", "checkpoint.pt", "--max_epochs", "8"]),
        ],
    )
    def test_command(
        self,
        weights: str,
        epoch: int,
        steps: int,
        more: list[str] | None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        monkeypatch.setattr(training, "configuration", lambda: {"max_epochs": 4})
        assert training._resume_command(tmp_path / weights, self.ARGV) == ""
        torch.save({"trainer": {"epoch": epoch}, "steps": steps}, tmp_path / "checkpoint.pt")
        words = shlex.split(training._resume_command(tmp_path / weights, self.ARGV))
        start = ["python", "-m", "monai.bundle", "run", "training", "--config_file", "train.json"]
        assert words == ([] if more is None else [*start, *more])
        assert training._resume_command(tmp_path / weights, ["pytest", *self.ARGV[1:]]) == ""


@pytest.mark.parametrize(
    ("suffix", "dims", "message"),
    [
        ("png", 3, r"Set' is 2D and spatial_dims 3; train the bundle r2n2, which is 2D, or give --spatial_dims 2 and"),
        ("nii", 2, r"Set' is 3D and spatial_dims 2; train the bundle ran, which is 3D, or give --spatial_dims 3 and"),
        ("png", 2, None),
    ],
)
def test_data_of_other_dimensions_are_told_before_the_first_batch(
    tmp_path: Path, suffix: str, dims: int, message: str | None
) -> None:
    (folder := tmp_path / "Set" / "images").mkdir(parents=True)
    file = str(folder / f"a.{suffix}")
    if suffix == "png":
        Image.fromarray(np.zeros((4, 5), dtype=np.uint8)).save(file)
    else:
        nib.save(nib.Nifti1Image(np.zeros((4, 5, 6)), np.eye(4)), file)
    said = checked(dataset_dir=str(folder.parent), embedded_dir="phantom", spatial_dims=dims)
    assert said is None if message is None else re.search(message, said or "")
    assert checked(dataset_dir=str(folder.parent), embedded_dir=str(folder.parent), spatial_dims=dims) is None
