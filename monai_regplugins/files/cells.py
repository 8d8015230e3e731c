"""Texts in the cells of a table that a spreadsheet may open: it runs those that begin like a formula."""

from __future__ import annotations

__all__ = ["as_text", "from_cell"]

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a formula begins with
MARK = "'"  # what a spreadsheet takes for the beginning of a text


def as_text(text: str) -> str:
    """Return a cell that a spreadsheet takes as text: one that begins like a formula gets an apostrophe in front.

    Example:
        >>> as_text("=1+1"), as_text("a")
        ("'=1+1", 'a')
    """
    return f"{MARK}{text}" if text.startswith(FORMULA) else text


def from_cell(cell: str) -> str:
    """Return the text that :func:`as_text` has made a cell of.

    Example:
        >>> from_cell("'=1+1"), from_cell("'a'")
        ('=1+1', "'a'")
    """
    return cell[1:] if cell.startswith(MARK) and cell[1:].startswith(FORMULA) else cell
