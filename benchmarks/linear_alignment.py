"""How far the initial alignment reaches: seeded rotations, shifts, sizes and cut fields of view, with known truth.

Each draw takes a thorax or an abdomen phantom as fixed image. The moving image is the same body turned about a random
axis by up to 90 degrees, moved by up to 100 mm and scaled by 0.8 to 1.25, with other noise, on a grid of its own, of
which one third is cut off at a random face. A method succeeds where its map is off by less than 2 voxels in the mean
over the body; a failure without a warning is a silent one. The other methods are affine registrations of their
packages, started at the centers of mass or of the images, as far as they are installed; greedy also searches for
rotations. They give no warnings. They get the images with air as 0, as their centers of mass and what they take to be
outside of an image assume. CPU seconds are those of the process, on one thread.

With ``--measured FILE`` each result is a line of that file, and what is there is not measured again: a run that was
stopped goes on, and several at once share the work (``--start``). The table is of all that the file holds.

    ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1 python benchmarks/linear_alignment.py --draws 20 --output table.md
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

import monai_regplugins
from monai_regplugins.benchmark.reporting import (
    check_output,
    command_line,
    hardware,
    number,
    publish,
    table_with_facts,
)
from monai_regplugins.phantoms.abdomen import abdomen_subject
from monai_regplugins.phantoms.thorax import thorax_subject
from monai_regplugins.transforms.initial_alignment_choice import initial_matrix

Array = npt.NDArray[Any]

SUCCESS = 2.0  # voxels
AIR, NOISE = -1000, 10.0  # HU
SUBJECTS = 3  # of each phantom
CHEST = (70, 55, 65)  # voxels of the thorax
EDGE = 4.0  # mm, of the voxels of both phantoms
LOGGER = "monai_regplugins"


@dataclass
class Draw:
    """One pair: both images with their voxel-to-world matrices, the true map, and points of the fixed body in mm."""

    phantom: str
    fixed: Array
    fixed_affine: Array
    moving: Array
    moving_affine: Array
    truth: Array
    points: Array

    def error(self, matrix: Array) -> float:
        """Return the mean distance of the mapped points from the truth, in voxels."""
        difference = matrix - self.truth
        away = self.points @ difference[:3, :3].T + difference[:3, 3]
        return float(np.linalg.norm(away, axis=1).mean() / np.diag(self.fixed_affine)[:3].mean())


@dataclass(frozen=True)
class Result:
    """What one method did to one draw: mean error in voxels, whether it warned, and CPU seconds."""

    method: str
    phantom: str
    number: int
    seed: int
    error: float
    warned: bool
    seconds: float

    @property
    def place(self) -> tuple[str, str, int, int]:
        """What was measured."""
        return self.method, self.phantom, self.number, self.seed


Method = Callable[[Draw], Array]  # the found map, fixed world to moving world, RAS mm


@cache
def subject(phantom: str, seed: int) -> tuple[Array, Array, Array]:
    """Return image, affine and body of a phantom."""
    if phantom == "thorax":
        chest = thorax_subject(seed, (0.0,), CHEST, EDGE)
        return chest.images[0].astype(np.float32), chest.affine, chest.labels[0] > 0
    abdomen = abdomen_subject(seed, spacing=EDGE)
    return abdomen["image"].astype(np.float32), abdomen["affine"], abdomen["label"] > 0


def draw(phantom: str, number: int, seed: int) -> Draw:
    """Make one pair."""
    image, affine, body = subject(phantom, number % SUBJECTS)
    rng = np.random.default_rng([seed, number])
    points = np.argwhere(body)[::200] @ affine[:3, :3].T + affine[:3, 3]
    truth = similarity(rng, points.mean(axis=0))
    shape, moving_affine = cut_grid(rng, image.shape, affine, truth)
    to_fixed = np.linalg.inv(truth @ affine) @ moving_affine
    moving = affine_transform(image, to_fixed[:3, :3], to_fixed[:3, 3], output_shape=shape, order=1, cval=AIR)
    noisy = (moving + NOISE * rng.normal(size=shape)).astype(np.float32)
    return Draw(phantom, image, affine, noisy, moving_affine, truth, points)


def similarity(rng: np.random.Generator, center: Array) -> Array:
    """Return a random rotation about a point, a size and a shift, as a matrix."""
    axis, shift = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    turn = Rotation.from_rotvec(np.radians(rng.uniform(0, 90)) * axis).as_matrix() * rng.uniform(0.8, 1.25)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, center - turn @ center + shift * rng.uniform(0, 100)
    return matrix


def cut_grid(
    rng: np.random.Generator, fixed_shape: Sequence[int], affine: Array, truth: Array
) -> tuple[tuple[int, ...], Array]:
    """Return a grid about the moved image, at most a quarter larger than the fixed one, without a third at one face."""
    spacing, shape = np.diag(affine)[:3], np.array(fixed_shape)
    corners = np.stack(np.meshgrid(*[[0, n - 1] for n in shape], indexing="ij")).reshape(3, -1)
    moved = (truth @ affine)[:3, :3] @ corners + (truth @ affine)[:3, 3:]
    whole = np.ceil(np.ptp(moved, axis=1) / spacing).astype(int) + 1
    size = np.minimum(whole, np.ceil(1.25 * shape).astype(int))
    start, axis = (whole - size) // 2, rng.integers(3)
    third = size[axis] // 3
    start[axis] += third * rng.integers(2)
    size[axis] -= third
    grid = np.diag([*spacing, 1.0])
    grid[:3, 3] = moved.min(axis=1) + start * spacing
    return tuple(int(n) for n in size), grid


def ours(kind: str) -> Method:
    """Return an initial alignment of this package."""

    def register(pair: Draw) -> Array:
        images = (torch.from_numpy(image)[None] for image in (pair.fixed, pair.moving))
        affines = (torch.from_numpy(affine) for affine in (pair.fixed_affine, pair.moving_affine))
        (fixed, moving), (fixed_affine, moving_affine) = images, affines
        found: Array = initial_matrix(kind, fixed, fixed_affine, moving, moving_affine).numpy()
        return found

    return register


def elastix(pair: Draw) -> Array:
    """Run the affine registration of elastix with its default parameters, started at the centers of mass."""
    itk: Any = importlib.import_module("itk")
    images = [in_itk(itk, *image) for image in images_of(pair)]
    parameters = itk.ParameterObject.New()
    affine = parameters.GetDefaultParameterMap("affine", 4)
    affine["AutomaticTransformInitialization"] = ["true"]
    affine["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
    parameters.AddParameterMap(affine)
    _, found = itk.elastix_registration_method(*images, parameter_object=parameters, log_to_console=False)
    values = np.array(found.GetParameterMap(0)["TransformParameters"], dtype=float)
    center = np.array(found.GetParameterMap(0)["CenterOfRotationPoint"], dtype=float)
    return about(values[:9].reshape(3, 3), values[9:], center)


def ants(pair: Draw) -> Array:
    """Run the affine registration of ANTs with its default parameters, started at the centers of mass."""
    package: Any = importlib.import_module("ants")
    images = [
        package.from_numpy(image, spacing=np.diag(affine)[:3].tolist(), origin=affine[:3, 3].tolist())
        for image, affine in images_of(pair)
    ]
    with TemporaryDirectory() as folder:
        found = package.registration(*images, "Affine", outprefix=str(Path(folder, "map")), random_seed=1)
        transform = sitk.AffineTransform(sitk.ReadTransform(found["fwdtransforms"][0]))
    parts = [np.array(part) for part in (transform.GetMatrix(), transform.GetTranslation(), transform.GetCenter())]
    return about(parts[0].reshape(3, 3), *parts[1:])


def greedy(pair: Draw) -> Array:
    """Run the affine registration of greedy by its NCC, from the best of 1000 random rotations."""
    tool = importlib.import_module("picsl_greedy").Greedy3D()
    images = {name: in_sitk(*image) for name, image in zip(("fixed", "moving"), images_of(pair), strict=True)}
    command = "-V 0 -threads 1 -seed 1 -a -dof 12 -i fixed moving -m NCC 2x2x2 -n 100x50x10 -ia-image-centers "
    tool.execute(command + "-search 1000 any 20 -o map", **images, map=None)
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])  # its matrices are RAS; the images were handed over as if LPS were RAS
    found: Array = to_ras @ np.array(tool["map"]) @ to_ras
    return found


def images_of(pair: Draw) -> list[tuple[Array, Array]]:
    """Return both images, air as 0, with their affines."""
    return [(pair.fixed - AIR, pair.fixed_affine), (pair.moving - AIR, pair.moving_affine)]


def in_sitk(image: Array, affine: Array) -> sitk.Image:
    """Hand an image over with its world as it is: both share it, so no sign changes."""
    result = sitk.GetImageFromArray(np.ascontiguousarray(image.T))
    result.SetSpacing(np.diag(affine)[:3].tolist())
    result.SetOrigin(affine[:3, 3].tolist())
    return result


def in_itk(itk: Any, image: Array, affine: Array) -> Any:
    """Hand an image to ITK's own Python package, likewise."""
    result = itk.image_from_array(np.ascontiguousarray(image.T))
    result.SetSpacing(np.diag(affine)[:3].tolist())
    result.SetOrigin(affine[:3, 3].tolist())
    return result


