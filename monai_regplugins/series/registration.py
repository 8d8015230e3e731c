"""Registration of the phases of a series, each from the field of the one before it, averaged over the cycle."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import Transform

from monai_regplugins.checks import InputError
from monai_regplugins.engines.pair_registration import PairRegistration
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.io.provenance import Provenance
from monai_regplugins.result import RegistrationResult
from monai_regplugins.series.phases import PhaseChain, PhaseSeries
from monai_regplugins.transforms.warp_original import field_of_total

__all__ = ["FIELDS", "BeginAtFieldd", "SeriesRegistration", "average", "cycle_weights", "remove_fields"]

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

FIELDS = ".series_fields"  # folder, beside those of the phases, of the fields that are not averaged yet
START = "start"


class SeriesRegistration:
    """Register phases onto their reference along the cycle.

    All phases are registered before the first result is returned: the first one of a chain from the beginning, each
    other one from the displacement of the phase before it, see :class:`~monai_regplugins.inferers.WarmInferer`. The
    fields wait in files, so that an interrupted series goes on where it was, and those of a cycle are averaged over
    time, see :func:`average`. Each phase is then prepared once more, and measured with its field. At no time are there
    more than one phase's images in memory.

    A phase that fails does so alone: the next one begins at the last field that there is, and nothing is averaged. Nor
    is it where the phases' initial alignments differ, which is no motion of the cycle.

    Args:
        register: registers a pair; ``start`` in it is the total displacement to begin at, see :class:`BeginAtFieldd`,
            and ``start_steps`` says for how long.
        series: the phases.
        output_dir: folder of the phases' folders; the fields wait in its folder ``.series_fields``, which
            :class:`~monai_regplugins.series.SeriesReport` removes.
        steps: maximum number of steps per level from the field of the previous phase.
        harmonics: of the cycle that the motion has; 0 does not average. Series of up to ``2 * harmonics + 1`` phases,
            and those that are no cycle, are not averaged.
        provenance: states which field is of the same images, weights and settings.

    Raises:
        InputError: When ``steps`` is below 1 or ``harmonics`` below 0.
    """

    def __init__(
        self,
        register: PairRegistration,
        series: PhaseSeries,
        output_dir: str | Path,
        steps: int = 6,
        harmonics: int = 2,
        provenance: Provenance | None = None,
    ) -> None:
        if steps < 1 or harmonics < 0:
            raise InputError(
                f"warm_steps is {steps} and harmonics is {harmonics}, expected steps from 1 on and harmonics from 0 on."
            )
        self.register, self.series, self.steps, self.harmonics = register, series, steps, harmonics
        self.folder, self.provenance = Path(output_dir, FIELDS), provenance or Provenance()
        self._files: dict[str, Path] = {}
        self._seconds: dict[str, float] = {}
        self._errors: dict[str, Exception] = {}
        self._weights: dict[str, Array] = {}

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
        if not (self._files or self._errors):
            self._find_fields()
        name = str(pair["pair_id"])
        if name in self._errors:
            raise self._errors[name]
        result = self.register({**pair, START: torch.from_numpy(self._field(name)), "start_steps": 0})
        result.seconds += self._seconds.get(name, 0.0)
        return result

    def _field(self, name: str) -> Array:
        """The displacement of a phase, averaged if the others say something of it."""
        if name not in self._weights:
            return _read(self._files[name])
        return average([self._files[pair["pair_id"]] for pair in self.series.chains[0].pairs], self._weights[name])

    def _find_fields(self) -> None:
        """Register all phases, and find how they are averaged."""
        for chain in self.series.chains:
            self._follow(chain)
        first, count = self.series.chains[0], len(self.series.names)
        if not first.closed or not self.harmonics or count <= 2 * self.harmonics + 1 or self._errors:
            return
        if not self._is_aligned_once():
            logger.warning("the fields are not averaged over the cycle: the initial alignment differs between phases")
            return
        weights = cycle_weights(count, self.harmonics)[1:, 1:]  # the reference, 0, neither moves nor contributes
        self._weights = {pair["pair_id"]: row for pair, row in zip(first.pairs, weights, strict=True)}
        logger.info("the fields are averaged over the cycle, %d harmonics of %d phases", self.harmonics, count)

    def _is_aligned_once(self) -> bool:
        """Whether the initial alignment of all phases is the same."""
        first, *others = (_read(file, "alignment") for file in self._files.values())
        return all(np.allclose(first, other, atol=1e-4) for other in others)

    def _follow(self, chain: PhaseChain) -> None:
        """Register the phases of a chain that have no field yet."""
        start, known = dict[str, Any](), ""
        for pair in chain.pairs:
            name = pair["pair_id"]
            known = hashlib.sha256((known + self.provenance.describe(pair)["fingerprint"]).encode()).hexdigest()
            file = self.folder / f"{name}.{known[:16]}.npz"
            try:
                if not file.is_file():
                    self._register({**pair, **start}, file)
            except Exception as error:
                self._errors[name] = error
                continue
            self._files[name] = file
            start = {START: torch.from_numpy(_read(file)), "start_steps": self.steps}

    def _register(self, pair: Mapping[str, Any], file: Path) -> None:
        """Register a phase, and keep its displacement and its initial alignment in a file."""
        begin = time.perf_counter()
        result = self.register(pair)
        self._seconds[pair["pair_id"]] = time.perf_counter() - begin
        found = {"displacement": result.displacement.numpy(), "alignment": result.item["initial_alignment_matrix"]}
        replace_file(file, lambda temporary: np.savez(temporary, **found))


class BeginAtFieldd(Transform):
    """Turn the ``start`` of a prepared pair, a total displacement, into the field that it is after the alignment.

    Phases whose initial alignments differ can so begin at each other's displacement. A pair without ``start`` stays as
    it is.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the pair with the field, ``(d, *fixed)``, voxels.

        Args:
            data: prepared pair; ``start`` is ``(d, *fixed)``, mm in RAS.
        """
        pair = dict(data)
        if START in pair:
            pair[START] = field_of_total(pair[START], pair["fixed"].affine, pair["initial_alignment_matrix"])
        return pair


def remove_fields(output_dir: str | Path) -> None:
    """Remove the files in which fields of a series have waited."""
    folder = Path(output_dir, FIELDS)
    for file in folder.glob(f"*.{'[0-9a-f]' * 16}.npz"):
        file.unlink()
    with suppress(OSError):  # not there, or with files of someone else
        folder.rmdir()


def _read(file: Path, name: str = "displacement") -> Array:
    """An array of a file."""
    with np.load(file) as content:
        found: Array = content[name]
        return found


def average(files: Sequence[Path], weights: Array) -> Array:
    r"""Weighted sum of the displacements of phases, which are read one after the other.

    With a row of :func:`cycle_weights` the displacement of each voxel over the phases, the reference among them,
    becomes the trigonometric polynomial

    .. math::
        u_t = \sum_{k=0}^{K} a_k \cos(2 \pi k t / T) + b_k \sin(2 \pi k t / T)

    that fits it best, less its value at the reference, which does not move. A breath or a heart beat has few harmonics,
    while the errors of separate registrations have all of them.

    Args:
        files: of the phases after the reference in the order of time.
        weights: of each, ``(T - 1,)``.
    """
    total: Array = np.float32(weights[0]) * _read(files[0])
    for file, weight in zip(files[1:], weights[1:], strict=True):
        total += np.float32(weight) * _read(file)
    return total


def cycle_weights(count: int, harmonics: int) -> Array:
    """Weights (T, T) by which the values of T phases are averaged over a cycle, see :func:`average`.

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
