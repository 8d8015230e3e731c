"""The table: numbers in their columns, times against the right method, failures in words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from monai_regplugins.benchmark.runner import BenchmarkMethod, MethodResult
from monai_regplugins.benchmark.table import MEASURES, answer, comparison_table, regularity_figure, time_ratios

METRICS = {"dsc": 0.1234, "hd95": 2.345, "tre": 3.456, "tre95": 7.891, "ncc": 0.5678, "folding_percent": 0.0123}
METRICS["sdlogj"] = 0.2345
RESULTS = {
    "identity": MethodResult({"dsc": 0.1, "tre": math.nan}, 0.001, 0.002, 500.4),
    "absent": MethodResult(error="it needs | the package\nabsent"),
    "greedy": MethodResult(METRICS, 4.0, 2.0, 600.6),
    "ran": MethodResult(METRICS, 1.0, 3.0, 700.0),
}


def rows_of(markdown: str) -> dict[str, list[str]]:
    """Read the cells of a table by the first one of their row; the header's is ``method``."""
    lines = [line[1:-1].split("|") for line in markdown.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_cells() -> None:
    rows = rows_of(comparison_table(RESULTS, {}))
    assert rows["method"] == [
        *["DSC", "HD95 (mm)", "TRE (mm)", "TRE95 (mm)", "NCC", "folding (%)", "SDlogJ"],
        *["s per pair", "CPU s per pair", "peak (MiB)", "CPU s / greedy"],
    ]
    assert rows["greedy"] == ["0.123", "2.35", "3.46", "7.89", "0.568", "0.012", "0.234", "4.00", "2.00", "601", "1.00"]
    assert rows["ran"][-4:] == ["1.00", "3.00", "700", "1.50"]
    assert rows["identity (before)"] == ["0.100", *["-"] * 6, "0.00", "0.00", "500", "-"]
    assert "identity (aligned)" in rows_of(comparison_table(RESULTS, {}, start="aligned"))
    assert list(MEASURES) == list(METRICS)


def test_a_failure_is_told_in_its_row() -> None:
    rows = rows_of(comparison_table(RESULTS, {}))
    assert rows["absent"] == ["failed: it needs / the package absent", *[""] * 10]
    assert {len(cells) for cells in rows.values()} == {11}


def test_wall_times() -> None:
    rows = rows_of(comparison_table(RESULTS, {}, wall=True))
    assert rows["method"][-1] == "s / greedy"
    assert [rows[name][-1] for name in ("greedy", "ran")] == ["1.00", "0.25"]


@pytest.mark.parametrize(
    ("names", "first", "ratios"),
    [
        (["identity", "ran", "greedy"], "ran", {"ran": 1.0, "greedy": 2 / 3}),
        (["absent", "greedy"], "greedy", {"greedy": 1.0}),
        (["identity", "absent"], None, {}),
    ],
)
def test_ratios(names: list[str], first: str | None, ratios: dict[str, float]) -> None:
    assert time_ratios({name: RESULTS[name] for name in names}) == (first, pytest.approx(ratios))


def test_facts_follow() -> None:
    lines = comparison_table(RESULTS, {"data_set": "Phantom", "weights of ran model_a.pt": "a"}).splitlines()
    assert lines[-3:] == ["", "- data set: Phantom", "- weights of ran model_a.pt: a"]


@pytest.mark.parametrize(
    ("gains", "expected"),
    [([0.02, 0.03, 0.025, 0.02], "yes"), ([0.2, -0.1, 0.05, 0.0], "not shown"), ([-0.1, -0.12, -0.11, -0.103], "no")],
)
def test_is_it_better(gains: list[float], expected: str) -> None:
    """Interval and answer are those of SciPy's paired t-test."""
    other = [0.5, 0.75, 0.625, 0.25]
    one = [a + b for a, b in zip(other, gains, strict=True)]
    results = [MethodResult(pairs=[{"dsc": dsc, "ncc": 0.0} for dsc in values]) for values in (one, other)]
    test = stats.ttest_rel(one, other)
    low, high = test.confidence_interval(0.95)
    mean, spread = np.subtract(one, other).mean(), np.std(gains, ddof=1)
    assert answer(*results) == (
        f"{expected}: DSC {mean:+.3f} in the mean of 4 pairs (SD {spread:.3f}, "
        f"95 % interval {low:+.3f} to {high:+.3f}, better in {sum(gain > 0 for gain in gains)})"
    )
    assert (test.pvalue < 0.05) == (expected != "not shown")


def test_an_error_is_better_if_it_is_smaller() -> None:
    rows = (
        [{"tre": 1.0, "dsc": 0.5}, {"tre": 1.25, "dsc": 0.5}],
        [{"tre": 2.0, "dsc": 0.5}, {"tre": 2.25, "dsc": 0.5}],
    )
    one, other = (MethodResult(pairs=list(pairs)) for pairs in rows)
    said = answer(one, other).split("; ")
    assert said[0].startswith("not shown: DSC +0.000 in the mean of 2 pairs")
    assert said[1] == (
        "yes: TRE (mm) -1.00 in the mean of 2 pairs (SD 0.00, 95 % interval -1.00 to -1.00, better in 2)"
    )
    assert answer(MethodResult(pairs=rows[0][:1]), MethodResult(pairs=rows[1][:1])).count("two pairs at least") == 2
    assert answer(one, MethodResult(error="it is not installed")) == ""


@pytest.mark.parametrize(("measure", "title"), [("tre", "TRE (mm)"), ("dsc", "DSC")])
def test_curves_join_the_stiffnesses_of_a_method(measure: str, title: str) -> None:
    methods = [BenchmarkMethod("identity", "identity")]
    methods += [one for name in ("greedy", "dipy") for one in BenchmarkMethod(name, name).with_stiffness((1, 4, 2))]
    results = {
        "identity": MethodResult({measure: 3.0, "sdlogj": 0.0}),
        **{f"greedy x {f}": MethodResult({measure: 1.0 + f, "sdlogj": 1.0 / f}) for f in (1, 4, 2)},
        **{f"dipy x {f}": MethodResult(error="it is not installed") for f in (1, 4, 2)},
    }
    (axes,) = regularity_figure(methods, results).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {"identity": [[0.0, 3.0]], "greedy": [[0.25, 5.0], [0.5, 3.0], [1.0, 2.0]]}
    assert axes.get_ylabel() == title
