"""Distribution of a list of pairs over processes: by torchrun, or in shards."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from monai_regplugins.checks import InputError

__all__ = ["Share", "share_of"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """Which part of a list a process registers.

    Args:
        index: of the process, from 0.
        count: of processes.
        is_shard: whether it registers its own part alone; else it goes on with what others have not begun.

    Example:
        >>> Share(1, 3).order(["a", "b", "c", "d"])
        ['b', 'c', 'a', 'd']
        >>> Share(1, 3, is_shard=True).order(["a", "b", "c", "d"])
        ['b']
    """

    index: int = 0
    count: int = 1
    is_shard: bool = False

    @property
    def ends(self) -> bool:
        """Whether this process waits for all pairs and writes the report."""
        return self.index == 0 and not self.is_shard

    def order(self, items: Sequence[Item]) -> list[Item]:
        """The items that the process takes, in its order: its own part first, then those of the next process, ..."""
        parts = 1 if self.is_shard else self.count
        return [item for step in range(parts) for item in items[(self.index + step) % self.count :: self.count]]


def share_of(shard: str = "") -> Share:
    """Return the share of this process.

    Args:
        shard: ``"i/n"``, the i-th of n parts, from 1; empty for that which torchrun states in the environment
            (``RANK``, ``WORLD_SIZE``), everything without it.

    Raises:
        InputError: When ``shard`` is anything else.

    Example:
        >>> share_of("2/8")
        Share(index=1, count=8, is_shard=True)
    """
    if shard:
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", str(shard))
        index, count = (int(number) for number in found.groups()) if found else (0, 0)
        if not 1 <= index <= count:
            raise InputError(f"shard is '{shard}', expected i/n with i from 1 to n, such as 2/8; correct it.")
        return Share(index - 1, count, is_shard=True)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if all(os.environ.get(name, "").isdigit() for name in names):
        return Share(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    return Share()
