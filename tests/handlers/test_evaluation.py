"""The handlers of an evaluation: the ones that the configurations need, with their files."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from ignite.engine import Engine, Events
from torch import nn

from monai_regplugins.checks import stop_message
from monai_regplugins.handlers import evaluation_handlers
from monai_regplugins.handlers.evaluation import EvaluationNotes, EvaluationTime


def test_handlers_and_their_files(tmp_path: Path) -> None:
    network = nn.Identity()
    _, weights, table, _, pictures, field = evaluation_handlers(network, "model.pt", tmp_path, 2, field=True)
    assert (weights.network, weights.ckpt) == (network, "model.pt")
    assert [handler.path.name for handler in (table, pictures, field)] == [
        "evaluation.csv",
        "evaluation.png",
        "evaluation_field.png",
    ]
    assert {handler.path.parent for handler in (table, pictures, field)} == {tmp_path}
    assert pictures.max_pairs == 2
    assert len(evaluation_handlers(network, "model.pt", str(tmp_path), 0)) == 5


def test_rough_fields_are_said(caplog: pytest.LogCaptureFixture) -> None:
    evaluator = Engine(lambda engine, pair: None)
    evaluator.state.rank = 0
    EvaluationNotes().attach(evaluator)
    evaluator.state.pair_rows = []
    for roughness in (0.3, 0.8):
        evaluator.state.metrics = {"sdlogj": roughness}
        evaluator.run(range(1))
    assert [record.message for record in caplog.records if record.name.startswith("monai_regplugins")] == [
        "The fields are rough: SDlogJ 0.800 (a WARN above 0.75)."
    ]


def test_pairs_that_end_worse_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """The worst first, five of them; equal to the digits of the table is not worse."""
    evaluator = Engine(lambda engine, pair: None)
    evaluator.state.rank = 0
    EvaluationNotes().attach(evaluator)
    rows = [{"pair_id": f"p{number}", "dsc_before": 0.5, "dsc": 0.6 - 0.05 * number} for number in range(8)]
    rows += [{"pair_id": "points", "tre_before": 2.0, "tre": 8.0, "dsc_before": 0.5, "dsc": 0.4}]
    rows += [{"pair_id": "lost", "tre_before": 2.0, "tre": float("nan")}, {"pair_id": "neither", "ncc": 0.1}]
    rows += [{"pair_id": "equal", "dsc_before": 0.5, "dsc": 0.4999}]
    evaluator.state.pair_rows = rows
    evaluator.run(range(1))
    assert caplog.messages[-1].splitlines() == [
        "6 of 12 pairs end worse than as given:",
        "  points: DSC 0.500 -> 0.400, TRE (mm) 2.00 -> 8.00",
        "  p7: DSC 0.500 -> 0.250",
        "  p6: DSC 0.500 -> 0.300",
        "  p5: DSC 0.500 -> 0.350",
        "  p4: DSC 0.500 -> 0.400",
        "  and 1 more",
    ]


@pytest.mark.parametrize(
    ("steps", "said"), [(0, []), (30, ["The optimization began at the network's field in 2 of 5 "])]
)
def test_where_an_optimization_began(steps: int, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """In one line, and not of fields that were not optimized."""
    evaluator = Engine(lambda engine, pair: None)
    evaluator.state.rank, evaluator.state.metrics = 0, {}
    evaluator.inferer = SimpleNamespace(steps=steps)
    EvaluationNotes().attach(evaluator)
    starts = [(1, 0, 0.9), (1, 0, 0.8), (0, 1, 0.9), (0, 0, 0.9), (0, 0, 0.5)]
    evaluator.state.pair_rows = [
        {"pair_id": "p", "from_network": network, "from_search": search, "unused": found, "unused_aligned": 0.5}
        for network, search, found in starts
    ]
    caplog.set_level(logging.INFO)
    evaluator.run(range(1))
    found = [record.message for record in caplog.records if record.name.startswith("monai_regplugins")]
    rest = "pairs, at the aligned pair in 2, at the discrete search in 1; in 1 the aligned pair itself is kept."
    assert found == [f"{line}{rest}" for line in said]


def test_it_says_how_long_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    """At the start, after the fourth pair, and then each minute; a stop says that nothing is written."""
    time, evaluator = EvaluationTime(), Engine(lambda engine, pair: None)
    evaluator.state.rank = 0  # as MONAI's have it
    time.attach(evaluator)
    stops = list[str]()
    evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=5), lambda: stops.append(stop_message()))
    caplog.set_level(logging.INFO)
    evaluator.run(range(9))
    assert [record.message for record in caplog.records if record.name.startswith("monai_regplugins")] == [
        "Evaluating 9 pairs.",
        "pair 4 of 9: about 0.0 minutes left",
    ]
    assert ["start it again" in stop for stop in stops] == [True]
    assert "checkpoint" in stop_message()  # again what is said by default
    evaluator.run(range(51))
    assert "Evaluating 51 pairs; --val_pairs takes fewer." in caplog.messages
