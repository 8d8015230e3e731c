"""Measures and verdict of each frame or phase of a series: a table, and curves over time."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from monai_regplugins.files.cells import as_text

__all__ = ["curves_of", "frame_table"]

Row = Mapping[str, Any]

CURVES = {  # panels of the figure, and the measure in each
    "TRE [mm]": "tre",
    "mean Dice": "dsc",
    "NCC": "ncc",
    "local similarity": "lncc",
    "motion [mm], 95 %": "motion95",
    "folding [%]": "folding_percent",
}


def frame_table(names: Sequence[str], reference: int, rows: Sequence[Row], title: str = "phase") -> str:
    """A line of CSV for each frame.

    Args:
        names: of the frames.
        reference: number of the one that the others are registered to.
        rows: measures of each frame, ``verdict`` and ``reasons``; a frame may have none. Numbers that are unknown are
            NaN or None, and become empty cells.
        title: of the column of names.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "reasons"))
    stream = io.StringIO(newline="")
    table = csv.writer(stream, lineterminator="\n")
    table.writerow([title, "is_reference", *columns, "reasons"])
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        cells = [_cell(row.get(column)) for column in columns]
        table.writerow([as_text(name), int(number == reference), *cells, as_text("; ".join(row.get("reasons", ())))])
    return stream.getvalue()


def curves_of(rows: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """The curves of the measures that there are, before and after, by panel; NaN is a gap."""
    found: dict[str, dict[str, list[float]]] = {}
    for title, measure in CURVES.items():
        states = {"before": f"{measure}_before", "after": measure}
        curves = {label: [_number(row.get(name)) for row in rows] for label, name in states.items()}
        known = {label: values for label, values in curves.items() if not all(map(math.isnan, values))}
        found |= {title: known} if known else {}
    return found


def _cell(value: Any) -> str:
    """A value of a table, nothing for none."""
    if isinstance(value, int | float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value or "")


def _number(value: Any) -> float:
    """A number, NaN for none."""
    return float(value) if isinstance(value, int | float) else math.nan
