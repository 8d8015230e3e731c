r"""Displacement fields as other tools write them: read, and where a tool takes them only so, written.

================  ==================================================  =================================================
format              file                                                its numbers
================  ==================================================  =================================================
``vectors``       vector image ``.nrrd .nhdr .mha .mhd`` (3D Slicer,  displacement, LPS mm
                  elastix ``deformationField``, plastimatch)
``niftyreg``      NIfTI, intent 1007, named ``NREG_TRANS``            positions (``intent_p1`` 0) or displacement (1),
                                                                      RAS mm
``spm``           NIfTI of 5 axes, ``y_*.nii``, ``iy_*.nii``          positions, RAS mm
``afni``          NIfTI of 5 axes, intent 0 (``3dQwarp``)             displacement, LPS mm
``fsl_relative``  NIfTI of 4 axes (``fnirt --fout``)                  displacement in FSL's coordinates of the images
``fsl_absolute``  the same (``convertwarp --absout``)                 positions in them
``dipy``          NIfTI (X, Y, Z, 3, 2), ``write_mapping``            displacement, RAS mm, the second half backward
``x5``            HDF5 ``.x5`` of nitransforms (needs h5py)           displacement or positions, RAS mm
``freesurfer``    ``.mgz`` of FreeSurfer and SynthMorph               see its module ``freesurfer_warp``
================  ==================================================  =================================================

All of them pull: the value at a point of the fixed image states where to look in the moving one. FSL's coordinates are
those of :func:`~monai_regplugins.io.linear.fsl_matrix`, so both images are needed. DIPY's file does not hold the
alignment that was given to its registration (``initial_alignment``); apply that after it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from monai_regplugins import fields
from monai_regplugins.checks import InputError, import_optional
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.io.displacement import VECTOR, NiftiField, read_nifti_field
from monai_regplugins.io.displacement import write_vectors as write_nifti_vectors
from monai_regplugins.io.field_grid import Displacement, GridAffine, frame_signs, plus_map, swap_frame, translation
from monai_regplugins.io.freesurfer_warp import WARP_SUFFIXES, read_freesurfer_warp, write_freesurfer_warp
from monai_regplugins.io.linear import fsl_matrix
from monai_regplugins.io.nifti import write_nifti
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.image_grid import ImageGrid
from monai_regplugins.readers.nifti import NIFTI_SUFFIXES, nifti_place
from monai_regplugins.readers.voxel_files import voxel_files

__all__ = [
    "FOREIGN_FORMATS",
    "VECTOR_SUFFIXES",
    "ForeignFormat",
    "foreign_format",
    "save_foreign_field",
    "write_fsl",
    "write_vectors",
    "write_x5",
]

VECTOR_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
NIFTYREG, SPM, FSL = "NREG_TRANS", "Mapping", 2006
NIFTYREG_KINDS = {
    0: "positions",
    1: "a displacement",
    2: "a spline grid",
    3: "a velocity",
    4: "a velocity",
    5: "a spline velocity",
}
READING = 16  # bytes per number

Read = Callable[[Path, ImageGrid | None, ImageGrid | None], tuple[Displacement, GridAffine]]
Write = Callable[[Displacement, GridAffine, Path, ImageGrid | None], None]


class ForeignFormat(NamedTuple):
    """One format of another tool.

    Attributes:
        tools: which.
        read: takes the path and the grids of the fixed and the moving image, which only FSL's formats need.
        write: writes a checked 3D field; takes displacement, affine, path and the grid of the moving image. None where
            the format is only read.
        suffixes: what its file names may end in.
        written: the same of files to write; a header whose values are in another file is not among them.
        by_itk: whether these tools place images as ITK does.
    """

    tools: str
    read: Read
    write: Write | None = None
    suffixes: tuple[str, ...] = NIFTI_SUFFIXES
    written: tuple[str, ...] = NIFTI_SUFFIXES
    by_itk: bool = False


def foreign_format(header: NiftiField, path: str | Path) -> str | None:
    """State which of ``FOREIGN_FORMATS`` a NIfTI file says to be; None where it says nothing of the kind.

    Raises:
        InputError: When it is of a tool whose numbers are no field of points, or does not state its format.
    """
    name = header.image.header["intent_name"].item().decode("latin-1").strip("\0 ")
    if name == NIFTYREG:
        return "niftyreg"
    if header.intent == VECTOR and name == SPM:
        return "spm"
    if header.intent == VECTOR and name:
        raise _unsaid(path, f"is a vector image named '{name}', which no known tool writes")
    if header.intent == FSL:
        raise _unsaid(path, "is a field of FSL (intent 2006), which does not state whether it is relative")
    if header.intent == 0 and len(header.shape) == 5 and header.shape[3:] == (3, 2):
        return "dipy"
    if header.intent == 0 and len(header.shape) == 5 and header.shape[3:] == (1, 3):
        raise _unsaid(path, "has 5 axes and intent 0, as fields of AFNI and SPM have")
    return None


def _unsaid(path: str | Path, what: str) -> InputError:
    """The error for a file whose format the user has to name."""
    return InputError(
        f"'{path}' {what}; name its format (--from, or FORMAT:FILE): itk_nifti, slicer_nifti, learn2reg, "
        f"{', '.join(name for name, one in FOREIGN_FORMATS.items() if one.suffixes == NIFTI_SUFFIXES)}."
    )


def write_vectors(displacement_ras: Displacement, affine: GridAffine, path: Path) -> None:
    """Write a checked field straight into ``path`` as a vector image in LPS mm, float32, by SimpleITK.

    Raises:
        OSError: When the system or ITK refuses to write.
    """
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    d = len(displacement_ras)
    lps = (LPS_TO_RAS @ affine)[:d]
    spacing = np.linalg.norm(lps[:, :d], axis=0)
    image = sitk.GetImageFromArray(swap_frame(displacement_ras).T, isVector=True)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:, :d] / spacing).ravel().tolist())
    image.SetOrigin(lps[:, 3].tolist())
    path.touch()  # so that it is the system that says why a folder takes no file; ITK would not
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OSError("ITK could not write the image") from error


def _read_vectors(path: Path, fixed: ImageGrid | None, moving: ImageGrid | None) -> tuple[Displacement, GridAffine]:
    """A vector image of ITK."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    voxel_files(path, f"displacement field '{path}'")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        d = reader.GetDimension()
        if d not in (2, 3) or reader.GetNumberOfComponents() != d:
            raise InputError(
                f"'{path}' is a {d}D image of {reader.GetNumberOfComponents()} values per voxel, expected a "
                "displacement field with one for each axis; give the file of the transform."
            )
        check_memory((*reader.GetSize(), d), READING, f"displacement field '{path}'", "read")
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"displacement field '{path}' cannot be read; copy or export it again.") from error
    grid = np.eye(4)
    grid[:d, :d] = np.reshape(image.GetDirection(), (d, d)) * np.asarray(image.GetSpacing())
    grid[:d, 3] = image.GetOrigin()
    return swap_frame(sitk.GetArrayFromImage(image).T.astype(np.float32)), LPS_TO_RAS @ grid


