"""Load image pairs, labels, masks and points, with input validation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from monai_regplugins.checks import (
    InputError,
    check_affine,
    check_choice,
    check_image,
    check_mask,
    check_same_size,
)
from monai_regplugins.grids import (
    as_meta_tensor,
    grids_overlap,
    same_affine,
    sample_affine,
    voxel_spacing,
    world_affine,
)
from monai_regplugins.keys import (
    IMAGE_KEYS,
    LABEL_KEYS,
    MASK_KEYS,
    POINT_KEYS,
    present,
    side_of,
)
from monai_regplugins.readers.images import (
    Scan,
    SimpleITKReader,
    as_scan,
    check_readable,
    in_memory,
    read_scan,
    real_values,
)
from monai_regplugins.readers.itk_world import itk_world_of
from monai_regplugins.readers.phases import Phase
from monai_regplugins.readers.pictures import PICTURE_SUFFIXES
from monai_regplugins.readers.points import HOW_MM_BECOME_VOXELS, POINT_SPACES, points_in_voxels, read_points
from monai_regplugins.transforms.pair_log import pair_logger

__all__ = ["LoadPaird", "LoadSubjectd", "SimpleITKReader", "load_points", "onto_grid"]

logger = pair_logger(__name__)

COMPANIONS = ("label", "mask", "keypoints", "landmarks")
LABEL_TOLERANCE = 1e-3  # scaled headers give 0.99998 for label 1
MANY_LABELS = 64  # of a label map that may be an image
SHARED = 0.5  # of neighbors that a label map's structures share, at least
POINT_MARGIN = 1.0  # voxels; partners found at the border of an image may end a little beyond it


class LoadPaird(Transform):
    """Load the files of a pair: images, labels, masks and points. Arrays and tensors are accepted in place of files.

    Images become float32, labels uint8 (int16, int32 or int64 where their values need it), masks uint8 (0, 1); all are
    :class:`~monai.data.MetaTensor` of shape ``(1, *spatial)`` with a voxel-to-RAS affine. Points are voxel
    coordinates, or mm in files of 3D Slicer, ANTs and elastix, and become float32 tensors (N, d) of voxels. Axes of
    length one beyond ``spatial_dims`` are dropped. Other keys stay as they are.

    Reads NIfTI, PNG (grayscale, also when stored as color), NRRD/MetaImage, MGH, TIFF and, for the images themselves,
    OME-Zarr and DICOM, ``fixed_phase`` and ``moving_phase`` naming the volume of an image with several. DICOM is the
    folder of a series or one of its files. Which series that was stays in the image's metadata, see
    :func:`~monai_regplugins.readers.dicom_series.series_of`.

    Arrays and tensors in the place of a path have the shape ``(*spatial)`` or ``(1, *spatial)``, points (N, d). A
    MetaTensor lies where its affine says, in the ``space`` of its metadata (RAS or LPS), any other image on the grid of
    identity, a label map or mask on that of its image.

    A label map or mask on another grid, placed by its header in the same world, is brought onto that of its image, see
    :func:`onto_grid`. What has no position, such as a picture, has to have the size of its image.

    Args:
        spatial_dims: 2 or 3.
        companions: what to load beside the images, any of ``label``, ``mask``, ``keypoints``, ``landmarks``; the other
            companions of the pair are dropped.
        points_space: what the numbers in files of points are, ``voxel``, ``ras`` or ``lps``; None for what the file
            says, in a plain table voxels.

    Raises:
        InputError: When a companion or a space is unknown.

    Example:
        >>> pair = {"moving": torch.rand(8, 8), "fixed": torch.rand(9, 9), "pair_id": "a_to_b"}  # or paths of files
        >>> LoadPaird(spatial_dims=2)(pair)["moving"].shape
        torch.Size([1, 8, 8])
    """

    def __init__(
        self, spatial_dims: int = 3, companions: Sequence[str] = COMPANIONS, points_space: str | None = None
    ) -> None:
        for companion in companions:
            check_choice(companion, COMPANIONS, "companion")
        if points_space is not None:
            check_choice(points_space, POINT_SPACES, "points_space")
        self.points_space = points_space
        self.spatial_dims = spatial_dims
        self._dropped = {f"{side}_{kind}" for kind in COMPANIONS if kind not in companions for side in IMAGE_KEYS}
        self._files = _Files(spatial_dims)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the files of one pair.

        Args:
            data: paths, arrays or tensors under ``moving`` and ``fixed``, and any of their ``_label``, ``_mask``,
                ``_keypoints``, ``_landmarks``.

        Raises:
            InputError: When a file is missing, unreadable, of the wrong dimension, outside of its image, or
                holds nothing to register (NaN, constant, empty); when points lie outside their image or point lists
                do not correspond.
        """
        pair: dict[Hashable, Any] = {key: value for key, value in data.items() if key not in self._dropped}
        for key in IMAGE_KEYS:
            if key not in pair:
                found = sorted(map(str, pair))
                raise InputError(f"the pair has no '{key}', found {found}; give the path of the image.")
            option = f"{key}_phase"
            pair[key] = self._files.image(pair[key], f"{key} image", Phase(str(pair.get(option, "")), option))
        _report_files(data)
        for read, keys in ((self._files.label, LABEL_KEYS), (self._files.mask, MASK_KEYS)):
            for key in present(pair, keys):
                side = side_of(key)
                pair[key] = read(pair[key], key.replace("_", " "), pair[side], f"{side} image")
        for key in present(pair, POINT_KEYS):
            name = _named(key.replace("_", " "), pair[key])
            image, what = pair[side_of(key)], key.replace("_", " ")
            points = load_points(pair[key], self.spatial_dims, what, image, self.points_space)
            _check_inside(points, pair[side_of(key)], name, f"{side_of(key)} image")
            pair[key] = points
        for kind in ("keypoints", "landmarks"):
            _check_correspondence(pair, kind)
        return pair


