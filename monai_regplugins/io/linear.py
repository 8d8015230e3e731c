r"""Linear transforms in the files of other tools: a matrix from points of the fixed image to the moving image.

Whatever the file, a transform here is ``T`` (4, 4), float64, RAS mm: the point p of the fixed image's world goes to
``T p`` in the moving image's, as resampling needs it. Files differ in that:

==========  =================================================  =========================================================
format        file                                               what it holds
==========  =================================================  =========================================================
``itk``     ITK ``.txt``, ``.tfm``, ``.mat``, ``.h5``          the same direction, LPS mm; a composite is multiplied out
``lta``     FreeSurfer ``.lta``                                moving to fixed, RAS mm or voxels
``fsl``     FSL (FLIRT) ``.mat``, text                         moving to fixed, voxels times their sizes, the first axis
                                                               mirrored where the affine's determinant is positive
``ras``     4 x 4 numbers as text                              the same direction, RAS mm
``lps``     4 x 4 numbers as text                              the same direction, LPS mm
``dicom``   DICOM Spatial Registration                         each image to one frame of reference, LPS mm
==========  =================================================  =========================================================

A text of 4 x 4 numbers does not state which of ``fsl``, ``ras`` and ``lps`` it is, so the user says it.

Sources: FreeSurfer's ``transform.h`` (types of LTA), FSL's FLIRT FAQ (coordinates), DICOM PS3.3 C.20.2.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from monai_regplugins.checks import InputError, check_choice, check_file
from monai_regplugins.files.atomic import replace_file, write_file
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.io.dicom_identity import read_dicom_file
from monai_regplugins.io.itk_transform import matrix_of, members_of, read_itk_transform
from monai_regplugins.readers.image_grid import ImageGrid

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "LINEAR_FORMATS",
    "LINEAR_SUFFIXES",
    "centered",
    "fsl_matrix",
    "linear_format",
    "load_linear",
    "save_linear",
]

Matrix: TypeAlias = npt.NDArray[Any]

LINEAR_FORMATS = ("itk", "lta", "fsl", "ras", "lps", "dicom")
LINEAR_SUFFIXES = {"itk": (".txt", ".tfm", ".mat", ".h5", ".hdf5"), "lta": (".lta",), "fsl": (".mat",)}
WRITTEN = ("itk", "lta", "fsl", "ras", "lps")
BARE = ("fsl", "ras", "lps")
LARGEST_TEXT = 2**20  # bytes
VOX_TO_VOX, RAS_TO_RAS, SURFACE_RAS = 0, 1, 21  # types of LTA
SURFACE_AXES = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # FreeSurfer's "tkregister" axes of a conformed volume


class _Given(NamedTuple):
    """What a reader is reported beside the file: the grids of both images, and the frame of reference of each."""

    fixed: ImageGrid | None = None
    moving: ImageGrid | None = None
    frames: tuple[str, str] = ("", "")


def load_linear(
    path: str | Path,
    format: str | None = None,
    fixed: ImageGrid | None = None,
    moving: ImageGrid | None = None,
    frames: tuple[str, str] = ("", ""),
) -> torch.Tensor:
    r"""Read a linear transform: a matrix from points of the fixed image to points of the moving image, RAS mm.

    Args:
        path: the file.
        format: one of ``LINEAR_FORMATS``; None for what the file says, which a text of 4 x 4 numbers does not.
        fixed: grid of the fixed image, which ``fsl`` needs, see
            :func:`~monai_regplugins.readers.image_grid.read_image_grid`.
        moving: the same of the moving image.
        frames: frame of reference UIDs of the fixed and the moving image, for ``dicom``; by default those of their
            grids, and where these have none, the object's own frame is the fixed image's.

    Returns:
        ``T``, (4, 4), float64: ``p`` goes to ``T p``. A 2D transform leaves the third axis alone.

    Raises:
        InputError: When the file is missing, damaged, no linear transform, does not state its format, needs images that
            are not given, or holds a matrix that is not finite, has no inverse or is projective.

    Example:
        >>> load_linear("0GenericAffine.mat") @ torch.tensor([0.0, 0, 0, 1]).double()  # doctest: +SKIP
    """
    file = check_file(path, "transform")
    name = linear_format(file) if format is None else format
    check_choice(name, LINEAR_FORMATS, "format")
    try:
        matrix = _READERS[name](file, _Given(fixed, moving, frames))
    except InputError:
        raise
    except Exception as error:  # a foreign or damaged file can fail in any way
        raise InputError(
            f"transform '{path}' cannot be read in the format '{name}'; copy or export it again."
        ) from error
    return torch.from_numpy(_checked(matrix, f"transform '{path}'"))


def save_linear(
    matrix: npt.ArrayLike | torch.Tensor,
    path: str | Path,
    format: str | None = None,
    fixed: ImageGrid | None = None,
    moving: ImageGrid | None = None,
) -> None:
    """Write a linear transform, whole or not at all.

    Args:
        matrix: ``T`` of :func:`load_linear`, (4, 4): from the fixed image to the moving one, RAS mm.
        path: the file; its suffix states the format unless ``format`` does: ``.lta``, or ITK's.
        format: one of ``itk``, ``lta``, ``fsl``, ``ras``, ``lps``.
        fixed: grid of the fixed image, which ``fsl`` and ``lta`` need.
        moving: the same of the moving image.

    Raises:
        InputError: When the matrix is none, the format needs images that are not given, or the system refuses to write.
    """
    target = Path(path)
    by_suffix = "lta" if target.suffix.lower() == ".lta" else "itk"
    name = by_suffix if format is None else format
    check_choice(name, WRITTEN, "format")
    plain = matrix.detach().cpu().numpy() if isinstance(matrix, torch.Tensor) else np.asarray(matrix)
    checked, given = _checked(np.asarray(plain, np.float64), "the transform"), _Given(fixed, moving)
    suffixes = LINEAR_SUFFIXES.get(name, (".txt", ".mat", ".csv"))
    if target.suffix.lower() not in suffixes:
        raise InputError(f"'{path}' is no name for the format '{name}', expected {' or '.join(suffixes)}; change it.")
    if name == "itk":
        replace_file(target, lambda temporary: _write_itk(checked, temporary))
    else:
        write_file(target, _WRITERS[name](checked, given).encode())


def linear_format(path: str | Path) -> str:
    """State the format of a linear transform by the content of its file.

    Raises:
        InputError: When it is none of ``LINEAR_FORMATS``, or 4 x 4 numbers that may be any of three.
    """
    file = check_file(path, "transform")
    with file.open("rb") as stream:
        head = stream.read(4096)
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith((b"#Insight Transform File", b"\x89HDF")):
        return "itk"
    if file.suffix.lower() == ".lta" or re.search(rb"^type\s*=\s*\d+", head, re.MULTILINE):
        return "lta"
    if _is_matrix(file):
        raise InputError(
            f"transform '{path}' holds 4 x 4 numbers, which do not say what they map; name the format: fsl (FLIRT, "
            "with both images), or ras or lps for a matrix in mm from the fixed image to the moving one."
        )
    if file.suffix.lower() == ".mat" and b"\0" in head:
        return "itk"
    raise InputError(
        f"'{path}' is no linear transform, expected one of ITK or ANTs (.txt, .tfm, .mat, .h5), FreeSurfer (.lta), FSL "
        "(.mat), DICOM (Spatial Registration) or 4 x 4 numbers as text; export it as one."
    )


def fsl_matrix(grid: ImageGrid) -> Matrix:
    """The map from voxels of an image to FSL's coordinates, (4, 4): ``voxel * size``, mirrored if ``det(A) > 0``.

    Source: FSL, FLIRT's FAQ: "What is the format of the matrix used by FLIRT".
    """
    size = np.linalg.norm(grid.affine[:3, :3], axis=0)
    scale = np.diag([*size, 1.0])
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        scale[0, 0], scale[0, 3] = -size[0], (grid.shape[0] - 1) * size[0]
    return scale


def _checked(matrix: Matrix, name: str) -> Matrix:
    """A matrix that maps points one to one."""
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise InputError(
            f"{name} is no affine map, expected a finite 4 x 4 matrix with the last row 0 0 0 1; check it."
        )
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise InputError(f"{name} has no inverse, expected a map that keeps three dimensions; check the file.")
    return np.ascontiguousarray(matrix)


def _swap(matrix: Matrix) -> Matrix:
    """A map between RAS points as one between LPS points, or back."""
    swapped: Matrix = LPS_TO_RAS @ matrix @ LPS_TO_RAS
    return swapped


def _read_itk(file: Path, given: _Given) -> Matrix:
    """ITK: the members of a composite are multiplied out; the last meets a point first."""
    members = members_of(read_itk_transform(file))
    if other := [member.GetName() for member in members if not member.IsLinear()]:
        raise InputError(
            f"'{file}' holds {', '.join(other)}, expected linear transforms alone; give it as a transform with a field."
        )
    return _swap(reduce(np.matmul, [matrix_of(member) for member in members]))


def _read_text(file: Path) -> Matrix:
    """4 x 4 numbers."""
    words = re.split(r"[\s,;]+", file.read_text(encoding="ascii").strip())
    return np.array([float(word) for word in words]).reshape(4, 4)


def _is_matrix(file: Path) -> bool:
    try:
        return file.stat().st_size <= LARGEST_TEXT and bool(np.isfinite(_read_text(file)).all())
    except ValueError:
        return False


def _read_fsl(file: Path, given: _Given) -> Matrix:
    """FLIRT: ``M`` maps moving to fixed in FSL's coordinates."""
    fixed, moving = _both(given, "an FSL matrix")
    to_fixed = np.linalg.inv(fsl_matrix(fixed)) @ _read_text(file) @ fsl_matrix(moving)  # voxels to voxels
    matrix: Matrix = moving.affine @ np.linalg.inv(to_fixed) @ np.linalg.inv(fixed.affine)
    return matrix


