"""A list with a hundred damaged pairs, and a disk that is full, on the command line."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundle_files import files_of
from damaged_pairs import DAMAGES, damaged_pair, write_nifti

from monai_regplugins.data.pair_list import COLUMNS

pytestmark = [pytest.mark.bundle, pytest.mark.slow]

COLUMN_OF = {key: column for column, key in COLUMNS.items()} | {
    "fixed_landmarks": "fixed_points",
    "moving_landmarks": "moving_points",
    "moving_mask": "mask",
}
# A process counts what the one that started it had in memory as its own, and this one may have a lot.
MEASURED = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
SETTINGS = ["--device", "$torch.device('cpu')", "--spatial_size", "[16,16,16]", "--window", "[]"]


def register(repository: Path, output_dir: Path, *arguments: str, limit: Callable[[], None] | None = None) -> str:
    """Run inference, which has to fail without a traceback or a lot of memory, and return what it reported."""
    config = repository / "bundles" / "ran" / "configs" / "inference.json"
    command = ["timeout", "300", sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", str(config)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command, "--output_dir", str(output_dir), *SETTINGS, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=limit, check=False,
    )  # fmt: skip
    shown, _, kilobytes = done.stdout.rstrip("\n").rpartition("\n")
    assert done.returncode == 1
    assert "Traceback" not in shown
    assert int(kilobytes) < 2_000_000, "two gigabytes"
    return shown


def good_pair(folder: Path) -> dict[str, str]:
    """Images large enough for the network, compressed to more than a kilobyte."""
    sides = ("fixed", "moving")
    noise = {side: np.random.default_rng(seed).normal(size=(12, 12, 12)) for seed, side in enumerate(sides)}
    return {side: str(write_nifti(folder / f"{side}.nii.gz", noise[side].astype(np.float32))) for side in sides}


def test_a_hundred_damaged_pairs_are_told_and_the_good_one_is_registered(repository: Path, tmp_path: Path) -> None:
    rows = []
    for kind in DAMAGES:
        for seed in range(5):
            pair = damaged_pair(tmp_path / f"{kind}-{seed}", kind, seed)
            row = {COLUMN_OF.get(key, key): str(value) for key, value in pair.items()}
            if all(row.values()):  # a row without a path has no such file, which is another matter
                rows.append(row)
    assert len(rows) >= 95
    rows.append({**good_pair(tmp_path), "pair_id": "good"})
    (tmp_path / "pairs.json").write_text(json.dumps(rows))

    shown = register(repository, tmp_path / "out", "--pairs_file", str(tmp_path / "pairs.json"))

    lines = [line for line in shown.splitlines() if line.count(": ") and "ERROR" in line.upper()]
    for row in rows[:-1]:
        reported = [line for line in shown.splitlines() if f" {row['pair_id']}: " in line]
        assert len(reported) == 1, row
    assert f"{len(rows) - 1} of {len(rows)} pairs failed" in lines[-1]
    found = {name.split("/")[0] for name in files_of(tmp_path / "out")}
    assert found == {"good", "metrics.csv", "provenance.json", "report.html"}


def test_a_full_disk_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    pair = good_pair(tmp_path)
    arguments = [f"--{side}={pair[side]}" for side in ("fixed", "moving")]

    def files_end_after_a_kilobyte() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    shown = register(repository, tmp_path / "out", *arguments, limit=files_end_after_a_kilobyte)

    assert "cannot write" in shown.splitlines()[-1]
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []
