"""What keeps a bundle from being released is found, all of it at once."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from released_bundles import complete_bundle, metadata, tiny_bundle, write_json

from monai_regplugins.checks import InputError
from monai_regplugins.release import checks
from monai_regplugins.release.checks import check_bundles


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path)


@pytest.fixture
def changelog(repository: Path) -> Path:
    return repository / "CHANGELOG.md"


def found(*bundles: Path, **options: Any) -> str:
    """Return what a check says, which is one line."""
    with pytest.raises(InputError) as caught:
        check_bundles(bundles, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestFit:
    @pytest.mark.parametrize("tag", ["", version("monai-regplugins"), "v" + version("monai-regplugins")])
    def test_tiny(self, tag: str, tiny: Path, changelog: Path) -> None:
        check_bundles([tiny], tag, changelog)

    @pytest.mark.bundle
    @pytest.mark.slow  # the parts are tested one by one in test_zoo_rules
    def test_ours(self, repository: Path, changelog: Path, tmp_path: Path) -> None:
        names = ("ran", "r2n2", "regnet")
        bundles = [complete_bundle(repository / "bundles" / name, tmp_path) for name in names]
        check_bundles(bundles, version("monai-regplugins"), changelog)


class TestFound:
    def test_everything_is_told_at_once(self, tiny: Path) -> None:
        for name in ("LICENSE", "docs/README.md", "docs/data_license.txt", "models/model.pt", "models/model_ncc.pt"):
            (tiny / name).unlink()
        (tiny / "configs" / "inference.json").write_text('{"network_def": 1}')
        said = found(tiny)
        for name in ("LICENSE", "docs/README.md", "docs/data_license.txt", "models/model.pt"):
            assert f"tiny: {name} is missing" in said
        assert "configs/inference.json is not canonical JSON" in said
        assert "network_def does not do what metadata.json says" in said
        assert said.startswith("not fit for release, 6 found: ")

    def test_no_metadata(self, tiny: Path) -> None:
        (tiny / "configs" / "metadata.json").write_text("{")
        said = found(tiny)
        assert said.count("configs/metadata.json is no JSON (") == 1, "once, though several rules read it"
        assert "configs/metadata.json is no JSON without repetitions" in said

    def test_no_folder(self, tmp_path: Path) -> None:
        assert "none: there is no such folder" in found(tmp_path / "none")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"version": "0.0.9", "changelog": {"0.0.9": ""}}, "version 0.0.9 in metadata.json is not "),
            ({"required_packages_version": {}}, "metadata.json requires nothing of monai-regplugins, expected "),
            ({"monai_version": "1.5.2"}, "metadata.json requires monai 1.5.2, the package <1.7,>=1.6.1"),
            ({"pytorch_version": "2.4.0"}, "metadata.json requires torch 2.4.0, the package >=2.8"),
        ],
    )
    def test_versions(self, changes: dict[str, Any], message: str, tiny: Path) -> None:
        write_json(tiny / "configs" / "metadata.json", metadata() | changes)
        assert message in found(tiny)

    def test_package_names_have_many_spellings(self, tiny: Path) -> None:
        required = {"monai_regplugins": version("monai-regplugins"), "simpleitk": "1.0.0"}
        write_json(tiny / "configs" / "metadata.json", metadata() | {"required_packages_version": required})
        said = found(tiny)
        assert "requires SimpleITK 1.0.0, the package " in said
        assert "1 found" in said

    def test_the_package_is_not_installed(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "installed_version", lambda package: "")
        assert "monai-regplugins is not installed" in found(tiny)

    @pytest.mark.parametrize(
        "text", ['{"a": 1, "a": 1}\n', "{", "\ufeff{}\n", '{"b": 1}\n', '{\r\n    "b": 1\r\n}\r\n']
    )
    def test_json(self, text: str, tiny: Path) -> None:
        (tiny / "configs" / "other.json").write_bytes(text.encode())
        assert "configs/other.json is no" in found(tiny)

    def test_weights_of_another_network(self, tiny: Path) -> None:
        torch.save(torch.nn.Conv2d(3, 2, 3).state_dict(), tiny / "models" / "model.pt")
        assert "does not fit Conv2d: weights 1 of another shape (first 'weight')" in found(tiny)

    def test_a_checkpoint_in_place_of_weights(self, tiny: Path) -> None:
        torch.save({"model": torch.nn.Conv2d(2, 2, 3).state_dict()}, tiny / "models" / "model.pt")
        assert "1 unknown (first 'model')" in found(tiny)

    def test_each_file_of_weights(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "MAX_WEIGHTS", 1000)
        (tiny / "models" / "model.pt").write_bytes(b"damaged")
        (tiny / "models" / "model_ncc.pt").write_bytes(bytes(2000))
        said = found(tiny)
        assert "model.pt' cannot be read" in said
        assert "model_ncc.pt' cannot be read" in said
        assert "models/model_ncc.pt has 0.0 MB, expected at most 0" in said
        assert "model_last" not in said, "it is not released"


class TestTogether:
    def test_one_environment_for_all(self, tiny: Path) -> None:
        other = tiny.with_name("other")
        shutil.copytree(tiny, other)
        check_bundles([tiny, other])
        content = json.loads((other / "configs" / "metadata.json").read_text())
        content["required_packages_version"]["pytorch_ignite"] = "0.5.4"
        del content["required_packages_version"]["pytorch-ignite"]
        write_json(other / "configs" / "metadata.json", content)
        said = found(tiny, other)
        assert "the bundles require different versions of pytorch-ignite: " in said
        assert "0.5.4 in other" in said

    @pytest.mark.parametrize("tag", ["0.0.9", "release/0.1.0", "bundles-0.1.0"])
    def test_tag(self, tag: str, tiny: Path) -> None:
        assert f"the tag '{tag}' is not {version('monai-regplugins')}" in found(tiny, tag=tag)

    def test_changelog(self, tiny: Path, tmp_path: Path) -> None:
        path = tmp_path / "CHANGELOG.md"
        with pytest.raises(InputError, match=r"CHANGELOG\.md' has no heading '## \["):
            check_bundles([tiny], changelog=path)
        path.write_text("## [0.0.9]\n")
        with pytest.raises(InputError, match=r"CHANGELOG\.md' has no heading '## \["):
            check_bundles([tiny], changelog=path)
