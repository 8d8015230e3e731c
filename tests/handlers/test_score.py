"""The score of an evaluation in words."""

from types import SimpleNamespace

from monai_regplugins.handlers.score import Score, chosen_measure, score_called


def test_a_distance_is_written_as_one() -> None:
    evaluator = SimpleNamespace(state=SimpleNamespace(scores={"score": Score("TRE", " mm", -1)}))
    assert score_called("score", evaluator).text(-1.25) == "TRE 1.250 mm"
    assert score_called("other", evaluator).text(-1.25) == "other -1.250"
    assert score_called("score").text(0.5) == "score 0.500"


def test_a_measure_that_pairs_never_had_is_not_chosen() -> None:
    """Labels that no two images share have no overlap, before or after; a lost measure stays the chosen one."""
    nan = float("nan")
    never = {"dsc": nan, "dsc_before": nan, "ncc": 0.5, "ncc_before": 0.4}
    assert chosen_measure(never, "tre") == "ncc"
    assert chosen_measure({**never, "dsc_before": 0.5}, "tre") == "dsc"
