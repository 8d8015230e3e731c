"""Optimize pairs of known motion whose fixed image has another contrast, from no displacement, by each similarity.

The images of a pair are samples of one anatomy, see :mod:`monai_regplugins.benchmark.synthetic_motion`, or, with
``--images``, a 3D image, or that of a phantom (``abdomen``, ``thorax``), and its warp by a random displacement
(:mod:`monai_regplugins.benchmark.synthetic_warp`). Each has noise of its own, and the fixed one another contrast
(:mod:`monai_regplugins.benchmark.synthetic_contrast`), of each pair another. No network takes part. Errors are those of
the field in the body (of ``--images``: where the fixed image, as it was, is brighter than its mean), in voxels, the
mean over the pairs; ``ratio`` is the error of the first similarity over that of equal contrast, and ``both mapped`` the
error of ``lncc`` where the moving image has the contrast of the fixed one. Seconds are CPU seconds of a pair. Baselines
are compared on the same pairs.

    python benchmarks/compare_similarities.py --pairs 3 --output similarities.md
    python benchmarks/compare_similarities.py --images ct.nii.gz abdomen --baselines greedy-nmi elastix-mi ants-mi

With ``--same``, instead: whether a bundle's ``auto`` registers the pairs of data sets, which have one contrast, as its
``lncc`` does.

    python benchmarks/compare_similarities.py --same HippocampusMR --preset hippocampus --pairs 2 --output same.md

With ``--drivers``, instead: what labels and landmarks add where RAN's bundle registers the pairs of data sets (the
phantom ``abdomen`` is made). Every second label, or landmark, drives; measures of both halves, in each row.

    python benchmarks/compare_similarities.py --drivers Warped abdomen --pairs 2 --output drivers.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from monai_regplugins import load_bundle
from monai_regplugins.benchmark.baselines import load_baseline
from monai_regplugins.benchmark.reporting import check_output, command_line, hardware, number, publish, table_with_facts
from monai_regplugins.benchmark.synthetic_contrast import CONTRASTS, in_other_contrast
from monai_regplugins.benchmark.synthetic_motion import motion_pair
from monai_regplugins.benchmark.synthetic_warp import synthetic_displacement
from monai_regplugins.data import given_pairs
from monai_regplugins.inferers import PairInferer, RefinedInferer
from monai_regplugins.losses import InstanceLoss
from monai_regplugins.metrics.overlap import labels_in
from monai_regplugins.phantoms.embedded import PHANTOMS, open_dataset
from monai_regplugins.synthesis.bspline_image import bspline_warp
from monai_regplugins.transforms.load import LoadPaird
from monai_regplugins.transforms.prepare import resize_image

NOISE = 0.01  # standard deviation of intensities from 0 to 1
SIMILARITIES = ("auto", "lncc", "mind", "nmi")


class Pair(NamedTuple):
    """Two images ``(1, *spatial)``, the moving one in the contrast of the fixed one, the displacement, and the body."""

    moving: Tensor
    fixed: Tensor
    alike: Tensor
    ddf: Tensor
    body: Tensor


def no_motion(image: Tensor) -> Tensor:
    """Return no displacement, in place of a network."""
    return image.new_zeros(len(image), image.ndim - 2, *image.shape[2:])


def random_pair(seed: int, size: int, amplitude: float, contrast: str) -> Pair:
    """Draw an anatomy and its motion."""
    pair = motion_pair(seed, size=size, amplitude=amplitude, noise=NOISE, contrast=contrast)
    assert pair.fixed.mask is not None
    moving = pair.moving.image
    return Pair(moving, pair.fixed.image, in_other_contrast(moving, contrast, seed), pair.ddf, pair.fixed.mask[0] > 0)


def warped_pair(file: str, seed: int, size: int, amplitude: float, contrast: str) -> Pair:
    """Warp an image, of at most so many voxels along each axis, by a random displacement."""
    image = LoadPaird()({"fixed": file, "moving": file})["moving"].as_tensor().float()
    low, high = (float(np.quantile(image.numpy(), at)) for at in (0.005, 0.995))
    image = resize_image((image - low) / (high - low), [min(n, size) for n in image.shape[1:]]).clamp(0, 1)
    rng = np.random.default_rng(seed)
    _, ddf = synthetic_displacement(rng, image.shape[1:], torch.ones(3), amplitude, size / 6)
    warped = bspline_warp(image, ddf)
    moving, fixed, alike = (
        one + NOISE * torch.from_numpy(rng.normal(size=one.shape)).float()
        for one in (image, in_other_contrast(warped, contrast, seed), in_other_contrast(image, contrast, seed))
    )
    return Pair(moving, fixed, alike, ddf, warped[0] > warped.mean())


@contextmanager
def image_file(name: str) -> Iterator[str]:
    """The file of an image, or that of the first fixed image of a phantom, which is made."""
    if name not in PHANTOMS:
        yield name
    else:
        with known_pairs(name, 1) as known:
            yield known[0]["fixed"]


def optimized(similarity: str, steps: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Registration of a moving and a fixed image by a similarity."""

    def register(moving: Tensor, fixed: Tensor) -> Tensor:
        loss = InstanceLoss(similarity, smoothness_weight=0.5)
        size = [n // 2 for n in fixed.shape[1:]]
        inferer = RefinedInferer(
            PairInferer(padding="border"), loss, steps, spatial_size=size, levels=2, smoothing=0.75
        )
        ddf: Tensor = inferer(torch.stack([moving[0], fixed[0]])[None], no_motion)["ddf"][0]
        return ddf

    return register


def baseline(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Registration of a moving and a fixed image by a baseline."""
    register = load_baseline(name)
    return lambda moving, fixed: register(fixed, moving, torch.ones(3), None, 0, 1)


def errors(pair: Pair, methods: Sequence[Callable[[Tensor, Tensor], Tensor]], steps: int) -> list[tuple[float, float]]:
    """Return mean error in voxels and CPU seconds: of no displacement, of ``lncc`` of images alike, of each method."""
    alike = optimized("lncc", steps)(pair.alike, pair.fixed)
    found = [(_error(pair, torch.zeros_like(pair.ddf)), 0.0), (_error(pair, alike), 0.0)]
    for method in methods:
        began = time.process_time()
        ddf = method(pair.moving, pair.fixed)
        found.append((_error(pair, ddf), time.process_time() - began))
    return found


def _error(pair: Pair, ddf: Tensor) -> float:
    """Mean endpoint error in the body."""
    return float(torch.linalg.vector_norm(ddf - pair.ddf, dim=0)[pair.body].mean())


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Compare the similarities of instance optimization.")
    add = parser.add_argument
    add("--pairs", type=int, default=3, help="of each image")
    add("--images", nargs="+", default=[], help="3D images, or phantoms, to warp instead of random anatomies")
    add("--size", type=int, default=48, help="voxels along each axis, with --images at most")
    add("--amplitude", type=float, default=4.0, help="largest displacement, voxels")
    add("--seed", type=int, default=0, help="of the first pair")
    add("--steps", type=int, default=30)
    add("--similarities", nargs="+", default=list(SIMILARITIES))
    add("--baselines", nargs="+", default=[], help="methods of monai_regplugins.benchmark beside them")
    add("--drivers", nargs="+", metavar="DATASET", help="compare what drives on these pairs instead")
    add("--same", nargs="+", metavar="DATASET", help="compare the fields of auto and lncc on these pairs instead")
    add("--bundle", default="ran", help="of --same (default: ran)")
    add("--preset", default="", help="of the bundle")
    add("--weight", type=float, default=1.0, help="of what drives")
    add("--output", type=Path)
    return parser.parse_args(argv)


DRIVERS = ("images alone", "and half of the labels", "and half of the landmarks")
DRIVEN = {  # column: measure, decimals
    "DSC, half that may drive": ("driving_dsc", 3),
    "DSC, other half": ("dsc", 3),
    "TRE, half that may drive": ("driving_tre", 2),
    "its largest": ("driving_tre_max", 2),
    "TRE, other half": ("tre", 2),
    "folding (%)": ("folding_percent", 3),
    "CPU s": ("seconds", 1),
}


def driven(pair: dict[str, str], weight: float) -> list[dict[str, float]]:
    """Return the measures of a pair by the images alone, with half of its labels, and with half of its landmarks."""
    images = {key.replace("landmarks", "points"): path for key, path in pair.items()}
    began = time.process_time()
    alone = load_bundle("ran", device="cpu")(**images)
    used = time.process_time() - began
    labels = sorted(labels_in(alone.targets["fixed_label"]) & labels_in(alone.targets["moving_label"]) - {0})[::2]
    rows = list(range(0, len(alone.targets["fixed_keypoints"]), 2))
    found = [_halves(alone, labels, rows, used)]
    for options in (
        {"refine_label_weight": weight, "driving_labels": labels},
        {"refine_landmark_weight": weight, "driving_landmarks": rows},
    ):
        began = time.process_time()
        result = load_bundle("ran", device="cpu", **options)(**images)
        found.append(_halves(result, labels, rows, time.process_time() - began))
    return found


def _halves(result: Any, labels: list[int], rows: list[int], seconds: float) -> dict[str, float]:
    """Measures of both halves, whatever drove; landmark errors in voxels."""
    result.pred |= {"driving_labels": torch.tensor(labels), "driving_landmarks": torch.tensor(rows)}
    found: dict[str, float] = result.measure(surface=False)
    voxel = float(result.targets["spacing"].double().log().mean().exp())
    lengths = {name: value / voxel for name, value in found.items() if "tre" in name}
    return {**found, **lengths, "seconds": seconds}


def compare_drivers(data: Sequence[str], pairs: int, weight: float) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: the means over the pairs of each data set."""
    rows = []
    for folder in data:
        with known_pairs(folder, pairs) as known:
            found = [driven(pair, weight) for pair in known]
        for drivers, measures in zip(DRIVERS, zip(*found, strict=True), strict=True):
            means = [
                number(float(np.mean([one[name] for one in measures])), digits) for name, digits in DRIVEN.values()
            ]
            rows.append([Path(folder).name, drivers, *means])
    return ["pairs", "driven by", *DRIVEN], rows


def compare_same(args: argparse.Namespace) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: how many fields of each data set are the same with ``auto`` as with ``lncc``."""
    rows = []
    for folder in args.same:
        with known_pairs(folder, args.pairs) as known:
            found = {name: [timed_field(pair, args, name) for pair in known] for name in ("lncc", "auto")}
        differences = [float((a - b).abs().max()) for (a, _), (b, _) in zip(*found.values(), strict=True)]
        seconds = (number(float(np.mean([used for _, used in each])), 1) for each in found.values())
        equal = f"{differences.count(0.0)} of {len(differences)}"
        rows.append([Path(folder).name, args.bundle, equal, number(max(differences), 3), *seconds])
    return ["pairs", "bundle", "the same field", "largest difference (voxels)", "lncc: s", "auto: s"], rows


def timed_field(pair: dict[str, str], args: argparse.Namespace, similarity: str) -> tuple[Tensor, float]:
    """The field of a pair, and the CPU seconds of its registration."""
    register = load_bundle(args.bundle, device="cpu", preset=args.preset, similarity=similarity)
    began = time.process_time()
    ddf = torch.as_tensor(register(pair["fixed"], pair["moving"]).ddf)
    return ddf, time.process_time() - began


@contextmanager
def known_pairs(folder: str, pairs: int) -> Iterator[Sequence[dict[str, str]]]:
    """The first pairs of a data set, or of a phantom, which is made."""
    with tempfile.TemporaryDirectory() as made:
        place = open_dataset(made, made, folder) if folder in PHANTOMS else folder
        yield [dict(pair) for pair in given_pairs("", "", "", "", place, place, max_pairs=pairs)]


def compare_similarities(args: argparse.Namespace) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: each contrast, of each image, with each method."""
    methods = [optimized(name, args.steps) for name in args.similarities] + [baseline(name) for name in args.baselines]
    seeds, rows = range(args.seed, args.seed + args.pairs), []
    for name in args.images or [""]:
        with image_file(name) as file:
            draw = partial(warped_pair, file) if file else random_pair
            found = {
                contrast: np.mean(
                    [errors(draw(seed, args.size, args.amplitude, contrast), methods, args.steps) for seed in seeds],
                    axis=0,
                )
                for contrast in CONTRASTS
            }
        for contrast, means in found.items():
            cells = [*(number(error, 2) for error in means[:, 0]), *(number(s, 1) for s in means[2:, 1])]
            ratio = number(float(means[2, 0] / found["equal"][2, 0]), 2)
            rows.append([*([Path(name).name.split(".")[0]] if name else []), contrast, ratio, *cells])
    names = [*args.similarities, *args.baselines]
    about = ["fixed image", "ratio", "before", "both mapped", *names, *(f"{name}: s" for name in names)]
    return [*(["image"] if args.images else []), *about], rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parse_arguments(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    about = {
        "command": command_line("benchmarks/compare_similarities.py", argv),
        "hardware": hardware(torch.device("cpu")),
    }
    if args.same:
        header, rows = compare_same(args)
    elif args.drivers:
        header, rows = compare_drivers(args.drivers, args.pairs, args.weight)
    else:
        header, rows = compare_similarities(args)
    publish(args.output, table_with_facts(header, rows, about), about, rows=rows)


if __name__ == "__main__":
    main()
