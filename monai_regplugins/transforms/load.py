"""Reading a pair from files, with every mistake a file can hold told in one line."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
from monai.config import PathLike
from monai.data import ImageReader, MetaTensor
from monai.transforms import LoadImage, Transform
from monai.utils import ensure_tuple
from nibabel.openers import ImageOpener

from monai_regplugins.checks import InputError, check_choice, check_file, check_image, check_mask, check_same_size
from monai_regplugins.transforms.grids import as_meta_tensor, same_affine, voxel_spacing, world_affine
from monai_regplugins.transforms.keys import IMAGE_KEYS, LABEL_KEYS, MASK_KEYS, POINT_KEYS, present, side_of

__all__ = ["LoadPaird", "LoadSubjectd", "SimpleITKReader", "load_points"]

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
COMPANIONS = ("label", "mask", "keypoints", "landmarks")
COLOR_CHANNELS = {"RGB": 3, "RGBA": 3, "LA": 1}  # PNG modes with more than one channel; the rest is transparency
LABEL_TOLERANCE = 1e-3  # scaled headers give 0.99998 for label 1


class LoadPaird(Transform):
    """Load the files of a pair: images, labels, masks and points.

    Images become float32, labels uint8 (int16 or int32 where their values need it), masks uint8 (0, 1); all are
    :class:`~monai.data.MetaTensor` of shape (1, *spatial) with a voxel-to-RAS affine. Points are comma-separated voxel
    coordinates and become float32 tensors (N, d). Trailing axes of length one are dropped. Other keys stay as they are.

    Reads NIfTI, PNG (grayscale, also when stored as color) and NRRD/MetaImage.

    Args:
        spatial_dims: 2 or 3.
        companions: what to load beside the images, any of ``label``, ``mask``, ``keypoints``, ``landmarks``; the other
            companions of the pair are dropped.

    Raises:
        InputError: When a companion is unknown.

    Example:
        >>> pair = {"moving": "a.nii.gz", "fixed": "b.nii.gz", "pair_id": "a_to_b"}
        >>> loaded = LoadPaird(spatial_dims=3)(pair)  # doctest: +SKIP
    """

    def __init__(self, spatial_dims: int = 3, companions: Sequence[str] = COMPANIONS) -> None:
        for companion in companions:
            check_choice(companion, COMPANIONS, "companion")
        self.spatial_dims = spatial_dims
        self._dropped = {f"{side}_{kind}" for kind in COMPANIONS if kind not in companions for side in IMAGE_KEYS}
        self._files = _Files(spatial_dims)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the files of one pair.

        Args:
            data: paths under ``moving`` and ``fixed``, and any of their ``_label``, ``_mask``, ``_keypoints``,
                ``_landmarks``.

        Raises:
            InputError: When a file is missing, unreadable, of the wrong dimension, not on the grid of its image, or
                holds nothing to register (NaN, constant, empty); when point lists do not correspond.
        """
        pair: dict[Hashable, Any] = {key: value for key, value in data.items() if key not in self._dropped}
        for key in IMAGE_KEYS:
            if key not in pair:
                found = sorted(map(str, pair))
                raise InputError(f"the pair has no '{key}', found {found}; give the path of the image.")
            pair[key] = self._files.image(pair[key], f"{key} image")
        for read, keys in ((self._files.label, LABEL_KEYS), (self._files.mask, MASK_KEYS)):
            for key in present(pair, keys):
                side = side_of(key)
                pair[key] = read(pair[key], key.replace("_", " "), pair[side], f"{side} image")
        for key in present(pair, POINT_KEYS):
            pair[key] = load_points(pair[key], self.spatial_dims, key.replace("_", " "))
        for kind in ("keypoints", "landmarks"):
            _check_correspondence(pair, kind)
        return pair


