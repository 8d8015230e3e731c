"""Train variants of one configuration on the same budget and compare them on its validation pairs.

Each training is the bundle's own ``training`` workflow in a process of its own, with the settings of its variant. It
validates once, after the last epoch; the measures are those of the ``metrics.csv`` it writes then. A seed also chooses
the validation pairs where ``val_pairs`` leaves some out, so all variants meet the same ones.

    python benchmarks/ablation.py --config bundles/ran/configs/train.json --set max_epochs=4 --seeds 0 1 2 \
        --variant full --variant "one head: network_def#num_heads=1" \
        --variant "plain: head_weighting=softmax; geometry=ran0" --runs runs/ablation --output ablation.md
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import re
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from monai.bundle import ConfigParser, ReferenceResolver
from tqdm import tqdm

import monai_regplugins
from monai_regplugins.benchmark.reporting import (
    check_output,
    command_line,
    hardware,
    number,
    publish,
    read_config,
    setting,
    table_with_facts,
)
from monai_regplugins.benchmark.runner import run_process
from monai_regplugins.bundle import check_keys
from monai_regplugins.checks import InputError, check_file
from monai_regplugins.files.atomic import write_file
from monai_regplugins.metrics import finite_values

MEASURES = {"dsc": ("DSC", 3), "hd95": ("HD95 (mm)", 2), "tre": ("TRE (mm)", 2), "mae": ("MAE (mm)", 2),
            "ncc": ("NCC", 3), "folding_percent": ("folding (%)", 3), "sdlogj": ("SDlogJ", 3)}  # fmt: skip
UNMOVED = {"folding_percent": 0.0, "sdlogj": 0.0}  # of the identity
OWN_KEYS = ("seed", "output_dir", "val_interval")  # that each training has its own values of


@dataclass
class Row:
    """One row of the table: the mean measures of each training, and what it cost."""

    metrics: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    parameters: int | None = None
    pairs: int = 0


def variant(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``name: key=value; key=value`` of a command line; a name alone changes nothing."""
    name, _, settings = (part.strip() for part in text.partition(":"))
    if not name:
        raise argparse.ArgumentTypeError(f"'{text}' is no 'NAME: KEY=VALUE; KEY=VALUE'")
    return name, dict(setting(one.strip()) for one in settings.split(";") if one.strip())


def folder_name(name: str, seed: int) -> str:
    """Return the name of the folder of one training."""
    return f"{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}_{seed}"


def with_settings(config: Mapping[str, Any], settings: Mapping[str, Any]) -> ConfigParser:
    """Return a parser of a configuration with settings in it."""
    parser = ConfigParser(copy.deepcopy(dict(config)))
    parser.update(dict(settings))
    return parser


def clock_of_children(device: torch.device) -> float:
    """Return CPU seconds of all processes that this one has waited for; on a GPU wall seconds."""
    return time.perf_counter() if device.type == "cuda" else sum(os.times()[2:4])


def train(folder: Path, arguments: dict[str, Any], threads: int, device: torch.device) -> float:
    """Train once, unless the folder holds this training already, and return the seconds that it took.

    Raises:
        InputError: When the training fails, or the folder holds one of other settings.
    """
    record = folder / "training.json"
    if record.is_file():
        done = json.loads(record.read_text(encoding="utf-8"))
        if done["arguments"] != arguments:
            raise InputError(
                f"'{folder}' holds a training of other settings; give --runs another folder, or remove it."
            )
        return float(done["seconds"])
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "arguments.json", json.dumps(arguments, indent=4).encode())
    command = ["-m", "monai.bundle", "run", "training", "--args_file", str(folder / "arguments.json")]
    start = clock_of_children(device)
    if ending := run_process([sys.executable, *command], threads):
        raise InputError(
            f"the training in '{folder}' failed, {ending} See all of it: {shlex.join(['python', *command])}"
        )
    seconds = clock_of_children(device) - start
    write_file(record, json.dumps({"arguments": arguments, "seconds": seconds}, indent=4).encode())
    return seconds


def read_metrics(folder: Path) -> tuple[int, dict[str, float]]:
    """Return the number of validation pairs of a training and their mean measures."""
    file = check_file(folder / "eval" / "metrics.csv", "table of measures")
    with file.open(encoding="utf-8", newline="") as stream:
        rows = {row.pop("pair_id"): row for row in csv.DictReader(stream)}
    mean = {key: float(value) for key, value in rows["mean"].items() if value}
    return len(rows) - 2, mean  # without mean and standard deviation


