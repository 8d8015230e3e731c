"""Readers of scans: NIfTI, PNG, NRRD, MetaImage and DICOM, each checked against its header before it is read."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.config import PathLike
from monai.data import ImageReader, MetaTensor, NibabelReader, PILReader
from monai.data.utils import to_affine_nd
from monai.utils import ensure_tuple
from nibabel.openers import ImageOpener
from PIL import Image

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.keys import SERIES_KEY
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.dicom_series import LPS_TO_RAS, read_dicom_series
from monai_regplugins.readers.voxel_files import VoxelFiles, voxel_files

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "Scan",
    "SimpleITKReader",
    "as_scan",
    "check_readable",
    "in_memory",
    "read_scan",
    "real_values",
    "scan_shape",
]

Array = npt.NDArray[Any]

ITK_FORMATS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}
ITK_SUFFIXES = tuple(ITK_FORMATS)
NIFTI_SUFFIXES = (".nii", ".nii.gz")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
PICTURE_FORMATS = ("PNG", "JPEG", "BMP")  # Pillow would take any other that it knows by its content
COLOR_CHANNELS = {"RGB": 3, "RGBA": 3, "LA": 1}  # picture modes with more than one channel; the rest is transparency
READING = 2  # the decoded values, and their copy in float32
NIFTI_2 = (540).to_bytes(4, "little"), (540).to_bytes(4, "big")
DEFLATE = 1032  # bytes that one compressed byte can stand for at most; a header of more is damaged, or its file is


class Scan(NamedTuple):
    """An image as it was read.

    Attributes:
        values: shape ``(*spatial)``, or with further axes that the file has, float32.
        affine: voxels to RAS mm, (4, 4).
        meta: ``filename_or_obj``, and ``dicom_series`` of a DICOM series, the ``identity`` of
            :class:`~monai_regplugins.readers.dicom_series.DicomVolume`.
    """

    values: torch.Tensor
    affine: torch.Tensor
    meta: dict[str, Any]


class SimpleITKReader(ImageReader):
    """MONAI image reader for NRRD and MetaImage files through SimpleITK (MONAI's own one needs the ``itk`` package).

    ITK's world is LPS; the affine given is RAS: ``diag(-1, -1, 1, 1) [direction * spacing | origin]``.

    Example:
        >>> SimpleITKReader().verify_suffix("scan.nrrd")
        True
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether the file names end in ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd``."""
        return all(Path(str(name)).suffix.lower() in ITK_SUFFIXES for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> sitk.Image:
        """Read one file.

        Raises:
            InputError: When its header names a file of voxels that may not be opened, see
                :func:`~monai_regplugins.readers.voxel_files.voxel_files`.
        """
        (path,) = ensure_tuple(data)
        voxel_files(Path(path), f"image '{path}'")
        image: sitk.Image = _itk_reader(Path(path)).Execute()
        return image

    def get_data(self, img: sitk.Image) -> tuple[Array, dict[str, Any]]:
        """Return the array in (x, y, z) order, channels last, and its metadata (``affine``, 4 x 4, RAS)."""
        import SimpleITK as sitk  # 95 MB of memory, so only where it is used

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
            :func:`~monai_regplugins.readers.dicom_series.read_dicom_series`.
    """
    file = check_readable(path, what, folder=True)
    name = file.name.lower()
    for suffixes, (header_of, reader) in _FORMATS.items():
        if name.endswith(suffixes) and not file.is_dir():
            return _read_file(file, f"{what} '{path}'", header_of, reader())
    volume = read_dicom_series(file, what, whole=spatial_dims == 3)
    meta = {"filename_or_obj": str(file), SERIES_KEY: volume.identity}
    return Scan(torch.from_numpy(np.ascontiguousarray(volume.values)), torch.from_numpy(volume.affine), meta)


def scan_shape(path: PathLike, what: str) -> tuple[int, ...]:
    """Number of voxels along each axis, by the header alone; empty for DICOM, whose slices tell it one by one.

    Raises:
        InputError: When there is no such file, its header cannot be read, or names files that it may not.
    """
    file = check_readable(path, what, folder=True)
    for suffixes, (header_of, _) in _FORMATS.items():
        if file.name.lower().endswith(suffixes) and not file.is_dir():
            name = f"{what} '{path}'"
            voxel_files(file, name)
            try:
                return header_of(file).shape
            except Exception as error:  # readers raise anything on a damaged or foreign file
                raise _no_image(name) from error
    return ()


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
    """What a header tells.

    Attributes:
        shape: voxels along each axis.
        voxel_bytes: of one voxel in the file, at least.
        kind: of its values.
        spacing: edges of a voxel, mm.
        placed: whether its affine is finite.
        decoded_bytes: of one voxel as the reader returns it.
    """

    shape: tuple[int, ...]
    voxel_bytes: float
    kind: str = "real"
    spacing: tuple[float, ...] = ()
    placed: bool = True
    decoded_bytes: int = 8


def _read_file(file: Path, name: str, header_of: Callable[[Path], _Header], reader: ImageReader) -> Scan:
    """Read a file whose suffix is known with its reader alone: MONAI's LoadImage would try all others after it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a reader's remarks on the header of a file that is refused anyway
            voxels = voxel_files(file, name)
            _check_header(header := header_of(file), voxels, name)
            check_memory(header.shape, READING * max(4, header.decoded_bytes), name, "read")
            array, about = reader.get_data(reader.read(file))
            values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        affine = torch.as_tensor(np.asarray(about.get("affine", np.eye(4)), dtype=np.float64))
    except InputError:
        raise
    except Exception as error:  # readers raise anything on a damaged or foreign file
        raise _no_image(name) from error
    return Scan(_to_gray(values, about.get("mode"), name), affine, {"filename_or_obj": str(file)})


def _no_image(name: str) -> InputError:
    return InputError(
        f"{name} cannot be read as an image, expected NIfTI, PNG, NRRD, MetaImage or DICOM; it is damaged or something "
        "else, so copy or download it again."
    )


def _check_header(header: _Header, voxels: VoxelFiles, name: str) -> None:
    """A header that promises more voxels than its files can hold would have memory filled with nothing.

    Files hold equal shares; MetaIO does not notice that one of several is too short.
    """
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
    sizes = [file.stat().st_size for file in voxels.files]
    bytes_held = len(sizes) * min(sizes, default=0) * (1 if voxels.raw else DEFLATE)
    if min(header.shape, default=0) < 1 or math.prod(header.shape) * header.voxel_bytes > bytes_held:
        shape = " x ".join(map(str, header.shape))
        files = "the file has" if len(sizes) == 1 else f"the {len(sizes)} files of its voxels have"
        raise InputError(
            f"{name} cannot be read as an image, its header promises {shape} voxels but {files} {sum(sizes)} bytes; it "
            "is cut short or damaged, so copy or download it again."
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
    scaled = header.get_slope_inter() not in ((None, None), (1.0, 0.0))  # nibabel computes in float64
    found = _Header(shape, dtype.itemsize, kind, decoded_bytes=8 if scaled else dtype.itemsize)
    if header["sform_code"] > 0:
        return found._replace(placed=bool(np.isfinite(header.get_sform()).all()))
    return found._replace(spacing=tuple(float(edge) for edge in header["pixdim"][1:4][: len(shape)]))


def _itk_header(file: Path) -> _Header:
    """The header of a NRRD or MetaImage file."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    reader = _itk_reader(file)
    reader.ReadImageInformation()
    kind = "complex numbers" if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64) else "real"
    components = reader.GetNumberOfComponents()
    if kind == "real" and components != 1:
        kind = f"{components} values per voxel"
    one = components * sitk.Image([1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
    return _Header(tuple(reader.GetSize()), one, kind, decoded_bytes=one)


def _itk_reader(file: Path) -> sitk.ImageFileReader:
    """A reader of the format that the suffix names; ITK would try all others that it knows."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    reader = sitk.ImageFileReader()
    reader.SetImageIO(ITK_FORMATS[file.suffix.lower()])
    reader.SetFileName(str(file))
    return reader


def _picture_header(file: Path) -> _Header:
    """The header of a PNG, JPEG or BMP file; a voxel takes a bit or more."""
    with Image.open(file, formats=PICTURE_FORMATS) as picture:
        channels = len(picture.getbands())
        return _Header((*picture.size, channels) if channels > 1 else picture.size, 1 / 8, decoded_bytes=4)


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
