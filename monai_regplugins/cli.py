"""Command line interface ``regplugins``: options and help. Each command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from monai_regplugins import __version__
from monai_regplugins.given_once import OptionParser
from monai_regplugins.lazy import postponed_imports
from monai_regplugins.renamed import VALUES
from monai_regplugins.transform_options import TRANSFORM_COMMANDS, add_transform_commands

__all__ = ["build_parser", "main", "split_overrides"]

AUTO = "auto"
REPORTS = ("bundles", "describe", "doctor", "phases")
UNUSED = ("torch.distributed.optim", "scipy.signal")  # Ignite's checkpoints and MONAI's filters import them
OPTION = re.compile(r"--[a-zA-Z]")
OWN_OPTIONS = ("--help", "--version", "--output_dir", "--output-dir", "--bundle", "--preset", "--onto")

# keys of the inference configurations that most users need: what their value is, and what they do
IMAGES = {
    "fixed_label": ("FILE", "label map of the fixed image, to measure the overlap with"),
    "moving_label": ("FILE", "label map of the moving image, which is warped along"),
    "fixed_points": (
        "FILE",
        "points of the fixed image: voxel coordinates, a point a line, or a file of 3D Slicer, ANTs or elastix",
    ),
    "moving_points": ("FILE", "the corresponding points of the moving image"),
    "fixed_mask": ("FILE", "mask of the fixed image: the voxels that count"),
    "moving_mask": ("FILE", "mask of the moving image: the voxels that count"),
    "fixed_phase": ("NAME", "which volume of a fixed image with several (4D-CT, 4D NIfTI): its name or number"),
    "moving_phase": ("NAME", "which volume of the moving image, likewise; regplugins phases IMAGE lists them"),
    "pair_id": ("NAME", "name of the pair and of its folder; default: <moving>_to_<fixed>"),
}
OF_REFERENCE = {
    "fixed_label": ("FILE", "label map of the reference, whose motion over the series is reported"),
    "fixed_points": ("FILE", "points of the reference, likewise; see regplugins register"),
    "fixed_mask": ("FILE", "mask of the reference: the voxels that count"),
    "cyclic": ("BOOL", "whether the first phase follows the last one, as in a breath (default), or not: False"),
    "harmonics": ("N", "of the cycle, by which the motion is averaged over time; default: 2, 0 does not average"),
    "warm_steps": ("N", "steps of instance optimization from the field of the previous phase; default: 6"),
}
LIST = {
    "shard": ("I/N", "register the I-th of N parts alone; the same command without it then writes the report"),
}
SETTINGS = {
    "points_space": ("SPACE", "numbers of point files: voxel, ras or lps; default: what the file says, else voxels"),
    "initial_alignment": ("METHOD", "initial alignment: none (default), center, rigid, similarity, affine, or auto"),
    "initial_transform": ("FILE", "linear transform, fixed to moving world, that the alignment begins with"),
    "refine_steps": ("N", "steps of instance optimization on this very pair; default: 30, 0 is the network alone"),
    "similarity": ("NAME", "what these steps compare: lncc (default; R2N2: mse), mse, mind, nmi, features, or auto"),
    "refine_transform": (
        "FORM",
        "what these steps find: displacement (default) or velocity, whose field is invertible",
    ),
    "refine_full": ("BOOL", "whether the last of these steps see the full resolution; default: False"),
    "refine_folding": ("WEIGHT", "weight of the loss of folding during these steps"),
    "refine_label_weight": ("WEIGHT", "how much label maps of both images drive these steps; default: 0, 1 is a start"),
    "driving_labels": ("LIST", 'labels that drive, such as "[1, 3]", the others are only measured; default: all'),
    "refine_landmark_weight": ("WEIGHT", "how much points of both images drive these steps; default: 0, 1 is a start"),
    "driving_landmarks": ("LIST", "rows of the points that drive, from 0, the others are only measured; default: all"),
    "masked_loss": ("BOOL", "whether masks count in these steps (default), or only for the measures: False"),
    "fail_on": ("VERDICT", "verdict in a list that ends with status 1: fail (default), warn (WARN and FAIL) or never"),
    "formats": ("NAMES", "formats of the field: itk_nifti, itk_h5, slicer_nifti, learn2reg, dicom, native, or all"),
    "device": ("DEVICE", "cpu, cuda or cuda:1; default: a GPU if there is one"),
    "ckpt": ("FILE", "weights; default: the published ones of the bundle"),
    "seed": ("N", "seed of all random numbers; default: 0"),
}
SWITCHES = {
    "inverse": "write the inverse field, too",
    "uncertainty": "write the standard deviation of the displacement, mm, too; costs one more instance optimization",
    "other_patient": "allow DICOM series of two patients",
    "amp": "compute with mixed precision",
    "verbose": "log the traceback of a pair that fails, and the messages of MONAI about each run",
}

EXAMPLES = """examples:
  regplugins register fixed.nii.gz moving.nii.gz -o out
  regplugins register fixed_dicom moving_dicom -o out --initial_alignment auto --moving_label organs.nii.gz
  regplugins batch pairs.csv -o out --bundle regnet
  regplugins series 4d_ct_folder -o out --bundle regnet
  regplugins phases 4d_ct_folder > pairs.csv
