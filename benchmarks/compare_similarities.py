"""Optimize pairs of known motion whose fixed image has another contrast, from no displacement, by each similarity.

The images of a pair are samples of one anatomy, see :mod:`monai_regplugins.benchmark.synthetic_motion`; the intensities
of the fixed one are then mapped: not at all, inverted, or by two maps that are not monotonic. No network takes part.
Errors are those of the field in the body, in voxels, the mean over the pairs; seconds are CPU seconds of a pair.

    python benchmarks/compare_similarities.py --pairs 3 --output similarities.md

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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_regplugins import load_bundle
from monai_regplugins.benchmark.reporting import check_output, command_line, hardware, number, publish, table_with_facts
from monai_regplugins.benchmark.synthetic_motion import MotionPair, motion_pair
from monai_regplugins.data import given_pairs
from monai_regplugins.inferers import PairInferer, RefinedInferer
from monai_regplugins.losses import InstanceLoss
from monai_regplugins.metrics.overlap import labels_in
from monai_regplugins.phantoms.embedded import PHANTOMS, open_dataset

CONTRASTS: dict[str, Callable[[Tensor], Tensor]] = {
    "equal": lambda image: image,
    "inverted": lambda image: 1 - image,
    "triangle wave": lambda image: ((1.5 * image + 0.25) % 1 * 2 - 1).abs(),
    "parabola": lambda image: 4 * (image - 0.45).square(),
}
SIMILARITIES = ("lncc", "mind", "nmi", "auto")


def no_motion(image: Tensor) -> Tensor:
    """Return no displacement, in place of a network."""
    return image.new_zeros(len(image), image.ndim - 2, *image.shape[2:])


def errors(pair: MotionPair, contrast: str, similarities: Sequence[str], steps: int) -> list[tuple[float, float]]:
    """Return mean error in voxels and CPU seconds of each similarity, and before them those of no displacement."""
    fixed = CONTRASTS[contrast](pair.fixed.image.clamp(0, 1))
    image = torch.stack([pair.moving.image.clamp(0, 1)[0], fixed[0]])[None]
    found = [(_error(pair, torch.zeros_like(pair.ddf)), 0.0)]
    for similarity in similarities:
        began = time.process_time()
        loss = InstanceLoss(similarity, smoothness_weight=0.5)
        size = [n // 2 for n in fixed.shape[1:]]
        inferer = RefinedInferer(
            PairInferer(padding="border"), loss, steps, spatial_size=size, levels=2, smoothing=0.75
        )
        ddf = inferer(image, no_motion)["ddf"][0]
        found.append((_error(pair, ddf), time.process_time() - began))
    return found


def _error(pair: MotionPair, ddf: Tensor) -> float:
    """Mean endpoint error in the body."""
    assert pair.fixed.mask is not None
    return float(torch.linalg.vector_norm(ddf - pair.ddf, dim=0)[pair.fixed.mask[0] > 0].mean())


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
    """Return header and rows: each contrast with each similarity."""
    pairs = [motion_pair(seed, size=args.size, amplitude=args.amplitude) for seed in range(args.pairs)]
    rows = []
    for contrast in CONTRASTS:
        found = np.mean([errors(pair, contrast, args.similarities, args.steps) for pair in pairs], axis=0)
        rows.append([contrast, *(number(error, 2) for error in found[:, 0]), *(number(s, 1) for s in found[1:, 1])])
    return ["fixed image", "before", *args.similarities, *(f"{name}: s" for name in args.similarities)], rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Compare the similarities of instance optimization.")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--size", type=int, default=48, help="voxels along each axis")
    parser.add_argument("--amplitude", type=float, default=4.0, help="largest displacement, voxels")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--similarities", nargs="+", default=list(SIMILARITIES))
    parser.add_argument("--drivers", nargs="+", metavar="DATASET", help="compare what drives on these pairs instead")
    parser.add_argument("--weight", type=float, default=1.0, help="of what drives")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    about = {
        "command": command_line("benchmarks/compare_similarities.py", sys.argv[1:] if argv is None else list(argv)),
        "hardware": hardware(torch.device("cpu")),
    }
    header, rows = (
        compare_drivers(args.drivers, args.pairs, args.weight) if args.drivers else compare_similarities(args)
    )
    publish(args.output, table_with_facts(header, rows, about), about, rows=rows)


if __name__ == "__main__":
    main()
