"""Handlers of an evaluation: weights, the table of measures, pictures."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Events
from torch import nn

from monai_regplugins.checks import say_when_stopped
from monai_regplugins.handlers.checkpoint import WeightsLoader
from monai_regplugins.handlers.figures import FieldFigure, PairFigure
from monai_regplugins.handlers.rough_fields import rough_fields
from monai_regplugins.outputs.metric_table import MetricTable

__all__ = ["EvaluationNotes", "EvaluationTime", "evaluation_handlers"]

logger = logging.getLogger(__name__)

TIMED = 3  # steps after the first one, which is slower
SECONDS_BETWEEN_LOG_LINES = 60.0
WORSE = {"dsc": ("DSC", 3, 1), "tre": ("TRE (mm)", 2, -1)}  # title, decimals, 1 if larger is better
SHOWN = 5  # pairs
MANY = 50  # pairs


class EvaluationTime:
    """Log how many pairs are evaluated, and how long the rest of them takes: after some pairs, then each minute.

    An evaluation that is stopped says that it has written nothing.

    Example:
        >>> EvaluationTime().rest(done=4, of=10, seconds=30.0)
        'pair 4 of 10: about 1.0 minutes left'
    """

    def __init__(self) -> None:
        self._first = self._logged = 0.0

    def attach(self, evaluator: Any) -> None:
        """Follow ``evaluator``, which takes one pair in a step."""
        if evaluator.state.rank == 0:
            evaluator.add_event_handler(Events.STARTED, self._start)
            evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._log)
            evaluator.add_event_handler(Events.COMPLETED, lambda: say_when_stopped(None))

    def rest(self, done: int, of: int, seconds: float) -> str:
        """Say how long the rest takes, by the time since the first pair."""
        return f"pair {done} of {of}: about {seconds / (done - 1) * (of - done) / 60:.1f} minutes left"

    def _start(self, evaluator: Any) -> None:
        pairs = evaluator.state.epoch_length
        logger.info("Evaluating %d pairs%s.", pairs, "; --val_pairs takes fewer" if pairs > MANY else "")
        say_when_stopped(lambda: "an evaluation writes its table and pictures at its end; start it again")

    def _log(self, evaluator: Any) -> None:
        state, now = evaluator.state, time.monotonic()
        if state.iteration == 1:
            self._first = self._logged = now
        elif state.iteration == 1 + TIMED or now - self._logged >= SECONDS_BETWEEN_LOG_LINES:
            self._logged = now
            logger.info(self.rest(state.iteration, state.epoch_length, now - self._first))


class EvaluationNotes:
    """Log after the table of an evaluation what its means do not show, and what is not to be passed over in them.

    Those are the pairs whose labels overlap less, or whose landmarks lie further apart, than as they were given, the
    worst first, fields that are rough in the mean, and where an instance optimization began. Needs
    :class:`RegistrationMetrics` on the same engine.
    """

    def attach(self, evaluator: Any) -> None:
        """Follow ``evaluator``; only its first process says it."""
        if evaluator.state.rank == 0:
            evaluator.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, evaluator: Any) -> None:
        """Log what there is to say of the evaluation that has just ended."""
        rows = evaluator.state.pair_rows
        if worse := worse_pairs(rows):
            more = [f"  and {len(worse) - SHOWN} more"] if len(worse) > SHOWN else []
            lines = "\n".join([*(f"  {line}" for line in worse[:SHOWN]), *more])
            logger.warning("%d of %d pairs end worse than as given:\n%s", len(worse), len(rows), lines)
        if rough := rough_fields(evaluator.state.metrics):
            logger.warning("The fields are rough: %s.", rough)
        if getattr(getattr(evaluator, "inferer", None), "steps", 0) and (starts := starts_of(rows)):
            logger.info("The optimization began %s.", starts)


def starts_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say from where pairs were optimized, by :attr:`.RegistrationResult.start_values`; nothing if none knows it.

    Example:
        >>> starts_of([{"from_network": 1.0, "from_search": 0.0}, {"from_network": 0.0, "from_search": 0.0}])
        "at the network's field in 1 of 2 pairs, at the aligned pair in 1"
    """
    known = [row for row in rows if "from_network" in row]
    network, search = (sum(bool(row[key]) for row in known) for key in ("from_network", "from_search"))
    counts = {"the aligned pair": len(known) - network - search, "the discrete search": search}
    others = "".join(f", at {start} in {count}" for start, count in counts.items() if count)
    kept = sum("unused" in row and row["unused"] == row["unused_aligned"] for row in known)
    result = f"; in {kept} the aligned pair itself is kept" if kept else ""
    return f"at the network's field in {network} of {len(known)} pairs{others}{result}" if known else ""


def worse_pairs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each pair that ends worse than as it was given, the largest loss first, relative to the start.

    Example:
        >>> worse_pairs([{"pair_id": "a_to_b", "dsc_before": 0.5, "dsc": 0.25}, {"dsc_before": 0.5, "dsc": 0.75}])
        ['a_to_b: DSC 0.500 -> 0.250']
    """
    found = list[tuple[float, str]]()
    for row in rows:
        losses, words = list[float](), list[str]()
        for name, (title, digits, sign) in WORSE.items():
            before, after = row.get(f"{name}_before", math.nan), row.get(name, math.nan)
            if math.isfinite(before - after) and round(sign * (before - after), digits) > 0:
                losses.append(sign * (before - after) / before if before else math.inf)
                words.append(f"{title} {before:.{digits}f} -> {after:.{digits}f}")
        if words:
            found.append((max(losses), f"{row['pair_id']}: {', '.join(words)}"))
    return [line for _, line in sorted(found, key=lambda one: -one[0])]


def evaluation_handlers(
    network: nn.Module, ckpt: str | Path, eval_dir: str | Path, figures: int, field: bool = False
) -> list[Any]:
    """Return the handlers of an evaluation: load the weights, write ``evaluation.csv`` and pictures.

    Args:
        network: the network.
        ckpt: its weights.
        eval_dir: folder of ``evaluation.csv`` and ``evaluation.png``.
        figures: number of pairs to draw.
        field: whether ``evaluation_field.png`` compares the first field with its ground truth.

    Example:
        >>> [type(handler).__name__ for handler in evaluation_handlers(nn.Identity(), "model.pt", "eval", 3)]
        ['EvaluationTime', 'WeightsLoader', 'MetricTable', 'EvaluationNotes', 'PairFigure']
    """
    folder = Path(eval_dir)
    handlers: list[Any] = [
        EvaluationTime(),
        WeightsLoader(network, ckpt),
        MetricTable(folder / "evaluation.csv"),
        EvaluationNotes(),
        PairFigure(folder / "evaluation.png", max_pairs=figures),
    ]
    return [*handlers, FieldFigure(folder / "evaluation_field.png")] if field else handlers
