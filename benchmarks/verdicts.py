"""How well the verdict separates failures from sane registrations: forty planted failures and two hundred sane pairs.

The pairs are small: phantoms of abdomen, thorax and a breathing sagittal slice, and, with ``--data``, pairs of real
data sets in the layout of Learn2Reg: hippocampi of two patients (``HippocampusMR``), phases of a 4D-CT
(``LungCT4D``) and of the heart (``CardiacCine2D``). A failure is a sane pair of other seeds in which one thing is
wrong. The score of a result is 10 for each FAIL among the reasons of its verdict and 1 for each WARN; a pair that is
refused scores 100. AUROC is the share of pairs of a failure and a sane pair in which the failure scores higher, ties
counting half (Mann and Whitney 1947, Ann. Math. Stat. 18, 50). Thresholds are set on ``--half tune``, other seeds and
subjects than those of ``--half test``.

    OMP_NUM_THREADS=1 python benchmarks/verdicts.py --data DATA --output verdicts.json

The file holds the measures of each result. ``--measured`` judges these again, without a registration, so that limits
can be studied:

    python benchmarks/verdicts.py --measured verdicts.json --output verdicts.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from scipy.stats import rankdata

import monai_regplugins
from monai_regplugins import load_bundle
from monai_regplugins.benchmark.reporting import check_output, command_line, hardware, publish, table_with_facts
from monai_regplugins.checks import InputError
from monai_regplugins.phantoms import abdomen_subject, cine_lung_subject, thorax_subject
from monai_regplugins.readers.images import read_scan
from monai_regplugins.registration import Registration
from monai_regplugins.verdict.judge import Verdict, judge

Array = npt.NDArray[Any]
Pair = dict[str, MetaTensor]  # fixed and moving, and their labels
Change = Callable[[Pair, Pair], Pair]  # plants a failure into a pair; the second one is of another patient

BUNDLES = Path(__file__).parents[1] / "bundles"
LABELS = "swapped labels"
LABELED = 4  # every such sane pair comes with labels
REFUSED = Verdict("REFUSED")
SCORES = {"FAIL": 10, "WARN": 1}
SEEDS = {"tune": 5000, "test": 9000}  # of the phantoms
FAILURES = 500  # what is added to the seeds of pairs into which failures are planted
SETS: dict[str, tuple[str, dict[str, Any]]] = {  # bundle and settings
    "abdomen phantom": ("ran", {"refine_levels": 1, "similarity": "lncc"}),
    "hippocampus MR": ("ran", {"preset": "hippocampus", "refine_levels": 1}),
    "thorax phantom": ("regnet", {"voxel_size": 8.5, "similarity": "lncc"}),
    "lung CT": ("regnet", {}),
    "cine lung phantom": ("r2n2", {}),
    "cardiac MR": ("r2n2", {}),
}


@dataclass
class Case:
    """One registration: its set, what was planted (empty for nothing), and its measures, None if it was refused."""

    group: str
    planted: str
    measures: Mapping[str, float] | None

    @property
    def verdict(self) -> Verdict:
        """What the measures say."""
        return REFUSED if self.measures is None else judge(self.measures)

    @property
    def score(self) -> int:
        """How bad it is said to be."""
        return score_of(self.verdict)


def score_of(verdict: Verdict) -> int:
    """How bad a verdict is: 10 for each FAIL and 1 for each WARN among its reasons, 100 for a pair that was refused."""
    return 100 if verdict is REFUSED else sum(SCORES[reason[:4]] for reason in verdict.reasons)


def auroc(failures: Sequence[float], sane: Sequence[float]) -> float:
    """Area under the receiver operating characteristic, by the ranks of all scores."""
    ranks = rankdata([*failures, *sane])[: len(failures)]
    n = len(failures)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * len(sane)))


# --- pairs


def image(values: Array, affine: Array) -> MetaTensor:
    """An image of an array."""
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None], affine=affine)


def paired(fixed: Sequence[Array], moving: Sequence[Array], *affines: Array) -> Pair:
    """A pair of images, each with its label map if there is one."""
    sides = (("fixed", fixed, affines[0]), ("moving", moving, affines[-1]))
    names = ("", "_label")
    return {
        f"{side}{name}": image(values, affine)
        for side, arrays, affine in sides
        for name, values in zip(names, arrays, strict=False)
    }


def abdomen_pair(seed: int) -> Pair:
    """Two subjects of the abdomen phantom."""
    fixed, moving = (abdomen_subject([seed, number], (32, 26, 32), 10.0) for number in (0, 1))
    one, other = ([subject["image"], subject["label"]] for subject in (fixed, moving))
    return paired(one, other, fixed["affine"], moving["affine"])


def thorax_pair(seed: int) -> Pair:
    """Two phases of a breath."""
    depth = (0.0, (0.5, 0.75, 1.0)[seed % 3])
    subject = thorax_subject(seed, depth, (32, 26, 32), 8.5)
    return paired(subject.images[:1], subject.images[1:], subject.affine)


def cine_pair(seed: int) -> Pair:
    """Two frames of a breathing sagittal slice."""
    subject = cine_lung_subject(seed, 6, (64, 64), 4.0)
    fixed = subject.reference
    moving = (fixed + 1 + seed % 5) % 6
    return paired(subject.frames[[fixed]], subject.frames[[moving]], subject.affine)


def hippocampus_pair(folder: Path, number: int, half: str) -> Pair:
    """Hippocampi of two patients of a half."""
    listed = of_half(sorted((folder / "imagesTr").glob("*.nii.gz")), half)
    draw = np.random.default_rng(number).choice(len(listed), 2, replace=False)
    files = [listed[index] for index in draw]
    arrays = [[read(path)[0] for path in (file, folder / "labelsTr" / file.name)] for file in files]
    return paired(*arrays, *(read(file)[1] for file in files))


def lung_pair(folder: Path, number: int, half: str) -> Pair:
    """Two phases of a breath, at half the resolution."""
    patient = {"tune": "0117", "test": "0118"}[half]
    files = sorted((folder / "imagesTr").glob(f"*_{patient}_*.nii.gz"))
    fixed, moving = number % 10, (number + 1 + number // 10 + number % 4) % 10
    arrays = [[halved(read(files[index])[0])] for index in (fixed, moving)]
    return paired(*arrays, np.diag([2.0, 2.0, 2.0, 1.0]))


def cardiac_pair(folder: Path, number: int, half: str) -> Pair:
    """End of diastole and of systole of one slice, at half the resolution, with the left ventricle."""
    listed = of_half(sorted((folder / "imagesTr").glob("*_0000.png")), half)
    first = listed[number * 7 % len(listed)]
    names = (first.name, first.name.replace("_0000.png", "_0001.png"))
    arrays = [
        [halved(read(folder / "imagesTr" / name)[0]), read(folder / "labelsTr" / name)[0][::2, ::2]] for name in names
    ]
    return paired(*arrays, np.diag([2.0, 2.0, 1.0]))


def of_half(files: Sequence[Path], half: str) -> list[Path]:
    """The first or the last half of some files, which are sorted by subject."""
    middle = len(files) // 2
    return list(files[:middle] if half == "tune" else files[middle:])


def read(path: Path) -> tuple[Array, Array]:
    """Values and matrix of a file."""
    scan = read_scan(path, "image")
    return np.asarray(scan.values), np.asarray(scan.affine)


def halved(values: Array) -> Array:
    """Means of two voxels along each axis."""
    values = values[tuple(slice(0, n // 2 * 2) for n in values.shape)].astype(np.float32)
    for axis in range(values.ndim):
        even, odd = (np.take(values, range(first, values.shape[axis], 2), axis) for first in (0, 1))
        values = (even + odd) / 2
    return values


def source(group: str, data: Path | None, half: str) -> Callable[[int], Pair] | None:
    """What makes the pairs of a set; None for one of data that are not there."""
    phantoms = {"abdomen phantom": abdomen_pair, "thorax phantom": thorax_pair, "cine lung phantom": cine_pair}
    if group in phantoms:
        return lambda number: phantoms[group](SEEDS[half] + number)
    name, make = {
        "hippocampus MR": ("HippocampusMR", hippocampus_pair),
        "lung CT": ("LungCT4D", lung_pair),
        "cardiac MR": ("CardiacCine2D", cardiac_pair),
    }[group]
    if data is None or not (data / name).is_dir():
        return None
    return lambda number: make(data / name, number, half)


def without_labels(pair: Pair) -> Pair:
    """The images of a pair."""
    return {key: one for key, one in pair.items() if not key.endswith("_label")}


# --- failures


def with_values(pair: Pair, side: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Pair:
    """A pair in which the values of one image are others."""
    old = pair[side]
    return {**pair, side: MetaTensor(change(old.as_tensor()), affine=old.affine)}


def with_header(pair: Pair, sides: Sequence[str], change: Callable[[torch.Tensor], object]) -> Pair:
    """A pair in which the headers of some images are others."""
    changed = dict(pair)
    for side in sides:
        affine = pair[side].affine.clone()
        change(affine)
        changed[side] = MetaTensor(pair[side].as_tensor(), affine=affine)
    return changed


def other_patient(pair: Pair, other: Pair) -> Pair:
    """The moving image is of another patient."""
    return {**{key: value for key, value in pair.items() if key.startswith("fixed")}, "moving": other["moving"]}


def flipped_side(pair: Pair, other: Pair) -> Pair:
    """The moving image has left and right, in a slice front and back, the other way round."""
    axis = 1 if pair["moving"].ndim == 4 else 2
    keys = [key for key in pair if key.startswith("moving")]
    return {**pair, **{key: MetaTensor(pair[key].as_tensor().flip(axis), affine=pair[key].affine) for key in keys}}


def cropped(pair: Pair, other: Pair) -> Pair:
    """Of the moving image there is a third along its last axis."""
    kept = pair["moving"].shape[-1] // 3
    keys = [key for key in pair if key.startswith("moving")]
    return {**pair, **{key: MetaTensor(pair[key].as_tensor()[..., :kept], affine=pair[key].affine) for key in keys}}


def without_intercept(pair: Pair, other: Pair) -> Pair:
    """The moving CT has stored values, 1024 more than HU."""
    return with_values(pair, "moving", lambda values: values + 1024)


def moving_in_centimeters(pair: Pair, other: Pair) -> Pair:
    """The lengths of the moving image are a tenth."""
    return with_header(pair, [key for key in pair if key.startswith("moving")], lambda affine: affine[:-1].mul_(0.1))


def both_in_centimeters(pair: Pair, other: Pair) -> Pair:
    """The lengths of both images are a tenth."""
    return with_header(pair, list(pair), lambda affine: affine[:-1].mul_(0.1))


def no_overlap(pair: Pair, other: Pair) -> Pair:
    """The moving image lies 1.2 times its length away."""
    steps = torch.linalg.vector_norm(pair["moving"].affine[:-1, :-1].double(), dim=0)
    length = 1.2 * float(max(n * s for n, s in zip(pair["moving"].shape[1:], steps, strict=False)))
    keys = [key for key in pair if key.startswith("moving")]
    return with_header(pair, keys, lambda affine: affine[:-1, -1].add_(length))


def other_contrast(pair: Pair, other: Pair) -> Pair:
    """The moving image shows tissue in the gray values of another modality, which rise and fall three times."""

    def change(values: torch.Tensor) -> torch.Tensor:
        low, high = (float(values.flatten()[:: 1 + len(values.flatten()) // 10**6].quantile(q)) for q in (0.02, 0.98))
        phase = (values - low) / (high - low)
        return low + (high - low) * (0.5 - 0.5 * torch.cos(3 * torch.pi * phase.clamp(0, 1)))

    return with_values(pair, "moving", change)


def cut_phase(pair: Pair, other: Pair) -> Pair:
    """The lower half of the moving image was not filled by the scanner: it has its lowest value."""

    def change(values: torch.Tensor) -> torch.Tensor:
        cut = values.clone()
        axis = -1 if values.ndim == 4 else 1
        cut.narrow(axis, 0, values.shape[axis] // 2).fill_(float(values.min()))
        return cut

    return with_values(pair, "moving", change)


def swapped_labels(pair: Pair, other: Pair) -> Pair:
    """The numbers of the moving labels are in the opposite order."""

    def change(labels: torch.Tensor) -> torch.Tensor:
        return torch.where(labels > 0, labels.max() + 1 - labels, 0)

    return with_values(pair, "moving_label", change)


def noise(pair: Pair, other: Pair) -> Pair:
    """The moving image is noise of its range."""

    def change(values: torch.Tensor) -> torch.Tensor:
        random = torch.rand(values.shape, generator=torch.Generator().manual_seed(0))
        return values.min() + (values.max() - values.min()) * random

    return with_values(pair, "moving", change)


PLANTED: dict[str, Change] = {
    "other patient": other_patient,
    "flipped side": flipped_side,
    "cropped field of view": cropped,
    "values without intercept": without_intercept,
    "moving image in centimeters": moving_in_centimeters,
    "both in centimeters": both_in_centimeters,
    "no overlap": no_overlap,
    "other contrast with lncc": other_contrast,
    "phase that was cut": cut_phase,
    LABELS: swapped_labels,
    "noise": noise,
}
SANE = {
    "abdomen phantom": 46,
    "hippocampus MR": 40,
    "thorax phantom": 30,
    "lung CT": 14,
    "cine lung phantom": 40,
    "cardiac MR": 30,
}
FAILED: dict[str, dict[str, int]] = {  # how often each is planted
    "abdomen phantom": {
        "flipped side": 2,
        "cropped field of view": 2,
        "values without intercept": 2,
        "moving image in centimeters": 1,
        "both in centimeters": 1,
        "no overlap": 1,
        "other contrast with lncc": 2,
        "swapped labels": 2,
        "noise": 1,
    },
    "hippocampus MR": {"both in centimeters": 1, "swapped labels": 2, "noise": 1},
    "thorax phantom": {
        "other patient": 3,
        "flipped side": 1,
        "cropped field of view": 1,
        "moving image in centimeters": 1,
        "no overlap": 1,
        "other contrast with lncc": 1,
        "phase that was cut": 2,
    },
    "lung CT": {"flipped side": 1, "values without intercept": 1, "phase that was cut": 1, "no overlap": 1},
    "cine lung phantom": {"other patient": 2, "flipped side": 1, "no overlap": 1, "phase that was cut": 1},
    "cardiac MR": {"other patient": 2, "cropped field of view": 1},
}


# --- registration


@cache
def bundle(group: str) -> Registration:
    """The bundle that registers a set."""
    name, settings = SETS[group]
    return load_bundle(BUNDLES / name, device="cpu", **settings)


def measured(group: str, pair: Pair) -> Mapping[str, float] | None:
    """Register a pair and return the measures of the result, None for a pair that is refused."""
    try:
        return bundle(group)(**pair, pair_id="pair").metrics
    except InputError:
        return None


def cases(group: str, data: Path | None, half: str, share: float) -> Iterator[Case]:
    """Register the pairs of a set into which failures are planted, then the sane ones."""
    make = source(group, data, half)
    if make is None:
        return
    number = FAILURES
    for kind, count in FAILED[group].items():
        for _ in range(max(1, round(share * count))):
            pair = PLANTED[kind](make(number), make(number + 1))
            yield Case(group, kind, measured(group, pair if kind == LABELS else without_labels(pair)))
            number += 2
    for number in range(max(1, round(share * SANE[group]))):
        pair = make(number)
        yield Case(group, "", measured(group, pair if number % LABELED == 0 else without_labels(pair)))


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of a report in a ``.json`` file."""
    for case in json.loads(path.read_text(encoding="utf-8"))["cases"]:
        yield Case(case["set"], case["planted"], case["measures"])


