"""Command ``regplugins describe``: check a folder of images, write its data set file, propose how to train on it."""

from __future__ import annotations

import json
import math
import re
import shlex
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count, permutations
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Events
from monai.bundle import create_workflow

from monai_regplugins.bundle import start
from monai_regplugins.bundle_folders import find_bundle, presets_of
from monai_regplugins.checks import InputError
from monai_regplugins.data.learn2reg import Learn2RegDataset
from monai_regplugins.data.plain_folders import OF_LABELS, content_of_folders, content_of_layout, labels_beside
from monai_regplugins.files.atomic import write_file
from monai_regplugins.files.folders import absolute_path, files_in
from monai_regplugins.grids import same_affine
from monai_regplugins.io.provenance import digest_of
from monai_regplugins.keys import IMAGE_KEYS
from monai_regplugins.readers.images import Scan, read_scan, scan_shape, without_padding
from monai_regplugins.readers.pictures import PICTURE_SUFFIXES
from monai_regplugins.training import shown
from monai_regplugins.transforms.load import LoadPaird
from monai_regplugins.transforms.padding import scanned_box
from monai_regplugins.transforms.pair_log import unreported

__all__ = ["Facts", "facts_of", "proposal", "run_describe"]

TIMED_STEPS = 3
LOOKED_AT = 25  # images whose voxels are read, or all if they are small; of the others headers and lengths of files
FEW_VOXELS = 2**26  # of a data set that is read as a whole
MULTIPLE = 4  # of the voxels along an axis of a proposed grid
MOST_VOXELS = {2: 96 * 96, 3: 36 * 48 * 36}  # of a proposed grid; the cost grows with them
AIR = -900.0  # HU; images that reach below are CT
BODY = (2.0, 98.0)  # percentiles of the voxels above air that a proposed window keeps
LAST_NUMBER = re.compile(r"[ _.-]*\d+(?=(\.nii)?\.\w+$)")  # of an image's name
FRAME = 0.1  # part of an image that a constant frame has to cover to matter
FILLED = 0.9  # part of the box inside a frame that is scanned; less is air around a body
MANY = 0.25  # of the images, from which on frames are to be extended
LABEL_WEIGHT = 3  # of the label maps in a training, as for the published weights
MOST_LABELS = 64  # of a label map; a map of more labels than its image has values is an image
FEW_VALUES = 8  # of an image that looks like a label map
SAMPLED = 10**6  # voxels whose values are counted
SHOWN_LABELS = 20
IMAGE_AND_LABEL = {"image": "image", "label": "label map"}
PAIRINGS = {
    "listed": "as its json file lists them",
    "within": "within each subject",
    "between": "of different subjects",
}
FEW_VOXELS_OF_A_LABEL = 8  # or fewer are no structure
SMALL_LABEL = 0.02  # of a label's median volume, below which a label is likely to be broken
SHOWN_BROKEN = 5
DESCRIPTION = "written by regplugins describe"  # of a data set, in its json file
SMALL = 100.0  # mm; images of that size or less along each axis show one small structure
LEARNING_RATE = 0.003  # of a training that starts from published weights, that of their own last stages
MINUTES = 60  # that a proposed training takes
FAR = 0.1  # distance of two image centers, in sizes of the image, from which on centers are to be aligned