def _nifti(path: Path, axes: tuple[int, ...]) -> tuple[NiftiField, Displacement, GridAffine]:
    """The header, the values ``(3, X, Y, Z)`` and the affine of a NIfTI file whose last axes are these."""
    header = read_nifti_field(path)
    if len(header.shape) != 3 + len(axes) or header.shape[3:] != axes:
        expected = ", ".join(["X", "Y", "Z", *map(str, axes)])
        raise InputError(
            f"'{path}' has shape {header.shape}, expected ({expected}) in this format; give another format."
        )
    values = header.values(path).reshape(*header.shape[:3], *(n for n in axes if n > 1))
    return header, np.moveaxis(values, 3, 0), nifti_place(header.image.header).affine


def _read_niftyreg(path: Path, fixed: ImageGrid | None, moving: ImageGrid | None) -> tuple[Displacement, GridAffine]:
    """NiftyReg: ``intent_p1`` states what the numbers are."""
    header, values, affine = _nifti(path, (1, 3))
    kind = int(header.image.header["intent_p1"])
    if kind not in (0, 1):
        held = NIFTYREG_KINDS.get(kind, f"a transform of kind {kind}")
        raise InputError(
            f"'{path}' of NiftyReg holds {held}, expected positions or a displacement (intent_p1 0 or 1); convert it "
            "with reg_transform -def."
        )
    return (plus_map(values, -affine) if kind == 0 else values), affine


def _read_spm(path: Path, fixed: ImageGrid | None, moving: ImageGrid | None) -> tuple[Displacement, GridAffine]:
    """SPM: positions in mm, NaN where the deformation is unknown."""
    _, values, affine = _nifti(path, (1, 3))
    return plus_map(values, -affine), affine


def _read_afni(path: Path, fixed: ImageGrid | None, moving: ImageGrid | None) -> tuple[Displacement, GridAffine]:
    """AFNI: displacements along its axes, left, posterior, superior."""
    _, values, affine = _nifti(path, (1, 3))
    return swap_frame(values), affine


