"""Register pairs with RegNet and with elastix, and compare them at the landmarks: the paper's second experiment.

Data, network, weights and preprocessing come from one bundle configuration, by default RegNet's evaluation on its
phantom. All methods start from one affine registration (by SimpleITK) and get the same images.
RegNet predicts every second voxel along each axis (fast) or every one (exact), or its fast prediction is improved on
the pair itself (refined); elastix is ``monai_regplugins.benchmark``: B-splines of 10 mm, one resolution of 2000
iterations (1R) or three of 500 (3R).

Landmark errors are distances in the moving image's world, |A(x + u(x)) - y| with the affine map A, of the landmarks of
all pairs together. TRE' is over those within 8 mm after the affine registration. Correlation (edges continued) and
folding are those inside the fixed image's mask, where there is one. Seconds are CPU seconds of the process, on a GPU
wall seconds; peak memory is that of a process that registers the first pair.

    python benchmarks/compare_elastix.py --pairs 2 --output comparison.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare_bspline import load_network
from monai.bundle import ConfigParser
from monai.data.utils import list_data_collate
from monai.transforms import Compose
from torch import Tensor

import monai_regplugins
from monai_regplugins.benchmark.elastix import METRICS, load_elastix, register_elastix
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
from monai_regplugins.checks import InputError
from monai_regplugins.data import Learn2RegDataset
from monai_regplugins.engines import PairPrepareBatch
from monai_regplugins.fields import warp
from monai_regplugins.grids import world_affine
from monai_regplugins.memory import peak_of_this_process
from monai_regplugins.metrics.landmarks import landmark_differences, landmark_statistics
from monai_regplugins.metrics.overlap import dice, ncc
from monai_regplugins.metrics.regularity import folding
from monai_regplugins.transforms.prepare import ResampleToFixedd

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "regnet" / "configs" / "evaluate.json"
METHODS = ("elastix-1R", "elastix-3R", "RegNet-fast", "RegNet-exact", "RegNet-refined")


@dataclass
class Case:
    """A prepared pair."""

    image: Tensor  # (1, 2, *spatial), moving then fixed
    targets: dict[str, Tensor]
    linear: Tensor  # (d, d), mm in the moving world per voxel of the fixed grid


Method = Callable[[Case], Tensor]  # the displacement field of a pair, (1, d, *spatial)


@dataclass
class Row:
    """What one method did to all pairs."""

    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    correlations: list[float] = field(default_factory=list)
    folded: list[float] = field(default_factory=list)
    peak_mib: float | None = None


def prepare(parser: ConfigParser, pair: Mapping[str, Any], affine: bool) -> tuple[Case, Case, float]:
    """Return a pair as it is and after the affine registration, and the seconds that this took."""
    steps = parser.get_parsed_content("preprocessing").transforms
    where = next((n for n, step in enumerate(steps) if isinstance(step, ResampleToFixedd)), None)
    if where is None:
        raise InputError("preprocessing has no ResampleToFixedd, which aligns the pairs; give RegNet's evaluation.")
    loaded, rest = Compose(steps[:where])(pair), Compose(steps[where + 1 :])
    outside = steps[where].outside
    before = to_case(rest(ResampleToFixedd(outside=outside)(loaded)))
    if not affine:
        return before, before, 0.0
    cpu = torch.device("cpu")
    start = clock(cpu)
    aligned = ResampleToFixedd(initial_alignment="affine", outside=outside)(loaded)
    seconds = clock(cpu) - start
    return before, to_case(rest(aligned)), seconds


def to_case(item: Mapping[str, Any]) -> Case:
    """Make a batch of one of a prepared pair."""
    image, targets, *_ = PairPrepareBatch()(list_data_collate([item]))
    d = image.ndim - 2
    matrix = item["initial_alignment_matrix"] @ world_affine(item["fixed"].affine, d, "fixed image")
    return Case(image, targets, matrix[:d, :d])


def make_method(config: Mapping[str, Any], name: str, metric: str, threads: int, refine_steps: int) -> Method:
    """Return one of the methods: from a pair to its field."""
    kind, variant = name.split("-")
    if kind == "elastix":
        load_elastix()

        def elastix(case: Case) -> Tensor:
            moving, fixed = case.image.cpu().split(1, dim=1)
            spacing, mask = case.targets["spacing"][0], case.targets.get("fixed_mask")
            method = f"bspline_{variant.lower()}"
            return register_elastix(fixed, moving, spacing, method, metric, mask, threads=threads).ddf

        return elastix
    steps = {"refine_steps": refine_steps} if variant == "refined" else {}
    parser = ConfigParser({**config, "dense_mode": "exact" if variant == "exact" else "fast", **steps})
    network, inferer, device = load_network(parser), *(parser.get_parsed_content(i) for i in ("inferer", "device"))

    @torch.no_grad()
    def regnet(case: Case) -> Tensor:
        known = {key: case.targets[key].to(device) for key in ("spacing", "fixed_mask") if key in case.targets}
        return torch.as_tensor(inferer(case.image.to(device), network, **known)["ddf"]).cpu()

    return regnet


def compare(
    parser: ConfigParser, pairs: Sequence[Mapping[str, Any]], methods: Mapping[str, Method], affine: bool
) -> dict[str, Row]:
    """Register all pairs by all methods and measure them; as they were, and after the affine, are the first rows."""
    device = parser.get_parsed_content("device")
    rows = {name: Row() for name in ("before", *(["affine"] if affine else []), *methods)}
    for pair in pairs:
        before, case, seconds = prepare(parser, pair, affine)
        identity = torch.zeros(1, case.image.ndim - 2, *case.image.shape[2:])
        measure(rows["before"], before, identity)
        if affine:
            measure(rows["affine"], case, identity)
            rows["affine"].seconds.append(seconds)
        for name, method in methods.items():
            start = clock(device)
            ddf = method(case)
            rows[name].seconds.append(clock(device) - start)
            measure(rows[name], case, ddf)
    return rows


def measure(row: Row, case: Case, ddf: Tensor) -> None:
    """Add errors, overlap, correlation and folding of one pair to a row."""
    one = {key: value[0] for key, value in case.targets.items()}
    mask = one.get("fixed_mask")
    row.correlations.append(ncc(warp(case.image[:, :1], ddf, padding="border")[0], one["fixed"], mask))
    row.folded.append(folding(ddf[0], mask)[1])
    fixed, moving = (one.get(f"{side}_landmarks", one.get(f"{side}_keypoints")) for side in ("fixed", "moving"))
    if fixed is not None and moving is not None:
        voxels = landmark_differences(fixed, moving, torch.ones(len(ddf[0])), ddf[0])
        row.errors += torch.linalg.vector_norm(voxels @ case.linear.T, dim=1).tolist()
    if "fixed_label" in one and "moving_label" in one:
        moved = warp(case.targets["moving_label"].float(), ddf, mode="nearest")[0]
        present = [int(value) for value in one["fixed_label"].unique() if value > 0]
        row.overlaps.append(float(np.mean(list(dice(moved, one["fixed_label"], present).values()))))


def peak_in_process(name: str, argv: Sequence[str]) -> float:
    """Return the peak memory, MiB, of a process that registers the first pair by one method."""
    command = [sys.executable, __file__, *argv, "--pairs", "1", "--peak", name]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def cells_of(row: Row, initial: Sequence[float], reference: Row | None) -> dict[str, str]:
    """Return the cells of one row by the titles of their columns; ``initial`` are the errors that TRE' goes by."""
    tre = landmark_statistics(torch.tensor(row.errors), torch.tensor(initial))
    means = {key: float(np.mean(values)) for key, values in asdict(row).items() if isinstance(values, list) and values}
    ratio = means.get("seconds", np.nan) / float(np.mean(reference.seconds)) if reference else None
    return {
        "TRE (mm)": with_deviation(tre["tre"], tre["tre_sd"]),
        "median": number(tre["tre_median"], 2),
        "95 %": number(tre["tre_p95"], 2),
        "max": number(tre["tre_max"], 2),
        "TRE' (mm)": with_deviation(tre["tre_within"], tre["tre_within_sd"]),
        "DSC": number(means.get("overlaps"), 3),
        "NCC": number(means.get("correlations"), 3),
        "folding (%)": number(means.get("folded"), 3),
        "s per pair": number(means.get("seconds"), 2),
        "/ 3R": number(ratio, 3),
        "peak (MiB)": number(row.peak_mib, 0),
    }


