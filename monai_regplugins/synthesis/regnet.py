r"""RegNet's training windows and validation pairs, made from single images (Sokooti et al. 2017, Section 2.2).

An image I and a random field u give a pair whose truth is known: ``moving = I`` and ``fixed(x) = I(x + u(x))`` plus
noise. Half of the pairs start from a deformed image instead, ``moving(x) = I(x + n(x))`` with a field n of its own, so
that ``fixed(x) = moving(x + u(x)) = I(y + n(y))`` with ``y = x + u(x)``. Both fields have closed forms; each image is
interpolated once, by cubic B-splines, and only where it is needed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import RandomizableTransform, Transform
from monai.utils import ensure_tuple

from monai_regplugins.checks import (
    InputError,
    check_choice,
    check_image,
    check_mask,
    check_same_size,
)
from monai_regplugins.fields import identity_grid, warp
from monai_regplugins.grids import as_meta_tensor
from monai_regplugins.networks.nets.regnet import MARGIN_BEFORE, STRIDE, window_size
from monai_regplugins.synthesis.bspline_image import bspline_coefficients, bspline_sample
from monai_regplugins.synthesis.regnet_fields import (
    PRESETS,
    FieldPreset,
    GaussianField,
    Rng,
    random_field,
)

__all__ = ["RandSyntheticWindowd", "SplineCoefficientsd", "SyntheticPaird", "synthetic_cases"]

NEXT = "next"  # the preset that deforms the moving image itself
CANDIDATES = 4096  # voxels drawn at a time in search of one inside the mask or a band


class SplineCoefficientsd(Transform):
    """Add ``coefficients``, the B-spline coefficients of ``image``: computed once if the item is cached from here on.

    Args:
        image_key: key of the image.
        coefficients_key: key of the result, ``(1, *spatial)`` float32, a plain tensor.

    Example:
        >>> SplineCoefficientsd()({"image": torch.rand(1, 8, 8)})["coefficients"].shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, image_key: str = "image", coefficients_key: str = "coefficients") -> None:
        self.image_key = image_key
        self.coefficients_key = coefficients_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the coefficients.

        Raises:
            InputError: When the image is not 2D or 3D, has more than one channel, is constant or not finite.
        """
        image = _plain(data[self.image_key])
        check_image(image, "image", 2 if image.ndim == 3 else 3)
        return {**data, self.coefficients_key: bspline_coefficients(image)}


@dataclass(frozen=True, eq=False)
class _Scene:
    """An image and the fields that make a pair of it: moving is I(x + n(x)), fixed is I(y + n(y)), y = x + u(x)."""

    image: torch.Tensor
    coefficients: torch.Tensor
    field: GaussianField
    before: GaussianField | None
    outside: float | None

    def pair(self, axes: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return moving, fixed ``(1, *lens)``, u ``(d, *lens)`` on a grid, and where in the image fixed was read."""
        x = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        u = self.field.on_axes(axes)
        positions = x + u
        if self.before is None:
            moving = self._voxels(x, axes)
        else:
            moving = self._sampled(x + self.before.on_axes(axes))
            positions += self.before.at(positions.flatten(1).T).T.view_as(positions)
        return moving, self._sampled(positions), u, positions

    def _voxels(self, x: torch.Tensor, axes: Sequence[torch.Tensor]) -> torch.Tensor:
        """The image at voxels: no interpolation, which would only add rounding errors."""
        values = self.image
        for k, axis in enumerate(axes, start=1):
            values = values.index_select(k, axis.long().clamp(0, self.image.shape[k] - 1))
        return self._filled(values, x)

    def _sampled(self, positions: torch.Tensor) -> torch.Tensor:
        return self._filled(bspline_sample(self.coefficients, positions), positions)

    def _filled(self, values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Values, float32, with ``outside`` beyond the outer faces of the border voxels, if it is a number."""
        wide = values.to(torch.float32)
        if self.outside is None:
            return wide
        last = torch.tensor(self.image.shape[1:]).to(positions).view(-1, *[1] * (positions.ndim - 1)) - 0.5
        within = ((positions >= -0.5) & (positions <= last)).all(dim=0)
        return torch.where(within, wide, self.outside)


class _FromImage:
    """What both transforms have in common: where the image is, and how it becomes a scene."""

    def __init__(
        self,
        noise_fixed: float,
        noise_moving: float,
        theta_scale: float,
        density: bool,
        outside: float | None,
        keys: tuple[str, str, str],
    ) -> None:
        _check_at_least({"noise_fixed": noise_fixed, "noise_moving": noise_moving, "theta_scale": theta_scale}, 0)
        self.noise_fixed = noise_fixed
        self.noise_moving = noise_moving
        self.theta_scale = theta_scale
        self.density = density
        self.outside = outside
        self.image_key, self.mask_key, self.coefficients_key = keys

    def scene(
        self,
        data: Mapping[Hashable, Any],
        rng: Rng,
        family: str,
        preset: str,
        deformed: bool,
        factor: float = 1.0,
    ) -> tuple[_Scene, torch.Tensor | None]:
        """Return the item's image with fields drawn for it, u times ``factor``, and its mask, if it has one."""
        item = data if self.coefficients_key in data else SplineCoefficientsd(*self._keys())(data)
        image, coefficients = (_plain(item[key]) for key in self._keys())
        check_same_size(coefficients, image, "coefficients", "image")
        mask = item.get(self.mask_key)
        if mask is not None:
            check_same_size(mask, image, "mask", "image")
        shape = tuple(image.shape[1:])
        field = self._field(rng, shape, PRESETS[family][preset], factor)
        before = self._field(rng, shape, PRESETS[family][NEXT]) if deformed else None
        return _Scene(image, coefficients, field, before, self.outside), mask

    def noisy(self, rng: Rng, scene: _Scene, pair: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return moving and fixed with noise; a moving image that is not deformed has its own already."""
        moving = pair[0] if scene.before is None else _with_noise(rng, pair[0], self.noise_moving)
        return moving, _with_noise(rng, pair[1], self.noise_fixed)

    def _keys(self) -> tuple[str, str]:
        return self.image_key, self.coefficients_key

    def _field(self, rng: Rng, shape: Sequence[int], preset: FieldPreset, factor: float = 1.0) -> GaussianField:
        scaled = replace(preset, theta=preset.theta * self.theta_scale * factor)
        return random_field(rng, shape, **asdict(scaled), density=self.density)


class RandSyntheticWindowd(_FromImage, RandomizableTransform):
    r"""Cut training windows for RegNet out of random pairs made from one image.

    One preset is drawn per call, one field u of it, and perhaps one deformation n of the moving image; all windows
    of the call share them. A window is evaluated alone, never the whole image. Of its
    :func:`~monai_regplugins.networks.nets.regnet.window_size` voxels per axis, voxel 27 + 2 q carries label q.

    The voxel c in the middle of the labels is drawn from the mask. With probability ``flip_probability`` an axis is
    mirrored about it: window voxel j shows position ``c + s (j - center)``, s = -1, and component k of the label
    along the axis is multiplied by s. That is the same as flipping image and field before they are cropped. Flipping
    the window itself would shift the labels by one voxel, as it is not symmetric about them.

    Args:
        labels: o, number of predicted voxels along each axis.
        num_windows: windows per call.
        presets: to draw from, names in the family.
        family: of :data:`~monai_regplugins.synthesis.regnet_fields.PRESETS`; ``miccai2017`` is the paper's.
        next_probability: of a deformed moving image. The family ``v0.1`` has none, it needs 0.
        noise_fixed: standard deviation of the noise on fixed, in the unit of the image (HU).
        noise_moving: that on a deformed moving image; one that is not deformed has its own noise.
        flip_probability: of mirroring an axis.
        small_probability: of a small field, whose largest displacement is multiplied by U(0, 1) once more: so the
            network also learns what to do where little or nothing moves. 0 is the paper's.
        theta_scale: factor on the largest displacement of the presets.
        density: let the number of bumps follow the size of the image; without it, the preset's number, which is for
            the paper's image, see :func:`~monai_regplugins.synthesis.regnet_fields.random_field`.
        outside: value beyond the image, or None to continue it at its edges, as RegNet does in inference.
        bands: None, or thresholds ``(a, b, ..., cap)`` for choosing c as in the authors' code (1.5, 4 and 8 voxels): a
            band is drawn, ``[0, a)``, ``[a, b)``, ..., then a voxel that all components move by as much. If none does,
            it is drawn from the other bands; if none moves less than ``cap``, it is the one that moves least. The
            voxels about it need not follow: for the authors' sampling of single voxels use ``labels=1``.
        image_key: key of the image, ``(1, *spatial)``, isotropic voxels.
        mask_key: key of an optional mask ``(1, *spatial)`` of the same grid.
        coefficients_key: key of the image's coefficients; computed in every call if the item has none.

    Raises:
        InputError: When a name is unknown or a number out of its range.

    Example:
        >>> item = {"image": torch.rand(1, 80, 80)}
        >>> windows = RandSyntheticWindowd(labels=2, num_windows=3)(item)
        >>> len(windows), sorted(windows[0])
        (3, ['fixed', 'has_true_ddf', 'moving', 'true_ddf'])
    """

    def __init__(
        self,
        labels: int = 8,
        num_windows: int = 2,
        presets: str | Sequence[str] = ("low", "medium", "high"),
        family: str = "miccai2017",
        next_probability: float = 0.5,
        noise_fixed: float = 5.0,
        noise_moving: float = 3.0,
        flip_probability: float = 0.5,
        small_probability: float = 0.0,
        theta_scale: float = 1.0,
        density: bool = True,
        outside: float | None = None,
        bands: Sequence[float] | None = None,
        image_key: str = "image",
        mask_key: str = "mask",
        coefficients_key: str = "coefficients",
    ) -> None:
        RandomizableTransform.__init__(self, prob=1.0)
        keys = (image_key, mask_key, coefficients_key)
        _FromImage.__init__(self, noise_fixed, noise_moving, theta_scale, density, outside, keys)
        _check_presets(family, presets, next_probability > 0)
        _check_at_least({"labels": labels, "num_windows": num_windows}, 1)
        probabilities = {
            "next_probability": next_probability,
            "flip_probability": flip_probability,
            "small_probability": small_probability,
        }
        for name, value in probabilities.items():
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, expected a number from 0 to 1.")
        if bands is not None and (not bands or min(bands) <= 0 or list(bands) != sorted(set(bands))):
            raise InputError(f"bands is {tuple(bands)}, expected ascending numbers above 0, such as (1.5, 4, 8).")
        self.labels = labels
        self.num_windows = num_windows
        self.presets = ensure_tuple(presets)
        self.family = family
        self.next_probability = next_probability
        self.flip_probability = flip_probability
        self.small_probability = small_probability
        self.bands = None if bands is None else tuple(bands)

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return the windows of a new pair.

        Args:
            data: item with the image, and perhaps mask and coefficients; further entries are left out.

        Returns:
            A list of ``{"moving": (1, S, ...), "fixed": (1, S, ...), "true_ddf": (d, o, ...), "has_true_ddf": 1.0}``,
            plain float32 tensors, the label in voxels.

        Raises:
            InputError: When the image cannot be used, or the mask is empty or of another size.
        """
        preset = self.presets[int(self.R.randint(len(self.presets)))]
        deformed = bool(self.R.uniform() < self.next_probability)
        small = self.small_probability > 0 and self.R.uniform() < self.small_probability
        factor = float(self.R.uniform()) if small else 1.0
        scene, mask = self.scene(data, self.R, self.family, preset, deformed, factor)
        return [self._window(scene, mask) for _ in range(self.num_windows)]

    def _window(self, scene: _Scene, mask: torch.Tensor | None) -> dict[Hashable, Any]:
        """Draw one window."""
        shape = tuple(scene.image.shape[1:])
        center = _draw_voxel(self.R, shape, mask, scene.field, self.bands)
        signs = np.where(self.R.uniform(size=len(shape)) < self.flip_probability, -1.0, 1.0).tolist()
        size, middle = window_size(self.labels), MARGIN_BEFORE + self.labels - 1
        window = torch.arange(size, dtype=torch.float32, device=scene.image.device) - middle
        *images, u, _ = scene.pair([c + s * window for c, s in zip(center, signs, strict=True)])
        labeled = (slice(MARGIN_BEFORE, MARGIN_BEFORE + STRIDE * self.labels, STRIDE),) * len(shape)
        label = torch.stack([s * component[labeled] for s, component in zip(signs, u, strict=True)])
        moving, fixed = self.noisy(self.R, scene, images)
        return _sample(moving, fixed, label)


class SyntheticPaird(_FromImage, Transform):
    """Make the one pair of an image that its field entry stands for: RegNet's fixed validation set.

    ``field`` is ``{"family", "preset", "seed", "next"}``, see :func:`synthetic_cases`; the seed determines fields and
    noise. Everything else is as in :class:`RandSyntheticWindowd`, without flips.

    Args:
        noise_fixed: standard deviation of the noise on fixed, HU.
        noise_moving: that on a deformed moving image.
        theta_scale: factor on the largest displacement of the preset.
        density: let the number of bumps follow the size of the image.
        outside: value beyond the image, or None to continue it at its edges.
        image_key: key of the image, ``(1, *spatial)``, isotropic voxels.
        mask_key: key of an optional mask ``(1, *spatial)`` of the same grid.
        coefficients_key: key of the image's coefficients; computed if the item has none.

    Raises:
        InputError: When a number is out of its range.

    Example:
        >>> (case,) = synthetic_cases([{"image": torch.rand(1, 32, 32)}], presets="low", max_cases=1)
        >>> SyntheticPaird()(case)["true_ddf"].shape
        torch.Size([2, 32, 32])
    """

    def __init__(
        self,
        noise_fixed: float = 5.0,
        noise_moving: float = 3.0,
        theta_scale: float = 1.0,
        density: bool = True,
        outside: float | None = None,
        image_key: str = "image",
        mask_key: str = "mask",
        coefficients_key: str = "coefficients",
    ) -> None:
        keys = (image_key, mask_key, coefficients_key)
        _FromImage.__init__(self, noise_fixed, noise_moving, theta_scale, density, outside, keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the pair in place of image, mask and coefficients.

        Args:
            data: item with image and field, and perhaps mask and coefficients.

        Returns:
            The item with ``moving`` and ``fixed`` ``(1, *spatial)``, ``true_ddf`` ``(d, *spatial)`` in voxels,
            ``has_true_ddf`` 1.0, and ``fixed_mask``, the mask warped (nearest), if there is one. Images and mask keep
            affine, file name and DICOM series.

        Raises:
            InputError: When image, mask or field cannot be used.
        """
        family, preset, seed, deformed = _field_entry(data.get("field"))
        rng = np.random.default_rng(seed)
        scene, mask = self.scene(data, rng, family, preset, deformed)
        shape = tuple(scene.image.shape[1:])
        axes = [torch.arange(n, dtype=torch.float32, device=scene.image.device) for n in shape]
        *images, u, positions = scene.pair(axes)
        original = data[self.image_key]
        moving, fixed = (_like(original, image) for image in self.noisy(rng, scene, images))
        used = (self.image_key, self.mask_key, self.coefficients_key)
        item = {key: value for key, value in data.items() if key not in used} | _sample(moving, fixed, u)
        if mask is not None:
            check_mask(mask, "mask")
            offset = positions - identity_grid(shape, device=positions.device)
            moved = warp(_plain(mask)[None].to(torch.float32), offset[None], mode="nearest", padding="zeros")[0]
            item["fixed_mask"] = _like(mask, moved.to(mask.dtype))
        return item


def synthetic_cases(
    images: Sequence[Mapping[Hashable, Any]],
    family: str = "miccai2017",
    presets: str | Sequence[str] = ("low", "medium", "high"),
    repeats: int = 1,
    seed: int = 0,
    max_cases: int = 0,
) -> list[dict[Hashable, Any]]:
    """List the pairs of a validation set for :class:`SyntheticPaird`: all presets of each image, several times.

    In the paper's family each comes twice, with the image itself as the moving one and with it deformed: the six fields
    per image of the paper.

    Args:
        images: items, such as ``{"image": path, "mask": path}``.
        family: of :data:`~monai_regplugins.synthesis.regnet_fields.PRESETS`.
        presets: names in the family.
        repeats: fields per image, preset and kind of moving image.
        seed: all seeds follow from it and from the place in the list.
        max_cases: take so many of them, evenly spread over the list; 0 takes all.

    Returns:
        The items, each with a ``field`` entry and a ``pair_id``.

    Raises:
        InputError: When a name is unknown or ``repeats`` below 1.
    """
    _check_presets(family, presets, False)
    _check_at_least({"repeats": repeats}, 1)
    kinds = (False, True) if NEXT in PRESETS[family] else (False,)
    cases: list[dict[Hashable, Any]] = []
    for image in images:
        for preset in ensure_tuple(presets):
            for deformed in kinds * repeats:
                number = int(np.random.SeedSequence((seed, len(cases))).generate_state(1)[0])
                entry = {"family": family, "preset": preset, "seed": number, "next": deformed}
                name = "_".join([str(image.get("image_id", "image")), preset, *["next"] * deformed, str(len(cases))])
                cases.append({**image, "field": entry, "pair_id": name})
    if 0 < max_cases < len(cases):
        return [cases[round(k * (len(cases) - 1) / max(max_cases - 1, 1))] for k in range(max_cases)]
    return cases


def _draw_voxel(
    rng: Rng,
    shape: Sequence[int],
    mask: torch.Tensor | None,
    field: GaussianField,
    bands: Sequence[float] | None,
) -> list[int]:
    """Draw a voxel of the mask, or of the image without one, by band if there are bands."""
    candidates = _draw_candidates(rng, shape, mask)
    if bands is None:
        return [int(x) for x in candidates[0]]
    sizes = field.at(candidates.to(torch.float32)).abs()
    low, high = (np.digitize(size.numpy(), bands) for size in (sizes.amin(1), sizes.amax(1)))
    same = np.where(low == high, high, len(bands))  # len(bands): too far, or of several bands
    chosen = next((np.flatnonzero(same == band) for band in rng.permutation(len(bands)) if band in same), None)
    first = int(sizes.amax(1).argmin()) if chosen is None else int(chosen[0])
    return [int(x) for x in candidates[first]]


def _draw_candidates(rng: Rng, shape: Sequence[int], mask: torch.Tensor | None) -> torch.Tensor:
    """Draw voxels ``(N, d)`` of the mask, N at least 1, at most 4096."""
    drawn = torch.as_tensor((rng.uniform(size=(CANDIDATES, len(shape))) * np.asarray(shape)).astype(np.int64))
    if mask is None:
        return drawn
    inside = _plain(mask)[0]
    hits = inside[tuple(drawn.T)].cpu() > 0
    if bool(hits.any()):
        return drawn[hits]
    check_mask(inside, "mask")
    every = torch.nonzero(inside > 0).cpu()  # of a mask so small, worth the search through the whole image
    return every[torch.as_tensor((rng.uniform(size=CANDIDATES) * len(every)).astype(np.int64))]


def _with_noise(rng: Rng, image: torch.Tensor, deviation: float) -> torch.Tensor:
    """Add Gaussian noise."""
    if deviation == 0:
        return image
    return image + torch.as_tensor(rng.normal(scale=deviation, size=tuple(image.shape))).to(image)


def _sample(moving: torch.Tensor, fixed: torch.Tensor, true_ddf: torch.Tensor) -> dict[Hashable, Any]:
    """A pair whose field is known."""
    return {"moving": moving, "fixed": fixed, "true_ddf": true_ddf, "has_true_ddf": torch.tensor(1.0)}


def _plain(image: torch.Tensor) -> torch.Tensor:
    """The tensor without metadata, not copied."""
    return image.as_tensor() if isinstance(image, MetaTensor) else image


def _like(original: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Values on the grid of the original, of the same origin."""
    return as_meta_tensor(values, original.affine, original.meta) if isinstance(original, MetaTensor) else values


def _field_entry(entry: Any) -> tuple[str, str, int, bool]:
    """Check the entry that stands for a pair."""
    if not isinstance(entry, Mapping) or not {"family", "preset", "seed"} <= set(entry):
        raise InputError(f"field is {entry!r}, expected family, preset, seed and next; make it by synthetic_cases.")
    deformed = bool(entry.get("next", False))
    _check_presets(entry["family"], [entry["preset"]], deformed)
    return entry["family"], entry["preset"], int(entry["seed"]), deformed


def _check_presets(family: str, presets: str | Sequence[str], deformed: bool) -> None:
    """Check names of presets, and that the family has one for deformed moving images if these are wanted."""
    check_choice(family, PRESETS, "family")
    if not presets:
        raise InputError(f"presets is empty, expected at least one of {', '.join(PRESETS[family])}.")
    for preset in ensure_tuple(presets):
        check_choice(preset, PRESETS[family], "preset")
    if deformed and NEXT not in PRESETS[family]:
        raise InputError(
            f"family '{family}' has no preset '{NEXT}' for deformed moving images; set next_probability (next) to 0."
        )


def _check_at_least(numbers: Mapping[str, float], least: float) -> None:
    """Check that numbers are not too small."""
    for name, value in numbers.items():
        if not value >= least:
            raise InputError(f"{name} is {value}, expected {least} or more.")
