"""Time and memory of the whole inference command over the size of a pair, beside greedy with its own affine.

The pair is one subject of the thorax phantom at end inspiration and end expiration, enlarged to each size, with fresh
noise, and its moving image turned and shifted in its header. Each command runs in a process of its own, from the start
of Python to the last file, on one thread; the commands take turns. Seconds are those of the CPU, user and system,
memory is the largest resident set, both as the operating system reports them when the process has ended, and the table
has the medians. Growth is the line of least squares over the voxels. A further run of each command measures its stages.

    python benchmarks/cost.py --sizes 64 96 --repeats 3                     # a quick look
    python benchmarks/cost.py --baseline ../before --output cost.json --figure cost.png
    python benchmarks/cost.py --baseline ../first --baseline_options="--align auto"  # where they have other names
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from compileall import compile_dir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import child_process
import nibabel as nib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

import monai_regplugins
from monai_regplugins.benchmark.baselines import load_baseline
from monai_regplugins.benchmark.reporting import (
    check_output,
    command_line,
    hardware,
    markdown_table,
    number,
    publish,
    setting,
)
from monai_regplugins.benchmark.runner import THREAD_VARIABLES
from monai_regplugins.checks import InputError, check_file
from monai_regplugins.fields import sample_at
from monai_regplugins.grids import map_points, rescaled_affine
from monai_regplugins.io.displacement import load_itk_nifti
from monai_regplugins.phantoms.thorax import Thorax, thorax_subject

ROOT = Path(__file__).resolve().parents[1]
CHILD = Path(child_process.__file__)
CONFIG = Path("bundles", "ran", "configs", "inference.json")
SIZES = ("64", "96", "128", "192", "256", "512x512x160")
NOISE = 14.0  # HU, that of the phantom, which the enlarging has smoothed away
TURN, SHIFT = 6.0, (20.0, -15.0, 25.0)  # of the moving image, degrees about the head's axis and mm
GREEDY, BASELINE = "greedy", "baseline"
MIB = 2**20


@dataclass(frozen=True)
class Method:
    """A command that registers a pair: the checkout that it runs from (None for greedy) and its own words."""

    tree: Path | None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What a method took for a pair, medians over the runs, or why it failed; stages as ``child_process`` has them."""

    voxels: int
    cpu_seconds: float | None = None
    seconds: float | None = None
    peak_mib: float | None = None
    tre: float | None = None
    stages: Mapping[str, Mapping[str, float]] | None = None
    error: str = ""


@dataclass(frozen=True)
class Line:
    """Growth ``at_zero + slope * voxels``."""

    at_zero: float
    slope: float


Costs = dict[str, dict[str, Cost]]  # by size and method


def make_pair(folder: Path, shape: Sequence[int], subject: Thorax) -> None:
    """Write a phantom at another size: images and labels as NIfTI, landmarks as voxels."""
    old = subject.images.shape[1:]
    affine = rescaled_affine(torch.from_numpy(subject.affine), old, shape)
    ratio = np.divide(shape, old)
    rng = np.random.default_rng(0)
    for phase, (side, place) in enumerate((("fixed", affine), ("moving", displaced(shape, affine)))):
        image = enlarged(subject.images[phase], shape, "trilinear")
        image += NOISE * torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        _save(image.clamp(-1024, 3071).round().short(), place, folder / f"{side}.nii.gz")
        label = enlarged(subject.labels[phase], shape, "nearest-exact")
        _save(label.byte(), place, folder / f"{side}_label.nii.gz")
        points = (subject.landmarks[phase] + 0.5) * ratio - 0.5
        np.savetxt(folder / f"{side}_points.csv", points, fmt="%.5f", delimiter=",")


def enlarged(values: np.ndarray[Any, Any], shape: Sequence[int], mode: str) -> Tensor:
    """Interpolate a volume at another size; the field of view stays."""
    return interpolate(torch.from_numpy(values).float()[None, None], tuple(shape), mode=mode)[0, 0]


def displaced(shape: Sequence[int], affine: Tensor) -> Tensor:
    """Turn a grid about its center and shift it."""
    center = map_points((torch.tensor(shape, dtype=torch.float64)[None] - 1) / 2, affine)[0]
    angle = np.deg2rad(TURN)
    motion = torch.eye(4, dtype=torch.float64)
    motion[:2, :2] = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    motion[:3, 3] = center - motion[:3, :3] @ center + torch.tensor(SHIFT, dtype=torch.float64)
    return motion @ affine