class LoadSubjectd(Transform):
    """Load a single image, ``image``, and its ``mask`` if it has one, as :class:`LoadPaird` loads those of a pair.

    Adds ``spacing`` (d,), float32, mm. Other keys stay as they are.

    Args:
        spatial_dims: 2 or 3.

    Example:
        >>> LoadSubjectd(spatial_dims=2)({"image": torch.rand(8, 8)})["image"].shape
        torch.Size([1, 8, 8])
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

    def image(self, source: Any, what: str, phase: Phase | None = None) -> MetaTensor:
        """Load one image, shape ``(1, *spatial)``, float32."""
        scan, name = self._read(source, what, phase=phase), _named(what, source)
        image = as_meta_tensor(scan.values, scan.affine, scan.meta)
        check_image(image, name, self.spatial_dims)
        check_affine(image.affine, what)
        if 1 in image.shape[1:]:
            advice = ", or register it in 2D, with the bundle r2n2" if self.spatial_dims == 3 else ""
            raise InputError(
                f"{name} is a single slice (shape {tuple(image.shape[1:])}), expected a {self.spatial_dims}D "
                f"image of two voxels or more along each axis; give the whole image{advice}."
            )
        return image

    def label(self, source: Any, what: str, image: MetaTensor, whose: str) -> MetaTensor:
        """Load a label map of ``image``, which ``whose`` names, onto its grid."""
        label, name = self._map(source, what, image, whose), _named(what, source)
        values = _to_integer(label.as_tensor(), name)
        check_mask(values != 0, name)
        if number := _labels_of_an_image(values):
            logger.warning(
                "%s has %d different labels, of which neighbors rarely share one, as in an image: is it a label map?",
                name,
                number,
                extra={"file": name.partition("'")[2]},
            )
        return as_meta_tensor(values, image.affine, label.meta)

    def mask(self, source: Any, what: str, image: MetaTensor, whose: str) -> MetaTensor:
        """Load a mask in the same way: 1 where it is above 0."""
        mask = self._map(source, what, image, whose)
        values = mask.as_tensor() > 0
        check_mask(values, _named(what, source))
        return as_meta_tensor(values.to(torch.uint8), image.affine, mask.meta)

    def _map(self, source: Any, what: str, image: MetaTensor, whose: str) -> MetaTensor:
        """Read a map, int64 or float64, onto the grid of ``image``."""
        name = _named(what, source)
        if not in_memory(source):
            check_readable(source, what)  # a folder would be read as a DICOM series
        scan = self._read(source, what, image.affine, exact=True)
        label = as_meta_tensor(scan.values, scan.affine, scan.meta)
        shape, same_axes = image.shape[1:], label.ndim == image.ndim and len(label) == 1
        if label.shape == image.shape and same_affine(scan.affine, image.affine, shape):
            return label
        if not (scan.placed and same_axes):
            check_same_size(label, image, name, f"the {whose}")
            raise InputError(
                f"{name} has another affine than the {whose} and no position of its own; save it with the header of "
                "the image that it was drawn on."
            )
        return onto_grid(label, image, name, whose)

    def _read(
        self,
        source: Any,
        what: str,
        affine: torch.Tensor | None = None,
        exact: bool = False,
        phase: Phase | None = None,
    ) -> Scan:
        """Read a file of any format as ``(C, *spatial)`` with a 4 x 4 affine, or take what is in memory."""
        if in_memory(source):
            if phase is not None and phase.name:
                raise InputError(f"{what} is an array, but {phase.option} is given; give the volume that is meant.")
            scan = as_scan(source, what, affine, exact)
            values = scan.values[0] if scan.values.shape[: -self.spatial_dims] == (1,) else scan.values
        else:
            scan = read_scan(source, what, self.spatial_dims, exact, phase)
            values = scan.values
        values, matrix = _without_single_axes(values, scan.affine, self.spatial_dims)
        return scan._replace(values=values[None], affine=matrix)


def onto_grid(label: MetaTensor, image: MetaTensor, name: str, whose: str) -> MetaTensor:
    """Bring a label map or mask of the same world onto the grid of its image, each voxel from the nearest one.

    Where all voxels coincide, as with axes that are flipped or permuted, or a part that was cut out, this is exact.

    Args:
        label: shape ``(1, *spatial)``, any type.
        image: shape ``(1, *spatial)``.
        name: what the label is, for messages.
        whose: what the image is.

    Raises:
        InputError: When the label's affine is sheared or singular, or it lies outside of the image.
    """
    check_affine(label.affine, name)
    shape = (*image.shape[1:], 1)[:3]  # a slice as a volume of one
    matrix = torch.linalg.inv(label.affine.double()) @ image.affine.double()
    whole = matrix.round()
    coincide = bool((whole[:3, :3].abs().sum(dim=0) == 1).all()) and same_affine(whole, matrix, shape)
    volume = label.as_tensor().reshape(1, *(*label.shape[1:], 1)[:3])
    if not grids_overlap(matrix, shape, volume.shape[1:]):
        raise InputError(
            f"{name} lies outside of the {whose} by their headers, expected a label of this image; check which image "
            "it belongs to."
        )
    sampled = sample_affine(volume, whole if coincide else matrix, shape, "nearest", 0.0)
    lost = int(volume.count_nonzero()) - int(sampled.count_nonzero())
    file = {"file": name.partition("'")[2]}
    if not coincide:
        logger.warning("%s has other voxels than the %s; each voxel takes the nearest label.", name, whose, extra=file)
    elif lost > 0:
        logger.warning("%s goes beyond the %s; %d of its voxels are left out.", name, whose, lost, extra=file)
    else:
        logger.info("%s lies on another grid than the %s, whose voxels coincide.", name, whose, extra=file)
    return as_meta_tensor(sampled.reshape(image.shape), image.affine, label.meta)


def _report_files(pair: Mapping[Hashable, Any]) -> None:
    """Warn of what the files of a pair say of it: one file twice, pictures without pixel size."""
    files = [None if in_memory(pair[key]) else Path(pair[key]) for key in IMAGE_KEYS]
    phases = {str(pair.get(f"{key}_phase", "")) for key in IMAGE_KEYS}
    if None not in files and len({file.resolve() for file in files if file}) == len(phases) == 1:
        logger.warning("fixed and moving image are one file, '%s'.", files[0])
    pictures = [file for file in files if file and file.name.lower().endswith(PICTURE_SUFFIXES)]
    if len(pictures) == 1:
        logger.warning("'%s' is a picture, without pixel size and orientation; the other image is none.", pictures[0])
    elif pictures:
        logger.warning(
            "pictures, such as '%s', state no pixel size: a pixel counts as 1 mm.", pictures[-1], extra={"file": "any"}
        )


def _labels_of_an_image(labels: torch.Tensor) -> int:
    """The number of labels where they are many and lie like the intensities of an image, else 0."""
    if int(labels.max()) - int(labels.min()) < MANY_LABELS:
        return 0
    before, after = labels[:, :-1], labels[:, 1:]
    inside = (before != 0) & (after != 0)
    alike = int(((before == after) & inside).count_nonzero())
    number = len(labels.unique()) if alike < SHARED * int(inside.count_nonzero()) else 0
    return number if number > MANY_LABELS else 0


def _named(what: str, source: Any) -> str:
    """Name an image or points for a message: by the path, if there is one."""
    return what if in_memory(source) else f"{what} '{source}'"


def load_points(
    source: Any, spatial_dims: int, what: str, image: MetaTensor | None = None, space: str | None = None
) -> torch.Tensor:
    """Read points as voxels of their image, from any file of :mod:`~monai_regplugins.readers.points`.

    Args:
        source: the path, or the points themselves, an array or a tensor (N, d) of voxel coordinates.
        spatial_dims: ``d``.
        what: what the points are, e.g. ``"fixed keypoints"``.
        image: their image, ``(1, *spatial)``, which files in mm need.
        space: what the numbers of a file are, ``voxel``, ``ras`` or ``lps``; None for what it says, else voxels.

    Returns:
        Points of shape (N, d), float32, voxels.

    Raises:
        InputError: When the file is missing, holds anything but ``d`` finite numbers per line, or no point.
    """
    if in_memory(source):
        points = real_values(source, what)
    else:
        found = read_points(check_readable(source, what), what, space)
        if found.space != "voxel" and image is None:
            raise InputError(f"{what} '{source}' is in mm ({found.space}), expected voxels; give their image too.")
        if found.space != "voxel" and image is not None:
            affine = world_affine(image.affine, spatial_dims, "the image").numpy()
            found = found._replace(points=points_in_voxels(found, affine, itk_world_of(image)))
        points = torch.from_numpy(found.points).float()
    if points.numel() == 0 or points.shape[1:] != (spatial_dims,) or not bool(points.isfinite().all()):
        raise InputError(
            f"{_named(what, source)} holds {' x '.join(map(str, points.shape))} numbers, expected at least one row of "
            f"{spatial_dims} finite voxel coordinates; {HOW_MM_BECOME_VOXELS}."
        )
    return points


def _check_inside(points: torch.Tensor, image: MetaTensor, name: str, whose: str) -> None:
    """Points have to lie in the field of view of their image, whose border is half a voxel beyond the last centers."""
    shape = tuple(image.shape[1:])
    margin = 0.5 + POINT_MARGIN
    outside = ((points < -margin) | (points > torch.tensor(shape) - 1 + margin)).any(dim=1)
    if bool(outside.any()):
        first = points[outside][0].tolist()
        raise InputError(
            f"{name} holds {int(outside.sum())} points outside the {whose}, such as {first} (it has "
            f"{' x '.join(map(str, shape))} voxels), expected voxel coordinates from 0; "
            f"{HOW_MM_BECOME_VOXELS}."
        )


def _check_correspondence(pair: Mapping[Hashable, Any], kind: str) -> None:
    """Point k of the fixed image must have its partner, point k of the moving one."""
    moving, fixed = pair.get(f"moving_{kind}"), pair.get(f"fixed_{kind}")
    if moving is not None and fixed is not None and len(moving) != len(fixed):
        raise InputError(
            f"moving {kind} has {len(moving)} points but fixed {kind} has {len(fixed)}, expected one partner for each; "
            "check the files."
        )


def _without_single_axes(
    values: torch.Tensor, affine: torch.Tensor, spatial_dims: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Remove axes of length one that exceed ``spatial_dims``, the last ones first.

    A slice in 2D may be any of the three axes, which then becomes the third one of the matrix.
    """
    while values.ndim > max(spatial_dims, 3) and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 3 and spatial_dims == 2 and 1 in values.shape:
        single = max(axis for axis in range(3) if values.shape[axis] == 1)
        order = [*(axis for axis in range(3) if axis != single), single, 3]
        values, affine = values.squeeze(single), affine[:, order] if affine.shape[-1] == 4 else affine
    return values, affine


def _to_integer(values: torch.Tensor, name: str) -> torch.Tensor:
    """Cast whole-numbered labels to the smallest of uint8, int16, int32 and int64 that holds them."""
    whole = values.round() if values.is_floating_point() else values
    if not bool(((values - whole).abs() <= LABEL_TOLERANCE).all()):  # also false for NaN
        raise InputError(f"{name} holds fractions, expected whole numbers; resample labels with nearest neighbor.")
    low, high = whole.min().item(), whole.max().item()
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return whole.to(dtype)
    raise InputError(f"{name} holds labels from {low:g} to {high:g}, expected 64 bits at most; renumber them.")
