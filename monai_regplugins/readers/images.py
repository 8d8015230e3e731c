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
from monai.data import ImageReader, MetaTensor
from monai.utils import ensure_tuple
from PIL import Image

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.grids import LPS_TO_RAS, ras_affine
from monai_regplugins.keys import SERIES_KEY
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.dicom_series import read_dicom_series
from monai_regplugins.readers.itk_world import itk_affine, note_itk_world
from monai_regplugins.readers.nifti import NIFTI_SUFFIXES, nifti_header, nifti_place, tell_place
from monai_regplugins.readers.pictures import PICTURE_FORMATS, PICTURE_SUFFIXES, itk_affine_of_picture, read_picture
from monai_regplugins.readers.voxel_files import VoxelFiles, check_inflated, voxel_files

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
READING = 2  # the decoded values, and their copy in float32, or as exact numbers
DEFLATE = 1032  # bytes that one compressed byte can stand for at most; a header of more is damaged, or its file is


class Scan(NamedTuple):
    """An image as it was read.

    Attributes:
        values: shape ``(*spatial)``, or with further axes that the file has, float32; exact ones int64 or float64.
        affine: voxels to RAS mm, (4, 4).
        meta: ``filename_or_obj``, and ``dicom_series`` of a DICOM series, the ``identity`` of
            :class:`~monai_regplugins.readers.dicom_series.DicomVolume`.
        placed: whether the affine is of the image's own, and not the one of what has none.
    """

    values: torch.Tensor
    affine: torch.Tensor
    meta: dict[str, Any]
    placed: bool = True


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


def read_scan(path: PathLike, what: str, spatial_dims: int = 3, exact: bool = False) -> Scan:
    """Read an image of any format; what its values mean is not checked.

    Args:
        path: a NIfTI, PNG, NRRD or MetaImage file; a folder with one DICOM series, or one of its files.
        what: what the image is, e.g. ``"fixed image"``.
        spatial_dims: 2 reads a DICOM file alone, 3 with the whole series that it belongs to.
        exact: read a label map: int64, or float64 where the file has fractions or scales its values; of a picture with
            a palette the numbers of its colors.

    Raises:
        InputError: When there is no such file, it is damaged or of another format, its header promises more than it
            holds or tells no voxel size, or its values are complex or colors; for DICOM see
            :func:`~monai_regplugins.readers.dicom_series.read_dicom_series`.
    """
    file = check_readable(path, what, folder=True)
    name = file.name.lower()
    for suffixes, form in _FORMATS.items():
        if name.endswith(suffixes) and not file.is_dir():
            return _read_file(file, f"{what} '{path}'", form, exact)
    volume = read_dicom_series(file, what, whole=spatial_dims == 3)
    meta = {"filename_or_obj": str(file), SERIES_KEY: volume.identity}
    return Scan(torch.from_numpy(np.ascontiguousarray(volume.values)), torch.from_numpy(volume.affine), meta)


def scan_shape(path: PathLike, what: str) -> tuple[int, ...]:
    """Number of voxels along each axis, by the header alone; empty for DICOM, whose slices tell it one by one.

    Raises:
        InputError: When there is no such file, its header cannot be read, or names files that it may not.
    """
    file = check_readable(path, what, folder=True)
    for suffixes, form in _FORMATS.items():
        if file.name.lower().endswith(suffixes) and not file.is_dir():
            name = f"{what} '{path}'"
            voxel_files(file, name)
            try:
                return form.header(file).shape
            except Exception as error:  # readers raise anything on a damaged or foreign file
                raise _no_image(name) from error
    return ()


def in_memory(source: Any) -> bool:
    """Whether this is an image, or points, itself, and not the path of one."""
    return not isinstance(source, (str, os.PathLike))


def real_values(values: Any, what: str, exact: bool = False) -> torch.Tensor:
    """Copy an array or a tensor on any device to a plain tensor on the CPU, float32, or int64 or float64 if ``exact``.

    Raises:
        InputError: When the values are no real numbers.
    """
    if isinstance(values, torch.Tensor):
        if not values.is_complex():
            whole = torch.float64 if values.is_floating_point() else torch.int64
            return values.detach().as_subclass(torch.Tensor).to("cpu", whole if exact else torch.float32, copy=True)
        dtype: object = values.dtype
    else:
        array = np.asarray(values)
        if array.dtype.kind in "biuf":
            return torch.from_numpy(np.array(array, dtype=_number_type(array, exact), order="C"))
        dtype = array.dtype
    raise InputError(
        f"{what} holds values of type {dtype}, expected real numbers; give an array or a tensor of them, or the path "
        "of a file."
    )


def as_scan(image: Any, what: str, affine: torch.Tensor | None = None, exact: bool = False) -> Scan:
    """Take an image that is in memory as one that was read; nothing is shared with it.

    Args:
        image: a NumPy array or a tensor on any device; a :class:`~monai.data.MetaTensor` tells its own affine.
        what: what the image is, e.g. ``"fixed image"``.
        affine: voxels to RAS mm, (4, 4), of an image that tells none; identity by default.
        exact: take a label map, see :func:`read_scan`.

    Raises:
        InputError: When its values are no real numbers, or its metadata name a space that is neither RAS nor LPS.
    """
    values = real_values(image, what, exact)
    if isinstance(image, MetaTensor):
        own = ras_affine(image)
        return Scan(values, own, dict(image.meta), not _is_default(own))
    return Scan(values, torch.eye(4, dtype=torch.float64) if affine is None else affine, {}, placed=False)


