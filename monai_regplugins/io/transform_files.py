"""Transform files of any kind, alone or one after the other, as a chain of maps of points."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monai_regplugins.checks import InputError, check_choice, check_file
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.io.dicom_identity import read_dicom_file
from monai_regplugins.io.foreign_fields import FOREIGN_FORMATS
from monai_regplugins.io.formats import FORMATS, format_of, load_field
from monai_regplugins.io.itk_transform import displacement_of, matrix_of, members_of, read_itk_transform
from monai_regplugins.io.linear import LINEAR_FORMATS, linear_format, load_linear
from monai_regplugins.io.minc_transform import MINC_TEXT, read_minc_transform
from monai_regplugins.io.point_map import Chain, FieldMap, InverseMap, ItkMap, LinearMap, PointMap, grid_points
from monai_regplugins.readers.image_grid import ImageGrid

__all__ = ["INVERSE", "READ_FORMATS", "TransformSource", "load_transform", "transform_format", "transform_source"]

logger = logging.getLogger(__name__)

INVERSE = "inverse"
READ_FORMATS = (*FORMATS, *FOREIGN_FORMATS, *LINEAR_FORMATS, "minc")
OF_ONE_PAIR = ("learn2reg", "fsl", "fsl_relative", "fsl_absolute")  # formats that count voxels of both images
ITK_TEXT = b"#Insight Transform File"
AS_FIELDS = (".npz", *(suffix for format in FOREIGN_FORMATS.values() for suffix in format.suffixes))


class TransformSource(NamedTuple):
    """A transform as a command line names it.

    Attributes:
        path: the file.
        format: its format, None for what it says itself.
        inverse: whether its inverse is meant.
    """

    path: Path
    format: str | None = None
    inverse: bool = False


def transform_source(text: str | Path, format: str | None = None) -> TransformSource:
    """Take ``[inverse:][FORMAT:]FILE`` apart; a file of the whole name comes first.

    Args:
        text: what the user wrote.
        format: the format of a file that is given none.

    Example:
        >>> transform_source("inverse:fsl:flirt.mat")
        TransformSource(path=PosixPath('flirt.mat'), format='fsl', inverse=True)
    """
    rest, inverse = str(text), False
    while not Path(rest).exists():
        found = re.match(rf"({INVERSE}|{'|'.join(READ_FORMATS)}):(.+)", rest)
        if found is None:
            break
        inverse, format = (True, format) if found[1] == INVERSE else (inverse, found[1])
        rest = found[2]
    return TransformSource(Path(rest), format, inverse)


def load_transform(
    sources: str | Path | TransformSource | Sequence[str | Path | TransformSource],
    format: str | None = None,
    fixed: ImageGrid | None = None,
    moving: ImageGrid | None = None,
) -> Chain:
    """Read one transform file or several, from points of the fixed image to points of the moving one.

    Args:
        sources: the files in the order in which a point of the fixed image meets them, as ``antsApplyTransforms`` lists
            them: first the field, then the affine. Each may be written ``[inverse:][FORMAT:]FILE``.
        format: the format of the files that do not state theirs, one of ``READ_FORMATS``.
        fixed: grid of the fixed image; formats of FSL and Learn2Reg need it.
        moving: the same of the moving image; formats of FSL need it.

    Returns:
        the chain, in the worlds of the programs that wrote the files, see
        :meth:`~monai_regplugins.io.point_map.Chain.in_worlds`.

    Raises:
        InputError: When a file is missing, damaged, no transform, or does not state its format; when a format needs
            images that are not given, or counts their voxels while other files stand between.

    Example:
        >>> load_transform(["1Warp.nii.gz", "0GenericAffine.mat"])  # doctest: +SKIP
    """
    listed = [sources] if isinstance(sources, str | Path | TransformSource) else list(sources)
    if not listed:
        raise InputError("no transform is given, expected one file at least; name it.")
    files = [one if isinstance(one, TransformSource) else transform_source(one, format) for one in listed]
    last = len(files) - 1
    chains = [
        _load_one(source, last > 0, fixed if k == 0 else None, moving if k == last else None)
        for k, source in enumerate(files)
    ]
    maps = [one for chain in chains for one in chain.maps]
    return Chain(maps, chains[0].fixed_by_itk, chains[-1].moving_by_itk)


def transform_format(path: str | Path) -> str:
    """State the format of a transform file, one of ``READ_FORMATS``; of ITK's files ``itk`` if all in it is linear.

    Raises:
        InputError: When it is missing, no transform, or does not state its format.
    """
    file = check_file(path, "transform")
    with file.open("rb") as stream:
        head = stream.read(132)
    if head[128:] == b"DICM":
        deformable = "DeformableRegistrationSequence" in read_dicom_file(file, "transform")
        return "dicom_field" if deformable else "dicom"
    if head.startswith(MINC_TEXT):
        return "minc"
    if file.name.lower().endswith(AS_FIELDS):
        return format_of(file)
    name = linear_format(file)
    if name == "itk" and not all(member.IsLinear() for member in members_of(read_itk_transform(file))):
        return "itk_h5"
    return name


def _load_one(source: TransformSource, among_others: bool, fixed: ImageGrid | None, moving: ImageGrid | None) -> Chain:
    """The maps of one file, inverted if that is meant."""
    file = check_file(source.path, "transform")
    if source.format is not None:
        check_choice(source.format, READ_FORMATS, "format")
    name = source.format or transform_format(file)
    if among_others and name in OF_ONE_PAIR:
        raise InputError(
            f"'{file}' in the format '{name}' counts voxels of its two images, which stand at no place of a chain; "
            "convert it to itk or itk_nifti first (regplugins convert)."
        )
    given = (moving, fixed) if source.inverse else (fixed, moving)
    maps = _maps(file, name, *given)
    by_itk = name in ("itk", "itk_h5") or (name in FORMATS and FORMATS[name].by_itk)
    by_itk = by_itk or (name in FOREIGN_FORMATS and FOREIGN_FORMATS[name].by_itk)
    if source.inverse:
        maps = _inverted(maps, file)
    return Chain(maps, by_itk, by_itk)


def _maps(file: Path, name: str, fixed: ImageGrid | None, moving: ImageGrid | None) -> list[PointMap]:
    """What is in a file of this format, in the order in which a point meets it."""
    if name in ("itk_h5", "minc"):
        return _itk_maps(file) if name == "itk_h5" else read_minc_transform(file)
    if name == "dicom_field" or (name == "dicom" and transform_format(file) == "dicom_field"):
        return [FieldMap(*load_field(file, format="dicom"))]
    if name in LINEAR_FORMATS:
        return [LinearMap(load_linear(file, name, fixed, moving).numpy())]
    return [FieldMap(*load_field(file, None, name, fixed, moving))]


def _itk_maps(file: Path) -> list[PointMap]:
    """The members of an ITK file, the last of which meets a point first."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    maps: list[PointMap] = []
    for member in reversed(members_of(read_itk_transform(file))):
        if isinstance(member, sitk.DisplacementFieldTransform):
            maps.append(FieldMap(*displacement_of(member)))
        elif member.IsLinear():
            maps.append(LinearMap(LPS_TO_RAS @ matrix_of(member) @ LPS_TO_RAS))
        else:
            maps.append(ItkMap(member))
    return maps


def _inverted(maps: Sequence[PointMap], file: Path) -> list[PointMap]:
    """The inverses of maps, in the other order."""
    turned: list[PointMap] = []
    for one in reversed(maps):
        if isinstance(one, LinearMap):
            turned.append(LinearMap(np.linalg.inv(one.matrix)))
        elif isinstance(one, InverseMap):
            turned.append(one.forward)
        elif isinstance(one, FieldMap):
            turned.append(InverseMap(one, grid_points(one.affine, one.shape)))
        else:
            raise InputError(
                f"'{file}' holds a transform that is given by formulas alone (such as a B-spline) and so has no grid "
                "to invert it on; make a field of it first (regplugins compose)."
            )
    return turned
