r"""Linear transforms that a registration begins with, and the one that it writes.

Inside of this package a linear transform is a homogeneous matrix ``T``, RAS mm, from the fixed image's world to the
moving image's, which is the direction that resampling needs and in which ITK's files are used. Their points are LPS,
and their images lie where ITK places the files, with the maps :math:`W_f, W_m` of
:mod:`~monai_regplugins.readers.itk_world` at :math:`W_f p` and :math:`W_m p`. So a file holds
:math:`S\, W_m T W_f^{-1} S` with :math:`S = \mathrm{diag}(-1, -1, 1, 1)`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.io.itk_transform import matrix_of
from monai_regplugins.io.linear import load_linear
from monai_regplugins.io.transform_files import transform_source
from monai_regplugins.readers.dicom_files import is_dicom
from monai_regplugins.readers.image_grid import ImageGrid

__all__ = ["ALIGNMENT_FILE", "files_of", "read_linear_transforms", "write_linear_transform"]

Matrix = npt.NDArray[np.float64]

ALIGNMENT_FILE = "initial_alignment.tfm"
BOTTOM = 1e-9  # by which the last row of a matrix may differ from 0 0 0 1


def write_linear_transform(
    matrix: npt.ArrayLike, path: Path, fixed_itk: npt.ArrayLike | None = None, moving_itk: npt.ArrayLike | None = None
) -> None:
    """Write a matrix as ITK's ``AffineTransform``, which SimpleITK, ANTs, elastix and 3D Slicer open.

    Args:
        matrix: fixed world to moving world, (d + 1, d + 1), RAS mm.
        path: the file, ``.tfm``, ``.txt`` or ``.h5``.
        fixed_itk: the map from this package's world to ITK's of the fixed image, (4, 4); None where they are one.
        moving_itk: the same of the moving image.

    Raises:
        OSError: When the system or ITK refuses to write.

    Example:
        >>> write_linear_transform(np.eye(4), Path("identity.tfm"))  # doctest: +SKIP
    """
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    d = len(np.asarray(matrix)) - 1
    moved = _world(moving_itk) @ _in_space(np.asarray(matrix, np.float64)) @ np.linalg.inv(_world(fixed_itk))
    lps = LPS_TO_RAS @ moved @ LPS_TO_RAS
    transform = sitk.AffineTransform(d)
    transform.SetMatrix(lps[:d, :d].ravel().tolist())
    transform.SetTranslation(lps[:d, 3].tolist())
    path.touch()  # so that it is the system that says why a folder takes no file; ITK would not
    try:
        sitk.WriteTransform(transform, str(path))
    except RuntimeError as error:
        raise OSError("ITK could not write the transform") from error


def read_linear_transforms(
    files: str | Path | Sequence[str | Path],
    spatial_dims: int,
    fixed_itk: npt.ArrayLike | None = None,
    moving_itk: npt.ArrayLike | None = None,
    fixed: ImageGrid | None = None,
    moving: ImageGrid | None = None,
) -> Matrix:
    """Read one linear transform or several, of which the first meets a point of the fixed image first, as in ANTs.

    Forms are those of :func:`~monai_regplugins.io.linear.load_linear`, in front of a file where its content does not
    say its format, as in ``fsl:flirt.mat`` or ``inverse:lta:a.lta``. A text of 4 x 4 numbers without a format is RAS.

    Args:
        files: a file, or several; also as one text such as ``"['first.tfm', 'second.tfm']"``.
        spatial_dims: of the images.
        fixed_itk: the map from this package's world to ITK's of the fixed image, (4, 4); None where they are one.
        moving_itk: the same of the moving image.
        fixed: grid of the fixed image, which the format ``fsl`` needs.
        moving: grid of the moving image.

    Returns:
        Fixed world to moving world, (d + 1, d + 1), RAS mm.

    Raises:
        InputError: When a file is missing or damaged, holds no linear transform, one of another dimension or one that
            has no inverse.
    """
    names = _names(files)
    last = len(names) - 1
    matrices = [
        _read(name, spatial_dims, _known(fixed, index == 0), _known(moving, index == last))
        for index, name in enumerate(names)
    ]
    result = np.eye(4)
    for index, (matrix, by_itk) in enumerate(matrices):
        to_itk = _world(fixed_itk) if by_itk and index == 0 else np.eye(4)
        from_itk = np.linalg.inv(_world(moving_itk)) if by_itk and index == len(matrices) - 1 else np.eye(4)
        result = from_itk @ matrix @ to_itk @ result
    kept = [*range(spatial_dims), 3]
    chosen: Matrix = result[np.ix_(kept, kept)]
    return chosen


def files_of(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """The paths of one transform or several, without the words ``inverse:`` and ``FORMAT:`` before them.

    Args:
        files: as :func:`read_linear_transforms` takes them.

    Raises:
        InputError: When a text begins like a list and is none.

    Example:
        >>> [str(file) for file in files_of("['fsl:flirt.mat', 'inverse:a.tfm']")]
        ['flirt.mat', 'a.tfm']
    """
    return [transform_source(name).path for name in _names(files)]


def _known(grid: ImageGrid | None, adjacent: bool) -> ImageGrid | None:
    """The grid of an image; a transform that does not begin or end there is about another frame of reference."""
    return grid if grid is None or adjacent else grid._replace(frame="")


def _names(files: str | Path | Sequence[str | Path]) -> list[str]:
    """The names of one file or several, which a command line gives as one text."""
    if isinstance(files, Path):
        return [str(files)]
    if not isinstance(files, str):
        return [str(file) for file in files]
    if files[:1] != "[":
        return [files]
    try:
        listed = ast.literal_eval(files)
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"initial_transform is {files!r}, expected a file or a list of files such as \"['b.tfm', 'a.tfm']\"."
        ) from error
    return [str(name) for name in listed]


def _read(name: str, d: int, fixed: ImageGrid | None, moving: ImageGrid | None) -> tuple[Matrix, bool]:
    """A transform as a matrix (4, 4) in RAS, and whether it is about the worlds of ITK."""
    source = transform_source(name)
    file = check_file(source.path, "initial transform")
    grids = (moving, fixed) if source.inverse else (fixed, moving)
    matrix, by_itk = _of_any_format(file, source.format, d, *grids)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < np.finfo(np.float32).tiny:
        raise InputError(f"initial transform '{name}' has no inverse, expected an invertible matrix; export it again.")
    return (np.asarray(np.linalg.inv(matrix), np.float64) if source.inverse else matrix), by_itk


def _of_any_format(
    file: Path, format: str | None, d: int, fixed: ImageGrid | None, moving: ImageGrid | None
) -> tuple[Matrix, bool]:
    """The matrix of a file, and whether it is about the worlds of ITK."""
    if format not in (None, "itk") or file.suffix.lower() == ".lta" or is_dicom(file):
        return load_linear(file, format, fixed, moving).numpy(), False
    plain = _plain_matrix(file, d) if format is None and file.suffix.lower() in (".txt", ".mat", ".csv", "") else None
    return (_itk_matrix(file, d), True) if plain is None else (plain, False)


def _plain_matrix(file: Path, d: int) -> Matrix | None:
    """The matrix of a text file of d + 1 rows of as many numbers; None of any other file."""
    try:
        rows = np.loadtxt(file, delimiter="," if file.suffix.lower() == ".csv" else None, ndmin=2)
    except (ValueError, UnicodeDecodeError):
        return None
    if rows.shape != (d + 1, d + 1) or np.abs(rows[-1] - np.eye(d + 1)[-1]).max() > BOTTOM:
        raise InputError(
            f"initial transform '{file}' holds {rows.shape[0]} x {rows.shape[1]} numbers, expected {d + 1} rows of "
            f"{d + 1}, the last of them {' '.join(['0'] * d)} 1 (RAS mm, fixed to moving world); export it again."
        )
    return _in_space(rows)


def _itk_matrix(file: Path, d: int) -> Matrix:
    """The matrix of a linear transform of ITK, in RAS."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    spoken = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        transform = sitk.ReadTransform(str(file))
    except RuntimeError as error:
        raise InputError(
            f"initial transform '{file}' cannot be read, expected a transform of ITK (.tfm, .txt, .mat, .h5) or a "
            "matrix of 4 x 4 numbers as text; export it as one."
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(spoken)
    if transform.GetDimension() != d or not transform.IsLinear():
        raise InputError(
            f"initial transform '{file}' is a {transform.GetDimension()}D {transform.GetName()}, expected a linear "
            f"transform in {d}D; give another one."
        )
    matrix: Matrix = LPS_TO_RAS @ matrix_of(transform) @ LPS_TO_RAS
    return matrix


def _in_space(matrix: Matrix) -> Matrix:
    """A matrix of the plane as one of space, which leaves z as it is."""
    d = len(matrix) - 1
    space, kept = np.eye(4), [*range(d), 3]
    space[np.ix_(kept, kept)] = matrix
    return space


def _world(given: npt.ArrayLike | None) -> Matrix:
    """A map of worlds, identity where none is given."""
    return np.eye(4) if given is None else np.asarray(given, np.float64)
