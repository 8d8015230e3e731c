"""Command lines that one process runs in turn, each of them as ``python -m`` does: the imports are paid once."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple


class Done(NamedTuple):
    """How a program ended, and what it said."""

    status: int
    output: str
    errors: str


def flags_of(overrides: Mapping[str, object]) -> list[str]:
    """Overrides as words of a command line."""
    return [word for key, value in overrides.items() for word in (f"--{key}", str(value))]


@contextlib.contextmanager
def fresh_process() -> Iterator[None]:
    """Begin with Python's own hooks, and give back what a program changes in its process."""
    root, factory, hook, path = logging.getLogger(), logging.getLogRecordFactory(), sys.excepthook, list(sys.path)
    handlers, level = list(root.handlers), root.level
    sys.excepthook = sys.__excepthook__
    logging.setLogRecordFactory(logging.LogRecord)
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)
        root.handlers[:], sys.excepthook, sys.path[:] = handlers, hook, path
        root.setLevel(level)


def run_program(module: str, words: Sequence[object]) -> Done:
    """Run a module as a program of its own; what ends it is shown by the hook of that moment."""
    status, before = 0, list(sys.argv)
    sys.argv[:] = [module, *map(str, words)]
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
        fresh_process(),
    ):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:
            status = 1
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            sys.argv[:] = before
    return Done(status, output.getvalue(), errors.getvalue())


if __name__ == "__main__":  # a list of command lines, each of them a module and its words
    commands = json.loads(sys.argv[1])
    print(json.dumps([run_program(module, words) for module, *words in commands]))
