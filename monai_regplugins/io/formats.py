"""Table of the file formats of displacement fields, with functions to write and read them.

Whatever the format, a field here is ``displacement_ras`` ``(d, *spatial)``, mm, on the fixed grid of voxel-to-RAS
matrix ``affine`` (4, 4): the point p of the fixed image's world goes to ``p + D(p)`` in the moving image's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, check_choice, check_file
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.io.dicom_identity import DicomIdentity
from monai_regplugins.io.dicom_registration import (
    FrameOfReferenceError,
    load_dicom_registration,
    write_dicom_registration,
)
from monai_regplugins.io.displacement import (
    DISPLACEMENT_VECTOR,
    VECTOR,
    NiftiField,
    load_itk_nifti,
    load_slicer_nifti,
    read_nifti_field,
    write_itk_nifti,
    write_slicer_nifti,
)
from monai_regplugins.io.field_grid import (
    Displacement,
    GridAffine,
    check_field,
    ddf_of_displacement,
    displacement_of_ddf,
    in_other_worlds,
    volume_change,
)
from monai_regplugins.io.foreign_fields import FOREIGN_FORMATS, foreign_format
from monai_regplugins.io.itk_transform import load_itk_transform, write_itk_transform
from monai_regplugins.io.learn2reg import learn2reg_name, load_learn2reg, write_learn2reg
from monai_regplugins.io.native import load_native, write_native
from monai_regplugins.readers.image_grid import ImageGrid
from monai_regplugins.readers.nifti import NIFTI_SUFFIXES, nifti_place

__all__ = [
    "FORMATS",
    "FieldFormat",
    "FieldPair",
    "format_of",
    "in_itk_world",
    "load_field",
    "output_name",
    "save_field",
    "write_field",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FieldPair:
    """Information on the two images that some formats store with the field.

    Attributes:
        fixed_name: name or path of the fixed image, for the name of a Learn2Reg file.
        moving_name: the same of the moving image.
        moving_affine: voxel-to-RAS matrix of the moving image, (4, 4); ``learn2reg`` needs it.
        moving_shape: number of voxels of the moving image along each axis; ``learn2reg`` needs it.
        fixed_dicom: the DICOM series of the fixed image, for ``dicom``.
        moving_dicom: the same of the moving image.
        fixed_itk: the map from this package's world to the one in which ITK places the fixed image's file, (4, 4), RAS
            mm, see :mod:`~monai_regplugins.readers.itk_world`; None where they are one.
        moving_itk: the same of the moving image.
    """

    fixed_name: str | Path | None = None
    moving_name: str | Path | None = None
    moving_affine: npt.ArrayLike | None = None
    moving_shape: Sequence[int] | None = None
    fixed_dicom: DicomIdentity | None = None
    moving_dicom: DicomIdentity | None = None
    fixed_itk: npt.ArrayLike | None = None
    moving_itk: npt.ArrayLike | None = None


UNKNOWN = FieldPair()
Write: TypeAlias = Callable[[Displacement, GridAffine, Path, FieldPair], None]
Read: TypeAlias = Callable[[Path, npt.ArrayLike | None], tuple[Displacement, GridAffine]]


@dataclass(frozen=True)
class FieldFormat:
    """One format.

    Attributes:
        tools: what opens it.
        file_name: its name in an output folder.
        suffixes: what its file names may end in.
        write: writes a checked field; takes displacement, affine, path and :class:`FieldPair`.
        read: takes the path and the fixed image's affine, which only ``learn2reg`` needs; returns displacement, affine.
        spatial_dims: numbers of dimensions that it can hold.
        by_itk: whether its readers place the images as ITK does.
    """

    tools: str
    file_name: str
    suffixes: tuple[str, ...]
    write: Write = field(repr=False)
    read: Read = field(repr=False)
    spatial_dims: tuple[int, ...] = (3,)
    by_itk: bool = False


FORMATS = {
    "itk_h5": FieldFormat(
        "SimpleITK, ITK, ANTs, 3D Slicer, nitransforms",
        "displacement_itk.h5",
        (".h5", ".hdf5", ".tfm"),
        lambda displacement, affine, path, pair: write_itk_transform(displacement, affine, path),
        lambda path, fixed_affine: load_itk_transform(path),
        (2, 3),
        by_itk=True,
    ),
    "itk_nifti": FieldFormat(
        "ITK, ANTs, SimpleITK, nitransforms",
        "displacement_itk.nii.gz",
        NIFTI_SUFFIXES,
        lambda displacement, affine, path, pair: write_itk_nifti(displacement, affine, path),
        lambda path, fixed_affine: load_itk_nifti(path),
        (2, 3),
        by_itk=True,
    ),
    "slicer_nifti": FieldFormat(
        "3D Slicer, FreeSurfer, ITK from 5.4 on",
        "displacement_slicer.nii.gz",
        NIFTI_SUFFIXES,
        lambda displacement, affine, path, pair: write_slicer_nifti(displacement, affine, path),
        lambda path, fixed_affine: load_slicer_nifti(path),
        by_itk=True,
    ),
    "learn2reg": FieldFormat(
        "the evaluation of Learn2Reg",
        "disp_0000_0001.nii.gz",
        NIFTI_SUFFIXES,
        lambda displacement, affine, path, pair: write_learn2reg(
            displacement, affine, path, pair.moving_affine, pair.moving_shape
        ),
        load_learn2reg,
    ),
    "dicom": FieldFormat(
        "DICOM workstations, by Deformable Spatial Registration",
        "displacement.dcm",
        (".dcm",),
        lambda displacement, affine, path, pair: write_dicom_registration(
            displacement, affine, path, pair.fixed_dicom, pair.moving_dicom
        ),
        lambda path, fixed_affine: load_dicom_registration(path),
    ),
    "native": FieldFormat(
        "NumPy and this package: the ddf in voxels",
        "displacement.npz",
        (".npz",),
        lambda displacement, affine, path, pair: write_native(ddf_of_displacement(displacement, affine), affine, path),
        lambda path, fixed_affine: _load_native(path),
        (2, 3),
    ),
}

BY_WORD = ("niftyreg", "spm", "afni", "fsl_relative", "fsl_absolute")  # formats that one must know of most files
MOST_GROWTH = 5.0  # of an image's volume, up to which a named format is believed; 8 is what a wrong one makes
INSTEAD_OF_DICOM = "displacement.nii.gz"


def output_name(format: str, pair: FieldPair = UNKNOWN) -> str:
    """Return the name of a format's file in an output folder; ``learn2reg`` takes it from the images' names.

    Raises:
        InputError: When there is no such format.
    """
    check_choice(format, FORMATS, "format")
    if format == "learn2reg":
        return learn2reg_name(pair.fixed_name, pair.moving_name)
    return FORMATS[format].file_name


def save_field(
    format: str,
    displacement_ras: npt.ArrayLike,
    affine: npt.ArrayLike,
    path: str | Path,
    pair: FieldPair = UNKNOWN,
) -> None:
    """Write a displacement field in one of ``FORMATS``, whole or not at all.

    Args:
        format: a name in ``FORMATS``.
        displacement_ras: (3, X, Y, Z) or (2, X, Y), mm, components in RAS.
        affine: voxel-to-RAS matrix of the field's grid, (4, 4), in 2D too.
        path: the file; missing folders are made.
        pair: what the format wants to know beside the field.

    Raises:
        InputError: When there is no such format, it cannot hold this field, an argument does not fit, or the system
            refuses to write; what was there before is unchanged then.
    """
    checked = _check(format, displacement_ras, affine, path, pair)
    replace_file(path, lambda temporary: FORMATS[format].write(*checked, temporary, pair))


def write_field(
    format: str,
    displacement_ras: npt.ArrayLike,
    affine: npt.ArrayLike,
    path: str | Path,
    pair: FieldPair = UNKNOWN,
) -> None:
    """Do what :func:`save_field` does straight into ``path``: for a folder that as a whole appears when complete.

    Where a DICOM series has no frame of reference that the format ``dicom`` could name, the log says so, and the field
    is in ``displacement.nii.gz`` instead (``itk_nifti``), unless the folder has it in that format already.

    Raises:
        InputError: When there is no such format, it cannot hold this field, or an argument does not fit.
        OSError: When the system refuses to write.
    """
    checked, path = _check(format, displacement_ras, affine, path, pair), Path(path)
    try:
        FORMATS[format].write(*checked, path, pair)
    except FrameOfReferenceError as error:
        itk = FORMATS["itk_nifti"]
        logger.warning("%s is left out: %s", path.name, error)
        if not path.with_name(itk.file_name).exists():
            instead = path.with_name(INSTEAD_OF_DICOM)
            itk.write(*checked, instead.with_name(f"inverse_{instead.name}") if instead.exists() else instead, pair)


def load_field(
    path: str | Path,
    fixed_affine: npt.ArrayLike | None = None,
    format: str | None = None,
    fixed: ImageGrid | None = None,
    moving: ImageGrid | None = None,
) -> tuple[Displacement, GridAffine]:
    """Read a displacement field in any of ``FORMATS``, or as other tools write it, see :func:`format_of`.

    Args:
        path: the file.
        fixed_affine: voxel-to-RAS matrix of the fixed image, (4, 4), for a Learn2Reg field, which has no grid; the
            other formats bring their own, and this one is not used.
        format: the format of the file; None for what it says itself.
        fixed: grid of the fixed image, which FSL's formats need; it stands in for ``fixed_affine``, too.
        moving: the same of the moving image.

    Returns:
        the field, (3, X, Y, Z) or (2, X, Y), mm, components in RAS, and the voxel-to-RAS matrix of its grid, (4, 4):
        a point p of the fixed image goes to ``p + D(p)`` in the moving one.

    Raises:
        InputError: When the file is missing, damaged, or holds no displacement field, or holds one that is not finite
            or whose grid has shear, or does not state its format, or needs images that are not given.
    """
    file = check_file(path, "displacement field")
    name = format_of(file) if format is None else format
    check_choice(name, [*FORMATS, *FOREIGN_FORMATS], "format")
    if name in FOREIGN_FORMATS:
        displacement, affine = FOREIGN_FORMATS[name].read(file, fixed, moving)
    else:
        known = fixed.affine if fixed is not None and fixed_affine is None else fixed_affine
        displacement, affine = FORMATS[name].read(file, known)
    try:
        checked = check_field(displacement, affine)
        if name in BY_WORD:
            _check_named(name, *checked)
        return checked
    except InputError as error:
        raise InputError(f"'{path}' is of no use: {error}") from error


def _check_named(format: str, displacement: Displacement, affine: GridAffine) -> None:
    """Positions that are taken for displacements double the grid, and the other way round it shrinks to nothing."""
    factor = abs(volume_change(displacement, affine))
    if not 1 / MOST_GROWTH < factor < MOST_GROWTH:
        raise InputError(
            f"in the format '{format}' the field makes the image {factor:.3g} times as large, expected between "
            f"{1 / MOST_GROWTH:g} and {MOST_GROWTH:g}; it is rather of another format."
        )


def format_of(path: str | Path) -> str:
    """Return the format of a file, by its suffix and header.

    Of NIfTI files the intent decides: 1007 is ``itk_nifti``, unless its name is that of NiftyReg or SPM, 1006
    ``slicer_nifti``, and none with 4 axes and no position of its own ``learn2reg``. A DICOM file is known by its first
    bytes too, since it often has no suffix.

    Raises:
        InputError: When the file is missing, of no known format, or of a format that it does not state.
    """
    file = check_file(path, "displacement field")
    name = file.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return _nifti_format(file)
    for known, format in (FOREIGN_FORMATS | FORMATS).items():
        if name.endswith(format.suffixes):
            return known
    with file.open("rb") as stream:
        if stream.read(132)[128:] == b"DICM":
            return "dicom"
    listed = ", ".join(
        sorted({suffix for format in (FOREIGN_FORMATS | FORMATS).values() for suffix in format.suffixes})
    )
    raise InputError(f"'{path}' is in no known format, expected a file that ends in one of {listed}; export it as one.")


def _nifti_format(file: Path) -> str:
    """The format of a NIfTI file."""
    header = read_nifti_field(file)
    if foreign := foreign_format(header, file):
        return foreign
    if header.intent == VECTOR:
        return "itk_nifti"
    if header.intent == DISPLACEMENT_VECTOR:
        return "slicer_nifti"
    if header.intent == 0 and len(header.shape) == 4 and header.shape[3] == 3:
        _check_no_place(header, file)
        return "learn2reg"
    raise InputError(
        f"'{file}' has shape {header.shape} and intent {header.intent}, expected a field of intent {VECTOR} (ITK, "
        f"ANTs) or {DISPLACEMENT_VECTOR} (3D Slicer), or (X, Y, Z, 3) of intent 0 (Learn2Reg); export it as one."
    )


def _check_no_place(header: NiftiField, file: Path) -> None:
    """A Learn2Reg field counts voxels and has no place; what has one is rather in mm, of FSL for example."""
    place = nifti_place(header.image.header)
    nowhere = place.form == "none" or any(np.allclose(place.affine, one) for one in (np.eye(4), LPS_TO_RAS))
    if not nowhere:
        raise InputError(
            f"'{file}' has shape {header.shape}, intent 0 and a position of its own, so that it may be of Learn2Reg "
            "(voxels) or of FSL (mm); name its format (--from, or FORMAT:FILE): learn2reg, fsl_relative, fsl_absolute."
        )


def in_itk_world(
    displacement: Displacement, affine: GridAffine, pair: FieldPair = UNKNOWN
) -> tuple[Displacement, GridAffine]:
    """Bring a field into the worlds in which ITK places the two images, see :func:`in_other_worlds`."""
    return in_other_worlds(displacement, affine, pair.fixed_itk, pair.moving_itk)


def _check(
    format: str, displacement_ras: npt.ArrayLike, affine: npt.ArrayLike, path: str | Path, pair: FieldPair
) -> tuple[Displacement, GridAffine]:
    """Check a field, its format and file name; return it in the world of the format's readers."""
    check_choice(format, FORMATS, "format")
    checked = check_field(displacement_ras, affine)
    d, target = len(checked[0]), FORMATS[format]
    if d not in target.spatial_dims:
        able = ", ".join(f"'{name}'" for name, other in FORMATS.items() if d in other.spatial_dims)
        raise InputError(f"the format '{format}' holds 3D fields only, and this one is {d}D; choose one of {able}.")
    if not Path(path).name.endswith(target.suffixes):
        endings = " or ".join(target.suffixes)
        raise InputError(
            f"'{path}' is no name for the format '{format}', expected one that ends in {endings}; change it."
        )
    return in_itk_world(*checked, pair) if target.by_itk else checked


def _load_native(path: Path) -> tuple[Displacement, GridAffine]:
    """A native field in mm of the world."""
    ddf, affine = load_native(path)
    return displacement_of_ddf(ddf, affine), affine
