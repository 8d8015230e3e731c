"""The record of a training and its picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine, Events
from PIL import Image

from monai_regplugins.handlers import CurvesFigure, curves_figure
from monai_regplugins.handlers.score import Score


@pytest.mark.slow
def test_record_and_picture_survive_a_resume(make_training: Any, tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    losses: list[float] = []
    for epochs, begin in ((2, 0), (3, 1)):  # the second training goes on after epoch 1 of the first
        training = make_training(max_epochs=epochs, interval=2)
        CurvesFigure(path, training.evaluator).attach(training.trainer)
        training.trainer.state.epoch, training.trainer.state.iteration = begin, 3 * begin
        training.trainer.add_event_handler(
            "ITERATION_COMPLETED", lambda engine: losses.append(engine.state.output[0]["loss"])
        )
        training.trainer.run()
        with Image.open(path) as image:
            assert image.width > image.height > 100
    with path.with_suffix(".csv").open() as stream:
        rows = list(csv.DictReader(stream))
    kept = losses[:3] + losses[6:]
    means = [sum(kept[i : i + 3]) / 3 for i in range(0, 9, 3)]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["loss"]) for row in rows] == pytest.approx(means, rel=1e-5)
    assert [bool(row["score"]) for row in rows] == [False, True, False]


def test_weights_that_a_training_starts_from_are_epoch_0(tmp_path: Path) -> None:
    """A resumed training, which does not validate them again, keeps them."""
    path = tmp_path / "curves.png"

    def train(begin: int, scores: list[float]) -> None:
        trainer, evaluator = Engine(lambda engine, batch: {"loss": 2.0}), Engine(lambda engine, batch: None)
        trainer.state.rank = 0
        trainer.load_state_dict({"iteration": begin, "epoch_length": 1, "max_epochs": begin + 1})

        def validate(epoch: int) -> None:
            evaluator.state.metrics["score"] = scores.pop(0)
            with evaluator.add_event_handler(Events.EPOCH_STARTED, lambda: setattr(evaluator.state, "epoch", epoch)):
                evaluator.run([0])

        CurvesFigure(path, evaluator).attach(trainer)
        if len(scores) > 1:
            trainer.add_event_handler(Events.STARTED, lambda: validate(0))
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: validate(trainer.state.epoch))
        trainer.run([0])

    train(0, [0.75, 0.5])
    train(1, [0.625])
    rows = path.with_suffix(".csv").read_text().split()
    assert rows == ["epoch,loss,score", "0,,0.75", "1,2,0.5", "2,2,0.625"]


def test_best_epoch_is_marked() -> None:
    figure = curves_figure({1: 3.0, 2: 2.0, 3: 1.0}, {1: 0.5, 2: 0.75, 3: float("-inf")})
    loss, score = figure.axes
    assert loss.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert score.get_title() == "validation score, best 0.750 in epoch 2"
    assert (score.lines[1].get_xdata()[0], score.lines[1].get_ydata()[0]) == (2, 0.75)
    assert len(curves_figure({1: 1.0}, {}).axes) == 1


def test_a_score_is_drawn_as_its_measure_with_a_line_before() -> None:
    figure = curves_figure({1: 3.0}, {1: -0.5}, Score("TRE", " mm", -1, "aligned"), -2.0)
    loss, score = figure.axes
    assert score.get_title() == "validation TRE mm, best 0.500 in epoch 1"
    points, best, before = score.lines
    assert (points.get_ydata()[0], best.get_ydata()[0], before.get_ydata()[0]) == (0.5, 0.5, 2.0)
    assert [line.get_marker() for line in (loss.lines[0], points)] == ["o", "o"]  # no line beside them
    low, high = loss.get_xlim()
    assert [tick for tick in loss.get_xticks() if low <= tick <= high] == [1.0]
    assert score.get_legend().get_texts()[0].get_text() == "aligned"
