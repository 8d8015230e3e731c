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
================  ==================================================  =================================================

All of them pull: the value at a point of the fixed image states where to look in the moving one. FSL's coordinates are
those of :func:`~monai_regplugins.io.linear.fsl_matrix`, so both images are needed. DIPY's file does not hold the
alignment that was given to its registration (``initial_alignment``); apply that after it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError, import_optional
from monai_regplugins.grids import LPS_TO_RAS, affine_field
from monai_regplugins.io.displacement import VECTOR, NiftiField, read_nifti_field
from monai_regplugins.io.field_grid import Displacement, GridAffine, swap_frame
from monai_regplugins.io.linear import fsl_matrix
from monai_regplugins.io.nifti import write_nifti
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.image_grid import ImageGrid
from monai_regplugins.readers.nifti import nifti_place
from monai_regplugins.readers.voxel_files import voxel_files

__all__ = [
    "FOREIGN_FORMATS",
    "VECTOR_SUFFIXES",
    "ForeignFormat",
    "foreign_format",
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


class ForeignFormat(NamedTuple):
    """One format that another tool writes.

    Attributes:
        tools: which.
        read: takes the path and the grids of the fixed and the moving image, which only FSL's formats need.
        by_itk: whether these tools place images as ITK does.
    """

    tools: str
    read: Read
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
        f"{', '.join(name for name in FOREIGN_FORMATS if name not in ('vectors', 'x5'))}."
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


def _minus_positions(positions: Displacement, affine: GridAffine) -> Displacement:
    """``P(x) - A x``: what is left of positions when each voxel's own is taken away."""
    shape = positions.shape[1:]
    moved = np.empty(positions.shape, np.float32)
    for slab in fields.slabs(shape):
        own = affine_field(torch.from_numpy(np.ascontiguousarray(affine)), shape, torch.float64, slab).numpy()
        moved[:, slab] = positions[:, slab] - own
    return moved


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
    return (_minus_positions(values, affine) if kind == 0 else values), affine


def _read_spm(path: Path, fixed: ImageGrid | None, moving: ImageGrid | None) -> tuple[Displacement, GridAffine]:
    """SPM: positions in mm, NaN where the deformation is unknown."""
    _, values, affine = _nifti(path, (1, 3))
    return _minus_positions(values, affine), affine


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
        u = np.tensordot(from_fsl[:3, :3], values, 1)
        rest = (from_fsl @ to_fsl if relative else _translation(from_fsl)) - affine
        return _plus_grid(u.astype(np.float32), rest), affine

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
    values = _plus_grid(np.tensordot(to_fsl[:3, :3], displacement_ras, 1).astype(np.float32), rest)
    image = nib.Nifti1Image(np.broadcast_to(np.float32(0), (*shape, 3)), affine)
    image.header["intent_code"] = FSL
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code="aligned")
    image.set_qform(image.affine, code="aligned")
    write_nifti(image, path, values)


def _translation(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The constant part of a map, as a map of voxels."""
    constant = np.zeros((4, 4))
    constant[:, 3] = matrix[:, 3]
    return constant


def _plus_grid(u: Displacement, matrix: npt.NDArray[Any]) -> Displacement:
    """``u(x) + M x`` at every voxel x."""
    shape = u.shape[1:]
    for slab in fields.slabs(shape):
        u[:, slab] += affine_field(torch.from_numpy(np.ascontiguousarray(matrix)), shape, torch.float64, slab).numpy()
    return u


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
            _check_own(file, f"TransformGroup/{next(iter(file['TransformGroup']))}", path)
            check_memory(nodes[0]["Transform"].shape, READING, f"displacement field '{path}'", "read")
            values = np.moveaxis(np.asarray(nodes[0]["Transform"], np.float32), -1, 0)
            affine = np.asarray(nodes[0]["Domain/Mapping"], np.float64)
            relative = str(nodes[0].attrs["Representation"]) == "displacements"
    except InputError:
        raise
    except Exception as error:  # a damaged or foreign file can fail in any way inside HDF5
        raise InputError(f"displacement field '{path}' cannot be read as X5; copy or export it again.") from error
    return (values if relative else _minus_positions(values, affine)), affine


def _check_own(file: Any, node: str, path: Path) -> None:
    """HDF5 can name other files, whose content would be taken for a field; see ``readers.voxel_files``."""
    h5py = import_optional("h5py", "X5 files", "h5py>=3.8")
    values = (f"{node}/Transform", f"{node}/Domain/Mapping")
    links = [file.get(place, getlink=True) for place in ("TransformGroup", node, f"{node}/Domain", *values)]
    own = all(isinstance(link, h5py.HardLink) for link in links)
    if not own or any(file[place].external or file[place].is_virtual for place in values):
        raise InputError(f"'{path}' leads to other files, expected a field of its own; export it as one file.")


FOREIGN_FORMATS = {
    "vectors": ForeignFormat("3D Slicer, ITK, elastix, plastimatch", _read_vectors, by_itk=True),
    "niftyreg": ForeignFormat("NiftyReg", _read_niftyreg),
    "spm": ForeignFormat("SPM", _read_spm),
    "afni": ForeignFormat("AFNI", _read_afni),
    "fsl_relative": ForeignFormat("FSL", _fsl(relative=True)),
    "fsl_absolute": ForeignFormat("FSL", _fsl(relative=False)),
    "dipy": ForeignFormat("DIPY", _read_dipy),
    "x5": ForeignFormat("nitransforms", _read_x5),
}
