"""Handlers of an evaluation that draw its pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ignite.engine import Events

from monai_regplugins.figures.field import draw_field
from monai_regplugins.figures.pair import draw_pair
from monai_regplugins.figures.png import save_figure
from monai_regplugins.io.result_folder import check_result
from monai_regplugins.metrics.pair import true_field

__all__ = ["FieldFigure", "PairFigure"]


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
    """Save pictures of the first pairs of an evaluation, see :func:`~monai_regplugins.figures.pair_figure`.

    They show the measures of :class:`RegistrationMetrics` where that is on the same engine, so those of its table.

    Args:
        path: the PNG file of the first pair; further ones get ``_2``, ``_3``, ... before the suffix.
        interval: draw in every so many evaluations, beginning with the first.
        max_pairs: number of pairs.
    """

    def __init__(self, path: str | Path, interval: int = 1, max_pairs: int = 1) -> None:
        super().__init__(path)
        self.interval, self.max_pairs = interval, max_pairs
        self._evaluations = 0
        self._left = 0
        self._pairs: list[tuple[Any, Any]] = []

    def attach(self, engine: Any) -> None:
        """Follow the evaluations of ``engine``; only its first process draws, when all pairs are measured."""
        super().attach(engine)
        if engine.state.rank == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _begin(self, engine: Any) -> None:
        self._pairs = []
        self._left = self.max_pairs if self._evaluations % self.interval == 0 else 0
        self._evaluations += 1

    def _draw(self, engine: Any) -> None:
        taken = list(zip(engine.state.batch, engine.state.output, strict=True))[: self._left]
        self._pairs += taken
        self._left -= len(taken)

    def _save(self, engine: Any) -> None:
        measured = {row["pair_id"]: row for row in getattr(engine.state, "pair_rows", ())}
        for number, (item, output) in enumerate(self._pairs, start=1):
            suffix = f"_{number}" if number > 1 else ""
            picture = draw_pair(item, output, measured.get(item.get("pair_id")), judged=False)
            save_figure(self.path.with_stem(self.path.stem + suffix), picture)
        self._pairs = []


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
