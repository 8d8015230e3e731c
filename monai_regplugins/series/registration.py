"""Registration of the phases of a series, each from the field of the one before it, averaged over time."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.engines.pair_registration import PairRegistration
from monai_regplugins.result import RegistrationResult
from monai_regplugins.series.phases import Chain, PhaseSeries

__all__ = ["SeriesRegistration", "averaged"]

REACH = 2  # phases before and after that a field is averaged with
WEIGHTS = (-3 / 35, 12 / 35, 17 / 35, 12 / 35, -3 / 35)


class SeriesRegistration:
    """Register phases onto their reference along the cycle.

    The first phase of a chain is registered from the beginning, each other one from the field of the phase before it,
    see :class:`~monai_regplugins.inferers.WarmInferer`. What is returned is averaged over time, see :func:`averaged`.
    Beside the fields of five phases and the images of three nothing is kept. A phase that is asked for out of order is
    reached from the beginning of its chain, so that each result is the same in any order.

    Args:
        register: registers a pair; ``start`` in it is the field to begin at.
        series: the phases.
        average: whether to average over time.
    """

    def __init__(self, register: PairRegistration, series: PhaseSeries, average: bool = True) -> None:
        self.register, self.average = register, average
        self._places = {
            pair["pair_id"]: (chain, index) for chain in series.chains for index, pair in enumerate(chain.pairs)
        }
        self._chain: Chain | None = None
        self._begin(None)

    def _begin(self, chain: Chain | None) -> None:
        """Forget everything, and begin a chain."""
        self._chain, self._next = chain, 0
        self._ddf: dict[int, Tensor] = {}
        self._results: dict[int, RegistrationResult | Exception] = {}

    def prepare(self) -> None:
        """Load the weights, see :meth:`PairRegistration.prepare`."""
        self.register.prepare()

    def __call__(self, pair: Mapping[str, Any]) -> RegistrationResult:
        """Register a phase.

        Args:
            pair: one of the series.

        Raises:
            Exception: What :class:`PairRegistration` raised for this phase; the others go on without it.
        """
        chain, index = self._places[pair["pair_id"]]
        if chain is not self._chain or (index not in self._results and index < self._next):
            self._begin(chain)
        ahead = index + REACH if self.average else index
        while self._next <= min(ahead, len(chain.pairs) - 1):
            self._go_on(chain, self._next)
        result = self._results[index]
        self._forget_before(index)
        if isinstance(result, Exception):
            raise result
        return _with_field(result, averaged(self._ddf, index, chain)) if self.average else result

    def _go_on(self, chain: Chain, number: int) -> None:
        """Register the next phase of a chain, from the last field that there is."""
        start = {"start": self._ddf[max(self._ddf)]} if self._ddf else {}
        self._next = number + 1
        try:
            result = self.register({**chain.pairs[number], **start})
        except Exception as error:
            self._results[number] = error
            return
        self._ddf[number], self._results[number] = result.ddf, result
        self._forget_before(number - REACH)

    def _forget_before(self, index: int) -> None:
        """Drop results before a phase, and fields that its average does not need; the last field stays."""
        self._results = {n: one for n, one in self._results.items() if n >= index}
        last = max(self._ddf, default=0)
        self._ddf = {n: ddf for n, ddf in self._ddf.items() if n >= index - REACH or n == last}


def averaged(ddf: Mapping[int, Tensor], index: int, chain: Chain) -> Tensor:
    r"""The field of a phase averaged over time: the value of the parabola that fits five phases best.

    ``(-3 u_{t-2} + 12 u_{t-1} + 17 u_t + 12 u_{t+1} - 3 u_{t+2}) / 35``

    (Savitzky and Golay 1964, Anal. Chem. 36, 1627): motion that is a parabola over five phases stays as it is, while
    the variance of what is independent from phase to phase becomes 17/35 of what it was. The reference does not move. A
    phase that has no two neighbors on either side stays as it is.

    Args:
        ddf: fields of a chain by number, ``(d, *spatial)``.
        index: the phase.
        chain: the chain.

    Example:
        >>> chain = Chain(({}, {}, {}), closed=True)
        >>> [float(averaged({0: torch.ones(1), 1: torch.tensor([1.5]), 2: torch.ones(1)}, 1, chain))]
        [1.4142857789993286]
    """
    count = len(chain.pairs)
    around = range(index - REACH, index + REACH + 1)
    has_all = all(n in ddf for n in around if 0 <= n < count)
    if not has_all or around[0] < -1 or around[-1] > (count if chain.closed else count - 1):
        return ddf[index]
    mean = torch.zeros_like(ddf[index])
    for weight, number in zip(WEIGHTS, around, strict=True):
        if 0 <= number < count:
            mean.add_(ddf[number], alpha=weight)
    return mean


def _with_field(result: RegistrationResult, ddf: Tensor) -> RegistrationResult:
    """A result of which nothing was asked for yet, with another field."""
    other = copy.copy(result)
    warped = fields.warp(result.targets["moving"][None], ddf[None], padding="border")[0]
    other.pred = {**result.pred, "ddf": ddf, "warped": warped}
    return other
