"""Time and memory of RAN beside VoxelMorph, with random weights on the CPU.

Times are CPU seconds, the minimum of several runs that take turns in alternating order, on one thread unless set
otherwise: with other programs on the cores, threads wait for each other and seconds grow tenfold. Each peak of memory
is that of a process of its own; the baseline is such a process that has imported everything and made the input, but
runs no network. Nothing is subtracted.

    python benchmarks/forward_cost.py --step        # forward pass and training step at 96 x 96 x 96
    python benchmarks/forward_cost.py --ablate      # RAN with each of its speed-ups taken away
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from voxelmorph_unet import DIVISOR, voxelmorph_unet

import monai_regplugins
from monai_regplugins.benchmark.reporting import (
    check_output,
    command_line,
    hardware,
    markdown_table,
    number,
    publish,
)
from monai_regplugins.memory import peak_of_this_process
from monai_regplugins.networks.blocks import residual_aligner, residual_conv
from monai_regplugins.networks.nets import RAN, ran

BASELINE = "baseline"


class BothDirectionsRAN(RAN):
    """Aligns both directions at the last level too, where only one is needed."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the field on the fixed grid and drop the other."""
        return self.both_directions(image)[0]


class DefaultLayoutRAN(RAN):
    """Leaves tensors in PyTorch's default memory layout, channels first."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the field on the fixed grid."""
        with default_layout():
            return super().forward(image)


class ConvolvedRAN(RAN):
    """Runs convolutions of kernel size 1 as PyTorch does, not as matrix products."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the field on the fixed grid."""
        with patch.object(residual_conv.PointwiseConv, "forward", convolve):
            return super().forward(image)


def convolve(self: residual_conv.PointwiseConv, x: Tensor) -> Tensor:
    """Do what :meth:`PointwiseConv.forward` does by a convolution."""
    return (nn.functional.conv2d if x.ndim == 4 else nn.functional.conv3d)(x, self.weight, self.bias)


CASES: dict[str, Callable[..., nn.Module]] = {
    "VoxelMorph": voxelmorph_unet,
    "RAN": RAN,
    "RAN, both directions at the last level": BothDirectionsRAN,
    "RAN, channels first": DefaultLayoutRAN,
    "RAN, 1x1x1 as convolutions": ConvolvedRAN,
    "RAN, levels recomputed (checkpointing)": functools.partial(RAN, checkpointing=True),
}


@dataclass(frozen=True)
class Cost:
    """CPU seconds and peak memory, MiB, of a case; None where not measured."""

    forward_seconds: float
    forward_mib: float
    step_seconds: float | None = None
    step_mib: float | None = None


@contextlib.contextmanager
def default_layout() -> Iterator[None]:
    """Make RAN's change of the memory layout do nothing."""
    with contextlib.ExitStack() as stack:
        for module in (residual_conv, residual_aligner, ran):
            stack.enter_context(patch.object(module, "channels_last", lambda x: x))
        yield


def forward_run(network: nn.Module, image: Tensor) -> Callable[[], object]:
    """Return a function that runs one forward pass."""
    return torch.no_grad()(functools.partial(network.eval(), image))


def step_run(network: nn.Module, image: Tensor) -> Callable[[], object]:
    """Return a function that takes one training step: forward, mean square of the field, backward, Adam."""
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        network(image).square().mean().backward()
        optimizer.step()

    return run


def make_run(case: str, size: Sequence[int], step: bool) -> Callable[[], object]:
    """Return what is measured for a case: nothing, a forward pass or a training step of one pair."""
    torch.manual_seed(0)
    image = torch.rand(1, 2, *size)
    if case == BASELINE:
        return lambda: None
    return (step_run if step else forward_run)(CASES[case](spatial_dims=len(size)), image)


def least_seconds(cases: Sequence[str], size: Sequence[int], step: bool, runs: int) -> dict[str, float]:
    """Return the least CPU seconds of each case, the cases taking turns, after one run each to warm up."""
    actions = {case: make_run(case, size, step) for case in cases}
    for action in actions.values():
        action()
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    for turn in range(runs):
        for case in cases if turn % 2 == 0 else reversed(cases):
            start = time.process_time()
            actions[case]()
            seconds[case].append(time.process_time() - start)
    return {case: min(values) for case, values in seconds.items()}


