"""The command ``regplugins doctor``: report the installation and run a self-test registration.

Each check imports what it needs by itself, so that a package which cannot be imported is reported.
"""

from __future__ import annotations

import math
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["run_doctor"]

PACKAGES = ("monai-regplugins", "torch", "monai", "pytorch-ignite", "numpy", "nibabel", "SimpleITK")
NEEDED_BUNDLES = ("ran", "r2n2", "regnet")
GIBIBYTE = 2**30
SHAPE, SPACING = (40, 32, 40), 8.0  # of the phantom: small, so that the test takes seconds


def run_doctor() -> int:
    """Run all checks and print their findings; return the exit status, 1 if a check fails."""
    passed = [_passes(title, check) for title, check in CHECKS.items()]
    print("everything works" if all(passed) else f"{passed.count(False)} of {len(passed)} checks failed")
    return 0 if all(passed) else 1


def _passes(title: str, check: Callable[[], Iterator[str]]) -> bool:
    """Print the findings of one check and its error, if any; return whether it passed."""
    print(f"{title}:")
    try:
        for line in check():
            print("  " + line.replace("\n", "\n  "), flush=True)
    except Exception as error:  # a report of what is broken has to survive all of it
        reason = " ".join(str(error).split())
        print(f"  FAILED: {reason or type(error).__name__}", flush=True)
        return False
    return True


def _versions() -> Iterator[str]:
    """The versions of Python and of the packages that results depend on."""
    yield f"Python {platform.python_version()} on {platform.platform()}"
    missing = []
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        raise RuntimeError(f"not installed: {', '.join(missing)}; run pip install {' '.join(missing)}")


def _devices() -> Iterator[str]:
    """The processors, their free memory and the number of threads."""
    import torch

    from monai_regplugins.memory import free_memory

    free = free_memory()
    memory = "unknown" if free is None else f"{free / GIBIBYTE:.1f} GiB"
    yield f"CPU: {os.cpu_count()} cores, {torch.get_num_threads()} threads, memory free: {memory}"
    for index in range(torch.cuda.device_count()):
        left, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield f"cuda:{index}: {name}, memory free: {left / GIBIBYTE:.1f} of {total / GIBIBYTE:.1f} GiB"
    if not torch.cuda.is_available():
        yield "no CUDA device: registration runs on the CPU"


def _bundles() -> Iterator[str]:
    """The bundles, and whether their weights fit."""
    from monai_regplugins.bundle_folders import all_bundles, find_bundle
    from monai_regplugins.commands import describe_bundle
    from monai_regplugins.registration import load_bundle

    found = all_bundles()
    yield from map(describe_bundle, found.values())
    for name in NEEDED_BUNDLES:
        load_bundle(found.get(name) or find_bundle(name), device="cpu")
    yield f"the weights of {', '.join(NEEDED_BUNDLES)} fit"


def _self_test() -> Iterator[str]:
    """Register two abdomen phantoms with RAN and save the result."""
    from monai_regplugins.bundle_folders import find_bundle
    from monai_regplugins.phantoms.abdomen import abdomen_subject
    from monai_regplugins.registration import load_bundle

    fixed, moving = (abdomen_subject(seed, SHAPE, SPACING) for seed in (0, 1))
    register = load_bundle(find_bundle("ran"))
    with tempfile.TemporaryDirectory() as folder:
        result = register(
            fixed["image"],
            moving["image"],
            fixed_label=fixed["label"],
            moving_label=moving["label"],
            spacing=[SPACING] * 3,
            pair_id="self_test",
        )
        saved = sorted(path.name for path in Path(result.save(folder)).iterdir())
    before, after = result.metrics["dsc_before"], result.metrics["dsc"]
    yield f"mean Dice of the organs {before:.3f} before, {after:.3f} after registration, {result.seconds:.1f} s"
    yield f"files written: {', '.join(saved)}"
    if not (math.isfinite(after) and after > before):
        raise RuntimeError("registration did not increase the overlap; install the package and its bundles again")


CHECKS: dict[str, Callable[[], Iterator[str]]] = {
    "versions": _versions,
    "devices": _devices,
    "bundles": _bundles,
    "self-test": _self_test,
}
