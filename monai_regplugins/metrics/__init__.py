"""Measures of a registration: overlap, surface distance, landmarks, correlation, regularity of the field."""

from __future__ import annotations

from monai_regplugins.metrics.cumulative import FoldingMetric, SDLogJMetric, TargetRegistrationError
from monai_regplugins.metrics.field_error import field_errors
from monai_regplugins.metrics.landmarks import landmark_differences, landmark_errors, landmark_statistics, mean_of_worst
from monai_regplugins.metrics.learn2reg import sdlogj_l2r
from monai_regplugins.metrics.overlap import SurfaceDistances, dice, ncc, surface_distances
from monai_regplugins.metrics.pair import finite_values, mean_metrics, pair_metrics
from monai_regplugins.metrics.paper import paper_metrics
from monai_regplugins.metrics.regularity import folding, folding_strict, regularity, sdlogj
from monai_regplugins.metrics.separability import MotionPairs, MotionSeparability, correct_voxels, sampled_pairs

__all__ = [
    "FoldingMetric",
    "MotionPairs",
    "MotionSeparability",
    "SDLogJMetric",
    "SurfaceDistances",
    "TargetRegistrationError",
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
    "paper_metrics",
    "regularity",
    "sampled_pairs",
    "sdlogj",
    "sdlogj_l2r",
    "surface_distances",
]
