"""Registration of the phases of a series, each from the field of the one before it, averaged over the cycle."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.engines.pair_registration import PairRegistration
from monai_regplugins.result import RegistrationResult
from monai_regplugins.series.phases import PhaseChain, PhaseSeries

__all__ = ["SeriesRegistration", "average_cycle", "cycle_weights"]

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

SLAB = 2**22  # numbers that are averaged at a time


class SeriesRegistration:
    """Register phases onto their reference along the cycle.

    All phases are registered before the first result is returned: the first one of a chain from the beginning, each
    other one from the field of the phase before it, see :class:`~monai_regplugins.inferers.WarmInferer`. The fields
    wait in a temporary file, in which those of a cycle are averaged over time, see :func:`average_cycle`. Each phase is
    then prepared once more, and measured with its field. At no time are there more than one phase's images in memory.

    A phase that fails does so alone: the next one begins at the last field that there is, and nothing is averaged.

    Args:
        register: registers a pair; ``start`` in it is the field to begin at, and ``start_steps`` says for how long.
        series: the phases.
        steps: maximum number of steps per level from the field of the previous phase.
        harmonics: of the cycle that the motion has; 0 does not average. Series of up to ``2 * harmonics + 1`` phases,
            and those that are no cycle, are not averaged.

    Raises:
        InputError: When ``steps`` is below 1 or ``harmonics`` below 0.
    """

    def __init__(self, register: PairRegistration, series: PhaseSeries, steps: int = 15, harmonics: int = 2) -> None:
        if steps < 1 or harmonics < 0:
            raise InputError(
                f"warm_steps is {steps} and harmonics is {harmonics}, expected steps from 1 on and harmonics from 0 on."
            )
        self.register, self.series, self.steps, self.harmonics = register, series, steps, harmonics
        self._folder: Path | None = None
        self._fields: dict[str, Path] = {}
        self._seconds: dict[str, float] = {}
        self._errors: dict[str, Exception] = {}

    def prepare(self) -> None:
        """Load the weights, see :meth:`PairRegistration.prepare`."""
        self.register.prepare()

    def __call__(self, pair: Mapping[str, Any]) -> RegistrationResult:
        """Register a phase.

        Args:
            pair: one of the series.

        Raises:
            Exception: What :class:`PairRegistration` raised for this phase.
        """
        if self._folder is None:
            self._find_fields()
        name = str(pair["pair_id"])
        if name in self._errors:
            raise self._errors[name]
        result = self.register({**pair, "start": torch.from_numpy(np.load(self._fields[name])), "start_steps": 0})
        result.seconds += self._seconds[name]
        return result

    def _find_fields(self) -> None:
        """Register all phases, and average them."""
        self._folder = Path(tempfile.mkdtemp(prefix="series_"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        for chain in self.series.chains:
            self._follow(chain, self._folder)
        first = self.series.chains[0]
        count = len(self.series.names)
        if first.closed and self.harmonics and count > 2 * self.harmonics + 1 and not self._errors:
            files = [self._fields[pair["pair_id"]] for pair in first.pairs]
            average_cycle(files, self.harmonics)
            logger.info("averaged the fields over the cycle, %d harmonics of %d phases", self.harmonics, count)

    def _follow(self, chain: PhaseChain, folder: Path) -> None:
        """Register the phases of a chain, and keep their fields in a folder."""
        start: dict[str, Any] = {}
        for pair in chain.pairs:
            name, begin = pair["pair_id"], time.perf_counter()
            try:
                ddf = self.register({**pair, **start}).ddf
            except Exception as error:
                self._errors[name] = error
                continue
            start = {"start": ddf, "start_steps": self.steps}
            self._seconds[name] = time.perf_counter() - begin
            self._fields[name] = folder / f"{len(self._fields)}.npy"
            np.save(self._fields[name], ddf.numpy())


def average_cycle(files: list[Path], harmonics: int) -> None:
    r"""Average the fields of a cycle over time, in their files, slab by slab.

    The displacement of each voxel over the phases, the reference among them, becomes the trigonometric polynomial

    .. math::
        u_t = \sum_{k=0}^{K} a_k \cos(2 \pi k t / T) + b_k \sin(2 \pi k t / T)

    that fits it best, less its value at the reference, which does not move. A breath or a heart beat has few harmonics,
    while the errors of separate registrations have all of them.

    Args:
        files: NumPy files of the phases after the reference in the order of time, float32 ``(d, *spatial)``; they are
            changed.
        harmonics: K.
    """
    weights = cycle_weights(len(files) + 1, harmonics)[1:, 1:]  # the reference, 0, neither moves nor contributes
    maps = [np.load(file, mmap_mode="r+").reshape(-1) for file in files]
    step = max(1, SLAB // len(maps))
    for begin in range(0, maps[0].size, step):
        part = slice(begin, begin + step)
        averaged = weights @ np.stack([one[part] for one in maps])
        for one, values in zip(maps, averaged, strict=True):
            one[part] = values


def cycle_weights(count: int, harmonics: int) -> Array:
    """Weights (T, T) by which the values of T phases are averaged over a cycle, see :func:`average_cycle`.

    Args:
        count: T.
        harmonics: of the trigonometric polynomial.

    Example:
        >>> time = 2 * np.pi * np.arange(10) / 10
        >>> bool(np.allclose(cycle_weights(10, 2) @ (1 - np.cos(time)), 1 - np.cos(time)))
        True
    """
    lag = np.arange(count)[:, None] - np.arange(count)
    angles = 2 * np.pi * lag[None] * np.arange(1, harmonics + 1)[:, None, None] / count
    kernel = (1 + 2 * np.cos(angles).sum(axis=0)) / count
    return np.asarray(kernel - kernel[:1])