def about(linear: Array, translation: Array, center: Array) -> Array:
    """Return ``x -> L (x - c) + t + c`` as a matrix."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, translation + center - linear @ center
    return matrix


METHODS: dict[str, tuple[str, Method]] = {
    "similarity": ("torch", ours("similarity")),
    "affine": ("torch", ours("affine")),
    "elastix": ("itk", elastix),
    "ants": ("ants", ants),
    "greedy": ("picsl_greedy", greedy),
}


def installed(names: Sequence[str]) -> list[str]:
    """Return the methods whose package is there; say of the others that it is not."""
    there = []
    for name in names:
        try:
            importlib.import_module(METHODS[name][0])
            there.append(name)
        except ImportError:
            print(f"{name} is left out, its package {METHODS[name][0]} is not installed")
    return there


class Warned(logging.Handler):
    """State whether something was warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard = False

    def emit(self, record: logging.LogRecord) -> None:
        """Note a warning."""
        self.heard = True


def measure(name: str, pair: Draw, number: int, seed: int) -> Result:
    """Register one pair; a method that raises has failed with a word."""
    handler = Warned()
    logging.getLogger(LOGGER).addHandler(handler)
    start = time.process_time()
    try:
        error = pair.error(METHODS[name][1](pair))
    except Exception as problem:  # the packages raise anything
        error, handler.heard = float("inf"), True
        print(f"failed: {' '.join(str(problem).split())[-200:]}")
    finally:
        logging.getLogger(LOGGER).removeHandler(handler)
    return Result(name, pair.phantom, number, seed, error, handler.heard, time.process_time() - start)


