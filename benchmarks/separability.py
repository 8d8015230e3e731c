"""Motion separability of RAN: what its geometry allows, and what trained networks do on real pairs.

The bound Delta(p) of the paper (Eq. 9, Fig. 3) for q = 0..4 motion-aware levels, and for the presets of the networks
that are given. With ``--runs`` these register the pairs of a bundle configuration, by default RAN's evaluation on its
phantom, and the pairs of correctly moved voxels are counted by their distance and the difference of their motions
(Fig. 7), both in voxels of the network's grid. Compare only networks that were trained on the same grid and data.

    python benchmarks/separability.py --figure bound.png
    python benchmarks/separability.py --runs ran4_released=bundles/ran/models/model.pt ran0=runs/ran0/models/model.pt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from compare_bspline import load_network
from monai.bundle import ConfigParser
from monai.data.utils import list_data_collate
from torch import Tensor
from tqdm import tqdm

import monai_regplugins
from monai_regplugins.benchmark.reporting import (
    check_output,
    command_line,
    given,
    hardware,
    markdown_table,
    number,
    publish,
    read_config,
)
from monai_regplugins.checks import InputError, check_choice, check_file
from monai_regplugins.data import Learn2RegDataset
from monai_regplugins.engines import PairPrepareBatch
from monai_regplugins.fields import warp
from monai_regplugins.figures import separability_figure
from monai_regplugins.figures.png import png_of
from monai_regplugins.files.atomic import write_file
from monai_regplugins.metrics.separability import (
    MotionPairs,
    MotionSeparability,
    correct_voxels,
    sampled_pairs,
)
from monai_regplugins.networks.nets.ran import PRESETS, RANGeometry
from monai_regplugins.transforms.prepare import resize_image

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "ran" / "configs" / "evaluate.json"
AREA = 60  # voxels, right end of the area under Delta, as in the paper's Fig. 3d
NEAR, APART = 4, 2  # voxels: pairs at most so far from each other, and motions that differ by at least so much


@dataclass
class Found:
    """What one network did: correct voxels of all registrations, and pairs of them."""

    correct: list[int] = field(default_factory=list)
    pairs: list[MotionPairs] = field(default_factory=list)

    def pooled(self) -> MotionPairs:
        """Return the pairs of all registrations together."""
        return sum(self.pairs[1:], start=self.pairs[0])


def bound_of(geometry: RANGeometry, c: float) -> MotionSeparability:
    """Return the bound of a RAN; its third Regressor convolution, where there is one, is not dilated."""
    third = (1,) * (geometry.regressor_convs - 2)
    return MotionSeparability(geometry.scales, tuple((d, d, *third) for d in geometry.dilations), c)


def on_network_grid(targets: Mapping[str, Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return image (1, 2, *grid) and both label maps (1, *grid) of a pair at the size at which the network sees it."""
    native = targets["fixed"].shape[2:]
    grid = [n if s <= 0 else s for n, s in zip(native, size or [-1] * len(native), strict=True)]
    image = torch.cat([resize_image(targets[key][0], grid) for key in ("moving", "fixed")])
    moving, fixed = (resize_image(targets[f"{key}_label"][0], grid, nearest=True) for key in ("moving", "fixed"))
    return image[None], moving, fixed


def estimate(parser: ConfigParser, args: argparse.Namespace) -> Found:
    """Register the pairs of a configuration and count the pairs of correctly moved voxels.

    Raises:
        InputError: When the pairs have no labels.
    """
    network, inferer = load_network(parser), parser.get_parsed_content("inferer")
    device, dataset = parser.get_parsed_content("device"), parser.get_parsed_content("dataset")
    prepare, found = PairPrepareBatch(), Found()
    for index in tqdm(range(len(dataset)), mininterval=1.0 if sys.stderr.isatty() else 60.0):
        _, targets, *_ = prepare(list_data_collate([dataset[index]]), device)
        if "moving_label" not in targets or "fixed_label" not in targets:
            raise InputError("the pairs have no labels, expected organs in both images; give a labeled --dataset_dir.")
        image, moving, fixed = on_network_grid(targets, parser.get_parsed_content("spatial_size"))
        with torch.no_grad():
            ddf = inferer(image, network)["ddf"]
        correct = correct_voxels(fixed, warp(moving[None].float(), ddf, mode="nearest")[0])
        found.correct.append(int(correct.sum()))
        pairs = sampled_pairs(
            ddf[0],
            correct,
            fixed if args.across else None,
            max_distance=args.max_distance,
            max_difference=args.max_difference,
            samples=args.samples,
            seed=args.seed,
        )
        found.pairs.append(pairs)
    return found


def bound_table(bounds: Mapping[str, MotionSeparability]) -> str:
    """Return ranges, thresholds and values of all geometries, from coarse to fine."""
    header = ["geometry", "a_k", "t_k", "v_k", f"area on [0, {AREA}]", "captures up to"]
    rows = [
        [
            name,
            *(", ".join(f"{value:g}" for value in values) for values in (bound.ranges, bound.thresholds, bound.values)),
            number(bound.area(AREA), 1),
            str(int(bound.ranges[0])),
        ]
        for name, bound in bounds.items()
    ]
    return markdown_table(header, rows)


