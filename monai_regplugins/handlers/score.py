"""What the score of an evaluation is made of, and how it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Score", "chosen_measure", "score_called"]


class Score(NamedTuple):
    """A score, higher is better, as the measure that it is made of.

    Attributes:
        title: of the measure.
        unit: of the measure, with a space before it; empty without one.
        sign: -1 of a distance, whose score is negative.
        start: the state of the pairs that are not registered, as tables call it: ``before``, or ``aligned`` where an
            initial alignment moved any.

    Example:
        >>> Score("TRE", " mm", -1).text(-1.25)
        'TRE 1.250 mm'
    """

    title: str
    unit: str = ""
    sign: int = 1
    start: str = "before"

    def value(self, score: float) -> float:
        """The measure."""
        return self.sign * score

    def text(self, score: float) -> str:
        """The measure with its name and unit."""
        return f"{self.title} {self.value(score):.3f}{self.unit}"


def score_called(name: str, evaluator: Any = None) -> Score:
    """Return what a score is made of, as the last evaluation has noted it; without a note its name says it.

    Args:
        name: of the metric.
        evaluator: the engine that has it.

    Example:
        >>> score_called("score").text(0.5)
        'score 0.500'
    """
    known: Mapping[str, Score] = getattr(getattr(evaluator, "state", None), "scores", {})
    return known.get(name, Score(name))


def chosen_measure(means: Mapping[str, float], wanted: str) -> str:
    """Return which measure pairs are scored by: the wanted one, else overlap, landmark error or correlation.

    Args:
        means: of all measures of the pairs; one they had no value of before a registration is none of theirs.
        wanted: a measure.

    Example:
        >>> chosen_measure({"ncc": 0.9, "ncc_before": 0.8, "dsc": 0.7, "dsc_before": 0.6}, "tre")
        'dsc'
    """
    before = {one: means.get(f"{one}_before", means.get(one, math.nan)) for one in (wanted, "dsc", "tre")}
    return next((one for one, value in before.items() if math.isfinite(value)), "ncc")
