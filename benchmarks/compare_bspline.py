"""Register series with R2N2 and with the paper's B-spline registration and compare them at the landmarks.

Data, network, weights and preprocessing come from one bundle configuration, by default R2N2's evaluation on its
phantom. Both methods get the same images, a whole series at a time: all frames that share a fixed frame are one batch.
The B-spline registration is ``monai_regplugins.benchmark``: three resolutions, 250 iterations each. Seconds are CPU
seconds of the process, on a GPU wall seconds; peak memory is that of a process that registers the first series.

    python benchmarks/compare_bspline.py --series 1 --output comparison.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data.utils import list_data_collate
from reporting import (
    check_output,
    command_line,
    hardware,
    markdown_table,
    number,
    peak_of_this_process,
    write_report,
)
from torch import Tensor

import monai_regplugins
from monai_regplugins.benchmark import register_bspline
from monai_regplugins.checks import InputError, check_file, load_into, load_weights, suggest
from monai_regplugins.data import Learn2RegDataset
from monai_regplugins.engines import PairPrepareBatch
from monai_regplugins.fields import warp
from monai_regplugins.metrics import dice, folding, landmark_errors

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "r2n2" / "configs" / "evaluate.json"
METHODS = ("B-spline", "R2N2")


@dataclass
class Row:
    """What one method did to all pairs."""

    parameters: int = 0
    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    folded: list[float] = field(default_factory=list)
    peak_mib: float | None = None


def read_config(file: Path, overrides: Mapping[str, Any]) -> ConfigParser:
    """Return the configuration with overrides in it.

    Raises:
        InputError: When there is no such file, or an override has no such key in it.
    """
    config: dict[str, Any] = ConfigParser.load_config_file(check_file(file, "configuration"))
    settings = {"bundle_root": str(file.resolve().parents[1]), **overrides}
    for key in settings:
        if key not in config:
            raise InputError(f"'{file}' has no key '{key}' to set.{suggest(key, config)}")
    return ConfigParser(config | settings)


def read_series(parser: ConfigParser, count: int) -> list[list[dict[str, Any]]]:
    """Return the prepared pairs, those with one fixed image together, of the first ``count`` series (0: of all)."""
    groups: dict[str, list[dict[str, Any]]] = {}
    dataset = parser.get_parsed_content("dataset")
    for index, pair in enumerate(dataset.data):
        if pair["fixed"] in groups or not count or len(groups) < count:
            groups.setdefault(pair["fixed"], []).append(dataset[index])
    return list(groups.values())


def make_methods(parser: ConfigParser, iterations: int) -> dict[str, Callable[[Tensor], tuple[Tensor, int]]]:
    """Return both methods: from a batch of pairs to their fields, and the number of parameters of one of them."""
    network, inferer = (parser.get_parsed_content(key) for key in ("network", "inferer"))
    ckpt = parser.get_parsed_content("ckpt")
    load_into(network, load_weights(ckpt), ckpt)
    network.eval()

    @torch.no_grad()
    def r2n2(image: Tensor) -> tuple[Tensor, int]:
        d = image.ndim - 2
        return inferer(image, network)["ddf"], network.steps * (7 if d == 2 else 12)

    def bspline(image: Tensor) -> tuple[Tensor, int]:
        found = register_bspline(image[:, :1], image[:, 1:], iterations=iterations)
        return found.ddf, found.parameters

    return {"B-spline": bspline, "R2N2": r2n2}


def clock(device: torch.device) -> float:
    """Return CPU seconds of the process, on a GPU wall seconds."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def compare(parser: ConfigParser, series: list[list[dict[str, Any]]], iterations: int) -> dict[str, Row]:
    """Register all series by both methods and measure every pair; the pairs as they were are the first row."""
    device, prepare = parser.get_parsed_content("device"), PairPrepareBatch()
    methods = make_methods(parser, iterations)
    rows = {name: Row() for name in ("before", *METHODS)}
    for pairs in series:
        image = torch.cat([prepare(list_data_collate([pair]), device)[0] for pair in pairs])
        targets = [prepare(list_data_collate([pair]), torch.device("cpu"))[1] for pair in pairs]
        measure(rows["before"], targets, [None] * len(pairs))
        for name, method in methods.items():
            start = clock(device)
            ddf, rows[name].parameters = method(image)
            rows[name].seconds += [(clock(device) - start) / len(pairs)] * len(pairs)
            measure(rows[name], targets, list(ddf.cpu()))
    return rows


