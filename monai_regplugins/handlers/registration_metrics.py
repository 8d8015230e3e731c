"""Measures of all pairs of an evaluation, their means, and the score that selects the best model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine
from ignite.metrics import Metric

from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.handlers.score import Score, chosen_measure
from monai_regplugins.metrics.measure import OWN, Measure
from monai_regplugins.metrics.pair import mean_metrics, measure_pair
from monai_regplugins.outputs.metric_table import states_of
from monai_regplugins.result import RegistrationResult

__all__ = ["RegistrationMetrics", "score_of"]

DISTANCES = ("tre", "hd", "hd95", "asd", "mae")  # the smaller the better

PairRow = dict[str, Any]  # "pair_id" and the values of monai_regplugins.metrics.pair_metrics


class RegistrationMetrics(Metric):
    """Key metric of a MONAI evaluator: ``key_val_metric={"score": RegistrationMetrics()}``.

    At the end of an evaluation it sets ``engine.state.metrics[<name>]`` to the score, higher is better: the mean of one
    measure over the pairs, negative for a distance; where the pairs lack it that of the overlap, else of the landmark
    error, else of the correlation. ``engine.state.scores[<name>]`` says which one it is, and
    ``engine.state.metrics["<name>_before"]`` is the score of doing nothing, which is that of the aligned pairs where
    they are aligned first. The mean of every measure goes into ``engine.state.metrics`` under its own name, the
    measures of each pair, from all processes, each pair once, into ``engine.state.pair_rows``, and its score into
    ``engine.state.pair_scores``. A score that is not finite, as of a network that diverged, becomes minus infinity: it
    compares with other scores as the worst.

    Pairs that were prepared with ``ResampleToFixedd(keep_original=True)`` are measured as
    :class:`~monai_regplugins.result.RegistrationResult` does, on their original moving images; others, as in a
    training, on the images of the network.

    Args:
        measure: what the score is made of: ``dsc``, ``tre``, ``hd``, ``hd95``, ``asd``, ``mae``, ``ncc`` or one of
            ``own``, as ``own_<name>``.
        labels: labels to compare; by default those that both images of a pair have.
        surface: whether to measure surface distances too, by far the slowest part.
        capture_range: see :func:`~monai_regplugins.metrics.pair_metrics`.
        own: further measures by name, see :class:`~monai_regplugins.metrics.Measure`.
        output_transform: applied to the engine's output, must return a list of items with ``pred`` and ``label``.
    """

    def __init__(
        self,
        measure: str = "dsc",
        labels: Sequence[int] | None = None,
        surface: bool = True,
        capture_range: float | None = None,
        own: Mapping[str, Measure] | None = None,
        output_transform: Callable[[Any], Any] = lambda output: output,
    ) -> None:
        self.own = dict(own or {})
        check_choice(measure, ("dsc", "ncc", *DISTANCES, *(OWN + name for name in self.own)), "measure")
        self.measure, self.labels, self.surface, self.capture_range = measure, labels, surface, capture_range
        super().__init__(output_transform)

    def attach(self, engine: Engine, name: str, *args: Any, **kwargs: Any) -> None:
        """Measure what ``engine`` registers, and note in ``engine.state.measures`` what the score is made of."""
        super().attach(engine, name, *args, **kwargs)
        state: Any = engine.state
        labels = "" if self.labels is None else f" of labels {', '.join(map(str, self.labels))}"
        within = "" if self.capture_range is None else f" within {self.capture_range} mm"
        state.measures = {**getattr(state, "measures", {}), name: f"{self.measure}{labels}{within}"}

    def reset(self) -> None:
        """Forget all pairs."""
        self._rows: list[PairRow] = []

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Measure the pairs of a batch; the engine has to decollate it, which MONAI's do by default."""
        state: Any = engine.state
        self.update(zip(state.batch, self._output_transform(state.output), strict=True))

    def update(self, output: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Measure pairs.

        Args:
            output: for each pair its item of the batch, with ``pair_id``, and its item of the engine's output.

        Raises:
            InputError: When a pair has no ``pair_id``.
        """
        for item, result in output:
            if "pair_id" not in item:
                raise InputError(f"a pair has only the keys {', '.join(item)}; each needs a 'pair_id', a unique name.")
            options = self.labels, self.surface, self.capture_range
            whole = "moving_original" in item  # then the measures are those of what an inference writes
            if whole:
                values = RegistrationResult(item, result, own=self.own).measure(*options)
            else:
                values = measure_pair(result, *options, own=self.own)
            self._rows.append({"pair_id": item["pair_id"], **values})

    def compute(self) -> list[PairRow]:
        """Return the rows of all processes, each pair once: samplers repeat pairs to give every process as many."""
        gathered = [self._rows]
        if dist.is_available() and dist.is_initialized():
            gathered = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(gathered, self._rows)
        return list({row["pair_id"]: row for rows in gathered for row in rows}.values())

    def completed(self, engine: Engine, name: str) -> None:
        """Put score, means and rows into the state of ``engine``."""
        state: Any = engine.state
        state.pair_rows = self.compute()
        means = mean_metrics(state.pair_rows)
        state.metrics.update(means)
        start = [_without_registration(row) for row in state.pair_rows]
        measure = chosen_measure(means, self.measure)
        distances = {*DISTANCES, *(OWN + key for key, own in self.own.items() if own.smaller_is_better)}
        state.metrics[f"{name}_before"] = score_of(start, mean_metrics(start), measure, "_before", distances)
        state.metrics[name] = score_of(state.pair_rows, means, measure, distances=distances)
        title = measure.removeprefix(OWN) if measure.startswith(OWN) else measure.upper()
        sign = -1 if measure in distances else 1
        score = Score(title, " mm" * (measure in DISTANCES), sign, states_of(state.pair_rows)[-2])
        state.scores = {**getattr(state, "scores", {}), name: score}
        state.pair_scores = {row["pair_id"]: score.sign * row.get(measure, math.nan) for row in state.pair_rows}


def _without_registration(row: PairRow) -> PairRow:
    """The measures of a pair whose state before the registration is that after the initial alignment, if any."""
    aligned = {name: value for name, value in row.items() if "_aligned" in name}
    return row | {name.replace("_aligned", "_before"): value for name, value in aligned.items()}


def _is_lost(row: PairRow, name: str, before: str) -> bool:
    """Whether a measure is not finite any more."""
    return math.isfinite(row.get(before, math.nan)) and not math.isfinite(row.get(name, math.nan))


def score_of(
    rows: Sequence[PairRow],
    means: Mapping[str, float],
    measure: str = "dsc",
    suffix: str = "",
    distances: Collection[str] = DISTANCES,
) -> float:
    """Return the mean of a measure, negative for a distance; minus infinity if not finite.

    A measure that a pair had before the registration and has lost, as by a field that is not finite, is not finite.

    Args:
        rows: the measures of each pair.
        means: their means.
        measure: what the score is made of; of the correlation, one pair that is not finite makes the mean so.
        suffix: ``"_before"`` for the score of doing nothing.
        distances: measures that are the better the smaller they are.
    """
    if any(_is_lost(row, measure + suffix, f"{measure}_before") for row in rows):
        score = math.nan
    elif measure != "ncc":
        score = -means[measure + suffix] if measure in distances else means[measure + suffix]
    else:
        score = sum(row["ncc" + suffix] for row in rows) / len(rows) if rows else math.nan
    return score if math.isfinite(score) else -math.inf
