"""Register one pair with an evaluator."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ignite.engine import Events
from monai.data import DataLoader, Dataset

from monai_regplugins.metrics.measure import Measure
from monai_regplugins.result import RegistrationResult

__all__ = ["PairRegistration"]


class PairRegistration:
    """Prepare a pair, run an evaluator on it, and return the result.

    Args:
        evaluator: engine that registers a batch of prepared pairs, decollated, as MONAI's do.
        preprocessing: transform that prepares a pair.
        weights: loads the weights of the evaluator's network, see :meth:`prepare`; None if they are there.
        one_patient: whether the network is made for two images of one patient, for the verdict.
        own: further measures by name, see :class:`~monai_regplugins.metrics.Measure`.
    """

    def __init__(
        self,
        evaluator: Any,
        preprocessing: Any,
        weights: Callable[[Any], object] | None = None,
        one_patient: bool = False,
        own: Mapping[str, Measure] | None = None,
    ) -> None:
        self.evaluator, self.preprocessing, self.weights = evaluator, preprocessing, weights
        self.one_patient, self.own = one_patient, own
        self._start, self._found = 0.0, dict[str, Any]()
        evaluator.add_event_handler(Events.ITERATION_STARTED, self._begin)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._keep)

    def prepare(self) -> None:
        """Load the weights, unless that has been done.

        Raises:
            InputError: When they are missing or do not fit.
        """
        if self.weights is not None:
            self.weights(self.evaluator)
            self.weights = None

    def __call__(self, pair: Mapping[str, Any]) -> RegistrationResult:
        """Register a pair.

        Args:
            pair: as it was given.

        Raises:
            BaseException: What transforms, network or handlers raise, wrapped as MONAI does it.
        """
        self.prepare()
        self.evaluator.data_loader = DataLoader(Dataset([pair], self.preprocessing), batch_size=1)
        self.evaluator.state.epoch_length = 1
        errors: list[BaseException] = []
        # with a handler of errors an engine can be run again after one
        with self.evaluator.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: errors.append(error)):
            self.evaluator.run()
        if errors:
            raise errors[0]
        self.evaluator.state.batch = self.evaluator.state.output = None  # else they stay until the next pair is made
        found, self._found = self._found, {}
        return RegistrationResult(**found, given=pair, one_patient=self.one_patient, own=self.own)

    def _begin(self, engine: Any) -> None:
        self._start = time.perf_counter()

    def _keep(self, engine: Any) -> None:
        """Take the result of the one pair of a batch."""
        (item,), (output,) = engine.state.batch, engine.state.output
        self._found = {"item": item, "output": output, "seconds": time.perf_counter() - self._start}
