"""Motion of labels and points of the reference phase over a series: a table and curves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.files.cells import as_text
from monai_regplugins.grids import above_zero
from monai_regplugins.metrics.overlap import labels_in
from monai_regplugins.result import RegistrationResult

__all__ = ["AXES", "MOTION", "curves_figure", "motion_csv", "motion_of", "read_motion", "write_motion"]

Curves = Mapping[str, npt.NDArray[np.float64]]

MOTION = "motion.json"
AXES = ("right", "front", "head")
MOST = 12  # curves of a figure
WIDEST = 80  # letters of names that fit beside each other


def motion_of(result: RegistrationResult) -> dict[str, list[float]]:
    """How far structures of the fixed image have moved, mm along the axes of RAS.

    Args:
        result: a registered phase.

    Returns:
        By name the mean displacement of each fixed label, ``label 3``, and that of each fixed point, ``point 0``; where
        there are neither, the mean of the fixed mask, or of all voxels, ``mean``.
    """
    displacement = result.displacement.as_tensor()
    found = dict(_of_labels(displacement, result.targets.get("fixed_label")))
    points = result.item.get("fixed_landmarks", result.item.get("fixed_keypoints"))
    if points is not None:
        shifts = fields.sample_at(displacement[None].double(), points.double()[None])[0]
        found |= {f"point {number}": shift for number, shift in enumerate(shifts)}
    if not found:
        mask = result.targets.get("fixed_mask")
        found["mean"] = (displacement.flatten(1) if mask is None else displacement[:, above_zero(mask[0])]).mean(1)
    return {name: [float(value) for value in shift] for name, shift in found.items()}


def _of_labels(displacement: Tensor, label: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    """The mean displacement of each label."""
    for value in sorted(labels_in(label) - {0}) if label is not None else ():
        yield f"label {value}", displacement[:, label[0] == value].mean(1)  # type: ignore[index]


def write_motion(result: RegistrationResult, folder: Path) -> None:
    """Write :func:`motion_of` into the folder of a phase, ``motion.json``."""
    (folder / MOTION).write_text(json.dumps(motion_of(result), indent=2), encoding="utf-8")


def read_motion(folders: Sequence[Path | None]) -> dict[str, npt.NDArray[np.float64]]:
    """The motion of each structure over a series.

    Args:
        folders: of the phases in the order of time; None is the reference, which does not move.

    Returns:
        By name an array (T, d), mm, NaN where a phase has no result.
    """
    found = [None if folder is None else _motion_in(folder) for folder in folders]
    names = {name: len(shift) for motion in found if motion for name, shift in motion.items()}
    return {
        name: np.array([np.zeros(d) if motion is None else motion.get(name, [np.nan] * d) for motion in found])
        for name, d in names.items()
    }


def _motion_in(folder: Path) -> dict[str, list[float]]:
    """What the folder of a phase states, nothing if there is no result."""
    file = folder / MOTION
    content: dict[str, list[float]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content


def motion_csv(names: Sequence[str], curves: Curves) -> str:
    """A line for each phase and structure: displacement in mm to the right, to the front and to the head, its length.

    Args:
        names: of the phases.
        curves: of :func:`read_motion`.
    """
    d = next((curve.shape[1] for curve in curves.values()), len(AXES))
    stream = io.StringIO(newline="")
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["phase", "structure", *(f"{axis}_mm" for axis in AXES[:d]), "length_mm"])
    for number, phase in enumerate(names):
        for name, curve in curves.items():
            values = [*curve[number], np.linalg.norm(curve[number])]
            cells = ["" if np.isnan(value) else f"{value + 0.0:.4f}" for value in values]
            table.writerow([as_text(phase), name, *cells])
    return stream.getvalue()


def curves_figure(
    names: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[float]]], title: str = "phase"
) -> Figure:
    """Draw curves over the phases, one panel below the other.

    Args:
        names: of the phases.
        panels: by the label of its axis, the curves of a panel by name; NaN is a gap. Of many the first are drawn.
        title: of the axis of names.
    """
    ticks = range(0, len(names), 1 + len(names) // 20)
    shown = [names[number] for number in ticks]
    upright = sum(map(len, shown)) > WIDEST
    # margins by the number of characters: a layout that measures all texts takes as long as the drawing
    legend = 0.5 + 0.075 * max(len(name) for curves in panels.values() for name in curves)
    below = 0.55 + (0.085 * max(map(len, shown)) if upright else 0.0)
    width, height = 7.2 + legend, 2.4 * len(panels) + below
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(0.85 / width, below / height, 1 - legend / width, 1 - 0.1 / height, hspace=0.08)
    all_axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (unit, curves) in zip(all_axes, panels.items(), strict=True):
        for name, values in list(curves.items())[:MOST]:
            axes.plot(range(len(names)), values, marker=".", label=name)
        axes.set_ylabel(unit)
        axes.locator_params(axis="y", nbins=4)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    all_axes[-1].set_xticks(ticks, shown, rotation=90 if upright else 0)
    all_axes[-1].set_xlabel(title)
    return figure