def pair_table(found: Mapping[str, Found], bounds: Mapping[str, MotionSeparability]) -> str:
    """Return how many pairs each network moved, what share beyond its bound, and what share of the near ones apart."""
    header = ["network", "registrations", "correct voxels", "pairs (million)", "at Delta(p) or beyond (%)",
              f"of those within {NEAR}, {APART} apart (%)"]  # fmt: skip
    rows = []
    for name, one in found.items():
        pairs = one.pooled()
        near = MotionPairs(pairs.counts[:NEAR])
        apart = torch.arange(near.counts.shape[1]).expand(near.counts.shape).numpy() >= APART
        rows.append(
            [
                name,
                str(len(one.pairs)),
                f"{sum(one.correct):,}",
                number(pairs.counts.sum() / 1e6, 3),
                number(100 * pairs.share_beyond(bounds[name]), 3),
                number(100 * near.share(apart), 2),
            ]
        )
    return markdown_table(header, rows)


def run_of(text: str) -> tuple[str, str]:
    """Split ``PRESET=CKPT``."""
    preset, sign, ckpt = text.partition("=")
    if not sign or not ckpt:
        raise argparse.ArgumentTypeError(f"'{text}' is no PRESET=CKPT")
    return preset, ckpt


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what is not given stays as the configuration has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--c", type=float, default=2.0, help="weight of the finer levels in the threshold: 2 as printed, 1 as drawn")
    add("--runs", nargs="+", default=[], type=run_of, metavar="PRESET=CKPT", help="trained networks, each preset once")
    add("--config", type=Path, default=DEFAULT_CONFIG, help="evaluation configuration of a bundle")
    add("--dataset_dir", help="folder of a data set in Learn2Reg's format, with labels (default: the configuration's)")
    add("--spatial_size", type=int, nargs="+", help="grid of the networks, voxels")
    add("--head_weighting", help="of the networks")
    add("--val_pairs", type=int, help="pairs to register, 0 for all")
    add("--across", action="store_true", help="count only pairs of voxels in two different organs")
    add("--conditional", action="store_true", help="draw the density of the difference given the distance")
    add("--samples", type=int, default=200_000, help="pairs drawn at each distance (default: 200000)")
    add("--max_distance", type=int, default=30, help="voxels (default: 30)")
    add("--max_difference", type=int, default=20, help="voxels; the last bin holds what is beyond (default: 20)")
    add("--seed", type=int, default=0, help="of the sampling")
    add("--figure", type=Path, help="picture to write, .png")
    add("--output", type=Path, help="file to write, .md for the tables or .json for all counts")
    args = parser.parse_args(argv)
    if min(args.samples, args.max_distance, args.max_difference) < 1 or args.c < 0:
        parser.error("--samples, --max_distance and --max_difference must be at least 1, --c at least 0")
    if len({preset for preset, _ in args.runs}) < len(args.runs):
        parser.error("--runs names a preset twice")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Compute, register, print the tables and return them."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    check_output(args.figure, (".png",), "figure")
    torch.set_num_threads(1)
    bounds = {f"q = {q}": MotionSeparability.motion_aware(q, c=args.c) for q in range(5)}
    for preset, ckpt in args.runs:
        check_choice(preset, list(PRESETS), "preset")
        check_file(ckpt, "checkpoint")
        bounds[preset] = bound_of(PRESETS[preset], args.c)
    about: dict[str, Any] = {"c": args.c}
    found: dict[str, Found] = {}
    for preset, ckpt in args.runs:
        overrides = given(args, ("dataset_dir", "spatial_size", "head_weighting", "val_pairs"))
        parser = ConfigParser(read_config(args.config, {**overrides, "geometry": preset, "ckpt": ckpt}))
        found[preset] = estimate(parser, args)
        about["data_set"] = Learn2RegDataset(parser.get_parsed_content("dataset_dir")).name
        about["grid_of_the_network"] = parser.get_parsed_content("spatial_size")
        about["pairs_of_voxels"] = "across organs" if args.across else "all"
    about |= {"hardware": hardware(torch.device("cpu")), "command": command_line(__file__, argv)}
    tables = [bound_table(bounds), *([pair_table(found, bounds)] if found else [])]
    facts = [f"- {key.replace('_', ' ')}: {value}" for key, value in about.items()]
    if args.figure:
        densities = {name: one.pooled().density(args.conditional) for name, one in found.items()}
        write_file(args.figure, png_of(separability_figure(bounds, densities, AREA)))
    results = {name: one.pooled().counts.tolist() for name, one in found.items()}
    return publish(args.output, "\n\n".join([*tables, "\n".join(facts)]), about, bounds=bounds, counts=results)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
