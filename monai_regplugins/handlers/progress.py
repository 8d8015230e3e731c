"""Progress bar of a training, and the loss terms for progress bar, log and TensorBoard."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ignite.engine import Events
from tqdm import tqdm

__all__ = ["LossTerms", "TrainingProgress"]

SECONDS_BETWEEN_LOG_LINES = 60.0  # without a terminal each refresh is a new line, so refresh rarely


class LossTerms:
    """Output transform that gives the loss and each of its terms by name.

    Fits ``StatsHandler``, ``TensorBoardStatsHandler`` and :class:`TrainingProgress`.

    Args:
        loss: the loss module of the trainer; its attribute ``last``, if any, maps names to the terms' last values.
    """

    def __init__(self, loss: Any) -> None:
        self.loss = loss

    def __call__(self, output: Any) -> dict[str, float]:
        """Return ``{"loss": total, <term>: value, ...}`` for a trainer's output, decollated or not."""
        item = output[0] if isinstance(output, (list, tuple)) else output
        terms: Mapping[str, Any] = getattr(self.loss, "last", {})
        return {"loss": float(item["loss"])} | {name: float(value) for name, value in terms.items()}


class TrainingProgress:
    """A progress bar over all iterations of all epochs, with losses, last validation score and time left.

    A resumed training starts where it had stopped. Without a terminal the bar is refreshed once a minute, so that a
    log stays short. Only the first process shows it.

    Args:
        output_transform: maps the trainer's output to values by name, e.g. :class:`LossTerms`.
        evaluator: the engine that validates, for the last score.
        score_name: the metric of the evaluator to show.
    """

    def __init__(
        self, output_transform: Callable[[Any], Mapping[str, float]], evaluator: Any = None, score_name: str = "score"
    ) -> None:
        self.output_transform = output_transform
        self.evaluator, self.score_name = evaluator, score_name
        self._bar: Any = None

    def attach(self, trainer: Any) -> None:
        """Follow ``trainer``."""
        if trainer.state.rank == 0:
            trainer.add_event_handler(Events.STARTED, self._open)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
            trainer.add_event_handler(Events.COMPLETED, self._close)

    def _open(self, trainer: Any) -> None:
        state = trainer.state
        interval = 0.1 if sys.stderr.isatty() else SECONDS_BETWEEN_LOG_LINES
        self._bar = tqdm(
            total=state.max_epochs * state.epoch_length if state.epoch_length else None,
            initial=state.iteration,
            unit="it",
            mininterval=interval,
            maxinterval=max(10.0, interval),
            dynamic_ncols=True,
        )

    def _advance(self, trainer: Any) -> None:
        values = dict(self.output_transform(trainer.state.output))
        score = math.nan if self.evaluator is None else self.evaluator.state.metrics.get(self.score_name, math.nan)
        if math.isfinite(score):
            values[self.score_name] = score
        self._bar.set_description(f"epoch {trainer.state.epoch}/{trainer.state.max_epochs}", refresh=False)
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)
        self._bar.update()

    def _close(self, trainer: Any) -> None:
        self._bar.close()
