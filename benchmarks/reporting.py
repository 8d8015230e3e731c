"""What all benchmarks share: Markdown tables, the machine they ran on, peak memory, files."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from monai_regplugins.checks import InputError

SUFFIXES = (".json", ".md")
MIB = 2**20


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, the first column aligned left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int) -> str:
    """Return a number with so many decimals, a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def hardware(device: torch.device) -> str:
    """Name processor, device, software and load: with other programs on the cores, times are not to be trusted."""
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return (
        f"{gpu}{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s){load}; "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, {platform.system()}"
    )


def processor() -> str:
    """Name the processor as Linux does, else as Python knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def command_line(script: str, argv: Sequence[str]) -> str:
    """Return the command that repeats a run from the root of the repository."""
    return shlex.join(["python", f"benchmarks/{Path(script).name}", *argv])


def peak_of_this_process() -> float:
    """Return the largest resident set of this process so far, MiB.

    Linux hands ``ru_maxrss`` down from the process that started this one, the high-water mark in ``/proc`` it does not.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) * 1024 / MIB
    import resource  # not on Windows

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / MIB if sys.platform == "darwin" else largest * 1024 / MIB


def check_output(path: Path | None) -> None:
    """Refuse an output file of another kind before hours of work, not after.

    Raises:
        InputError: When the file name ends in neither ``.json`` nor ``.md``, or its folder does not exist.
    """
    if path is None:
        return
    if path.suffix not in SUFFIXES:
        raise InputError(f"output is '{path}', expected a file name that ends in {' or '.join(SUFFIXES)}.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"output is '{path}', but its folder does not exist; make it first.")


def write_report(path: Path, markdown: str, content: Mapping[str, object]) -> None:
    """Write the Markdown text to a ``.md`` file, the content to a ``.json`` file."""
    text = json.dumps(content, indent=4) if path.suffix == ".json" else markdown
    path.write_text(text + "\n", encoding="utf-8")