def _write_fsl(matrix: Matrix, given: _Given) -> str:
    fixed, moving = _both(given, "an FSL matrix")
    to_moving = np.linalg.inv(moving.affine) @ matrix @ fixed.affine
    return _rows(fsl_matrix(fixed) @ np.linalg.inv(to_moving) @ np.linalg.inv(fsl_matrix(moving)))


def _both(given: _Given, what: str) -> tuple[ImageGrid, ImageGrid]:
    """The grids of both images."""
    if given.fixed is None or given.moving is None:
        raise InputError(f"{what} counts from the corners of both images; give the fixed and the moving image too.")
    return given.fixed, given.moving


def _read_lta(file: Path, given: _Given) -> Matrix:
    """FreeSurfer: ``M`` maps the source (moving) to the target (fixed), in RAS mm or voxels."""
    text = re.sub(r"#.*", "", file.read_text(encoding="latin-1"))
    kind, count = (int(re.search(rf"^{key}\s*=\s*(\d+)", text, re.MULTILINE)[1]) for key in ("type", "nxforms"))  # type: ignore[index]
    if kind not in (VOX_TO_VOX, RAS_TO_RAS, SURFACE_RAS) or count != 1:
        raise InputError(
            f"'{file}' holds {count} transforms of type {kind}, expected one of type 0, 1 or 21 (voxels, RAS, surface "
            "RAS); convert it with lta_convert."
        )
    numbers = re.search(r"^1 4 4\s*$((?:\s+[-+.\deE]+){16})", text, re.MULTILINE)
    matrix = np.array(numbers[1].split(), np.float64).reshape(4, 4)  # type: ignore[index]
    if kind == RAS_TO_RAS:
        return np.linalg.inv(matrix)
    source, target = (_lta_frame(text, side, kind) for side in ("src", "dst"))
    found: Matrix = source @ np.linalg.inv(matrix) @ np.linalg.inv(target)
    return found


