"""Options that are given twice on a command line: of two values one would be passed over without a word."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from monai_regplugins.renamed import OPTIONS

__all__ = ["OptionParser", "given_twice"]

OPTION = re.compile(r"--[a-zA-Z]")


def given_twice(words: Sequence[str]) -> str:
    """Say which option of a command line is given twice, also under a retired name; empty if none is.

    Args:
        words: options, each with its value in the next word or behind ``=``.

    Example:
        >>> given_twice(["--ckpt", "model.pt", "--seed", "1", "--ckpt=checkpoint.pt"])
        "--ckpt is given twice, as 'model.pt' and 'checkpoint.pt'; give it once."
    """
    first: dict[str, str] = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        key = name.lstrip("-").replace("-", "_")
        key, value = OPTIONS.get(key, key), value if equals else following
        if OPTION.match(word) and key in first:
            return f"--{key} is given twice, as '{first[key]}' and '{value}'; give it once."
        if OPTION.match(word):
            first[key] = value
    return ""


class OptionParser(argparse.ArgumentParser):
    """A parser that refuses an option that is given twice, of which ``argparse`` takes the last.

    Example:
        >>> parser = OptionParser()
        >>> _ = parser.add_argument("--seed")
        >>> parser.parse_args(["--seed", "1"]).seed
        '1'
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in (None, "store"):
            self.register("action", name, _StoreOnce)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command line, see :class:`argparse.ArgumentParser`."""
        for action in self._actions:
            vars(action).pop("given", None)  # by the command line before
        return super().parse_known_args(args, namespace)


class _StoreOnce(argparse.Action):
    """Store the value of an option that has none yet."""

    given: Any

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if "given" in vars(self):
            parser.error(f"{option} is given twice, as '{self.given}' and '{values}'; give it once.")
        self.given = values
        setattr(namespace, self.dest, values)
