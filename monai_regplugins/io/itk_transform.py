"""Displacement fields as transform files of ITK (``.h5``), which SimpleITK, ANTs and 3D Slicer open: LPS, mm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.io.field_grid import (
    Displacement,
    GridAffine,
    check_plane,
    swap_frame,
)

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "displacement_of",
    "load_itk_transform",
    "matrix_of",
    "members_of",
    "read_itk_transform",
    "write_itk_transform",
]

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HDF5_LENGTH_AT = {0: 40, 2: 28, 3: 28}  # where a superblock of this version holds the length of the file


def write_itk_transform(displacement_ras: Displacement, affine: GridAffine, path: Path) -> None:
    """Write a checked field straight into ``path`` as an ITK ``DisplacementFieldTransform``, ``T(p) = p + D(p)``.

    It is the only member of a ``CompositeTransform``, which nitransforms asks for and the others read as well.

    ``T`` maps points of the fixed image's world to the moving image's, which is the direction that resampling needs;
    3D Slicer shows it as the transform "from parent".

    Raises:
        InputError: When a 2D grid leaves the world's x-y plane.
        OSError: When the system or ITK refuses to write.
    """
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    d = len(displacement_ras)
    check_plane(affine, d)
    lps = (LPS_TO_RAS @ affine)[:d]
    spacing = np.linalg.norm(lps[:, :d], axis=0)
    image = sitk.GetImageFromArray(swap_frame(displacement_ras).T.astype(np.float64), isVector=True)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:, :d] / spacing).ravel().tolist())
    image.SetOrigin(lps[:, 3].tolist())
    path.touch()  # so that it is the system that says why a folder takes no file; ITK would not
    try:
        sitk.WriteTransform(sitk.CompositeTransform([sitk.DisplacementFieldTransform(image)]), str(path))
    except RuntimeError as error:
        raise OSError("ITK could not write the transform") from error


def load_itk_transform(path: str | Path) -> tuple[Displacement, GridAffine]:
    r"""Read an ITK displacement field transform, alone or followed by linear ones.

    Of a ``CompositeTransform([linear, ..., field])``, whose last member meets a point first and which ANTs writes, the
    whole is returned: with the linear ones as one map ``L``, :math:`D(p) = L(p + d(p)) - p`.

    Args:
        path: the file, ``.h5``.

    Returns:
        the field, (3, X, Y, Z) or (2, X, Y), mm, components in RAS, and the voxel-to-RAS matrix of its grid, (4, 4); a
        2D grid lies in the plane z = 0, with 1 mm along z.

    Raises:
        InputError: When the file is missing, damaged, no ITK transform, or holds other transforms.
    """
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    members = members_of(read_itk_transform(path))
    if not isinstance(members[-1], sitk.DisplacementFieldTransform) or not all(t.IsLinear() for t in members[:-1]):
        names = ", ".join(member.GetName() for member in members)
        raise InputError(
            f"'{path}' holds {names}, expected a DisplacementFieldTransform, alone or last behind linear transforms; "
            "export the transform as one displacement field."
        )
    return _total(members[:-1], members[-1].GetDisplacementField())


def displacement_of(transform: sitk.DisplacementFieldTransform) -> tuple[Displacement, GridAffine]:
    """The field of a transform, (3, X, Y, Z) or (2, X, Y), mm, components in RAS, and its voxel-to-RAS matrix."""
    return _total([], transform.GetDisplacementField())


def read_itk_transform(path: str | Path) -> sitk.Transform:
    """Read a transform file of ITK of any kind.

    Raises:
        InputError: When the file is missing, damaged or no ITK transform.
    """
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    file = check_file(path, "transform")
    if file.name.lower().endswith(HDF5_SUFFIXES) and not _is_whole(file):
        raise _unreadable(path)
    spoken = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # pages about files that are none
    try:
        transform: sitk.Transform = sitk.ReadTransform(str(file))
    except RuntimeError as error:
        raise _unreadable(path) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(spoken)
    return transform


def members_of(transform: sitk.Transform) -> list[sitk.Transform]:
    """The parts of a transform, each of its own class; the last one meets a point first."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    if not isinstance(transform, sitk.CompositeTransform):
        return [transform]
    return [transform.GetNthTransform(index) for index in range(transform.GetNumberOfTransforms())]


def _total(linear: list[sitk.Transform], field: sitk.Image) -> tuple[Displacement, GridAffine]:
    """Displacement of a field and the linear transforms behind it, in RAS, and its grid."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    d = field.GetDimension()
    grid, behind = np.eye(4), np.eye(4)
    grid[:d, :d] = np.reshape(field.GetDirection(), (d, d)) * np.asarray(field.GetSpacing())
    grid[:d, 3] = field.GetOrigin()
    for transform in linear:  # the first of them acts last
        behind = behind @ matrix_of(transform)
    u = sitk.GetArrayFromImage(field).T
    if linear:  # L(x + u) - x = (L - 1) x + L_lin u at x = G i: no large coordinates are added and subtracted again
        difference = ((behind - np.eye(4)) @ grid)[:d]
        index = np.indices(u.shape[1:])
        u = np.tensordot(behind[:d, :d], u, 1) + np.tensordot(difference[:, :d], index, 1)
        u = u + difference[:, 3].reshape(-1, *[1] * d)
    return swap_frame(u.astype(np.float32)), LPS_TO_RAS @ grid


def matrix_of(transform: sitk.Transform) -> np.ndarray[Any, Any]:
    """Homogeneous matrix (4, 4) of a linear transform, LPS mm; of a 2D one with a third axis that stays."""
    d = transform.GetDimension()
    origin = np.array(transform.TransformPoint([0.0] * d))
    matrix = np.eye(4)
    matrix[:d, 3] = origin
    matrix[:d, :d] = np.transpose([transform.TransformPoint(unit) - origin for unit in np.eye(d).tolist()])
    return matrix


def _is_whole(file: Path) -> bool:
    """Whether a file is HDF5 and as long as it says; asked here because the HDF5 library prints pages about it."""
    with file.open("rb") as stream:
        head = stream.read(48)
    if len(head) < 48 or not head.startswith(HDF5_SIGNATURE):
        return False
    at = HDF5_LENGTH_AT.get(head[8])
    return at is None or file.stat().st_size >= int.from_bytes(head[at : at + 8], "little")


def _unreadable(path: str | Path) -> InputError:
    """The error for a damaged or foreign file."""
    return InputError(
        f"transform '{path}' cannot be read as an ITK transform; copy or export it again, from 3D Slicer as "
        "a transform in HDF5."
    )
