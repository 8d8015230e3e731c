"""Pairs an hour of one list: one process, and several processes of ``torchrun`` with one thread each.

The list is pairs of two phases of the thorax phantom, each of another subject. A time is that of the whole command,
from its start to its report, so that imports and the reading of weights count. Results have to be the same files. Run
it on an idle machine.

    python benchmarks/throughput.py --bundle ran --pairs 20 --processes 2
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import torch

import monai_regplugins
from monai_regplugins.benchmark.reporting import (
    check_output,
    command_line,
    hardware,
    number,
    publish,
    table_with_facts,
)
from monai_regplugins.checks import InputError
from monai_regplugins.phantoms import thorax_subject

HERE = Path(__file__).parent
SHAPE = (56, 44, 52)
SPACING = 5.0  # mm


def write_pairs(folder: Path, count: int) -> Path:
    """Write pairs of two phases, and the list of them."""
    lines = [["fixed", "moving"]]
    for seed in range(count):
        subject = thorax_subject(seed, spatial_shape=SHAPE, spacing=SPACING)
        paths = [folder / f"subject{seed}_{phase}.nii.gz" for phase in range(2)]
        for path, image in zip(paths, subject.images, strict=True):
            nib.save(nib.Nifti1Image(image, subject.affine), path)
        lines.append([str(path) for path in paths])
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder / "pairs.csv"


def run(bundle: str, pairs: Path, output_dir: Path, processes: int, threads: int) -> dict[str, float]:
    """Register the list by so many processes; return what the command took.

    Raises:
        InputError: When the command fails.
    """
    config = HERE.parent / "bundles" / bundle / "configs" / "inference.json"
    words = ["-m", "monai.bundle", "run", "inference", "--config_file", str(config), "--pairs_file", str(pairs)]
    words += ["--output_dir", str(output_dir), "--device", "cpu", "--fail_on", "never"]
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    report = output_dir.with_suffix(".json")
    command = [sys.executable, str(HERE / "child_process.py"), "cost", str(report), sys.executable, *several, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    found: dict[str, float] = json.loads(report.read_text())
    if found["status"]:
        raise InputError(f"'{' '.join(several + words)}' ended with exit status {found['status']}; run it by itself.")
    return found


def same_results(one: Path, other: Path) -> bool:
    """Whether two output folders hold the same warped images."""
    images = [
        {path.relative_to(folder): path.read_bytes() for path in folder.glob("*/warped*")} for folder in (one, other)
    ]
    return bool(images[0]) and images[0] == images[1]


def table(rows: Mapping[tuple[int, int], dict[str, float]], pairs: int, facts: Mapping[str, object]) -> str:
    """One line for each number of processes and threads."""
    header = ["processes", "threads of each", "pairs an hour", "times", "CPU s a pair"]
    first = next(iter(rows.values()))["seconds"]
    lines = [
        [
            str(processes),
            str(threads),
            number(3600 * pairs / row["seconds"], 0),
            number(first / row["seconds"], 2),
            number(row["cpu_seconds"] / pairs, 2),
        ]
        for (processes, threads), row in rows.items()
    ]
    return table_with_facts(header, lines, facts)


def main(argv: Sequence[str] | None = None) -> str:
    """Register the list each way, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", default="ran", choices=["ran", "regnet"])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, help="file of the report, .md or .json")
    args = parser.parse_args(argv)
    check_output(args.output)
    rows: dict[tuple[int, int], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = write_pairs(folder, args.pairs)
        for processes, threads in ((1, 1), (1, args.processes), (args.processes, 1)):
            place = folder / f"out_{processes}_{threads}"
            rows[processes, threads] = run(args.bundle, pairs, place, processes, threads)
        if not same_results(folder / "out_1_1", folder / f"out_{args.processes}_1"):
            raise InputError("the processes of torchrun wrote other images than one process alone.")
    facts = {
        "machine": hardware(torch.device("cpu")),
        "pairs": f"{args.pairs} of {' x '.join(str(size) for size in SHAPE)} voxels, bundle {args.bundle}",
        "command": command_line(__file__, argv),
    }
    results = {f"{processes} x {threads}": row for (processes, threads), row in rows.items()}
    return publish(args.output, table(rows, args.pairs, facts), facts, rows=results)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