def measured(names: Sequence[str], phantom: str, number: int, seed: int) -> Iterator[Result]:
    """Make a draw, if any method is to meet it, and give what each did."""
    if names:
        pair = draw(phantom, number, seed)
        yield from (measure(name, pair, number, seed) for name in names)


def read_results(path: Path | None) -> list[Result]:
    """Return what a file holds that was measured before."""
    if path is None or not path.is_file():
        return []
    return [Result(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def keep(result: Result, path: Path | None) -> None:
    """Add a result to a file, and print it."""
    if path is not None:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(result)) + "\n")
    what = f"{result.phantom} {result.number} {result.method}"
    print(f"{what}: {result.error:.2f} voxels, {result.seconds:.1f} s", flush=True)


def table(results: Sequence[Result], facts: dict[str, object]) -> str:
    """Return success, silent failures and cost of each method."""
    header = ["method", "pairs", "success (%)", "silent failures (%)", "median error (voxels)", "median CPU s"]
    lines = []
    for name in dict.fromkeys(result.method for result in results):
        own = [result for result in results if result.method == name]
        wrong = [result for result in own if not result.error < SUCCESS]
        silent = [result for result in wrong if not result.warned]
        lines.append(
            [
                name,
                str(len(own)),
                number(100 * (1 - len(wrong) / len(own)), 1),
                number(100 * len(silent) / len(own), 1),
                number(float(np.median([result.error for result in own])), 2),
                number(float(np.median([result.seconds for result in own])), 1),
            ]
        )
    return table_with_facts(header, lines, facts)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=100, help="pairs of each phantom (default: 100)")
    parser.add_argument("--start", type=int, default=0, help="number of the first pair (default: 0)")
    parser.add_argument("--phantoms", nargs="+", default=["thorax", "abdomen"], choices=["thorax", "abdomen"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measured", type=Path, help="file of the results, .jsonl, that a run begins with and adds to")
    parser.add_argument("--output", type=Path, help="file of the report, .md or .json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> str:
    """Measure all methods, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    names, known = installed(args.methods), {result.place: result for result in read_results(args.measured)}
    for index, phantom in product(range(args.start, args.start + args.draws), args.phantoms):
        pending = [name for name in names if (name, phantom, index, args.seed) not in known]
        for result in measured(pending, phantom, index, args.seed):
            known[result.place] = result
            keep(result, args.measured)
    results = sorted(known.values(), key=lambda result: list(METHODS).index(result.method))
    facts: dict[str, object] = {
        "machine": hardware(torch.device("cpu")),
        "command": command_line(__file__, argv),
    }
    return publish(args.output, table(results, facts), facts, rows=[asdict(result) for result in results])


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