def _read_dipy(path: Path, fixed: ImageGrid | None, moving: ImageGrid | None) -> tuple[Displacement, GridAffine]:
    """DIPY: a fixed point goes to ``x + backward(x)``; the file's affine is the inverse of the fixed grid's."""
    header, values, _ = _nifti(path, (3, 2))
    return np.ascontiguousarray(values[..., 1]), np.linalg.inv(np.asarray(header.image.affine, np.float64))


def _fsl(relative: bool) -> Read:
    """A reader of FSL's fields."""

    def read(path: Path, fixed: ImageGrid | None, moving: ImageGrid | None) -> tuple[Displacement, GridAffine]:
        if fixed is None or moving is None:
            raise InputError(f"'{path}' in FSL's coordinates needs both images; give the fixed and the moving one too.")
        _, values, affine = _nifti(path, (3,))
        to_fsl = fsl_matrix(ImageGrid(affine, values.shape[1:]))
        from_fsl = moving.affine @ np.linalg.inv(fsl_matrix(moving))
        rest = (from_fsl @ to_fsl if relative else translation(from_fsl)) - affine
        return plus_map(values, rest, from_fsl[:3, :3]), affine

    return read


def write_fsl(
    displacement_ras: Displacement, affine: GridAffine, path: Path, moving: ImageGrid | None, relative: bool = True
) -> None:
    """Write a checked 3D field straight into ``path`` as FSL's ``applywarp`` takes it, float32, intent 2006.

    Args:
        displacement_ras: (3, X, Y, Z), mm, components in RAS.
        affine: voxel-to-RAS matrix of the fixed grid, (4, 4).
        path: the file, ``.nii`` or ``.nii.gz``.
        moving: grid of the moving image.
        relative: whether to write displacements (``applywarp --rel``) or positions (``--abs``).

    Raises:
        InputError: When the moving image's grid is not given.
    """
    if moving is None:
        raise InputError("a field in FSL's coordinates needs the moving image; give it too.")
    shape = displacement_ras.shape[1:]
    to_fsl = fsl_matrix(moving) @ np.linalg.inv(moving.affine)
    rest = to_fsl @ affine - (fsl_matrix(ImageGrid(affine, shape)) if relative else 0)
    values = plus_map(displacement_ras, rest, to_fsl[:3, :3])
    image = nib.Nifti1Image(np.broadcast_to(np.float32(0), (*shape, 3)), affine)
    image.header["intent_code"] = FSL
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code="aligned")
    image.set_qform(image.affine, code="aligned")
    write_nifti(image, path, values)


def write_x5(displacement_ras: Displacement, affine: GridAffine, path: Path) -> None:
    """Write a checked 3D field straight into ``path`` as nitransforms' X5, version 1: displacements, RAS mm, float32.

    Source: nitransforms 25.1, ``io/x5.py``, and https://github.com/bids-standard/bids-specification, BEP014.

    Raises:
        InputError: When h5py is missing.
    """
    h5py, shape = import_optional("h5py", "X5 files", "h5py>=3.8"), displacement_ras.shape[1:]
    with h5py.File(path, "w") as file:
        file.attrs["Format"], file.attrs["Version"] = "X5", np.uint16(1)
        group = file.create_group("TransformGroup/0")
        group.attrs["Type"], group.attrs["SubType"] = "nonlinear", "densefield"
        group.attrs["Representation"], group.attrs["ArrayLength"] = "displacements", 1
        group["DimensionKinds"] = np.array(["space", "space", "space", "vector"], "S6")
        values = group.create_dataset("Transform", (*shape, 3), "<f4")
        for slab in fields.slabs(shape):
            values[slab] = np.moveaxis(displacement_ras[:, slab], 0, -1)
        domain = group.create_group("Domain")
        domain.attrs["Coordinates"] = "cartesian"
        domain["Grid"], domain["Size"], domain["Mapping"] = np.uint8(1), np.array(shape), affine


