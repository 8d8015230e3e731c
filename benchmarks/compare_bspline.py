"""Register series with R2N2, alone and refined, and with B-spline registrations; compare at the landmarks.

Data, network, weights and preprocessing come from one bundle configuration, by default R2N2's evaluation on its
phantom. All methods get the same images, a whole series at a time: all frames that share a fixed frame are one batch.
The paper's B-spline registration is ``monai_regplugins.benchmark``: three resolutions, 250 iterations each; SimpleITK's
takes pairs one by one, and always the CPU. Seconds are CPU seconds of the process, on a GPU wall seconds; peak memory
is that of a process that registers the first series.

    python benchmarks/compare_bspline.py --series 1 --output comparison.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from monai.data.utils import list_data_collate
from torch import Tensor

import monai_regplugins
from monai_regplugins.benchmark import register_bspline
from monai_regplugins.benchmark.baselines import load_baseline
from monai_regplugins.benchmark.reporting import (
    check_output,
    clock,
    command_line,
    given,
    hardware,
    number,
    publish,
    read_config,
    table_with_facts,
)
from monai_regplugins.checks import load_into, load_weights
from monai_regplugins.data import Learn2RegDataset
from monai_regplugins.engines import PairPrepareBatch
from monai_regplugins.fields import warp
from monai_regplugins.memory import peak_of_this_process
from monai_regplugins.metrics import dice, folding, landmark_errors

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "r2n2" / "configs" / "evaluate.json"
BASELINES, OURS = ("B-spline", "SimpleITK"), ("R2N2", "R2N2-refined")
METHODS = BASELINES + OURS

Series = tuple[Tensor, list[Mapping[str, Tensor]]]  # images of all pairs (F, 2, *spatial), targets of each
Method = Callable[[Tensor], tuple[Tensor, int]]  # from a batch of pairs to their fields, and the parameters of one


@dataclass
class Row:
    """What one method did to all pairs."""

    parameters: int = 0
    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    folded: list[float] = field(default_factory=list)
    peak_mib: float | None = None


def read_series(parser: ConfigParser, count: int) -> list[Series]:
    """Return the prepared pairs, those with one fixed image together, of the first ``count`` series (0: of all)."""
    groups: dict[str, list[tuple[Tensor, Mapping[str, Tensor]]]] = {}
    dataset, prepare = parser.get_parsed_content("dataset"), PairPrepareBatch()
    for index, pair in enumerate(dataset.data):
        if pair["fixed"] in groups or not count or len(groups) < count:
            image, targets, *_ = prepare(list_data_collate([dataset[index]]))
            groups.setdefault(pair["fixed"], []).append((image, targets))
    return [(torch.cat([image for image, _ in pairs]), [t for _, t in pairs]) for pairs in groups.values()]


def load_network(parser: ConfigParser) -> Any:
    """Return the configuration's network with its weights, for evaluation."""
    network, ckpt = parser.get_parsed_content("network"), parser.get_parsed_content("ckpt")
    load_into(network, load_weights(ckpt), ckpt)
    return network.eval()


def make_methods(parser: ConfigParser, iterations: int) -> dict[str, Method]:
    """Return all methods, with network, weights and inferers of the configuration."""
    network = load_network(parser)
    alone, refined = (parser.get_parsed_content(name) for name in ("registration", "inferer"))

    @torch.no_grad()
    def r2n2(image: Tensor) -> tuple[Tensor, int]:
        d = image.ndim - 2
        return alone(image, network)["ddf"], network.steps * (7 if d == 2 else 12)

    @torch.no_grad()
    def r2n2_refined(image: Tensor) -> tuple[Tensor, int]:
        return refined(image, network)["ddf"], 0  # no longer a list of local transformations

    def bspline(image: Tensor) -> tuple[Tensor, int]:
        found = register_bspline(image[:, :1], image[:, 1:], iterations=iterations)
        return found.ddf, found.parameters

    def simpleitk(image: Tensor) -> tuple[Tensor, int]:
        register, spacing, threads = (
            load_baseline("simpleitk-bspline"),
            torch.ones(image.ndim - 2),
            torch.get_num_threads(),
        )
        pairs = (pair.split(1) for pair in image.cpu())
        ddfs = [register(fixed, moving, spacing, None, 0, threads) for moving, fixed in pairs]
        return torch.stack(ddfs), 0  # it does not say how many its finest grid has

    return dict(zip(METHODS, (bspline, simpleitk, r2n2, r2n2_refined), strict=True))


def timed(method: Method, image: Tensor, device: torch.device) -> tuple[Tensor, int, float]:
    """Register a batch on a device: the fields, on the CPU, the parameters of one of them, and the seconds it took."""
    on_device = image.to(device)
    start = clock(device)
    ddf, parameters = method(on_device)
    seconds = clock(device) - start
    return ddf.cpu(), parameters, seconds


