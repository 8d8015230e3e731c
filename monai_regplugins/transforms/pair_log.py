"""Lines of the log about one pair, which a training leaves out: it prepares each pair in each epoch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["of_pair", "pair_logger", "unreported"]

_REPORTED = ContextVar("_REPORTED", default=True)
_PAIR = ContextVar("_PAIR", default="")
_said = set[tuple[str, str]]()  # of which file, and what


def pair_logger(name: str) -> logging.Logger:
    """Return the logger of a module that reports what it has done to a pair.

    Warnings begin with the name of the pair, see :func:`of_pair`. A line with ``extra={"file": path}`` is of a file,
    which may be in many pairs, and reported once, without it.

    Args:
        name: of the module.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_is_reported)
    return logger


@contextmanager
def unreported(enabled: bool = True) -> Iterator[None]:
    """Leave such lines out for a while, in this thread.

    Args:
        enabled: False changes nothing.

    Example:
        >>> logger = pair_logger("example")
        >>> with unreported():
        ...     logger.warning("the pair is turned")
    """
    token = _REPORTED.set(_REPORTED.get() and not enabled)
    try:
        yield
    finally:
        _REPORTED.reset(token)


@contextmanager
def of_pair(name: str) -> Iterator[None]:
    """Name the pair in warnings for a while, in this thread.

    Args:
        name: of the pair; empty for none.

    Example:
        >>> with of_pair("a_to_b"):
        ...     pass
    """
    token = _PAIR.set(name)
    try:
        yield
    finally:
        _PAIR.reset(token)


def _is_reported(record: logging.LogRecord) -> bool:
    if not _REPORTED.get():
        return False
    line = str(getattr(record, "file", "")), str(record.msg)
    is_new = line not in _said
    if line[0]:
        _said.add(line)
    elif (pair := _PAIR.get()) and record.levelno >= logging.WARNING:
        record.msg, record.args = f"{pair}: {record.getMessage()}", ()
    return is_new
