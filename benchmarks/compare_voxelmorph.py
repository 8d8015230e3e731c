"""Train RAN and VoxelMorph side by side and compare them on the validation pairs.

Everything but network and optimizer comes from one bundle configuration, by default RAN's own training recipe: data,
transforms, loss, schedule, inferer. Both are trained by Adam, as in their papers; VoxelMorph may get a learning rate of
its own. Both networks take the same number of steps, each step on the same batch, and are measured on the same pairs at
their native size. Computation is in float32.
``voxelmorph_unet.py`` says which VoxelMorph this is.

    python benchmarks/compare_voxelmorph.py --steps 300 --threads 1 --output comparison.json
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data.utils import set_rnd
from monai.networks.nets import VoxelMorphUNet
from monai.utils import set_determinism
from torch import Tensor
from tqdm import tqdm
from voxelmorph_unet import CONFIG, DIVISOR, start_from_identity

import monai_regplugins
from monai_regplugins.benchmark.reporting import (
    check_output,
    clock,
    command_line,
    given,
    hardware,
    number,
    publish,
    read_config,
    setting,
    table_with_facts,
)
from monai_regplugins.data import Learn2RegDataset
from monai_regplugins.engines import PairPrepareBatch
from monai_regplugins.metrics import mean_metrics, pair_metrics

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "ran" / "configs" / "train.json"
SETTINGS = ("batch_size", "spatial_size", "learning_rate", "window", "val_pairs", "synthetic_probability", "seed")
ADAM = {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": "@learning_rate"}  # as in both papers
LEARNING_RATE = 0.002  # of Adam, unless it is given; that of the recipe is Muon's
MEASURES = {"dsc": ("DSC", 3), "hd95": ("HD95 (mm)", 2), "folding_percent": ("folding (%)", 3),
            "sdlogj": ("SDlogJ", 3), "ncc": ("NCC", 3)}  # fmt: skip
UNMOVED = {"folding_percent": 0.0, "sdlogj": 0.0}  # of the identity


@dataclass
class Method:
    """One network in training: what the configuration makes around it, and what it cost."""

    network: Any
    optimizer: Any
    scheduler: Any
    loss: Any
    train_inferer: Any
    inferer: Any
    device: torch.device
    losses: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def step(self, image: Tensor, targets: Mapping[str, Tensor]) -> None:
        """Take one optimizer step on a batch, and time it."""
        start = clock(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.train_inferer(image, self.network), targets)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.seconds.append(clock(self.device) - start)
        self.losses.append(loss.detach())

    def measure(self, pair_id: str, image: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Any]:
        """Register one pair, a batch of one, and measure the result."""
        with torch.no_grad():
            pred = self.inferer(image, self.network)
        keys = ("moving", "fixed", "spacing", "moving_label", "fixed_label", "fixed_mask")
        one: dict[str, Any] = {key.replace("fixed_mask", "mask"): targets[key][0] for key in keys if key in targets}
        return {"pair_id": pair_id, **pair_metrics(**one, warped=pred["warped"][0], ddf=pred["ddf"][0])}


@dataclass(frozen=True)
class Result:
    """One row of the table: mean measures, those of each pair, cost."""

    metrics: dict[str, float]
    parameters: int | None = None
    seconds_per_step: float | None = None
    losses: list[float] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)


def of_steps(config: dict[str, Any], steps: int | None) -> dict[str, Any]:
    """Return the configuration with its epochs joined to a single one of ``steps`` steps, or of as many as it takes."""
    plan = ConfigParser(copy.deepcopy(config))
    epochs, pairs, batch = (plan.get_parsed_content(key) for key in ("max_epochs", "pairs_per_epoch", "batch_size"))
    return config | {"max_epochs": 1, "pairs_per_epoch": (steps or epochs * -(-pairs // batch)) * batch}


def make_method(parser: ConfigParser, seed: int) -> Method:
    """Make a configuration's network and its surroundings."""
    set_determinism(seed)
    network_def = parser.get_parsed_content("network_def")
    if isinstance(network_def, VoxelMorphUNet):
        start_from_identity(network_def)
    ids = ("network", "optimizer", "lr_scheduler", "loss", "train#inferer", "validate#inferer", "device")
    method = Method(*(parser.get_parsed_content(key) for key in ids))
    method.network.train()
    return method


def voxelmorph_parser(config: Mapping[str, Any], learning_rate: float | None = None) -> ConfigParser:
    """Return the configuration with VoxelMorph in place of its network; inferers pad where VoxelMorph cannot divide."""
    changes = {"network_def": CONFIG} | ({} if learning_rate is None else {"learning_rate": learning_rate})
    parser = ConfigParser(copy.deepcopy({**config, **changes}))
    for inferer in ("train#inferer", "validate#inferer"):
        parser[f"{inferer}#divisor"] = DIVISOR
    return parser


