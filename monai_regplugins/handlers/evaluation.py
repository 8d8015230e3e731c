"""Handlers of an evaluation: weights, the table of measures, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from monai_regplugins.handlers.checkpoint import WeightsLoader
from monai_regplugins.handlers.figures import FieldFigure, PairFigure
from monai_regplugins.outputs.metric_table import MetricTable

__all__ = ["evaluation_handlers"]


def evaluation_handlers(
    network: nn.Module, ckpt: str | Path, eval_dir: str | Path, figures: int, field: bool = False
) -> list[Any]:
    """Return the handlers of an evaluation: load the weights, write ``evaluation.csv`` and pictures.

    Args:
        network: the network.
        ckpt: its weights.
        eval_dir: folder of ``evaluation.csv`` and ``evaluation.png``.
        figures: number of pairs to draw.
        field: whether ``evaluation_field.png`` compares the first field with its ground truth.

    Example:
        >>> [type(handler).__name__ for handler in evaluation_handlers(nn.Identity(), "model.pt", "eval", 3)]
        ['WeightsLoader', 'MetricTable', 'PairFigure']
    """
    folder = Path(eval_dir)
    handlers: list[Any] = [
        WeightsLoader(network, ckpt),
        MetricTable(folder / "evaluation.csv"),
        PairFigure(folder / "evaluation.png", max_pairs=figures),
    ]
    return [*handlers, FieldFigure(folder / "evaluation_field.png")] if field else handlers
