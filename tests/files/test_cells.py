"""Cells that a spreadsheet would run are texts, and are read back as they were."""

from __future__ import annotations

import pytest

from monai_regplugins.files.cells import as_text, from_cell


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a", "", "'a'", "50%", "'"])
def test_a_text_stays_one(text: str) -> None:
    assert (as_text(text) == text) is (text[:1] not in ("=", "+", "-", "@", "\t", "\r") or not text)
    assert from_cell(as_text(text)) == text
    assert as_text(text)[:1] not in ("=", "+", "-", "@", "\t", "\r")  # as "" is not