def _save(values: Tensor, affine: Tensor, path: Path) -> None:
    """Write a volume as NIfTI."""
    nib.save(nib.Nifti1Image(values.numpy(), affine.numpy()), path)


def choose_methods(args: argparse.Namespace) -> dict[str, Method]:
    """Return the commands to measure by name: ours for each number of steps, the same of the baseline, and greedy."""
    settings = [
        ("--initial_alignment", args.initial_alignment),
        *((f"--{key}", json.dumps(value)) for key, value in args.set),
    ]
    shared = [word for pair in settings for word in pair]
    before = shared if args.baseline_options is None else args.baseline_options
    methods = {}
    for name, tree, words in (("ran", ROOT, shared), (BASELINE, args.baseline, before)):
        for steps in args.refine_steps if tree else ():
            full = f"{name} + {steps} steps" if steps else name
            methods[full] = Method(tree, (*words, "--refine_steps", str(steps)))
    return methods | ({} if args.no_greedy else {GREEDY: Method(None)})


def inference_words(method: Method, folder: Path, output: Path) -> list[str]:
    """Return the words of the inference command after ``python -m``: ``regplugins``, which the first build lacked."""
    tree, images = Path(str(method.tree)), [folder / f"{key}.nii.gz" for key in ("fixed", "moving")]
    files = {key: folder / f"{key}.nii.gz" for key in ("fixed_label", "moving_label")}
    files |= {key: folder / f"{key}.csv" for key in ("fixed_points", "moving_points")}
    config = check_file(tree / CONFIG, "configuration")
    command = ["monai_regplugins", "register", *map(str, images), "--bundle", str(config.parents[1])]
    if not (tree / "monai_regplugins" / "__main__.py").is_file():
        command = ["monai.bundle", "run", "inference", "--config_file", str(config)]
        files |= {"fixed": images[0], "moving": images[1]}
    given = [word for key, path in files.items() for word in (f"--{key}", str(path))]
    return [*command, *given, *method.words, "--output_dir", str(output)]


def run_child(words: Sequence[str], tree: Path) -> None:
    """Run a measured process with the package of a checkout, on one thread.

    Raises:
        InputError: When it ends before it has noted anything.
    """
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), "PYTHONPATH": str(tree)}
    command = [sys.executable, str(CHILD), *words]
    with tempfile.TemporaryDirectory() as elsewhere:  # in a checkout, Python would take the package from there
        done = subprocess.run(
            command, env=environment, cwd=elsewhere, capture_output=True, text=True, errors="replace", check=False
        )
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])


def measure_once(method: Method, folder: Path) -> dict[str, float]:
    """Run a command once in a fresh folder; return what it took and the mean error at the landmarks, mm.

    Raises:
        InputError: When it does not end well.
    """
    with tempfile.TemporaryDirectory(dir=folder) as output:
        report = Path(output, "report.json")
        if method.tree is None:
            command = [str(CHILD), "greedy", str(folder)]
        else:
            command = ["-m", *inference_words(method, folder, Path(output))]
        run_child(["cost", str(report), sys.executable, *command], method.tree or ROOT)
        found: dict[str, float] = json.loads(report.read_text(encoding="utf-8"))
        if status := found.pop("status"):
            raise InputError(f"its process ended with status {status:g}")
        return found | {"tre": landmark_error(folder) if method.tree is None else _told_error(Path(output))}


def _told_error(output: Path) -> float:
    """Return the mean error at the landmarks that an inference has written."""
    (file,) = output.glob("*/metrics.json")
    return float(json.loads(file.read_text(encoding="utf-8"))["tre"])


def landmark_error(folder: Path) -> float:
    """Return the mean error at the landmarks of greedy's warp, which comes first, and affine map, mm."""
    field, affine = (torch.from_numpy(np.ascontiguousarray(part)) for part in load_itk_nifti(folder / "warp.nii.gz"))
    fixed, moving = (np.loadtxt(folder / f"{side}_points.csv", delimiter=",") for side in ("fixed", "moving"))
    voxels = torch.from_numpy(fixed)
    shift = sample_at(field[None].double(), voxels[None])[0]
    matrix = torch.from_numpy(np.loadtxt(folder / "affine.mat"))
    found = map_points(map_points(voxels, affine) + shift, matrix)
    truth = map_points(torch.from_numpy(moving), torch.from_numpy(nib.load(folder / "moving.nii.gz").affine))
    return float((found - truth).norm(dim=1).mean())


