"""Widened numbers and compared sizes."""

from __future__ import annotations

import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.losses.numerics import at_least_float32, check_spatial_match


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.uint8, torch.float32),
    ],
)
def test_widened(given: torch.dtype, expected: torch.dtype) -> None:
    widened = at_least_float32(torch.tensor([0, 1, 3]).to(given))
    assert widened.dtype == expected
    assert widened.tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 1, 4, 5), (2, 1, 4, 5)), ((2, 1, 4, 5), (2, 3, 4, 5)), ((1, 3, 4, 5, 6), (1, 1, 4, 5, 6))],
    ids=["2D", "other channels", "3D"],
)
def test_matching_sizes_pass(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check_spatial_match(torch.zeros(a), torch.zeros(b), "warped", "fixed")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 1, 4, 5), (1, 1, 4, 5)),
        ((2, 1, 4, 5), (2, 1, 4, 1)),
        ((2, 1, 4, 5), (2, 1, 4, 5, 6)),
        ((2, 1, 4), (2, 1, 4)),
    ],
    ids=["batch", "broadcast axis", "2D and 3D", "1D"],
)
def test_what_would_broadcast_is_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^warped \(2, .* and fixed \(.* do not match"):
        check_spatial_match(torch.zeros(a), torch.zeros(b), "warped", "fixed")
