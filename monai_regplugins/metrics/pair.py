"""All measures of one registered pair, before and after, and their means over many pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_regplugins.fields import sample_at, warp
from monai_regplugins.grids import map_points, offset_field
from monai_regplugins.metrics.field_error import field_errors
from monai_regplugins.metrics.landmarks import landmark_errors, landmark_statistics
from monai_regplugins.metrics.learn2reg import sdlogj_l2r
from monai_regplugins.metrics.measure import Measure, own_values
from monai_regplugins.metrics.overlap import (
    SurfaceDistances,
    dice,
    labels_in,
    ncc,
    surface_distances,
)
from monai_regplugins.metrics.regularity import regularity

__all__ = ["complete_states", "finite_values", "mean_metrics", "measure_pair", "pair_metrics", "true_field"]

DRIVING = "driving_"  # what the names of measures of labels and landmarks that drove the registration begin with


class _State(NamedTuple):
    """The moving image as it was given, after the initial alignment, or after the registration.

    Attributes:
        suffix: of the measures' names.
        image: on the fixed grid.
        label: likewise.
        ddf: the registration's field, if it is after that.
        matrix: that of the initial alignment, fixed voxels to voxels of the image as it was given, if it is after that;
            it follows the field.
        counted: voxels that count for the correlation; all by default.
    """

    suffix: str
    image: Tensor
    label: Tensor | None
    ddf: Tensor | None = None
    matrix: Tensor | None = None
    counted: Tensor | None = None

    def name(self, measure: str, label: int | None = None) -> str:
        """The name of a measure, of one label if one is given."""
        return f"{measure}{self.suffix}" if label is None else f"{measure}{self.suffix}_{label}"


def pair_metrics(
    *,
    moving: Tensor,
    fixed: Tensor,
    warped: Tensor,
    ddf: Tensor,
    spacing: Sequence[float] | Tensor,
    moving_label: Tensor | None = None,
    fixed_label: Tensor | None = None,
    warped_label: Tensor | None = None,
    aligned: Tensor | None = None,
    aligned_label: Tensor | None = None,
    aligned_matrix: Tensor | None = None,
    mask: Tensor | None = None,
    compared: Mapping[str, Tensor | None] | None = None,
    moving_points: Tensor | None = None,
    fixed_points: Tensor | None = None,
    true_ddf: Tensor | None = None,
    capture_range: float | None = None,
    labels: Iterable[int] | None = None,
    surface: bool = True,
    driving_labels: Iterable[int] = (),
    driving_points: Iterable[int] = (),
) -> dict[str, float]:
    """Measure one registered pair.

    Images and labels have the shape ``(1, *spatial)`` and lie on the fixed grid, in 2D or 3D.

    Args:
        moving: moving image as it was given, by its header.
        fixed: fixed image.
        warped: moving image after the registration.
        ddf: displacement field in voxels of the fixed grid, shape ``(d, *spatial)``, without the initial alignment.
        spacing: voxel size of the fixed grid along each axis in mm, shape (d,).
        moving_label: label map of the moving image.
        fixed_label: label map of the fixed image.
        warped_label: label map of the moving image after the registration; None warps ``moving_label`` by ``ddf``
            with nearest-neighbor interpolation.
        aligned: moving image after the initial alignment, if there was one.
        aligned_label: label map of the moving image after the initial alignment.
        aligned_matrix: the initial alignment, fixed voxels to voxels of the image as it was given, (d + 1, d + 1). What
            is measured of the field is of the field and this map behind it.
        mask: voxels that count for the regularity; all by default.
        compared: voxels that count for the correlation in each state, by ``before``, ``aligned`` and ``after``, None
            for all; by default those of ``mask``.
        moving_points: landmarks of the moving image, voxels of the fixed grid, shape (N, d).
        fixed_points: the corresponding landmarks of the fixed image.
        true_ddf: the true field, where it is known, in voxels, shape ``(d, *spatial)``.
        capture_range: count only voxels all of whose true components are at most so many mm; None counts all.
        labels: labels to compare; by default those other than zero that both images have, the moving one as it was
            given or aligned.
        surface: whether to measure surface distances too, by far the slowest part.
        driving_labels: labels that drove the registration, which are no measure of it.
        driving_points: rows of the landmarks that did.

    Returns:
        ``ncc_before``, ``ncc``; of the field ``folding_count``, ``folding_percent``, ``folding_strict_percent`` and
        ``sdlogj``, see :func:`~monai_regplugins.metrics.regularity.regularity`, and ``sdlogj_l2r``, the last as
        Learn2Reg computes it; with landmarks (mm) ``tre_before``, ``tre``, their means, ``tre95_before``, ``tre95``,
        their 95th percentiles (linear between two of them), ``tre_max_before`` and ``tre_max``; with a true field (mm)
        ``mae_before``, that of no displacement, ``mae`` and both for each axis (``mae_axis_<k>``), see
        :func:`~monai_regplugins.metrics.field_errors`; and with both label maps ``dsc_before``,
        ``dsc``, ``dsc_before_<label>``, ``dsc_<label>`` and (mm) ``hd95_before``, ``hd95``, ``hd95_<label>``,
        ``asd_before``, ``asd``, ``asd_<label>``, ``hd_before`` and ``hd``. With ``aligned`` there is an ``_aligned``
        beside each ``_before``. A mean over labels skips those that either image lacks before the registration, a mean
        of distances also those that the warp has lost. Labels and landmarks that drove the registration are left out of
        means and percentiles; theirs are ``driving_dsc``, ``driving_tre`` and so on, and the only ones where all drove.
    """
    if warped_label is None and moving_label is not None:
        warped_label = warp(moving_label[None], ddf[None], mode="nearest")[0]
    counted = dict.fromkeys(("before", "aligned", "after"), mask) if compared is None else compared
    states = [
        _State("_before", moving, moving_label, counted=counted["before"]),
        _State("", warped, warped_label, ddf, aligned_matrix, counted["after"]),
    ]
    if aligned is not None:
        states.insert(1, _State("_aligned", aligned, aligned_label, None, aligned_matrix, counted["aligned"]))
    values = {state.name("ncc"): ncc(state.image, fixed, state.counted) for state in states}
    volume = 1.0 if aligned_matrix is None else float(torch.linalg.det(aligned_matrix))
    values |= {**regularity(ddf, mask, volume), "sdlogj_l2r": sdlogj_l2r(ddf, mask, volume)}
    if moving_points is not None and fixed_points is not None and len(fixed_points):
        values |= _landmark_values(states, fixed_points, moving_points, spacing, {*driving_points})
    if true_ddf is not None:
        values |= _field_values(states, true_ddf, spacing, mask, capture_range)
    if moving_label is not None and fixed_label is not None:
        values |= _label_values(states, fixed_label, labels, spacing if surface else None, {*driving_labels})
    return values


def measure_pair(
    result: Mapping[str, Any],
    labels: Sequence[int] | None = None,
    surface: bool = True,
    capture_range: float | None = None,
    *,
    own: Mapping[str, Measure] | None = None,
) -> dict[str, float]:
    """Measure a pair from its item of the engine's output.

    The other arguments are those of :func:`pair_metrics`, and further measures by name.
    """
    pred, targets = result["pred"], result["label"]
    found = pair_metrics(
        moving=targets["moving"],
        fixed=targets["fixed"],
        warped=pred["warped"],
        ddf=pred["ddf"],
        spacing=targets["spacing"],
        moving_label=targets.get("moving_label"),
        fixed_label=targets.get("fixed_label"),
        warped_label=pred.get("warped_label"),
        aligned=targets.get("aligned"),
        aligned_label=targets.get("aligned_label"),
        aligned_matrix=targets.get("aligned_matrix"),
        mask=targets.get("fixed_mask"),
        compared=targets.get("compared"),
        moving_points=_points(targets, "moving"),
        fixed_points=_points(targets, "fixed"),
        true_ddf=true_field(targets),
        capture_range=capture_range,
        labels=labels,
        surface=surface,
        driving_labels=_driving(pred, "labels"),
        driving_points=_driving(pred, "landmarks"),
    )
    return found | own_values(own or {}, pred, targets)


def _points(targets: Mapping[str, Any], side: str) -> Tensor | None:
    """Return the landmarks of one image, or its keypoints if it has no landmarks."""
    points: Tensor | None = targets.get(f"{side}_landmarks", targets.get(f"{side}_keypoints"))
    return points


def _driving(pred: Mapping[str, Any], what: str) -> list[int]:
    """Labels, or rows of the landmarks, that drove the registration."""
    found = pred.get(f"driving_{what}")
    return [] if found is None else [int(number) for number in found.flatten()]


def true_field(targets: Mapping[str, Any]) -> Tensor | None:
    """Return the true field of a pair that was made from one image, None for a real pair."""
    return targets.get("true_ddf") if bool(targets.get("has_true_ddf", True)) else None


def _landmark_values(
    states: Sequence[_State],
    fixed_points: Tensor,
    moving_points: Tensor,
    spacing: Sequence[float] | Tensor,
    driving: Set[int],
) -> dict[str, float]:
    """Mean, 95th percentile and largest error of the landmarks in each state; those that drove apart."""
    values, groups = {}, _groups(range(len(fixed_points)), driving)
    for state in states:
        points = fixed_points.double()
        if state.ddf is not None:
            points = points + sample_at(state.ddf[None], points[None])[0]
        if state.matrix is not None:
            points = map_points(points, state.matrix)
        distances = landmark_errors(points, moving_points, spacing)
        for prefix, rows in groups.items():
            errors = landmark_statistics(distances[rows])
            for name, source in (("tre", "tre"), ("tre95", "tre_p95"), ("tre_max", "tre_max")):
                values[state.name(prefix + name)] = errors[source]
    return values


def _groups(numbers: Iterable[int], driving: Set[int]) -> dict[str, list[int]]:
    """Labels or rows that are only measured, and those that drove, by what the names of their measures begin with."""
    known = list(numbers)
    drove, others = [k for k in known if k in driving], [k for k in known if k not in driving]
    return {name: group for name, group in (("", others), (DRIVING, drove)) if group} or {"": []}


def _field_values(
    states: Sequence[_State],
    true_ddf: Tensor,
    spacing: Sequence[float] | Tensor,
    mask: Tensor | None,
    capture_range: float | None,
) -> dict[str, float]:
    """Error of the field of each state, in all and along each axis."""
    errors = [
        (state, field_errors(_field(state, true_ddf), true_ddf, spacing, mask, capture_range)) for state in states
    ]
    names = ("mae", *(f"mae_axis_{k}" for k in range(len(true_ddf))))
    return {state.name(name): found[name] for name in names for state, found in errors}


def _field(state: _State, like: Tensor) -> Tensor:
    """The whole displacement of a state, ``B (x + u(x)) - x``."""
    ddf = torch.zeros_like(like) if state.ddf is None else state.ddf
    if state.matrix is None:
        return ddf
    linear = state.matrix[:-1, :-1].to(ddf)
    return offset_field(state.matrix, like.shape[1:], ddf.dtype) + torch.einsum("kj,j...->k...", linear, ddf)


def _label_values(
    states: Sequence[_State],
    fixed_label: Tensor,
    labels: Iterable[int] | None,
    spacing: Sequence[float] | Tensor | None,
    driving: Set[int],
) -> dict[str, float]:
    """Overlap and, with a spacing, surface distances of each state: those of each label, and their means by group."""
    moving = set[int]().union(*(labels_in(state.label) for state in states[:-1] if state.label is not None))
    common = moving & labels_in(fixed_label)
    wanted = sorted(common - {0}) if labels is None else list(labels)
    compared = [label for label in wanted if label in common]
    groups = _groups(compared, driving)
    known = [(state, state.label) for state in states if state.label is not None]
    overlaps = [(state, dice(label_map, fixed_label, compared)) for state, label_map in known]
    values = {
        state.name(f"{prefix}dsc"): _mean(overlap[k] for k in group)
        for prefix, group in groups.items()
        for state, overlap in overlaps
    }
    for state, overlap in overlaps:
        values |= {state.name("dsc", label): overlap.get(label, math.nan) for label in wanted}
    if spacing is None:
        return values
    for state, label_map in known:
        distances = surface_distances(label_map, fixed_label, compared, spacing)
        for prefix, group in groups.items():
            kept = [distances[k] for k in group if k in distances]
            for name in SurfaceDistances._fields:
                values[state.name(prefix + name)] = _mean(getattr(distance, name) for distance in kept)
    for name in ("hd95", "asd"):  # the last state is that after the registration
        values |= {f"{name}_{label}": getattr(distances.get(label), name, math.nan) for label in wanted}
    return values


def finite_values(rows: Iterable[Mapping[str, object]], name: str) -> list[float]:
    """Return the values of one measure over the rows that have a finite one."""
    numbers = (row.get(name) for row in rows)
    return [float(number) for number in numbers if isinstance(number, (int, float)) and math.isfinite(number)]


def complete_states(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the measures of pairs in the same states: one that no initial alignment moved is aligned as it was given.

    Example:
        >>> complete_states([{"ncc_before": 0.5, "ncc_aligned": 0.75}, {"ncc_before": 0.25}])[1]
        {'ncc_before': 0.25, 'ncc_aligned': 0.25}
    """
    if not any("ncc_aligned" in row for row in rows):
        return rows
    return [row if "ncc_aligned" in row else _with_aligned(row) for row in rows]


def _with_aligned(row: Mapping[str, Any]) -> dict[str, Any]:
    """Add each measure before the registration as that of the aligned pair, behind it."""
    pairs = ({name: value, name.replace("_before", "_aligned"): value} for name, value in row.items())
    return {name: value for pair in pairs for name, value in pair.items()}


def mean_metrics(rows: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Return the mean of each measure over the pairs that have it; NaN where none has a finite value.

    Means before and after an initial alignment are over the same pairs, see :func:`complete_states`.
    """
    rows = complete_states(rows)
    names = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, (int, float)))
    return {name: _mean(finite_values(rows, name)) for name in names}


def _mean(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN, NaN if there is none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