def measure_stages(method: Method, folder: Path) -> dict[str, dict[str, float]] | None:
    """Run an inference once more and return what each stage took, see ``child_process``; None of greedy."""
    if method.tree is None:
        return None
    with tempfile.TemporaryDirectory(dir=folder) as output:
        report = Path(output, "report.json")
        run_child(["stages", str(report), *inference_words(method, folder, Path(output))], method.tree)
        found: dict[str, dict[str, float]] = json.loads(report.read_text(encoding="utf-8"))
        return found


def measure(methods: Mapping[str, Method], folder: Path, voxels: int, repeats: int) -> dict[str, Cost]:
    """Measure all methods on the pair of a folder; they take turns."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    costs: dict[str, Cost] = {}
    for _ in range(repeats):
        for name in [name for name in methods if name not in costs]:
            try:
                runs[name].append(measure_once(methods[name], folder))
            except InputError as error:
                costs[name] = Cost(voxels, error=str(error))
    for name in [name for name in methods if name not in costs]:
        medians = {key: statistics.median(run[key] for run in runs[name]) for key in runs[name][0]}
        costs[name] = Cost(voxels, **medians, stages=measure_stages(methods[name], folder))
    return {name: costs[name] for name in methods}


def measure_all(methods: Mapping[str, Method], sizes: Mapping[str, Sequence[int]], repeats: int) -> Costs:
    """Measure all methods at all sizes."""
    subject, costs = thorax_subject(0), {}
    for name in (bar := tqdm(sizes, unit="size")):
        bar.set_postfix_str(name)
        with tempfile.TemporaryDirectory() as folder:
            make_pair(Path(folder), sizes[name], subject)
            costs[name] = measure(methods, Path(folder), int(np.prod(sizes[name])), repeats)
    return costs


def growth(costs: Costs, method: str) -> dict[str, Line] | None:
    """Fit lines to CPU seconds and peak, MiB, of a method over voxels; None of fewer than two sizes."""
    rows = [row[method] for row in costs.values() if not row[method].error]
    if len(rows) < 2:
        return None
    voxels = [row.voxels for row in rows]
    values = {key: [getattr(row, key) for row in rows] for key in ("cpu_seconds", "peak_mib")}
    lines = {key: np.polyfit(voxels, column, 1) for key, column in values.items()}
    return {key: Line(float(at_zero), float(slope)) for key, (slope, at_zero) in lines.items()}


def cost_table(costs: Costs) -> str:
    """Return a table with a row per size and method."""
    header = ["size", "voxels", "method", "CPU s", "µs / voxel", "peak (MiB)", "bytes / voxel", "TRE (mm)"]
    rows = [
        [size, f"{cost.voxels:,}", *_cells(name, cost)] for size, row in costs.items() for name, cost in row.items()
    ]
    return markdown_table(header, rows)


def _cells(name: str, cost: Cost) -> list[str]:
    """Return the cells of a method at a size."""
    if cost.error or cost.cpu_seconds is None or cost.peak_mib is None:
        return [name, f"failed: {' '.join(cost.error.replace('|', '/').split())}", *[""] * 4]
    return [
        name,
        number(cost.cpu_seconds, 2),
        number(1e6 * cost.cpu_seconds / cost.voxels, 2),
        number(cost.peak_mib, 0),
        number(MIB * cost.peak_mib / cost.voxels, 0),
        number(cost.tre, 2),
    ]


def growth_table(lines: Mapping[str, Mapping[str, Line]]) -> str:
    """Return a table of the fitted lines."""
    rows = [
        [
            name,
            number(found["cpu_seconds"].at_zero, 2),
            number(1e6 * found["cpu_seconds"].slope, 2),
            number(found["peak_mib"].at_zero, 0),
            number(MIB * found["peak_mib"].slope, 0),
        ]
        for name, found in lines.items()
    ]
    return markdown_table(["growth", "CPU s at 0", "µs / voxel", "MiB at 0", "bytes / voxel"], rows)


def stage_table(costs: Costs) -> str:
    """Return a table of CPU seconds and of MiB added to the peak by stage, a column per size and method."""
    columns = {
        f"{size} {name}": cost.stages for size, row in costs.items() for name, cost in row.items() if cost.stages
    }
    rows = [
        [
            stage,
            *(f"{found[stage]['cpu_seconds']:.2f} / {found[stage]['raised_mib']:.0f}" for found in columns.values()),
        ]
        for stage in (*child_process.STAGES, child_process.OTHER)
    ]
    return markdown_table(["stage, CPU s / MiB added to the peak", *columns], rows)


def cost_figure(costs: Costs) -> Figure:
    """Draw CPU seconds and peak over voxels, both axes logarithmic."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    methods = list(next(iter(costs.values())))
    panels = {"cpu_seconds": "CPU seconds", "peak_mib": "peak of memory (MiB)"}
    for axes, (key, label) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for name in methods:
            points = [(row[name].voxels, getattr(row[name], key)) for row in costs.values() if not row[name].error]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=1.2, label=name)
        axes.set(xscale="log", yscale="log", xlabel="voxels", ylabel=label)
        axes.grid(alpha=0.3, which="both", linewidth=0.5)
        axes.xaxis.set_minor_formatter(NullFormatter())  # over less than a decade they would lie on each other
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(methods))
    return figure