def before(row: Row) -> Row:
    """Return the row of the pairs as they were."""
    ends = [{key.removesuffix("_before"): one[key] for key in one if key.endswith("_before")} for one in row.metrics]
    return Row([end | UNMOVED for end in ends])


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean and, of more than one value, standard deviation; a dash where there is none."""
    deviation = f" ± {number(statistics.stdev(values), digits)}" if len(values) > 1 else ""
    return number(statistics.fmean(values), digits) + deviation if values else "-"


def to_markdown(rows: Mapping[str, Row], about: Mapping[str, Any], device: torch.device) -> str:
    """Return the table and, below it, everything needed to repeat it."""
    known = {key: value for key, value in MEASURES.items() if any(key in one for one in rows["before"].metrics)}
    unit = "s per training" if device.type == "cuda" else "CPU s per training"
    header = ["variant", "parameters", *(title for title, _ in known.values()), unit]
    cells = [
        [
            name,
            "-" if row.parameters is None else f"{row.parameters:,}",
            *(spread(finite_values(row.metrics, key), digits) for key, (_, digits) in known.items()),
            spread(row.seconds, 0),
        ]
        for name, row in rows.items()
    ]
    return table_with_facts(header, cells, about)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what is not given stays as the configuration has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=Path, nargs="+", required=True, help="training configuration of a bundle, and any overlays")
    add("--set", nargs="+", default=[], type=setting, metavar="KEY=VALUE", help="keys of the configuration, for all")
    add("--variant", type=variant, action="append", required=True, metavar="'NAME: KEY=VALUE; KEY=VALUE'",
        help="one row of the table, give it as often as needed; NAME alone is the configuration as it is")  # fmt: skip
    add("--seeds", type=int, nargs="+", default=[0], help="a training of each variant for each of them (default: 0)")
    add("--threads", type=int, default=1, help="CPU threads; seconds compare best with one (default: 1)")
    add("--runs", type=Path, help="folder to keep the trainings in; those it has are not repeated (default: none)")
    add("--output", type=Path, help="file to write, .md for the table or .json for all values")
    args = parser.parse_args(argv)
    folders = {folder_name(name, seed) for name, _ in args.variant for seed in args.seeds}
    if len(folders) < len(args.variant) * len(args.seeds) or "before" in dict(args.variant):
        parser.error("--seeds must differ from each other, and so must the names of variants, also from 'before'")
    if not set(OWN_KEYS).isdisjoint(settings_of(args)):
        parser.error(f"{', '.join(OWN_KEYS)} are not to be set; give --seeds and --runs")
    if args.threads < 1:
        parser.error("--threads must be at least 1")
    return args


def settings_of(args: argparse.Namespace) -> list[str]:
    """Return all keys that the command line sets."""
    return [*dict(args.set), *(key for _, own in args.variant for key in own)]


def run(args: argparse.Namespace, folder: Path, config: Mapping[str, Any], device: torch.device) -> dict[str, Row]:
    """Run all trainings and return the rows of the table."""
    files = [str(file) for file in args.config]
    settings = {name: dict(args.set) | own for name, own in args.variant}
    networks = {name: with_settings(config, own).get_parsed_content("network_def") for name, own in settings.items()}
    rows = {name: Row(parameters=sum(p.numel() for p in network.parameters())) for name, network in networks.items()}
    for seed, name in tqdm([(seed, name) for seed in args.seeds for name in rows], desc="trainings"):
        place = (folder / folder_name(name, seed)).absolute()
        own = dict(zip(OWN_KEYS, (seed, str(place), "@max_epochs"), strict=True))
        seconds = train(place, {"config_file": files, **settings[name], **own}, args.threads, device)
        rows[name].seconds.append(seconds)
        rows[name].pairs, metrics = read_metrics(place)
        rows[name].metrics.append(metrics)
    return {"before": before(next(iter(rows.values()))), **rows}


def main(argv: Sequence[str] | None = None) -> str:
    """Train all variants, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    torch.set_num_threads(args.threads)
    config = read_config(args.config[0], {}, *args.config[1:])
    keys = settings_of(args)
    for level in ((ReferenceResolver.split_id(key)[0] for key in keys), [*OWN_KEYS, *keys]):
        check_keys(level, config, [str(file) for file in args.config])
    parser = with_settings(config, dict(args.set))
    device = parser.get_parsed_content("device")
    with TemporaryDirectory() as temporary:
        rows = run(args, args.runs or Path(temporary), config, device)
    about = {
        "configuration": ", ".join(str(file) for file in args.config),
        "max_epochs": parser.get_parsed_content("max_epochs"),
        "seeds": ", ".join(str(seed) for seed in args.seeds),
        "validation_pairs": max(row.pairs for row in rows.values()),
        "hardware": hardware(device),
        "command": command_line(__file__, argv),
    }
    return publish(args.output, to_markdown(rows, about, device), about, rows=rows)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
