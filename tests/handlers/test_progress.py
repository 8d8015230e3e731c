"""Progress bar and loss terms of a real training."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from monai_regplugins.handlers import LossTerms, TimeLimit, TrainingProgress, progress


def test_loss_terms_of_both_kinds_of_output(make_training: Any) -> None:
    training = make_training()
    terms = LossTerms(training.loss)
    training.loss.last = {"image": torch.tensor(0.25), "size": torch.tensor(2.0)}
    expected = {"loss": 0.5, "image": 0.25, "size": 2.0}
    assert terms([{"loss": 0.5}, {"loss": 0.5}]) == terms({"loss": torch.tensor(0.5)}) == expected
    assert LossTerms(torch.nn.L1Loss())({"loss": 1.5}) == {"loss": 1.5}


def test_bar_covers_the_whole_training(
    make_training: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOG_LINES", 0.0)
    training = make_training(max_epochs=2)
    bar = TrainingProgress(LossTerms(training.loss), training.evaluator)
    bar.attach(training.trainer)
    training.trainer.run()
    text = capsys.readouterr().err
    assert [int(count) for count in re.findall(r"(\d)/6 ", text)][-1] == 6
    last = text.rstrip().splitlines()[-1].split("\r")[-1]
    assert last.startswith("epoch 2/2: 100%")
    score = training.evaluator.state.metrics["score"]
    for name in ("loss=", "image=", "size=", "score="):
        assert name in last
    assert score > 0


def test_bar_of_a_resumed_training_starts_where_it_stopped(
    make_training: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    training = make_training(max_epochs=3)
    TrainingProgress(LossTerms(training.loss)).attach(training.trainer)
    training.trainer.state.epoch, training.trainer.state.iteration = 2, 6
    training.trainer.run()
    assert re.search(r"\b6/9 ", capsys.readouterr().err)


def test_log_without_terminal_stays_short(make_training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    training = make_training(max_epochs=6)
    TrainingProgress(LossTerms(training.loss)).attach(training.trainer)
    training.trainer.run()
    assert len(re.findall("it/s|s/it", capsys.readouterr().err)) <= 2


def test_what_a_training_is_and_how_long_it_takes(
    make_training: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A clock on which each of its looks takes ten seconds: five steps are two seconds each."""
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    training = make_training(max_epochs=20)
    TrainingProgress(LossTerms(training.loss)).attach(training.trainer)
    with caplog.at_level("INFO", logger=progress.__name__):
        training.trainer.run()
    threads = torch.get_num_threads()
    messages = [record.message for record in caplog.records if record.name == progress.__name__]
    assert [re.sub(r"[\d.]+ GiB", "1 GiB", message) for message in messages] == [
        f"Training on cpu with {threads} thread{'s' if threads > 1 else ''}: made pairs; "
        "20 epochs of 3 steps, 1 a step, from epoch 1 on.",
        "2 s a step, 1 GiB: about 1.8 minutes left, validations not counted.",
    ]


def test_a_time_limit_shortens_what_is_left(
    make_training: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each look at the clock takes ten seconds, the limit's and, from the first to the sixth step, two for the bar."""
    clock = iter(range(0, 10000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    training = make_training(max_epochs=20)
    TimeLimit(2).attach(training.trainer)
    TrainingProgress(LossTerms(training.loss)).attach(training.trainer)
    with caplog.at_level("INFO", logger=progress.__name__):
        training.trainer.run()
    said = caplog.messages[-1]
    assert said.endswith(
        " GiB: 0.5 minutes left by max_minutes; all 20 epochs would take 10.8, validations not counted."
    )
    assert re.search(r"epoch 4/20: .*\b10/60 ", capsys.readouterr().err.splitlines()[-1])


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([{"moving": "a", "fixed": "b"}, {"moving": "b", "fixed": "a"}], "2 pairs of 2 images"),
        ([{"image": "a"}, {"image": "b"}, {"image": "c"}], "3 images"),
        ([{"moving": torch.zeros(1), "fixed": torch.zeros(1)}], "made pairs"),
    ],
)
def test_its_data(make_training: Any, items: list[dict[str, Any]], text: str) -> None:
    training = make_training(max_epochs=2)
    training.trainer.data_loader.dataset.data = items
    assert f": {text}; 2 epochs of 3 steps, 1 a step" in progress._described(training.trainer)
