"""Where bundles are looked for, and where their results go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from monai_regplugins import bundle_folders
from monai_regplugins.bundle_folders import (
    CONFIG,
    OF_A_REGISTRATION,
    all_bundles,
    find_bundle,
    option_elsewhere,
    output_root,
    packaged_bundles,
    presets_of,
    read_json,
    search_folders,
)
from monai_regplugins.checks import InputError


def make_bundle(root: Path, **configs: Any) -> Path:
    """A bundle of configurations alone."""
    (root / "configs").mkdir(parents=True)
    for name, content in {"inference": dict.fromkeys(OF_A_REGISTRATION), **configs}.items():
        (root / "configs" / f"{name}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The places where a name is looked for, all empty, in their order."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(bundle_folders, "PACKAGE", tmp_path / "site-packages" / "monai_regplugins")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    named = ("here", "here/bundles", "torch/hub/bundle", "site-packages/monai_regplugins/bundles")
    return [tmp_path / place for place in named]


def test_the_first_place_wins(places: list[Path]) -> None:
    for place in reversed(places):
        root = make_bundle(place / "ran")
        assert find_bundle("ran") == root
        if place.name != "here":  # a folder alone has no name to be listed by
            assert all_bundles() == {"ran": root}
    assert [path.absolute() for path in search_folders()] == places[1:]


def test_a_folder_of_bundles_is_the_only_one(places: list[Path], tmp_path: Path) -> None:
    make_bundle(places[3] / "ran")
    mine = make_bundle(tmp_path / "mine" / "other")
    assert find_bundle("other", tmp_path / "mine") == mine
    with pytest.raises(InputError, match=r"^there is no bundle 'othr', .* Did you mean 'other'\?$"):
        find_bundle("othr", tmp_path / "mine")
    with pytest.raises(InputError, match="there is no bundle 'ran'"):
        find_bundle("ran", tmp_path / "mine")


def test_bundles_of_other_kinds_are_not_listed(places: list[Path]) -> None:
    make_bundle(places[2] / "spleen", inference={"network_def": {}})
    make_bundle(places[2] / "damaged")
    (places[2] / "damaged" / CONFIG).write_text("{")
    make_bundle(places[2] / "regnet")
    assert list(all_bundles()) == ["regnet"]


def test_presets_change_settings_of_the_inference_alone(tmp_path: Path) -> None:
    settings = {"ckpt": "", "registration": {"passes": 1}, "window": []}
    overlays = {
        "brain": {"ckpt": "b.pt", "registration#passes": 2},
        "thorax": {"registration::passes": 3},
        "train": {"ckpt": "", "max_epochs": 3},
        "empty": {},
        "metadata": {"version": "1"},
    }
    assert presets_of(make_bundle(tmp_path / "ran", inference=settings, **overlays)) == ["brain", "thorax"]


def test_the_presets_of_this_repository(repository: Path) -> None:
    found = {name: presets_of(repository / "bundles" / name) for name in ("ran", "r2n2", "regnet")}
    assert found["ran"] == ["hippocampus", "hippocampus_labels", "shapes", "sliding"]
    assert (found["r2n2"], found["regnet"]) == (["cardiac"], [])


def test_those_of_a_training(repository: Path) -> None:
    root = repository / "bundles" / "r2n2"
    training = read_json(root / "configs" / "train.json")
    assert presets_of(root, training) == ["cardiac", "finetune", "paper", "volume"]


def test_the_bundles_of_a_working_copy(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_folders, "PACKAGE", repository / "monai_regplugins")
    assert packaged_bundles() == repository / "bundles"


def test_those_beside_an_installed_package_are_not_its_own(places: list[Path]) -> None:
    make_bundle(places[3].parents[1] / "bundles" / "ran")  # another package's folder in site-packages
    assert packaged_bundles() == places[3]


@pytest.mark.parametrize(("text", "content"), [("{", {}), ("[1]", {}), ('{"a": 1}', {"a": 1}), (None, {})])
def test_read_json(text: str | None, content: dict[str, int], tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    assert read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize(
    ("key", "file", "said"),
    [
        ("label_weight", "r2n2/configs/train.json", " It is an option of the bundle 'ran'."),
        ("max_epochs", "ran/configs/inference.json", " It is an option of 'train.json'."),
        ("voxel_size", "ran/configs/train.json", " It is an option of the bundle 'regnet'."),
        ("figures", "r2n2/configs/train.json", " It is an option of 'evaluate.json'."),
        ("label_weigth", "r2n2/configs/train.json", ""),
    ],
)
def test_what_else_has_an_option(
    key: str, file: str, said: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_folders, "search_folders", lambda: [repository / "bundles"])
    assert option_elsewhere(key, repository / "bundles" / file) == said


class TestOutputRoot:
    def test_a_bundle_of_the_user_holds_its_results(self, tmp_path: Path) -> None:
        for root in (str(make_bundle(tmp_path / "ran")), ".", str(tmp_path / "not_yet"), Path("relative")):
            assert output_root(root) is root

    def test_an_installed_bundle_does_not(self, places: list[Path]) -> None:
        assert output_root(str(make_bundle(places[3] / "ran"))) == "."

    def test_nor_does_one_that_may_not_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = make_bundle(tmp_path / "ran")
        monkeypatch.setattr(os, "access", lambda path, mode: (Path(path), mode) != (root, os.W_OK))
        assert output_root(str(root)) == "."
