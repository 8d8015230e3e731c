"""When a training validates, and how it ends by time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.optimizers import WarmupCosineSchedule
from torch.optim.lr_scheduler import ExponentialLR

from monai_regplugins.handlers import Checkpointing, TimeLimit, Validation, validation


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


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


@pytest.mark.parametrize("before", [0, 6])
def test_the_rate_comes_down_with_the_time(make_training: Any, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """Each look at the clock takes a minute, so eight steps are planned, or eight more, and not twenty-seven."""
    clock = iter(range(0, 6000, 60))
    monkeypatch.setattr(validation.time, "monotonic", lambda: next(clock))
    training = make_training(max_epochs=9, interval=100)
    training.trainer.state.epoch, training.trainer.state.iteration = before // 3, before
    schedule = WarmupCosineSchedule(training.optimizer, 2, 27)
    for _ in range(before):
        training.optimizer.step()
        schedule.step()
    factors: list[float] = []

    @training.trainer.on(Events.ITERATION_COMPLETED)
    def note() -> None:
        training.optimizer.step()
        schedule.step()
        factors.append(schedule.get_last_lr()[0] / 1e-3)

    validated(training, TimeLimit(8, schedule))
    assert training.trainer.state.iteration == before + 9
    for step in range(2, 9):
        assert factors[step - 1] == pytest.approx(0.5 + 0.5 * math.cos(math.pi * (before + step - 2) / (before + 6)))


@pytest.mark.parametrize("before", [0, 6])
def test_an_exponential_rate_comes_down_with_the_time(
    make_training: Any, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Each look at the clock takes a minute: of nine epochs of three steps there is time for eight steps."""
    clock = iter(range(0, 6000, 60))
    monkeypatch.setattr(validation.time, "monotonic", lambda: next(clock))
    training = make_training(max_epochs=9, interval=100)
    training.trainer.state.epoch, training.trainer.state.iteration = before // 3, before
    schedule = ExponentialLR(training.optimizer, 0.5)
    factors: list[float] = []
    training.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: factors.append(training.optimizer.param_groups[0]["lr"] / 1e-3)
    )
    validated(training, TimeLimit(8, schedule))
    assert len(factors) == 9
    epochs = [(before + step) * 27 // (3 * (before + max(8, step + 1))) for step in range(9)]
    assert factors[1:] == [0.5**epoch for epoch in epochs[1:]]
    assert epochs[-1] == 8  # of 0 to 8


def test_an_exponential_rate_that_fits_into_the_time_stays(make_training: Any) -> None:
    training = make_training(max_epochs=2)
    schedule = ExponentialLR(training.optimizer, 0.5)
    rates: list[float] = []
    training.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: schedule.step())
    training.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: rates.append(training.optimizer.param_groups[0]["lr"])
    )
    validated(training, TimeLimit(1000, schedule))
    assert rates == [1e-3] * 3 + [5e-4] * 3


def test_a_schedule_that_fits_into_the_time_stays(make_training: Any) -> None:
    training = make_training(max_epochs=2)
    schedule = WarmupCosineSchedule(training.optimizer, 2, 6)
    validated(training, TimeLimit(1000, schedule))
    assert vars(schedule)["t_total"] == 6


def test_an_epoch_that_was_cut_is_completed(
    make_training: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit falls after four steps, the first of the second of three epochs of three steps."""
    clock = iter(range(0, 6000, 60))
    monkeypatch.setattr(validation.time, "monotonic", lambda: next(clock))
    ckpt = tmp_path / "checkpoint.pt"
    seen: list[list[tuple[int, int]]] = []
    for minutes in (3.5, 0):
        training = make_training(max_epochs=3, interval=100)
        given = ckpt if ckpt.exists() else None
        saver = Checkpointing(tmp_path, training.network, training.optimizer, training.scheduler, given)
        with caplog.at_level("INFO"):
            saver.attach(training.trainer, training.evaluator)
        seen.append([])
        training.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: seen[-1].append((engine.state.epoch, engine.state.iteration))
        )
        validated(training, Validation(3, training.evaluator), TimeLimit(minutes))
        found = torch.load(ckpt, weights_only=True)
        assert (found["steps"], found["trainer"]["epoch"]) == ((1, 2) if minutes else (0, 3))
    assert seen[0] == [(1, 1), (1, 2), (1, 3), (2, 4)]
    assert seen[1] == [(2, 5), (2, 6), (3, 7), (3, 8), (3, 9)]
    assert f"Resumed '{ckpt}' after epoch 1, 1 steps into the next." in caplog.messages


def test_the_best_weights_of_a_cut_epoch_stay(make_training: Any, tmp_path: Path) -> None:
    """The completed epoch has the same number and is not validated, so its weights are not the best ones."""
    ckpt, model = tmp_path / "checkpoint.pt", tmp_path / "model.pt"

    def begin(max_epochs: int, interval: int, stop: int = 0) -> Any:
        training = make_training(max_epochs=max_epochs, interval=100)
        given = ckpt if ckpt.exists() else None
        saver = Checkpointing(tmp_path, training.network, training.optimizer, training.scheduler, given)
        saver.attach(training.trainer, training.evaluator)
        Validation(interval, training.evaluator).attach(training.trainer)
        if stop:
            training.evaluator.add_event_handler(
                Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(score=9.0)
            )
            training.trainer.add_event_handler(
                Events.ITERATION_COMPLETED(once=stop), lambda engine: engine.terminate_epoch()
            )
        return training

    begin(1, 1, stop=2).trainer.run()
    best = model.read_bytes()
    assert (load(ckpt)["steps"], load(ckpt)["best_epoch"], load(ckpt)["is_best"]) == (2, 1, True)
    second = begin(2, 3)
    second.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), lambda engine: engine.terminate())
    second.trainer.run()
    assert (load(ckpt)["best_epoch"], load(ckpt)["is_best"]) == (1, False)
    begin(2, 3)
    assert model.read_bytes() == best


def test_no_limit(make_training: Any) -> None:
    training = make_training(max_epochs=2)
    validated(training, TimeLimit(0))
    assert training.trainer.state.epoch == 2
