"""RAN's bundle in MONAI's tools: checks, export, loading, and the command line wherever it is called."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_files import configs
from monai.bundle import ckpt_export, load, verify_metadata, verify_net_in_out

from monai_regplugins.networks.nets import RAN
from monai_regplugins.release.zoo_rules import METADATA_SCHEMA

pytestmark = pytest.mark.bundle


@pytest.fixture
def bundle(trained_ran: Path, copy_bundle: Callable[[str, Path], Path], tmp_path: Path) -> Path:
    """RAN's bundle with the weights of one epoch."""
    copy = copy_bundle("ran", tmp_path)
    (copy / "models").mkdir()
    shutil.copy(trained_ran / "models" / "model.pt", copy / "models")
    return copy


class TestMetadata:
    """The metadata against MONAI's schema, of which a copy lies where the tool would download it to."""

    @pytest.fixture
    def schema(self, tmp_path: Path) -> dict[str, Any]:
        path = tmp_path / "schema.json"
        path.write_text(json.dumps(METADATA_SCHEMA))
        return {
            "filepath": str(path),
            "hash_val": hashlib.sha256(path.read_bytes()).hexdigest(),
            "hash_type": "sha256",
        }

    def test_it_is_valid(self, ran: Path, schema: dict[str, Any]) -> None:
        verify_metadata(meta_file=str(ran / "configs" / "metadata.json"), **schema)

    @pytest.mark.parametrize("key", ["task", "network_data_format"])
    def test_a_missing_key_would_be_found(self, key: str, ran: Path, schema: dict[str, Any], tmp_path: Path) -> None:
        metadata = json.loads((ran / "configs" / "metadata.json").read_text())
        del metadata[key]
        (tmp_path / "metadata.json").write_text(json.dumps(metadata))
        with pytest.raises(ValueError, match=f"'{key}' is a required property"):
            verify_metadata(meta_file=str(tmp_path / "metadata.json"), **schema)

    def test_the_model_zoos_rules(self, ran: Path) -> None:
        """What the model zoo asks for beyond the schema."""
        metadata = json.loads((ran / "configs" / "metadata.json").read_text())
        assert metadata["version"] in metadata["changelog"]
        assert "optional_packages_version" not in metadata  # MONAI would take it instead of the required one
        versions = [metadata[f"{name}_version"] for name in ("monai", "pytorch", "numpy")]
        versions += metadata["required_packages_version"].values()
        assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in versions)


class TestNetwork:
    """The network alone, as the tools take it out of a configuration."""

    @pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
    @pytest.mark.parametrize("n", [1, 4])
    def test_it_gives_what_the_metadata_say(self, name: str, n: int, ran: Path) -> None:
        files = {"meta_file": str(ran / "configs" / "metadata.json"), "config_file": str(ran / f"configs/{name}.json")}
        verify_net_in_out(net_id="network_def", device="cpu", n=n, any=16, **files)

    @pytest.mark.slow
    def test_exported_it_is_the_same_function(self, bundle: Path) -> None:
        ckpt_export(bundle_root=str(bundle), config_file=str(bundle / "configs" / "inference.json"))
        extra = {"inference.json": "", "metadata.json": ""}
        scripted = torch.jit.load(bundle / "models" / "model.ts", _extra_files=extra)
        eager = RAN(spatial_dims=3, preset="ran4_released").eval()
        eager.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
        for size in ((16, 16, 16), (17, 20, 16)):
            image = torch.rand(1, 2, *size)
            with torch.no_grad():
                torch.testing.assert_close(scripted(image), eager(image), rtol=1e-4, atol=1e-5)
        assert json.loads(extra["inference.json"])["geometry"] == "ran4_released"

    def test_monai_loads_it_with_its_weights(self, bundle: Path) -> None:
        network = load("ran", bundle_dir=str(bundle.parent), device="cpu")
        assert isinstance(network, RAN)
        weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


@pytest.mark.slow
class TestCommandLine:
    """The commands from everywhere a user may give them, and in several processes."""

    @pytest.mark.parametrize("place", ["repository root", "bundle folder", "elsewhere"])
    def test_training_starts_from_anywhere(
        self, place: str, repository: Path, ran: Path, bundle: Path, tiny: Any, run_here: Any, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        cwd, config = {
            "repository root": (repository, "bundles/ran/configs/train.json"),
            "bundle folder": (repository / "bundles" / "ran", "configs/train.json"),
            "elsewhere": (elsewhere, str(bundle / "configs" / "train.json")),
        }[place]
        before = {name: sorted((repository / name).iterdir()) for name in (".", "bundles/ran")}
        overrides = tiny([ran / "configs" / "train.json"], tmp_path / "output")
        run_here(["run", "training", "--config_file", config], cwd, overrides)
        assert (tmp_path / "output" / "models" / "model.pt").is_file()
        assert (tmp_path / "output" / "eval" / "metrics.csv").is_file()
        assert before == {name: sorted((repository / name).iterdir()) for name in (".", "bundles/ran")}
        assert not any(elsewhere.iterdir())
        assert sorted(path.name for path in bundle.iterdir()) == ["LICENSE", "configs", "docs", "models"]

    @pytest.mark.parametrize("val_pairs", [1, 2])
    def test_two_processes_train_one_model(
        self, val_pairs: int, ran: Path, tiny: Any, run_cli: Any, tmp_path: Path
    ) -> None:
        """Also where there are fewer pairs to validate on than processes."""
        files = configs(ran, "train", "multi_gpu_train")
        words = ["run", "training", "--config_file", str([str(file) for file in files])]
        overrides = tiny(files, tmp_path / "output", val_pairs=val_pairs)
        module = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
        said = run_cli(words, tmp_path, overrides, module)
        assert len(re.findall(r"pairs? +before +after", said)) == 1
        rows = (tmp_path / "output" / "eval" / "metrics.csv").read_text().splitlines()
        pairs = {row.split(",")[0] for row in rows[1:-2]}
        assert len(rows) == 1 + val_pairs + 2
        assert len(pairs) == val_pairs
        assert pairs <= {"0004_to_0005", "0005_to_0004"}
        assert len(list((tmp_path / "output" / "eval" / "tensorboard").iterdir())) == 2
        checkpoint = torch.load(tmp_path / "output" / "models" / "checkpoint.pt", weights_only=True)
        RAN(spatial_dims=3, preset="ran4_released").load_state_dict(checkpoint["model"])
