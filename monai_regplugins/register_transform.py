"""Registration as a MONAI transform, for use in a ``Compose``."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Transform
from monai.utils import SpaceKeys, TraceKeys

from monai_regplugins.checks import InputError
from monai_regplugins.grids import ras_affine
from monai_regplugins.registration import Registration, load_bundle
from monai_regplugins.result import RegistrationResult
from monai_regplugins.transforms.warp_original import inverse_displacement, resample_original, total_displacement

__all__ = ["RegisterPair", "RegisterPaird"]

Bundle = str | os.PathLike[str] | Registration
Record = dict[str, Any]

GRID_META = ("original_affine", "spatial_shape", "pixdim", "space")  # metadata that describe a grid, beside affine
LINEAR, NEAREST = "bilinear", "nearest"  # as MONAI names them, so that Invertd(nearest_interp=True) finds its word


class RegisterPair(Transform):
    """Register two images with a bundle, see :func:`~monai_regplugins.load_bundle`.

    The bundle is loaded once, and once more in each worker process that is started by ``spawn``.

    Args:
        bundle: name or folder of a bundle, or what ``load_bundle`` returned.
        **settings: arguments of ``load_bundle`` such as ``device="cpu"``, ``refine_steps=30`` or
            ``initial_alignment="auto"``.

    Raises:
        InputError: When there is no such bundle or setting, or settings come with a loaded bundle.

    Example:
        >>> import numpy as np
        >>> x = np.indices((24, 24, 24))
        >>> fixed, moving = (200 * np.exp(-np.sum((x - c) ** 2, axis=0) / 40) for c in (12, 10))
        >>> result = RegisterPair("ran", device="cpu", refine_steps=10)(fixed, moving)
        >>> result.warped.shape, result.metrics["ncc"] > result.metrics["ncc_before"]
        (torch.Size([1, 24, 24, 24]), True)
    """

    def __init__(self, bundle: Bundle = "ran", **settings: Any) -> None:
        if isinstance(bundle, Registration) and settings:
            raise InputError(f"settings {', '.join(settings)} come with a loaded bundle; give them to load_bundle.")
        self.bundle, self.settings = bundle, settings
        self.register  # noqa: B018 -- mistakes are reported here and not with the first pair

    @cached_property
    def register(self) -> Registration:
        """The loaded bundle."""
        return self.bundle if isinstance(self.bundle, Registration) else load_bundle(self.bundle, **self.settings)

    def __getstate__(self) -> dict[str, Any]:
        """Exclude the loaded bundle from pickling; another process loads it again."""
        return {key: value for key, value in vars(self).items() if key != "register"}

    def __call__(  # type: ignore[override] # a pair instead of one image
        self, fixed: Any, moving: Any, **companions: Any
    ) -> RegistrationResult:
        """Register a pair.

        Args:
            fixed: the image that stays: a path, a :class:`~monai.data.MetaTensor`, an image of nibabel, SimpleITK or
                TorchIO, or an array or tensor of shape ``(*spatial)`` or ``(1, *spatial)``.
            moving: the image that is warped onto it.
            **companions: labels, points, mask and more, see :class:`~monai_regplugins.registration.Registration`.

        Raises:
            InputError: When something about the pair is wrong.
        """
        return self.register(fixed, moving, **companions)


class RegisterPaird(MapTransform, InvertibleTransform):
    """Dictionary version of :class:`RegisterPair`: the moving image and its label map are replaced by warped ones.

    The warped image and label map lie on the fixed grid, shape ``(1, *fixed)``, are sampled once from the original data
    (linear, nearest) and keep the metadata of the moving image, apart from those that describe a grid. Under
    ``displacement_key`` comes the total displacement, ``(d, *fixed)``, mm in RAS: the point p of the fixed image
    corresponds to p + D(p) of the moving one. Under ``metrics_key`` come the measures before and after as a dictionary
    of numbers, and with the setting ``uncertainty=True`` under ``uncertainty_key`` the standard deviation of the
    displacement, ``(1, *fixed)``, mm. The fixed image and everything else stay as they are.

    **Inverse.** What lies under the moving keys returns to the moving grid, and what was added is removed. The warped
    image itself becomes the moving image again, exactly. Anything else on the fixed grid, such as a segmentation of the
    warped image that :class:`~monai.transforms.Invertd` brings, is sampled through the numerical inverse of the
    displacement: linear under the key of the image, nearest under that of the label map.

    Args:
        fixed_key: key of the fixed image: a path, a MetaTensor, an image of nibabel, SimpleITK or TorchIO, or an array
            or tensor; so are all others.
        moving_key: key of the moving image.
        bundle: see :class:`RegisterPair`.
        fixed_label_key: key of the fixed label map, to measure the overlap with.
        moving_label_key: key of the moving label map.
        mask_key: key of a mask of the fixed image, the voxels that count.
        moving_mask_key: key of a mask of the moving image.
        fixed_points_key: key of points of the fixed image, voxels, (N, d) or a file.
        moving_points_key: key of their partners in the moving image, voxels of that.
        displacement_key: key of the displacement, to be added.
        metrics_key: key of the metrics, to be added.
        uncertainty_key: key of the standard deviation, to be added where the bundle computes it.
        allow_missing_keys: whether label maps, points and masks may be missing.
        **settings: see :class:`RegisterPair`.

    Raises:
        InputError: See :class:`RegisterPair`.

    Example:
        >>> import numpy as np
        >>> x = np.indices((24, 24, 24))
        >>> fixed, moving = (200 * np.exp(-np.sum((x - c) ** 2, axis=0) / 40) for c in (12, 10))
        >>> register = RegisterPaird(bundle="ran", device="cpu", refine_steps=10)
        >>> pair = register({"fixed": fixed, "moving": moving})
        >>> sorted(pair), pair["displacement"].shape
        (['displacement', 'fixed', 'metrics', 'moving'], torch.Size([3, 24, 24, 24]))
        >>> bool(np.allclose(register.inverse(pair)["moving"][0], moving))
        True
    """

    def __init__(
        self,
        fixed_key: str = "fixed",
        moving_key: str = "moving",
        bundle: Bundle = "ran",
        *,
        fixed_label_key: str | None = None,
        moving_label_key: str | None = None,
        mask_key: str | None = None,
        moving_mask_key: str | None = None,
        fixed_points_key: str | None = None,
        moving_points_key: str | None = None,
        displacement_key: str = "displacement",
        metrics_key: str = "metrics",
        uncertainty_key: str = "uncertainty",
        allow_missing_keys: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__([key for key in (moving_key, moving_label_key) if key], allow_missing_keys)
        self.registrar = RegisterPair(bundle, **settings)
        self.fixed_key, self.moving_key, self.moving_label_key = fixed_key, moving_key, moving_label_key
        labels = {"fixed_label": fixed_label_key, "moving_label": moving_label_key}
        points = {"fixed_points": fixed_points_key, "moving_points": moving_points_key}
        self.companion_keys = {**labels, **points, "fixed_mask": mask_key, "moving_mask": moving_mask_key}
        self.displacement_key, self.metrics_key, self.uncertainty_key = displacement_key, metrics_key, uncertainty_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Register the pair of a dictionary.

        Args:
            data: the pair; it is not changed.

        Raises:
            InputError: When an image is missing, a key that would be added is there, or something about the pair is
                wrong.
        """
        pair = dict(data)
        self._check_keys(pair)
        companions = {name: pair[key] for name, key in self.companion_keys.items() if key in pair}
        result = self.registrar(pair[self.fixed_key], pair[self.moving_key], **companions)
        record = {
            "ddf": result.ddf,
            "fixed_affine": result.fixed.affine,
            "initial_alignment_matrix": result.item["initial_alignment_matrix"],
        }
        grid = pair[self.fixed_key]
        moving = _original(pair[self.moving_key], result.moving)
        pair[self.moving_key] = self._record(result.warped, moving, grid, {**record, "mode": LINEAR})
        if result.warped_label is not None:
            label = _original(pair[self.moving_label_key], result.item["moving_label_original"])
            pair[self.moving_label_key] = self._record(result.warped_label, label, grid, {**record, "mode": NEAREST})
        pair[self.displacement_key] = result.displacement.to(moving.device)
        pair[self.metrics_key] = dict(result.metrics)
        if result.uncertainty is not None:
            pair[self.uncertainty_key] = result.uncertainty.to(moving.device)
        return pair

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample the entries under the moving keys to the moving grid, and remove the added keys.

        Args:
            data: a registered pair, or part of one.
        """
        pair = dict(data)
        for key in self.key_iterator(pair):
            pair[key] = self._restored(pair[key])
        for name in self._added():
            pair.pop(getattr(self, name), None)
        return pair

    def _added(self) -> list[str]:
        """The arguments that name keys which are added."""
        more = ["uncertainty_key"] if self.registrar.register.uncertainty else []
        return ["displacement_key", "metrics_key", *more]

    def _check_keys(self, pair: Mapping[Hashable, Any]) -> None:
        """Check that the required keys exist and the keys to be added do not."""
        optional = [] if self.allow_missing_keys else [key for key in self.companion_keys.values() if key]
        for key in (self.fixed_key, self.moving_key, *optional):
            if key not in pair:
                raise InputError(f"the pair has no '{key}', found {sorted(map(str, pair))}; give it, or another key.")
        for name in self._added():
            if (key := getattr(self, name)) in pair:
                raise InputError(f"the pair has '{key}' already, which would be replaced; choose another {name}.")

    def _record(self, warped: MetaTensor, original: MetaTensor, grid: Any, record: Record) -> MetaTensor:
        """A warped image with the metadata and the history of the original one, and this transform on top of it."""
        grid_meta = grid.meta if isinstance(grid, MetaTensor) else {}
        meta = {key: value for key, value in original.meta.items() if key not in GRID_META}
        meta |= {key: grid_meta[key] for key in GRID_META if key in grid_meta}
        if meta.get("space") == SpaceKeys.LPS:  # the warped image has its affine in RAS
            meta = {**meta, "space": SpaceKeys.RAS}
            meta.pop("original_affine", None)
        image = _image(warped.as_tensor().to(original.device), warped.affine, meta, original.applied_operations)
        info = {**record, "original": original}
        tracked: MetaTensor = self.push_transform(  # type: ignore[no-untyped-call]
            image, orig_size=tuple(original.shape[1:]), extra_info=info
        )
        return tracked

    def _restored(self, image: MetaTensor) -> MetaTensor:
        """An image of the fixed grid on the grid that the moving image had."""
        image = _image(image.as_tensor(), image.affine, image.meta, image.applied_operations)  # the given one stays
        record: Record = self.pop_transform(image)[TraceKeys.EXTRA_INFO]
        original: MetaTensor = record["original"]
        unchanged = _warped(record)
        if image.shape == unchanged.shape and torch.equal(image.as_tensor().cpu(), unchanged):
            values = original.as_tensor()
        else:
            values = _unwarped(image, record)
        return _image(values.to(image.device), original.affine, original.meta, image.applied_operations)


def _image(values: torch.Tensor, affine: torch.Tensor, meta: Record, history: list[Any]) -> MetaTensor:
    """An image with a copy of the metadata and of the history of another one."""
    others = {key: value for key, value in meta.items() if key != "affine"}
    return MetaTensor(values, affine=affine.clone(), meta=others, applied_operations=list(history))


def _original(given: Any, loaded: MetaTensor) -> MetaTensor:
    """The image as it was given if it has metadata, else as it was loaded, shape ``(1, *spatial)``."""
    has_channel = isinstance(given, MetaTensor) and given.ndim == loaded.ndim
    return given if has_channel else loaded


def _mode(record: Record) -> str:
    """The interpolation that a record asks for, as this package names it."""
    return "nearest" if record["mode"] == NEAREST else "linear"


def _warped(record: Record) -> torch.Tensor:
    """The original image on the fixed grid once more, ``(1, *fixed)``."""
    displacement = total_displacement(record["ddf"], record["fixed_affine"], record["initial_alignment_matrix"])
    original: MetaTensor = record["original"]
    source = original.as_tensor().cpu()
    return resample_original(source, ras_affine(original), record["fixed_affine"], displacement, _mode(record))


def _unwarped(image: MetaTensor, record: Record) -> torch.Tensor:
    """An image of the fixed grid on the moving grid, ``(C, *moving)``, through the inverse displacement."""
    original: MetaTensor = record["original"]
    spatial_dims = record["ddf"].shape[0]
    inverse = inverse_displacement(
        record["ddf"],
        record["fixed_affine"],
        ras_affine(original),
        original.shape[-spatial_dims:],
        record["initial_alignment_matrix"],
    )
    return resample_original(image.as_tensor().cpu(), ras_affine(image), ras_affine(original), inverse, _mode(record))