def _lta_frame(text: str, side: str, kind: int) -> Matrix:
    """The map from what an LTA counts in to RAS mm, of the ``src`` or ``dst`` volume that it describes."""
    block = text.split(f"{side} volume info")[1].split("volume info")[0]
    found = {key: value.split() for key, value in re.findall(r"^(\w+)\s*=\s*(.+)$", block, re.MULTILINE)}
    size, shape = (np.array(found[key], np.float64) for key in ("voxelsize", "volume"))
    axes = np.transpose([np.array(found[f"{axis}ras"], np.float64) for axis in "xyz"]) * size
    to_ras = centered(axes, shape, np.array(found["cras"], np.float64))
    if kind == VOX_TO_VOX:
        return to_ras
    from_surface: Matrix = to_ras @ np.linalg.inv(centered(SURFACE_AXES * size, shape))
    return from_surface


def centered(axes: Matrix, shape: Matrix, center: Matrix | float = 0.0) -> Matrix:
    """A grid as FreeSurfer states it, (4, 4): by the edges of a voxel, as columns, and where voxel ``shape / 2`` is."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, center - axes @ (np.asarray(shape) / 2)
    return affine


def _write_lta(matrix: Matrix, given: _Given) -> str:
    fixed, moving = _both(given, "an LTA file")
    head = ["type      = 1", "nxforms   = 1", "mean      = 0.0 0.0 0.0", "sigma     = 1.0", "1 4 4"]
    lines = [*head, _rows(np.linalg.inv(matrix)).rstrip()]
    for side, grid in (("src", moving), ("dst", fixed)):
        size = np.linalg.norm(grid.affine[:3, :3], axis=0)
        axes = grid.affine[:3, :3] / size
        center = grid.affine[:3, :3] @ (np.array(grid.shape) / 2) + grid.affine[:3, 3]
        lines += [f"{side} volume info", "valid = 1  # volume info valid", f"filename = {side}.nii.gz"]
        lines += [f"volume = {' '.join(map(str, grid.shape))}", f"voxelsize = {_row(size)}"]
        lines += [f"{axis}ras   = {_row(axes[:, k])}" for k, axis in enumerate("xyz")]
        lines += [f"cras   = {_row(center)}"]
    return "\n".join([*lines, ""])


def _row(numbers: Sequence[float] | Matrix) -> str:
    return " ".join(repr(float(number)) for number in numbers)


def _rows(matrix: Matrix) -> str:
    return "\n".join([*map(_row, matrix), ""])


def _read_dicom(file: Path, given: _Given) -> Matrix:
    """DICOM Spatial Registration: each item maps an image's frame of reference to the object's own."""
    dataset = read_dicom_file(file, "transform")
    own = str(dataset.get("FrameOfReferenceUID", ""))
    items = {str(item.get("FrameOfReferenceUID", "")): item for item in dataset.get("RegistrationSequence", ())}
    if not items:
        raise InputError(f"'{file}' is no DICOM Spatial Registration; for a deformable one give it as a field.")
    grids = [grid.frame if grid is not None else "" for grid in given[:2]]
    fixed, moving = (stated or known for stated, known in zip(given.frames, grids, strict=True))
    fixed = fixed or own
    others = [uid for uid in items if uid not in (own, fixed)]
    if not moving and len(others) != 1:
        raise InputError(
            f"'{file}' registers {len(others)} other frames of reference, expected one; give the DICOM series of the "
            "fixed and the moving image, which state theirs."
        )
    moving = moving or others[0]
    if missing := [uid for uid in (fixed, moving) if uid not in items and uid != own]:
        raise InputError(
            f"'{file}' does not register the frame of reference {missing[0]}, but {', '.join(items)}; check the images."
        )
    to_own = [_dicom_matrix(items.get(uid)) for uid in (moving, fixed)]
    return _swap(np.linalg.inv(to_own[0]) @ to_own[1])


def _dicom_matrix(item: Any) -> Matrix:
    """The product of an item's matrices in their order; identity for the object's own frame of reference."""
    if item is None:
        return np.eye(4)
    matrices = item.MatrixRegistrationSequence[0].MatrixSequence
    rows = [np.array(one.FrameOfReferenceTransformationMatrix, np.float64).reshape(4, 4) for one in matrices]
    return reduce(np.matmul, rows)


def _write_itk(matrix: Matrix, path: Path) -> None:
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    path.touch()  # so that it is the system that says why a folder takes no file; ITK would not
    try:
        sitk.WriteTransform(itk_affine_transform(matrix), str(path))
    except RuntimeError as error:
        raise OSError("ITK could not write the transform") from error


def itk_affine_transform(matrix: Matrix) -> sitk.AffineTransform:
    """A map of RAS points, (4, 4), as SimpleITK's transform of LPS points."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    lps, transform = _swap(matrix), sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


_READERS: dict[str, Callable[[Path, _Given], Matrix]] = {
    "itk": _read_itk,
    "lta": _read_lta,
    "fsl": _read_fsl,
    "ras": lambda file, given: _read_text(file),
    "lps": lambda file, given: _swap(_read_text(file)),
    "dicom": _read_dicom,
}
_WRITERS: dict[str, Callable[[Matrix, _Given], str]] = {
    "lta": _write_lta,
    "fsl": _write_fsl,
    "ras": lambda matrix, given: _rows(matrix),
    "lps": lambda matrix, given: _rows(_swap(matrix)),
}
