"""Measures of a registration: overlap, surface distance, landmarks, correlation, regularity of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand
from monai_regplugins.metrics.regularity import (
    folding,
    folding_strict,
    regularity,
    sdlogj,
)

if TYPE_CHECKING:
    from monai_regplugins.metrics.field_error import field_errors
    from monai_regplugins.metrics.landmarks import (
        landmark_differences,
        landmark_errors,
        landmark_statistics,
        mean_of_worst,
    )
    from monai_regplugins.metrics.learn2reg import sdlogj_l2r
    from monai_regplugins.metrics.measure import Measure
    from monai_regplugins.metrics.overlap import (
        SurfaceDistances,
        dice,
        ncc,
        surface_distances,
    )
    from monai_regplugins.metrics.pair import finite_values, mean_metrics, pair_metrics
    from monai_regplugins.metrics.separability import (
        MotionPairs,
        MotionSeparability,
        correct_voxels,
        sampled_pairs,
    )

__all__ = [
    "Measure",
    "MotionPairs",
    "MotionSeparability",
    "SurfaceDistances",
    "correct_voxels",
    "dice",
    "field_errors",
    "finite_values",
    "folding",
    "folding_strict",
    "landmark_differences",
    "landmark_errors",
    "landmark_statistics",
    "mean_metrics",
    "mean_of_worst",
    "ncc",
    "pair_metrics",
    "regularity",
    "sampled_pairs",
    "sdlogj",
    "sdlogj_l2r",
    "surface_distances",
]

export_on_demand(
    __name__,
    field_error=["field_errors"],
    landmarks=["landmark_differences", "landmark_errors", "landmark_statistics", "mean_of_worst"],
    learn2reg=["sdlogj_l2r"],
    measure=["Measure"],
    overlap=["SurfaceDistances", "dice", "ncc", "surface_distances"],
    pair=["finite_values", "mean_metrics", "pair_metrics"],
    separability=["MotionPairs", "MotionSeparability", "correct_voxels", "sampled_pairs"],
)
