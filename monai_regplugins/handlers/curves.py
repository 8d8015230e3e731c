"""Figure of a training: loss and validation score over the epochs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Events
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from monai_regplugins.figures.png import save_figure
from monai_regplugins.handlers.score import Score, score_called
from monai_regplugins.io.result_folder import check_result, write_result

__all__ = ["CurvesFigure", "curves_figure"]

SCORE = Score("score")  # of what is not known


class CurvesFigure:
    """Draw mean loss and validation score of each epoch into a PNG, and write both beside it as CSV.

    The picture calls the score by its measure, and has a line at that of the pairs before, or aligned. The score of
    the weights that a training starts from is that of epoch 0.

    The CSV file is the record: a resumed training goes on with it. Put the handler after the ``ValidationHandler``;
    only the first process writes.

    Args:
        path: the PNG file; both files are replaced as a whole after each epoch.
        evaluator: the engine that validates.
        score_name: the metric of the evaluator to draw.
    """

    def __init__(self, path: str | Path, evaluator: Any = None, score_name: str = "score") -> None:
        self.path = Path(path)
        self.evaluator, self.score_name = evaluator, score_name
        self._losses: dict[int, float] = {}
        self._scores: dict[int, float] = {}
        self._sum, self._count = 0.0, 0

    def attach(self, trainer: Any) -> None:
        """Follow ``trainer``, whose output must have a ``loss``."""
        if trainer.state.rank == 0:
            check_result(self.path)
            trainer.add_event_handler(Events.STARTED, self._load)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._add)
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self._write)
            if self.evaluator is not None:
                self.evaluator.add_event_handler(Events.COMPLETED, self._take_start)

    def _take_start(self, evaluator: Any) -> None:
        """Take the score of the weights that the training starts from, which are validated as epoch 0."""
        if evaluator.state.epoch == 0:
            self._scores[0] = float(evaluator.state.metrics[self.score_name])

    def _load(self, trainer: Any) -> None:
        """Take over the record up to the epoch that the training starts from."""
        record = self.path.with_suffix(".csv")
        lines = record.read_text(encoding="utf-8").splitlines() if trainer.state.epoch and record.is_file() else []
        rows = [row for row in csv.DictReader(lines) if int(row["epoch"]) <= trainer.state.epoch]
        self._losses = {int(row["epoch"]): float(row["loss"]) for row in rows if row["loss"]}
        self._scores |= {int(row["epoch"]): float(row["score"]) for row in rows if row["score"]}

    def _add(self, trainer: Any) -> None:
        output = trainer.state.output
        self._sum += float((output[0] if isinstance(output, (list, tuple)) else output)["loss"])
        self._count += 1

    def _write(self, trainer: Any) -> None:
        epoch = trainer.state.epoch
        self._losses[epoch] = self._sum / self._count
        self._sum, self._count = 0.0, 0
        if self.evaluator is not None and self.evaluator.state.epoch == epoch:
            self._scores[epoch] = float(self.evaluator.state.metrics[self.score_name])
        of_start = [f"0,,{self._scores[0]}\n"] if 0 in self._scores else []
        lines = [f"{at},{loss:.6g},{self._scores.get(at, '')}\n" for at, loss in self._losses.items()]
        write_result(self.path.with_suffix(".csv"), "".join(["epoch,loss,score\n", *of_start, *lines]).encode())
        metrics = {} if self.evaluator is None else self.evaluator.state.metrics
        before = metrics.get(f"{self.score_name}_before", math.nan)
        named = score_called(self.score_name, self.evaluator)
        save_figure(self.path, curves_figure(self._losses, self._scores, named, before), dpi=120)


def curves_figure(
    losses: Mapping[int, float], scores: Mapping[int, float], named: Score = SCORE, before: float = math.nan
) -> Figure:
    """Draw loss (left) and score (right, its best epoch marked) over the epochs.

    Args:
        losses: by epoch.
        scores: by epoch, higher is better.
        named: what the score is made of.
        before: the score of doing nothing, a line.
    """
    finite = {epoch: score for epoch, score in scores.items() if math.isfinite(score)}
    figure = Figure(figsize=(10 if finite else 5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if finite else 1, squeeze=False)[0]
    axes[0].plot(list(losses), list(losses.values()), marker=_marker(losses), color="tab:blue")
    axes[0].set(title="training loss", xlabel="epoch")
    if finite:
        best = max(finite, key=lambda epoch: finite[epoch])
        values = {epoch: named.value(score) for epoch, score in finite.items()}
        axes[1].plot(list(values), list(values.values()), marker=_marker(values), color="tab:orange")
        axes[1].plot(best, values[best], marker="o", color="tab:red")
        title = f"validation {named.title}{named.unit}, best {values[best]:.3f} in epoch {best}"
        axes[1].set(title=title, xlabel="epoch")
        if math.isfinite(before):
            axes[1].axhline(named.value(before), linestyle="--", color="tab:gray", label=named.start)
            axes[1].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _marker(values: Mapping[int, float]) -> str:
    """A point that is seen where there is no line beside it."""
    return "o" if len(values) == 1 else "."
