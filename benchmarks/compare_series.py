"""Register a series of one slice over time with R2N2, alone and refined, and with B-spline registrations.

All frames go against the fixed one, that of the mean breath. Preprocessing, network, weights and inferer come from the
bundle's configuration, ``inference.json`` with ``series.json``; all methods get the same standardized and clipped
images, in batches of the same size. There is no truth on real images, so what is measured is how well the images match:
mean squared difference and correlation over all pixels, edges continued, beside folding and the displacement. The fixed
frame counts as a frame like any other. SimpleITK takes frames one by one, and always the CPU. Seconds are CPU seconds
of the process, on a GPU wall seconds.

    python benchmarks/compare_series.py --series cine.nii.gz --figure curves.png --output comparison.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from compare_bspline import METHODS, contests, make_methods, timed
from matplotlib.backends.backend_agg import FigureCanvasAgg
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
from monai_regplugins.fields import warp
from monai_regplugins.metrics import folding, ncc
from monai_regplugins.readers import CineSeries
from monai_regplugins.series.respiration import respiratory_curve

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "r2n2" / "configs"
COLORS = dict(zip(("before", *METHODS), ("tab:gray", "tab:orange", "tab:red", "tab:blue", "tab:green"), strict=True))


@dataclass
class Row:
    """What one method did to each frame."""

    parameters: int = 0
    seconds: float = 0.0
    mse: list[float] = field(default_factory=list)
    ncc: list[float] = field(default_factory=list)
    folded: list[float] = field(default_factory=list)
    displacement: list[float] = field(default_factory=list)
    breath: list[float] = field(default_factory=list)


def read_frames(parser: ConfigParser, every: int) -> tuple[CineSeries, Tensor]:
    """Return every n-th frame: the series of these, and them as prepared pairs with the fixed one, (F, 2, H, W)."""
    cine, dataset, prepare = parser.get_parsed_content("cine"), parser.get_parsed_content("dataset"), PairPrepareBatch()
    image = torch.cat([prepare(list_data_collate([dataset[n]]))[0] for n in range(0, len(dataset), every)])
    times = None if cine.times is None else cine.times[::every]
    return replace(cine, frames=cine.frames[::every], times=times), image


def compare(
    parser: ConfigParser, series: CineSeries, image: Tensor, iterations: int, names: Sequence[str] = METHODS
) -> dict[str, Row]:
    """Register all frames by these methods and measure each; the frames as they were are the first row."""
    device, batch = parser.get_parsed_content("device"), parser.get_parsed_content("batch_size")
    rows = {"before": Row()}
    measure(rows["before"], series, image, torch.zeros(len(image), 2, *image.shape[2:]))
    methods = make_methods(parser, iterations)
    for name in names:
        row, ddfs = Row(), []
        for part in image.split(batch):
            ddf, row.parameters, seconds = timed(methods[name], part, device)
            row.seconds += seconds
            ddfs.append(ddf)
        measure(row, series, image, torch.cat(ddfs))
        rows[name] = row
    return rows


def measure(row: Row, series: CineSeries, image: Tensor, ddf: Tensor) -> None:
    """Add what the fields do to the frames to a row."""
    spacing = torch.tensor(series.spacing).view(1, 2, 1, 1)
    warped, fixed = warp(image[:, :1], ddf, padding="border"), image[:, 1:]
    row.mse = (warped - fixed).square().mean(dim=(1, 2, 3)).tolist()
    row.ncc = [ncc(a, b) for a, b in zip(warped, fixed, strict=True)]
    row.folded = [folding(one)[1] for one in ddf]
    row.displacement = (ddf * spacing).norm(dim=1).mean(dim=(1, 2)).tolist()
    row.breath = respiratory_curve(ddf, series).tolist()


def to_markdown(rows: Mapping[str, Row], about: Mapping[str, object]) -> str:
    """Return the table and, below it, what is needed to repeat it."""
    header = ["method", "MSE", "NCC", "folding (%)", "displacement (mm)", "parameters", "s per frame", "s per series"]
    body = []
    for name, row in rows.items():
        means = [float(np.mean(values)) for values in (row.mse, row.ncc, row.folded, row.displacement)]
        seconds = row.seconds or None
        body.append(
            [
                name,
                *(number(value, digits) for value, digits in zip(means, (4, 4, 3, 2), strict=True)),
                str(row.parameters or "-"),
                number(seconds and seconds / len(row.mse), 4),
                number(seconds, 1),
            ]
        )
    ratios = {
        f"{baseline} / {name} seconds": number(rows[baseline].seconds / rows[name].seconds, 1)
        for baseline, name in contests(rows)
    }
    return table_with_facts(header, body, {**ratios, **about})


def curves_figure(rows: Mapping[str, Row], series: CineSeries, every: int) -> Figure:
    """Draw difference, breath and displacement over time, or over the frames where there are no times."""
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    x = np.arange(len(series.frames)) * every if series.times is None else series.times
    panels = {"mean squared difference": "mse", "mean displacement\nto the feet [mm]": "breath",
              "mean length of the\ndisplacement [mm]": "displacement"}  # fmt: skip
    rows_of_axes = figure.subplots(len(panels), sharex=True)
    for axes, (label, key) in zip(rows_of_axes, panels.items(), strict=True):
        for name, row in rows.items():
            if key == "mse" or name != "before":
                axes.plot(x, getattr(row, key), color=COLORS[name], label=name, linewidth=1.2)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.legend(*rows_of_axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(rows))
    axes.set_xlabel("frame" if series.times is None else "time [s]")
    return figure


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what is not given stays as the configuration has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--series", help="2D+t NIfTI file or DICOM series (default: the first one of the phantom)")
    add("--ckpt", help="weights (default: the bundle's)")
    add("--spatial_size", type=int, nargs=2, help="grid of the network")
    add("--refine_steps", type=int, default=30, help="of R2N2-refined, at each level (default: 30)")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, help="what to compare (default: all)")
    add("--frames", type=int, default=1, help="take every n-th frame (default: 1, all)")
    add("--iterations", type=int, default=250, help="of the B-spline registration on each resolution (default: 250)")
    add("--threads", type=int, default=1, help="CPU threads; seconds compare best with one (default: 1)")
    add("--output", type=Path, help="file to write, .md for the table or .json for all values")
    add("--figure", type=Path, help="picture of the curves over time to write, .png, .svg or .pdf; it shows no image")
    args = parser.parse_args(argv)
    if min(args.threads, args.iterations, args.frames, args.refine_steps) < 1:
        parser.error("--threads, --iterations, --frames and --refine_steps must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Register, measure, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    check_output(args.figure, (".png", ".svg", ".pdf"), "figure")
    torch.set_num_threads(args.threads)
    overrides = given(args, ("series", "ckpt", "spatial_size", "refine_steps"))
    parser = ConfigParser(read_config(CONFIGS / "inference.json", overrides, CONFIGS / "series.json"))
    series, image = read_frames(parser, args.frames)
    rows = compare(parser, series, image, args.iterations, args.methods)
    about = {
        "series": Path(series.source).name,
        "frames_and_pixels": f"{len(image)} of {image.shape[2]} x {image.shape[3]}",
        "fixed_frame": parser.get_parsed_content("reference"),
        "grid_of_the_network": parser.get_parsed_content("spatial_size"),
        "refinement": f"{args.refine_steps} steps at each level",
        "hardware": hardware(parser.get_parsed_content("device")),
        "command": command_line(__file__, argv),
    }
    markdown = to_markdown(rows, about)
    if args.figure:
        curves_figure(rows, series, args.frames).savefig(args.figure, dpi=110)
    return publish(args.output, markdown, about, rows=rows)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