def _read_x5(path: Path, fixed: ImageGrid | None, moving: ImageGrid | None) -> tuple[Displacement, GridAffine]:
    """Nitransforms: the only field of a file."""
    h5py = import_optional("h5py", "X5 files", "h5py>=3.8")
    try:
        with h5py.File(path, "r") as file:
            nodes = list(file["TransformGroup"].values()) if file.attrs.get("Format") == "X5" else []
            kinds = [(str(node.attrs.get("Type")), str(node.attrs.get("SubType"))) for node in nodes]
            if kinds != [("nonlinear", "densefield")]:
                held = ", ".join(" ".join(kind) for kind in kinds) or "no transform"
                raise InputError(f"'{path}' holds {held}, expected one dense field; export it as one.")
            check_memory(nodes[0]["Transform"].shape, READING, f"displacement field '{path}'", "read")
            values = np.moveaxis(np.asarray(nodes[0]["Transform"], np.float32), -1, 0)
            affine = np.asarray(nodes[0]["Domain/Mapping"], np.float64)
            relative = str(nodes[0].attrs["Representation"]) == "displacements"
    except InputError:
        raise
    except Exception as error:  # a damaged or foreign file can fail in any way inside HDF5
        raise InputError(f"displacement field '{path}' cannot be read as X5; copy or export it again.") from error
    return (values if relative else plus_map(values, -affine)), affine


def _write_niftyreg(displacement_ras: Displacement, affine: GridAffine, path: Path, moving: ImageGrid | None) -> None:
    """NiftyReg: positions, whose ``intent_p1`` is 0, as its programs write them."""
    write_nifti_vectors(plus_map(displacement_ras, affine), affine, path, VECTOR, NIFTYREG)


def _write_spm(displacement_ras: Displacement, affine: GridAffine, path: Path, moving: ImageGrid | None) -> None:
    """SPM: positions, as its Deformations utility writes them."""
    write_nifti_vectors(plus_map(displacement_ras, affine), affine, path, VECTOR, SPM)


def _write_afni(displacement_ras: Displacement, affine: GridAffine, path: Path, moving: ImageGrid | None) -> None:
    """AFNI: displacements along its axes."""
    write_nifti_vectors(displacement_ras, affine, path, signs=frame_signs(3))


FOREIGN_FORMATS = {
    "vectors": ForeignFormat(
        "3D Slicer, ITK, elastix, plastimatch",
        _read_vectors,
        lambda displacement, affine, path, moving: write_vectors(displacement, affine, path),
        VECTOR_SUFFIXES,
        (".nrrd", ".mha"),
        by_itk=True,
    ),
    "niftyreg": ForeignFormat("NiftyReg", _read_niftyreg, _write_niftyreg),
    "spm": ForeignFormat("SPM", _read_spm, _write_spm),
    "afni": ForeignFormat("AFNI", _read_afni, _write_afni),
    "fsl_relative": ForeignFormat("FSL", _fsl(relative=True), write_fsl),
    "fsl_absolute": ForeignFormat(
        "FSL",
        _fsl(relative=False),
        lambda displacement, affine, path, moving: write_fsl(displacement, affine, path, moving, relative=False),
    ),
    "dipy": ForeignFormat("DIPY", _read_dipy),
    "x5": ForeignFormat(
        "nitransforms",
        _read_x5,
        lambda displacement, affine, path, moving: write_x5(displacement, affine, path),
        (".x5",),
        (".x5",),
    ),
    "freesurfer": ForeignFormat(
        "FreeSurfer, SynthMorph", read_freesurfer_warp, write_freesurfer_warp, WARP_SUFFIXES, WARP_SUFFIXES
    ),
}


def save_foreign_field(
    format: str, displacement_ras: Displacement, affine: GridAffine, path: Path, moving: ImageGrid | None
) -> None:
    """Write a checked field in one of ``FOREIGN_FORMATS``, whole or not at all.

    Args:
        format: a name in ``FOREIGN_FORMATS``.
        displacement_ras: (3, X, Y, Z), mm, components in RAS; (2, X, Y) too for ``vectors``.
        affine: voxel-to-RAS matrix of the field's grid, (4, 4).
        path: the file.
        moving: grid of the moving image, which formats of FSL and FreeSurfer need.

    Raises:
        InputError: When the format is only read, or cannot hold this field, the name does not fit, an image is missing,
            or the system refuses to write.
    """
    target = FOREIGN_FORMATS[format]
    if (write := target.write) is None:
        raise InputError(f"the format '{format}' is read only; choose another one.")
    if len(displacement_ras) != 3 and format != "vectors":
        raise InputError(
            f"the format '{format}' holds 3D fields only, and this one is 2D; choose itk_nifti or vectors."
        )
    if not path.name.lower().endswith(target.written):
        endings = " or ".join(target.written)
        raise InputError(f"'{path}' is no name for the format '{format}', expected {endings}; change it.")
    replace_file(path, lambda temporary: write(displacement_ras, affine, temporary, moving))