def shape_of(text: str) -> tuple[int, ...]:
    """Return the voxels along each axis of a size in words, ``64`` or ``512x512x160``."""
    parts = text.split("x")
    if len(parts) not in (1, 3) or not all(part.isdigit() and int(part) >= 16 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no size, expected such as 64 or 512x512x160, 16 or more each")
    return tuple(int(part) for part in (parts * 3 if len(parts) == 1 else parts))


def size_name(shape: Sequence[int]) -> str:
    """Name a size."""
    return "x".join(map(str, shape))


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    sizes = [shape_of(size) for size in SIZES]
    add("--sizes", type=shape_of, nargs="+", default=sizes, help=f"of the pair (default: {' '.join(SIZES)})")
    add("--repeats", type=int, default=5, help="runs of each command, of which the median counts (default: 5)")
    add("--refine_steps", type=int, nargs="+", default=[0, 30], help="steps of refinement, a row each (default: 0 30)")
    add("--initial_alignment", default="auto", help="initial alignment (default: auto)")
    add("--set", nargs="+", default=[], type=setting, metavar="KEY=VALUE", help="other keys of the configuration")
    add("--baseline", type=Path, help="folder of another checkout to measure beside this one")
    add("--baseline_options", type=shlex.split, help="options of its command, by default those of this one's")
    add("--no_greedy", action="store_true", help="leave greedy out")
    add("--output", type=Path, help="file to write, .md for the tables or .json for all values")
    add("--figure", type=Path, help="picture of time and memory over voxels to write, .png, .svg or .pdf")
    args = parser.parse_args(argv)
    if args.repeats < 1 or min(args.refine_steps) < 0:
        parser.error("--repeats must be at least 1, --refine_steps at least 0")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Measure, print the tables and return them."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    check_output(args.figure, (".png", ".svg", ".pdf"), "figure")
    if args.baseline:
        args.baseline = args.baseline.resolve()
        check_file(args.baseline / CONFIG, "configuration of the baseline")
    if not args.no_greedy:
        load_baseline(GREEDY)
    torch.set_num_threads(1)
    methods = choose_methods(args)
    for tree in {method.tree for method in methods.values() if method.tree}:
        compile_dir(tree / "monai_regplugins", quiet=2)  # as an installation does
    costs = measure_all(methods, {size_name(shape): shape for shape in args.sizes}, args.repeats)
    lines = {name: found for name in methods if (found := growth(costs, name))}
    about = {
        "pair": f"thorax phantom, moving image turned by {TURN:g} degrees and shifted by {SHIFT} mm in its header",
        "runs": f"median of {args.repeats}, one thread",
        "hardware": hardware(torch.device("cpu")),
        "command": command_line(__file__, argv),
    }
    tables = [cost_table(costs), *([growth_table(lines)] if lines else []), stage_table(costs)]
    markdown = "\n\n".join([*tables, "\n".join(f"- {key}: {value}" for key, value in about.items())])
    if args.figure:
        cost_figure(costs).savefig(args.figure, dpi=110)
    return publish(args.output, markdown, about, costs=costs, growth=lines)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