def with_deviation(mean: float, deviation: float) -> str:
    """Return mean and standard deviation, a dash where there is no mean."""
    return f"{mean:.2f} ± {number(deviation, 2)}" if np.isfinite(mean) else "-"


def to_markdown(rows: Mapping[str, Row], about: Mapping[str, object]) -> str:
    """Return the table, without the columns that have no value, and below it what is needed to repeat it."""
    initial = rows.get("affine", rows["before"]).errors
    cells = {name: cells_of(row, initial, rows.get("elastix-3R")) for name, row in rows.items()}
    titles = [title for title in cells["before"] if any(line[title] != "-" for line in cells.values())]
    body = [[name, *(line[t] for t in titles)] for name, line in cells.items()]
    return table_with_facts(["method", *titles], body, about)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what is not given stays as the configuration has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=Path, default=DEFAULT_CONFIG, help="evaluation configuration of a bundle")
    add("--dataset_dir", help="folder of a data set in Learn2Reg's format (default: the configuration's)")
    add("--ckpt", help="weights (default: the bundle's)")
    add("--voxel_size", type=float, help="edge in mm of RegNet's voxels (default: the configuration's)")
    add("--stages", type=int, nargs="+", help="RegNet's stages, such as 2 1 (default: the configuration's)")
    add("--refine_steps", type=int, default=30, help="of RegNet-refined, at each level (default: 30)")
    add("--pairs", type=int, default=0, help="how many validation pairs to register (default: all)")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, help="methods to compare (default: all)")
    add("--metric", choices=METRICS, default="ncc", help="of elastix (default: ncc)")
    add("--no_affine", action="store_true", help="leave out the affine registration")
    add("--threads", type=int, default=1, help="CPU threads; seconds compare best with one (default: 1)")
    add("--output", type=Path, help="file to write, .md for the table or .json for all values")
    add("--peak", choices=METHODS, help=argparse.SUPPRESS)  # the process whose memory is measured
    args = parser.parse_args(argv)
    if args.threads < 1 or min(args.pairs, args.refine_steps) < 0:
        parser.error("--threads must be at least 1, --pairs and --refine_steps at least 0")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Register, measure, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    torch.set_num_threads(args.threads)
    config = read_config(args.config, given(args, ("dataset_dir", "ckpt", "voxel_size", "stages")))
    parser, affine = ConfigParser(config), not args.no_affine
    pairs = parser.get_parsed_content("dataset").data[: args.pairs or None]
    names = [args.peak] if args.peak else args.methods
    methods = {name: make_method(config, name, args.metric, args.threads, args.refine_steps) for name in names}
    if args.peak:
        methods[args.peak](prepare(parser, pairs[0], affine)[1])
        print(peak := f"{peak_of_this_process():.1f}")
        return peak
    rows = compare(parser, pairs, methods, affine)
    device = parser.get_parsed_content("device")
    if device.type == "cpu":
        for name in methods:
            rows[name].peak_mib = peak_in_process(name, argv)
    about = {
        "data_set": Learn2RegDataset(parser.get_parsed_content("dataset_dir")).name,
        "pairs": len(pairs),
        "landmarks": len(rows["before"].errors),
        "metric_of_elastix": args.metric,
        "refinement": f"{args.refine_steps} steps at each level",
        "hardware": hardware(device),
        "command": command_line(__file__, argv),
    }
    markdown = to_markdown(rows, about)
    return publish(args.output, markdown, about, rows=rows)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
