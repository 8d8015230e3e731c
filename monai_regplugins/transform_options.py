"""Options and help of the commands that work on transform files; nothing else is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["TRANSFORM_COMMANDS", "add_transform_commands"]

TRANSFORM_COMMANDS = ("apply", "compose", "invert", "convert", "jacobian", "inspect")

DIRECTION = """A transform maps points of the fixed image to the moving image, which is what resampling needs: images
and labels go from the moving to the fixed grid, points from the fixed image to the moving one. Transforms are listed in
the order in which a point of the fixed image meets them, as in antsApplyTransforms (field first, then affine). Each is
a FILE, FORMAT:FILE where the file does not state its format, or inverse:FILE.
"""
FORMATS = """formats: itk_nifti, itk_h5, slicer_nifti, learn2reg, dicom, native, vectors (.nrrd, .mha), niftyreg, spm,
afni, fsl_relative, fsl_absolute, dipy, x5 and freesurfer (.mgz) (fields); itk (.txt, .tfm, .mat, .h5), lta, fsl, ras,
lps, dicom (linear); minc (.xfm).
"""
EXAMPLES = {
    "apply": "regplugins apply moving.nii.gz -t displacement_itk.nii.gz --like fixed.nii.gz -o warped.nii.gz\n"
    "  regplugins apply organs.nii.gz -t 1Warp.nii.gz 0GenericAffine.mat -i nearest -o organs_warped.nii.gz\n"
    "  regplugins apply fixed_points.fcsv -t displacement_itk.h5 -o moving_points.fcsv",
    "compose": "regplugins compose 1Warp.nii.gz 0GenericAffine.mat -o total.nii.gz",
    "invert": "regplugins invert displacement_itk.nii.gz --like moving.nii.gz -o inverse.nii.gz",
    "convert": "regplugins convert fsl:flirt.mat -o affine.tfm --like fixed.nii.gz --moving moving.nii.gz",
    "jacobian": "regplugins jacobian displacement_itk.nii.gz --log -o log_jacobian.nii.gz",
    "inspect": "regplugins inspect displacement_itk.nii.gz",
}
ABOUT = {
    "apply": ("apply transforms to images, labels or points", "Bring moving images onto the fixed grid."),
    "compose": ("make one transform of several", "Write one file of several transforms."),
    "invert": ("invert a transform", "Write the transform from points of the moving image to the fixed image."),
    "convert": ("write a transform in another format", "Write a transform in another format or on another grid."),
    "jacobian": (
        "map the volume change",
        "Write the Jacobian determinant: above 1 a voxel grows, at 0 or below it folds.",
    ),
    "inspect": (
        "state what a transform file is",
        "State format, direction, units, grid, motion and folds.",
    ),
}
FIELD_IMAGES = {
    "like": "fixed image, whose grid a field gets",
    "moving": "moving image, which some formats need",
}


def add_transform_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], path: Callable[[str], str]
) -> None:
    """Add the commands of ``TRANSFORM_COMMANDS``.

    Args:
        commands: where to add them.
        path: type of an argument that is a path.
    """
    for name in TRANSFORM_COMMANDS:
        title, about = ABOUT[name]
        parser = commands.add_parser(
            name,
            help=title,
            description=f"{about}\n\n{DIRECTION}",
            epilog=f"{FORMATS}\nexamples:\n  {EXAMPLES[name]}\n",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _ADD[name](parser, path)
        parser.add_argument(
            "--from", dest="format", metavar="FORMAT", help="format of the transforms that do not state theirs"
        )


Path = Callable[[str], str]


def _add_output(parser: argparse.ArgumentParser, path: Path, text: str) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="OUT", type=path, help=text)


def _add_written(parser: argparse.ArgumentParser, path: Path) -> None:
    """Options of what writes a transform."""
    _add_output(parser, path, "transform file; its suffix states the format unless --to does")
    parser.add_argument("--to", metavar="FORMAT", help="format of the output")


def _add_transforms(parser: argparse.ArgumentParser, path: Path) -> None:
    parser.add_argument(
        "transforms", metavar="TRANSFORM", nargs="+", type=path, help="transform files, the first first"
    )


def _add_images(parser: argparse.ArgumentParser, path: Path, **texts: str) -> None:
    """Options that are images, with their help."""
    for name, text in texts.items():
        parser.add_argument(f"--{name}", metavar="IMAGE", type=path, help=text)


def _add_apply(parser: argparse.ArgumentParser, path: Path) -> None:
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        type=path,
        help="moving images (any format, 4D too, or a folder of a DICOM series), which go onto the fixed grid; or "
        "files of points of the fixed image (.csv, .fcsv, .mrk.json, .txt, .pts), which go to the moving image",
    )
    parser.add_argument(
        "-t", "--transform", dest="transforms", metavar="TRANSFORM", nargs="+", required=True, type=path
    )
    _add_output(parser, path, "file (NIfTI for images), or folder for several inputs")
    _add_images(
        parser,
        path,
        like="grid of the result: the fixed image as a rule",
        moving="image whose voxels moving points are written in",
    )
    parser.add_argument(
        "-i",
        "--interpolation",
        default="linear",
        choices=("linear", "nearest", "cubic", "labels"),
        help="linear (default), cubic; for label maps nearest, or labels (each smoothed, the largest wins)",
    )
    parser.add_argument("--padding", metavar="VALUE", type=float, help="value outside; default: minimum, 0 for labels")
    parser.add_argument(
        "--points_space",
        "--points-space",
        choices=("voxel", "ras", "lps"),
        help="what the numbers of points are; default: what the file says, in a plain table voxels",
    )


def _add_compose(parser: argparse.ArgumentParser, path: Path) -> None:
    _add_transforms(parser, path)
    _add_written(parser, path)
    _add_images(parser, path, **FIELD_IMAGES)


def _add_convert(parser: argparse.ArgumentParser, path: Path) -> None:
    parser.add_argument("transform", metavar="TRANSFORM", type=path, help="transform file")
    _add_written(parser, path)
    _add_images(parser, path, **FIELD_IMAGES)


def _add_invert(parser: argparse.ArgumentParser, path: Path) -> None:
    _add_transforms(parser, path)
    _add_written(parser, path)
    like, fixed = "moving image, whose grid the inverse has", "fixed image, which some formats need"
    _add_images(parser, path, like=like, fixed=fixed)


def _add_jacobian(parser: argparse.ArgumentParser, path: Path) -> None:
    _add_transforms(parser, path)
    _add_output(parser, path, "NIfTI file")
    like = "grid: the fixed image as a rule; default: that of the first field"
    _add_images(parser, path, like=like, moving=FIELD_IMAGES["moving"])
    parser.add_argument("--log", action="store_true", help="write the natural logarithm; NaN where the field folds")


def _add_inspect(parser: argparse.ArgumentParser, path: Path) -> None:
    _add_transforms(parser, path)
    _add_images(parser, path, like="fixed image, which some formats need", moving=FIELD_IMAGES["moving"])


_ADD = {
    "apply": _add_apply,
    "compose": _add_compose,
    "invert": _add_invert,
    "convert": _add_convert,
    "jacobian": _add_jacobian,
    "inspect": _add_inspect,
}
