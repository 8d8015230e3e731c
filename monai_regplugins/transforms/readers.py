"""Readers of scans: NIfTI, PNG, NRRD, MetaImage and DICOM, each checked against its header before it is read."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from monai.config import PathLike
from monai.data import ImageReader, MetaTensor, NibabelReader, PILReader
from monai.data.utils import to_affine_nd
from monai.utils import ensure_tuple
from nibabel.openers import ImageOpener
from PIL import Image

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.transforms.dicom_series import LPS_TO_RAS, SERIES_KEY, read_dicom_series

__all__ = ["Scan", "SimpleITKReader", "as_scan", "check_readable", "in_memory", "read_scan", "real_values"]

Array = npt.NDArray[Any]

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
DETACHED_SUFFIXES = (".nhdr", ".mhd")  # the voxels lie in another file
COLOR_CHANNELS = {"RGB": 3, "RGBA": 3, "LA": 1}  # picture modes with more than one channel; the rest is transparency
NIFTI_2 = (540).to_bytes(4, "little"), (540).to_bytes(4, "big")
DEFLATE = 1032  # bytes that one compressed byte can stand for at most


class Scan(NamedTuple):
    """An image as it was read.

    Attributes:
        values: shape (*spatial), or with further axes that the file has, float32.
        affine: voxels to RAS mm, (4, 4).
        meta: ``filename_or_obj``, and ``dicom_series`` of a DICOM series, see
            :attr:`~monai_regplugins.transforms.dicom_series.DicomVolume.identity`.
    """

    values: torch.Tensor
    affine: torch.Tensor
    meta: dict[str, Any]


class SimpleITKReader(ImageReader):
    """MONAI image reader for NRRD and MetaImage files through SimpleITK (MONAI's own one needs the ``itk`` package).

    ITK's world is LPS; the affine given is RAS: ``diag(-1, -1, 1, 1) [direction * spacing | origin]``.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether the file names end in ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd``."""
        return all(Path(str(name)).suffix.lower() in ITK_SUFFIXES for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> sitk.Image:
        """Read one file."""
        (path,) = ensure_tuple(data)
        return sitk.ReadImage(str(path))

    def get_data(self, img: sitk.Image) -> tuple[Array, dict[str, Any]]:
        """Return the array in (x, y, z) order, channels last, and its metadata (``affine``, 4 x 4, RAS)."""
        channels = img.GetNumberOfComponentsPerPixel()
        array = sitk.GetArrayFromImage(img)
        order = tuple(range(img.GetDimension()))[::-1]
        array = array.transpose(order if channels == 1 else (*order, array.ndim - 1))
        return array, {"affine": _ras_affine(img), "spatial_shape": np.asarray(img.GetSize())}


def check_readable(path: PathLike, what: str, folder: bool = False) -> Path:
    """Check that a path names a file that may be read.

    Args:
        path: what the user named.
        what: what it is for, in the user's words, e.g. ``"fixed image"``.
        folder: whether it may be a folder, too.

    Raises:
        InputError: When it is empty, missing, a folder, or may not be read.
    """
    if not str(path):
        raise InputError(f"{what} has an empty path; give the path of an existing file.")
    try:
        place = Path(path)
        if not (folder and place.is_dir()):
            check_file(place, what)
        if not os.access(place, os.R_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise InputError(
            f"{what} '{path}' cannot be opened ({error.strerror or error}); give a path that you may read."
        ) from error
    return place


def read_scan(path: PathLike, what: str, spatial_dims: int = 3) -> Scan:
    """Read an image of any format; what its values mean is not checked.

    Args:
        path: a NIfTI, PNG, NRRD or MetaImage file; a folder with one DICOM series, or one of its files.
        what: what the image is, e.g. ``"fixed image"``.
        spatial_dims: 2 reads a DICOM file alone, 3 with the whole series that it belongs to.

    Raises:
        InputError: When there is no such file, it is damaged or of another format, its header promises more than it
            holds or tells no voxel size, or its values are complex or colors; for DICOM see
            :func:`~monai_regplugins.transforms.dicom_series.read_dicom_series`.
    """
    file = check_readable(path, what, folder=True)
    name = file.name.lower()
    for suffixes, (header_of, reader) in _FORMATS.items():
        if name.endswith(suffixes) and not file.is_dir():
            return _read_file(file, f"{what} '{path}'", header_of, reader())
    volume = read_dicom_series(file, what, whole=spatial_dims == 3)
    meta = {"filename_or_obj": str(file), SERIES_KEY: volume.identity}
    return Scan(torch.from_numpy(np.ascontiguousarray(volume.values)), torch.from_numpy(volume.affine), meta)


def in_memory(source: Any) -> bool:
    """Whether this is an image, or points, itself, and not the path of one."""
    return not isinstance(source, (str, os.PathLike))


def real_values(values: Any, what: str) -> torch.Tensor:
    """Copy an array or a tensor on any device to a plain float32 tensor on the CPU.

    Raises:
        InputError: When the values are no real numbers.
    """
    if isinstance(values, torch.Tensor):
        if not values.is_complex():
            return values.detach().as_subclass(torch.Tensor).to("cpu", torch.float32, copy=True)
        dtype: object = values.dtype
    else:
        array = np.asarray(values)
        if array.dtype.kind in "biuf":
            return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
        dtype = array.dtype
    raise InputError(
        f"{what} holds values of type {dtype}, expected real numbers; give an array or a tensor of them, or the path "
        "of a file."
    )


def as_scan(image: Any, what: str, affine: torch.Tensor | None = None) -> Scan:
    """Take an image that is in memory as one that was read; nothing is shared with it.

    Args:
        image: a NumPy array or a tensor on any device; a :class:`~monai.data.MetaTensor` tells its own affine.
        what: what the image is, e.g. ``"fixed image"``.
        affine: voxels to RAS mm, (4, 4), of an image that tells none; identity by default.

    Raises:
        InputError: When its values are no real numbers.
    """
    values = real_values(image, what)
    if isinstance(image, MetaTensor):
        own = image.affine.detach().cpu().double()
        return Scan(values, torch.as_tensor(to_affine_nd(3, own)), dict(image.meta))
    return Scan(values, torch.eye(4, dtype=torch.float64) if affine is None else affine, {})


class _Header(NamedTuple):
    """What a header tells: voxels, bytes of one, kind of its values, its edges in mm, whether its affine is finite."""

    shape: tuple[int, ...]
    voxel_bytes: float
    kind: str = "real"
    spacing: tuple[float, ...] = ()
    placed: bool = True


def _read_file(file: Path, name: str, header_of: Callable[[Path], _Header], reader: ImageReader) -> Scan:
    """Read a file whose suffix is known with its reader alone: MONAI's LoadImage would try all others after it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a reader's remarks on the header of a file that is refused anyway
            _check_header(header_of(file), file, name)
            array, about = reader.get_data(reader.read(file))
            values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        affine = torch.as_tensor(np.asarray(about.get("affine", np.eye(4)), dtype=np.float64))
    except InputError:
        raise
    except Exception as error:  # readers raise anything on a damaged or foreign file
        raise InputError(
            f"{name} cannot be read as an image, expected NIfTI, PNG, NRRD, MetaImage or DICOM; it is damaged or "
            "something else, so copy or download it again."
        ) from error
    return Scan(_to_gray(values, about.get("mode"), name), affine, {"filename_or_obj": str(file)})


def _check_header(header: _Header, file: Path, name: str) -> None:
    """A header that promises more voxels than the file can hold would have memory filled with nothing."""
    if header.kind != "real":
        raise InputError(
            f"{name} holds {header.kind}, expected one real number per voxel; convert it first "
            "(a magnitude, gray values, one channel)."
        )
    if any(not edge > 0 for edge in header.spacing):
        raise InputError(
            f"{name} tells no spacing, its voxel size is {list(header.spacing)} mm; set the size in its header "
            "(pixdim) or convert it again from its source."
        )
    if not header.placed:
        raise InputError(f"affine of {name} is not finite (sform), expected numbers of mm; fix the image's header.")
    if file.suffix.lower() in DETACHED_SUFFIXES:
        return
    bytes_held = file.stat().st_size * (1 if file.suffix.lower() == ".nii" else DEFLATE)
    if min(header.shape, default=0) < 1 or math.prod(header.shape) * header.voxel_bytes > bytes_held:
        voxels = " x ".join(map(str, header.shape))
        raise InputError(
            f"{name} cannot be read as an image, its header promises {voxels} voxels but the file has "
            f"{file.stat().st_size} bytes; it is cut short or damaged, so copy or download it again."
        )


def _nifti_header(file: Path) -> _Header:
    """The header of a NIfTI file as it is; nibabel would take an edge of zero for 1 mm."""
    with ImageOpener(str(file)) as stream:
        second = stream.read(4) in NIFTI_2
        stream.seek(0)
        header = (nib.Nifti2Header if second else nib.Nifti1Header).from_fileobj(stream, check=False)
    dtype = header.get_data_dtype()
    kind = "complex numbers" if dtype.kind == "c" else "colors" if dtype.fields else "real"
    shape = tuple(int(size) for size in header.get_data_shape())
    if header["sform_code"] > 0:
        return _Header(shape, dtype.itemsize, kind, placed=bool(np.isfinite(header.get_sform()).all()))
    return _Header(shape, dtype.itemsize, kind, tuple(float(edge) for edge in header["pixdim"][1:4][: len(shape)]))


def _itk_header(file: Path) -> _Header:
    """The header of a NRRD or MetaImage file."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    kind = "complex numbers" if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64) else "real"
    if kind == "real" and reader.GetNumberOfComponents() != 1:
        kind = f"{reader.GetNumberOfComponents()} values per voxel"
    return _Header(tuple(reader.GetSize()), reader.GetNumberOfComponents(), kind)


def _picture_header(file: Path) -> _Header:
    """The header of a PNG, JPEG or BMP file; a voxel takes a bit or more."""
    with Image.open(file) as picture:
        return _Header(picture.size, 1 / 8)


_FORMATS: dict[tuple[str, ...], tuple[Callable[[Path], _Header], type[ImageReader]]] = {
    NIFTI_SUFFIXES: (_nifti_header, NibabelReader),
    ITK_SUFFIXES: (_itk_header, SimpleITKReader),
    PICTURE_SUFFIXES: (_picture_header, PILReader),
}


def _to_gray(values: torch.Tensor, mode: str | None, name: str) -> torch.Tensor:
    """Reduce a picture with equal color channels, (X, Y, channels), to its one channel."""
    if mode not in COLOR_CHANNELS:
        return values
    colors = values[..., : COLOR_CHANNELS[mode]]
    if not bool((colors == colors[..., :1]).all()):
        raise InputError(f"{name} is a color picture, expected gray values; convert it to grayscale.")
    return colors[..., 0]


def _ras_affine(img: sitk.Image) -> Array:
    """Voxel-to-RAS matrix of an ITK image, 4 x 4; slices lie in the plane z = 0."""
    d = img.GetDimension()
    affine = np.eye(4)
    affine[:d, :d] = np.reshape(img.GetDirection(), (d, d)) * np.asarray(img.GetSpacing())
    affine[:d, 3] = img.GetOrigin()
    result: Array = LPS_TO_RAS @ affine
    return result
