"""Whether the standard deviation of a registration predicts its error, where that is known: coverage, sparsification.

For each bundle, on pairs whose displacement is known at each voxel: its phantom (RAN: abdomens of two subjects, RegNet:
two phases of a thorax, R2N2: two frames of a cine series of the lung), and images of the phantom, or given ones, under
random smooth displacements, with noise of their own. Each pair is registered as on the command line with
``--uncertainty``. Voxels of the body count whose partner lies in the moving image.

The 90 % interval of an error e is the ball |e| <= k sigma, see ``monai_regplugins.metrics.uncertainty``; its coverage
is to be 0.9. AUSE is the area between the sparsification curves by sigma and by the error itself, 0 at best; beside it
stand those of the length |u| of the displacement that was found, and of a random order. The factor is what sigma would
have to be multiplied by for a coverage of 0.9: the bundles' ``uncertainty_factor`` is set by it on the seeds from 0 on
(``--seed 0 --set uncertainty_factor=1``), those of the table are others. With ``--cost`` there is the CPU time of the
first pair over that without.

    python benchmarks/uncertainty.py --output uncertainty.md
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from torch import Tensor

import monai_regplugins
from monai_regplugins import load_bundle
from monai_regplugins.benchmark.reporting import (
    check_output,
    command_line,
    hardware,
    markdown_table,
    number,
    publish,
    setting,
    table_with_facts,
)
from monai_regplugins.fields import identity_grid
from monai_regplugins.grids import voxel_spacing
from monai_regplugins.metrics.uncertainty import ause, coverage, interval_radius, sparsification
from monai_regplugins.phantoms import (
    abdomen_displacement,
    abdomen_subject,
    cine_lung_displacement,
    cine_lung_subject,
    thorax_displacement,
    thorax_subject,
)
from monai_regplugins.readers.images import read_scan
from monai_regplugins.registration import Registration
from monai_regplugins.synthesis.bspline_image import bspline_warp
from monai_regplugins.synthesis.regnet_fields import random_field

Array = npt.NDArray[Any]
BUNDLES = {"ran": "abdomen", "regnet": "thorax", "r2n2": "cine_lung"}
SIZE = 48  # voxels along an axis of a 3D image
FRAMES = 12
LEVEL = 0.9
FACTORS = {"factor_85": 0.85, "factor": LEVEL, "factor_95": 0.95}
BUMPS = (6, 16)  # of a random displacement
LARGEST, SIGMA = (1.5, 4.5), (0.12, 0.22)  # voxels, and parts of the image's shortest axis
NOISE = 0.01  # of the range of the intensities
REMOVED = (0.0, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Pair:
    """Images ``(1, *spatial)`` with their affine, the true displacement, voxels, and the voxels of the body."""

    fixed: MetaTensor
    moving: MetaTensor
    ddf: Tensor
    body: Tensor


@dataclass
class Score:
    """Of each voxel that counts, mm: the error, the deviation, and the length of the displacement that was found."""

    d: int
    error: list[Tensor] = field(default_factory=list)
    deviation: list[Tensor] = field(default_factory=list)
    length: list[Tensor] = field(default_factory=list)
    cost: float = float("nan")


def phantom_pair(phantom: str, seed: int) -> Pair:
    """Two images of a phantom with its own motion."""
    if phantom == "abdomen":
        one, two = (abdomen_subject((seed, k), (SIZE, 40, SIZE), 20 / 3) for k in (0, 1))
        ddf = abdomen_displacement(one["canonical"], (seed, 1), one["affine"])
        return _pair(one["image"], two["image"], ddf, one["label"] > 0, one["affine"])
    if phantom == "thorax":
        chest = thorax_subject(seed, spatial_shape=[SIZE] * 3)
        ddf = thorax_displacement(chest, 0, 1)
        return _pair(chest.images[0], chest.images[1], ddf, chest.labels[0] > 0, chest.affine)
    cine = cine_lung_subject(seed, num_frames=FRAMES)
    frames = [k for k in range(FRAMES) if k != cine.reference]
    moving = frames[seed % len(frames)]
    ddf = cine_lung_displacement(cine, cine.reference, moving)
    return _pair(cine.frames[cine.reference], cine.frames[moving], ddf, cine.labels[cine.reference] > 0, cine.affine)


def phantom_image(phantom: str, seed: int) -> tuple[Array, Array]:
    """One image of a phantom, with its affine."""
    if phantom == "abdomen":
        subject = abdomen_subject(seed, (SIZE, 40, SIZE), 20 / 3)
        return subject["image"], subject["affine"]
    if phantom == "thorax":
        chest = thorax_subject(seed, phases=(0.0,), spatial_shape=[SIZE] * 3)
        return chest.images[0], chest.affine
    cine = cine_lung_subject(seed, num_frames=1)
    return cine.frames[0], cine.affine


def given_image(file: str) -> tuple[Array, Array]:
    """The middle of an image in a file, at most 48 voxels along each of three axes, or 128 of two."""
    scan = read_scan(file, "image")
    values = np.squeeze(scan.values.numpy())
    most = SIZE if values.ndim == 3 else 128
    first = [max(0, (n - most) // 2) for n in values.shape]
    return values[tuple(slice(start, start + most) for start in first)], scan.affine.numpy()


def warped_pair(image: Array, affine: Array, seed: int) -> Pair:
    """An image, and itself under a random displacement, each with noise of its own."""
    rng = np.random.default_rng((seed, 17))
    values = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
    shape = values.shape[1:]
    bumps, largest = int(rng.integers(*BUMPS)), rng.uniform(*LARGEST)
    motion = random_field(rng, shape, rng.uniform(*SIGMA) * min(shape), bumps, largest, least_determinant=0.2)
    ddf = motion.on_axes([torch.arange(n, dtype=torch.float64) for n in shape]).float()
    fixed = bspline_warp(values, ddf)
    low, high = np.percentile(image, (1, 99))
    noisy = [one[0].numpy() + NOISE * (high - low) * rng.normal(size=shape) for one in (fixed, values)]
    return _pair(noisy[0], noisy[1], ddf.numpy(), fixed[0].numpy() > low + 0.2 * (high - low), affine)


def _pair(fixed: Array, moving: Array, ddf: Array, body: Array, affine: Array) -> Pair:
    at = torch.as_tensor(affine, dtype=torch.float64)
    images = [
        MetaTensor(torch.from_numpy(np.asarray(one, dtype=np.float32))[None], affine=at) for one in (fixed, moving)
    ]
    return Pair(images[0], images[1], torch.from_numpy(np.asarray(ddf, dtype=np.float32)), torch.from_numpy(body))


def measure(register: Registration, pair: Pair, score: Score) -> None:
    """Register a pair and keep what its voxels show."""
    result = register(pair.fixed, pair.moving)
    deviation = result.uncertainty
    assert deviation is not None
    spacing = voxel_spacing(pair.fixed.affine, score.d).view(-1, *[1] * score.d)
    shape = pair.ddf.shape[1:]
    partner = identity_grid(tuple(shape)) + pair.ddf
    last = torch.tensor(shape).view(-1, *[1] * score.d) - 1
    counts = pair.body & ((partner >= 0) & (partner <= last)).all(dim=0)
    found = result.ddf.float()
    score.error.append(torch.linalg.vector_norm((found - pair.ddf) * spacing, dim=0)[counts])
    score.length.append(torch.linalg.vector_norm(found * spacing, dim=0)[counts])
    score.deviation.append(deviation.as_tensor()[0][counts])


def cost(register: Registration, plain: Registration, pair: Pair) -> float:
    """CPU time with the uncertainty over that without."""
    seconds = []
    for one in (plain, register):
        start = time.process_time()
        one(pair.fixed, pair.moving)
        seconds.append(time.process_time() - start)
    return seconds[1] / seconds[0]


def score_of(name: str, pairs: Sequence[Callable[[], Pair]], overrides: Mapping[str, Any], timed: bool) -> Score:
    """Register the pairs of one set by a bundle."""
    bundle = Path(__file__).resolve().parents[1] / "bundles" / name
    register = load_bundle(bundle, device="cpu", uncertainty=True, **overrides)
    made = [make() for make in pairs]
    score = Score(made[0].ddf.shape[0])
    for pair in made:
        measure(register, pair, score)
    if timed:
        score.cost = cost(register, load_bundle(bundle, device="cpu", **overrides), made[0])
    return score


def summary(score: Score) -> dict[str, float]:
    """What the table shows of a set."""
    error, deviation, length = (torch.cat(values) for values in (score.error, score.deviation, score.length))
    within = (error / (interval_radius(LEVEL, score.d) * deviation)).double()
    within = within[:: 1 + len(within) // 10**6]  # torch.quantile takes 16 million values at most
    return {
        "pairs": len(score.error),
        "error": float(error.mean()),
        "deviation": float(deviation.mean()),
        "coverage": coverage(error, deviation, score.d, LEVEL),
        **{name: float(within.quantile(level)) for name, level in FACTORS.items()},
        "ause": ause(error, deviation),
        "ause_length": ause(error, length),
        "ause_random": ause(error, None),
        "cost": score.cost,
    }


def curves(score: Score) -> dict[str, list[float]]:
    """Points of the sparsification curves: mean error of the rest, mm."""
    error, deviation, length = (torch.cat(values) for values in (score.error, score.deviation, score.length))
    at = [min(len(error) - 1, round(share * len(error))) for share in REMOVED]
    orders = {"sigma": deviation, "length of u": length, "error": error}
    return {name: (error.mean() * sparsification(error, by)[at]).tolist() for name, by in orders.items()}


def to_markdown(scores: Mapping[str, Score], about: Mapping[str, object]) -> str:
    """Return both tables and, below them, what is needed to repeat them."""
    digits = {"pairs": 0, "error": 2, "deviation": 2, "coverage": 3, "factor": 2}
    digits |= {"ause": 3, "ause_length": 3, "ause_random": 3, "cost": 2}
    header = [
        "pairs",
        "number",
        "error mm",
        "sigma mm",
        "coverage of 90 %",
        "factor",
        "AUSE",
        "by length of u",
        "random",
        "cost",
    ]
    summaries = {name: summary(score) for name, score in scores.items()}
    rows = [[name, *(number(row[key], count) for key, count in digits.items())] for name, row in summaries.items()]
    curve_header = ["mean error mm of the rest", *(f"{100 * share:.0f} % removed" for share in REMOVED)]
    curve_rows = [
        [f"{name}, by {by}", *(number(value, 2) for value in values)]
        for name, score in scores.items()
        for by, values in curves(score).items()
    ]
    return "\n\n".join([markdown_table(header, rows), table_with_facts(curve_header, curve_rows, about)])


def sets_of(phantom: str, args: argparse.Namespace) -> dict[str, list[Callable[[], Pair]]]:
    """The pairs of each set, to be made."""
    seeds = range(args.seed, args.seed + args.pairs)
    own = [lambda seed=seed: phantom_pair(phantom, seed) for seed in seeds]
    images = [lambda seed=seed: phantom_image(phantom, 1000 + seed) for seed in seeds]
    warped = [lambda seed=seed, of=of: warped_pair(*of(), seed) for seed, of in zip(seeds, images, strict=True)]
    sets: dict[str, list[Callable[[], Pair]]] = {"phantom": own, "known warps": warped}
    if args.images:
        files = [args.images[k % len(args.images)] for k in range(args.pairs)]
        given = [
            lambda seed=seed, file=file: warped_pair(*given_image(file), seed)
            for seed, file in zip(seeds, files, strict=True)
        ]
        sets["known warps of given images"] = given
    return sets


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--bundles", nargs="+", default=[*BUNDLES], choices=[*BUNDLES], help="default: all three")
    add("--pairs", type=int, default=4, help="of each set (default: 4)")
    add("--seed", type=int, default=100, help="of the first pair (default: 100)")
    add("--images", nargs="+", default=[], help="images to be warped, too: 3D for RAN and RegNet, 2D for R2N2")
    add("--cost", action="store_true", help="time the first pair of each set with and without")
    add("--set", type=setting, nargs="+", default=[], metavar="KEY=VALUE", help="settings of the bundles")
    add("--output", type=Path, help="file to write, .md for the tables or .json for their values")
    args = parser.parse_args(argv)
    if args.pairs < 1 or args.seed < 0:
        parser.error("--pairs must be at least 1, and --seed at least 0")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Measure, print the tables and return them."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    torch.set_num_threads(1)  # seconds compare best with one
    scores = {
        f"{name}, {kind}": score_of(name, pairs, dict(args.set), args.cost)
        for name in args.bundles
        for kind, pairs in sets_of(BUNDLES[name], args).items()
    }
    about = {"hardware": hardware(torch.device("cpu")), "command": command_line(__file__, argv)}
    values = {name: {**summary(score), "curves": curves(score)} for name, score in scores.items()}
    return publish(args.output, to_markdown(scores, about), about, scores=values)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
