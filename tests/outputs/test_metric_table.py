"""The table of an evaluation."""

from __future__ import annotations

import csv
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from monai_regplugins.outputs import MetricTable, metrics_csv, summary_table

ROWS: list[dict[str, Any]] = [
    {"pair_id": "1_to_2", "ncc_before": 0.5, "ncc": 0.75, "folding_percent": 0.0, "dsc_before": 0.25, "dsc": 0.5},
    {"pair_id": "2_to_3", "ncc_before": 0.25, "ncc": 1.0, "folding_percent": 0.5, "dsc_before": 0.5, "dsc": math.nan},
    {"pair_id": "3_to_4", "ncc_before": 0.0, "ncc": 0.5, "folding_percent": 1.0},
]


def test_csv_has_pairs_mean_and_deviation() -> None:
    lines = list(csv.DictReader(metrics_csv(ROWS).splitlines()))
    assert [line["pair_id"] for line in lines] == ["1_to_2", "2_to_3", "3_to_4", "mean", "sd"]
    for row, line in zip(ROWS, lines, strict=False):
        for name in lines[0].keys() - {"pair_id"}:
            value = row.get(name, math.nan)
            assert line[name] == "" if math.isnan(value) else float(line[name]) == value
    assert float(lines[3]["ncc"]) == pytest.approx(0.75)
    assert float(lines[4]["ncc"]) == pytest.approx(np.std([0.75, 1.0, 0.5], ddof=1), rel=1e-5)
    assert (lines[3]["dsc"], lines[4]["dsc"]) == ("0.5", "")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_spreadsheet_takes_names_as_text(name: str) -> None:
    assert metrics_csv([{"pair_id": name, "ncc": 0.5}]).splitlines()[1] == f"'{name},0.5"


def test_summary_is_aligned() -> None:
    assert summary_table(ROWS).splitlines() == [
        "3 pairs         before     after",
        "DSC              0.375     0.500",
        "NCC              0.250     0.750",
        "folding [%]          -     0.500",
    ]


def test_handler_writes_and_logs(make_training: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "out" / "metrics.csv"
    training = make_training(val_handlers=(MetricTable(path),))
    with caplog.at_level(logging.INFO, "monai_regplugins"):
        training.evaluator.run()
    lines = path.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["pair_id", "0_to_1", "1_to_2", "mean", "sd"]
    assert "2 pairs         before     after\nDSC" in caplog.text


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    MetricTable(tmp_path / "metrics.csv")(SimpleNamespace(state=SimpleNamespace(rank=1, pair_rows=ROWS)))
    assert not list(tmp_path.iterdir())


def test_verdicts_and_the_aligned_pairs_have_columns() -> None:
    rows = [
        {"pair_id": "a", "verdict": "WARN", "reasons": "=it folds", "ncc_before": 0.2, "ncc_aligned": 0.4, "ncc": 0.8},
        {"pair_id": "b", "verdict": "PASS", "reasons": "", "ncc_before": 0.6, "ncc": 0.9},
    ]
    lines = metrics_csv(rows).splitlines()
    assert lines[0] == "pair_id,verdict,reasons,ncc_before,ncc_aligned,ncc"
    assert lines[1] == "a,WARN,'=it folds,0.2,0.4,0.8"
    assert lines[2] == "b,PASS,,0.6,0.6,0.9", "it was not moved, so it is aligned as it was given"
    assert lines[3] == "mean,,,0.4,0.5,0.85"
    table = [line.split() for line in summary_table(rows).splitlines()]
    assert table == [["2", "pairs", "before", "aligned", "after"], ["NCC", "0.400", "0.500", "0.850"]]
    assert "aligned" not in summary_table(rows[1:])
