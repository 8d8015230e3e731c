"""How far RegNet reaches: its error over the length of the true displacement, with one stage and with several.

Synthetic fields over the validation images, as in ``synthetic.json``, but larger, so that they leave the range of one
stage (Sokooti et al. 2017, Fig. 3b, plots the same for real landmarks). Network, weights and prediction are those of
the bundle's evaluation. Every fixed voxel counts, also in air, and belongs to the bin of its true displacement.

    python benchmarks/capture_range.py --stages 1 --stages 2 1 --stages 4 2 1 --figure capture.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare_bspline import load_network
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from monai.data.utils import list_data_collate
from torch import Tensor

import monai_regplugins
from monai_regplugins.benchmark.reporting import (
    check_output,
    command_line,
    given,
    hardware,
    number,
    publish,
    read_config,
    table_with_facts,
)
from monai_regplugins.engines import PairPrepareBatch

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "regnet" / "configs"
BIN = 2.0  # mm

Curves = dict[str, list[float]]  # of each number of stages, the mean error in mm in each bin; NaN in an empty one


def curves(parser: ConfigParser, all_stages: Sequence[Sequence[int]]) -> tuple[Curves, list[int]]:
    """Register every case with each list of stages; return the errors over the bins, and the voxels in these."""
    network, device = load_network(parser), parser.get_parsed_content("device")
    inferers = {name_of(stages): inferer_with(parser, stages) for stages in all_stages}
    dataset, prepare = parser.get_parsed_content("dataset"), PairPrepareBatch()
    sums = {name: np.zeros(0) for name in inferers}
    counts = np.zeros(0)
    for index in range(len(dataset)):
        image, targets, *_ = prepare(list_data_collate([dataset[index]]), device)
        spacing = targets["spacing"].view(1, -1, *[1] * (image.ndim - 2))
        truth = targets["true_ddf"] * spacing
        place = (truth.norm(dim=1) / BIN).long().flatten().cpu().numpy()
        size = max(len(counts), int(place.max()) + 1)
        counts = added(counts, np.bincount(place), size)
        for name, inferer in inferers.items():
            with torch.no_grad():
                found = inferer(image, network, spacing=targets["spacing"])["ddf"] * spacing
            sums[name] = added(sums[name], np.bincount(place, weights=errors(found, truth)), size)
    with np.errstate(invalid="ignore"):
        return {name: (total / counts).tolist() for name, total in sums.items()}, counts.astype(int).tolist()


def inferer_with(parser: ConfigParser, stages: Sequence[int]) -> Any:
    """Return the configuration's dense prediction with these stages."""
    return ConfigParser({**parser.get(), "stages": list(stages)}).get_parsed_content("registration")


def errors(found: Tensor, truth: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Lengths of the differences of two fields, all voxels in a row."""
    return (found - truth).norm(dim=1).flatten().double().cpu().numpy()


def added(total: np.ndarray[Any, Any], more: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Add counts of different lengths."""
    return np.pad(total.astype(float), (0, size - len(total))) + np.pad(more.astype(float), (0, size - len(more)))


def name_of(stages: Sequence[int]) -> str:
    """Name a list of stages."""
    return "stages " + ", ".join(map(str, stages))


def to_markdown(found: Curves, counts: Sequence[int], about: Mapping[str, object]) -> str:
    """Return the table and, below it, what is needed to repeat it."""
    header = ["true displacement (mm)", "voxels (%)", *found]
    rows = [
        [f"{k * BIN:g} to {(k + 1) * BIN:g}", number(100 * count / sum(counts), 1)]
        + [number(curve[k], 2) for curve in found.values()]
        for k, count in enumerate(counts)
        if count
    ]
    return table_with_facts(header, rows, about)


def curves_figure(found: Curves) -> Figure:
    """Draw the errors over the true displacement."""
    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axes = figure.subplots()
    middle = BIN * (np.arange(max(map(len, found.values()))) + 0.5)
    axes.plot([0, middle[-1]], [0, middle[-1]], color="0.7", linewidth=1, label="no displacement")
    for name, curve in found.items():
        axes.plot(middle[: len(curve)], curve, marker="o", markersize=3, label=name)
    axes.set(xlabel="true displacement (mm)", ylabel="mean error (mm)", xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what is not given stays as the configuration has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset_dir", help="folder of a data set in Learn2Reg's format (default: the configuration's)")
    add("--ckpt", help="weights (default: the bundle's)")
    add("--voxel_size", type=float, help="of the network, mm (default: the configuration's)")
    add("--theta_scale", type=float, default=2.5, help="factor on the size of the fields (default: 2.5)")
    add("--presets", dest="field_presets", nargs="+", default=["low"], help="fields to draw (default: low)")
    add("--cases", dest="val_cases", type=int, default=0, help="how many pairs, evenly spread (default: all)")
    add("--dense_mode", choices=["exact", "fast"], help="of the prediction (default: the configuration's)")
    add("--stages", type=int, nargs="+", action="append", help="a curve, give it as often as needed (default: 1)")
    add("--threads", type=int, default=1, help="CPU threads (default: 1)")
    add("--output", type=Path, help="file to write, .md for the table or .json for all values")
    add("--figure", type=Path, help="picture of the curves to write, .png, .svg or .pdf; it shows no image")
    args = parser.parse_args(argv)
    if args.threads < 1 or args.val_cases < 0 or not args.theta_scale > 0:
        parser.error("--threads must be at least 1, --cases at least 0, --theta_scale above 0")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Register, measure, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    check_output(args.figure, (".png", ".svg", ".pdf"), "figure")
    torch.set_num_threads(args.threads)
    keys = ("dataset_dir", "ckpt", "voxel_size", "theta_scale", "field_presets", "val_cases", "dense_mode")
    parser = ConfigParser(read_config(CONFIGS / "evaluate.json", given(args, keys), CONFIGS / "synthetic.json"))
    found, counts = curves(parser, args.stages or [[1]])
    about = {
        "cases": len(parser.get_parsed_content("dataset")),
        "fields": f"{', '.join(args.field_presets)}, {args.theta_scale:g} times as large",
        "hardware": hardware(parser.get_parsed_content("device")),
        "command": command_line(__file__, argv),
    }
    markdown = to_markdown(found, counts, about)
    if args.figure:
        curves_figure(found).savefig(args.figure, dpi=80)
    return publish(args.output, markdown, about, curves=found, voxels=counts)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
