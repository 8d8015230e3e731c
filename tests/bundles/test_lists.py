"""Lists of pairs over several processes, on the embedded phantom."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]


@pytest.fixture
def inference(phantoms: Path, repository: Path, tmp_path: Path) -> list[str]:
    """The command for a list of four pairs of phantoms."""
    images = sorted((phantoms / "imagesTr").glob("*.nii.gz"))[:4]
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([["fixed", "moving"], *([images[0], image] for image in images[1:]), [images[2], images[1]]])
    config = repository / "bundles" / "ran" / "configs" / "inference.json"
    size = ["--spatial_size", "[16,16,16]", "--refine_steps", "2"]
    return ["run", "inference", "--config_file", str(config), "--pairs_file", str(tmp_path / "pairs.csv"), *size]


def results(folder: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in folder.glob("*/displacement_itk.nii.gz")}


@pytest.mark.slow
def test_two_processes_of_torchrun_give_what_one_gives(inference: list[str], run_cli: Any, tmp_path: Path) -> None:
    run_cli([*inference, "--output_dir", "one"], tmp_path, {"fail_on": "never"})
    said = run_cli([*inference, "--output_dir", "two"], tmp_path, {"fail_on": "never"}, TORCHRUN)
    assert len(results(tmp_path / "one")) == 4
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert len(re.findall("Wrote ", said)) == 4
    assert sorted((tmp_path / "two" / "metrics.csv").read_text()) == sorted(
        (tmp_path / "one" / "metrics.csv").read_text()
    )


@pytest.mark.slow
def test_shards_and_then_all_of_it(inference: list[str], run_cli: Any, tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        run_cli([*inference, "--output_dir", "out", "--shard", shard], tmp_path, {"fail_on": "never"})
    assert len(results(tmp_path / "out")) == 4
    assert not (tmp_path / "out" / "metrics.csv").exists()
    said = run_cli([*inference, "--output_dir", "out"], tmp_path, {"fail_on": "never"})
    assert said.count("is done already") == 4
    assert (tmp_path / "out" / "report.html").is_file()
