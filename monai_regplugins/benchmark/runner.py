"""Register the same prepared pairs by several methods, each in its own process, and measure the results."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data.utils import list_data_collate
from torch import Tensor
from tqdm import tqdm

from monai_regplugins.benchmark.worker import outcome_file
from monai_regplugins.engines.prepare_batch import PairPrepareBatch
from monai_regplugins.fields import warp
from monai_regplugins.metrics.pair import mean_metrics, measure_pair

__all__ = ["BenchmarkMethod", "BenchmarkProgress", "MethodResult", "compare", "prepare_pairs", "run_method"]

WORKER = "monai_regplugins.benchmark.worker"
SEEN = ("fixed", "moving", "spacing", "fixed_mask")  # what a method gets of a pair
SECONDS_BETWEEN_LOOKS = 1.0  # at how many pairs a method has done
SECONDS_BETWEEN_LINES = 60.0  # without a terminal
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@dataclass(frozen=True)
class BenchmarkMethod:
    """A method of the comparison.

    Attributes:
        name: of its row.
        kind: a name in :data:`~monai_regplugins.benchmark.worker.LOADERS`.
        options: keyword arguments of that loader, as JSON can hold them.
        curve: what it is a point of, the name of the method without its stiffness; empty for none.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    curve: str = ""

    def with_stiffness(self, factors: Sequence[float]) -> list[BenchmarkMethod]:
        """Return this method once for each factor on its regularization, itself where it has none."""
        if self.kind in ("identity", "voxelmorph") or (self.kind == "bundle" and not self.options.get("refine_steps")):
            return [self]
        return [
            replace(self, name=f"{self.name} x {f:g}", options={**self.options, "stiffness": f}, curve=self.name)
            for f in factors
        ]


