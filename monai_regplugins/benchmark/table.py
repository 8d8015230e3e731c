"""The table of a comparison of methods, and the curves of alignment over regularity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from monai_regplugins.benchmark.reporting import number, table_with_facts
from monai_regplugins.benchmark.runner import BenchmarkMethod, MethodResult

__all__ = ["MEASURES", "answer", "comparison_table", "regularity_figure", "time_ratios"]

MEASURES = {
    "dsc": ("DSC", 3),
    "hd95": ("HD95 (mm)", 2),
    "tre": ("TRE (mm)", 2),
    "tre95": ("TRE95 (mm)", 2),
    "ncc": ("NCC", 3),
    "folding_percent": ("folding (%)", 3),
    "sdlogj": ("SDlogJ", 3),
}


def comparison_table(
    results: Mapping[str, MethodResult], about: Mapping[str, object], wall: bool = False, start: str = "before"
) -> str:
    """Return a Markdown table with a row per method and, below it, what is needed to repeat it.

    It has the measures that any method has.
    A method that failed has a row that says why. Times are compared with the first method that moves anything.

    Args:
        results: results by name.
        about: facts by name, with underscores for spaces.
        wall: compare wall times, as where a method runs on a GPU, not CPU times.
        start: what the table of an evaluation calls the state that the identity leaves: ``before``, or ``aligned``.
    """
    reference, ratios = time_ratios(results, wall)
    known = [
        name for name in MEASURES if any(math.isfinite(one.metrics.get(name, math.nan)) for one in results.values())
    ]
    titles = [MEASURES[name][0] for name in known]
    unit = "s" if wall else "CPU s"
    header = ["method", *titles, "s per pair", "CPU s per pair", "peak (MiB)", f"{unit} / {reference or 'first'}"]
    titled = {name: f"{name} ({start})" if name == "identity" else name for name in results}
    body = [_cells(titled[name], result, ratios.get(name), known) for name, result in results.items()]
    return table_with_facts(header, body, about)


def time_ratios(results: Mapping[str, MethodResult], wall: bool = False) -> tuple[str | None, dict[str, float]]:
    """Return each method's time relative to the first method, which is skipped if it is the identity.

    Returns:
        The name of the first method, None if none has a time, and the ratios by name, without methods that failed.
    """
    seconds = {name: result.seconds if wall else result.cpu_seconds for name, result in results.items()}
    known = {name: value for name, value in seconds.items() if value is not None and name != "identity"}
    first = next((name for name, value in known.items() if value > 0), None)
    return first, {} if first is None else {name: value / known[first] for name, value in known.items()}


def answer(one: MethodResult, other: MethodResult) -> str:
    """Say whether a method is better than another one on the same pairs, from the differences of each pair.

    They are those of the overlap and of the landmark error, without both of the correlation. The 95 % interval of a
    mean is Student's; a method is better, or worse, if zero is outside of it. Pairs that share an image are not
    independent, and the interval is then too narrow.

    Returns:
        For each measure the answer, mean difference, standard deviation (of a sample), interval, and in how many pairs
        the method is better; empty if a method failed.

    Example:
        >>> one, other = (MethodResult(pairs=[{"dsc": dsc}, {"dsc": 0.5}]) for dsc in (0.75, 0.25))
        >>> answer(one, other)
        'not shown: DSC +0.250 in the mean of 2 pairs (SD 0.354, 95 % interval -2.927 to +3.427, better in 1)'
    """
    if one.error or other.error:
        return ""
    known = [name for name in ("dsc", "tre") if any(name in row for row in one.pairs)] or ["ncc"]
    return "; ".join(filter(None, (_difference(one, other, name) for name in known)))


def _difference(one: MethodResult, other: MethodResult, measure: str) -> str:
    """Describe the differences of one measure, see :func:`answer`."""
    values = [[row.get(measure, math.nan) for row in result.pairs] for result in (one, other)]
    differences = np.subtract(values[0], values[1])
    differences = differences[np.isfinite(differences)]
    title, digits = MEASURES[measure]
    if len(differences) < 2:
        return f"{title}: two pairs at least are needed"
    mean, spread, gain = differences.mean(), differences.std(ddof=1), -1 if measure.startswith("tre") else 1
    half = stats.t.ppf(0.975, len(differences) - 1) * spread / math.sqrt(len(differences))
    shown = "not shown" if abs(mean) <= half else "yes" if gain * mean > 0 else "no"
    return (
        f"{shown}: {title} {mean:+.{digits}f} in the mean of {len(differences)} pairs (SD {spread:.{digits}f}, "
        f"95 % interval {mean - half:+.{digits}f} to {mean + half:+.{digits}f}, "
        f"better in {int((gain * differences > 0).sum())})"
    )


def regularity_figure(methods: Sequence[BenchmarkMethod], results: Mapping[str, MethodResult]) -> Figure:
    """Draw error or overlap over SDlogJ, a line for each method through its stiffnesses.

    One stiffness compares methods at unlike smoothness; their curves show which aligns better at the same one (Chen et
    al. 2025, arXiv 2503.07185). The error is the TRE where there are landmarks, else the overlap is drawn.

    Args:
        methods: those of the comparison.
        results: by the names of the methods; what failed is left out.
    """
    measured = {name: result.metrics for name, result in results.items() if "sdlogj" in result.metrics}
    measure = "tre" if any("tre" in metrics for metrics in measured.values()) else "dsc"
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for curve in dict.fromkeys(method.curve or method.name for method in methods):
        names = [method.name for method in methods if curve in (method.curve, method.name) and method.name in measured]
        points = sorted((measured[name]["sdlogj"], measured[name].get(measure)) for name in names)
        axes.plot(*zip(*points, strict=True), marker="o", label=curve) if points else None
    axes.set(xlabel=MEASURES["sdlogj"][0], ylabel=MEASURES[measure][0])
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _cells(name: str, result: MethodResult, ratio: float | None, measures: Sequence[str]) -> list[str]:
    """Return the cells of one row."""
    if result.error:
        words = " ".join(result.error.replace("|", "/").split())
        return [name, f"failed: {words}", *[""] * (len(measures) + 3)]
    return [
        name,
        *(number(result.metrics.get(key), MEASURES[key][1]) for key in measures),
        number(result.seconds, 2),
        number(result.cpu_seconds, 2),
        number(result.peak_mib, 0),
        number(ratio, 2),
    ]
