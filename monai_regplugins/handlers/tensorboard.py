"""TensorBoard's curves, whose folder is made when there is something to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.handlers import TensorBoardStatsHandler
from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardCurves"]


class TensorBoardCurves(TensorBoardStatsHandler):
    """MONAI's handler without a folder before its first value, so that a training that is refused leaves none.

    Args:
        log_dir: the folder.
        options: of MONAI's handler.
    """

    def __init__(self, log_dir: str | Path, **options: Any) -> None:
        super().__init__(summary_writer=_LateWriter(log_dir), **options)


class _LateWriter:
    """A ``SummaryWriter`` that is made when it is first used."""

    def __init__(self, log_dir: str | Path) -> None:
        self._log_dir = str(log_dir)

    def __getattr__(self, name: str) -> Any:
        self._writer = vars(self).get("_writer") or SummaryWriter(log_dir=self._log_dir)
        return getattr(self._writer, name)
