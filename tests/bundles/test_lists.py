"""Lists of pairs over several processes, on the embedded phantom."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from PIL import Image

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
def test_two_processes_of_torchrun_give_what_one_gives(
    inference: list[str], run_here: Any, run_cli: Any, tmp_path: Path
) -> None:
    run_here([*inference, "--output_dir", "one"], tmp_path, {"fail_on": "never"})
    said = run_cli([*inference, "--output_dir", "two"], tmp_path, {"fail_on": "never"}, TORCHRUN)
    assert len(results(tmp_path / "one")) == 4
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert len(re.findall("Wrote ", said)) == 4
    assert sorted((tmp_path / "two" / "metrics.csv").read_text()) == sorted(
        (tmp_path / "one" / "metrics.csv").read_text()
    )


@pytest.mark.slow
def test_shards_and_then_all_of_it(inference: list[str], run_here: Any, tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        run_here([*inference, "--output_dir", "out", "--shard", shard], tmp_path, {"fail_on": "never"})
    assert len(results(tmp_path / "out")) == 4
    assert not (tmp_path / "out" / "metrics.csv").exists()
    said = run_here([*inference, "--output_dir", "out"], tmp_path, {"fail_on": "never"})
    assert said.count("is done already") == 4
    assert (tmp_path / "out" / "report.html").is_file()


MARKS = (10, 20, 30, 40, 50, 60)  # pairs that are done; the memory of the first ones is what the program needs
PAIRS = MARKS[-1] + 2  # the report at the end is left out
LEAK = 25_000  # bytes for each pair, as a program grows that keeps something of each
GROWTH = 8 * 2**20  # bytes, whatever grows; less than two percent of what the program takes


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_list(repository: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (5, 16, 16), np.uint8)
    for number, values in enumerate(noise):
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    lines = [f"{number % 4}.png,4.png,pair{number}" for number in range(PAIRS)]
    (tmp_path / "pairs.csv").write_text("\n".join(["fixed,moving,pair_id", *lines]))
    words = ["batch", str(tmp_path / "pairs.csv"), "-o", str(tmp_path / "out"), "--bundle", "r2n2", "--device", "cpu"]
    words += ["--spatial_size", "[16,16]", "--refine_steps", "2", "--refine_levels", "1", "--fail_on", "never"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    taken: dict[int, int] = {}  # the most memory while so many pairs were done
    with (tmp_path / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "monai_regplugins", *words]
        program = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        while program.poll() is None:
            done = sum(1 for _ in (tmp_path / "out").glob("pair*/metrics.json"))
            pages = int(Path(f"/proc/{program.pid}/statm").read_text().split()[1])
            taken[done] = max(taken.get(done, 0), pages * os.sysconf("SC_PAGESIZE"))
            time.sleep(0.1)
    assert program.returncode == 0, (tmp_path / "log.txt").read_text()
    at = [max(taken.get(done, 0) for done in range(mark - 4, mark + 1)) for mark in MARKS]
    assert at[0] > 10**8
    assert at[-1] - at[0] < GROWTH
    growths = [(late - early) / 10 for early, late in pairwise(at)]
    assert median(growths) < LEAK, growths  # what is taken once is in one of them
