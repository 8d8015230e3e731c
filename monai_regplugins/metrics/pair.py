"""All measures of one registered pair, before and after, and their means over many pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from monai_regplugins.fields import warp
from monai_regplugins.metrics.field_error import field_errors
from monai_regplugins.metrics.landmarks import landmark_errors
from monai_regplugins.metrics.overlap import dice, ncc, surface_distances
from monai_regplugins.metrics.regularity import folding, sdlogj

__all__ = ["finite_values", "mean_metrics", "pair_metrics"]


def pair_metrics(
    *,
    moving: Tensor,
    fixed: Tensor,
    warped: Tensor,
    ddf: Tensor,
    spacing: Sequence[float] | Tensor,
    moving_label: Tensor | None = None,
    fixed_label: Tensor | None = None,
    mask: Tensor | None = None,
    moving_points: Tensor | None = None,
    fixed_points: Tensor | None = None,
    true_ddf: Tensor | None = None,
    capture_range: float | None = None,
    labels: Iterable[int] | None = None,
    surface: bool = True,
) -> dict[str, float]:
    """Measure one registered pair.

    Images and labels have the shape (1, *spatial) and lie on the fixed grid, in 2D or 3D.

    Args:
        moving: moving image.
        fixed: fixed image.
        warped: moving image after the registration.
        ddf: displacement field in voxels of the fixed grid, shape (d, *spatial).
        spacing: voxel size of the fixed grid along each axis in mm, shape (d,).
        moving_label: label map of the moving image; it is warped with nearest-neighbor interpolation.
        fixed_label: label map of the fixed image.
        mask: voxels that count for the correlation and the regularity; all by default.
        moving_points: landmarks of the moving image, voxels of the fixed grid, shape (N, d).
        fixed_points: the corresponding landmarks of the fixed image.
        true_ddf: the true field, where it is known, in voxels, shape (d, *spatial).
        capture_range: count only voxels all of whose true components are at most so many mm; None counts all.
        labels: labels to compare; by default those above zero that both images have before the registration.
        surface: whether to measure surface distances too, by far the slowest part.

    Returns:
        ``ncc_before``, ``ncc``, ``folding_percent``, ``sdlogj``; with landmarks (mm) ``tre_before``, ``tre``, their
        means, ``tre_max_before`` and ``tre_max``; with a true field (mm) ``mae_before``, that of no displacement,
        ``mae`` and both for each axis (``mae_axis_<k>``), see :func:`~monai_regplugins.metrics.field_errors`; and with
        both label maps ``dsc_before``, ``dsc``, ``dsc_<label>`` and (mm) ``hd95_before``, ``hd95``, ``asd_before``,
        ``asd``. A mean over labels skips those that either image lacks before the registration, a mean of distances
        also those that the warp has lost.
    """
    values = {
        "ncc_before": ncc(moving, fixed, mask),
        "ncc": ncc(warped, fixed, mask),
        "folding_percent": folding(ddf, mask)[1],
        "sdlogj": sdlogj(ddf, mask),
    }
    if moving_points is not None and fixed_points is not None and len(fixed_points):
        for suffix, field in (("_before", None), ("", ddf)):
            errors = landmark_errors(fixed_points, moving_points, spacing, field)
            values[f"tre{suffix}"], values[f"tre_max{suffix}"] = float(errors.mean()), float(errors.max())
    if true_ddf is not None:
        errors_of_field = field_errors(ddf, true_ddf, spacing, mask, capture_range)
        for name in ("mae", *(f"mae_axis_{k}" for k in range(len(ddf)))):
            values[f"{name}_before"] = errors_of_field[name.replace("mae", "mae_zero", 1)]
            values[name] = errors_of_field[name]
    if moving_label is None or fixed_label is None:
        return values
    warped_label = warp(moving_label[None].float(), ddf[None], mode="nearest")[0]
    common = {int(label) for label in moving_label.unique()} & {int(label) for label in fixed_label.unique()}
    wanted = sorted(common - {0}) if labels is None else list(labels)
    compared = [label for label in wanted if label in common]
    before, after = (dice(label_map, fixed_label, compared) for label_map in (moving_label, warped_label))
    values |= {"dsc_before": _mean(before.values()), "dsc": _mean(after.values())}
    values |= {f"dsc_{label}": after.get(label, math.nan) for label in wanted}
    if surface:
        for suffix, label_map in (("_before", moving_label), ("", warped_label)):
            distances = surface_distances(label_map, fixed_label, compared, spacing).values()
            values[f"hd95{suffix}"] = _mean(distance.hd95 for distance in distances)
            values[f"asd{suffix}"] = _mean(distance.asd for distance in distances)
    return values


def finite_values(rows: Iterable[Mapping[str, object]], name: str) -> list[float]:
    """Return the values of one measure over the rows that have a finite one."""
    numbers = (row.get(name) for row in rows)
    return [float(number) for number in numbers if isinstance(number, (int, float)) and math.isfinite(number)]


def mean_metrics(rows: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Return the mean of each measure over the pairs that have it; NaN where none has a finite value."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, (int, float)))
    return {name: _mean(finite_values(rows, name)) for name in names}


def _mean(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN, NaN if there is none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
