"""Measures of a registration: overlap, surface distance, landmarks, correlation, regularity of the field."""

from __future__ import annotations

from monai_regplugins.metrics.landmarks import landmark_errors
from monai_regplugins.metrics.overlap import SurfaceDistances, dice, ncc, surface_distances
from monai_regplugins.metrics.pair import finite_values, mean_metrics, pair_metrics
from monai_regplugins.metrics.regularity import folding, sdlogj

__all__ = [
    "SurfaceDistances",
    "dice",
    "finite_values",
    "folding",
    "landmark_errors",
    "mean_metrics",
    "ncc",
    "pair_metrics",
    "sdlogj",
    "surface_distances",
]