class LoadSubjectd(Transform):
    """Load a single image, ``image``, and its ``mask`` if it has one, as :class:`LoadPaird` loads those of a pair.

    Adds ``spacing`` (d,), float32, mm. Other keys stay as they are.

    Args:
        spatial_dims: 2 or 3.
    """

    def __init__(self, spatial_dims: int = 3) -> None:
        self.spatial_dims = spatial_dims
        self._files = _Files(spatial_dims)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the files of one image.

        Args:
            data: paths under ``image`` and, where there is one, ``mask``.

        Raises:
            InputError: As :class:`LoadPaird`.
        """
        item: dict[Hashable, Any] = dict(data)
        image = item["image"] = self._files.image(item["image"], "image")
        if "mask" in item:
            item["mask"] = self._files.mask(item["mask"], "mask", image, "image")
        item["spacing"] = voxel_spacing(world_affine(image.affine, self.spatial_dims, "image"), self.spatial_dims)
        return item


class _Files:
    """Reads the files of images and of the label maps that lie on them."""

    def __init__(self, spatial_dims: int) -> None:
        self.spatial_dims = spatial_dims
        self._load = LoadImage(image_only=True, dtype=np.float32)
        self._reader = SimpleITKReader()

    def image(self, path: PathLike, what: str) -> MetaTensor:
        """Load one image, shape (1, *spatial), float32."""
        image = self._read(path, what)
        check_image(image, f"{what} '{path}'", self.spatial_dims)
        if 1 in image.shape[1:]:
            raise InputError(
                f"{what} '{path}' is a single slice (shape {tuple(image.shape[1:])}), expected a {self.spatial_dims}D "
                "image of two voxels or more along each axis; give the whole image."
            )
        return image

    def label(self, path: PathLike, what: str, image: MetaTensor, whose: str) -> MetaTensor:
        """Load a label map that lies on the grid of ``image``, which ``whose`` names."""
        values = self._map(path, what, image, whose)
        return as_meta_tensor(_to_integer(values.as_tensor(), f"{what} '{path}'"), values.affine, values.meta)

    def mask(self, path: PathLike, what: str, image: MetaTensor, whose: str) -> MetaTensor:
        """Load a mask in the same way: 1 where it is above 0."""
        values = self._map(path, what, image, whose)
        return as_meta_tensor((values.as_tensor() > 0).to(torch.uint8), values.affine, values.meta)

    def _map(self, path: PathLike, what: str, image: MetaTensor, whose: str) -> MetaTensor:
        """Read a map that lies on the grid of ``image``."""
        name = f"{what} '{path}'"
        label = self._read(path, what)
        check_same_size(label, image, name, f"the {whose}")
        if not same_affine(label.affine, image.affine):
            raise InputError(
                f"{name} has another affine than the {whose}, expected the same within 1e-3; "
                "resample the label onto its image or copy the header."
            )
        check_mask(label, name)
        return label

    def _read(self, path: PathLike, what: str) -> MetaTensor:
        """Read a file of any format as (C, *spatial), float32, with a 4 x 4 affine."""
        file = check_file(str(path), what)
        _check_voxel_size(file, what)
        try:
            reader = self._reader if self._reader.verify_suffix(str(file)) else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a reader's remarks on the header of a file that is refused anyway
                image = self._load(str(file), reader)
            values = torch.as_tensor(np.ascontiguousarray(image.numpy()))
        except Exception as error:  # readers raise anything on a damaged or foreign file
            raise InputError(
                f"{what} '{path}' cannot be read as an image, expected NIfTI, PNG, NRRD or MetaImage; it is damaged or "
                "something else, so copy or download it again."
            ) from error
        gray = _to_gray(values, image.meta.get("mode"), f"{what} '{path}'")
        return as_meta_tensor(_drop_trailing_axes(gray, self.spatial_dims)[None], image.affine, image.meta)


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

    def get_data(self, img: sitk.Image) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        """Return the array in (x, y, z) order, channels last, and its metadata (``affine``, 4 x 4, RAS)."""
        channels = img.GetNumberOfComponentsPerPixel()
        array = sitk.GetArrayFromImage(img)
        order = tuple(range(img.GetDimension()))[::-1]
        array = array.transpose(order if channels == 1 else (*order, array.ndim - 1))
        return array, {"affine": _ras_affine(img), "spatial_shape": np.asarray(img.GetSize())}


def load_points(path: PathLike, spatial_dims: int, what: str) -> torch.Tensor:
    """Read points from a file of comma-separated voxel coordinates, one point per line, no header.

    Returns:
        Points of shape (N, d), float32, voxels.

    Raises:
        InputError: When the file is missing, holds anything but ``d`` finite numbers per line, or no point.
    """
    file = check_file(str(path), what)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of a file without data; the check below refuses it
            points = np.loadtxt(file, delimiter=",", dtype=np.float32, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{what} '{path}' is not a table of numbers, expected {spatial_dims} comma-separated voxel coordinates per "
            "line and no header; check the file."
        ) from error
    if points.size == 0 or points.shape[1] != spatial_dims or not np.isfinite(points).all():
        raise InputError(
            f"{what} '{path}' holds {points.shape[0]} rows of {points.shape[1]} numbers, expected at least one row of "
            f"{spatial_dims} finite voxel coordinates; check the file."
        )
    return torch.from_numpy(points)


def _check_voxel_size(file: Path, what: str) -> None:
    """A NIfTI header has to tell how large a voxel is; readers take an edge of zero for 1 mm."""
    if not file.name.endswith((".nii", ".nii.gz")):
        return
    try:
        with ImageOpener(str(file)) as stream:
            header = nib.Nifti1Header.from_fileobj(stream, check=False)
    except Exception:  # no such header; what else is wrong with the file is told by its reader
        return
    spacing = header["pixdim"][1 : 1 + min(int(header["dim"][0]), 3)]
    if header["sform_code"] == 0 and not (spacing > 0).all():
        raise InputError(
            f"{what} '{file}' tells no spacing, its voxel size is {[float(s) for s in spacing]} mm; set the size in "
            "its header (pixdim) or convert it again from its source."
        )


def _check_correspondence(pair: Mapping[Hashable, Any], kind: str) -> None:
    """Point k of the fixed image must have its partner, point k of the moving one."""
    moving, fixed = pair.get(f"moving_{kind}"), pair.get(f"fixed_{kind}")
    if moving is not None and fixed is not None and len(moving) != len(fixed):
        raise InputError(
            f"moving {kind} has {len(moving)} points but fixed {kind} has {len(fixed)}, expected one partner for each; "
            "check the files."
        )


def _to_gray(values: torch.Tensor, mode: str | None, name: str) -> torch.Tensor:
    """Reduce a PNG with equal color channels, (X, Y, channels), to its one channel."""
    if mode not in COLOR_CHANNELS:
        return values
    colors = values[..., : COLOR_CHANNELS[mode]]
    if not bool((colors == colors[..., :1]).all()):
        raise InputError(f"{name} is a color picture, expected gray values; convert it to grayscale.")
    return colors[..., 0]


def _drop_trailing_axes(values: torch.Tensor, spatial_dims: int) -> torch.Tensor:
    """Remove trailing axes of length one that exceed ``spatial_dims``."""
    while values.ndim > spatial_dims and values.shape[-1] == 1:
        values = values[..., 0]
    return values


def _to_integer(values: torch.Tensor, name: str) -> torch.Tensor:
    """Cast whole-numbered labels to the smallest of uint8, int16 and int32 that holds them."""
    whole = values.round()
    if not bool(((values - whole).abs() <= LABEL_TOLERANCE).all()):  # also false for NaN
        raise InputError(f"{name} holds fractions, expected whole numbers; resample labels with nearest neighbor.")
    low, high = int(whole.min()), int(whole.max())
    for dtype in (torch.uint8, torch.int16):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return whole.to(dtype)
    return whole.to(torch.int32)


def _ras_affine(img: sitk.Image) -> np.ndarray[Any, Any]:
    """Voxel-to-RAS matrix of an ITK image, 4 x 4; slices lie in the plane z = 0."""
    d = img.GetDimension()
    affine = np.eye(4)
    affine[:d, :d] = np.reshape(img.GetDirection(), (d, d)) * np.asarray(img.GetSpacing())
    affine[:d, 3] = img.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
