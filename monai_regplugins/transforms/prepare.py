"""Preprocessing of loaded images: resampling onto one grid, intensity scaling, resizing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import ScaleIntensityRanged, Transform
from torch.nn import functional

from monai_regplugins.checks import (
    InputError,
    check_choice,
    check_image,
    check_same_size,
)
from monai_regplugins.grids import (
    as_meta_tensor,
    grids_overlap,
    map_points,
    plane_axis,
    rescaled_affine,
    same_affine,
    sample_affine,
    voxel_spacing,
    world_affine,
)
from monai_regplugins.io.linear_transform import read_linear_transforms
from monai_regplugins.keys import (
    IMAGE_KEYS,
    LABEL_KEYS,
    MASK_KEYS,
    POINT_KEYS,
    present,
    side_of,
)
from monai_regplugins.memory import REGISTERING, RESAMPLING, check_memory
from monai_regplugins.readers.dicom_series import same_frame_of_reference
from monai_regplugins.readers.image_grid import grid_of
from monai_regplugins.transforms.initial_alignment import alignment_name
from monai_regplugins.transforms.initial_alignment_choice import initial_matrix
from monai_regplugins.transforms.measured import exclude_padding, leave_out
from monai_regplugins.transforms.padding import extend_borders

__all__ = [
    "IsotropicSubjectd",
    "ResampleToFixedd",
    "ResizePaird",
    "ScalePaird",
    "ScaleRangePaird",
    "StandardizePaird",
    "isotropic_size",
    "resize_image",
]

logger = logging.getLogger(__name__)

ROBUST_RANGE = (0.05, 99.95)  # percent
MOST = 0.5  # of the voxels brighter than the mean; bones and contrast agent are a small part
MOVING_KEYS = ("moving", "moving_label", "moving_mask")
MOVING_POINTS = tuple(key for key in POINT_KEYS if side_of(key) == "moving")


class ResampleToFixedd(Transform):
    r"""Resample the moving image, label and mask onto the fixed grid, and map its points there, in world coordinates.

    With affines ``A_f``, ``A_m`` (voxels to RAS mm) and the initial alignment ``T`` (fixed world to moving world),
    fixed voxel ``x`` shows moving voxel ``A_m^-1 T A_f x``: linear for the image, nearest for label and mask. Outside
    the moving field of view label and mask are 0, the image is set by ``outside``. Nothing is resampled if the grids
    agree. Moving points become voxel coordinates of the fixed grid, so that ``x + ddf(x)`` compares with them.

    With ``keep_original``, fixed voxels that the moving image does not cover leave ``moving_mask``, which is made if
    the pair has none, and ``covered``, boolean, says which voxels it does cover, if not all.

    Adds ``spacing`` (d,), float32, mm of the fixed grid, and ``initial_alignment_matrix`` ``T`` (d + 1, d + 1),
    float64, RAS mm. A pair that has the matrix already is not aligned again.

    Args:
        initial_alignment: ``"none"``, ``"center"`` (of mass), ``"rigid"``, ``"similarity"`` or ``"affine"``, see
            :mod:`~monai_regplugins.transforms.initial_alignment`, or ``"auto"``, which takes an affine map or none by
            how well the images match and logs why. Masks count.
        keep_original: also keep the entries on the moving grid, as ``moving_original``, ``moving_label_original``,
            ``moving_mask_original`` and ``<points>_original``, for a single interpolation at the end.
        outside: value outside of the moving image: its ``"minimum"``, for scans with air around the body, or
            ``"border"``, the nearest border value, for crops of the body, where the minimum would create an edge.
        lowest: values below this are padding, -1024 in CT; None leaves what the file states, see
            :func:`~monai_regplugins.transforms.measured.exclude_padding`.
        initial_transform: file of a linear transform from the fixed to the moving world, or several, the first of which
            meets a point first, see :func:`~monai_regplugins.io.linear_transform.read_linear_transforms`. The
            alignment begins there.
        extend_border: replace a constant frame around each image by its nearest voxels before the moving one is
            resampled, see :func:`~monai_regplugins.transforms.padding.extend_borders`; ``outside`` is ``"border"``
            then. With ``keep_original`` the frames leave the masks, and ``moving_original`` keeps its frame.

    Example:
        >>> from monai.data import MetaTensor
        >>> coarse = MetaTensor(torch.rand(1, 4, 4), torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
        >>> ResampleToFixedd()({"fixed": MetaTensor(torch.rand(1, 8, 8)), "moving": coarse})["moving"].shape
        torch.Size([1, 8, 8])
    """

    def __init__(
        self,
        initial_alignment: str = "none",
        keep_original: bool = False,
        outside: str = "minimum",
        lowest: float | None = None,
        initial_transform: str | Sequence[str] = "",
        extend_border: bool = False,
    ) -> None:
        check_choice(outside, ("minimum", "border"), "outside")
        self.initial_alignment = alignment_name(initial_alignment)
        self.initial_transform = initial_transform
        self.outside, self.lowest = "border" if extend_border else outside, lowest
        self.keep_original, self.extend_border = keep_original, extend_border

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring the moving entries of a pair onto the fixed grid.

        Args:
            data: a loaded pair, images of shape ``(1, *spatial)`` with their own affines.

        Raises:
            InputError: When an affine is sheared or singular, 2D slices lie in different planes, the images do not
                overlap, or the fixed grid is larger than the memory allows to resample onto, or, with
                ``keep_original``, to register on.
        """
        pair: dict[Hashable, Any] = dict(data)
        exclude_padding(pair, self.lowest)
        moving, fixed = pair["moving"], pair["fixed"]
        d = fixed.ndim - 1
        work = (REGISTERING, "register") if self.keep_original else (RESAMPLING, "resample")
        check_memory(fixed.shape[1:], work[0], "the grid of the fixed image", work[1])
        moving_affine, fixed_affine = (world_affine(pair[key].affine, d, f"{key} image") for key in IMAGE_KEYS)
        _check_common_plane(moving.affine, fixed.affine, d)
        # by the images with their frames: crops around an organ hint at where it lies
        known = pair.get("initial_alignment_matrix")
        matrix = self._initial_alignment(pair, fixed_affine, moving_affine) if known is None else known
        given = pair["moving"]
        if self.extend_border:
            extend_borders(pair, mask=self.keep_original)
        if self.keep_original:
            kept = present(pair, MOVING_KEYS, MOVING_POINTS)
            pair.update({f"{key}_original": pair[key] for key in kept} | {"moving_original": given})
        pair["initial_alignment_matrix"] = matrix
        pair["spacing"] = voxel_spacing(fixed_affine, d)
        moved_affine = torch.linalg.inv(matrix) @ moving_affine  # where the moving voxels lie in the fixed world
        if moving.shape == fixed.shape and same_affine(fixed_affine, moved_affine, fixed.shape[1:]):
            for key in present(pair, MOVING_KEYS):
                pair[key] = as_meta_tensor(pair[key].as_tensor(), fixed.affine, pair[key].meta)
        else:
            _resample(pair, torch.linalg.inv(moved_affine) @ fixed_affine, self.outside, mask=self.keep_original)
        return pair

    def _initial_alignment(
        self, pair: Mapping[Hashable, Any], fixed_affine: torch.Tensor, moving_affine: torch.Tensor
    ) -> torch.Tensor:
        """The alignment, behind the transforms that were given."""
        given = self._given(pair, len(fixed_affine) - 1)
        fixed, moving = (pair[key].as_tensor() for key in ("fixed", "moving"))
        masks: dict[str, Any] = {key: pair[key].as_tensor() for key in present(pair, MASK_KEYS)}
        same_frame = same_frame_of_reference(pair["fixed"], pair["moving"])
        moved_affine = torch.linalg.inv(given) @ moving_affine
        return given @ initial_matrix(
            self.initial_alignment, fixed, fixed_affine, moving, moved_affine, same_frame=same_frame, **masks
        )

    def _given(self, pair: Mapping[Hashable, Any], spatial_dims: int) -> torch.Tensor:
        """The transforms that were given, identity without any."""
        if not self.initial_transform:
            return torch.eye(spatial_dims + 1, dtype=torch.float64)
        fixed, moving = grid_of(pair["fixed"]), grid_of(pair["moving"])
        return torch.from_numpy(
            read_linear_transforms(self.initial_transform, spatial_dims, fixed.itk, moving.itk, fixed, moving)
        )


class ScalePaird(Transform):
    """Clip both images to an intensity window, then scale each to [0, 1] by its own minimum and maximum.

    Source: Zheng et al. 2022, with the window [-100, 300] HU for abdominal CT. Without a window each is clipped to its
    percentiles 0.05 and 99.95, for one bright voxel must not scale the rest away: those of the voxels that the moving
    image covers, for what fills the others is no value of it. Adds ``moving_window`` (2,), float32,
    the bounds of the moving image. A window that clips most of what is brighter than the mean is reported in one line.

    Args:
        window: lower and upper bound, in the unit of the images; None or empty for the percentiles.

    Example:
        >>> from monai.data import MetaTensor
        >>> image = MetaTensor(torch.tensor([[[-1000.0, 0.0, 100.0, 900.0]]]))
        >>> ScalePaird(window=[-100, 300])({"moving": image, "fixed": image})["fixed"].as_tensor()
        tensor([[[0.0000, 0.2500, 0.5000, 1.0000]]])
    """

    def __init__(self, window: Sequence[float] | None = None) -> None:
        if window and (len(window) != 2 or not window[0] < window[1]):
            raise InputError(f"window is {list(window)}, expected [lower, upper] with lower < upper; give two numbers.")
        self.window = window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale the intensities of a pair.

        Args:
            data: a pair with images of shape ``(1, *spatial)``.

        Raises:
            InputError: When an image is constant, in the window or at all.
        """
        pair: dict[Hashable, Any] = dict(data)
        for key in IMAGE_KEYS:
            image = pair[key].as_tensor().to(torch.float32)
            name = f"{key} image"
            if self.window:
                _report_clipping(image, self.window, name)
                name += f" clipped to window {list(self.window)}"
            check_image(image, f"{key} image", image.ndim - 1)
            window = self.window or _robust_range(_shared(pair, image))
            image = image.clamp(*window)
            check_image(image, name, image.ndim - 1)
            low, high = image.min(), image.max()
            pair[key] = as_meta_tensor((image - low) / (high - low), pair[key].affine, pair[key].meta)
            if key == "moving":
                pair["moving_window"] = torch.tensor(window, dtype=torch.float32)
        return pair


class ScaleRangePaird(ScaleIntensityRanged):
    """Map an intensity interval to [0, 1] in both images, without clipping.

    Source: Sokooti et al. 2017, [-1000, 3095] HU for chest CT.

    Args:
        intensity_range: the intensities that become 0 and 1.

    Example:
        >>> pair = ScaleRangePaird([-1000.0, 1000.0])({"moving": torch.zeros(1, 4, 4), "fixed": torch.ones(1, 4, 4)})
        >>> float(pair["moving"].max())
        0.5
    """

    def __init__(self, intensity_range: Sequence[float]) -> None:
        low, high = intensity_range
        super().__init__(IMAGE_KEYS, low, high, 0.0, 1.0)


def _shared(pair: Mapping[Hashable, Any], image: torch.Tensor) -> torch.Tensor:
    """The values of an image of a pair where the moving one covers the grid; all if these are constant."""
    covered = pair.get("covered")
    values = image if covered is None else image[covered.as_tensor()]
    return values if len(values) and bool(values.min() < values.max()) else image


def _robust_range(image: torch.Tensor) -> tuple[float, float]:
    """The percentiles that the image is clipped to, or its range, where these are equal."""
    low, high = np.percentile(image.numpy(), ROBUST_RANGE, method="nearest").tolist()
    return (low, high) if low < high else (float(image.min()), float(image.max()))


def _report_clipping(image: torch.Tensor, window: Sequence[float], name: str) -> None:
    """Warn about a window that clips most of the image."""
    bright = image[image > image.mean(dtype=torch.float64)]
    share = float((bright > window[1]).float().mean()) if len(bright) else 0.0
    if share > MOST:
        logger.warning(
            "the window %s clips %.0f %% of the brighter part of the %s (median %.4g): is it in another unit, such as "
            "stored CT values without their intercept of -1024? Give the window of these values, or convert them.",
            list(window),
            100 * share,
            name,
            float(bright.median()),
        )


class StandardizePaird(Transform):
    """Standardize each image to mean 0 and standard deviation 1, and clip outliers.

    As for R2N2 (Sandkühler et al. 2019, authors' code: unbiased deviation, clipped at 2 deviations). Mean and deviation
    are those of the voxels that the moving image covers, for what fills the others is no value of it. Adds
    ``moving_window`` (2,), float32, the values of the moving image at which it was clipped, if it was.

    Args:
        clip: largest absolute value; None does not clip.

    Example:
        >>> from monai.data import MetaTensor
        >>> image = MetaTensor(torch.tensor([[[0.0, 1.0, 2.0]]]))
        >>> StandardizePaird()({"moving": image, "fixed": image})["fixed"].as_tensor()
        tensor([[[-1.,  0.,  1.]]])
    """

    def __init__(self, clip: float | None = 2.0) -> None:
        self.clip = clip

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Standardize ``moving`` and ``fixed``, each by itself.

        Args:
            data: pair with images of shape ``(1, *spatial)``.

        Raises:
            InputError: When an image is constant or not finite.
        """
        pair: dict[Hashable, Any] = dict(data)
        for key in IMAGE_KEYS:
            image = pair[key].as_tensor().to(torch.float32)
            check_image(image, f"{key} image", image.ndim - 1)
            shared = _shared(pair, image)
            mean, deviation = shared.mean(), shared.std()
            values = (image - mean) / deviation
            clipped = values if self.clip is None else values.clamp(-self.clip, self.clip)
            pair[key] = as_meta_tensor(clipped, pair[key].affine, pair[key].meta)
            if key == "moving" and self.clip is not None:
                pair["moving_window"] = torch.stack([mean - self.clip * deviation, mean + self.clip * deviation])
        return pair


class ResizePaird(Transform):
    """Resize a pair, cell-centered: new = (old + 0.5) * new size / old size - 0.5.

    The field of view stays, so affines, ``spacing`` and points follow. Images shrunk by a whole factor are averaged
    (no aliasing), else interpolated linearly; labels and masks take the nearest voxel.

    Args:
        spatial_size: voxels along each axis, -1 keeps an axis; one number for all axes.

    Example:
        >>> from monai.data import MetaTensor
        >>> pair = {key: MetaTensor(torch.rand(1, 8, 8)) for key in ("moving", "fixed")}
        >>> ResizePaird([4, -1])(pair)["fixed"].shape
        torch.Size([1, 4, 8])
    """

    def __init__(self, spatial_size: int | Sequence[int]) -> None:
        self.spatial_size = spatial_size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize all entries of a pair alike.

        Args:
            data: a pair on one grid, images of shape ``(1, *spatial)``.

        Raises:
            InputError: When the images differ in size, or ``spatial_size`` does not fit them.
        """
        pair: dict[Hashable, Any] = dict(data)
        check_same_size(pair["moving"], pair["fixed"], "moving image", "fixed image")
        old = tuple(pair["fixed"].shape[1:])
        new = self._target(old)
        if new == old:
            return pair
        for key in present(pair, IMAGE_KEYS, LABEL_KEYS, MASK_KEYS):
            resized = resize_image(pair[key].as_tensor(), new, nearest=key not in IMAGE_KEYS)
            pair[key] = as_meta_tensor(resized, rescaled_affine(pair[key].affine, old, new), pair[key].meta)
        scale = torch.tensor([n / o for n, o in zip(new, old, strict=True)], dtype=torch.float32)
        for key in present(pair, POINT_KEYS):
            pair[key] = (pair[key] + 0.5) * scale - 0.5
        if "spacing" in pair:
            pair["spacing"] = pair["spacing"] / scale
        return pair

    def _target(self, old: tuple[int, ...]) -> tuple[int, ...]:
        """The new size, with -1 filled in."""
        size = (self.spatial_size,) * len(old) if isinstance(self.spatial_size, int) else tuple(self.spatial_size)
        if len(size) != len(old) or any(n < 1 and n != -1 for n in size):
            raise InputError(
                f"spatial_size is {list(size)}, expected {len(old)} numbers of voxels (-1 keeps an axis); change it."
            )
        return tuple(o if n == -1 else int(n) for n, o in zip(size, old, strict=True))


class IsotropicSubjectd(Transform):
    """Bring ``image`` and ``mask`` to isotropic voxels, as :class:`ResizePaird` resizes a pair.

    Args:
        voxel_size: edge of the new voxels in mm.

    Raises:
        InputError: When ``voxel_size`` is not above 0.

    Example:
        >>> from monai.data import MetaTensor
        >>> subject = {"image": MetaTensor(torch.rand(1, 8, 8)), "spacing": torch.tensor([1.0, 2.0])}
        >>> IsotropicSubjectd(2.0)(subject)["image"].shape
        torch.Size([1, 4, 8])
    """

    def __init__(self, voxel_size: float) -> None:
        if not voxel_size > 0:
            raise InputError(f"voxel_size is {voxel_size}, expected a number of mm above 0; the paper's is 1.")
        self.voxel_size = voxel_size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize a single image, its mask and its ``spacing``.

        Args:
            data: an image of shape ``(1, *spatial)`` and its spacing (d,), from
                :class:`~monai_regplugins.transforms.LoadSubjectd`.
        """
        item: dict[Hashable, Any] = dict(data)
        old = tuple(item["image"].shape[1:])
        new = isotropic_size(old, item["spacing"], self.voxel_size)
        if new == list(old):
            return item
        for key in present(item, ("image", "mask")):
            resized = resize_image(item[key].as_tensor(), new, nearest=key == "mask")
            item[key] = as_meta_tensor(resized, rescaled_affine(item[key].affine, old, new), item[key].meta)
        item["spacing"] = item["spacing"] * torch.tensor([o / n for n, o in zip(new, old, strict=True)])
        return item


def isotropic_size(size: Sequence[int], spacing: Sequence[float] | torch.Tensor, voxel_size: float) -> list[int]:
    """Number of isotropic voxels along each axis that comes closest to the extent of an image, at least one."""
    return [max(1, round(n * float(s) / voxel_size)) for n, s in zip(size, spacing, strict=True)]


def resize_image(image: torch.Tensor, spatial_size: Sequence[int], nearest: bool = False) -> torch.Tensor:
    """Resize ``(C, *spatial)`` to ``spatial_size``, cell-centered; the dtype is kept.

    Axes that shrink by a whole factor are averaged first, the others are interpolated linearly after that; with
    ``nearest`` the voxel that holds the new center is taken.
    """
    size = [int(n) for n in spatial_size]
    if nearest:
        return _nearest_voxels(image, size)
    values = image[None].to(torch.promote_types(image.dtype, torch.float32))
    pool, linear = _AVERAGE_AND_LINEAR[len(size)]
    averaged = [new if old % new == 0 else old for old, new in zip(image.shape[1:], size, strict=True)]
    if averaged != list(image.shape[1:]):  # else it is a copy
        values = pool(values, averaged)
    return functional.interpolate(values, size=size, mode=linear, align_corners=False)[0].to(image.dtype)


def _nearest_voxels(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The voxels that hold the new centers, copied whatever their type: ``floor((new + 0.5) old / new size)``."""
    for axis, new in enumerate(size, start=1):
        index = (2 * torch.arange(new, device=image.device) + 1) * image.shape[axis] // (2 * new)
        image = image.index_select(axis, index)
    return image


_AVERAGE_AND_LINEAR: dict[int, tuple[Callable[..., torch.Tensor], str]] = {
    2: (functional.adaptive_avg_pool2d, "bilinear"),
    3: (functional.adaptive_avg_pool3d, "trilinear"),
}


def _check_common_plane(moving_affine: torch.Tensor, fixed_affine: torch.Tensor, spatial_dims: int) -> None:
    """Slices in 3D world coordinates must both be axial, both coronal or both sagittal."""
    if spatial_dims == 2 and moving_affine.shape[0] == fixed_affine.shape[0] == 4:
        moving, fixed = plane_axis(moving_affine, "moving image"), plane_axis(fixed_affine, "fixed image")
        if moving != fixed:
            raise InputError(
                f"the slices lie in different planes (normal to {'xyz'[moving]} and {'xyz'[fixed]}), expected one; "
                "give two axial, two coronal or two sagittal slices."
            )


def _leave_out_uncovered(pair: dict[Hashable, Any], matrix: torch.Tensor, size: torch.Size) -> None:
    """Take fixed voxels that the moving image does not cover out of its mask, which lies on the fixed grid."""
    shape = tuple(pair["fixed"].shape[1:])
    covered = sample_affine(torch.tensor(True).expand(1, *size), matrix, shape, "nearest", 0.0)
    if not bool(covered.all()):
        leave_out(pair, "moving", covered)
        pair["covered"] = as_meta_tensor(covered, pair["fixed"].affine, pair["fixed"].meta)


def _resample(pair: dict[Hashable, Any], matrix: torch.Tensor, outside: str, mask: bool) -> None:
    """Replace the moving entries of ``pair`` through ``matrix``, fixed voxels to moving voxels."""
    size = pair["moving"].shape[1:]
    fixed, shape = pair["fixed"], tuple(pair["fixed"].shape[1:])
    if not grids_overlap(matrix, shape, pair["moving"].shape[1:]):
        raise InputError(
            "the moving and the fixed image do not overlap in world coordinates; check their headers or use "
            "initial_alignment='center'."
        )
    beyond = float(pair["moving"].min()) if outside == "minimum" else None
    for key in present(pair, MOVING_KEYS):
        image = pair[key].as_tensor()
        mode, padding = ("linear", beyond) if key == "moving" else ("nearest", 0.0)
        sampled = sample_affine(image, matrix, shape, mode, padding)
        pair[key] = as_meta_tensor(sampled, fixed.affine, pair[key].meta)
    for key in present(pair, MOVING_POINTS):
        pair[key] = map_points(pair[key], torch.linalg.inv(matrix))
    if mask:
        _leave_out_uncovered(pair, matrix, size)
