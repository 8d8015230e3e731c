"""Image readers for NIfTI, PNG, NRRD, MetaImage and DICOM; headers are checked before voxels are read."""

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
from nibabel.arrayproxy import ArrayProxy
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.openers import ImageOpener
from PIL import Image

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.grids import LPS_TO_RAS, ras_affine
from monai_regplugins.keys import PADDING_KEY, SERIES_KEY
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.dicom_padding import air_for_padding
from monai_regplugins.readers.dicom_series import dicom_phases, read_dicom_series
from monai_regplugins.readers.itk_headers import millimeters, report_no_size
from monai_regplugins.readers.itk_world import itk_affine, note_itk_world
from monai_regplugins.readers.kinds import FORMATS, kind_of
from monai_regplugins.readers.nifti import NIFTI_SUFFIXES, nifti_header, nifti_place, report_place, tell_corrected
from monai_regplugins.readers.ome_zarr import ZARR_SUFFIXES, open_ome_zarr
from monai_regplugins.readers.phases import Phase, chosen_volume, numbered
from monai_regplugins.readers.pictures import PICTURE_FORMATS, PICTURE_SUFFIXES, itk_affine_of_picture, read_picture
from monai_regplugins.readers.tiff import TIFF_SUFFIXES, read_tiff, tiff_layout
from monai_regplugins.readers.voxel_files import VoxelFiles, check_gzip_end, check_inflated, voxel_files

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "Scan",
    "SimpleITKReader",
    "as_scan",
    "check_readable",
    "in_memory",
    "itk_image_affine",
    "read_scan",
    "real_values",
    "scan_phases",
    "scan_shape",
    "without_padding",
]

Array = npt.NDArray[Any]
_Part = tuple[slice | int, ...]

ITK_FORMATS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}
ITK_SUFFIXES = tuple(ITK_FORMATS)
MGH_SUFFIXES = (".mgz", ".mgh")
NRRD_KIND = "NRRD_kinds[pixel]"  # ITK's name for the kind of the axis that is none of space
TOO_MANY_AXES = "number of domain axes in the NRRD file"  # ITK's words
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
        return array, {"affine": itk_image_affine(img), "spatial_shape": np.asarray(img.GetSize())}


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


def read_scan(
    path: PathLike, what: str, spatial_dims: int = 3, exact: bool = False, phase: Phase | None = None
) -> Scan:
    """Read an image of any format; what its values mean is not checked.

    Args:
        path: a NIfTI, PNG, NRRD or MetaImage file; a folder with one DICOM series, or one of its files.
        what: what the image is, e.g. ``"fixed image"``.
        spatial_dims: 2 reads a DICOM file alone, 3 with the whole series that it belongs to.
        exact: read a label map: int64, or float64 where the file has fractions or scales its values; of a picture with
            a palette the numbers of its colors.
        phase: which volume of an image with several; None takes a file with all that it holds.

    Raises:
        InputError: When there is no such file, it is damaged or of another format, its header declares more than it
            holds or has no voxel size, its values are complex or colors, or it holds several volumes and ``phase``
            names none; for DICOM see :func:`~monai_regplugins.readers.dicom_series.read_dicom_series`.
    """
    file = check_readable(path, what, folder=True)
    if (form := _format_of(file)) is not None:
        return _read_file(file, f"{what} '{path}'", form, exact, (phase, spatial_dims))
    volume = read_dicom_series(file, what, spatial_dims == 3, phase)
    meta: dict[str, Any] = {"filename_or_obj": str(file), SERIES_KEY: volume.identity}
    if volume.padding is not None:
        meta[PADDING_KEY] = volume.padding
    return Scan(torch.from_numpy(np.ascontiguousarray(volume.values)), torch.from_numpy(volume.affine), meta)


