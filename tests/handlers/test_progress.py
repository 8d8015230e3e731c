"""Progress bar and loss terms of a real training."""

from __future__ import annotations

import logging
import re
import sys
from functools import partial
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


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call the captured stream a terminal, on which each step is shown."""
    monkeypatch.setattr(progress, "is_terminal", lambda: True)
    monkeypatch.setattr(progress, "tqdm", partial(progress.tqdm, mininterval=0.0, miniters=1))


@pytest.mark.usefixtures("terminal")
def test_bar_covers_the_whole_training(make_training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    training = make_training(max_epochs=2)
    bar = TrainingProgress(LossTerms(training.loss), training.evaluator)
    bar.attach(training.trainer)
    training.trainer.run()
    text = capsys.readouterr().err
    assert [int(count) for count in re.findall(r"(\d)/6 ", text)][-1] == 6
    last = text.rstrip().splitlines()[-1].split("\r")[-1]
    assert last.startswith("epoch 2/2: 100%")
    for name in ("loss=", "image=", "size="):
        assert name in last
    assert "DSC=0." in last


@pytest.mark.usefixtures("terminal")
def test_lines_of_the_log_are_lines_of_their_own(make_training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    training = make_training(max_epochs=2)
    TrainingProgress(LossTerms(training.loss)).attach(training.trainer)
    root, console = logging.getLogger(), logging.StreamHandler(sys.stderr)
    training.trainer.add_event_handler("ITERATION_COMPLETED", lambda: root.warning("a line"))
    root.addHandler(console)
    try:
        training.trainer.run()
    finally:
        root.removeHandler(console)
    lines = [line.split("\r")[-1] for line in capsys.readouterr().err.split("\n")]
    assert lines.count("a line") == 6
    assert sum("a line" in line for line in lines) == 6


@pytest.mark.usefixtures("terminal")
def test_bar_of_a_resumed_training_starts_where_it_stopped(
    make_training: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    training = make_training(max_epochs=3)
    TrainingProgress(LossTerms(training.loss)).attach(training.trainer)
    training.trainer.state.epoch, training.trainer.state.iteration = 2, 6
    training.trainer.run()
    assert re.search(r"\b6/9 ", capsys.readouterr().err)


def test_without_terminal_there_is_a_line_a_minute(
    make_training: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A clock that is looked at once a step, and again for a line, and goes on by 25 seconds each time."""
    clock = iter(range(0, 10000, 25))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    training = make_training(max_epochs=2)
    TrainingProgress(LossTerms(training.loss), training.evaluator).attach(training.trainer)
    with caplog.at_level("INFO", logger=progress.__name__):
        training.trainer.run()
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/2, step 3/6", "epoch 2/2, step 5/6"]
    assert re.search(r": loss [\d.e-]+, image [\d.e-]+, size [\d.e-]+, about 1\.9 minutes left$", lines[0])
    assert re.search(r", validation DSC 0\.\d{3} of epoch 1, ", lines[1])
    assert "it/s" not in capsys.readouterr().err


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
        "2 s a step so far, 1 GiB: about 1.8 minutes left, validations not counted.",
    ]


def test_a_time_limit_shortens_what_is_left(
    make_training: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each look at the clock takes ten seconds, the limit's and, from the first to the sixth step, two of progress."""
    clock = iter(range(0, 10000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    training = make_training(max_epochs=20)
    TimeLimit(2).attach(training.trainer)
    TrainingProgress(LossTerms(training.loss)).attach(training.trainer)
    with caplog.at_level("INFO", logger=progress.__name__):
        training.trainer.run()
    said = caplog.messages[-1]
    assert said.endswith(
        " GiB: 0.5 minutes left by max_minutes, about 2 of 54 steps at this pace, validations not counted."
    )


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
