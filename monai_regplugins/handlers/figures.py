"""Handlers of an evaluation that draw its pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Events
from matplotlib.figure import Figure
from torch import Tensor

from monai_regplugins.figures.field import draw_field
from monai_regplugins.figures.pair import draw_pair
from monai_regplugins.figures.png import save_figure
from monai_regplugins.io.result_folder import check_result
from monai_regplugins.metrics.pair import true_field
from monai_regplugins.result import RegistrationResult

__all__ = ["FieldFigure", "PairFigure"]

KEPT = 2**30  # bytes of pairs until all are measured


class _Drawing:
    """Draws what an evaluation has registered into a file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def attach(self, engine: Any) -> None:
        """Follow the evaluations of ``engine``; only its first process draws."""
        if engine.state.rank == 0:
            check_result(self.path)
            engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._draw)

    def _begin(self, engine: Any) -> None:
        raise NotImplementedError

    def _draw(self, engine: Any) -> None:
        raise NotImplementedError


class PairFigure(_Drawing):
    """Save pictures of the best, the median and the worst pair of an evaluation by their scores, which they state.

    They show the measures of :class:`RegistrationMetrics` where that is on the same engine, so those of its table, and
    of pairs that were prepared with ``ResampleToFixedd(keep_original=True)`` what an inference shows. Pairs are kept
    for it up to a GiB; of more data the pictures are of the first pairs.

    Args:
        path: the PNG file of the best pair; further ones get ``_2``, ``_3``, ... before the suffix.
        interval: draw in every so many evaluations, beginning with the first.
        max_pairs: number of pairs, evenly spaced in the order of their scores; a single one is the median.
    """

    def __init__(self, path: str | Path, interval: int = 1, max_pairs: int = 3) -> None:
        super().__init__(path)
        self.interval, self.max_pairs = interval, max_pairs
        self._evaluations = 0
        self._room = 0
        self._pairs: list[tuple[Any, Any]] = []
        self._passed_over = False

    def attach(self, engine: Any) -> None:
        """Follow the evaluations of ``engine``; only its first process draws, when all pairs are measured."""
        super().attach(engine)
        if engine.state.rank == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _begin(self, engine: Any) -> None:
        self._pairs, self._passed_over = [], False
        self._room = KEPT if self.max_pairs and self._evaluations % self.interval == 0 else 0
        self._evaluations += 1

    def _draw(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            if self._room > 0:
                kept = {part: _on_cpu(values) for part, values in output.items() if part in ("pred", "label")}
                self._pairs.append((item, kept))
                self._room -= _size(item, *kept.values())
            else:
                self._passed_over = True

    def _save(self, engine: Any) -> None:
        measured = {row["pair_id"]: row for row in getattr(engine.state, "pair_rows", ())}
        scores = getattr(engine.state, "pair_scores", {})
        score = {name: value for name, value in scores.items() if not math.isnan(value)}
        self._pairs.sort(key=lambda pair: -score.get(pair[0].get("pair_id"), -math.inf))
        count = len(self._pairs)
        by = "".join(f" by {one.title}" for one in list(getattr(engine.state, "scores", {}).values())[:1])
        among = f"of {'the first ' * self._passed_over}{count} pairs{by}"
        for number, rank in enumerate(_ranks(count, self.max_pairs), start=1):
            suffix = f"_{number}" if number > 1 else ""
            item, output = self._pairs[rank]
            note = f", {_place(rank, count)} {among}" if count > 1 else ""
            picture = _picture(item, output, measured.get(item.get("pair_id")), note)
            save_figure(self.path.with_stem(self.path.stem + suffix), picture)
        self._pairs = []


def _picture(
    item: Mapping[str, Any], output: Mapping[str, Any], metrics: Mapping[str, float] | None, note: str
) -> Figure:
    """Draw a pair, by its original images if it has them, as an inference does."""
    if "moving_original" not in item:
        return draw_pair(item, output, metrics, judged=False, note=note)
    result = RegistrationResult(item, output)
    return result.drawn(result.measure() if metrics is None else metrics, judged=False, note=note)


def _size(*parts: Mapping[str, Any]) -> int:
    """The bytes of the tensors among some values, each of which counts once."""
    tensors = (value for part in parts for value in part.values() if isinstance(value, Tensor))
    return sum({value.data_ptr(): value.nbytes for value in tensors}.values())


def _on_cpu(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors among some values, on the CPU."""
    return {key: value.cpu() for key, value in values.items() if isinstance(value, Tensor)}


def _ranks(count: int, wanted: int) -> list[int]:
    """Return evenly spaced ranks, the first and the last among them, or the middle one."""
    if min(count, wanted) < 2:
        return [(count - 1) // 2][: min(count, wanted)]
    return list(dict.fromkeys(round((count - 1) * number / (wanted - 1) - 0.01) for number in range(wanted)))


def _place(rank: int, count: int) -> str:
    """Name a rank."""
    return {(count - 1) // 2: "median", 0: "best", count - 1: "worst"}.get(rank, f"number {rank + 1}")


class FieldFigure(_Drawing):
    """Save a :func:`~monai_regplugins.figures.field_figure` of the first pair whose true field is known.

    Args:
        path: the PNG file.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._drawn = False

    def _begin(self, engine: Any) -> None:
        self._drawn = False

    def _draw(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            if not self._drawn and true_field(output["label"]) is not None:
                save_figure(self.path, draw_field(item, output))
                self._drawn = True