def without_padding(scan: Scan) -> Scan:
    """Return an image that shows what its file states to be padding as the smallest value that was measured.

    Example:
        >>> scan = Scan(torch.tensor([-2000.0, 5.0, 7.0]), torch.eye(4), {PADDING_KEY: -2000.0})
        >>> without_padding(scan).values.tolist()
        [5.0, 5.0, 7.0]
    """
    meta = dict(scan.meta)
    if (padding := meta.pop(PADDING_KEY, None)) is None:
        return scan
    values = scan.values.numpy()
    return scan._replace(values=torch.from_numpy(air_for_padding(values, values == padding)), meta=meta)


def scan_shape(path: PathLike, what: str, complete: bool = False) -> tuple[int, ...]:
    """Number of voxels along each axis, by the header alone; empty for DICOM, whose slices state it one by one.

    Args:
        path: of the image.
        what: what the image is, e.g. ``"fixed image"``.
        complete: also check that the image can be read as far as its header and the length of its files say it.

    Raises:
        InputError: When there is no such file, its header cannot be read, or names files that it may not; with
            ``complete`` also when the file is cut short, or has values or a voxel size that no image has.
    """
    file, name = check_readable(path, what, folder=True), f"{what} '{path}'"
    if (form := _format_of(file)) is None:
        return ()
    voxels = voxel_files(file, name)
    try:
        header = form.header(file)
        if complete:
            _check_header(header, voxels, name)
        if complete and file.name.lower().endswith(".nii.gz"):
            check_gzip_end(file, header.offset + math.ceil(math.prod(header.shape) * header.voxel_bytes), name)
        return header.shape
    except InputError:
        raise
    except Exception as error:  # readers raise anything on a damaged or foreign file
        raise _no_image(file, name) from error


def scan_phases(path: PathLike, what: str) -> list[str]:
    """Names of the volumes that an image holds, by its headers alone; one for a single volume.

    Raises:
        InputError: As :func:`scan_shape`, and for DICOM as
            :func:`~monai_regplugins.readers.dicom_series.read_dicom_series`.
    """
    shape = scan_shape(path, what)
    return numbered(_volume_axis(shape, 3, "")[1]) if shape else dicom_phases(Path(path), what)


def _format_of(file: Path) -> _Format | None:
    """The format that the name of a file or folder states; None for DICOM, and for what is unknown."""
    name, formats = file.name.lower(), _FOLDERS if file.is_dir() else _FORMATS
    return next((form for suffixes, form in formats.items() if name.endswith(suffixes)), None)


def _volume_axis(shape: Sequence[int], spatial_dims: int, asked: str) -> tuple[int, int]:
    """The axis along which volumes follow each other, and how many there are.

    In 2D it is the fourth axis, too; the third one only where one of its slices is asked for.
    """
    axis = 2 if asked and spatial_dims == 2 and len(shape) == 3 and 1 not in shape else 3
    return axis, shape[axis] if len(shape) == axis + 1 else 1


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
        image: a NumPy array or a tensor on any device; a :class:`~monai.data.MetaTensor` has its own affine.
        what: what the image is, e.g. ``"fixed image"``.
        affine: voxels to RAS mm, (4, 4), of an image that has none; identity by default.
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
    """What a header states.

    Attributes:
        shape: voxels along each axis.
        voxel_bytes: of one voxel in the file, at least.
        kind: of its values.
        spacing: edges of a voxel, mm.
        placed: whether its affine is finite.
        decoded_bytes: of one voxel as the reader returns it.
        offset: bytes before the voxels of a NIfTI file.
    """

    shape: tuple[int, ...]
    voxel_bytes: float
    kind: str = "real"
    spacing: tuple[float, ...] = ()
    placed: bool = True
    decoded_bytes: int = 8
    offset: int = 0


class _Decoded(NamedTuple):
    """Content of a file: values, voxels to RAS mm (4, 4), metadata beside its name, and whether it has a position."""

    values: Array
    affine: Array
    meta: dict[str, str]
    placed: bool = True


class _Format(NamedTuple):
    """How the files of a format are read: the header, then the values.

    Attributes:
        header: of a file.
        decode: takes the file, the name of the image for messages, whether it is a label map, and the part of the
            values that is wanted, as an index.
        lazy: whether the rest of the values does not enter the memory.
    """

    header: Callable[[Path], _Header]
    decode: Callable[[Path, str, bool, _Part], _Decoded]
    lazy: bool = False