# --- report


def row(name: str, found: Sequence[Case]) -> list[str]:
    """A line of the table: how often each verdict was given."""
    counts = Counter(case.verdict.level for case in found)
    return [name, str(len(found)), *(str(counts[level]) for level in ("PASS", "WARN", "FAIL", "REFUSED"))]


def table(found: Sequence[Case], facts: dict[str, object]) -> str:
    """Verdicts by set of sane pairs and by kind of failure, and what is below them."""
    sane, failed = ([case for case in found if bool(case.planted) == bad] for bad in (False, True))
    header = ["pairs", "number", "PASS", "WARN", "FAIL", "refused"]
    groups, kinds = (dict.fromkeys(names) for names in ((c.group for c in sane), (c.planted for c in failed)))
    lines = [row(f"sane: {group}", [case for case in sane if case.group == group]) for group in groups]
    lines += [row(kind, [case for case in failed if case.planted == kind]) for kind in kinds]
    lines += [row("all sane", sane), row("all failures", failed)]
    return table_with_facts(header, lines, facts)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the real data sets; without, the phantoms alone")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--half", default="test", choices=list(SEEDS), help="seeds and subjects (default: test)")
    parser.add_argument("--share", type=float, default=1.0, help="of the pairs of each kind (default: 1)")
    parser.add_argument("--measured", type=Path, help="judge the measures in this report, .json, again")
    parser.add_argument("--output", type=Path, help="file of the report, .md or .json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> str:
    """Register all pairs, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    check_output(args.output)
    torch.set_num_threads(1)
    made = (case for group in args.sets for case in cases(group, args.data, args.half, args.share))
    found: list[Case] = []
    for case in read_cases(args.measured) if args.measured else made:
        found.append(case)
        print(f"{case.group}, {case.planted or 'sane'}: {case.verdict}", flush=True)
    scores = [[case.score for case in found if bool(case.planted) == bad] for bad in (True, False)]
    facts: dict[str, object] = {
        "AUROC": round(auroc(*scores), 4),
        "half": args.half,
        "machine": hardware(torch.device("cpu")),
        "command": command_line(__file__, argv),
    }
    listed = [{"set": c.group, "planted": c.planted, **c.verdict.as_json(), "measures": c.measures} for c in found]
    return publish(args.output, table(found, facts), facts, cases=listed)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()
