"""Command ``regplugins describe``: check a folder of images, write its data set file, propose how to train on it."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from ignite.engine import Events
from monai.bundle import create_workflow

from monai_regplugins.bundle import start
from monai_regplugins.bundle_folders import find_bundle
from monai_regplugins.checks import InputError
from monai_regplugins.data.learn2reg import Learn2RegDataset
from monai_regplugins.data.plain_folders import content_of_folders, content_of_layout
from monai_regplugins.files.atomic import write_file
from monai_regplugins.io.provenance import digest_of
from monai_regplugins.readers.images import read_scan, without_padding
from monai_regplugins.training import shown

__all__ = ["Facts", "facts_of", "proposal", "run_describe"]

TIMED_STEPS = 3
LOOKED_AT = 25  # images whose voxels are read; of all others only their files are compared
MULTIPLE = 4  # of the voxels along an axis of a proposed grid
MOST_VOXELS = {2: 96 * 96, 3: 36 * 48 * 36}  # of a proposed grid; the cost grows with them
AIR = -900.0  # HU; images that reach below are CT
BODY = (2.0, 98.0)  # percentiles of the voxels above air that a proposed window keeps
LAST_NUMBER = re.compile(r"[ _.-]*\d+(?=(\.nii)?\.\w+$)")  # of an image's name
FAR = 0.1  # distance of two image centers, in sizes of the image, from which on centers are to be aligned


class Facts(NamedTuple):
    """What is known of an image: voxels and mm along each axis, orientation, place, intensities, labels."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    center: tuple[float, ...]
    lowest: float
    window: tuple[int, int]
    labels: tuple[int, ...]
    complaints: tuple[str, ...]


def run_describe(
    images: str, labels: str | None = None, output_dir: str | None = None, timed: bool = False, paired: bool = False
) -> int:
    """Describe a data set, and write its ``*_dataset.json`` unless its layout is known as it is.

    Args:
        images: folder of images, or a data set in a known layout.
        labels: folder of label maps of the same names.
        output_dir: where the json file goes; by default ``datasets/<name>`` in the working directory.
        timed: train two steps, and report how long an epoch takes.
        paired: pair the images whose names differ in their last number alone, such as the frames of one patient.

    Returns:
        The exit status.

    Raises:
        InputError: When there are no images, the json file is there already, or there is nothing to be paired.
    """
    start()  # input errors in one line, from here on
    content, data_set = _data_set(Path(images), labels, output_dir, paired)
    entries = content["training"]
    dims = int(content["tensorImageSize"]["0"][0])
    chosen = entries[:: max(1, math.ceil(len(entries) / LOOKED_AT))]
    facts = {entry["image"]: facts_of(entry, dims) for entry in chosen}
    for line in [
        *_summary(content, list(facts.values())),
        *_about_pairs(content, data_set),
        *_complaints(entries, facts),
    ]:
        print(line)
    bundle, settings = proposal(dims, list(facts.values()))
    config_file = shown(find_bundle(bundle) / "configs" / "train.json")
    words = {"config_file": config_file, "dataset_dir": shown(data_set), "output_dir": f"runs/{content['name']}"}
    words |= settings
    print(f"proposed: bundle {bundle}{''.join(f', {key} {value}' for key, value in settings.items())}")
    if timed:
        print(f"time: {_minutes_per_epoch(config_file, str(data_set), settings):.1f} minutes an epoch on this machine")
    print("Train on it:")
    print(shlex.join(["python", "-m", "monai.bundle", "run", "training", *_options(words)]))
    return 0


def _data_set(folder: Path, labels: str | None, output_dir: str | None, paired: bool) -> tuple[dict[str, Any], Path]:
    """Return the content of a data set's json file and its folder; it is written unless the layout says it all."""
    if not folder.is_dir():
        raise InputError(f"images '{folder}' is no folder; give the folder that holds the images.")
    content = None if labels else content_of_layout(folder)
    if content is not None and not paired:
        return content, folder
    content = content or content_of_folders(folder, Path(labels) if labels else None, _name_of(folder))
    content |= _within_subjects(content) if paired else {}
    return content, _write(content, Path(output_dir or Path("datasets", content["name"])))


