"""All phases of a breath onto one: ``regplugins series`` against the same pairs one by one.

The series is ten phases of the thorax phantom, whose depth follows ``1 - |cos(pi t / 10)|^3``, with exact landmarks,
or, with ``--data``, the ten phases of one patient of ``LungCT4D`` (in the layout of Learn2Reg). Both ways read the
same files, and write all results and the report; CPU seconds are those of the process, weights not loaded, the median
of ``--repeats`` runs in turn. Temporal roughness is the mean length of the second difference in time,
``u_{t+1} - 2 u_t + u_{t-1}``, over all phases of the cycle and all voxels of the mask (the lungs of the phantom, else
the image) or of the whole image, mm.

    OMP_NUM_THREADS=1 python benchmarks/phases.py --bundles ran regnet --data DATA --output phases.md
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.bundle import ConfigParser

import monai_regplugins
from monai_regplugins import fields
from monai_regplugins.benchmark.reporting import (
    check_output,
    command_line,
    hardware,
    number,
    publish,
    read_config,
    table_with_facts,
)
from monai_regplugins.checks import InputError
from monai_regplugins.phantoms import thorax_subject
from monai_regplugins.result import RegistrationResult

Array = npt.NDArray[Any]

BUNDLES = Path(__file__).parents[1] / "bundles"
COUNT = 10  # phases of a cycle
PATIENT = "0118"
WAYS = {"pair by pair": False, "series": True}


@dataclass
class Series:
    """Phases, as a file or list, and what is known of them."""

    name: str
    path: Path
    mask: Array | None = None
    landmarks: Array | None = None  # (T, N, 3), voxels
    spacing: float = 1.0


@dataclass
class Row:
    """What one way found of one series."""

    seconds: float = 0.0  # CPU, of a phase
    errors: list[float] = field(default_factory=list)  # of each phase, mm
    roughness: float = 0.0  # mm, in the mask
    roughness_all: float = 0.0


def phantom(folder: Path, seed: int, shape: Sequence[int], spacing: float) -> Series:
    """Write the thorax phantom as one 4D file."""
    depths = [1.0 - abs(np.cos(np.pi * t / COUNT)) ** 3 for t in range(COUNT)]
    subject = thorax_subject(seed, depths, shape, spacing)
    path = folder / "thorax.nii.gz"
    nib.save(nib.Nifti1Image(np.moveaxis(subject.images, 0, -1), subject.affine), path)
    return Series("thorax phantom", path, subject.masks[0] > 0, subject.landmarks, spacing)


def lung(folder: Path, data: Path) -> Series:
    """Write a list of the phases of a patient."""
    path = folder / "lung.csv"
    images = sorted((data / "imagesTr").glob(f"*_{PATIENT}_*.nii.gz"))
    if len(images) != COUNT:
        raise InputError(f"'{data}' has {len(images)} phases of patient {PATIENT} in imagesTr, expected {COUNT}.")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image"], *([str(image.resolve())] for image in images)])
    return Series("lung CT (4D-Lung)", path)


def run(bundle: str, series: Series, whole: bool, settings: dict[str, Any], folder: Path) -> Row:
    """Register all phases, and measure what was found."""
    configs = BUNDLES / bundle / "configs"
    given = {"series": str(series.path), "output_dir": str(folder), "fail_on": "never", "device": "cpu", **settings}
    content = ConfigParser(read_config(configs / "inference.json", given, configs / "series.json")).get_parsed_content
    queue, found = content("queue"), dict[int, Array]()
    places = content("phases").places
    queue.writer.parts += (lambda result, _: found.update({places[result.pair_id]: kept(result)}),)
    if not whole:
        queue.register = content("register")
    queue.register.prepare()
    start = time.process_time()
    queue.run()
    seconds = (time.process_time() - start) / (COUNT - 1)
    return measured(series, [found.get(t, np.zeros_like(found[1])) for t in range(COUNT)], seconds)


def kept(result: RegistrationResult) -> Array:
    """The displacement of a phase, mm along the axes of the image."""
    spacing = result.targets["spacing"].reshape(-1, 1, 1, 1)
    return np.asarray((result.ddf * spacing).numpy(), dtype=np.float32)


def measured(series: Series, found: Sequence[Array], seconds: float) -> Row:
    """Errors of the landmarks and roughness over time."""
    u = np.stack(found)
    lengths = np.linalg.norm(np.roll(u, 1, 0) - 2 * u + np.roll(u, -1, 0), axis=1).mean(axis=0)
    row = Row(seconds, roughness=float(lengths[... if series.mask is None else series.mask].mean()))
    row.roughness_all = float(lengths.mean())
    for t in range(1, COUNT) if series.landmarks is not None else ():
        points = torch.from_numpy(series.landmarks[0])  # type: ignore[index]
        shift = fields.sample_at(torch.from_numpy(u[t : t + 1]).double(), points[None])[0].numpy()
        true = series.spacing * (series.landmarks[t] - series.landmarks[0])  # type: ignore[index]
        row.errors.append(float(np.linalg.norm(shift - true, axis=1).mean()))
    return row


def table(rows: dict[tuple[str, str, str], Row], facts: dict[str, object]) -> str:
    """One line for each series, bundle and way."""
    header = [
        "series",
        "bundle",
        "way",
        "TRE of each phase [mm]",
        "mean TRE",
        "roughness",
        "of the whole image",
        "CPU s",
    ]
    lines = []
    for (series, bundle, way), row in rows.items():
        errors = " ".join(number(error, 2) for error in row.errors) or "-"
        mean = float(np.mean(row.errors)) if row.errors else None
        rough = (number(row.roughness, 3), number(row.roughness_all, 3))
        lines.append([series, bundle, way, errors, number(mean, 3), *rough, number(row.seconds, 2)])
    return table_with_facts(header, lines, facts)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundles", nargs="+", default=["ran", "regnet"], choices=["ran", "regnet"])
    parser.add_argument("--data", type=Path, help="folder of LungCT4D; without, the phantom")
    parser.add_argument("--shape", type=int, nargs=3, default=[56, 44, 52], help="voxels of the phantom")
    parser.add_argument("--spacing", type=float, default=5.0, help="its voxel size, mm")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each way, in turn; the median of their CPU time"
    )
    parser.add_argument("--output", type=Path, help="file of the report, .md or .json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> str:
    """Register all series both ways, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    rows: dict[tuple[str, str, str], Row] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        series = lung(folder, args.data) if args.data else phantom(folder, args.seed, args.shape, args.spacing)
        coarse = {"voxel_size": max(2.5, series.spacing)}
        for bundle in args.bundles:
            settings = {"window": [-1000, 300]} if bundle == "ran" else coarse
            times: dict[str, list[float]] = {}
            for repeat, (way, whole) in itertools.product(range(args.repeats), WAYS.items()):
                row = run(bundle, series, whole, settings, folder / f"{bundle} {way} {repeat}")
                times[way] = [*times.get(way, []), row.seconds]
                row.seconds = float(np.median(times[way]))
                rows[series.name, bundle, way] = row
                print(f"{series.name}, {bundle}, {way}: {row}", flush=True)
    facts: dict[str, object] = {"machine": hardware(torch.device("cpu")), "command": command_line(__file__, argv)}
    return publish(args.output, table(rows, facts), facts, rows={" / ".join(key): row for key, row in rows.items()})


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