def peak_in_process(case: str, size: Sequence[int], step: bool, threads: int) -> float:
    """Return the peak memory, MiB, of a process that runs a case twice: a second step also holds Adam's moments."""
    command = [sys.executable, __file__, "--peak", case, "--threads", str(threads), "--size", *map(str, size)]
    result = subprocess.run([*command, *["--step"] * step], check=True, stdout=subprocess.PIPE, text=True)
    return float(result.stdout)


def measure(cases: Sequence[str], args: argparse.Namespace) -> dict[str, Cost]:
    """Measure cases, forward and, if asked, in a training step."""
    kinds = (False, True) if args.step else (False,)
    mib = {(c, step): peak_in_process(c, args.size, step, args.threads) for step in kinds for c in cases}
    seconds = {step: least_seconds(cases, args.size, step, args.runs) for step in kinds}
    return {
        case: Cost(
            seconds[False][case],
            mib[case, False],
            seconds[True][case] if args.step else None,
            mib[case, True] if args.step else None,
        )
        for case in cases
    }


def to_markdown(costs: Mapping[str, Cost], baseline_mib: float, about: Mapping[str, str]) -> str:
    """Return the table; ratios are to its first network."""
    header = ["network", "forward (CPU s)", "ratio", "peak (MiB)", "step (CPU s)", "ratio", "peak (MiB)"]
    first = next(iter(costs.values()))
    rows = [
        [
            case,
            number(cost.forward_seconds, 3),
            number(cost.forward_seconds / first.forward_seconds, 2),
            number(cost.forward_mib, 0),
            number(cost.step_seconds, 3),
            number(cost.step_seconds / first.step_seconds if cost.step_seconds and first.step_seconds else None, 2),
            number(cost.step_mib, 0),
        ]
        for case, cost in costs.items()
    ]
    baseline = [BASELINE, "-", "-", number(baseline_mib, 0), "-", "-", "-"]
    facts = [f"- {key}: {value}" for key, value in about.items()]
    return "\n".join([markdown_table(header, [*rows, baseline]), "", *facts])


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", type=int, nargs="+", default=[96, 96, 96], help="grid, voxels (default: 96 96 96)")
    add("--runs", type=int, default=3, help="runs of which the fastest counts (default: 3)")
    add("--threads", type=int, default=1, help="CPU threads; CPU seconds compare best with one (default: 1)")
    add("--step", action="store_true", help="measure a training step too")
    add("--ablate", action="store_true", help="RAN with each speed-up taken away, training step included")
    add("--output", type=Path, help="file to write, .md for the table or .json")
    add("--peak", choices=[BASELINE, *CASES], help=argparse.SUPPRESS)  # the process whose memory is measured
    args = parser.parse_args(argv)
    args.step |= args.ablate
    if args.runs < 1 or args.threads < 1:
        parser.error("--runs and --threads must be at least 1")
    if any(n < 2 * DIVISOR or n % DIVISOR for n in args.size) or len(args.size) not in (2, 3):
        parser.error(f"--size takes two or three multiples of {DIVISOR}, at least {2 * DIVISOR}")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Measure, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    torch.set_num_threads(args.threads)
    if args.peak:
        run = make_run(args.peak, args.size, args.step)
        run()
        run()
        print(peak := f"{peak_of_this_process():.1f}")
        return peak
    ran_cases = [case for case in CASES if case.startswith("RAN")]
    costs = measure(ran_cases if args.ablate else ["VoxelMorph", "RAN"], args)
    baseline_mib = peak_in_process(BASELINE, args.size, False, args.threads)
    about = {
        "grid": " x ".join(map(str, args.size)) + f", one pair, least of {args.runs} runs",
        "hardware": hardware(torch.device("cpu")),
        "command": command_line(__file__, argv),
    }
    markdown = to_markdown(costs, baseline_mib, about)
    return publish(args.output, markdown, about, baseline_mib=baseline_mib, costs=costs)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
