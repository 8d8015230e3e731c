"""The model zoo's rules hold for our bundles, and would find what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from released_bundles import NETWORK, complete_bundle, metadata, tiny_bundle, write_json

from monai_regplugins.release import zoo_rules
from monai_regplugins.release.layout import released_files

RULES = [getattr(zoo_rules, name) for name in zoo_rules.__all__ if name.endswith("_problems")]


@pytest.fixture(scope="module", params=["ran", "r2n2", "regnet"])
def bundle(request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a bundle with weights."""
    return complete_bundle(repository / "bundles" / request.param, tmp_path_factory.mktemp("bundles"))


@pytest.mark.bundle
class TestOurBundles:
    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
    @pytest.mark.slow
    def test_rule(self, rule: Callable[[Path], Iterator[str]], bundle: Path) -> None:
        assert list(rule(bundle)) == []

    def test_nothing_is_left_out_of_a_release(self, bundle: Path) -> None:
        present = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
        assert released_files(bundle) == present


class TestFound:
    @pytest.fixture
    def tiny(self, tmp_path: Path) -> Path:
        return tiny_bundle(tmp_path)

    @pytest.mark.parametrize("name", ["reg_vessel", "Reg", "reg-net"])
    def test_name(self, name: str) -> None:
        assert "rename it" in next(zoo_rules.name_problems(Path(name)))

    def test_files(self, tiny: Path) -> None:
        (tiny / "LICENSE").unlink()
        (tiny / "models" / "model.pt").unlink()
        (tiny / "large_files.yml").write_text("")
        problems = list(zoo_rules.file_problems(tiny))
        assert [problem.split()[0] for problem in problems] == ["LICENSE", "models/model.pt", "large_files.yml"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"task": None}, "metadata.json: 'task' is a required property"),
            ({"supported_apps": ["label"]}, "metadata.json at supported_apps: ['label'] is not of type 'object'"),
            ({"pair_data_format": {"inputs": {}}}, "metadata.json at pair_data_format: 'outputs' is a required"),
            ({"changelog": {"0.0.1": "first"}}, "the changelog in metadata.json lacks version"),
        ],
    )
    def test_metadata(self, changes: dict[str, Any], message: str, tiny: Path) -> None:
        content = {key: value for key, value in (metadata() | changes).items() if value is not None}
        write_json(tiny / "configs" / "metadata.json", content)
        (problem,) = zoo_rules.metadata_problems(tiny)
        assert problem.startswith(message)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"monai_version": ">=1.6.1"}, "requires monai >=1.6.1, expected a pip name and an exact version"),
            ({"required_packages_version": {"git+https://host/x": "1.0"}}, "requires git+https://host/x 1.0"),
            ({"required_packages_version": {"x": "main"}}, "requires x main"),
            ({"optional_packages_version": {}}, "has optional_packages_version"),
        ],
    )
    def test_requirements(self, changes: dict[str, Any], message: str, tiny: Path) -> None:
        write_json(tiny / "configs" / "metadata.json", metadata() | changes)
        (problem,) = zoo_rules.requirement_problems(tiny)
        assert message in problem

    def test_network(self, tiny: Path) -> None:
        assert list(zoo_rules.network_problems(tiny)) == []
        write_json(tiny / "configs" / "inference.json", {"network_def": {**NETWORK, "out_channels": 3}})
        (problem,) = zoo_rules.network_problems(tiny)
        assert "output channel number `3` doesn't match: `2`" in problem

    def test_torchscript(self, tiny: Path) -> None:
        assert list(zoo_rules.torchscript_problems(tiny)) == []
        write_json(tiny / "configs" / "inference.json", {"network_def": {"_target_": "torch.nn.Fold"}})
        (problem,) = zoo_rules.torchscript_problems(tiny)
        assert problem.startswith("network_def cannot be exported as TorchScript (")
        assert "\n" not in problem

    def test_what_another_rule_reports_is_left_to_it(self, tiny: Path) -> None:
        (tiny / "configs" / "inference.json").unlink()
        assert [*zoo_rules.network_problems(tiny), *zoo_rules.torchscript_problems(tiny)] == []


def test_all_versions_by_the_name_of_pip() -> None:
    versions = zoo_rules.required_versions(json.loads(json.dumps(metadata())))
    assert list(versions) == ["monai", "torch", "numpy", "monai-regplugins", "pytorch-ignite"]
    assert versions["torch"] == torch.__version__.split("+")[0]