def _is_default(affine: torch.Tensor) -> bool:
    """Whether this is the affine of images without one: identity, in RAS or in LPS."""
    return any(torch.equal(affine, default) for default in (torch.eye(4).double(), torch.from_numpy(LPS_TO_RAS)))


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


class _Decoded(NamedTuple):
    """What a file holds: values, voxels to RAS mm (4, 4), metadata beside the file's name; whether it tells a place."""

    values: Array
    affine: Array
    meta: dict[str, str]
    placed: bool = True


class _Format(NamedTuple):
    """How the files of a format are read: the header, then all of it.

    Attributes:
        header: of a file.
        decode: takes the file, the name of the image for messages, and whether it is a label map.
    """

    header: Callable[[Path], _Header]
    decode: Callable[[Path, str, bool], _Decoded]


def _read_file(file: Path, name: str, form: _Format, exact: bool) -> Scan:
    """Read a file whose suffix is known with its reader alone: MONAI's LoadImage would try all others after it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a reader's remarks on the header of a file that is refused anyway
            voxels = voxel_files(file, name)
            _check_header(header := form.header(file), voxels, name)
            bytes_each = max(8 if exact else 4, header.decoded_bytes)
            check_memory(header.shape, READING * bytes_each, name, "read")
            check_inflated(voxels, math.ceil(math.prod(header.shape) * header.voxel_bytes), name)
            decoded = form.decode(file, name, exact)
            values = torch.from_numpy(np.ascontiguousarray(decoded.values, dtype=_number_type(decoded.values, exact)))
    except InputError:
        raise
    except Exception as error:  # readers raise anything on a damaged or foreign file
        raise _no_image(name) from error
    affine = torch.as_tensor(np.asarray(decoded.affine, dtype=np.float64))
    placed = decoded.placed and not _is_default(affine)
    return Scan(values, affine, {"filename_or_obj": str(file), **decoded.meta}, placed)


def _number_type(values: Array, exact: bool) -> type[np.generic]:
    """float32, or what holds the numbers of a label map as they are: of whole ones, all up to 2^63."""
    if not exact:
        return np.float32
    whole = values.dtype.kind in "biu" and (values.dtype != np.uint64 or values.max(initial=0) < 2**63)
    return np.int64 if whole else np.float64


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
    """The header of a NIfTI file as it is."""
    header = nifti_header(file)
    dtype = header.get_data_dtype()
    kind = "complex numbers" if dtype.kind == "c" else "colors" if dtype.fields else "real"
    shape = tuple(int(size) for size in header.get_data_shape())
    scaled = header.get_slope_inter() not in ((None, None), (1.0, 0.0))  # nibabel computes in float64
    found = _Header(shape, dtype.itemsize, kind, decoded_bytes=8 if scaled else dtype.itemsize)
    if header["sform_code"] > 0:
        return found._replace(placed=bool(np.isfinite(header.get_sform()).all()))
    return found._replace(spacing=tuple(float(edge) for edge in header["pixdim"][1:4][: len(shape)]))


def _decode_nifti(file: Path, name: str, exact: bool) -> _Decoded:
    """The values of a NIfTI file, scaled, and its place by our own rule."""
    header = nifti_header(file)
    place, shape = nifti_place(header), tuple(int(n) for n in header.get_data_shape())
    tell_place(place, name)
    itk = None if place.certain else itk_affine(file)
    image: Any = nib.load(file, mmap=False)  # nothing shared with a file that may be written to
    meta = note_itk_world(place.affine, itk, shape)
    return _Decoded(np.asarray(image.dataobj), place.affine, meta, placed=place.form != "none")


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


def _decode_itk(file: Path, name: str, exact: bool) -> _Decoded:
    """The values and the place of a NRRD or MetaImage file."""
    reader = SimpleITKReader()
    values, about = reader.get_data(reader.read(file))
    return _Decoded(values, about["affine"], {})


def _picture_header(file: Path) -> _Header:
    """The header of a PNG, JPEG or BMP file; a voxel takes a bit or more."""
    with Image.open(file, formats=PICTURE_FORMATS) as picture:
        channels = len(picture.getbands())
        return _Header((*picture.size, channels) if channels > 1 else picture.size, 1 / 8, decoded_bytes=4)


def _decode_picture(file: Path, name: str, exact: bool) -> _Decoded:
    """The gray values of a picture, on the grid of identity."""
    values, affine = read_picture(file, name, indices=exact), np.eye(4)
    return _Decoded(values, affine, note_itk_world(affine, itk_affine_of_picture(file), values.shape))


_FORMATS = {
    NIFTI_SUFFIXES: _Format(_nifti_header, _decode_nifti),
    ITK_SUFFIXES: _Format(_itk_header, _decode_itk),
    PICTURE_SUFFIXES: _Format(_picture_header, _decode_picture),
}


def _ras_affine(img: sitk.Image) -> Array:
    """Voxel-to-RAS matrix of an ITK image, 4 x 4; slices lie in the plane z = 0, a fourth axis has no place."""
    size = img.GetDimension()
    d, affine = min(size, 3), np.eye(4)
    axes = np.reshape(img.GetDirection(), (size, size)) * np.asarray(img.GetSpacing())
    affine[:d, :d], affine[:d, 3] = axes[:d, :d], img.GetOrigin()[:d]
    result: Array = LPS_TO_RAS @ affine
    return result
