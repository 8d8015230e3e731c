"""HTML report of many pairs: tables, box plots, and figures, worst cases first."""

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
from urllib.parse import quote

from matplotlib.figure import Figure
from PIL import Image

from monai_regplugins.figures.pair import PANELS
from monai_regplugins.figures.png import png_of
from monai_regplugins.io.result_folder import check_result, read_record, write_result
from monai_regplugins.metrics.pair import complete_states, finite_values
from monai_regplugins.outputs.metric_table import STATES, metrics_csv, state_values, states_of, summarized
from monai_regplugins.verdict.judge import LEVELS

__all__ = ["RegistrationReport", "box_figure", "report_page"]

Row = Mapping[str, Any]  # "pair_id", the content of its metrics.json, and "error" of a pair that has none

# what the order of the cases goes by, the first that the pairs have; 1 where larger is better
ORDER = {"tre": -1, "dsc": 1, "ncc": 1}
TABLE, PAGE = "metrics.csv", "report.html"
ERROR = "ERROR"  # instead of a verdict, of a pair without result
SIDES = ("fixed", "warped")
BOXES = {"before": "#9aa5b1", "aligned": "#8ac926", "after": "#1982c4"}  # colors

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1f2933; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e4e7eb }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; height: auto }
.FAIL, .ERROR { color: #b3261e; font-weight: 600 }
.WARN { color: #a15c00; font-weight: 600 }
.PASS { color: #1b7f4b }
.slider { position: relative; width: max-content; max-width: 100%; --at: 50% }
.slider img { display: block; width: 24rem }
.slider .top { position: absolute; inset: 0 0 auto; clip-path: inset(0 0 0 var(--at)) }
.slider input { width: 100%; margin: .4rem 0 0 }
.slider p { display: flex; justify-content: space-between; margin: 0 }
"""
SLIDE = "this.parentNode.style.setProperty('--at', this.value + '%')"


class RegistrationReport:
    """Collect the measures that :class:`RegistrationWriter` wrote into the folders of pairs.

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

    def __call__(self, pair_ids: Sequence[str], failed: Mapping[str, str] | None = None) -> None:
        """Write both files.

        Args:
            pair_ids: names of the folders to look at.
            failed: pairs that have no result, and why.

        Raises:
            InputError: When a file cannot be written.
        """
        rows = [{"pair_id": name, **_measures(self.output_dir / name / "metrics.json")} for name in pair_ids]
        rows += [{"pair_id": name, "verdict": ERROR, "reasons": reason} for name, reason in (failed or {}).items()]
        write_result(self.output_dir / TABLE, metrics_csv(rows).encode())
        shown = {
            row["pair_id"]: (self.output_dir / row["pair_id"] / "registration.png").read_bytes()
            for row in [row for row in worst_first(rows) if row.get("verdict") != ERROR][: self.pictures]
        }
        made = read_record(self.output_dir / pair_ids[0]) if pair_ids else {}
        write_result(self.output_dir / PAGE, report_page(rows, shown, self.title, made).encode())


def worst_first(rows: Iterable[Row]) -> list[Row]:
    """Sort pairs by verdict, and those of one by landmark error, overlap or correlation; the worst comes first."""
    listed = list(rows)
    measure = next((name for name in ORDER if finite_values(listed, name)), "")
    return sorted(listed, key=lambda row: (-_severity(row), _key(row.get(measure), ORDER.get(measure, 1))))


def _severity(row: Row) -> int:
    """How bad a pair is: 0 for PASS or without verdict, then WARN, FAIL, and no result at all."""
    verdict = row.get("verdict", LEVELS[0])
    return len(LEVELS) if verdict == ERROR else LEVELS.index(verdict)


def report_page(
    rows: Sequence[Row], pictures: Mapping[str, bytes], title: str, made: Mapping[str, Any] | None = None
) -> str:
    """Return the page as HTML.

    Args:
        rows: measures of each pair.
        pictures: PNG files by pair.
        title: heading.
        made: the provenance record of a pair, whose weights, settings and versions are those of all.
    """
    labels = _per_label(rows)
    failed = sum(row.get("verdict") == ERROR for row in rows)
    counted = f"the {len(rows) - failed} with a result" if failed else "the pairs"
    aligned = "initially aligned, where that moved the image → " * ("aligned" in states_of(rows))
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{len(rows)} pair{'s' if len(rows) != 1 else ''}, mean and standard deviation over {counted}.</p>",
        _verdicts(rows),
        _summary(rows),
        _boxes(labels, states_of(rows)) if labels else "",
        f"<h2>All pairs, the worst first</h2><p>Measures before → {aligned}after the registration.</p>",
        _pairs(worst_first(rows)),
        *(_case(row, pictures[row["pair_id"]]) for row in worst_first(rows) if row["pair_id"] in pictures),
        _settings(made or {}),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _boxes(labels: Mapping[str, Sequence[Sequence[float]]], states: Sequence[str]) -> str:
    """Dice of each label with a heading."""
    return f"<h2>Dice per label</h2>{_image(png_of(box_figure(labels, states)), 'Dice per label')}"


def box_figure(values: Mapping[str, Sequence[Sequence[float]]], states: Sequence[str] = ("before", "after")) -> Figure:
    """Draw a box for each name and state of the pairs.

    Args:
        values: numbers in each state, by name.
        states: names of the states.
    """
    figure = Figure(figsize=(max(4.0, 0.55 * len(values) + 1.5), 3.6), layout="constrained")
    axes = figure.add_subplot()
    step = 0.8 / len(states)
    for kind, name in enumerate(states):
        shift, color = step * (kind - (len(states) - 1) / 2), BOXES[name]
        boxes = axes.boxplot(
            [pair[kind] for pair in values.values()],
            positions=[place + shift for place in range(len(values))],
            widths=0.85 * step,
            patch_artist=True,
            flierprops={"markersize": 2},
            medianprops={"color": "white"},
        )
        for box in boxes["boxes"]:
            box.set(facecolor=color, edgecolor=color)
        axes.plot([], [], color=color, linewidth=6, label=name)
    axes.set_xticks(range(len(values)), list(values))
    axes.set(xlabel="label", ylabel="DSC")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, ncols=len(states), loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def _measures(path: Path) -> dict[str, Any]:
    """Measures and verdict of a pair, the reasons as one text; JSON has null in place of NaN."""
    values = json.loads(path.read_text(encoding="utf-8"))
    reasons = {"reasons": "; ".join(values["reasons"])} if "reasons" in values else {}
    return {name: math.nan if value is None else value for name, value in values.items()} | reasons


def _per_label(rows: Sequence[Row]) -> dict[str, list[list[float]]]:
    """Dice of each label over the pairs, in each of their states."""
    suffixes = [STATES[state] for state in states_of(rows)]
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("dsc_before_"))
    labels = sorted((name.removeprefix("dsc_before_") for name in names), key=int)
    whole = complete_states(rows)
    return {label: [finite_values(whole, f"dsc{suffix}_{label}") for suffix in suffixes] for label in labels}


def _case(row: Row, picture: bytes) -> str:
    """A pair with its verdict, its reasons, its picture, and links to its folder and to the picture's file."""
    name, verdict = str(row["pair_id"]), str(row.get("verdict", ""))
    reported = f'<p class="{verdict}">{verdict} {_reasons(row)}</p>' if verdict else ""
    shown = f'<a href="{quote(name)}/registration.png">{_image(picture, name)}</a>'
    return f"<h3>{_link(name)}</h3>{reported}{shown}{_slider(picture, name)}"


def _link(name: str) -> str:
    """The name of a pair, which leads to its folder."""
    return f'<a href="{quote(name)}/">{escape(name)}</a>'


def _slider(picture: bytes, name: str) -> str:
    """The fixed image, and over it the warped one to the right of a slider; nothing where the picture states neither.

    The page holds all that it needs; its one line of script moves the border.
    """
    images = _panels(picture)
    if len(images) < len(SIDES):
        return ""
    below, above = (_image(image, f"{side} image of {name}") for side, image in images.items())
    title = f"fixed (left) and warped (right) image of {name}"
    control = f'<input type="range" value="50" aria-label="{escape(title)}" oninput="{SLIDE}">'
    sides = "<span>fixed</span><span>warped</span>"
    return f'<div class="slider">{below}<div class="top">{above}</div>{control}<p>{sides}</p></div>'


def _panels(picture: bytes) -> dict[str, bytes]:
    """The panels of a figure that its file states, each as a PNG file; none of a damaged one."""
    try:
        with Image.open(io.BytesIO(picture)) as page:
            stated = json.loads(getattr(page, "text", {}).get(PANELS, "{}"))
            return {side: _cropped(page, stated[side]) for side in SIDES if side in stated}
    except (OSError, ValueError):
        return {}


def _cropped(page: Image.Image, shares: Sequence[float]) -> bytes:
    """A part of a picture as a PNG file: left, top, right and bottom as shares of the page."""
    left, top, right, bottom = (round(share * size) for share, size in zip(shares, page.size * 2, strict=True))
    stream = io.BytesIO()
    page.crop((left, top, right, bottom)).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def _settings(made: Mapping[str, Any]) -> str:
    """Weights, settings and versions of a provenance record, folded up."""
    if not made:
        return ""
    weights, versions = made.get("weights", {}), made.get("versions", {})
    lines = {
        "weights": f"{weights.get('file', '')} (SHA-256 {weights.get('sha256', '')[:12]})",
        **{str(name): json.dumps(value) for name, value in made.get("parameters", {}).items()},
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
    }
    table = _table([["setting", "value"], *([escape(cell) for cell in line] for line in lines.items())])
    return f"<details><summary>Weights, settings and versions</summary>{table}</details>"


def _verdicts(rows: Sequence[Row]) -> str:
    """How many pairs have each verdict, and the reasons of those that do not pass, the worst first."""
    judged = [row for row in worst_first(rows) if "verdict" in row]
    if not judged:
        return ""
    counts = [(level, sum(row["verdict"] == level for row in judged)) for level in (ERROR, *reversed(LEVELS))]
    reported = ", ".join(f'{count} <span class="{level}">{level}</span>' for level, count in counts if count)
    reasons = "".join(
        f'<li><span class="{row["verdict"]}">{row["verdict"]}</span> {escape(str(row["pair_id"]))}: '
        f"{_reasons(row)}</li>"
        for row in judged
        if row["verdict"] != LEVELS[0]
    )
    return f"<p>Verdicts: {reported}.</p>" + (f"<ul>{reasons}</ul>" if reasons else "")


def _reasons(row: Row) -> str:
    """The reasons of a verdict after its level, which is not said twice."""
    return escape(str(row.get("reasons", "")).removeprefix(f"{row['verdict']}: "))


def _summary(rows: Sequence[Row]) -> str:
    """Table of the mean measures in each state."""
    states = states_of(rows)
    lines = [["", *states]]
    for title, (name, decimals) in summarized(rows).items():
        if finite_values(rows, name):
            lines.append(
                [escape(title), *(_mean_and_sd(state_values(rows, name, state), decimals) for state in states)]
            )
    return _table(lines)


def _pairs(rows: Sequence[Row]) -> str:
    """Table of the pairs."""
    columns = {title: entry for title, entry in summarized(rows).items() if finite_values(rows, entry[0])}
    judged = ["verdict"] if any("verdict" in row for row in rows) else []
    lines = [["pair", *judged, *columns]]
    for row in rows:
        name, verdict = str(row["pair_id"]), str(row.get("verdict", ""))
        words = [escape(name) if verdict == ERROR else _link(name)]
        words += [f'<span class="{verdict}">{verdict}</span>' for _ in judged]
        lines.append([*words, *(_cell(row, name, decimals) for name, decimals in columns.values())])
    return _table(lines)


def _cell(row: Row, name: str, decimals: int) -> str:
    """Value of a pair, and those before it where there are any."""
    values = (_number(row.get(f"{name}{suffix}"), decimals) for suffix in STATES.values())
    return " → ".join(value for value in values if value)


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
    """A table of HTML whose first line is its head."""
    rows = [
        "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in line) + "</tr>"
        for tag, line in zip(["th", *["td"] * len(lines)], lines, strict=False)
    ]
    return f"<table>{''.join(rows)}</table>"


def _image(png: bytes, name: str) -> str:
    """A picture within the page."""
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _key(value: Any, sign: int) -> float:
    """Number to sort by: pairs without a finite value come first."""
    return sign * value if isinstance(value, (int, float)) and math.isfinite(value) else -math.inf