def train(methods: Sequence[Method], loader: Any, seed: int) -> None:
    """Train all networks on the same batches, one step each in turn."""
    set_determinism(seed)
    set_rnd(loader.dataset, seed)
    prepare = PairPrepareBatch()
    for batch in tqdm(loader, desc="training", mininterval=1.0 if sys.stderr.isatty() else 60.0):
        for method in methods:
            image, targets, *_ = prepare(batch, method.device)
            method.step(image, targets)


def evaluate(methods: Mapping[str, Method], loader: Any) -> dict[str, Result]:
    """Measure all networks on the same pairs; the pairs as they were are the first result."""
    prepare = PairPrepareBatch()
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    for method in methods.values():
        method.network.eval()
    for batch in tqdm(loader, desc="validation", mininterval=1.0 if sys.stderr.isatty() else 60.0):
        for name, method in methods.items():
            image, targets, *_ = prepare(batch, method.device)
            rows[name].append(method.measure(batch["pair_id"][0], image, targets))
    results = {name: summarize(method, rows[name]) for name, method in methods.items()}
    means = next(iter(results.values())).metrics
    before = {key.removesuffix("_before"): value for key, value in means.items() if key.endswith("_before")}
    return {"initial": Result(before | UNMOVED), **results}


def summarize(method: Method, rows: list[dict[str, Any]]) -> Result:
    """Return mean measures and cost of one network."""
    return Result(
        metrics=mean_metrics(rows),
        parameters=sum(p.numel() for p in method.network.parameters()),
        seconds_per_step=statistics.median(method.seconds),
        losses=[float(loss) for loss in method.losses],
        pairs=rows,
    )


def to_markdown(results: Mapping[str, Result], about: Mapping[str, Any], device: torch.device) -> str:
    """Return the table and, below it, everything needed to repeat it."""
    unit = "s per step" if device.type == "cuda" else "CPU s per step"
    header = ["network", "parameters", *(title for title, _ in MEASURES.values()), unit]
    rows = [
        [
            name,
            "-" if result.parameters is None else f"{result.parameters:,}",
            *(number(result.metrics.get(key), digits) for key, (_, digits) in MEASURES.items()),
            number(result.seconds_per_step, 2),
        ]
        for name, result in results.items()
    ]
    return table_with_facts(header, rows, about)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what is not given stays as the configuration has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=Path, default=DEFAULT_CONFIG, help="training configuration of a bundle")
    add("--dataset_dir", help="folder of a data set in Learn2Reg's format (default: the configuration's)")
    add("--only", choices=["VoxelMorph", "RAN"], help="leave the other network out; the batches stay the same")
    add("--steps", type=int, help="optimizer steps of each network (default: as many as the configuration takes)")
    add("--batch_size", type=int, help="pairs per step")
    add("--spatial_size", type=int, nargs="+", help="grid of the networks, voxels")
    add("--learning_rate", type=float, help=f"of both networks (default: {LEARNING_RATE})")
    add("--voxelmorph_learning_rate", type=float, help="of VoxelMorph alone (default: the same)")
    add("--window", type=float, nargs=2, help="intensities that become 0 and 1")
    add("--val_pairs", type=int, help="validation pairs, 0 for all")
    add("--synthetic_probability", type=float, help="share of synthetic training pairs")
    add("--seed", type=int, help="of data, initial weights and augmentation")
    add("--set", nargs="+", default=[], type=setting, metavar="KEY=VALUE", help="any other keys of the configuration")
    add("--threads", type=int, default=1, help="CPU threads; seconds compare best with one (default: 1)")
    add("--output", type=Path, help="file to write, .md for the table or .json for that of each pair too")
    args = parser.parse_args(argv)
    if args.threads < 1 or (args.steps is not None and args.steps < 1):
        parser.error("--steps and --threads must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Train, evaluate, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    torch.set_num_threads(args.threads)
    overrides = (
        {"optimizer": ADAM, "learning_rate": LEARNING_RATE} | given(args, ("dataset_dir", *SETTINGS)) | dict(args.set)
    )
    parser = ConfigParser(config := of_steps(read_config(args.config, overrides), args.steps))
    seed, device = parser.get_parsed_content("seed"), parser.get_parsed_content("device")
    parsers = {"VoxelMorph": voxelmorph_parser(config, args.voxelmorph_learning_rate), "RAN": parser}
    methods = {name: make_method(p, seed) for name, p in parsers.items() if args.only in (None, name)}
    train(list(methods.values()), parser.get_parsed_content("train#dataloader"), seed)
    results = evaluate(methods, parser.get_parsed_content("validate#dataloader"))

    about = {
        "data_set": Learn2RegDataset(parser.get_parsed_content("dataset_dir")).name,
        "steps": len(next(iter(methods.values())).seconds),
        **{key: parser.get_parsed_content(key) for key in SETTINGS},
        "hardware": hardware(device),
        "command": command_line(__file__, argv),
    }
    if args.voxelmorph_learning_rate is not None:
        about["learning_rate"] = f"{about['learning_rate']}, VoxelMorph {args.voxelmorph_learning_rate}"
    about["val_pairs"] = max(len(result.pairs) for result in results.values())  # 0 stands for all
    markdown = to_markdown(results, about, device)
    return publish(args.output, markdown, about, results=results)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
