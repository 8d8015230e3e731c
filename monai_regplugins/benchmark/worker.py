"""Process of one method: register prepared pairs and save field and cost of each.

A process of its own makes time and memory those of the method alone, and no crash in a compiled library ends the
comparison.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_regplugins.benchmark.baselines import BASELINES, Register, load_baseline
from monai_regplugins.benchmark.learned import load_bundle, load_voxelmorph
from monai_regplugins.checks import InputError, check_same_size, input_error_message
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.memory import peak_of_this_process

__all__ = ["LOADERS", "outcome_file", "work"]

LONGEST_MESSAGE = 300  # characters of an error that is not ours

LOADERS: dict[str, Callable[..., Register]] = {
    "bundle": load_bundle,
    "voxelmorph": load_voxelmorph,
    **{name: partial(load_baseline, name) for name in BASELINES},
}


def work(job: Mapping[str, Any]) -> None:
    """Register all pairs by one method.

    For each pair a file appears in ``folder``, see :func:`outcome_file`: ``ddf``, ``seconds`` (wall), ``cpu_seconds``
    (of all threads) and ``peak_mib`` (of the process so far), or ``error``, what went wrong in one line.

    Args:
        job: ``kind``, a name in :data:`LOADERS`, and ``options``, its keyword arguments; ``pairs``, files of tensors
            ``fixed``, ``moving``, ``spacing`` and possibly ``fixed_mask``; ``folder``, ``seed``, ``threads``.
    """
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    outcomes: Iterable[dict[str, Any]]
    try:
        register = LOADERS[job["kind"]](**job["options"])
        outcomes = (_attempt(register, pair, job["seed"], job["threads"]) for pair in job["pairs"])
    except Exception as error:  # the others of the comparison go on
        outcomes = [{"error": _about(error)}] * len(job["pairs"])
    for number, outcome in enumerate(outcomes):
        replace_file(outcome_file(job["folder"], number), partial(torch.save, outcome))


def outcome_file(folder: str | Path, number: int) -> Path:
    """Return the file of what a method made of pair ``number``."""
    return Path(folder, f"outcome_{number:04d}.pt")


def _attempt(register: Register, pair: str, seed: int, threads: int) -> dict[str, Any]:
    """Register one pair and measure the time; return an error as text."""
    try:
        images: dict[str, Tensor] = torch.load(pair, weights_only=True)
        known = {key: images[key] for key in ("fixed", "moving", "spacing")}
        wall, cpu = time.perf_counter(), time.process_time()
        ddf = register(**known, mask=images.get("fixed_mask"), seed=seed, threads=threads)
        cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        check_same_size(ddf, (len(images["spacing"]), *images["fixed"].shape[1:]), "the field", "the expected one")
        if not bool(torch.isfinite(ddf).all()):
            raise InputError("the field holds NaN or infinity.")
        return {"ddf": ddf.float(), **cost, "peak_mib": peak_of_this_process()}
    except Exception as error:
        return {"error": _about(error)}


def _about(error: Exception) -> str:
    """Return an error in one line."""
    return input_error_message(error) or f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST_MESSAGE]


if __name__ == "__main__":
    work(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
