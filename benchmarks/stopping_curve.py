"""Steps used against landmark error: R2N2 with a fixed number of steps, and with a stopping rule for each pair.

Data, network, weights and preprocessing come from a bundle configuration, by default R2N2's evaluation on its phantom.

    python benchmarks/stopping_curve.py --output stopping.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare_bspline import DEFAULT_CONFIG, Row, Series, load_network, measure, read_series
from monai.bundle import ConfigParser

import monai_regplugins
from monai_regplugins.benchmark.reporting import (
    check_output,
    command_line,
    given,
    hardware,
    markdown_table,
    number,
    publish,
    read_config,
)
from monai_regplugins.inferers import SequenceInferer, StoppingRule

PATIENCE = (1, 2)
DECREASES = (0.03, 0.01, 0.003, 0.001)


def run(network: Any, series: Sequence[Series], inferer: SequenceInferer) -> tuple[float, float]:
    """Register all series; return the mean number of steps and the mean landmark error, mm."""
    row, steps = Row(), []
    for image, targets in series:
        with torch.no_grad():
            pred = inferer(image, network)
        steps += pred["steps"].tolist() if "steps" in pred else [network.steps] * len(image)
        measure(row, targets, list(pred["ddf"]))
    return float(np.mean(steps)), float(np.mean(row.errors))


def main(argv: Sequence[str] | None = None) -> str:
    """Measure, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", help="folder of a data set in Learn2Reg's format")
    parser.add_argument("--ckpt", help="weights (default: the bundle's)")
    parser.add_argument("--output", type=Path, help="file to write, .md for the table or .json")
    args = parser.parse_args(argv)
    check_output(args.output)
    config = ConfigParser(read_config(DEFAULT_CONFIG, {"device": "cpu", **given(args, ("dataset_dir", "ckpt"))}))
    series, network = read_series(config, 0), load_network(config)
    size, steps = config.get_parsed_content("spatial_size"), network.steps

    rows: dict[str, tuple[float, float]] = {}
    for t in range(1, steps + 1):
        network.steps = t
        rows[f"always {t}"] = run(network, series, SequenceInferer(spatial_size=size))
    for patience in PATIENCE:
        for decrease in DECREASES:
            rule = StoppingRule(patience=patience, smallest_decrease=decrease, smallest_update=0.0)
            name = f"until less than {100 * decrease:g} % is gained, {patience} in a row"
            rows[name] = run(network, series, SequenceInferer(rule, spatial_size=size))
    network.steps = steps
    _, last = rows[f"always {steps}"]
    table = [
        [name, number(used, 2), number(100 * (1 - used / steps), 0), number(tre, 3), number(100 * (tre / last - 1), 1)]
        for name, (used, tre) in rows.items()
    ]
    header = ["steps", "mean number", "fewer (%)", "TRE (mm)", "more (%)"]
    about = {"hardware": hardware(torch.device("cpu")), "command": command_line(__file__, argv)}
    markdown = "\n".join([markdown_table(header, table), "", *[f"- {key}: {value}" for key, value in about.items()]])
    return publish(args.output, markdown, about, table=[dict(zip(header, row, strict=True)) for row in table])


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
