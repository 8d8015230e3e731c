"""Measures of the frames of a series, as a table and as curves."""

from __future__ import annotations

import csv
import io
import math

import pytest
import torch

from monai_regplugins.series.frame_table import curves_of, frame_measures, frame_table


def test_a_frame_that_is_aligned_has_the_best_of_measures() -> None:
    fixed = torch.rand(1, 20, 18, generator=torch.Generator().manual_seed(0))
    moving = fixed.roll(2, dims=1)
    ddf = torch.zeros(2, 20, 18)
    ddf[0] = 2.0
    found = frame_measures(moving, fixed, fixed, ddf, [1.5, 1.0])
    assert found["ncc"] == pytest.approx(1.0)
    assert found["lncc"] == pytest.approx(1.0, abs=1e-3)
    assert found["ncc_before"] < 0.3
    assert found["motion95"] == pytest.approx(3.0)
    assert found["folding_percent"] == 0.0
    assert (found["verdict"], len(found["reasons"])) == ("WARN", 1)
    assert "too unlike for two of one patient" in found["reasons"][0]


def test_the_table_has_a_line_for_each_frame() -> None:
    rows = [{"verdict": "WARN", "reasons": ["WARN: a", "WARN: b"], "ncc": 0.5, "tre": None}, {}, {"ncc": math.nan}]
    table = list(csv.DictReader(io.StringIO(frame_table(["=0", "1", "2"], 1, rows, "frame"))))
    assert [row["frame"].lstrip("'") for row in table] == ["=0", "1", "2"]
    assert [row["is_reference"] for row in table] == ["0", "1", "0"]
    assert [row["ncc"] for row in table] == ["0.5", "", ""]
    assert (table[0]["reasons"], table[0]["tre"], table[1]["verdict"]) == ("WARN: a; WARN: b", "", "")


def test_curves_are_of_what_there_is() -> None:
    rows = [{"ncc_before": 0.1, "ncc": 0.5, "tre": None}, {}, {"ncc_before": 0.2, "ncc": 0.6}]
    (name, curves), *others = curves_of(rows).items()
    assert (name, others, list(curves)) == ("NCC", [], ["before", "after"])
    assert curves["after"][::2] == [0.5, 0.6]
    assert math.isnan(curves["after"][1])