def _read_file(file: Path, name: str, form: _Format, exact: bool, wanted: tuple[Phase | None, int]) -> Scan:
    """Read a file whose suffix is known with its reader alone: MONAI's LoadImage would try all others after it.

    ``wanted`` is the volume that is meant, and the number of spatial axes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a reader's remarks on the header of a file that is refused anyway
            voxels = voxel_files(file, name)
            _check_header(header := form.header(file), voxels, name)
            bytes_each = max(8 if exact else 4, header.decoded_bytes)
            part, shape = _part(header.shape, *wanted, name)
            check_memory(shape if form.lazy else header.shape, READING * bytes_each, name, "read")
            check_inflated(voxels, math.ceil(math.prod(header.shape) * header.voxel_bytes), name)
            decoded = form.decode(file, name, exact, part)
            values = torch.from_numpy(np.ascontiguousarray(decoded.values, dtype=_number_type(decoded.values, exact)))
    except InputError:
        raise
    except Exception as error:  # readers raise anything on a damaged or foreign file
        raise _no_image(file, name) from error
    affine = torch.as_tensor(np.asarray(decoded.affine, dtype=np.float64))
    placed = decoded.placed and not _is_default(affine)
    return Scan(values, affine, {"filename_or_obj": str(file), **decoded.meta}, placed)


def _part(shape: tuple[int, ...], phase: Phase | None, spatial_dims: int, name: str) -> tuple[_Part, tuple[int, ...]]:
    """The index of the volume that is meant, and its shape."""
    if phase is None:
        return (), shape
    axis, count = _volume_axis(shape, spatial_dims, phase.name)
    number = chosen_volume(numbered(count), phase, name, "their number")
    if count == 1:
        return (), shape
    return (*[slice(None)] * axis, number), (*shape[:axis], *shape[axis + 1 :])


def _number_type(values: Array, exact: bool) -> type[np.generic]:
    """float32, or what holds the numbers of a label map as they are: of whole ones, all up to 2^63."""
    if not exact:
        return np.float32
    whole = values.dtype.kind in "biu" and (values.dtype != np.uint64 or values.max(initial=0) < 2**63)
    return np.int64 if whole else np.float64


def _no_image(file: Path, name: str) -> InputError:
    kind = "it is a folder that holds none" if file.is_dir() else kind_of(file)
    return InputError(f"{name} cannot be read as an image, expected {FORMATS}; {kind}.")


def _check_header(header: _Header, voxels: VoxelFiles, name: str) -> None:
    """Check that the files are large enough for the voxels that the header declares.

    Files hold equal shares; MetaIO does not notice that one of several is too short.
    """
    if header.kind != "real":
        raise InputError(
            f"{name} holds {header.kind}, expected one real number per voxel; convert it first "
            "(a magnitude, gray values, one channel)."
        )
    if any(not edge > 0 for edge in header.spacing):
        raise InputError(
            f"{name} has no spacing, its voxel size is {list(header.spacing)} mm; set the size in its header "
            "(pixdim of NIfTI) or convert it again from its source."
        )
    if not header.placed:
        raise InputError(f"affine of {name} is not finite (sform), expected numbers of mm; fix the image's header.")
    sizes = [file.stat().st_size for file in voxels.files]
    bytes_held = len(sizes) * min(sizes, default=0) * (1 if voxels.raw else DEFLATE)
    before = header.offset + voxels.start if voxels.raw else 0
    if min(header.shape, default=0) < 1 or before + math.prod(header.shape) * header.voxel_bytes > bytes_held:
        shape = " x ".join(map(str, header.shape))
        files = "the file has" if len(sizes) == 1 else f"the {len(sizes)} files of its voxels have"
        raise InputError(
            f"{name} cannot be read as an image, its header declares {shape} voxels but {files} {sum(sizes)} bytes; it "
            "is cut short or damaged, so copy or download it again."
        )


def _nifti_header(file: Path) -> _Header:
    """The header of a NIfTI file as it is."""
    header = nifti_header(file)
    dtype = header.get_data_dtype()
    kind = "complex numbers" if dtype.kind == "c" else "colors" if dtype.fields else "real"
    shape = tuple(int(size) for size in header.get_data_shape())
    scaled = header.get_slope_inter() not in ((None, None), (1.0, 0.0))  # nibabel computes in float64
    decoded = 8 if scaled else dtype.itemsize
    found = _Header(shape, dtype.itemsize, kind, decoded_bytes=decoded, offset=int(header["vox_offset"]))
    if header["sform_code"] > 0:
        return found._replace(placed=bool(np.isfinite(header.get_sform()).all()))
    return found._replace(spacing=tuple(float(edge) for edge in header["pixdim"][1:4][: len(shape)]))


def _decode_nifti(file: Path, name: str, exact: bool, part: _Part) -> _Decoded:
    """The values of a NIfTI file, scaled, and its place by our own rule."""
    header = nifti_header(file)
    place, shape = nifti_place(header), tuple(int(n) for n in header.get_data_shape())
    report_place(place, name)
    tell_corrected(file, name)
    itk = None if place.certain else itk_affine(file)
    image: Any = nib.load(file, mmap=False)  # nothing shared with a file that may be written to
    meta = note_itk_world(place.affine, itk, shape)
    return _Decoded(np.asarray(image.dataobj[part]), place.affine, meta, placed=place.form != "none")


def _read_mgh_header(file: Path) -> MGHHeader:
    """The header of a FreeSurfer volume; ``nibabel.load`` would leave the file open."""
    with ImageOpener(str(file)) as stream:
        header: MGHHeader = MGHHeader.from_fileobj(stream)
        return header


def _mgh_header(file: Path) -> _Header:
    """The header of a FreeSurfer volume."""
    header = _read_mgh_header(file)
    shape, size = tuple(int(size) for size in header.get_data_shape()), header.get_data_dtype().itemsize
    return _Header(shape, size, placed=bool(np.isfinite(header.get_affine()).all()), decoded_bytes=size)


def _decode_mgh(file: Path, name: str, exact: bool, part: _Part) -> _Decoded:
    """The values and the place of a FreeSurfer volume; one without a place is centered, as in FreeSurfer."""
    header = _read_mgh_header(file)
    return _Decoded(np.asarray(ArrayProxy(str(file), header, mmap=False)[part]), header.get_affine(), {})


def _itk_header(file: Path) -> _Header:
    """The header of a NRRD or MetaImage file."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    reader = _itk_reader(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if TOO_MANY_AXES not in str(error):
            raise
        raise InputError(
            f"image '{file}' has more axes of kind 'domain', 'space' or 'time' than space has, expected 'list' for "
            "volumes that follow each other; change the line 'kinds' of its header, or save it as 4D NIfTI."
        ) from error
    kind = "complex numbers" if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64) else "real"
    shape, components = tuple(reader.GetSize()), reader.GetNumberOfComponents()
    one = sitk.Image([1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
    if _is_list(reader) and components > 1:
        return _Header((*shape, components), one, kind, decoded_bytes=one)
    if kind == "real" and components != 1:
        kind = f"{components} values per voxel"
    return _Header(shape, components * one, kind, decoded_bytes=components * one)


def _is_list(reader: sitk.ImageFileReader) -> bool:
    """Whether what ITK takes for components are volumes, as in the sequences that 3D Slicer writes."""
    return reader.HasMetaDataKey(NRRD_KIND) and reader.GetMetaData(NRRD_KIND) == "list" and len(reader.GetSize()) == 3


def _itk_reader(file: Path) -> sitk.ImageFileReader:
    """A reader of the format that the suffix names; ITK would try all others that it knows."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    reader = sitk.ImageFileReader()
    reader.SetImageIO(ITK_FORMATS[file.suffix.lower()])
    reader.SetFileName(str(file))
    return reader


def _decode_itk(file: Path, name: str, exact: bool, part: _Part) -> _Decoded:
    """The values and the place of a NRRD or MetaImage file."""
    reader = SimpleITKReader()
    values, about = reader.get_data(reader.read(file))
    report_no_size(file, name)
    affine = about["affine"].copy()
    affine[:3] *= millimeters(file, name)
    return _Decoded(values[part], affine, note_itk_world(affine, about["affine"], values.shape[:3]))


def _picture_header(file: Path) -> _Header:
    """The header of a PNG, JPEG or BMP file; a voxel takes a bit or more."""
    with Image.open(file, formats=PICTURE_FORMATS) as picture:
        channels = len(picture.getbands())
        return _Header((*picture.size, channels) if channels > 1 else picture.size, 1 / 8, decoded_bytes=4)


def _decode_picture(file: Path, name: str, exact: bool, part: _Part) -> _Decoded:
    """The gray values of a picture, on the grid of identity."""
    values, affine = read_picture(file, name, indices=exact), np.eye(4)
    return _Decoded(values, affine, note_itk_world(affine, itk_affine_of_picture(file), values.shape))


def _tiff_header(file: Path) -> _Header:
    """The header of a TIFF file; a stack has to state its voxel size."""
    layout = tiff_layout(file)
    kind = f"{layout.channels} values per voxel" if layout.channels > 1 else "real"
    spacing = () if len(layout.spatial) == 2 else layout.spacing or (0.0, 0.0, 0.0)
    size = layout.dtype.itemsize
    return _Header(layout.spatial, size, kind, spacing, decoded_bytes=size)


def _decode_tiff(file: Path, name: str, exact: bool, part: _Part) -> _Decoded:
    """The values of a TIFF file on a grid of its voxel size; that of a picture without one is identity."""
    values, spacing = read_tiff(file)[part], tiff_layout(file).spacing or (1.0, 1.0, 1.0)
    affine = np.diag([*spacing[:2], spacing[2] or 1.0, 1.0])
    return _Decoded(values, affine, note_itk_world(affine, itk_affine(file), values.shape))


def _zarr_header(folder: Path) -> _Header:
    """The metadata of an OME-Zarr image; chunks that are not there are background, so its files promise nothing."""
    image = open_ome_zarr(folder)
    kind = f"{image.channels} values per voxel" if image.channels > 1 else "real"
    spacing = tuple(float(edge) for edge in image.spacing)
    return _Header(image.shape, 0, kind, spacing, decoded_bytes=image.array.dtype.itemsize)


def _decode_zarr(folder: Path, name: str, exact: bool, part: _Part) -> _Decoded:
    """The values of an OME-Zarr image on its grid."""
    image, affine = open_ome_zarr(folder), np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.diag(image.spacing), image.origin
    return _Decoded(image.read()[part], affine, {})


_FORMATS = {
    NIFTI_SUFFIXES: _Format(_nifti_header, _decode_nifti, lazy=True),
    MGH_SUFFIXES: _Format(_mgh_header, _decode_mgh, lazy=True),
    ITK_SUFFIXES: _Format(_itk_header, _decode_itk),
    PICTURE_SUFFIXES: _Format(_picture_header, _decode_picture),
    TIFF_SUFFIXES: _Format(_tiff_header, _decode_tiff),
}


_FOLDERS = {ZARR_SUFFIXES: _Format(_zarr_header, _decode_zarr)}


def itk_image_affine(img: sitk.Image) -> Array:
    """Return the voxel-to-RAS matrix of an ITK image, 4 x 4; slices lie in the plane z = 0, a fourth axis is left out.

    Args:
        img: the image.
    """
    size = img.GetDimension()
    d, affine = min(size, 3), np.eye(4)
    axes = np.reshape(img.GetDirection(), (size, size)) * np.asarray(img.GetSpacing())
    affine[:d, :d], affine[:d, 3] = axes[:d, :d], img.GetOrigin()[:d]
    result: Array = LPS_TO_RAS @ affine
    return result
