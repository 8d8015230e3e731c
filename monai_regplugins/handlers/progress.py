"""Progress bar of a training, what it is, time left, and the loss terms for progress bar, log and TensorBoard."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from ignite.engine import Events
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from monai_regplugins.handlers.score import score_called
from monai_regplugins.memory import in_gib, peak_of_this_process

__all__ = ["LossTerms", "TrainingProgress"]

logger = logging.getLogger(__name__)

TIMED_STEPS = 5  # after the first one, which is slower
SECONDS_BETWEEN_LOG_LINES = 60.0  # without a terminal


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

    A resumed training starts where it had stopped. Lines of the log go above the bar. Without a terminal there is
    no bar, but a line of the log a minute, so that a file stays short. Times are those of the steps after the first
    one, which is slower; where pairs are initially aligned, steps get faster once most of them are. At the start
    device, threads, pairs, images and steps are logged, and after some steps how long the training takes, without
    its validations, and how much memory. Only the first process shows it.

    Args:
        output_transform: maps the trainer's output to values by name, e.g. :class:`LossTerms`.
        evaluator: the engine that validates, for the last score, which is called by its measure.
        score_name: the metric of the evaluator to show.
    """

    def __init__(
        self, output_transform: Callable[[Any], Mapping[str, float]], evaluator: Any = None, score_name: str = "score"
    ) -> None:
        self.output_transform = output_transform
        self.evaluator, self.score_name = evaluator, score_name
        self._bar: Any = None
        self._shown = ExitStack()
        self._started = (0, 0.0)
        self._first, self._logged = 0.0, 0.0
        self._epochs = 0

    def attach(self, trainer: Any) -> None:
        """Follow ``trainer``."""
        if trainer.state.rank == 0:
            trainer.add_event_handler(Events.STARTED, self._open)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._estimate)
            trainer.add_event_handler(Events.COMPLETED, self._close)

    def _open(self, trainer: Any) -> None:
        state = trainer.state
        logger.info("Training on %s", _described(trainer))
        self._started, self._epochs = (state.iteration, 0.0), state.max_epochs  # a time limit lowers them
        self._first, self._logged = 0.0, time.perf_counter()
        if is_terminal():
            self._shown.enter_context(logging_redirect_tqdm())
            self._bar = self._shown.enter_context(
                tqdm(total=self._total(state), initial=state.iteration, unit="it", dynamic_ncols=True)
            )

    def _total(self, state: Any) -> int | None:
        """Return the steps of all epochs, None if nobody knows."""
        return self._epochs * state.epoch_length if state.epoch_length else None

    def _advance(self, trainer: Any) -> None:
        state = trainer.state
        values = {name: f"{value:.4g}" for name, value in self.output_transform(state.output).items()}
        score = math.nan if self.evaluator is None else self.evaluator.state.metrics.get(self.score_name, math.nan)
        if math.isfinite(score):
            named = score_called(self.score_name, self.evaluator)
            of = f"of epoch {self.evaluator.state.epoch}"
            values[f"validation {named.title}"] = f"{named.value(score):.3f}{named.unit} {of}"
        if self._bar is not None:
            self._bar.set_description(f"epoch {state.epoch}/{self._epochs}", refresh=False)
            self._bar.set_postfix(values, refresh=False)
            self._bar.update()
        else:
            now = time.perf_counter()
            self._first = self._first or now
            if now - self._logged >= SECONDS_BETWEEN_LOG_LINES:
                self._logged = now
                self._log(state, values)

    def _log(self, state: Any, values: Mapping[str, str]) -> None:
        """Log where the training is."""
        shown, total = ", ".join(f"{name} {value}" for name, value in values.items()), self._total(state)
        done = state.iteration - self._started[0] - 1  # the first step is slower
        seconds = (time.perf_counter() - self._first) / done if done else 0.0
        left = f", {self._time_left(state, seconds, total - state.iteration)}" if total and done else ""
        at = f"epoch {state.epoch}/{self._epochs}, step {state.iteration}{f'/{total}' if total else ''}"
        logger.info("%s: %s%s", at, shown, left)

    def _estimate(self, trainer: Any) -> None:
        """Log the time left once, as the steps after the first one foretell it."""
        state, (before, since) = trainer.state, self._started
        steps = state.iteration - before
        if steps == 1:
            self._started = (before, time.monotonic())
        elif steps == 1 + TIMED_STEPS and state.epoch_length:
            seconds = (time.monotonic() - since) / TIMED_STEPS
            left = self._time_left(state, seconds, self._epochs * state.epoch_length - state.iteration)
            memory = in_gib(_memory(state.device))
            logger.info("%.2g s a step so far, %s: %s, validations not counted.", seconds, memory, left)

    def _time_left(self, state: Any, seconds: float, steps: int) -> str:
        """Say how many minutes the steps take, or what of them fits into those of a time limit."""
        limit = max(0.0, state.end_time - time.monotonic()) / 60 if hasattr(state, "end_time") else math.inf
        if (left := seconds * steps / 60) <= limit:
            return f"about {left:.1f} minutes left"
        fitting = f"{60 * limit / seconds:.0f} of {steps} steps at this pace"
        return f"{limit:.1f} minutes left by max_minutes, about {fitting}"

    def _close(self, trainer: Any) -> None:
        self._shown.close()
        self._bar = None


def is_terminal() -> bool:
    """Whether a progress bar is seen as one."""
    return sys.stderr.isatty()


def _memory(device: torch.device) -> float:
    """The most memory taken so far, of the GPU where the training runs on one."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 2**20 * peak_of_this_process()


def _described(trainer: Any) -> str:
    """Say in one line where a training runs, on what, and how long."""
    state, loader = trainer.state, trainer.data_loader
    data = getattr(getattr(loader, "dataset", None), "data", None)
    items = data if isinstance(data, list) else []  # other sequences make their items when they are asked for
    files = [[item[key] for key in ("moving", "fixed", "image") if isinstance(item.get(key), str)] for item in items]
    images = len({file for names in files for file in names})
    kinds = {0: "made pairs", 1: f"{images} images", 2: f"{len(items)} pairs of {images} images"}
    data = kinds[max(map(len, files), default=0)]
    threads = torch.get_num_threads()
    size = getattr(loader, "batch_size", None) or 1
    return (
        f"{state.device} with {threads} thread{'s' * (threads > 1)}: {data}; {state.max_epochs} epochs of "
        f"{state.epoch_length} steps, {size} a step, from epoch {state.epoch + 1} on."
    )
