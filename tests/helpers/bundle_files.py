"""What the tests of all bundles read: configurations, results, tables, weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events


class Killed(BaseException):
    """Stands for the end of the process at this very moment."""


def killed_in_second_epoch(workflow: Any, output_dir: Path) -> Path:
    """Run a training that dies as its second epoch starts, and return its checkpoint, that of the first."""

    def die() -> None:
        raise Killed

    workflow.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), die)
    with pytest.raises(Killed):
        workflow.run()
    path = output_dir / "models" / "checkpoint.pt"
    assert read_weights(path)["trainer"]["epoch"] == 1
    return path


def predictions(workflow: Any) -> list[dict[str, torch.Tensor]]:
    """Return a list that gets what the evaluator of a workflow predicts for each pair, while it runs."""
    found: list[dict[str, torch.Tensor]] = []
    engine = workflow.evaluator
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: found.extend(one["pred"] for one in engine.state.output)
    )
    return found


def configs(bundle: Path, *names: str) -> list[Path]:
    """Name configuration files of a bundle."""
    return [bundle / "configs" / f"{name}.json" for name in names]


def files_of(folder: Path) -> list[str]:
    """Name all files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def read_weights(path: Path) -> dict[str, Any]:
    """Read a model or a checkpoint."""
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def table(path: Path, key: str = "pair_id") -> dict[str, dict[str, str]]:
    """Read a table, its rows by one of their cells."""
    with path.open(newline="") as stream:
        return {row[key]: row for row in csv.DictReader(stream)}
