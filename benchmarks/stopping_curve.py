"""Steps used against landmark error: R2N2 with a fixed number of steps, and with a stopping rule for each pair.

Data, network, weights and preprocessing come from a bundle configuration, by default R2N2's evaluation on its phantom.

    python benchmarks/stopping_curve.py --output stopping.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare_bspline import DEFAULT_CONFIG, Row, measure, read_config, read_series
from monai.data.utils import list_data_collate
from reporting import check_output, command_line, hardware, markdown_table, number, write_report
from torch import Tensor

import monai_regplugins
from monai_regplugins.checks import load_into, load_weights
from monai_regplugins.engines import PairPrepareBatch
from monai_regplugins.inferers import SequenceInferer, StoppingRule

PATIENCE = (1, 2)
DECREASES = (0.03, 0.01, 0.003, 0.001)


def run(network: Any, series: Sequence[tuple[Tensor, Sequence[Mapping[str, Tensor]]]], inferer: SequenceInferer) -> Row:
    """Register all series; the row's ``seconds`` hold the steps of each pair."""
    row = Row()
    for image, targets in series:
        with torch.no_grad():
            pred = inferer(image, network)
        row.seconds += pred["steps"].tolist() if "steps" in pred else [network.steps] * len(image)
        measure(row, targets, list(pred["ddf"]))
    return row


def main(argv: Sequence[str] | None = None) -> str:
    """Measure, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", help="folder of a data set in Learn2Reg's format")
    parser.add_argument("--ckpt", help="weights (default: the bundle's)")
    parser.add_argument("--output", type=Path, help="file to write, .md for the table or .json")
    args = parser.parse_args(argv)
    check_output(args.output)
    keys = ("dataset_dir", "ckpt")
    config = read_config(DEFAULT_CONFIG, {key: getattr(args, key) for key in keys if getattr(args, key) is not None})
    prepare = PairPrepareBatch()
    series = []
    for pairs in read_series(config, 0):
        prepared = [prepare(list_data_collate([pair]), torch.device("cpu")) for pair in pairs]
        series.append((torch.cat([one[0] for one in prepared]), [one[1] for one in prepared]))
    network = config.get_parsed_content("network").cpu().eval()
    ckpt = config.get_parsed_content("ckpt")
    load_into(network, load_weights(ckpt), ckpt)
    size, steps = config.get_parsed_content("spatial_size"), network.steps

    rows: dict[str, Row] = {}
    for t in range(1, steps + 1):
        network.steps = t
        rows[f"always {t}"] = run(network, series, SequenceInferer(spatial_size=size))
    for patience in PATIENCE:
        for decrease in DECREASES:
            rule = StoppingRule(patience=patience, smallest_decrease=decrease, smallest_update=0.0)
            name = f"until less than {100 * decrease:g} % is gained, {patience} in a row"
            rows[name] = run(network, series, SequenceInferer(rule, spatial_size=size))
    network.steps = steps
    best = float(np.mean(rows[f"always {steps}"].errors))
    table = [
        [
            name,
            number(float(np.mean(row.seconds)), 2),
            number(100 * (1 - float(np.mean(row.seconds)) / steps), 0),
            number(float(np.mean(row.errors)), 3),
            number(100 * (float(np.mean(row.errors)) / best - 1), 1),
        ]
        for name, row in rows.items()
    ]
    header = ["steps", "mean number", "fewer (%)", "TRE (mm)", "more (%)"]
    about = {"hardware": hardware(torch.device("cpu")), "command": command_line(__file__, argv)}
    markdown = "\n".join([markdown_table(header, table), "", *[f"- {key}: {value}" for key, value in about.items()]])
    print(markdown)
    if args.output:
        write_report(args.output, markdown, {**about, "table": [dict(zip(header, row, strict=True)) for row in table]})
    return markdown


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
