"""Measures of the frames of a series, as a table and as curves."""

from __future__ import annotations

import csv
import io
import math

from monai_regplugins.series.frame_table import curves_of, frame_table


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
