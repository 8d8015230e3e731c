"""Scores, means and rows of an evaluation, on one process and on several."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine

from monai_regplugins.checks import InputError
from monai_regplugins.handlers import RegistrationMetrics
from monai_regplugins.handlers.registration_metrics import score_of
from monai_regplugins.handlers.score import score_called
from monai_regplugins.metrics import Measure, pair_metrics
from monai_regplugins.metrics.pair import mean_metrics


def item(shift: int, labels: bool = True) -> dict[str, Any]:
    """Return an engine's output for a pair of squares that are a shift apart, and an identity field."""
    label = torch.zeros(1, 12, 12, dtype=torch.uint8)
    label[:, 2:6, 2:6] = 1
    moved = label.roll(shift, 1)
    targets = {"moving": moved.float(), "fixed": label.float(), "spacing": torch.ones(2)}
    targets |= {"moving_label": moved, "fixed_label": label} if labels else {}
    return {"pred": {"ddf": torch.zeros(2, 12, 12), "warped": moved.float()}, "label": targets}


def evaluated(batches: list[list[tuple[str, dict[str, Any]]]], **kwargs: Any) -> Any:
    """Run an engine with the metric over batches of (pair_id, output)."""

    def step(engine: Any, batch: list[tuple[str, dict[str, Any]]]) -> Any:
        engine.state.batch = [{"pair_id": name} for name, _ in batch]
        return [output for _, output in batch]

    engine = Engine(step)
    RegistrationMetrics(**kwargs).attach(engine, "score")
    engine.run(batches)
    return engine.state


