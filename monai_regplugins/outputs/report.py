"""The results of many pairs on one page: tables, box plots, and the pictures of the worst cases first."""

from __future__ import annotations

import base64
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from monai_regplugins.io.result_folder import check_result, write_result
from monai_regplugins.metrics.pair import finite_values
from monai_regplugins.outputs.metric_table import SUMMARY, metrics_csv

__all__ = ["RegistrationReport", "box_figure", "report_page"]

Row = Mapping[str, Any]  # "pair_id" and the measures of monai_regplugins.metrics.pair_metrics

# what the order of the cases goes by, the first that the pairs have; 1 where larger is better
ORDER = {"tre": -1, "dsc": 1, "ncc": 1}
TABLE, PAGE = "metrics.csv", "report.html"
BEFORE, AFTER = "#9aa5b1", "#1982c4"

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1f2933; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e4e7eb }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; height: auto }
"""


class RegistrationReport:
    """Gather the measures that :class:`RegistrationWriter` has left in the folders of pairs.

    Writes ``metrics.csv``, a line per pair, and ``report.html``, one file that needs no other.

    Args:
        output_dir: folder of the pairs' folders.
        title: heading of the page.
        pictures: so many cases are shown with their picture, the worst first.
    """

    def __init__(self, output_dir: str | Path, title: str = "Registration", pictures: int = 12) -> None:
        self.output_dir, self.title, self.pictures = Path(output_dir), title, pictures

    def check(self) -> None:
        """Check that the files may be written.

        Raises:
            InputError: When there is a file of their names that the program has not made.
        """
        for name in (TABLE, PAGE):
            check_result(self.output_dir / name)

    def __call__(self, pair_ids: Sequence[str]) -> None:
        """Write both files.

        Args:
            pair_ids: names of the folders to look at.

        Raises:
            InputError: When a file cannot be written.
        """
        rows = [{"pair_id": name, **_measures(self.output_dir / name / "metrics.json")} for name in pair_ids]
        write_result(self.output_dir / TABLE, metrics_csv(rows).encode())
        shown = {
            row["pair_id"]: (self.output_dir / row["pair_id"] / "registration.png").read_bytes()
            for row in worst_first(rows)[: self.pictures]
        }
        write_result(self.output_dir / PAGE, report_page(rows, shown, self.title).encode())


def worst_first(rows: Iterable[Row]) -> list[Row]:
    """Sort pairs by their landmark error, overlap or correlation, whichever they have; the worst comes first."""
    listed = list(rows)
    for measure, sign in ORDER.items():
        if finite_values(listed, measure):
            return sorted(listed, key=lambda row: _key(row.get(measure), sign))
    return listed


def report_page(rows: Sequence[Row], pictures: Mapping[str, bytes], title: str) -> str:
    """Return the page as HTML.

    Args:
        rows: measures of each pair.
        pictures: PNG files by pair.
        title: heading.
    """
    labels = _per_label(rows)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{len(rows)} pair{'s' if len(rows) != 1 else ''}, mean and standard deviation over the pairs.</p>",
        _summary(rows),
        f"<h2>Dice per label</h2>{_image(_png(box_figure(labels)), 'Dice per label')}" if labels else "",
        "<h2>All pairs, the worst first</h2>",
        _pairs(worst_first(rows)),
        *(f"<h3>{escape(name)}</h3>{_image(picture, name)}" for name, picture in pictures.items()),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def box_figure(values: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Draw a box before and one after the registration for each name.

    Args:
        values: numbers before and after, by name.
    """
    figure = Figure(figsize=(max(4.0, 0.55 * len(values) + 1.5), 3.6), layout="constrained")
    axes = figure.add_subplot()
    for shift, color, kind, name in ((-0.2, BEFORE, 0, "before"), (0.2, AFTER, 1, "after")):
        boxes = axes.boxplot(
            [pair[kind] for pair in values.values()],
            positions=[place + shift for place in range(len(values))],
            widths=0.34,
            patch_artist=True,
            flierprops={"markersize": 2},
            medianprops={"color": "white"},
        )
        for box in boxes["boxes"]:
            box.set(facecolor=color, edgecolor=color)
        axes.plot([], [], color=color, linewidth=6, label=name)
    axes.set_xticks(range(len(values)), list(values))
    axes.set_ylabel("DSC")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def _measures(path: Path) -> dict[str, float]:
    """Measures of a pair; JSON has null in place of NaN."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def _per_label(rows: Sequence[Row]) -> dict[str, tuple[list[float], list[float]]]:
    """Dice of each label over the pairs, before and after."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("dsc_before_"))
    labels = sorted((name.removeprefix("dsc_before_") for name in names), key=int)
    return {
        label: (finite_values(rows, f"dsc_before_{label}"), finite_values(rows, f"dsc_{label}")) for label in labels
    }


def _summary(rows: Sequence[Row]) -> str:
    """Table of the mean measures before and after."""
    lines = [["", "before", "after"]]
    for title, (name, decimals) in SUMMARY.items():
        after = finite_values(rows, name)
        if after:
            before = finite_values(rows, f"{name}_before")
            lines.append([title, _mean_and_sd(before, decimals), _mean_and_sd(after, decimals)])
    return _table(lines)


def _pairs(rows: Sequence[Row]) -> str:
    """Table of the pairs."""
    columns = {title: entry for title, entry in SUMMARY.items() if finite_values(rows, entry[0])}
    lines = [["pair", *columns]]
    for row in rows:
        lines.append([str(row["pair_id"]), *(_cell(row, name, decimals) for name, decimals in columns.values())])
    return _table(lines)


def _cell(row: Row, name: str, decimals: int) -> str:
    """Value of a pair, and the one before where there is one."""
    before, after = (_number(row.get(key), decimals) for key in (f"{name}_before", name))
    return f"{before} → {after}" if before else after


def _number(value: Any, decimals: int) -> str:
    """A finite number as text, anything else as nothing."""
    return f"{value:.{decimals}f}" if isinstance(value, (int, float)) and math.isfinite(value) else ""


def _mean_and_sd(values: Sequence[float], decimals: int) -> str:
    """Mean ± standard deviation as text."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{decimals}f}{deviation}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first line is its head."""
    rows = [
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in line) + "</tr>"
        for tag, line in zip(["th", *["td"] * len(lines)], lines, strict=False)
    ]
    return f"<table>{''.join(rows)}</table>"


def _image(png: bytes, name: str) -> str:
    """A picture within the page."""
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _png(figure: Figure) -> bytes:
    """A figure as a file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _key(value: Any, sign: int) -> float:
    """Number to sort by: pairs without a finite value come first."""
    return sign * value if isinstance(value, (int, float)) and math.isfinite(value) else -math.inf