def compare(
    parser: ConfigParser, series: Sequence[Series], iterations: int, names: Sequence[str] = METHODS
) -> dict[str, Row]:
    """Register all series by these methods and measure every pair; the pairs as they were are the first row."""
    device = parser.get_parsed_content("device")
    methods = make_methods(parser, iterations)
    rows = {name: Row() for name in ("before", *names)}
    for image, targets in series:
        measure(rows["before"], targets, [None] * len(image))
        for name in names:
            ddf, rows[name].parameters, seconds = timed(methods[name], image, device)
            rows[name].seconds += [seconds / len(image)] * len(image)
            measure(rows[name], targets, list(ddf))
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


def contests(rows: Collection[str]) -> list[tuple[str, str]]:
    """Return each baseline with each of our methods, of those that were compared."""
    return [both for both in product(BASELINES, OURS) if set(both) <= set(rows)]


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
    ratios = {}
    for baseline, name in contests(rows):
        slow, fast = rows[baseline], rows[name]
        ratios[f"{baseline} / {name} seconds"] = number(float(np.mean(slow.seconds) / np.mean(fast.seconds)), 1)
        if slow.errors:
            ratios[f"{name} / {baseline} mean TRE"] = number(float(np.mean(fast.errors) / np.mean(slow.errors)), 2)
    return table_with_facts(header, body, {**ratios, **about})


def distribution_figure(rows: Mapping[str, Row]) -> Figure:
    """Draw what share of all landmarks (errors, mm) and of all pairs (overlap) is at most at each value; no image."""
    panels = {"target registration error of a landmark (mm)": "errors", "overlap (DSC) of a pair": "overlaps"}
    panels = {title: name for title, name in panels.items() if getattr(rows["before"], name)}
    figure = Figure(figsize=(5.5 * len(panels), 3.6), layout="constrained")
    for (title, name), axes in zip(panels.items(), figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        for method, row in rows.items():
            axes.ecdf(getattr(row, name), label=method)
        axes.set(xlabel=title, ylabel="share")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what is not given stays as the configuration has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=Path, default=DEFAULT_CONFIG, help="evaluation configuration of a bundle")
    add("--dataset_dir", help="folder of a data set in Learn2Reg's format (default: the configuration's)")
    add("--ckpt", help="weights (default: the bundle's)")
    add("--spatial_size", type=int, nargs="+", help="grid of the network")
    add("--steps", type=int, help="local transformations of R2N2 (default: the configuration's)")
    add("--refine_steps", type=int, default=30, help="of R2N2-refined, at each level (default: 30)")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, help="what to compare (default: all)")
    add("--series", type=int, default=0, help="how many series to register (default: all)")
    add("--iterations", type=int, default=250, help="of the B-spline registration on each resolution (default: 250)")
    add("--threads", type=int, default=1, help="CPU threads; seconds compare best with one (default: 1)")
    add("--output", type=Path, help="file to write, .md for the table or .json for all values")
    add("--figure", type=Path, help="picture of the distributions to write, .png, .svg or .pdf; it shows no image")
    add("--peak", choices=METHODS, help=argparse.SUPPRESS)  # the process whose memory is measured
    args = parser.parse_args(argv)
    if min(args.threads, args.iterations, args.refine_steps) < 1 or args.series < 0:
        parser.error("--threads, --iterations and --refine_steps must be at least 1, --series at least 0")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Register, measure, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    check_output(args.figure, (".png", ".svg", ".pdf"), "figure")
    torch.set_num_threads(args.threads)
    overrides = given(args, ("dataset_dir", "ckpt", "spatial_size", "steps", "refine_steps"))
    parser = ConfigParser(read_config(args.config, overrides))
    series = read_series(parser, args.series)
    if args.peak:
        make_methods(parser, args.iterations)[args.peak](series[0][0])
        print(peak := f"{peak_of_this_process():.1f}")
        return peak
    rows = compare(parser, series, args.iterations, args.methods)
    device = parser.get_parsed_content("device")
    if device.type == "cpu":
        for name in args.methods:
            rows[name].peak_mib = peak_in_process(name, argv)
    about = {
        "data_set": Learn2RegDataset(parser.get_parsed_content("dataset_dir")).name,
        "series_and_pairs": f"{len(series)} and {sum(len(image) for image, _ in series)}",
        "grid_of_the_network": parser.get_parsed_content("spatial_size"),
        "refinement": f"{args.refine_steps} steps at each level",
        "hardware": hardware(device),
        "command": command_line(__file__, argv),
    }
    markdown = to_markdown(rows, about)
    if args.figure:
        distribution_figure(rows).savefig(args.figure, dpi=80)
    return publish(args.output, markdown, about, rows=rows)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