class Facts(NamedTuple):
    """What is known of an image: voxels and mm along each axis, orientation, place, intensities, labels.

    ``complaints`` are reasons not to train on it, ``notes`` what is to be known of it, ``frame`` is the part of it that
    a constant frame covers, ``values`` the number of different intensities, ``label_voxels`` those of each label.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    center: tuple[float, ...]
    lowest: float
    window: tuple[int, int]
    labels: tuple[int, ...]
    complaints: tuple[str, ...]
    frame: float = 0.0
    values: int = 256
    label_voxels: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def run_describe(
    images: str,
    labels: str | None = None,
    output_dir: str | None = None,
    timed: bool = False,
    paired: bool = False,
    patient: str = "",
) -> int:
    """Describe a data set, and write its ``*_dataset.json`` unless its layout is known as it is.

    Args:
        images: folder of images, or a data set in a known layout.
        labels: folder of label maps of the same names.
        output_dir: where the json file goes; by default ``datasets/<name>`` in the working directory.
        timed: train three steps, and report how many fit into the time of the command.
        paired: pair the images whose names differ in their last number alone, such as the frames of one patient.
        patient: regular expression of the part of a name that is the patient's; with ``paired``, no patient is in both
            training and validation. By default what stands before the last number is one.

    Returns:
        The exit status.

    Raises:
        InputError: When there are no images, some cannot be trained on, the json file of other images is there already,
            or there is nothing to be paired.
    """
    start()  # input errors in one line, from here on
    content, data_set, is_known = _data_set(Path(images), labels, output_dir, paired, patient)
    entries, dims = content["training"], int(content["tensorImageSize"]["0"][0])
    found = [entry["label"] for entry in entries if "label" in entry and labels is None and not is_known]
    facts, wrong = _checked(entries, dims)
    _refuse_swapped(entries, list(facts.values()))
    _refuse_label_maps(Path(images), list(facts.values()))
    _print(
        [
            *_summary(content, list(facts.values())),
            *(f"  label maps: found beside the images, first '{shown(label)}'" for label in found[:1]),
            *(f"check: {line}" for line in [*wrong, *_oddities(entries, facts)]),
        ]
    )
    if wrong:
        more = f", and {len(wrong) - 1} more, see above" if len(wrong) > 1 else ""
        raise InputError(f"'{images}' cannot be trained on: {wrong[0].rstrip('.')}{more}; mend or remove such files.")
    _print(_about_pairs(content, Learn2RegDataset(data_set, None if is_known else content), patient))
    if not is_known:
        _write(content, Path(images), data_set)
    bundle, settings = proposal(dims, list(facts.values()), all("label" in entry for entry in entries))
    if "ckpt" in settings:
        settings["ckpt"] = shown(find_bundle(bundle) / settings["ckpt"])
    config_file = shown(find_bundle(bundle) / "configs" / "train.json")
    words: dict[str, Any] = {
        "config_file": config_file,
        "dataset_dir": shown(data_set),
        "output_dir": f"runs/{content['name']}",
    }
    words |= settings | {"max_minutes": MINUTES}
    print(f"proposed: bundle {bundle}{''.join(f', {key} {value}' for key, value in settings.items())}")
    _print([*_reasons(settings, list(facts.values())), *_presets(find_bundle(bundle))])
    if timed:
        print(_times(config_file, str(data_set), settings))
    print("Train on it:")
    print(shlex.join(["python", "-m", "monai.bundle", "run", "training", *_options(words)]))
    return 0


def _print(lines: Iterable[str]) -> None:
    """Print lines."""
    for line in lines:
        print(line)


def _data_set(
    folder: Path, labels: str | None, output_dir: str | None, paired: bool, patient: str
) -> tuple[dict[str, Any], Path, bool]:
    """Return the content of a data set's json file, its folder, and whether the layout of that says it all."""
    if not folder.is_dir():
        raise InputError(f"images '{folder}' is no folder; give the folder that holds the images.")
    if patient and not paired:
        raise InputError("--patient is of --paired; give both, or none.")
    content = None if labels else content_of_layout(folder)
    if content is not None and not paired:
        return content, folder, True
    place = Path(labels) if labels else labels_beside(folder)
    content = content or content_of_folders(folder, place, _name_of(folder))
    content |= _within_subjects(content, patient) if paired else {}
    content |= {"name": absolute_path(output_dir).name} if output_dir else {}
    content |= {"description": DESCRIPTION}
    return content, Path(output_dir or Path("datasets", content["name"])), False


def _checked(entries: Sequence[Mapping[str, str]], dims: int) -> tuple[dict[str, Facts], list[str]]:
    """Return facts of the images that are read, and why images cannot be trained on.

    All of small images are read; of large ones some, and of the others headers and lengths of files.
    """
    facts: dict[str, Facts] = {}
    wrong: list[str] = []
    chosen = _chosen(entries)
    for number, entry in enumerate(entries):
        image = entry["image"]
        try:
            sizes = [] if number in chosen else _sizes_of(entry)
            if len(set(sizes)) != 1:
                facts[image] = facts_of(entry, dims)
            complaints = facts[image].complaints if image in facts else _complaints_of_size(sizes[0], dims)
            wrong += [f"'{image}' {complaint}" for complaint in complaints]
        except InputError as error:
            wrong.append(str(error))
    if not facts:
        raise InputError(wrong[0])
    return facts, wrong


