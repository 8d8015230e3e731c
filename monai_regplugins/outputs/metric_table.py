"""Table of an evaluation's measures: in full as CSV, as a summary in the log."""

from __future__ import annotations

import csv
import io
import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Events

from monai_regplugins.files.cells import as_text
from monai_regplugins.io.result_folder import check_result, write_result
from monai_regplugins.metrics.measure import OWN
from monai_regplugins.metrics.pair import complete_states, finite_values, mean_metrics

__all__ = ["MetricTable", "metrics_csv", "state_values", "states_of", "summarized", "summary_table"]

logger = logging.getLogger(__name__)

SUMMARY = {  # name in the table: measure, number of decimals
    "DSC": ("dsc", 3),
    "HD [mm]": ("hd", 2),
    "HD95 [mm]": ("hd95", 2),
    "ASD [mm]": ("asd", 2),
    "TRE [mm]": ("tre", 2),
    "TRE95 [mm]": ("tre95", 2),
    "TRE max [mm]": ("tre_max", 2),
    "driving DSC": ("driving_dsc", 3),
    "driving TRE": ("driving_tre", 2),
    "MAE [mm]": ("mae", 2),
    **{f"  axis {k}": (f"mae_axis_{k}", 2) for k in range(3)},
    "NCC": ("ncc", 3),
    "folding [%]": ("folding_percent", 3),
    "SDlogJ": ("sdlogj", 3),
}
STATES = {"before": "_before", "aligned": "_aligned", "after": ""}  # suffixes of the measures
TEXTS = ("verdict", "reasons")


class MetricTable:
    """Write ``metrics.csv`` after each evaluation and log a summary, before and after the registration.

    Needs :class:`RegistrationMetrics` on the same engine, which collects the pairs. Only the first process writes.

    Args:
        path: the CSV file; it is replaced as a whole each time.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def attach(self, engine: Any) -> None:
        """Write at the end of each evaluation of ``engine``.

        Raises:
            InputError: When there is a file of this name that the program has not made.
        """
        if engine.state.rank == 0:
            check_result(self.path)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Write and log the table of the evaluation that has just ended."""
        if engine.state.rank == 0:
            rows = engine.state.pair_rows
            write_result(self.path, metrics_csv(rows).encode())
            logger.info("%s\n%s", self.path, summary_table(rows))


def metrics_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line per pair, then their mean and standard deviation (of a sample); a missing value is empty.

    The verdict and its reasons come first, where the pairs have them. Where an initial alignment moved any pair, one
    that it did not move is aligned as it was given.
    """
    rows = complete_states(rows)
    means = mean_metrics(rows)
    texts = [name for name in TEXTS if any(name in row for row in rows)]
    deviations = {
        name: statistics.stdev(values) if len(values := finite_values(rows, name)) > 1 else math.nan for name in means
    }
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["pair_id", *texts, *means])
    for row in [*rows, {"pair_id": "mean", **means}, {"pair_id": "sd", **deviations}]:
        words = [as_text(str(row.get(name, ""))) for name in ("pair_id", *texts)]
        writer.writerow([*words, *(_cell(row.get(name, math.nan)) for name in means)])
    return stream.getvalue()


def summary_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a few aligned lines: the mean of each measure as the pairs were given, aligned and after registration.

    There is a column for the aligned pairs if an initial alignment moved any.
    """
    states = states_of(rows)
    pairs = f"{len(rows)} pair{'s' if len(rows) != 1 else ''}"
    lines = [f"{pairs:<12}" + "".join(f"{state:>10}" for state in states)]
    for title, (name, decimals) in summarized(rows).items():
        means = (_mean(state_values(rows, name, state)) for state in states)
        lines.append(f"{title:<12}" + "".join(f"{_rounded(mean, decimals):>10}" for mean in means))
    return "\n".join(lines)


def summarized(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, int]]:
    """The measures of a summary that the pairs have, by title, with the number of decimals; own ones come last."""
    present = dict.fromkeys(name for row in rows for name in row)
    own = [name for name in present if name.startswith(OWN) and not name.endswith(("_before", "_aligned"))]
    known = {title: entry for title, entry in SUMMARY.items() if entry[0] in present}
    return known | {name.removeprefix(OWN): (name, 3) for name in own}


def states_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the states that the pairs were measured in: before, aligned if any was moved, and after."""
    aligned = any("ncc_aligned" in row for row in rows)
    return [state for state in STATES if state != "aligned" or aligned]


def state_values(rows: Sequence[Mapping[str, Any]], name: str, state: str) -> list[float]:
    """The finite values of a measure in a state; a pair that was not moved is aligned as it was given."""
    return finite_values(complete_states(rows), f"{name}{STATES[state]}")


def _mean(values: Sequence[float]) -> float:
    """The mean, NaN of no values."""
    return statistics.fmean(values) if values else math.nan


def _cell(value: float) -> str:
    """Return a value for the CSV file with six digits, nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.6g}"


def _rounded(value: float, decimals: int) -> str:
    """Return a value for the log, a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"
