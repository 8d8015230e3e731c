"""Batch registration: continue after failed pairs and skip completed ones."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from monai_regplugins.checks import InputError, check_choice, input_error_message
from monai_regplugins.data.pair_list import check_pair_ids
from monai_regplugins.engines.pair_registration import PairRegistration
from monai_regplugins.engines.share import share_of
from monai_regplugins.io.result_folder import remove_leftovers
from monai_regplugins.outputs.registration_writer import RegistrationWriter
from monai_regplugins.outputs.report import RegistrationReport

__all__ = ["BAD", "BatchRunner"]

logger = logging.getLogger(__name__)

LONGEST_LIST = 5  # pairs named in the closing error
BAD = {"fail": ("FAIL",), "warn": ("WARN", "FAIL"), "never": ()}  # verdicts by what fail_on says

Pair = Mapping[str, Any]


class BatchRunner:
    """Register pairs one after the other, and write their results.

    A pair that fails is reported in one line, and the run continues; :meth:`run` raises an error at the end. Pairs with
    complete results are skipped, so an interrupted run can be resumed. Several processes may share a list and an output
    folder: each pair is registered by one of them. Only on a terminal there is a progress bar, and log lines go above
    it. Processes of torchrun begin at different places of the list, and the first one waits for the others and writes
    the report; the others leave errors to it. Results with a bad verdict are written, too; :meth:`run` raises an error
    for them at the end.

    Args:
        register: registers a pair.
        pairs: the pairs as they were given.
        writer: writes the results.
        report: called with the ids of the pairs that have results, and with the errors of the others, when all are
            done; not for a single pair.
        verbose: log the traceback of each error, too.
        fail_on: verdicts of a list that are an error: ``fail``, ``warn``, which is WARN and FAIL, or ``never``. The
            verdict of a single pair is one of the messages.
        shard: ``"i/n"`` registers the i-th of n parts of the list, without a report, see
            :func:`~monai_regplugins.engines.share.share_of`.

    Raises:
        InputError: When ``fail_on`` is another one, or ``shard`` is none.
    """

    def __init__(
        self,
        register: PairRegistration,
        pairs: Sequence[Pair],
        writer: RegistrationWriter,
        report: RegistrationReport | None = None,
        verbose: bool = False,
        fail_on: str = "fail",
        shard: str = "",
    ) -> None:
        check_choice(fail_on, tuple(BAD), "fail_on")
        self.register, self.pairs, self.writer = register, pairs, writer
        self.share = share_of(shard)
        self.report = report if len(pairs) > 1 and self.share.ends else None
        self.verbose, self.fail_on = verbose, fail_on
        self._failed: dict[str, str] = {}

    def run(self) -> None:
        """Register all pairs that are not done.

        Raises:
            InputError: When results may not be written where they should be, before anything is registered; when pairs
                could not be registered, or verdicts are bad, after all others are done; of a single pair, the error
                itself.
        """
        check_pair_ids(self.pairs)
        self.writer.check(self.pairs)
        if self.report is not None:
            self.report.check()
        self.register.prepare()
        remove_leftovers(self.writer.output_dir, [pair["pair_id"] for pair in self.pairs])
        self._failed = {}
        hidden = len(self.pairs) == 1 or self.share.index > 0 or None  # None: without a terminal
        with _what_is_there_stays(), logging_redirect_tqdm():
            bar = tqdm(self.share.order(self.pairs), unit="pair", disable=hidden)
            busy = [pair for pair in bar if not self._take(pair)]
            for pair in busy if self.share.ends else ():  # done by another process, unless that has failed
                self._take(pair, wait=True)
        if self.share.ends or self.share.is_shard:
            self._end(self.share.order(self.pairs))

    def _take(self, pair: Pair, wait: bool = False) -> bool:
        """Register a pair unless it is done; return False if another process is at it."""
        with self.writer.folder(pair).claimed(wait) as mine:
            if not mine:
                logger.info("%s is left to another process", pair["pair_id"])
                return False
            record = self.writer.provenance.describe(pair)
            if len(self.pairs) > 1 and self.writer.folder(pair).is_complete(record["fingerprint"]):
                logger.info("%s is done already", pair["pair_id"])
                return True
            try:
                self.writer.write(self.register(pair), record)
            except Exception as error:
                self._fail(pair, error)
        gc.collect()  # figures refer to themselves; uncollected, they pile up
        return True

    def _fail(self, pair: Pair, error: Exception) -> None:
        """Report a pair that could not be registered; raise the error if it is the only pair."""
        if self.verbose:
            logger.error("%s", pair["pair_id"], exc_info=error)
        message = input_error_message(error) or _unexpected(error)
        if len(self.pairs) == 1:
            raise InputError(message) from error
        logger.error("%s: %s", pair["pair_id"], message)
        self._failed[pair["pair_id"]] = message

    def _end(self, pairs: Sequence[Pair]) -> None:
        """Write the report, and raise an error if pairs have failed or verdicts are bad."""
        done = [pair["pair_id"] for pair in pairs if pair["pair_id"] not in self._failed]
        if self.report is not None and done:
            self.report(done, self._failed)
        problems = []
        if self._failed:
            problems.append(
                f"{len(self._failed)} of {len(pairs)} pairs failed ({_some(self._failed)}), each with its reason "
                "above; the others are done. Correct them and run the same command again, it does only what is missing."
            )
        wanted = BAD[self.fail_on] if len(self.pairs) > 1 else ()
        bad = [name for name in done if wanted and self._verdict(name) in wanted]
        if bad:
            problems.append(
                f"{len(bad)} of {len(pairs)} results are not to be trusted ({_some(bad)}); they are written, and "
                "their metrics.json state the reasons. fail_on=never does not make this an error."
            )
        if problems:
            raise InputError(" ".join(problems))

    def _verdict(self, pair_id: str) -> str:
        """The verdict in a folder of results, empty if there is none."""
        path = self.writer.folder({"pair_id": pair_id}).path / "metrics.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return str(found.get("verdict", ""))


def _some(names: Iterable[str]) -> str:
    """The first names of a list."""
    listed = list(names)
    return ", ".join(listed[:LONGEST_LIST]) + (", ..." if len(listed) > LONGEST_LIST else "")


@contextmanager
def _what_is_there_stays() -> Iterator[None]:
    """Let the garbage collector leave alone what exists already; to look at all of that takes longer than a figure."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _unexpected(error: BaseException) -> str:
    """Phrase an error that no check has foreseen; the innermost one says most."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, MemoryError):
        return "the memory is exhausted; register smaller images, or close other programs."
    text = " ".join(str(error).split())[:300]
    return f"an unexpected error, {type(error).__name__}: {text}; run it again with verbose set to see where it arose."
