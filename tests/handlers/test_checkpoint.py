"""Saving and resuming: exact continuation, the best model kept through every kind of accident."""

from __future__ import annotations

import errno
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from torch import nn

from monai_regplugins.checks import InputError, stop_message
from monai_regplugins.handlers import (
    Checkpointing,
    EpochSeed,
    RegistrationMetrics,
    WeightsLoader,
)
from monai_regplugins.settings import record_of


class Killed(BaseException):
    """Stands for the end of the process at this very moment."""


class ScriptedScore(Metric):
    """Gives the scores it was made with, one per evaluation."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = list(scores)
        super().__init__()

    def reset(self) -> None: ...

    def update(self, output: Any) -> None: ...

    def compute(self) -> float:
        return self.scores.pop(0)


@pytest.fixture
def start(make_training: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes a training with checkpoints in a folder and a script of scores."""

    def begin(folder: Path, scores: list[float] | None = None, ckpt: Path | None = None, **kwargs: Any) -> Any:
        metric, record = None if scores is None else ScriptedScore(scores), kwargs.pop("record", None)
        training = make_training(metric=metric, train_handlers=(EpochSeed(3),), **kwargs)
        saver = Checkpointing(folder, training.network, training.optimizer, training.scheduler, ckpt, record=record)
        saver.attach(training.trainer, training.evaluator)
        return training

    return begin


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("epoch_length", [None, 2])
def test_resumed_training_equals_straight_one(start: Any, tmp_path: Path, epoch_length: int | None) -> None:
    straight = start(tmp_path / "straight", [0.1, 0.3, 0.2, 0.4], max_epochs=4, epoch_length=epoch_length)
    straight.trainer.run()
    start(tmp_path / "broken", [0.1, 0.3], max_epochs=2, epoch_length=epoch_length).trainer.run()
    ckpt = tmp_path / "broken" / "checkpoint.pt"
    resumed = start(tmp_path / "broken", [0.2, 0.4], max_epochs=4, ckpt=ckpt, epoch_length=epoch_length)
    assert not torch.equal(resumed.weights(), straight.weights())
    resumed.trainer.run()
    assert torch.equal(resumed.weights(), straight.weights())
    assert resumed.trainer.state.iteration == straight.trainer.state.iteration == 4 * (epoch_length or 3)
    a, b = load(tmp_path / "straight" / "checkpoint.pt"), load(ckpt)
    assert a["lr_scheduler"] == b["lr_scheduler"]
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    assert {key: a[key] for key in a if key.startswith("best")} == {key: b[key] for key in b if key.startswith("best")}
    model = tmp_path / "straight" / "model.pt"
    assert model.read_bytes() == (tmp_path / "broken" / "model.pt").read_bytes()


