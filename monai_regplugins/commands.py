"""Commands of ``regplugins`` that run a bundle's inference, or list the bundles."""

from __future__ import annotations

import csv
import logging
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fire
from monai.bundle import run

from monai_regplugins.bundle import start
from monai_regplugins.bundle_folders import (
    CONFIG,
    all_bundles,
    find_bundle,
    packaged_bundles,
    presets_of,
    read_json,
)
from monai_regplugins.checks import check_file
from monai_regplugins.data.pair_list import phase_list, read_pair_list
from monai_regplugins.early_checks import given_options
from monai_regplugins.files.cells import as_text
from monai_regplugins.files.folders import files_in
from monai_regplugins.readers.images import scan_shape
from monai_regplugins.readers.pictures import PICTURE_SUFFIXES
from monai_regplugins.series.phases import first_image

__all__ = ["choose_bundle", "describe_bundle", "inference_words", "list_bundles", "list_phases", "run_inference"]

AUTO = "auto"
INPUTS = {"register": ("fixed", "moving"), "batch": ("pairs_file",), "series": ("series",)}
MEBIBYTE = 2**20
OF_MONAI = ("monai.bundle.scripts", "monai.bundle.workflows")  # loggers


def run_inference(args: Namespace, overrides: Sequence[str]) -> None:
    """Run a bundle's inference as MONAI's command line does.

    Args:
        args: ``command``, ``bundle``, ``preset``, ``output_dir``, and ``fixed`` and ``moving``, or ``pairs_file``, or
            ``series`` and ``onto``.
        overrides: words of the command line that set keys of the configuration.

    Raises:
        InputError: When there is no such bundle or preset, or the bundle refuses the pair or a setting.
    """
    start()  # input errors in one line, from here on
    name = args.bundle
    if name == AUTO:
        name, reason = choose_bundle(_first_fixed_image(args))
        print(f"bundle {name}: {reason}", flush=True)
    root = find_bundle(name)
    words = inference_words(root, args, overrides)
    is_verbose = dict(given_options(overrides)).get("verbose", "False").capitalize() == "True"
    before, sys.argv = sys.argv, ["monai.bundle", *words]
    try:
        with _without_banner(root, is_verbose):
            fire.Fire({"run": run}, words, "monai.bundle")  # alone, it would look at all that is imported
    finally:
        sys.argv = before


@contextmanager
def _without_banner(root: Path, is_verbose: bool) -> Iterator[None]:
    """Leave out what MONAI logs about each run, and that a configuration is code where it is one of this package."""
    loggers = [] if is_verbose else [logging.getLogger(name) for name in OF_MONAI]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        if loggers and root.resolve().is_relative_to(packaged_bundles().resolve()):
            warnings.filterwarnings("ignore", "parsing config_file", UserWarning)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def inference_words(root: Path, args: Namespace, overrides: Sequence[str]) -> list[str]:
    """Return the command line of ``python -m monai.bundle`` that does the same.

    Args:
        root: folder of the bundle.
        args: as for :func:`run_inference`.
        overrides: as for :func:`run_inference`.

    """
    given = {key: getattr(args, key) for key in INPUTS[args.command]}
    files: str | list[str] = str(root / CONFIG)
    if args.command == "series":
        overlay = root / CONFIG.with_name("series.json")
        files = str([files, str(check_file(overlay, f"bundle '{root.name}' registers no series: its configuration"))])
        if args.onto:
            given["fixed_frame" if "fixed_frame" in read_json(overlay) else "onto"] = args.onto
    if args.preset is not None:
        given["preset"] = args.preset
    words = [word for key, value in given.items() for word in (f"--{key}", value)]
    return ["run", "inference", "--config_file", files, *words, "--output_dir", args.output_dir, *overrides]


def choose_bundle(fixed: str) -> tuple[str, str]:
    """Choose a bundle for a fixed image by the number of its axes: R2N2 for 2D, RAN for everything else.

    RegNet is trained on chest CT of one patient, which no header states for certain, so that it is never chosen.

    Args:
        fixed: path of the image.

    Returns:
        The bundle's name and the reason.

    Raises:
        InputError: When the header of the image cannot be read.
    """
    shape = scan_shape(fixed, "fixed image")
    if fixed.lower().endswith(PICTURE_SUFFIXES):
        shape = shape[:2]  # without colors
    shape = shape[:3]  # of one volume
    if len(shape) == 3 and 1 in shape:  # whichever axis the slice is
        single = max(axis for axis in range(3) if shape[axis] == 1)
        shape = shape[:single] + shape[single + 1 :]
    if len(shape) == 2:
        return "r2n2", f"the fixed image is 2D ({' x '.join(map(str, shape))}); --bundle chooses another one"
    kind = f"{len(shape)}D ({' x '.join(map(str, shape))})" if shape else "a DICOM series"
    return "ran", f"the fixed image is {kind}; --bundle regnet is made for chest CT of one patient"


def _first_fixed_image(args: Namespace) -> str:
    """The fixed image of the pair, or of the first pair of the list, or the series."""
    if args.command == "register":
        return str(args.fixed)
    if args.command == "series":
        return first_image(args.series)
    return read_pair_list(args.pairs_file)[0]["fixed"]


def list_bundles() -> int:
    """Print the bundles that are found; return the exit status, 1 if there is none."""
    bundles = all_bundles()
    for root in bundles.values():
        print(describe_bundle(root))
    return 0 if bundles else 1


def list_phases(image: str, onto: str) -> int:
    """Print the pairs of all volumes of an image onto one of them, as a list for ``regplugins batch``.

    Args:
        image: path of the image.
        onto: name of the fixed volume; ``""`` for the first one.

    Raises:
        InputError: When the image holds one volume, or none of this name.
    """
    start()  # input errors in one line, from here on
    pairs = phase_list(image, onto)
    table = csv.DictWriter(sys.stdout, list(pairs[0]), lineterminator="\n")
    table.writeheader()
    table.writerows({column: as_text(cell) for column, cell in pair.items()} for pair in pairs)
    return 0


def describe_bundle(root: Path) -> str:
    """Return a few lines about a bundle: name, version, task, folder, weights and presets."""
    metadata = read_json(root / "configs" / "metadata.json")
    weights = [f"{file.name} ({file.stat().st_size / MEBIBYTE:.1f} MiB)" for file in files_in(root / "models", "*.pt")]
    presets, training = presets_of(root), read_json(root / "configs" / "train.json")
    of_training = [name for name in presets_of(root, training) if name not in presets]
    configs = [file.stem for file in files_in(root / "configs", "*.json")]
    others = [name for name in configs if name not in (*presets, *of_training, "inference", "metadata")]
    lines = {
        "folder": str(root),
        "weights": ", ".join(weights) or "none",
        "presets": ", ".join(presets) or "none",
        "presets of a training": ", ".join(of_training) or "none",
        "other configurations": ", ".join(others) or "none",
    }
    title = f"{root.name} {metadata.get('version', '(no version)')}: {metadata.get('task', 'no task is given')}"
    return "\n".join([title, *(f"  {key}: {value}" for key, value in lines.items())])
