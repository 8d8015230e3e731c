"""When a training validates, and how it ends by time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from monai_regplugins.handlers import Checkpointing, TimeLimit, Validation, validation


def validated(training: Any, *handlers: Any) -> list[int]:
    """Run a training with these handlers and return the epochs that were validated."""
    epochs: list[int] = []
    training.evaluator.add_event_handler("COMPLETED", lambda engine: epochs.append(engine.state.epoch))
    for handler in handlers:
        handler.attach(training.trainer)
    training.trainer.run()
    return epochs


@pytest.mark.parametrize(("interval", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_the_last_epoch_is_validated(make_training: Any, interval: int, epochs: list[int]) -> None:
    training = make_training(max_epochs=5, interval=100)
    assert validated(training, Validation(interval, training.evaluator)) == epochs


@pytest.mark.parametrize(("steps", "epoch", "iterations"), [(4, 2, 4), (6, 2, 6)])
def test_the_limit_ends_it_with_weights(
    make_training: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: int, epoch: int, iterations: int
) -> None:
    """Each look at the clock takes a minute: three steps are an epoch, so the limit falls within or at its end."""
    clock = iter(range(0, 6000, 60))
    monkeypatch.setattr(validation.time, "monotonic", lambda: next(clock))
    training = make_training(max_epochs=9, interval=100)
    saver = Checkpointing(tmp_path, training.network, training.optimizer, training.scheduler)
    saver.attach(training.trainer, training.evaluator)
    epochs = validated(training, Validation(4, training.evaluator), TimeLimit(steps - 0.5))
    assert (training.trainer.state.iteration, epochs) == (iterations, [epoch])
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["trainer"]["epoch"] == epoch
    assert any((tmp_path / name).exists() for name in ("model.pt", "model_last.pt"))


def test_no_limit(make_training: Any) -> None:
    training = make_training(max_epochs=2)
    validated(training, TimeLimit(0))
    assert training.trainer.state.epoch == 2