def test_score_is_mean_dice_of_the_pairs() -> None:
    state = evaluated([[("a", item(0)), ("b", item(2))], [("c", item(4))]])
    assert state.metrics["score"] == state.metrics["dsc"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert [row["pair_id"] for row in state.pair_rows] == ["a", "b", "c"]
    assert [row["dsc"] for row in state.pair_rows] == pytest.approx([1, 0.5, 0])
    assert state.metrics["hd95"] == pytest.approx((0 + 2 + 4) / 3)
    expected = pair_metrics(**item(2)["pred"], **item(2)["label"])
    assert {name: value for name, value in state.pair_rows[1].items() if name != "pair_id"} == expected
    assert "hd95" not in evaluated([[("a", item(0))]], surface=False).metrics
    assert "dsc_4" in evaluated([[("a", item(0))]], labels=[1, 4]).metrics


def test_score_without_labels_is_mean_correlation() -> None:
    state = evaluated([[("a", item(0, labels=False)), ("b", item(4, labels=False))]])
    assert "dsc" not in state.metrics
    ncc = [row["ncc"] for row in state.pair_rows]
    assert state.metrics["score"] == pytest.approx((ncc[0] + ncc[1]) / 2)
    assert ncc[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("wanted", "known", "expected"),
    [
        ("tre", ("tre", "dsc", "ncc"), "tre"),
        ("tre", ("dsc", "ncc"), "dsc"),
        ("dsc", ("tre", "ncc"), "tre"),
        ("mae", ("ncc",), "ncc"),
        ("own_x", ("own_x", "dsc"), "own_x"),
    ],
)
def test_what_is_scored_where_pairs_lack_a_measure(wanted: str, known: tuple[str, ...], expected: str) -> None:
    rows = [{"pair_id": "a", **{f"{one}{when}": 0.25 for one in known for when in ("_before", "")}}]

    class Measured(RegistrationMetrics):
        def compute(self) -> list[dict[str, Any]]:
            return rows

    engine = Engine(lambda engine, batch: None)
    Measured(wanted, own={"x": Measure(torch.nn.L1Loss())}).completed(engine, "score")
    sign = -1 if expected == "tre" else 1
    assert engine.state.metrics["score"] == sign * 0.25
    assert engine.state.pair_scores == {"a": sign * 0.25}
    texts = {"tre": "TRE 0.250 mm", "dsc": "DSC 0.250", "ncc": "NCC 0.250", "own_x": "x 0.250"}
    assert score_called("score", engine).text(engine.state.metrics["score"]) == texts[expected]


@pytest.mark.parametrize(("measure", "labels", "sign"), [("dsc", True, 1), ("hd95", True, -1), ("dsc", False, 1)])
def test_score_of_doing_nothing(measure: str, labels: bool, sign: int) -> None:
    """A field that shifts by two brings the pair of a shift of two into place, and nothing was done before."""
    shifted, still = item(2, labels), item(2, labels)
    shifted["pred"] = {
        "ddf": torch.stack([torch.full((12, 12), 2.0), torch.zeros(12, 12)]),
        "warped": shifted["label"]["fixed"],
    }
    done, nothing = (evaluated([[("a", one)]], measure=measure).metrics for one in (shifted, still))
    assert done["score_before"] == nothing["score"] == nothing["score_before"]
    name = measure if labels else "ncc"
    assert done["score_before"] == pytest.approx(sign * done[f"{name}_before"])
    assert done["score"] > done["score_before"]


@pytest.mark.parametrize("measure", ["tre", "dsc"])
def test_a_measure_that_a_pair_has_lost_is_the_worst(measure: str) -> None:
    """Left out of the mean, it would make the score of a network that diverges on a pair a better one."""
    rows: list[dict[str, Any]] = [
        {measure: 0.5, f"{measure}_before": 0.9},
        {measure: math.nan, f"{measure}_before": 0.9},
    ]
    means = mean_metrics(rows)
    assert score_of(rows, means, measure) == -math.inf
    assert math.isfinite(score_of(rows, means, measure, "_before"))
    never = [{**row, f"{measure}_before": row[measure]} for row in rows]  # such as labels that only one image has
    assert abs(score_of(never, mean_metrics(never), measure)) == 0.5


def test_doing_nothing_is_to_align_where_pairs_are_aligned() -> None:
    """Of three pairs, one aligned first: its score before is that after the alignment."""
    rows = [{"pair_id": name, "dsc_before": 0.2, "dsc": 0.8, "ncc_before": 0.1, "ncc": 0.9} for name in "abc"]
    rows[1] |= {"dsc_aligned": 0.5, "ncc_aligned": 0.4}

    class Measured(RegistrationMetrics):
        def compute(self) -> list[dict[str, Any]]:
            return rows

    engine = Engine(lambda engine, batch: None)
    Measured().completed(engine, "score")
    assert engine.state.metrics["score_before"] == pytest.approx((0.2 + 0.5 + 0.2) / 3)
    assert engine.state.metrics["dsc_before"] == pytest.approx(0.2)
    assert engine.state.metrics["score"] == pytest.approx(0.8)


def test_diverged_network_is_worst() -> None:
    broken = item(0, labels=False)
    broken["pred"]["warped"] = torch.full((1, 12, 12), math.nan)
    assert evaluated([[("a", item(0, labels=False)), ("b", broken)]]).metrics["score"] == -math.inf


def test_real_evaluator_keeps_the_best(make_training: Any) -> None:
    training = make_training(max_epochs=2)
    training.trainer.run()
    state = training.evaluator.state
    assert state.key_metric_name == "score"
    assert isinstance(state.metrics["score"], float)
    assert state.best_metric >= state.metrics["score"]
    assert state.best_metric_epoch in (1, 2)
    assert [row["pair_id"] for row in state.pair_rows] == ["0_to_1", "1_to_2"]


def test_processes_are_gathered_and_repeated_pairs_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    other = evaluated([[("b", item(2)), ("a", item(0))]]).pair_rows

    def gather(gathered: list[Any], rows: Any) -> None:
        gathered[:] = [rows, other]

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    metric = RegistrationMetrics()
    metric.update([({"pair_id": "a"}, item(0))])
    assert [row["pair_id"] for row in metric.compute()] == ["a", "b"]


def test_pairs_need_a_name() -> None:
    with pytest.raises(InputError, match="pair_id"):
        RegistrationMetrics().update([({"moving": 1}, item(0))])


def test_score_is_minus_the_mean_distance_of_the_landmarks() -> None:
    pairs = []
    for name, offset in (("a", (3.0, 4.0)), ("b", (0.0, 1.0))):
        output = item(2)
        fixed = torch.tensor([[2.0, 3.0], [5.0, 4.0]])
        output["label"] |= {"fixed_landmarks": fixed, "moving_landmarks": fixed + torch.tensor(offset)}
        output["label"]["spacing"] = torch.tensor([2.0, 1.0])
        pairs.append((name, output))
    pairs[1][1]["pred"]["ddf"][0] = 1.5  # 3 mm along the first axis, the rest is 1 mm along the second
    state = evaluated([pairs], measure="tre")
    expected = [math.hypot(6.0, 4.0), math.hypot(3.0, 1.0)]
    assert [row["tre"] for row in state.pair_rows] == pytest.approx(expected)
    assert state.metrics["tre"] == pytest.approx(sum(expected) / 2)
    assert state.metrics["score"] == pytest.approx(-sum(expected) / 2)
    assert "dsc" in state.metrics


def test_without_landmarks_the_score_is_the_overlap() -> None:
    state = evaluated([[("a", item(1)), ("b", item(2))]], measure="tre")
    assert state.metrics["score"] == pytest.approx(state.metrics["dsc"])


def test_unknown_measure_is_refused() -> None:
    with pytest.raises(InputError, match=r"measure is 'tres'; .*Did you mean 'tre'"):
        RegistrationMetrics(measure="tres")


@pytest.mark.parametrize("known", [1.0, 0.0])
def test_error_of_known_fields(known: float) -> None:
    output = item(0, labels=False)
    output["label"] |= {"true_ddf": torch.full((2, 12, 12), 0.5), "has_true_ddf": torch.tensor(known)}
    state = evaluated([[("a", output)]], measure="mae")
    assert state.metrics["score"] == pytest.approx(-1.0 if known else 1.0)  # else the correlation
    assert ("mae" in state.metrics) == bool(known)
