"""Optimize pairs of known motion whose fixed image has another contrast, from no displacement, by each similarity.

The images of a pair are samples of one anatomy, see :mod:`monai_regplugins.benchmark.synthetic_motion`; the intensities
of the fixed one are then mapped: not at all, inverted, or by two maps that are not monotonic. No network takes part.
Errors are those of the field in the body, in voxels, the mean over the pairs; seconds are CPU seconds of a pair.

    python benchmarks/compare_similarities.py --pairs 3 --output similarities.md
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from monai_regplugins.benchmark.reporting import check_output, command_line, hardware, number, publish, table_with_facts
from monai_regplugins.benchmark.synthetic_motion import MotionPair, motion_pair
from monai_regplugins.inferers import PairInferer, RefinedInferer
from monai_regplugins.losses import InstanceLoss

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


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Compare the similarities of instance optimization.")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--size", type=int, default=48, help="voxels along each axis")
    parser.add_argument("--amplitude", type=float, default=4.0, help="largest displacement, voxels")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--similarities", nargs="+", default=list(SIMILARITIES))
    parser.add_argument("--output", type=Path)
    args = parser.parse_args(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    pairs = [motion_pair(seed, size=args.size, amplitude=args.amplitude) for seed in range(args.pairs)]
    rows = []
    for contrast in CONTRASTS:
        found = np.mean([errors(pair, contrast, args.similarities, args.steps) for pair in pairs], axis=0)
        rows.append([contrast, *(number(error, 2) for error in found[:, 0]), *(number(s, 1) for s in found[1:, 1])])
    header = ["fixed image", "before", *args.similarities, *(f"{name}: s" for name in args.similarities)]
    about = {
        "command": command_line("benchmarks/compare_similarities.py", sys.argv[1:] if argv is None else list(argv)),
        "hardware": hardware(torch.device("cpu")),
    }
    publish(args.output, table_with_facts(header, rows, about), about, rows=rows)


if __name__ == "__main__":
    main()