def measure(row: Row, targets: Sequence[Mapping[str, Tensor]], ddfs: Sequence[Tensor | None]) -> None:
    """Add landmark errors, overlaps and folding of pairs to a row; None is the identity."""
    for target, ddf in zip(targets, ddfs, strict=True):
        one = {key: value[0] for key, value in target.items()}
        if "fixed_landmarks" in one:
            errors = landmark_errors(one["fixed_landmarks"], one["moving_landmarks"], one["spacing"], ddf)
            row.errors += errors.tolist()
        if "fixed_label" in one:
            label = one["moving_label"].float()
            moved = label if ddf is None else warp(label[None], ddf[None], mode="nearest")[0]
            present = [int(value) for value in one["fixed_label"].unique() if value > 0]
            row.overlaps.append(float(np.mean(list(dice(moved, one["fixed_label"], present).values()))))
        row.folded.append(0.0 if ddf is None else folding(ddf)[1])


def peak_in_process(method: str, argv: Sequence[str]) -> float:
    """Return the peak memory, MiB, of a process that registers the first series by one method."""
    command = [sys.executable, __file__, *argv, "--series", "1", "--peak", method]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def to_markdown(rows: Mapping[str, Row], about: Mapping[str, object]) -> str:
    """Return the table and, below it, what is needed to repeat it."""
    header = ["method", "TRE mean (mm)", "median", "95 %", "max", "DSC", "folding (%)", "parameters", "s per pair",
              "peak (MiB)"]  # fmt: skip
    body = []
    for name, row in rows.items():
        statistics = [np.mean(row.errors), *np.percentile(row.errors, [50, 95, 100])] if row.errors else [None] * 4
        body.append(
            [
                name,
                *(number(value, 2) for value in statistics),
                number(float(np.mean(row.overlaps)) if row.overlaps else None, 3),
                number(float(np.mean(row.folded)), 3),
                str(row.parameters or "-"),
                number(float(np.mean(row.seconds)) if row.seconds else None, 3),
                number(row.peak_mib, 0),
            ]
        )
    spline, network = (rows[name] for name in METHODS)
    ratios = {"B-spline / R2N2 seconds": number(float(np.mean(spline.seconds) / np.mean(network.seconds)), 1)}
    if spline.errors:
        ratios["R2N2 / B-spline mean TRE"] = number(float(np.mean(network.errors) / np.mean(spline.errors)), 2)
    facts = [f"- {key.replace('_', ' ')}: {value}" for key, value in {**ratios, **about}.items()]
    return "\n".join([markdown_table(header, body), "", *facts])


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what is not given stays as the configuration has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=Path, default=DEFAULT_CONFIG, help="evaluation configuration of a bundle")
    add("--dataset_dir", help="folder of a data set in Learn2Reg's format (default: the configuration's)")
    add("--ckpt", help="weights (default: the bundle's)")
    add("--spatial_size", type=int, nargs="+", help="grid of the network")
    add("--series", type=int, default=0, help="how many series to register (default: all)")
    add("--iterations", type=int, default=250, help="of the B-spline registration on each resolution (default: 250)")
    add("--threads", type=int, default=1, help="CPU threads; seconds compare best with one (default: 1)")
    add("--output", type=Path, help="file to write, .md for the table or .json for all values")
    add("--peak", choices=METHODS, help=argparse.SUPPRESS)  # the process whose memory is measured
    args = parser.parse_args(argv)
    if args.threads < 1 or args.iterations < 1 or args.series < 0:
        parser.error("--threads and --iterations must be at least 1, --series at least 0")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Register, measure, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    torch.set_num_threads(args.threads)
    keys = ("dataset_dir", "ckpt", "spatial_size")
    parser = read_config(args.config, {key: getattr(args, key) for key in keys if getattr(args, key) is not None})
    series = read_series(parser, args.series)
    if args.peak:
        image = torch.cat([PairPrepareBatch()(list_data_collate([pair]))[0] for pair in series[0]])
        make_methods(parser, args.iterations)[args.peak](image)
        print(peak := f"{peak_of_this_process():.1f}")
        return peak
    rows = compare(parser, series, args.iterations)
    device = parser.get_parsed_content("device")
    if device.type == "cpu":
        for name in METHODS:
            rows[name].peak_mib = peak_in_process(name, argv)
    about = {
        "data_set": Learn2RegDataset(parser.get_parsed_content("dataset_dir")).name,
        "series_and_pairs": f"{len(series)} and {sum(map(len, series))}",
        "grid_of_the_network": parser.get_parsed_content("spatial_size"),
        "hardware": hardware(device),
        "command": command_line(__file__, argv),
    }
    markdown = to_markdown(rows, about)
    print(markdown)
    if args.output:
        write_report(args.output, markdown, {**about, "rows": {name: asdict(row) for name, row in rows.items()}})
    return markdown


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
