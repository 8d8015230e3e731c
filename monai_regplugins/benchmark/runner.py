"""Register the same prepared pairs by several methods, each in its own process, and measure the results."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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

__all__ = ["BenchmarkMethod", "MethodResult", "compare", "prepare_pairs", "run_method"]

WORKER = "monai_regplugins.benchmark.worker"
SEEN = ("fixed", "moving", "spacing", "fixed_mask")  # what a method gets of a pair
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
    with TemporaryDirectory() as folder:
        prepared = prepare_pairs(config, pairs, folder)
        results = {}
        for method in (bar := tqdm(methods, unit="method")):
            bar.set_postfix_str(method.name)
            results[method.name] = run_method(method, prepared, threads, seed, time_limit)
        return results


def prepare_pairs(
    config: Mapping[str, Any], pairs: Iterable[Mapping[str, Any]], folder: str | Path
) -> list[PreparedPair]:
    """Run a configuration's preprocessing on pairs, once, and write what comes out to files in ``folder``.

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
    return prepared


def run_method(
    method: BenchmarkMethod,
    pairs: Sequence[PreparedPair],
    threads: int = 1,
    seed: int = 0,
    time_limit: float | None = None,
) -> MethodResult:
    """Register prepared pairs by one method in its own process, and measure the results.

    Whatever the method does, this returns: errors, crashes and a process that ends itself are reported in ``error``.
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
        ending = run_process([sys.executable, "-m", WORKER, str(file)], threads, time_limit)
        return _summary([_measured(pair, outcome_file(folder, n), ending) for n, pair in enumerate(pairs)])


def run_process(command: Sequence[str], threads: int = 1, time_limit: float | None = None) -> str:
    """Run a command with so many threads; return in words how it ended, empty if well."""
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    try:
        done = subprocess.run(
            command, env=environment, timeout=time_limit, capture_output=True, text=True, errors="replace", check=False
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {time_limit:g} seconds and was ended."
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if done.returncode < 0:
        return f"its process crashed ({signal.Signals(-done.returncode).name}): {last}"
    return f"its process ended with status {done.returncode}: {last}"


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