"""
ALL_KEYS = """Every other key of the bundle's configs/inference.json is an option, too: --KEY VALUE, or, inside of a
component, --KEY#ARGUMENT VALUE. The results are those of python -m monai.bundle run inference with the same options.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser. It contains the bundle's options only to document them in the help text."""
    parser: argparse.ArgumentParser = OptionParser(
        prog="regplugins",
        description="Deformable registration of medical images with the bundles RAN, R2N2 and RegNet, and what is done "
        "with transform files afterwards.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"regplugins {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    _add_register(commands)
    _add_batch(commands)
    _add_series(commands)
    _add_phases(commands)
    _add_describe(commands)
    add_transform_commands(commands, _path)
    commands.add_parser("bundles", help="list the bundles that are found", description=BUNDLES)
    commands.add_parser("doctor", help="check the installation and register a test pair", description=DOCTOR)
    for command in commands.choices.values():
        command.allow_abbrev = False
        command.set_defaults(command_parser=command)
    return parser


BUNDLES = "List the registration bundles with their versions, folders, weights and presets."
DOCTOR = "Report versions, devices, memory and bundles, and register a phantom; the exit status is 1 if anything fails."
PHASES = "Print a list of pairs for regplugins batch: all volumes of one image, such as a 4D-CT, onto one of them."
DESCRIBE = """Check shapes, voxel sizes, intensities, labels and duplicates of a folder of images, write the file that
makes a plain folder a data set, and print a command that trains on it."""
FORMATS = "NIfTI, NRRD, MetaImage, MGH, TIFF or PNG file, or folder of a DICOM series"


def _add_register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that registers two images."""
    parser = _inference_parser(commands, "register", "register two images", "Warp a moving image onto a fixed one.")
    parser.add_argument("fixed", metavar="FIXED", type=_path, help=f"image that stays: {FORMATS}")
    parser.add_argument("moving", metavar="MOVING", type=_path, help="image that is warped onto it")
    _add_options(parser, "files of the pair", IMAGES)
    _add_settings(parser)


def _add_batch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that registers a list of pairs."""
    about = "Register the pairs of a list; pairs whose results are complete are left out."
    parser = _inference_parser(commands, "batch", "register the pairs of a list", about)
    columns = ", ".join(("fixed", "moving", *IMAGES))
    parser.add_argument("pairs_file", metavar="PAIRS", type=_path, help=f"CSV or JSON list with the columns {columns}")
    _add_options(parser, "which pairs of the list", LIST)
    _add_settings(parser)


def _add_series(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that registers a series."""
    about = """Register all phases of an image with several volumes, or of a list of images, onto one of them, each
    from the field of the phase before it; 2D+t with the bundle r2n2."""
    parser = _inference_parser(commands, "series", "register the phases of a series onto one", about)
    what = f"image with several volumes ({FORMATS}), or a CSV or JSON list with the columns image, phase, label, points"
    parser.add_argument("series", metavar="SERIES", type=_path, help=f"{what}, mask")
    parser.add_argument("--onto", default="", metavar="NAME", help="the phase that stays; default: the first one")
    _add_options(parser, "the reference and its series", OF_REFERENCE)
    _add_settings(parser)


def _add_phases(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that lists the pairs of one image's volumes."""
    parser = commands.add_parser("phases", help="list the pairs of an image with several volumes", description=PHASES)
    parser.add_argument("image", metavar="IMAGE", type=_path, help=f"image with several volumes: {FORMATS}")
    parser.add_argument("--onto", default="", metavar="NAME", help="the fixed volume; default: the first one")


def _add_describe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that describes a folder of images."""
    parser = commands.add_parser("describe", help="check a folder of images to train on", description=DESCRIBE)
    parser.add_argument(
        "images", metavar="IMAGES", type=_path, help="folder of images, or a data set with such folders"
    )
    parser.add_argument("--labels", metavar="LABELS", type=_path, help="folder of label maps of the same names")
    parser.add_argument(
        "--paired", action="store_true", help="pair images whose names differ in their last number, such as p1_0, p1_1"
    )
    parser.add_argument(
        "--patient",
        default="",
        metavar="REGEX",
        help="with --paired: what in a name is the patient's, such as 'p[0-9]+' of p12_slice3_0; no patient is in both "
        "training and validation",
    )
    parser.add_argument("--time", action="store_true", help="train three steps and report how many fit into the time")
    place = "folder of the data set's file; default: datasets/NAME"
    parser.add_argument("-o", "--output_dir", "--output-dir", metavar="OUT", type=_path, help=place)


def _inference_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, title: str, about: str
) -> argparse.ArgumentParser:
    """Add a command that runs the inference of a bundle."""
    parser = commands.add_parser(
        name,
        help=title,
        description=about,
        epilog=ALL_KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-o", "--output_dir", "--output-dir", required=True, metavar="OUT", type=_path, help="folder of the results"
    )
    parser.add_argument(
        "--bundle",
        default=AUTO,
        help="ran (3D), r2n2 (2D), regnet (3D chest CT of one patient), the folder of a bundle, or auto (default): "
        "r2n2 if the fixed image is 2D, else ran",
    )
    parser.add_argument("--preset", help="configuration of the bundle with other settings, see regplugins bundles")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Show the settings of a bundle in the help of a command."""
    group = _add_options(parser, "settings of the bundle", SETTINGS)
    for key, text in SWITCHES.items():
        group.add_argument(f"--{key}", action="store_true", help=text)


def _add_options(
    parser: argparse.ArgumentParser, title: str, options: dict[str, tuple[str, str]]
) -> argparse._ArgumentGroup:
    """Show keys of the bundle's configuration in the help of a command."""
    group = parser.add_argument_group(title)
    for key, (metavar, text) in options.items():
        group.add_argument(f"--{key}", metavar=metavar, help=text)
    return group


def _path(text: str) -> str:
    """Reject an empty path, the result of an unset shell variable."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path, expected one of a file or folder")
    return text


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the command line into options of this program and overrides of the bundle's configuration.

    A key takes the word after it as its value, unless that is an option or the key is a switch.

    Args:
        words: the command line without the name of the program.

    Returns:
        The words of this program, and those of the configuration.

    Example:
        >>> split_overrides(["register", "--refine_steps", "30", "--inverse", "a.nii", "b.nii", "-o", "out"])
        (['register', 'a.nii', 'b.nii', '-o', 'out'], ['--refine_steps', '30', '--inverse', 'True'])
    """
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not OPTION.match(word) or word.partition("=")[0] in OWN_OPTIONS:
            own.append(word)
            continue
        overrides.append(word)
        if "=" not in word:
            overrides += _take_value(word, rest)
    return own, overrides


def _take_value(option: str, rest: list[str]) -> list[str]:
    """Remove the value of an option from the words that follow it."""
    name = option.lstrip("-").replace("-", "_")
    is_switch = name in SWITCHES
    following = rest[0] if rest else "--"
    if following in VALUES.get(name, {}):
        return [rest.pop(0)]
    if is_switch and following.capitalize() not in ("True", "False"):
        return ["True"]
    if following.startswith("--") or re.match("-[a-zA-Z]", following):
        return []
    value = rest.pop(0)
    return [value.capitalize() if is_switch else value]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: words of the command line, by default those of the program.

    Returns:
        The exit status.

    Raises:
        InputError: When something that the user gave is wrong.
        SystemExit: When the command line cannot be understood, or its help was asked for.
    """
    words, parser = sys.argv[1:] if argv is None else list(argv), build_parser()
    if words[:1] and words[0] in TRANSFORM_COMMANDS:  # which have no keys of a bundle
        from monai_regplugins.transform_commands import run_transform_command

        return _printed(partial(run_transform_command, _parsed(parser, words)))
    if words[:1] and words[0] in REPORTS:
        return _printed(_report_command(_parsed(parser, words)))
    own, overrides = split_overrides(words)
    args = _parsed(parser, own)
    from monai_regplugins.early_checks import early_error

    if error := early_error(args, overrides):
        print(f"error: {error}", file=sys.stderr)
        return 1
    with _no_search_for_garbage(), postponed_imports(*UNUSED):
        from monai_regplugins.commands import run_inference

    run_inference(args, overrides)
    return 0


def _printed(command: Callable[[], int]) -> int:
    """Run what prints; return 1 where its reader has had enough, as in ``regplugins bundles | head``."""
    try:
        status = command()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again when it ends
        return 1
    return status


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Leave garbage alone, then and later: what imports make stays, and to search it takes a sixth of their time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def _parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; of words that its command does not know, the error shows what is closest to the first."""
    args, unknown = parser.parse_known_args(words)
    if unknown:
        from monai_regplugins.checks import suggest

        options = re.findall(r"--\w[\w-]*", args.command_parser.format_help())
        hint = suggest(unknown[0].partition("=")[0], options) if unknown[0].startswith("-") else ""
        args.command_parser.error(f"unrecognized arguments: {' '.join(unknown)}.{hint}")
    return args


def _report_command(args: argparse.Namespace) -> Callable[[], int]:
    """Import one of the commands that only report."""
    if args.command == "doctor":
        from monai_regplugins.doctor import run_doctor

        return run_doctor
    if args.command == "describe":
        from monai_regplugins.describe import run_describe

        return lambda: run_describe(args.images, args.labels, args.output_dir, args.time, args.paired, args.patient)
    from monai_regplugins.commands import list_bundles, list_phases

    return list_bundles if args.command == "bundles" else lambda: list_phases(args.image, args.onto)
