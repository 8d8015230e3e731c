"""Measures of a registration: overlap, surface distance, landmarks, correlation, regularity of the field."""

from __future__ import annotations

from monai_regplugins.metrics.field_error import field_errors
from monai_regplugins.metrics.landmarks import landmark_differences, landmark_errors, landmark_statistics
from monai_regplugins.metrics.overlap import SurfaceDistances, dice, ncc, surface_distances
from monai_regplugins.metrics.pair import finite_values, mean_metrics, pair_metrics
from monai_regplugins.metrics.regularity import folding, sdlogj

__all__ = [
    "SurfaceDistances",
    "dice",
    "field_errors",
    "finite_values",
    "folding",
    "landmark_differences",
    "landmark_errors",
    "landmark_statistics",
    "mean_metrics",
    "ncc",
    "pair_metrics",
    "sdlogj",
    "surface_distances",
]
