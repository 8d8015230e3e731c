"""Common parts of all benchmarks: configurations, time and peak memory, Markdown tables, hardware, output files."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_regplugins.checks import InputError, check_file, suggest
from monai_regplugins.files.atomic import write_file
from monai_regplugins.renamed import current_names
from monai_regplugins.settings import settle

__all__ = [
    "check_output",
    "clock",
    "command_line",
    "given",
    "hardware",
    "markdown_table",
    "number",
    "processor",
    "publish",
    "read_config",
    "setting",
    "table_with_facts",
]

SUFFIXES = (".json", ".md")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, the first column aligned left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table_with_facts(header: Sequence[str], rows: Sequence[Sequence[str]], facts: Mapping[str, object]) -> str:
    """Return a table and, below it, what is needed to repeat it; in a name that is one word underscores are spaces."""
    named = {key.replace("_", " ") if key.isidentifier() else key: value for key, value in facts.items()}
    return "\n".join([markdown_table(header, rows), "", *(f"- {name}: {value}" for name, value in named.items())])


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


def read_config(file: Path, overrides: Mapping[str, Any], *overlays: Path) -> dict[str, Any]:
    """Return a bundle's configuration with overlays and overrides in it, its ``bundle_root`` that of the file.

    What neither sets is taken from the preset and the weights, see :func:`~monai_regplugins.settings.settle`.

    Raises:
        InputError: When there is no such file, or an override has no such key in it.
    """
    files = [str(check_file(one, "configuration")) for one in (file, *overlays)]
    config: dict[str, Any] = ConfigParser.load_config_files(files)
    settings = {"bundle_root": str(file.resolve().parents[1]), **overrides}
    for key in settings:
        if key not in config:
            raise InputError(f"'{files[-1]}' has no key '{key}' to set.{suggest(key, config)}")
    parser = ConfigParser(config | settings)
    settle(parser, [*overrides, *(key for overlay in overlays for key in ConfigParser.load_config_file(overlay))])
    read: dict[str, Any] = parser.get()
    return read


def given(args: argparse.Namespace, keys: Iterable[str]) -> dict[str, Any]:
    """Return the arguments of these names that the command line gave."""
    return {key: getattr(args, key) for key in keys if getattr(args, key) is not None}


def setting(text: str) -> tuple[str, Any]:
    """Split ``key=value`` of a command line; the value is read as JSON where it is that, else as a word."""
    key, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"'{text}' is no KEY=VALUE")
    try:
        read = json.loads(value)
    except ValueError:
        read = value
    (current,) = current_names({key: read}).items()
    return current


def clock(device: torch.device) -> float:
    """Return CPU seconds of the process, which other programs do not change much; on a GPU wall seconds."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def check_output(path: Path | None, suffixes: Sequence[str] = SUFFIXES, name: str = "output") -> None:
    """Reject an output file of another type before the benchmark runs.

    Raises:
        InputError: When the file name ends in none of the suffixes, or its folder does not exist.
    """
    if path is None:
        return
    if path.suffix not in suffixes:
        raise InputError(f"{name} is '{path}', expected a file name that ends in {' or '.join(suffixes)}.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{name} is '{path}', but its folder does not exist; make it first.")


def publish(path: Path | None, markdown: str, about: Mapping[str, object], **results: Any) -> str:
    """Print a report, write it if there is a path, the text to a ``.md`` file or all values to a ``.json`` file.

    Args:
        path: file to write, None for none.
        markdown: the text.
        about: what is needed to repeat the run.
        results: values by name; a mapping may hold dataclasses.

    Returns:
        The text.
    """
    print(markdown)
    if path is not None:
        content = {**about, **{name: _plain(value) for name, value in results.items()}}
        text = json.dumps(content, indent=4) if path.suffix == ".json" else markdown
        write_file(path, f"{text}\n".encode())
    return markdown


def _plain(value: Any) -> Any:
    """Turn dataclasses, alone or in a mapping, into dictionaries."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
