"""When a training validates, and a limit of its time."""

from __future__ import annotations

import logging
import time
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from monai.handlers import ValidationHandler
from torch.optim.lr_scheduler import ExponentialLR

from monai_regplugins.handlers.checkpoint import summed

__all__ = ["TimeLimit", "Validation"]

logger = logging.getLogger(__name__)


class Validation(ValidationHandler):
    """MONAI's handler that validates after every ``interval``-th epoch, and after the last one whatever its number.

    Args:
        interval: epochs from one validation to the next.
        validator: the engine that validates.
    """

    def __init__(self, interval: int, validator: Any) -> None:
        super().__init__(interval, validator)

    def attach(self, engine: Any) -> None:
        """Follow a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._is_due), self)

    def _is_due(self, trainer: Any, epoch: int) -> bool:
        """Whether an epoch is one to validate after."""
        return epoch % self.interval == 0 or epoch == trainer.state.max_epochs


class TimeLimit:
    """End a training after some minutes: with the step that exceeds them, its epoch, the last one, ends.

    The epoch is validated and its weights are written as those of any other last epoch; a resumed training goes on
    with its remaining steps. A schedule of the learning rate that knows its number of steps (``t_total``), such as
    MONAI's cosine, and an exponential one, which is a factor for each epoch, come to their end with the time, unless
    all steps fit into it: after a share of the time they are where they would be after this share of the steps. In a
    distributed training all processes end together.

    Args:
        minutes: the limit, from the start of the run; 0 for none.
        lr_scheduler: the schedule of the learning rate, if any.
    """

    def __init__(self, minutes: float, lr_scheduler: Any = None) -> None:
        self.minutes, self.lr_scheduler = minutes, lr_scheduler
        self._start_time, self._start_iteration = 0.0, 0
        self._planned: int | None = None
        self._expected: int | None = None

    def attach(self, trainer: Any) -> None:
        """Follow ``trainer``, in whose state ``end_time`` is when it ends, of ``time.monotonic``."""
        if self.minutes > 0:
            trainer.add_event_handler(Events.STARTED, self._start)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._check)
            if isinstance(self.lr_scheduler, ExponentialLR):
                trainer.add_event_handler(Events.ITERATION_STARTED, self._set_rate)

    def _start(self, trainer: Any) -> None:
        self._start_time, self._start_iteration = time.monotonic(), trainer.state.iteration
        steps = trainer.state.max_epochs * (trainer.state.epoch_length or 0) or None
        self._planned = self._expected = getattr(self.lr_scheduler, "t_total", steps)
        trainer.state.end_time = self._start_time + 60 * self.minutes

    def _check(self, trainer: Any) -> None:
        state = trainer.state
        passed = (time.monotonic() - self._start_time) / (60 * self.minutes)
        share = summed(passed, state.device) / idist.get_world_size()  # the same everywhere
        self._fit_schedule(state.iteration, share)
        if share > 1:
            done = state.iteration % state.epoch_length
            after = f", after {done} of its {state.epoch_length} steps" if done else ""
            logger.info("The %g minutes are over: the training ends with epoch %d%s.", self.minutes, state.epoch, after)
            state.max_epochs = state.epoch
            if done:
                trainer.terminate_epoch()

    def _fit_schedule(self, iteration: int, share: float) -> None:
        """Let the schedule expect as many steps as fit into the time, by those so far."""
        if self._planned is not None:
            fitting = self._start_iteration + round((iteration - self._start_iteration) / max(share, 1e-9))
            self._expected = min(self._planned, max(fitting, iteration + 1))
            if hasattr(self.lr_scheduler, "t_total"):
                self.lr_scheduler.t_total = self._expected

    def _set_rate(self, trainer: Any) -> None:
        """Set the rate to that of the epoch that the schedule would be in after this share of its steps."""
        if self._planned and self._expected:
            done = (trainer.state.iteration - 1) * self._planned // (self._expected * trainer.state.epoch_length)
            for group in self.lr_scheduler.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * self.lr_scheduler.gamma**done
