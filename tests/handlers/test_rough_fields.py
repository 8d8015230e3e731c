"""Which fields are said to be rough."""

from __future__ import annotations

import pytest

from monai_regplugins.handlers.rough_fields import rough_fields
from monai_regplugins.verdict.judge import judge

SMOOTH = {"sdlogj": 0.3, "folding_percent": 0.0}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({"sdlogj": 0.44, "folding_percent": 0.09}, ""),
        ({"sdlogj": 0.46, "folding_percent": 0.0}, "SDlogJ 0.460 (0.300 of the weights it started from)"),
        ({"sdlogj": 0.3, "folding_percent": 0.11}, "folding 0.110 % (0.000 % of the weights it started from)"),
        (
            {"sdlogj": 0.8, "folding_percent": 0.6},
            "SDlogJ 0.800 (0.300 of the weights it started from, a WARN above 0.75), "
            "folding 0.600 % (0.000 % of the weights it started from, a WARN above 0.5 %)",
        ),
        ({"sdlogj": float("nan"), "folding_percent": 0.0}, ""),
        ({}, ""),
    ],
)
def test_beside_a_start(now: dict[str, float], expected: str) -> None:
    assert rough_fields(now, SMOOTH) == expected


@pytest.mark.parametrize("value", [0.5, 0.74, 0.76, 2.0])
def test_without_one_it_is_the_limit_of_the_verdict(value: float) -> None:
    assert bool(rough_fields({"sdlogj": value})) == (judge({"sdlogj": value}).level != "PASS")
    assert rough_fields({"sdlogj": value}, {"sdlogj": value}).count("WARN") == (value > 0.75)
