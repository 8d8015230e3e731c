"""Free memory, and a check before allocation that work on a given number of voxels fits into it."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from monai_regplugins.checks import InputError

__all__ = ["BUDGET", "REGISTERING", "RESAMPLING", "check_memory", "free_memory", "in_gib", "peak_of_this_process"]

BUDGET = "MONAI_REGPLUGINS_MEMORY"  # environment variable: a budget in place of what the system says is free
REGISTERING = 110  # bytes per voxel of the fixed grid: inference.json at its peak, 60 measured, 105 with inverse fields
RESAMPLING = 60  # bytes per voxel of the fixed grid: what bringing the moving image onto it takes, 51 measured
TRIFLE = 2**28  # bytes that are not worth the milliseconds of asking the system
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_FILES = (  # limit, use, and the key of memory.stat that counts what is given back on demand: version 2, 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def check_memory(shape: Sequence[int], bytes_per_voxel: float, what: str, work: str) -> None:
    """Check that work on a grid fits in the memory that is free.

    Args:
        shape: voxels along each axis, channels included.
        bytes_per_voxel: what the work takes at its peak.
        what: whose grid it is, e.g. ``"fixed image 'scan.nii.gz'"``.
        work: what takes the memory, a verb, e.g. ``"read"``.

    Raises:
        InputError: When it does not; the message gives both amounts.
    """
    needed = math.prod(shape) * bytes_per_voxel
    free = free_memory() if needed > TRIFLE or BUDGET in os.environ else None
    if free is not None and needed > free:
        raise InputError(
            f"{what} has {' x '.join(map(str, shape))} voxels, which take about {in_gib(needed)} of memory to {work}, "
            f"and {in_gib(free)} are free; crop it or resample it to larger voxels, or give the program more memory "
            f"({BUDGET}=64G, say, sets another budget)."
        )


def free_memory() -> int | None:
    """Bytes that this process may still take, None if the system does not report it.

    The smallest of what Linux counts as available (``MemAvailable``), what the limits of its control groups leave
    (containers, batch systems), and what is left of the limit of address space (``ulimit -v``); elsewhere the memory
    that the machine has. The environment variable ``MONAI_REGPLUGINS_MEMORY``, such as ``64G``, is taken instead of all
    that.

    Raises:
        InputError: When the variable is no amount of memory.
    """
    if text := os.environ.get(BUDGET, "").strip():
        if not (found := NUMBER.fullmatch(text)):
            raise InputError(f"{BUDGET} is {text!r}, expected an amount of memory such as 64G or 500M; correct it.")
        return int(float(found[1]) * UNITS[found[2].upper()])
    amounts = [*_available(), *_left_by_cgroups(), *_left_of_address_space()]
    return min(amounts) if amounts else _installed()


def peak_of_this_process() -> float:
    """Return the largest resident set of this process so far, MiB; 0 where the system does not report it.

    Linux hands ``ru_maxrss`` down from the process that started this one, the high-water mark in ``/proc`` it does not.
    """
    if found := re.search(r"VmHWM:\s*(\d+) kB", _text(PROC / "self" / "status")):
        return int(found[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return 0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 2**20 if sys.platform == "darwin" else largest / 2**10


def _available() -> Iterator[int]:
    """What the kernel can give without swapping."""
    if found := re.search(r"^MemAvailable:\s+(\d+) kB", _text(PROC / "meminfo"), re.MULTILINE):
        yield 1024 * int(found[1])


def _left_by_cgroups() -> Iterator[int]:
    """What each limited control group that holds this process leaves; a group counts the use of those within it."""
    for line in _text(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = CGROUPS / "memory" if controllers else CGROUPS
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            for limit, use, reclaimable in CGROUP_FILES:
                yield from _left_in(folder, limit, use, reclaimable)
            if folder == top:
                break


def _left_in(folder: Path, limit: str, use: str, reclaimable: str) -> Iterator[int]:
    """What one group leaves, nothing if it has no limit; cached files make room."""
    most, used = _text(folder / limit).strip(), _text(folder / use).strip()
    if most.isdecimal() and used.isdecimal():
        cached = re.search(rf"^{reclaimable} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
        yield max(0, int(most) - int(used) + (int(cached[1]) if cached else 0))


def _left_of_address_space() -> Iterator[int]:
    """What a limit of the address space leaves."""
    limit = re.search(r"^Max address space\s+(\d+)", _text(PROC / "self" / "limits"), re.MULTILINE)
    taken = re.search(r"^VmSize:\s+(\d+) kB", _text(PROC / "self" / "status"), re.MULTILINE)
    if limit and taken:
        yield max(0, int(limit[1]) - 1024 * int(taken[1]))


def _installed() -> int | None:
    """The machine's memory, where the system reports it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no such function
        return None


def _text(file: Path) -> str:
    """The content of a file of the system, empty if there is none."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def in_gib(amount: float) -> str:
    """Bytes in words.

    Example:
        >>> in_gib(3 * 2**29)
        '1.5 GiB'
    """
    return f"{amount / 2**30:.3g} GiB"