def _within_subjects(content: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Return the pairs of images whose names differ in their last number alone, those of a fifth of them to validate.

    Raises:
        InputError: When there are no two subjects with several images.
    """
    subjects = _subjects(content)
    if len(subjects) < 2:
        raise InputError(
            "--paired finds no two subjects with several images, whose names differ in their last number alone; name "
            "them like patient1_0, patient1_1, patient2_0, patient2_1, or leave --paired out."
        )
    pairs = [[{"moving": a, "fixed": b} for a, b in permutations(images, 2)] for images in subjects.values()]
    apart = {int(index) for index in np.random.default_rng(0).permutation(len(pairs))[: max(1, len(pairs) // 5)]}
    by_use: dict[str, list[dict[str, str]]] = {"training_paired_images": [], "registration_val": []}
    for number, some in enumerate(pairs):
        by_use["registration_val" if number in apart else "training_paired_images"] += some
    return by_use


def _subjects(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the images by what stands before the last number of their names, where that is the same for several."""
    groups: dict[str, list[str]] = {}
    for entry in content["training"]:
        groups.setdefault(LAST_NUMBER.sub("", Path(entry["image"]).name), []).append(entry["image"])
    return {name: images for name, images in groups.items() if len(images) > 1}


def _about_pairs(content: Mapping[str, Any], data_set: Path) -> list[str]:
    """Say which pairs a training takes, and how else they could be made."""
    known = Learn2RegDataset(data_set)
    try:
        numbers = len(known.training_pairs()), len(known.validation_pairs())
    except InputError as error:
        return [f"check: {error}"]
    within = "training_paired_images" in content or content.get("pairings") == "paired"
    kind = "within each subject" if within else "of different subjects"
    lines = [f"  pairs: {numbers[0]} to train, {numbers[1]} to validate, {kind}"]
    if not within and len(subjects := _subjects(content)) > 1:
        images = ", ".join(f"'{Path(image).name}'" for image in next(iter(subjects.values()))[:2])
        lines.append(f"  {len(subjects)} names have several numbers ({images}): if they are subjects, give --paired")
    return lines


def _minutes_per_epoch(config_file: str, dataset_dir: str, settings: Mapping[str, Any]) -> float:
    """Train three steps, the first of which does not count, and return how long an epoch of such steps takes."""
    times: list[float] = []

    def look(trainer: Any) -> None:
        times.append(time.monotonic())
        if len(times) == TIMED_STEPS:
            trainer.terminate(skip_completed=True)

    with tempfile.TemporaryDirectory() as folder:
        given = {"dataset_dir": dataset_dir, "output_dir": folder, **settings}
        workflow = create_workflow(config_file=config_file, workflow_type="train", logging_file=False, **given)
        trainer = workflow.parser.get_parsed_content("train#trainer")
        trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
        trainer.run()
    return (times[-1] - times[0]) / (len(times) - 1) * int(trainer.state.epoch_length) / 60


def facts_of(entry: Mapping[str, str], dims: int) -> Facts:
    """Read an image and its label map.

    Args:
        entry: paths, ``image`` and perhaps ``label``.
        dims: 2 or 3.

    Raises:
        InputError: When one of them cannot be read.
    """
    scan = without_padding(read_scan(entry["image"], "image", dims))
    affine, values = np.asarray(scan.affine), np.squeeze(np.asarray(scan.values))
    axes = [axis for axis in range(3) if axis < scan.values.ndim and (dims == 3 or scan.values.shape[axis] > 1)][:dims]
    labels, complaints = _labels_of(entry, dims, values.shape)
    if values.ndim != dims:
        complaints.append(f"has {values.ndim} dimensions, the first image {dims}")
    if not np.isfinite(values).all() or values.min() == values.max():
        complaints.append("is constant, or holds NaN or infinity")
    finite = values[np.isfinite(values)]
    lowest = float(finite.min()) if finite.size else 0.0
    body = finite[finite > AIR] if lowest < AIR else finite
    low, high = (float(np.percentile(body, part)) if body.size else 0.0 for part in BODY)
    return Facts(
        tuple(values.shape),
        tuple(round(float(np.linalg.norm(affine[:3, axis])), 3) for axis in axes),
        "".join(str(code) for code in nib.aff2axcodes(affine)),
        tuple(float(x) for x in affine[:3, :3] @ _middle(scan.values.shape) + affine[:3, 3]),
        lowest,
        (round(low), round(high)),
        labels,
        tuple(complaints),
    )


def proposal(dims: int, facts: Sequence[Facts]) -> tuple[str, dict[str, Any]]:
    """Propose a bundle, and settings of its training.

    The grid has the proportions of the median image in mm, not more voxels than that and than ``MOST_VOXELS``. CT,
    which reaches below -900 HU, is clipped to the range of its body, other images are not clipped.

    Args:
        dims: 2 or 3.
        facts: of some images.

    Example:
        >>> image = Facts((48, 64, 48), (1, 1, 1), "RAS", (0, 0, 0), 0.0, (0, 200), (), ())
        >>> proposal(3, [image])
        ('ran', {'spatial_size': [36, 48, 36], 'window': [], 'initial_alignment': 'none', 'mask_threshold': -1})
    """
    grid = _grid(dims, facts)
    if dims == 2:
        return "r2n2", {"spatial_size": grid}
    is_ct = np.median([one.lowest for one in facts]) < AIR
    window = [round(float(np.median([one.window[end] for one in facts]))) for end in (0, 1)]
    return "ran", {
        "spatial_size": grid,
        "window": window if is_ct else [],
        "initial_alignment": "center" if _are_apart(facts) else "none",
        **({} if is_ct else {"mask_threshold": -1}),
    }


def _grid(dims: int, facts: Sequence[Facts]) -> list[int]:
    """Return a grid of cubic voxels in the proportions of the median image."""
    flat = [one for one in facts if len(one.shape) == dims] or list(facts)
    sizes = np.median([one.shape for one in flat], axis=0)
    extents = sizes * np.median([one.spacing for one in flat], axis=0)
    scale = (min(MOST_VOXELS[dims], float(np.prod(sizes))) / float(np.prod(extents))) ** (1 / dims)
    return [max(MULTIPLE * 2, MULTIPLE * round(float(extent * scale) / MULTIPLE)) for extent in extents]


def _are_apart(facts: Sequence[Facts]) -> bool:
    """Whether the centers of images lie apart in the world of their headers."""
    centers = np.array([one.center for one in facts])
    size = float(np.median([np.dot(one.shape, one.spacing) / len(one.shape) for one in facts]))
    return bool(np.linalg.norm(centers - np.median(centers, axis=0), axis=1).max() > FAR * size)


def _middle(shape: Sequence[int]) -> Any:
    """Return the voxel coordinates of an image's center, of three axes."""
    return np.array([(size - 1) / 2 for size in [*shape, 1, 1][:3]])


def _labels_of(entry: Mapping[str, str], dims: int, shape: tuple[int, ...]) -> tuple[tuple[int, ...], list[str]]:
    """Return the labels of an image, and what is wrong with its label map."""
    if "label" not in entry:
        return (), []
    values = np.squeeze(np.asarray(read_scan(entry["label"], "label map", dims, exact=True).values))
    known, wrong = np.isfinite(values), []
    if not known.all():
        wrong.append("has a label map that holds NaN or infinity")
    if values.shape != shape:
        wrong.append(f"has {shape} voxels and its label map {values.shape}")
    if not np.issubdtype(values.dtype, np.integer):
        wrong.append("has a label map of fractions")
    return tuple(int(value) for value in np.unique(values[known])), wrong


def _summary(content: Mapping[str, Any], facts: Sequence[Facts]) -> list[str]:
    """Describe a data set in a few lines."""
    entries, names = content["training"], content["labels"].get("0", {})
    labels = sorted({label for one in facts for label in one.labels})
    labeled = sum("label" in entry for entry in entries)
    lines = [
        f"{content['name']}: {len(entries)} images, {content['tensorImageSize']['0']}, {labeled} with a label map; "
        f"read: {len(facts)}",
        f"  voxels: {_range([one.shape for one in facts])}",
        f"  voxel size (mm): {_range([one.spacing for one in facts])}",
        f"  orientation: {_counted(one.orientation for one in facts)}",
        f"  intensities: from {min(one.lowest for one in facts):g}, most within "
        f"{min(one.window[0] for one in facts)} to {max(one.window[1] for one in facts)}",
    ]
    named = ", ".join(f"{label} {names[str(label)]}" if str(label) in names else str(label) for label in labels)
    return [*lines, f"  labels: {named}"] if labels else lines


def _complaints(entries: Sequence[Mapping[str, str]], facts: Mapping[str, Facts]) -> list[str]:
    """List what is wrong with single images, and images that are there twice."""
    wrong = [f"check: '{image}' {complaint}" for image, one in facts.items() for complaint in one.complaints]
    first: dict[str, str] = {}
    for entry in entries:
        image = entry["image"]
        if (other := first.setdefault(digest_of(Path(image)), image)) != image:
            wrong.append(f"check: '{image}' is the same file as '{other}'")
    lacking = [entry["image"] for entry in entries if "label" not in entry]
    if 0 < len(lacking) < len(entries):
        wrong.append(f"check: {len(lacking)} images have no label map, first '{lacking[0]}'")
    return wrong


def _write(content: Mapping[str, Any], output_dir: Path) -> Path:
    """Write the json file of a data set into a folder that has none."""
    file = output_dir / f"{content['name']}_dataset.json"
    if found := [*output_dir.glob("*_dataset.json")]:
        raise InputError(f"'{found[0]}' is there already; train with --dataset_dir '{output_dir}', or give another -o.")
    output_dir.mkdir(parents=True, exist_ok=True)
    write_file(file, (json.dumps(content, indent=4) + "\n").encode())
    print(f"Wrote '{file}'.")
    return output_dir


def _name_of(images: Path) -> str:
    """Return a name for a data set: that of its folder, of the one above where that says nothing."""
    folder = Path(os.path.abspath(images))
    return folder.parent.name if folder.name.lower() in ("images", "imagestr", "img", "imgs") else folder.name


def _options(words: Mapping[str, Any]) -> list[str]:
    """Write settings as words of a command."""
    texts = {key: value if isinstance(value, str) else repr(value).replace(" ", "") for key, value in words.items()}
    return [word for key, text in texts.items() for word in (f"--{key}", text)]


def _range(sizes: Sequence[Sequence[float]]) -> str:
    """Write the smallest and the largest size along each axis."""
    if len({len(size) for size in sizes}) > 1:
        return _counted(" x ".join(f"{length:g}" for length in size) for size in sizes)
    ends = [" x ".join(f"{float(value):g}" for value in end) for end in (np.min(sizes, axis=0), np.max(sizes, axis=0))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _counted(words: Iterable[str]) -> str:
    """Write words with their numbers."""
    return ", ".join(f"{word} ({count})" for word, count in Counter(words).most_common())