@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
def test_mixed_precision_scale_is_resumed(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale doubles after every second step: three steps per epoch take it from 2^6 to 2^9 in two epochs."""
    scaler = partial(torch.amp.GradScaler, "cpu", init_scale=2.0**6, growth_interval=2)
    monkeypatch.setattr(torch.cuda.amp, "GradScaler", scaler)
    ckpt = tmp_path / "checkpoint.pt"
    for epochs, scale in ((1, 2.0**7), (2, 2.0**9)):
        start(tmp_path, max_epochs=epochs, amp=True, ckpt=ckpt if ckpt.exists() else None).trainer.run()
        assert load(ckpt)["scaler"]["scale"] == scale


def test_epoch_seed_decides_shuffling_and_noise(make_training: Any) -> None:
    weights = []
    for handlers in ((EpochSeed(3),), (EpochSeed(4),), (EpochSeed(3),)):
        training = make_training(max_epochs=1, train_handlers=handlers)
        training.trainer.run()
        weights.append(training.weights())
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])


def test_best_model_follows_strict_improvement(start: Any, tmp_path: Path) -> None:
    training = start(tmp_path, [0.3, 0.6, 0.6, -0.7, 0.5], max_epochs=5)
    seen: list[dict[str, torch.Tensor]] = []
    training.trainer.add_event_handler("EPOCH_COMPLETED", lambda: seen.append(deepcopy(training.network.state_dict())))
    training.trainer.run()
    assert same(load(tmp_path / "model.pt"), seen[1])
    checkpoint = load(tmp_path / "checkpoint.pt")
    assert same(checkpoint["model"], seen[4])
    assert (checkpoint["best_metric"], checkpoint["best_epoch"]) == (0.6, 2)
    assert checkpoint["trainer"] == {"epoch": 5, "iteration": 15}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "model.pt"]


def test_weights_carry_their_record(start: Any, tmp_path: Path) -> None:
    """With the score of their own epoch, also where a resumed training makes the file from the checkpoint."""
    record = {"version": 1, "settings": {"steps": 2}}
    start(tmp_path, [0.3, 0.6, 0.1], max_epochs=3, record=record).trainer.run()
    best, last = (record_of(tmp_path / f"{name}.pt", tmp_path) or {} for name in ("model", "checkpoint"))
    assert record.items() <= best.items()
    assert [(one["epoch"], one["score"], one["validation"]["measure"]) for one in (best, last)] == [
        (2, 0.6, "score"),
        (3, 0.1, "score"),
    ]
    assert type(load(tmp_path / "model.pt")) is OrderedDict
    start(tmp_path, [0.9], tmp_path / "checkpoint.pt", max_epochs=4, record=record).trainer.run()
    (tmp_path / "model.pt").unlink()
    start(tmp_path, [], tmp_path / "checkpoint.pt", max_epochs=5)
    again = record_of(tmp_path / "model.pt", tmp_path) or {}
    assert (again["epoch"], again["score"], again["settings"]) == (4, 0.9, {"steps": 2})


def test_worse_score_after_resume_keeps_best(start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The epoch of the best weights is said to be one before resuming if it is."""
    caplog.set_level(logging.INFO)
    start(tmp_path, [0.9, 0.8], max_epochs=2).trainer.run()
    best = (tmp_path / "model.pt").read_bytes()
    resumed = start(tmp_path, [0.7, 0.85], tmp_path / "checkpoint.pt", max_epochs=4)
    assert (resumed.evaluator.state.best_metric, resumed.evaluator.state.best_metric_epoch) == (0.9, 1)
    resumed.trainer.run()
    assert (tmp_path / "model.pt").read_bytes() == best
    assert resumed.evaluator.state.best_metric == 0.9
    again = start(tmp_path, [0.95], tmp_path / "checkpoint.pt", max_epochs=5)
    again.trainer.run()
    ends = [message.partition(", ")[2] for message in caplog.messages if message.startswith("Best weights: ")]
    assert ends == ["of epoch 1, score 0.900.", "of epoch 1 before resuming, score 0.900.", "of epoch 5, score 0.950."]
    assert same(load(tmp_path / "model.pt"), again.network.state_dict())


def test_validation_every_second_epoch(start: Any, tmp_path: Path) -> None:
    start(tmp_path, [0.4], max_epochs=3, interval=2).trainer.run()
    assert load(tmp_path / "checkpoint.pt")["best_epoch"] == 2


def test_without_evaluator_model_is_the_last(make_training: Any, tmp_path: Path) -> None:
    training = make_training(max_epochs=2)
    Checkpointing(tmp_path, nn.DataParallel(training.network), training.optimizer).attach(training.trainer)
    training.trainer.run()
    assert same(load(tmp_path / "model.pt"), training.network.state_dict())
    assert load(tmp_path / "checkpoint.pt")["lr_scheduler"] is None


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", range(5))
def test_killed_at_any_write_the_best_survives(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int, moment: str
) -> None:
    """Three epochs write five files, as the second does not improve; the process dies just before or after each."""
    scores, replace, calls = [0.5, 0.4, 0.7], os.replace, 0

    def deadly(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls <= write or moment == "after":
            replace(source, target)
        if calls > write:
            raise Killed

    training, models = start(tmp_path, scores, max_epochs=4), []
    training.trainer.add_event_handler(
        "EPOCH_COMPLETED", lambda: models.append(deepcopy(training.network.state_dict()))
    )
    monkeypatch.setattr(os, "replace", deadly)
    with pytest.raises(Killed):
        training.trainer.run()
    monkeypatch.setattr(os, "replace", replace)

    if write == 0 and moment == "before":
        assert not list(tmp_path.iterdir())
        return
    stored = load(tmp_path / "checkpoint.pt")
    reached = [0.5, 0.4, 0.7][: stored["trainer"]["epoch"]]
    assert stored["best_metric"] == max(reached)
    best = models[reached.index(max(reached))]
    resumed = start(tmp_path, [0.1] * 4, tmp_path / "checkpoint.pt", max_epochs=4)
    assert same(load(tmp_path / "model.pt"), best)
    resumed.trainer.run()
    assert same(load(tmp_path / "model.pt"), best)
    assert load(tmp_path / "checkpoint.pt")["best_metric"] == max(reached)


def test_full_disk_keeps_the_old_file(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tmp_path, [0.5], max_epochs=1).trainer.run()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    resumed = start(tmp_path, [0.9], tmp_path / "checkpoint.pt", max_epochs=2)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write '.*checkpoint\.pt' \(No space left on device\).*unchanged"):
        resumed.trainer.run()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "present", [("model.pt",), ("model_last.pt",), ("checkpoint.pt",), ("checkpoint.pt", "model.pt")]
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_weights_of_another_training_are_refused(
    start: Any, tmp_path: Path, present: tuple[str, ...], elsewhere: bool
) -> None:
    """Without ``ckpt``, and where that is the checkpoint of a third training."""
    folder, ckpt = tmp_path / "there", None
    folder.mkdir()
    for name in present:
        (folder / name).write_bytes(name.encode())
    if elsewhere:
        start(tmp_path / "third", max_epochs=1).trainer.run()
        ckpt = tmp_path / "third" / "checkpoint.pt"
    place = r" in place of '.*third/checkpoint\.pt'" if elsewhere else ""
    way = r"; give"
    if "checkpoint.pt" in present:
        way = rf"go on with them by --ckpt '.*there/checkpoint\.pt'{place}, or give another"
    with pytest.raises(InputError, match=rf"'{folder}' holds the weights of another training .*{way}"):
        start(folder, max_epochs=2, ckpt=ckpt)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: name.encode() for name in present}


@pytest.mark.parametrize("resumed", [False, True])
def test_of_two_trainings_in_one_folder_only_one_goes_on(start: Any, tmp_path: Path, resumed: bool) -> None:
    ckpt = tmp_path / "checkpoint.pt" if resumed else None
    if resumed:
        start(tmp_path, [0.1], max_epochs=1).trainer.run()
    first, second = (start(tmp_path, [0.5, 0.6, 0.7, 0.8], ckpt, max_epochs=3) for _ in range(2))
    first.trainer.run()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"checkpoint.pt' was written by another training meanwhile, and stays as"):
        second.trainer.run()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_initial_weights_do_not_open_their_folder(start: Any, tmp_path: Path) -> None:
    start(tmp_path, [0.5], max_epochs=1).trainer.run()
    with pytest.raises(InputError, match="holds the weights of another training"):
        start(tmp_path, [0.9], tmp_path / "model.pt", max_epochs=2)


