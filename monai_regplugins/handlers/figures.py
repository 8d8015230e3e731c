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

    Args:
        path: the PNG file of the first pair; further ones get ``_2``, ``_3``, ... before the suffix.
        interval: draw in every so many evaluations, beginning with the first.
        max_pairs: number of pairs.
    """

    def __init__(self, path: str | Path, interval: int = 1, max_pairs: int = 1) -> None:
        super().__init__(path)
        self.interval, self.max_pairs = interval, max_pairs
        self._evaluations, self._drawn = 0, 0

    def _begin(self, engine: Any) -> None:
        self._drawn = 0 if self._evaluations % self.interval == 0 else self.max_pairs
        self._evaluations += 1

    def _draw(self, engine: Any) -> None:
        left = self.max_pairs - self._drawn
        for item, output in list(zip(engine.state.batch, engine.state.output, strict=True))[:left]:
            self._drawn += 1
            suffix = f"_{self._drawn}" if self._drawn > 1 else ""
            save_figure(self.path.with_stem(self.path.stem + suffix), draw_pair(item, output))


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