@dataclass
class MethodResult:
    """Results of a method for all pairs.

    Attributes:
        metrics: means of :func:`~monai_regplugins.metrics.pair_metrics`, empty if it failed on any pair: means over
            other pairs than those of the other methods would compare pairs, not methods.
        seconds: wall time per pair; None where it failed, so are the next two.
        cpu_seconds: CPU time per pair, of all threads.
        peak_mib: largest resident set of its process, libraries included.
        error: what went wrong, in words; empty if nothing did.
        pairs: each pair's ``pair_id`` with its measures and costs, or its ``error``.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_mib: float | None = None
    error: str = ""
    pairs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class PreparedPair:
    """A pair on disk: the input of a method, and the targets to measure its result."""

    pair_id: str
    images: Path
    targets: Path


def compare(
    methods: Sequence[BenchmarkMethod],
    config: Mapping[str, Any],
    pairs: Sequence[Mapping[str, Any]],
    threads: int = 1,
    seed: int = 0,
    time_limit: float | None = None,
) -> dict[str, MethodResult]:
    """Register pairs by all methods and measure the results.

    Args:
        methods: the methods, of different names.
        config: evaluation configuration whose preprocessing prepares the pairs, for all methods alike.
        pairs: the pairs, as its data set has them.
        threads: CPU threads of each method.
        seed: of random numbers of the methods.
        time_limit: seconds after which a method is ended; None for none.

    Returns:
        The results by the names of the methods.

    Raises:
        InputError: When a pair cannot be read or prepared.
    """
    names = ["preparation", *(method.name for method in methods)]
    with TemporaryDirectory() as folder, BenchmarkProgress(names, len(pairs)) as progress:
        prepared = prepare_pairs(config, pairs, folder, progress.begin("preparation"))
        return {
            method.name: run_method(method, prepared, threads, seed, time_limit, progress.begin(method.name))
            for method in methods
        }


class BenchmarkProgress:
    """Show how many pairs each step of a comparison has done: a bar, or without a terminal lines of standard error.

    There is a line when a step begins, and one a minute.

    Args:
        names: of the steps.
        pairs: of each step.

    Example:
        >>> with BenchmarkProgress(["identity", "greedy"], 10) as progress:
        ...     show = progress.begin("identity")
        ...     show(3)
    """

    def __init__(self, names: Sequence[str], pairs: int) -> None:
        self.names, self.pairs = list(names), pairs
        self._bar: Any = None
        self._said = 0.0

    def __enter__(self) -> BenchmarkProgress:
        self._bar = tqdm(total=len(self.names) * self.pairs, unit="pair", disable=None)  # None: without a terminal
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, name: str) -> Callable[[int], None]:
        """Begin a step; what is returned is to be called with the number of pairs that it has done, now and then."""
        self._said = -math.inf
        show = partial(self._show, self.names.index(name))
        show(0)
        return show

    def _show(self, step: int, done: int) -> None:
        name = self.names[step]
        if not self._bar.disable:
            self._bar.set_postfix_str(name, refresh=False)
            self._bar.update(step * self.pairs + done - self._bar.n)
        elif (now := time.monotonic()) - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            line = f"{name} ({step + 1} of {len(self.names)}): {done} of {self.pairs} pairs"
            print(line, file=sys.stderr, flush=True)


def prepare_pairs(
    config: Mapping[str, Any],
    pairs: Iterable[Mapping[str, Any]],
    folder: str | Path,
    show: Callable[[int], object] = lambda done: None,
) -> list[PreparedPair]:
    """Run a configuration's preprocessing on pairs, once, and write what comes out to files in ``folder``.

    ``show`` is called with the number of pairs done.

    Raises:
        InputError: When a pair cannot be read or prepared.
    """
    preprocessing, prepare = ConfigParser(dict(config)).get_parsed_content("preprocessing"), PairPrepareBatch()
    prepared = []
    for number, pair in enumerate(pairs):
        _, targets, *_ = prepare(list_data_collate([preprocessing(pair)]))
        one = {key: value[0].clone() for key, value in targets.items()}  # of views, files would hold all
        files = [Path(folder, f"{name}_{number:04d}.pt") for name in ("images", "targets")]
        torch.save({key: one[key] for key in SEEN if key in one}, files[0])
        torch.save(one, files[1])
        prepared.append(PreparedPair(str(pair["pair_id"]), *files))
        show(len(prepared))
    return prepared


def run_method(
    method: BenchmarkMethod,
    pairs: Sequence[PreparedPair],
    threads: int = 1,
    seed: int = 0,
    time_limit: float | None = None,
    show: Callable[[int], object] = lambda done: None,
) -> MethodResult:
    """Register prepared pairs by one method in its own process, and measure the results.

    Whatever the method does, this returns: errors, crashes and a process that ends itself are reported in ``error``.
    ``show`` is called with the number of pairs done, about each second.
    """
    with TemporaryDirectory() as folder:
        job = {
            "kind": method.kind,
            "options": method.options,
            "pairs": [str(pair.images) for pair in pairs],
            "folder": folder,
            "seed": seed,
            "threads": threads,
        }
        file = Path(folder, "job.json")
        file.write_text(json.dumps(job), encoding="utf-8")
        done = [outcome_file(folder, number).is_file for number in range(len(pairs))]
        command = [sys.executable, "-m", WORKER, str(file)]
        ending = run_process(command, threads, time_limit, lambda: show(sum(is_done() for is_done in done)))
        return _summary([_measured(pair, outcome_file(folder, n), ending) for n, pair in enumerate(pairs)])


def run_process(
    command: Sequence[str],
    threads: int = 1,
    time_limit: float | None = None,
    look: Callable[[], object] = lambda: None,
) -> str:
    """Run a command with so many threads, and look each second; return in words how it ended, empty if well."""
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    end = math.inf if time_limit is None else time.monotonic() + time_limit
    pipe, errors = subprocess.PIPE, ""
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, errors="replace") as process:
        try:
            while (left := end - time.monotonic()) > 0:
                with suppress(subprocess.TimeoutExpired):
                    _, errors = process.communicate(timeout=min(left, SECONDS_BETWEEN_LOOKS))
                    break
                look()
            else:
                return f"it took longer than {time_limit:g} seconds and was ended."
        finally:
            process.kill()  # unless it has ended
    if process.returncode == 0:
        return ""
    last = (errors.strip().splitlines() or ["it said nothing"])[-1]
    if process.returncode < 0:
        return f"its process crashed ({signal.Signals(-process.returncode).name}): {last}"
    return f"its process ended with status {process.returncode}: {last}"


def _measured(pair: PreparedPair, outcome: Path, ending: str) -> dict[str, Any]:
    """Return costs and measures of one pair, or what went wrong."""
    if not outcome.is_file():
        return {"pair_id": pair.pair_id, "error": ending or "it left no field."}
    found: dict[str, Any] = torch.load(outcome, weights_only=True)
    if "error" in found:
        return {"pair_id": pair.pair_id, **found}
    targets: dict[str, Tensor] = torch.load(pair.targets, weights_only=True)
    ddf: Tensor = found.pop("ddf")
    warped = warp(targets["moving"][None], ddf[None], padding="border")[0]
    measures = measure_pair({"pred": {"ddf": ddf, "warped": warped}, "label": targets})
    return {"pair_id": pair.pair_id, **measures, **found}


def _summary(rows: list[dict[str, Any]]) -> MethodResult:
    """Return means over the pairs if all went well, else the first error."""
    costs = ("seconds", "cpu_seconds", "peak_mib")
    if errors := [row["error"] for row in rows if "error" in row]:
        share = "" if len(errors) == len(rows) else f"{len(errors)} of {len(rows)} pairs failed, the first because "
        return MethodResult(error=share + errors[0], pairs=rows)
    measures = [{key: value for key, value in row.items() if key not in costs} for row in rows]
    return MethodResult(
        metrics=mean_metrics(measures),
        seconds=statistics.fmean(row["seconds"] for row in rows),
        cpu_seconds=statistics.fmean(row["cpu_seconds"] for row in rows),
        peak_mib=max(row["peak_mib"] for row in rows),
        pairs=rows,
    )
