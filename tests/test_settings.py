"""Settings that come from a preset or with weights."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from monai_regplugins.checks import InputError
from monai_regplugins.settings import OF_THE_LOSS, record_of, settle, training_record, with_record

Log = pytest.LogCaptureFixture
PUBLISHED = {"hippocampus": "model_hippocampus", "hippocampus_labels": "model_hippocampus_labels"}
PUBLISHED |= {"shapes": "model_shapes"}


@pytest.fixture
def bundle(repository: Path) -> Path:
    """The folder of RAN."""
    return repository / "bundles" / "ran"


def configuration(root: Path, name: str = "inference", **typed: Any) -> ConfigParser:
    """Return a configuration with typed values, before it takes settings from elsewhere."""
    config = ConfigParser.load_config_file(root / "configs" / f"{name}.json")
    parser = ConfigParser({**config, "bundle_root": str(root)})
    for key, value in typed.items():
        parser[key] = value
    parser.parse()
    return parser


def settled(root: Path, name: str = "inference", **typed: Any) -> ConfigParser:
    """Return it afterwards."""
    parser = configuration(root, name, **typed)
    settle(parser, typed)
    return parser


def weights_with(path: Path, **record: Any) -> str:
    """Write weights with a record."""
    torch.save(with_record({"weight": torch.ones(2)}, {"version": 1, **record}), path)
    return str(path)


@pytest.fixture
def said(caplog: Log) -> Iterator[Log]:
    """What is logged."""
    with caplog.at_level(logging.INFO):
        yield caplog


class TestPublishedWeights:
    """The file alone brings the settings of its preset."""

    @pytest.mark.parametrize("name", ["inference", "evaluate", "train"])
    @pytest.mark.parametrize("preset", PUBLISHED)
    def test_they_and_their_preset_are_the_same(self, preset: str, name: str, bundle: Path, tmp_path: Path) -> None:
        ckpt = shutil.copy(bundle / "models" / f"{PUBLISHED[preset]}.pt", tmp_path / "renamed.pt")
        overlay = json.loads((bundle / "configs" / f"{preset}.json").read_text())
        by_weights, by_preset = settled(bundle, name, ckpt=ckpt), settled(bundle, name, preset=preset)
        shared = [key for key in overlay if key != "ckpt" and key.split("#")[0] in by_weights.get()]
        assert [by_weights[key] for key in shared] == [by_preset[key] for key in shared]
        assert [by_weights[key] for key in shared] == [overlay[key] for key in shared]
        assert Path(by_preset.get_parsed_content("ckpt")).read_bytes() == Path(ckpt).read_bytes()

    @pytest.mark.parametrize("name", ["ran", "r2n2", "regnet"])
    def test_those_of_the_bundle_change_nothing(self, name: str, repository: Path, said: Log) -> None:
        root = repository / "bundles" / name
        for task in ("inference", "evaluate"):
            assert settled(root, task).get() == configuration(root, task).get()
        assert not said.messages

    def test_fine_tuning_them_takes_their_grid_and_steps(self, repository: Path) -> None:
        root = repository / "bundles" / "r2n2"
        parser = settled(root, "train", ckpt=str(root / "models" / "model.pt"))
        assert (parser["spatial_size"], parser["steps"], parser["noise_std"]) == ([96, 96], 12, 0.0)

    @pytest.mark.parametrize("name", ["ran", "r2n2", "regnet"])
    def test_fine_tuning_them_keeps_the_loss_of_the_training(self, name: str, repository: Path) -> None:
        """The weight of the smoothness of the instance optimization, a fifth of it in RAN, makes rough fields."""
        root = repository / "bundles" / name
        before = configuration(root, "train")
        for ckpt in (root / "models").glob("*.pt"):
            after = settled(root, "train", ckpt=str(ckpt))
            shared = [key for key in OF_THE_LOSS if key in before.get()]
            assert [after[key] for key in shared] == [before[key] for key in shared]

    def test_of_the_two_of_the_hippocampus_that_with_labels_is_not_optimized(self, bundle: Path) -> None:
        """Labels know the border where intensities do not: by the images alone its overlap falls."""
        one, other = (json.loads((bundle / "configs" / f"{name}.json").read_text()) for name in list(PUBLISHED)[:2])
        assert {**one, "ckpt": "", "refine_steps": 0} == {**other, "ckpt": ""}
        assert one["ckpt"] != other["ckpt"]


class TestPrecedence:
    """What was typed overrules the preset, the preset the weights, and these the configuration."""

    def test_typed_values_stay(self, bundle: Path, tmp_path: Path, said: Log) -> None:
        settings = {"spatial_size": [8, 8, 8], "window": [0, 1], "extend_border": True}
        ckpt = weights_with(tmp_path / "own.pt", settings=settings)
        parser = settled(bundle, ckpt=ckpt, spatial_size=(16, 16, 16), window=(0, 1))
        assert (parser["spatial_size"], parser["window"], parser["extend_border"]) == ((16, 16, 16), (0, 1), True)
        assert said.messages == [
            f"The weights '{ckpt}' bring extend_border True.",
            f"Other settings than those of the weights '{ckpt}': spatial_size [16, 16, 16] instead of [8, 8, 8].",
        ]

    def test_the_preset_is_in_between(self, bundle: Path, tmp_path: Path, said: Log) -> None:
        ckpt = weights_with(tmp_path / "own.pt", settings={"window": [0, 1], "geometry": "other"})
        parser = settled(bundle, ckpt=ckpt, preset="hippocampus", refine_folding=2.0)
        found = [parser[key] for key in ("window", "geometry", "refine_folding", "spatial_size")]
        assert found == [[], "other", 2.0, [36, 48, 36]]
        assert parser.get_parsed_content("ckpt") == ckpt
        assert said.messages == [
            f"The weights '{ckpt}' bring geometry other.",
            f"The preset 'hippocampus' overrules the weights '{ckpt}': window [] instead of [0, 1].",
        ]

    def test_what_is_typed_is_not_said_to_be_of_the_preset(self, bundle: Path, tmp_path: Path, said: Log) -> None:
        ckpt = weights_with(tmp_path / "own.pt", settings={"window": [0, 1], "spatial_size": [8, 8, 8]})
        settled(bundle, ckpt=ckpt, preset="hippocampus", window=[0, 2])
        assert [(record.levelname, record.message.partition("'")[0]) for record in said.records] == [
            ("WARNING", "Other settings than those of the weights "),
            ("INFO", "The preset "),
        ]
        assert said.messages[0].endswith("': window [0, 2] instead of [0, 1].")
        assert said.messages[1].endswith("': spatial_size [36, 48, 36] instead of [8, 8, 8].")

    def test_inside_of_components(self, bundle: Path, tmp_path: Path) -> None:
        settings = {"network_def#num_heads": 1, "registration#passes": 3}
        ckpt = weights_with(tmp_path / "own.pt", settings=settings)
        parser = settled(bundle, ckpt=ckpt, **{"registration::passes": 2})
        assert (parser["network_def#num_heads"], parser["registration#passes"]) == (1, 2)
        assert parser.get_parsed_content("registration").passes == 2


class TestDataSet:
    """An evaluation is on the data that its weights were trained on."""

    @pytest.fixture
    def trained(self, tmp_path: Path) -> str:
        """Weights beside their checkpoint, and their data set."""
        (tmp_path / "mr").mkdir()
        torch.save({"optimizer": {}, "data": str(tmp_path / "mr")}, tmp_path / "checkpoint.pt")
        return weights_with(tmp_path / "model.pt", settings={}, data="mr")

    @pytest.mark.parametrize("name", ["ran", "r2n2", "regnet"])
    def test_it_is_taken(self, name: str, repository: Path, trained: str, tmp_path: Path, said: Log) -> None:
        parser = settled(repository / "bundles" / name, "evaluate", ckpt=trained)
        assert parser.get_parsed_content("dataset_dir") == str(tmp_path / "mr")
        (line,) = said.messages
        assert line.startswith(f"Evaluating on '{tmp_path}/mr', which '{trained}' was trained on; --dataset_dir ")

    def test_what_is_typed_and_other_tasks_stay(self, repository: Path, trained: str, said: Log) -> None:
        root = repository / "bundles" / "r2n2"
        for typed in ({"dataset_dir": "elsewhere"}, {"phantom": "thorax"}):
            parser, before = settled(root, "evaluate", ckpt=trained, **typed), configuration(root, "evaluate", **typed)
            assert parser.get_parsed_content("dataset_dir") == before.get_parsed_content("dataset_dir")
        for task in ("inference", "train"):
            parser, before = settled(root, task, ckpt=trained), configuration(root, task)
            assert parser.get_parsed_content("dataset_dir") == before.get_parsed_content("dataset_dir")
        assert not said.messages

    @pytest.mark.parametrize("folder", ["$print('code')", "scans", "/elsewhere/mr", ""])
    def test_where_it_is_not_there_that_is_said(self, folder: str, bundle: Path, tmp_path: Path, said: Log) -> None:
        torch.save({"optimizer": {}, "data": folder}, tmp_path / "checkpoint.pt")
        ckpt = weights_with(tmp_path / "model.pt", settings={}, data="mr")
        parser = settled(bundle, "evaluate", ckpt=ckpt)
        assert parser.get() == configuration(bundle, "evaluate", ckpt=ckpt).get()
        assert said.messages == [
            f"The weights '{ckpt}' were trained on 'mr' and are evaluated on the phantom of the bundle; give "
            "--dataset_dir."
        ]
        assert said.records[0].levelname == "WARNING"


class TestRecord:
    """What weights say of themselves."""

    def test_it_is_that_of_the_training(self, bundle: Path, tmp_path: Path) -> None:
        changes = {"spatial_size": [16, 16, 16], "geometry": "ran0", "network_def#num_heads": 1, "seed": 3}
        record = training_record(configuration(bundle, "train", **changes))
        assert record["network"] == "monai_regplugins.networks.nets.RAN"
        settings = record["settings"]
        assert {key: settings[key] for key in list(changes)[:3]} == {key: changes[key] for key in list(changes)[:3]}
        assert settings.keys() >= {"window", "initial_alignment", "extend_border", "mask_threshold", "spatial_dims"}
        assert not settings.keys() & {"seed", "ckpt", "preset", "device", "amp", "max_epochs", "network_def#_target_"}
        torch.save(with_record({"weight": torch.ones(2)}, record), file := tmp_path / "own.pt")
        assert record_of(file, bundle) == record
        assert list(torch.load(file, weights_only=True)) == ["weight"]

    def test_the_loss_of_a_training_is_not_that_of_the_optimization(self, bundle: Path, tmp_path: Path) -> None:
        """A training that goes on from the weights keeps it; a registration has its own."""
        given = {"smoothness_weight": 0.05, "smoothness_form": "l1", "similarity_weight": 9.0, "lncc_window": 11}
        given |= {"mask_threshold": 0.5}
        record = training_record(configuration(bundle, "train", **given))
        ckpt = weights_with(tmp_path / "own.pt", **record)
        expected = configuration(bundle, "inference")
        found = settled(bundle, "inference", ckpt=ckpt)
        again = settled(bundle, "train", ckpt=ckpt)
        for key in ("smoothness_weight", "smoothness_form", "similarity_weight", "lncc_window"):
            assert found.get_parsed_content(key) == expected.get_parsed_content(key) != given[key]
            assert again.get_parsed_content(key) == given[key]
        assert found.get_parsed_content("mask_threshold") == 0.5

    def test_what_training_has_not_is_handed_down(self, bundle: Path) -> None:
        ckpt = str(bundle / "models" / "model_hippocampus.pt")
        settings = training_record(settled(bundle, "train", ckpt=ckpt, window=[0, 9]))["settings"]
        found = [settings[key] for key in ("refine_smoothing", "refine_folding", "window", "spatial_size")]
        assert found == [0.0, 1.0, [0, 9], [36, 48, 36]]

    def test_which_published_weights_a_training_started_from(self, bundle: Path, tmp_path: Path) -> None:
        assert "started_from" not in training_record(configuration(bundle, "train"))
        ckpt = shutil.copy(bundle / "models" / "model_hippocampus.pt", tmp_path / "renamed.pt")
        first = training_record(configuration(bundle, "train", ckpt=str(ckpt)))
        assert first["started_from"] == "model_hippocampus.pt"
        second = training_record(
            configuration(bundle, "train", ckpt=weights_with(tmp_path / "own.pt", **{**first, "settings": {}}))
        )
        assert second["started_from"] == "model_hippocampus.pt"

    def test_of_a_checkpoint(self, bundle: Path, tmp_path: Path) -> None:
        record = {"version": 1, "settings": {"steps": 2}}
        torch.save({"model": {}, "optimizer": {}, "record": record}, tmp_path / "checkpoint.pt")
        assert record_of(tmp_path / "checkpoint.pt", bundle) == record

    def test_code_paths_and_components_are_no_settings(self, bundle: Path, tmp_path: Path) -> None:
        evil = {
            "window": "$[].clear()",
            "features": "module.pt",
            "initial_transform": "affine.tfm",
            "output_dir": "elsewhere",
            "writer": {"_target_": "os.system"},
            "network_def#_target_": "os.system",
            "writer#output_dir": "elsewhere",
            "lncc_window": ["%x"],
        }
        parser = settled(bundle, ckpt=weights_with(tmp_path / "own.pt", settings=evil))
        before = configuration(bundle)
        assert {**parser.get(), "ckpt": ""} == {**before.get(), "ckpt": ""}

    def test_components_inside_of_components_are_no_settings(self, repository: Path, tmp_path: Path) -> None:
        evil = {
            "registration#stopping#_target_": "os.system",
            "registration#stopping::_target_": "os.system",
            "registration::stopping::_target_": "os.system",
            "registration#stopping#_disabled_": False,
            "registration#+stopping": 0,
        }
        root = repository / "bundles" / "r2n2"
        parser = settled(root, ckpt=weights_with(tmp_path / "own.pt", settings=evil))
        assert parser["registration"] == configuration(root)["registration"]

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ({"version": 2}, "settings in the weights '.*' have version 2, expected 1; update"),
            (
                {"network": "monai_regplugins.networks.nets.R2N2", "bundle": "r2n2"},
                r"trained in the bundle 'r2n2' for the network \S+R2N2, expected \S+RAN; use that bundle",
            ),
        ],
    )
    def test_what_cannot_fit_is_refused(
        self, record: dict[str, Any], message: str, bundle: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=message):
            settled(bundle, ckpt=weights_with(tmp_path / "own.pt", **record))

    def test_weights_without_one(self, bundle: Path, tmp_path: Path, said: Log) -> None:
        file = tmp_path / "own.pt"
        torch.save({"a": torch.ones(1)}, file)
        settled(bundle, ckpt=str(file))
        assert said.messages == [f"The weights '{file}' come without settings; those of the configuration hold."]

    @pytest.mark.parametrize("task", ["train", "evaluate", "inference"])
    @pytest.mark.parametrize("content", ["text", "list"])
    def test_of_what_are_no_weights_that_alone_is_said(
        self, content: str, task: str, bundle: Path, tmp_path: Path, said: Log
    ) -> None:
        file = tmp_path / "own.pt"
        file.write_text("no weights") if content == "text" else torch.save([1], file)
        with pytest.raises(InputError, match=r"cannot be read|holds a list"):
            settled(bundle, task, ckpt=str(file))
        assert not said.messages

    def test_a_configuration_without_weights(self) -> None:
        parser = ConfigParser({"window": [0, 1], "preset": "hippocampus"})
        settle(parser)
        assert parser.get() == {"window": [0, 1], "preset": "hippocampus"}

    def test_weights_that_are_not_there(self, bundle: Path, said: Log) -> None:
        settled(bundle, ckpt="nowhere.pt")
        assert not said.messages


class TestAxes:
    """Sizes have a number for each axis of the images."""

    @pytest.mark.parametrize(
        ("name", "task", "typed", "message"),
        [
            (
                "r2n2",
                "train",
                {"spatial_size": [96, 96, 96]},
                r"spatial_size is \[96, 96, 96\], expected 2 whole numbers, one for each axis, since spatial_dims is "
                r"2; change it, or give spatial_dims 3 if the images are 3D\.$",
            ),
            ("r2n2", "train", {"spatial_dims": 3}, r"spatial_size is \[64, 64\], expected 3 whole numbers"),
            ("r2n2", "evaluate", {"spatial_size": (96, 96, 96)}, r"spatial_size is \[96, 96, 96\], expected 2"),
            ("r2n2", "inference", {"refine_size": [32, 32, 32]}, r"refine_size is \[32, 32, 32\], expected 2"),
            ("ran", "train", {"spatial_size": [64, 64]}, "expected 3 .* give spatial_dims 2 if the images are 2D"),
            ("ran", "train", {"crop_margin": [2, 2]}, r"crop_margin is \[2, 2\], expected 3"),
            ("ran", "train", {"crop_margin": []}, r"crop_margin is \[\], expected 3 .*; change it\.$"),
            ("ran", "evaluate", {"spatial_size": [64]}, r"spatial_size is \[64\], expected 3 .*; change it\.$"),
            ("ran", "inference", {"spatial_size": [24.5, 20, 24]}, r"\[24\.5, 20, 24\], expected 3 whole numbers"),
            ("ran", "inference", {"refine_size": 24}, "refine_size is 24, expected 3 whole numbers"),
            ("regnet", "inference", {"refine_size": [32, 32]}, r"refine_size is \[32, 32\], expected 3"),
            ("regnet", "evaluate", {"voxel_size": [2, 2, 2]}, r"voxel_size is \[2, 2, 2\], expected one number"),
            ("regnet", "train", {"voxel_size": [2, 2, 2]}, r"voxel_size is \[2, 2, 2\], expected one number"),
        ],
    )
    def test_another_number_of_them_is_refused(
        self, name: str, task: str, typed: dict[str, Any], message: str, repository: Path
    ) -> None:
        with pytest.raises(InputError, match=message):
            settled(repository / "bundles" / name, task, **typed)

    def test_what_is_good(self, repository: Path) -> None:
        bundles = repository / "bundles"
        assert settled(bundles / "r2n2", "train", preset="volume")["spatial_size"] == [32, 32, 32]
        assert settled(bundles / "ran", refine_size=[], spatial_size=[-1, -1, 24])["refine_size"] == []
        assert settled(bundles / "ran", "train", crop_margin=(0, 1, 2))["crop_margin"] == (0, 1, 2)
        settled(bundles / "regnet", spatial_dims=2, ckpt="")  # the size of the optimization follows


class TestPresets:
    """A name that stands for settings of a bundle."""

    def test_of_a_training(self, repository: Path) -> None:
        parser = settled(repository / "bundles" / "r2n2", "train", preset="volume", channels=[4, 8])
        assert [parser[key] for key in ("phantom", "spatial_dims", "channels")] == ["thorax", 3, [4, 8]]
        assert parser.get_parsed_content("embedded_dir").endswith("/data/thorax")

    @pytest.mark.parametrize(
        ("name", "preset", "message"),
        [
            ("ran", "hipocampus", "preset of the bundle ran is 'hipocampus'; .*Did you mean 'hippocampus'"),
            ("ran", "pretrain", "choose one of 'hippocampus', 'hippocampus_labels', 'shapes', 'sliding'"),
            ("regnet", "paper", "preset is 'paper', but the bundle regnet has none for this; leave it out"),
        ],
    )
    def test_unknown(self, name: str, preset: str, message: str, repository: Path) -> None:
        with pytest.raises(InputError, match=message):
            settled(repository / "bundles" / name, preset=preset)