def _chosen(entries: Sequence[Mapping[str, str]]) -> set[int]:
    """Return the numbers of the entries whose voxels are read."""
    count = max(LOOKED_AT, FEW_VOXELS // max(1, math.prod(scan_shape(entries[0]["image"], "image"))))
    return {round(number) for number in np.linspace(0, len(entries) - 1, min(count, len(entries)))}


def _sizes_of(entry: Mapping[str, str]) -> list[tuple[int, ...]]:
    """Return the sizes of an image and its label map, if any, by their headers and the lengths of their files."""
    return [_size_of(entry[key], what) for key, what in IMAGE_AND_LABEL.items() if key in entry]


def _complaints_of_size(size: tuple[int, ...], dims: int) -> Sequence[str]:
    """Return what is wrong with an image of this size."""
    return [] if len(size) == dims else [f"has {len(size)} dimensions, expected {dims}"]


def _size_of(path: str, what: str) -> tuple[int, ...]:
    """Return the voxels along the axes of an image that have several, by its header, and no colors of a picture."""
    size = tuple(n for n in scan_shape(path, what, complete=True) if n > 1)
    return size[:2] if path.lower().endswith(PICTURE_SUFFIXES) else size


def _refuse_swapped(entries: Sequence[Mapping[str, str]], facts: Sequence[Facts]) -> None:
    """Refuse images that are label maps and label maps that are images."""
    swapped = [one for one in facts if len(one.labels) > max(MOST_LABELS, one.values)]
    if len(swapped) > len(facts) / 2:
        images, labels = (shown(Path(entries[0][key]).parent) for key in ("image", "label"))
        raise InputError(
            f"images and label maps seem to be swapped: an image in '{images}' has {swapped[0].values} different "
            f"values, its label map in '{labels}' {len(swapped[0].labels)}; swap the two folders."
        )


def _has_few_values(facts: Facts) -> bool:
    """Whether an image has as few different values as a label map."""
    return 1 < facts.values <= FEW_VALUES


def _refuse_label_maps(folder: Path, facts: Sequence[Facts]) -> None:
    """Refuse label maps in place of images, in a folder that is called like label maps."""
    few = [one for one in facts if _has_few_values(one)]
    if OF_LABELS.search(absolute_path(folder).name) and 2 * len(few) > len(facts):
        raise InputError(
            f"'{folder}' holds label maps: {len(few)} of {len(facts)} have {FEW_VALUES} different values or fewer; "
            "give the folder of the images, and this one as --labels."
        )


def _within_subjects(content: Mapping[str, Any], patient: str) -> dict[str, list[dict[str, str]]]:
    """Return the pairs of images whose names differ in their last number alone, a fifth of the patients to validate.

    Raises:
        InputError: When there are no two patients with several images, or a name has no ``patient``.
    """
    subjects = _subjects(content)
    if len(subjects) < 2:
        raise InputError(
            "--paired finds no two subjects with several images, whose names differ in their last number alone; name "
            "them like patient1_0, patient1_1, patient2_0, patient2_1, or leave --paired out."
        )
    pairs: list[list[dict[str, str]]] = []
    for group in _of_patients(subjects, patient):
        pairs.append([{"moving": a, "fixed": b} for name in group for a, b in permutations(subjects[name], 2)])
    apart = {int(index) for index in np.random.default_rng(0).permutation(len(pairs))[: max(1, len(pairs) // 5)]}
    by_use: dict[str, list[dict[str, str]]] = {"training_paired_images": [], "registration_val": []}
    for number, some in enumerate(pairs):
        by_use["registration_val" if number in apart else "training_paired_images"] += some
    return by_use


def _of_patients(subjects: Iterable[str], patient: str) -> list[list[str]]:
    """Return the names of subjects that belong together, by what a regular expression finds in them.

    Raises:
        InputError: When it is none, or does not find two patients.
    """
    try:
        found = {name: re.search(patient, name) for name in subjects}
    except re.error as error:
        raise InputError(f"--patient '{patient}' is no regular expression: {error}.") from error
    groups: dict[str, list[str]] = {}
    for name, match in found.items():
        groups.setdefault(match.group() if patient and match else name, []).append(name)
    if patient and (len(groups) < 2 or not all(found.values())):
        odd = next((name for name, match in found.items() if not match), next(iter(found)))
        raise InputError(
            f"--patient '{patient}' is not in all names, or the same in all, such as '{odd}'; give the part of a name "
            "that is the patient's, such as 'patient[0-9]+'."
        )
    return list(groups.values())


def _subjects(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the images by what stands before the last number of their names, where that is the same for several."""
    groups: dict[str, list[str]] = {}
    for entry in content["training"]:
        groups.setdefault(LAST_NUMBER.sub("", Path(entry["image"]).name), []).append(entry["image"])
    return {name: images for name, images in groups.items() if len(images) > 1}


def _about_pairs(content: Mapping[str, Any], known: Learn2RegDataset, patient: str) -> list[str]:
    """Say which pairs a training takes, and how else they could be made.

    Raises:
        InputError: When there are none to train or to validate.
    """
    numbers = len(known.training_pairs()), len(known.validation_pairs())
    pairing = "within" if "training_paired_images" in content else known.pairing
    lines = [f"  pairs: {numbers[0]} to train, {numbers[1]} to validate, {PAIRINGS[pairing]}"]
    if pairing == "within" and not patient and (subjects := _subjects(content)):
        lines.append(
            "  assumed: a patient is what stands before the last number of a name, such as "
            f"'{Path(next(iter(subjects))).name.partition('.')[0]}'; if several of these are one, state by --patient "
            "what in a name is the patient's, or training and validation share patients"
        )
    if pairing != "between":
        return lines
    lines.append(
        "  assumed: any two images of different subjects are a pair; --paired takes those alone whose names differ in "
        "their last number"
    )
    if len(subjects := _subjects(content)) > 1:
        images = ", ".join(f"'{Path(image).name}'" for image in next(iter(subjects.values()))[:2])
        lines.append(
            f"  check: {len(subjects)} names have several images, such as {images}; if a name is a patient, give "
            "--paired"
        )
    return lines


def _times(config_file: str, dataset_dir: str, settings: Mapping[str, Any]) -> str:
    """Train three steps, the first of which does not count, and say how many fit into the time of the command."""
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
    seconds = (times[-1] - times[0]) / (len(times) - 1)
    length, epochs = int(trainer.state.epoch_length), int(trainer.state.max_epochs)
    fitting = min(int(60 * MINUTES / seconds), length * epochs)
    return (
        f"time: {seconds:.2g} s a step on this machine: {fitting} steps, {fitting / length:.1f} epochs of {length}, "
        f"fit into the {MINUTES} minutes of the command, less its validations; all {epochs} epochs take "
        f"{seconds * length * epochs / 3600:.1f} hours"
    )


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
    (labels, label_voxels), complaints, notes = _labels_of(entry, dims, scan)
    if values.ndim != dims:
        complaints.insert(0, f"has {values.ndim} dimensions, expected {dims}")
    if not np.isfinite(values).all() or values.min() == values.max():
        complaints.append("is constant, or holds NaN or infinity")
    finite = values[np.isfinite(values)]
    lowest = float(finite.min()) if finite.size else 0.0
    body = finite[finite > AIR] if lowest < AIR else finite
    low, high = (float(np.percentile(body, part)) if body.size else 0.0 for part in BODY)
    sample = finite[:: max(1, finite.size // SAMPLED)]
    return Facts(
        tuple(values.shape),
        tuple(round(float(np.linalg.norm(affine[:3, axis])), 3) for axis in axes),
        "".join(str(code) for code in nib.aff2axcodes(affine)),
        tuple(float(x) for x in affine[:3, :3] @ _middle(scan.values.shape) + affine[:3, 3]),
        lowest,
        (round(low), round(high)),
        labels,
        tuple(complaints),
        _frame_of(values) if finite.size == values.size > 0 else 0.0,
        len(np.unique(sample)),
        label_voxels,
        tuple(notes),
    )


def _frame_of(values: Any) -> float:
    """Return the part of an image that a constant frame covers; none where the box inside it is not filled, either."""
    box = scanned_box(torch.from_numpy(values)[None])[1:]
    inside = values[box]
    filled = np.count_nonzero(inside > values.min()) >= FILLED * inside.size
    return float(1 - inside.size / values.size) if filled else 0.0


def proposal(dims: int, facts: Sequence[Facts], labeled: bool = False) -> tuple[str, dict[str, Any]]:
    """Propose a bundle, and settings of its training.

    The grid has the proportions of the median image in mm, not more voxels than that and than ``MOST_VOXELS``. CT,
    which reaches below -900 HU, is clipped to the range of its body, other images are not clipped. Crops in a constant
    frame are aligned by an affine map and extended, so that a training does not match their frames. Label maps
    drive a training as they did that of the published weights. Published weights are trained further: of CT those of
    the abdomen, of other images up to 100 mm those of the hippocampus, with or without labels, of all others those of
    random shapes.

    Args:
        dims: 2 or 3.
        facts: of some images.
        labeled: whether all images have label maps.

    Example:
        >>> image = Facts((48, 64, 48), (1, 1, 1), "RAS", (0, 0, 0), 0.0, (0, 200), (), ())
        >>> bundle, settings = proposal(3, [image])
        >>> bundle, settings["ckpt"], settings["spatial_size"]
        ('ran', 'models/model_hippocampus.pt', [36, 48, 36])
    """
    grid = _grid(dims, facts)
    if dims == 2:
        return "r2n2", {"preset": "finetune", "spatial_size": grid}
    is_ct = np.median([one.lowest for one in facts]) < AIR
    window = [round(float(np.median([one.window[end] for one in facts]))) for end in (0, 1)]
    framed = len(_framed(facts)) >= MANY * len(facts)
    labeled = labeled and any(any(one.labels) for one in facts)
    small = "model_hippocampus_labels" if labeled else "model_hippocampus"
    return "ran", {
        "ckpt": f"models/{'model' if is_ct else small if _are_small(facts) else 'model_shapes'}.pt",
        "learning_rate": LEARNING_RATE,
        "spatial_size": grid,
        "window": window if is_ct else [],
        "initial_alignment": "affine" if framed else "center" if _are_apart(facts) else "none",
        **({"extend_border": True} if framed else {}),
        **({} if is_ct else {"mask_threshold": -1}),
        **({"label_weight": LABEL_WEIGHT} if labeled else {}),
    }


def _presets(root: Path) -> list[str]:
    """Name the presets of a bundle's inference, which may fit the images better."""
    names = presets_of(root)
    return [f"  other settings for registering with it: --preset {', '.join(names)}"] if names else []


def _framed(facts: Sequence[Facts]) -> list[Facts]:
    """Return the images of which a constant frame covers a part that matters."""
    return [one for one in facts if one.frame >= FRAME]


def _reasons(settings: Mapping[str, Any], facts: Sequence[Facts]) -> list[str]:
    """Say why settings that are not plain to see are proposed."""
    lines = []
    if "extend_border" in settings:
        framed = _framed(facts)
        share = round(100 * float(np.median([one.frame for one in framed])))
        lines.append(
            f"  extend_border, initial_alignment: a constant frame covers {share} % (median) of {len(framed)} of "
            f"{len(facts)} images, which a training can match instead of the anatomy"
        )
    start = "preset" if "preset" in settings else "ckpt, learning_rate"
    lines.append(f"  {start}: starts from published weights; a training from scratch, without, needs hours")
    if any(any(one.labels) for one in facts) and "preset" in settings:
        lines.append("  label maps measure this training, which compares images alone")
    if "label_weight" in settings:
        lines.append("  label_weight: label maps drive the training; leave it out to train on the images alone")
    return lines


def _grid(dims: int, facts: Sequence[Facts]) -> list[int]:
    """Return a grid of cubic voxels in the proportions of the median image."""
    flat = [one for one in facts if len(one.shape) == dims] or list(facts)
    sizes = np.median([one.shape for one in flat], axis=0)
    extents = sizes * np.median([one.spacing for one in flat], axis=0)
    scale = (min(MOST_VOXELS[dims], float(np.prod(sizes))) / float(np.prod(extents))) ** (1 / dims)
    return [max(MULTIPLE * 2, MULTIPLE * round(float(extent * scale) / MULTIPLE)) for extent in extents]


def _are_small(facts: Sequence[Facts]) -> bool:
    """Whether images show one small structure, by their median size along each axis."""
    return bool(np.median([np.multiply(one.shape, one.spacing) for one in facts], axis=0).max() <= SMALL)


def _are_apart(facts: Sequence[Facts]) -> bool:
    """Whether the centers of images lie apart in the world of their headers."""
    centers = np.array([one.center for one in facts])
    size = float(np.median([np.dot(one.shape, one.spacing) / len(one.shape) for one in facts]))
    return bool(np.linalg.norm(centers - np.median(centers, axis=0), axis=1).max() > FAR * size)


def _middle(shape: Sequence[int]) -> Any:
    """Return the voxel coordinates of an image's center, of three axes."""
    return np.array([(size - 1) / 2 for size in [*shape, 1, 1][:3]])


def _labels_of(
    entry: Mapping[str, str], dims: int, image: Scan
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], list[str], list[str]]:
    """Return the labels of an image and the voxels of each, what is wrong with its label map, and what is to be known.

    A label map on another grid is that of a training, if this can bring it onto its image.
    """
    if "label" not in entry:
        return ((), ()), [], []
    scan = read_scan(entry["label"], "label map", dims, exact=True)
    values, shape = np.squeeze(np.asarray(scan.values)), tuple(image.values.squeeze().shape)
    known, wrong, notes = np.isfinite(values), list[str](), list[str]()
    if not known.all():
        wrong.append("has a label map that holds NaN or infinity")
    if values.shape != shape and not (scan.placed and values.ndim == len(shape) == dims):
        wrong.append(f"has {shape} voxels and its label map {values.shape}")
    elif values.shape != shape or not same_affine(scan.affine, image.affine, shape):
        try:
            with unreported():
                images: dict[Any, str] = dict.fromkeys(IMAGE_KEYS, entry["image"])
                LoadPaird(dims, ["label"])({**images, "fixed_label": entry["label"]})
            notes.append(f"has a label map on another grid, of {values.shape} voxels, which is brought onto its own")
        except InputError as error:
            wrong.append(f"has a label map that is of no use: {str(error).rstrip('.')}")
    if not np.issubdtype(values.dtype, np.integer):
        wrong.append("has a label map of fractions")
    labels, voxels = np.unique(values[known], return_counts=True)
    return (tuple(int(label) for label in labels), tuple(voxels.tolist())), wrong, notes


def _summary(content: Mapping[str, Any], facts: Sequence[Facts]) -> list[str]:
    """Describe a data set in a few lines."""
    entries, names = content["training"], content["labels"].get("0", {})
    labels = sorted({label for one in facts for label in one.labels})
    labeled = sum("label" in entry for entry in entries)
    rest = "" if len(facts) == len(entries) else ", of the others headers and lengths of files"
    lines = [
        f"{content['name']}: {len(entries)} images, {content['tensorImageSize']['0']}, {labeled} with a label map; "
        f"read: {len(facts)} of {len(entries)}{rest}",
        f"  voxels: {_range([one.shape for one in facts])}",
        f"  voxel size (mm): {_range([one.spacing for one in facts])}",
        f"  orientation: {_counted(one.orientation for one in facts)}",
        f"  intensities: from {min(one.lowest for one in facts):g}, most within "
        f"{min(one.window[0] for one in facts)} to {max(one.window[1] for one in facts)}",
    ]
    named = ", ".join(
        f"{label} {names[str(label)]}" if str(label) in names else str(label) for label in labels[:SHOWN_LABELS]
    )
    named += f", ... ({len(labels)})" if len(labels) > SHOWN_LABELS else ""
    return [*lines, f"  labels: {named}"] if labels else lines


def _oddities(entries: Sequence[Mapping[str, str]], facts: Mapping[str, Facts]) -> list[str]:
    """List what may be wrong but prevents no training, such as empty label maps and images that are there twice."""
    odd = [f"'{image}' {note}" for image, one in facts.items() for note in one.notes]
    empty = [image for image, one in facts.items() if one.labels and not any(one.labels)]
    odd += [f"'{image}' has an empty label map, with which no pair is loaded" for image in empty]
    first: dict[str, str] = {}
    for entry in entries:
        image = entry["image"]
        if (other := first.setdefault(digest_of(Path(image)), image)) != image:
            odd.append(f"'{image}' is the same file as '{other}'")
    if pictures := [entry["image"] for entry in entries if entry["image"].lower().endswith(PICTURE_SUFFIXES)]:
        odd.append(f"{len(pictures)} images are pictures, which state no pixel size: distances in mm count pixels")
    lacking = [entry["image"] for entry in entries if "label" not in entry]
    if 0 < len(lacking) < len(entries):
        odd.append(f"{len(lacking)} images have no label map, first '{lacking[0]}'; a training on labels needs all")
    if broken := _broken_labels(facts):
        more = f", and {len(broken) - SHOWN_BROKEN} more" if len(broken) > SHOWN_BROKEN else ""
        odd.append(f"label maps unlike the others: {', '.join(broken[:SHOWN_BROKEN])}{more}")
    if few := [image for image, one in facts.items() if _has_few_values(one)]:
        odd.append(f"{len(few)} images have {FEW_VALUES} different values or fewer, as label maps do, first '{few[0]}'")
    return odd


def _broken_labels(facts: Mapping[str, Facts]) -> list[str]:
    """Name the images whose label maps lack a label that most have, or hold next to nothing of one."""
    voxels = {image: dict(zip(one.labels, one.label_voxels, strict=True)) for image, one in facts.items()}
    voxels = {image: found for image, found in voxels.items() if any(found)}
    broken = []
    for label in sorted({*chain(*voxels.values())} - {0}):
        known = [found[label] for found in voxels.values() if label in found]
        least = max(FEW_VOXELS_OF_A_LABEL + 1, SMALL_LABEL * float(np.median(known)))
        lacking = [] if 2 * len(known) < len(voxels) else [image for image in voxels if label not in voxels[image]]
        broken += [f"'{image}' without label {label}" for image in lacking]
        small = {image: found[label] for image, found in voxels.items() if found.get(label, least) < least}
        broken += [f"'{image}' with {count} voxels of label {label}" for image, count in small.items()]
    return broken


def _write(content: Mapping[str, Any], images: Path, output_dir: Path) -> None:
    """Write the json file of a data set into a folder that has none, or replace one of this command and these images.

    One of the same images, label maps and pairs stays.
    """
    file, data = output_dir / f"{content['name']}_dataset.json", Learn2RegDataset(output_dir, content)
    found = files_in(output_dir, "*_dataset.json")
    if found == [file] and _listed(Learn2RegDataset(output_dir)) == _listed(data):
        print(f"'{file}' is there already, of the same images and pairs.")
        return
    if found and not (found == [file] and _is_own(file, content)):
        raise InputError(
            f"'{found[0]}' is there already, of other images; give another folder, such as "
            f"-o {shlex.quote(str(_free_folder(output_dir, absolute_path(images))))}, or remove it."
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    write_file(file, (json.dumps(content, indent=4) + "\n").encode())
    print(f"Replaced '{file}', which was of the same images." if found else f"Wrote '{file}'.")


def _is_own(file: Path, content: Mapping[str, Any]) -> bool:
    """Whether this command has written a json file, of the images of ``content``."""
    before = json.loads(file.read_text(encoding="utf-8"))
    images = [[entry["image"] for entry in one["training"]] for one in (before, content)]
    return before.get("description") == DESCRIPTION and images[0] == images[1]


def _listed(data: Learn2RegDataset) -> tuple[Any, ...]:
    """Return the images and pairs of a data set."""
    return data.subjects, data.training_pairs(), data.validation_pairs()


def _free_folder(taken: Path, images: Path) -> Path:
    """Return a folder that is not there, called like that of the images and the one above."""
    names = chain([f"{images.parent.name}_{images.name}"], (f"{taken.name}_{number}" for number in count(2)))
    return next(folder for folder in map(taken.with_name, names) if not folder.exists())


def _name_of(images: Path) -> str:
    """Return a name for a data set: that of its folder, of the one above where that says nothing."""
    folder = absolute_path(images)
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
