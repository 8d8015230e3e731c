"""When a training validates, and a limit of its time."""

from __future__ import annotations

import logging
import time
from typing import Any

from ignite.engine import Events
from monai.handlers import ValidationHandler

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
    """End a training after some minutes: with the step that exceeds them, its epoch, the last one, is complete.

    The epoch is validated and its weights are written as those of any other last epoch. In a distributed training all
    processes end together.

    Args:
        minutes: the limit, from the start of the run; 0 for none.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._end = 0.0

    def attach(self, trainer: Any) -> None:
        """Follow ``trainer``."""
        if self.minutes > 0:
            trainer.add_event_handler(Events.STARTED, self._start)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._check)

    def _start(self, trainer: Any) -> None:
        self._end = time.monotonic() + 60 * self.minutes

    def _check(self, trainer: Any) -> None:
        state = trainer.state
        if summed(float(time.monotonic() > self._end), state.device) > 0:
            logger.info("The %g minutes are over: the training ends with epoch %d.", self.minutes, state.epoch)
            state.max_epochs = state.epoch
            if state.iteration % state.epoch_length:
                trainer.terminate_epoch()