def test_resume_into_another_folder_takes_the_best_along(start: Any, tmp_path: Path) -> None:
    start(tmp_path / "old", [0.9, 0.8], max_epochs=2).trainer.run()
    start(tmp_path / "new", [0.7], tmp_path / "old" / "checkpoint.pt", max_epochs=3).trainer.run()
    assert (tmp_path / "new" / "model.pt").read_bytes() == (tmp_path / "old" / "model.pt").read_bytes()


def test_lost_best_model_is_not_held_against_the_next(
    start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start(tmp_path, [0.9, 0.8], max_epochs=2).trainer.run()
    (tmp_path / "model.pt").unlink()
    resumed = start(tmp_path, [0.7], tmp_path / "checkpoint.pt", max_epochs=3)
    assert "is gone" in caplog.text
    resumed.trainer.run()
    assert same(load(tmp_path / "model.pt"), resumed.network.state_dict())
    assert load(tmp_path / "checkpoint.pt")["best_metric"] == 0.7


def test_bare_weights_only_initialize(start: Any, tmp_path: Path) -> None:
    start(tmp_path / "a", [0.9], max_epochs=1).trainer.run()
    model = tmp_path / "a" / "model.pt"
    training = start(tmp_path / "b", [0.05, 0.1], model, max_epochs=1)
    assert same(load(model), training.network.state_dict())
    assert (training.trainer.state.epoch, training.evaluator.state.best_metric_epoch) == (0, -1)
    assert not training.optimizer.state
    training.trainer.run()
    checkpoint = load(tmp_path / "b" / "checkpoint.pt")
    assert (checkpoint["start_metric"], checkpoint["best_metric"]) == (0.05, 0.1)


def test_best_weights_of_rough_fields(start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also when a resumed training ends with those of before."""

    def run(folder: Path, scores: list[float], ckpt: Path | None, epochs: int, *roughness: float) -> list[str]:
        caplog.clear()
        training, values = start(folder, scores, ckpt, max_epochs=epochs), list(roughness)
        training.evaluator.add_event_handler(
            Events.EPOCH_COMPLETED, lambda: training.evaluator.state.metrics.update(sdlogj=values.pop(0))
        )
        training.trainer.run()
        return [text for text in caplog.messages if "fields are rough" in text]

    assert run(tmp_path / "a", [0.2], None, 1, 0.25) == []
    weights = tmp_path / "a" / "model.pt"
    said = run(tmp_path / "b", [0.2, 0.3, 0.1], weights, 2, 0.25, 0.5, 0.25)
    expected = "Their fields are rough: SDlogJ 0.500 (0.250 of the weights it started from). A lower --learning_rate"
    assert [line.startswith(expected) for line in said] == [True]
    assert run(tmp_path / "b", [0.1], tmp_path / "b" / "checkpoint.pt", 3, 0.25) == said
    assert run(tmp_path / "c", [0.2, 0.3, 0.4], weights, 2, 0.25, 0.5, 0.3) == []


class TestFloor:
    """What was there before the training is what a model has to beat."""

    @pytest.mark.parametrize(
        ("before", "scores", "best"),
        [
            (0.5, [0.4, 0.45], None),
            (0.5, [0.5, 0.5], None),
            (0.5, [0.4, 0.51], 2),
            (-3.0, [-2.5, -2.75], 1),
            (None, [0.1, 0.2], 2),
        ],
    )
    def test_doing_nothing(
        self,
        start: Any,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        before: float | None,
        scores: list[float],
        best: int | None,
    ) -> None:
        training = start(tmp_path, scores, max_epochs=2, record={"version": 1})
        if before is not None:
            training.evaluator.state.metrics["score_before"] = before
        with caplog.at_level("INFO"):
            training.trainer.run()
        checkpoint = load(tmp_path / "checkpoint.pt")
        assert checkpoint["best_epoch"] == best
        assert (tmp_path / "model.pt").exists() is (best is not None)
        assert same(checkpoint["model"], training.network.state_dict())
        assert (tmp_path / "model_last.pt").exists() is (best is None)
        if best is None:
            assert same(load(tmp_path / "model_last.pt"), training.network.state_dict())
            assert (record_of(tmp_path / "model_last.pt", tmp_path) or {})["epoch"] == 2
        (line,) = (text for text in caplog.messages if "weights" in text)
        floor = "" if before is None else f" (before {before:.3f})"
        if best is None:
            assert f"was there before{floor or ' (all before)'}; the last weights" in line
        else:
            assert line.endswith(f"of epoch {best}, score {scores[best - 1]:.3f}{floor}.")

    @pytest.mark.parametrize(
        ("scores", "best"), [([0.8, 0.7, 0.8], None), ([0.8, 0.7, 0.81], 2), ([0.3, 0.4, 0.45], None)]
    )
    def test_the_weights_it_starts_from(
        self, start: Any, tmp_path: Path, scores: list[float], best: int | None
    ) -> None:
        """The first score is that of the start; in the last case nothing beats doing nothing either, 0.5."""
        start(tmp_path / "a", [0.5], max_epochs=1).trainer.run()
        training = start(tmp_path / "b", scores, tmp_path / "a" / "model.pt", max_epochs=2)
        training.evaluator.state.metrics["score_before"] = 0.5
        epochs: list[int] = []
        training.evaluator.add_event_handler("EPOCH_COMPLETED", lambda engine: epochs.append(engine.state.epoch))
        training.trainer.run()
        assert epochs == [0, 1, 2]
        assert load(tmp_path / "b" / "checkpoint.pt")["best_epoch"] == best

    def test_it_holds_after_a_resume(self, start: Any, tmp_path: Path) -> None:
        start(tmp_path / "a", [0.5], max_epochs=1).trainer.run()
        start(tmp_path / "b", [0.8, 0.7], tmp_path / "a" / "model.pt", max_epochs=1).trainer.run()
        ckpt = tmp_path / "b" / "checkpoint.pt"
        start(tmp_path / "b", [0.79], ckpt, max_epochs=2).trainer.run()
        assert load(ckpt)["best_epoch"] is None
        start(tmp_path / "b", [0.81], ckpt, max_epochs=3).trainer.run()
        assert load(ckpt)["best_epoch"] == 3
        assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["checkpoint.pt", "model.pt"]

    def test_start_is_not_taken_for_the_first_epoch(self, start: Any, tmp_path: Path) -> None:
        start(tmp_path / "a", [0.5], max_epochs=1).trainer.run()
        start(tmp_path / "b", [0.8], tmp_path / "a" / "model.pt", max_epochs=1, interval=2).trainer.run()
        assert load(tmp_path / "b" / "checkpoint.pt")["best_epoch"] is None

    def test_result_is_named(self, make_training: Any, tmp_path: Path) -> None:
        for name, scores, expected in (("good", [0.5], "model.pt"), ("bad", [-0.5], "model_last.pt")):
            training = make_training(max_epochs=1, metric=ScriptedScore(scores))
            saver = Checkpointing(tmp_path / name, training.network, training.optimizer)
            saver.attach(training.trainer, training.evaluator)
            training.evaluator.state.metrics["score_before"] = 0.0
            training.trainer.run()
            assert saver.weights == tmp_path / name / expected
            assert saver.weights.is_file()


class TestDivergence:
    """A training that diverges stops, and all files stay as they were."""

    @pytest.fixture
    def diverging(self, start: Any, tmp_path: Path) -> Callable[..., tuple[Any, dict[str, bytes]]]:
        """Return a function that makes a training of one good epoch go on, and what its folder holds."""

        def begin(scores: list[float], **kwargs: Any) -> tuple[Any, dict[str, bytes]]:
            start(tmp_path, [0.5], max_epochs=1).trainer.run()
            training = start(tmp_path, scores, tmp_path / "checkpoint.pt", max_epochs=2, **kwargs)
            return training, {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        return begin

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_loss(self, diverging: Any, tmp_path: Path, value: float) -> None:
        training, before = diverging([0.9])
        training.loss.register_forward_hook(lambda _module, _inputs, loss: loss * value)
        message = (
            r"in epoch 2: the loss of step 4 is (nan|inf).*go on by --ckpt '.*checkpoint\.pt' with a lower learning_"
        )
        with pytest.raises(InputError, match=message):
            training.trainer.run()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_weights_before_they_are_validated(self, diverging: Any, tmp_path: Path) -> None:
        training, before = diverging([0.9])
        corrupt = partial(nn.init.constant_, training.network[2].bias, float("nan"))
        training.optimizer.register_step_post_hook(
            lambda *_: corrupt() if training.trainer.state.iteration == 6 else None
        )
        with pytest.raises(InputError, match=r"diverged in epoch 2: the weights '2\.bias' are not finite"):
            training.trainer.run()
        assert training.evaluator.state.iteration == 0, "they were validated"
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("score", [float("nan"), float("-inf")])
    def test_score(self, diverging: Any, tmp_path: Path, score: float) -> None:
        training, before = diverging([score])
        with pytest.raises(InputError, match=r"diverged in epoch 2: the validation score is (nan|-inf)"):
            training.trainer.run()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_in_the_first_epoch(self, start: Any, tmp_path: Path) -> None:
        training = start(tmp_path, [0.9], max_epochs=1)
        training.loss.register_forward_hook(lambda _module, _inputs, loss: loss * float("nan"))
        with pytest.raises(InputError, match=r"; start again with a lower learning_rate \(it was 0\.001\)\."):
            training.trainer.run()
        assert not list(tmp_path.iterdir())

    def test_start(self, start: Any, tmp_path: Path) -> None:
        start(tmp_path / "a", [0.5], max_epochs=1).trainer.run()
        training = start(tmp_path / "b", [float("-inf")], tmp_path / "a" / "model.pt", max_epochs=1)
        with pytest.raises(InputError, match=r"weights of '.*model\.pt' give a score of -inf"):
            training.trainer.run()

    @pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
    @pytest.mark.parametrize(("damaged", "stops"), [({2}, False), ({2, 3, 5}, False), (set(range(2, 99)), True)])
    def test_gradient_scaler_may_leave_out_steps(
        self, start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: set[int], stops: bool
    ) -> None:
        """A scale of 16 is halved four times until it is 1: from the fourth step left out on the loss is to blame."""
        monkeypatch.setattr(torch.cuda.amp, "GradScaler", partial(torch.amp.GradScaler, "cpu", init_scale=16.0))
        training = start(tmp_path, max_epochs=3, amp=True)
        step = training.trainer.state

        def corrupt(_module: Any, _inputs: Any, loss: torch.Tensor) -> torch.Tensor:
            return loss * float("inf") if step.iteration in damaged else loss

        training.loss.register_forward_hook(corrupt)
        if stops:
            with pytest.raises(InputError, match="the loss of step 5 is"):
                training.trainer.run()
        else:
            training.trainer.run()
            assert step.iteration == 9
        assert all(value.isfinite().all() for value in training.network.state_dict().values())


class TestComparableScores:
    """Scores of other pairs or measures are not compared."""

    @pytest.mark.parametrize(
        ("kind", "change"),
        [
            ("measure", {"metric": RegistrationMetrics("ncc", surface=False)}),
            ("pairs", {"num_validation": 3}),
        ],
    )
    def test_resume_is_refused(self, make_training: Any, tmp_path: Path, kind: str, change: dict[str, Any]) -> None:
        def begin(ckpt: Path | None = None, **changes: Any) -> Any:
            training = make_training(max_epochs=2 if ckpt else 1, **changes)
            saver = Checkpointing(tmp_path, training.network, training.optimizer, training.scheduler, ckpt)
            saver.attach(training.trainer, training.evaluator)
            return training

        begin().trainer.run()
        start = f"new training from '{tmp_path / 'model_last.pt'}'"
        if kind == "pairs":
            (tmp_path / "model_last.pt").unlink()
            start = "new training"
        with pytest.raises(InputError, match=rf"scored in another way \({kind} differ\).*{start}\."):
            begin(tmp_path / "checkpoint.pt", **change)
        begin(tmp_path / "checkpoint.pt").trainer.run()

    def test_validation_may_not_come_or_go(self, make_training: Any, start: Any, tmp_path: Path) -> None:
        start(tmp_path, [0.5], max_epochs=1).trainer.run()
        training = make_training(max_epochs=2)
        ckpt = tmp_path / "checkpoint.pt"
        saver = Checkpointing(tmp_path, training.network, training.optimizer, training.scheduler, ckpt)
        with pytest.raises(InputError, match="scored in another way"):
            saver.attach(training.trainer)


class TestNewSettings:
    """The configuration's settings hold, the checkpoint gives the position."""

    @pytest.mark.parametrize("rate", [1e-3, 2e-3])
    def test_learning_rate(self, make_training: Any, tmp_path: Path, caplog: Any, rate: float) -> None:
        """After three epochs of a schedule by 0.7 the rate is 0.343 of what is given, whenever it is given."""

        def begin(epochs: int, learning_rate: float, ckpt: Path | None = None) -> Any:
            training = make_training(max_epochs=epochs, learning_rate=learning_rate)
            Checkpointing(tmp_path, training.network, training.optimizer, training.scheduler, ckpt).attach(
                training.trainer
            )
            training.trainer.run()
            return training

        begin(1, 1e-3)
        with caplog.at_level("INFO"):
            training = begin(3, rate, tmp_path / "checkpoint.pt")
        assert training.optimizer.param_groups[0]["lr"] == pytest.approx(rate * 0.7**3, rel=1e-12)
        assert training.scheduler.get_last_lr() == [training.optimizer.param_groups[0]["lr"]]
        reported = f"after epoch 1, learning_rate {rate} instead of 0.001." if rate != 1e-3 else "after epoch 1."
        assert any(reported in text for text in caplog.messages)

    def test_another_optimizer(self, make_training: Any, start: Any, tmp_path: Path) -> None:
        start(tmp_path, [0.5], max_epochs=1).trainer.run()
        training = make_training(max_epochs=2, metric=ScriptedScore([0.1]))
        optimizer = torch.optim.SGD(training.network.parameters(), lr=1e-3)
        saver = Checkpointing(tmp_path, training.network, optimizer, None, tmp_path / "checkpoint.pt")
        with pytest.raises(InputError, match=r"belongs to another optimizer or schedule \(Adam, not SGD\)"):
            saver.attach(training.trainer, training.evaluator)


def test_errors_of_a_checkpoint(start: Any, tmp_path: Path) -> None:
    start(tmp_path, [0.5, 0.5], max_epochs=2).trainer.run()
    ckpt = tmp_path / "checkpoint.pt"
    with pytest.raises(InputError, match="has completed 2 epochs and max_epochs is 2"):
        start(tmp_path / "new", [], ckpt, max_epochs=2)
    with pytest.raises(InputError, match="does not fit"):
        start(tmp_path / "new", [], ckpt, max_epochs=3, features=5)
    with pytest.raises(InputError, match="does not exist"):
        start(tmp_path / "new", [], tmp_path / "nothing.pt", max_epochs=3)
    short = tmp_path / "short.pt"
    short.write_bytes(ckpt.read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be read"):
        start(tmp_path / "new", [], short, max_epochs=3)
    state = load(ckpt)
    torch.save({**state, "optimizer": {"state": {}, "param_groups": []}}, short)
    with pytest.raises(InputError, match="another optimizer or schedule"):
        start(tmp_path / "new", [], short, max_epochs=3)
    del state["trainer"]
    torch.save(state, short)
    with pytest.raises(InputError, match="lacks trainer"):
        start(tmp_path / "new", [], short, max_epochs=3)


class TestInterruption:
    """What a training has reached is written after its last whole step; three steps are an epoch."""

    @pytest.fixture
    def stopped(self, start: Any) -> Callable[..., str]:
        """Return a function that interrupts a training by an event, and returns what is said."""

        def run(folder: Path, scores: list[float], event: Any, ckpt: Path | None = None) -> str:
            training = start(folder, scores, ckpt, max_epochs=3)

            def stop(*_: Any) -> None:
                raise Killed

            if event == "update":
                training.trainer.add_event_handler(
                    Events.ITERATION_STARTED(once=5), lambda: training.optimizer.register_step_pre_hook(stop)
                )
            else:
                engine = training.evaluator if event == "validation" else training.trainer
                engine.add_event_handler(Events.STARTED if event == "validation" else event, stop)
            with pytest.raises(Killed):
                training.trainer.run()
            return stop_message().removeprefix("stopped; what was written is complete: ")

        return run

    @pytest.mark.parametrize(
        ("event", "steps", "epoch"),
        [
            (Events.ITERATION_STARTED(once=2), 1, 1),
            (Events.ITERATION_COMPLETED(once=2), 2, 1),
            (Events.ITERATION_COMPLETED(once=5), 2, 2),
            ("validation", 2, 1),  # the last step is taken again
        ],
    )
    def test_it_goes_on(
        self, stopped: Callable[..., str], start: Any, tmp_path: Path, event: Any, steps: int, epoch: int
    ) -> None:
        ckpt = tmp_path / "checkpoint.pt"
        said = stopped(tmp_path, [0.5, 0.6], event)
        assert said == f"go on by the same command with --ckpt '{ckpt}'; the step that was under way is lost."
        state = load(ckpt)
        assert (state["steps"], state["trainer"]["epoch"], state["best_epoch"]) == (steps, epoch, epoch - 1 or None)
        resumed = start(tmp_path, [0.7, 0.8, 0.9], ckpt, max_epochs=3)
        resumed.trainer.run()
        assert (load(ckpt)["trainer"], load(ckpt)["steps"]) == ({"epoch": 3, "iteration": 9}, 0)
        assert stop_message().endswith(": a list goes on by the same command, a training by its checkpoint.pt.")

    def test_its_weights_are_those_of_the_step(self, stopped: Callable[..., str], start: Any, tmp_path: Path) -> None:
        straight, seen = start(tmp_path / "a", [0.5], max_epochs=1), list[Any]()
        straight.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda: seen.append(deepcopy(straight.network.state_dict()))
        )
        straight.trainer.run()
        stopped(tmp_path / "b", [], Events.ITERATION_STARTED(once=3))
        state = load(tmp_path / "b" / "checkpoint.pt")
        assert same(state["model"], seen[1])
        assert not state["is_best"]
        assert not (tmp_path / "b" / "model.pt").exists()

    def test_within_an_update_of_the_weights_nothing_is_written(
        self, stopped: Callable[..., str], tmp_path: Path
    ) -> None:
        said = stopped(tmp_path, [0.5, 0.6], "update")
        assert said.endswith("; 1 steps since then are lost.")
        assert load(tmp_path / "checkpoint.pt")["trainer"] == {"epoch": 1, "iteration": 3}

    def test_before_the_first_step(self, stopped: Callable[..., str], tmp_path: Path) -> None:
        said = stopped(tmp_path, [], Events.ITERATION_STARTED(once=1))
        assert said == "no step has ended, so there is no checkpoint; start again."
        assert list(tmp_path.iterdir()) == []

    def test_what_another_training_has_written_stays(self, start: Any, tmp_path: Path) -> None:
        def write() -> None:
            (tmp_path / "checkpoint.pt").write_bytes(b"another")

        training = start(tmp_path, [0.5], max_epochs=1)
        training.trainer.add_event_handler(Events.ITERATION_STARTED(once=3), write)
        training.trainer.add_event_handler(Events.ITERATION_STARTED(once=3), stop_message)
        with pytest.raises(InputError, match="written by another training"):
            training.trainer.run()
        assert (tmp_path / "checkpoint.pt").read_bytes() == b"another"

    def test_it_says_which_weights_the_checkpoint_replaces(
        self, stopped: Callable[..., str], start: Any, tmp_path: Path
    ) -> None:
        start(tmp_path / "first", [0.5], max_epochs=1).trainer.run()
        weights = tmp_path / "first" / "model.pt"
        said = stopped(tmp_path, [0.5, 0.6, 0.7], Events.ITERATION_COMPLETED(once=5), weights)
        assert f" with --ckpt '{tmp_path / 'checkpoint.pt'}' in place of '{weights}'; the step " in said


def test_a_checkpoint_knows_its_data(make_training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, data, expected, name in (("a", "scans", str(tmp_path / "scans"), "scans"), ("b", "", "", None)):
        training = make_training(max_epochs=1)
        saver = Checkpointing(folder, training.network, training.optimizer, record={"version": 1}, data=data)
        saver.attach(training.trainer, training.evaluator)
        training.trainer.run()
        assert load(tmp_path / folder / "checkpoint.pt")["data"] == expected
        assert (record_of(saver.weights, tmp_path) or {}).get("data") == name  # no path: weights are passed on


def test_unknown_score_name(make_training: Any, tmp_path: Path) -> None:
    training = make_training(max_epochs=1)
    saver = Checkpointing(tmp_path, training.network, training.optimizer, score_name="dcs")
    saver.attach(training.trainer, training.evaluator)
    with pytest.raises(InputError, match="Did you mean 'dsc'"):
        training.trainer.run()


def test_weights_loader(start: Any, make_training: Any, tmp_path: Path) -> None:
    start(tmp_path, [0.5, 0.4], max_epochs=2).trainer.run()
    for name in ("model.pt", "checkpoint.pt"):
        training = make_training()
        nn.init.zeros_(training.network[0].weight)
        WeightsLoader(training.network, tmp_path / name).attach(training.evaluator)
        training.evaluator.run()
        state = load(tmp_path / name)
        assert same(training.network.state_dict(), state.get("model", state))


def test_weights_loader_without_model(tmp_path: Path) -> None:
    engine = Engine(lambda *_: None)
    WeightsLoader(nn.Conv2d(1, 1, 1), tmp_path / "model.pt").attach(engine)
    with pytest.raises(InputError, match="train or download one first"):
        engine.run([0])


def test_weights_loader_names_the_last_model(tmp_path: Path) -> None:
    (tmp_path / "model_last.pt").touch()
    engine = Engine(lambda *_: None)
    WeightsLoader(nn.Conv2d(1, 1, 1), tmp_path / "model.pt").attach(engine)
    with pytest.raises(
        InputError, match=rf"no model at '.*/model\.pt'.* Beside it is '{tmp_path}/model_last\.pt', of a"
    ):
        engine.run([0])


def test_weights_loader_compares_with_the_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As loading a bundle in Python does: a list of other weights ends the run, one without them is reported."""
    network, engine = nn.Conv2d(1, 1, 1), Engine(lambda *_: None)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    WeightsLoader(network, tmp_path / "model.pt").attach(engine)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  other.pt\n")
    engine.run([0])
    assert sum("does not list 'model.pt'" in line for line in caplog.messages) == 1
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  model.pt\n")
    with pytest.raises(InputError, match=r"'model\.pt' is not the published file"):
        engine.run([0])
