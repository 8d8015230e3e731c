"""Optimize pairs of known motion whose fixed image has another contrast, from no displacement, by each similarity.

The images of a pair are samples of one anatomy, see :mod:`monai_regplugins.benchmark.synthetic_motion`, or, with
``--images``, a 3D image and its warp by a random displacement (:mod:`monai_regplugins.benchmark.synthetic_warp`), each
with noise of its own. The intensities of the fixed one are then mapped. No network takes part. Errors are those of the
field in the body (of ``--images``: where they are brighter than their mean), in voxels, the mean over the pairs;
seconds are CPU seconds of a pair. Baselines are compared on the same pairs.

    python benchmarks/compare_similarities.py --pairs 3 --output similarities.md
    python benchmarks/compare_similarities.py --images ct.nii.gz mr.nii.gz --baselines greedy-nmi elastix-mi ants-mi

With ``--drivers``, instead: what labels and landmarks add where RAN's bundle registers the pairs of data sets (the
phantom ``abdomen`` is made). Every second label, or landmark, drives; measures of both halves, in each row.

    python benchmarks/compare_similarities.py --drivers Warped abdomen --pairs 2 --output drivers.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from monai_regplugins import load_bundle
from monai_regplugins.benchmark.baselines import load_baseline
from monai_regplugins.benchmark.reporting import check_output, command_line, hardware, number, publish, table_with_facts
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
SIMILARITIES = ("lncc", "mind", "nmi", "auto")


def bias_field(image: Tensor) -> Tensor:
    """Multiply by a smooth field between about 0.75 and 1.3."""
    coarse = torch.from_numpy(np.random.default_rng(0).normal(0, 0.15, (1, 1, 3, 3, 3))).to(image.dtype)
    field = functional.interpolate(coarse, size=image.shape[1:], mode="trilinear", align_corners=True)[0]
    return image * field.exp()


CONTRASTS: dict[str, Callable[[Tensor], Tensor]] = {
    "equal": lambda image: image,
    "inverted": lambda image: 1 - image,
    "gamma 0.5": lambda image: image.sqrt(),
    "bias field": bias_field,
    "triangle wave": lambda image: ((1.5 * image + 0.25) % 1 * 2 - 1).abs(),
    "parabola": lambda image: 4 * (image - 0.45).square(),
}


class Pair(NamedTuple):
    """Two images ``(1, *spatial)`` from 0 to 1, the displacement between them, and where it is measured."""

    moving: Tensor
    fixed: Tensor
    ddf: Tensor
    body: Tensor


def no_motion(image: Tensor) -> Tensor:
    """Return no displacement, in place of a network."""
    return image.new_zeros(len(image), image.ndim - 2, *image.shape[2:])


def random_pair(seed: int, size: int, amplitude: float) -> Pair:
    """Draw an anatomy and its motion."""
    pair = motion_pair(seed, size=size, amplitude=amplitude)
    assert pair.fixed.mask is not None
    return Pair(pair.moving.image.clamp(0, 1), pair.fixed.image.clamp(0, 1), pair.ddf, pair.fixed.mask[0] > 0)


def warped_pair(file: str, seed: int, size: int, amplitude: float) -> Pair:
    """Warp an image, of at most so many voxels along each axis, by a random displacement."""
    image = LoadPaird()({"fixed": file, "moving": file})["moving"].as_tensor().float()
    low, high = (float(np.quantile(image.numpy(), at)) for at in (0.005, 0.995))
    image = resize_image((image - low) / (high - low), [min(n, size) for n in image.shape[1:]]).clamp(0, 1)
    rng = np.random.default_rng(seed)
    _, ddf = synthetic_displacement(rng, image.shape[1:], torch.ones(3), amplitude, size / 6)
    moving, fixed = (
        (one + NOISE * torch.from_numpy(rng.normal(size=one.shape)).float()).clamp(0, 1)
        for one in (image, bspline_warp(image, ddf))
    )
    return Pair(moving, fixed, ddf, fixed[0] > fixed.mean())


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


def errors(
    pair: Pair, contrast: str, methods: Sequence[Callable[[Tensor, Tensor], Tensor]]
) -> list[tuple[float, float]]:
    """Return mean error in voxels and CPU seconds of each method, and before them those of no displacement."""
    fixed = CONTRASTS[contrast](pair.fixed)
    found = [(_error(pair, torch.zeros_like(pair.ddf)), 0.0)]
    for method in methods:
        began = time.process_time()
        ddf = method(pair.moving, fixed)
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
    add("--images", nargs="+", default=[], help="3D images to warp instead of random anatomies")
    add("--size", type=int, default=48, help="voxels along each axis, with --images at most")
    add("--amplitude", type=float, default=4.0, help="largest displacement, voxels")
    add("--seed", type=int, default=0, help="of the first pair")
    add("--steps", type=int, default=30)
    add("--similarities", nargs="+", default=list(SIMILARITIES))
    add("--baselines", nargs="+", default=[], help="methods of monai_regplugins.benchmark beside them")
    add("--drivers", nargs="+", metavar="DATASET", help="compare what drives on these pairs instead")
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
        with tempfile.TemporaryDirectory() as made:
            place = open_dataset(made, made, folder) if folder in PHANTOMS else folder
            known = given_pairs("", "", "", "", place, place, max_pairs=pairs)
            found = [driven(dict(pair), weight) for pair in known]
        for drivers, measures in zip(DRIVERS, zip(*found, strict=True), strict=True):
            means = [
                number(float(np.mean([one[name] for one in measures])), digits) for name, digits in DRIVEN.values()
            ]
            rows.append([Path(folder).name, drivers, *means])
    return ["pairs", "driven by", *DRIVEN], rows


def compare_similarities(args: argparse.Namespace) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: each contrast, of each image, with each method."""
    methods = [optimized(name, args.steps) for name in args.similarities] + [baseline(name) for name in args.baselines]
    seeds, rows = range(args.seed, args.seed + args.pairs), []
    for file in args.images or [""]:
        pairs = [
            warped_pair(file, seed, args.size, args.amplitude) if file else random_pair(seed, args.size, args.amplitude)
            for seed in seeds
        ]
        for contrast in CONTRASTS:
            found = np.mean([errors(pair, contrast, methods) for pair in pairs], axis=0)
            cells = [*(number(error, 2) for error in found[:, 0]), *(number(s, 1) for s in found[1:, 1])]
            rows.append([*([Path(file).name.split(".")[0]] if file else []), contrast, *cells])
    names = [*args.similarities, *args.baselines]
    header = [*(["image"] if args.images else []), "fixed image", "before", *names, *(f"{name}: s" for name in names)]
    return header, rows


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
    header, rows = (
        compare_drivers(args.drivers, args.pairs, args.weight) if args.drivers else compare_similarities(args)
    )
    publish(args.output, table_with_facts(header, rows, about), about, rows=rows)


if __name__ == "__main__":
    main()
