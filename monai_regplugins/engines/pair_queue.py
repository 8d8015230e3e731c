"""Registering many pairs: one that fails does not stop the others, and those done before are not done again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ignite.engine import Events
from monai.data import DataLoader
from torch.utils.data import Subset
from tqdm import tqdm

from monai_regplugins.checks import InputError, input_error_message

__all__ = ["PairQueue"]

logger = logging.getLogger(__name__)

LONGEST_LIST = 5  # pairs named in the closing error


class PairQueue:
    """Run an evaluator on the pairs of its data set, one after the other.

    A pair that cannot be registered is told in one line, and the next one follows. If there was one, :meth:`run` ends
    with an error, after all others are done. Interrupted, it goes on where it was, since the pairs whose results are
    complete are left out.

    Args:
        evaluator: engine that registers a pair and has the handlers that write it; its data loader's data set keeps
            the pairs in ``data``, as MONAI's do.
        is_done: tells whether the results of a pair are there already; None does all pairs.
        on_end: called with the ids of the pairs that have results, when all are done; not for a single pair.
    """

    def __init__(
        self,
        evaluator: Any,
        is_done: Callable[[Mapping[str, Any]], bool] | None = None,
        on_end: Callable[[Sequence[str]], object] | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.is_done = is_done or (lambda pair: False)
        self.on_end = on_end

    def run(self) -> None:
        """Register all pairs.

        Raises:
            InputError: When pairs could not be registered; of a single pair, the error itself.
        """
        whole, state = self.evaluator.data_loader, self.evaluator.state
        pairs: Sequence[Mapping[str, Any]] = whole.dataset.data
        failed: list[str] = []
        length = state.epoch_length
        state.epoch_length = 1  # else each pair is taken as often as there are pairs
        try:
            for index, pair in enumerate(tqdm(pairs, unit="pair", disable=len(pairs) == 1)):
                if len(pairs) > 1 and self.is_done(pair):
                    logger.info("%s is done already", pair["pair_id"])
                    continue
                self.evaluator.data_loader = DataLoader(Subset(whole.dataset, [index]), batch_size=1)
                error = self._register()
                if error is None:
                    continue
                message = input_error_message(error)
                if message is None or len(pairs) == 1 or state.epoch == 0:
                    raise error  # a fault of the program, or what ails all pairs, such as missing weights
                logger.error("%s: %s", pair["pair_id"], message)
                failed.append(pair["pair_id"])
        finally:
            self.evaluator.data_loader, state.epoch_length = whole, length
        done = [pair["pair_id"] for pair in pairs if pair["pair_id"] not in failed]
        if self.on_end is not None and len(pairs) > 1 and done:
            self.on_end(done)
        if failed:
            names = ", ".join(failed[:LONGEST_LIST]) + (", ..." if len(failed) > LONGEST_LIST else "")
            raise InputError(
                f"{len(failed)} of {len(pairs)} pairs failed ({names}), each with its reason above; the others are "
                "done. Correct them and run the same command again, it does only what is missing."
            )

    def _register(self) -> BaseException | None:
        """Run the evaluator; return what it ended with. An engine that an error has passed through cannot run again."""
        errors: list[BaseException] = []
        with self.evaluator.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: errors.append(error)):
            self.evaluator.run()
        return errors[0] if errors else None
