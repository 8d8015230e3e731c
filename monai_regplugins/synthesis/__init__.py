"""Synthetic training pairs: the fields of RAN and RegNet, and random shapes, contrasts and motion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.synthesis.ran import RandSyntheticPaird
    from monai_regplugins.synthesis.random_contrast import Contrast, RandomScanner
    from monai_regplugins.synthesis.random_motion import Motion, RandomMotion
    from monai_regplugins.synthesis.random_pairs import RandomPairs, phantom_maps, random_shapes
    from monai_regplugins.synthesis.regnet import (
        RandSyntheticWindowd,
        SplineCoefficientsd,
        SyntheticPaird,
        synthetic_cases,
    )

__all__ = [
    "Contrast",
    "Motion",
    "RandSyntheticPaird",
    "RandSyntheticWindowd",
    "RandomMotion",
    "RandomPairs",
    "RandomScanner",
    "SplineCoefficientsd",
    "SyntheticPaird",
    "phantom_maps",
    "random_shapes",
    "synthetic_cases",
]

export_on_demand(
    __name__,
    ran=["RandSyntheticPaird"],
    random_contrast=["Contrast", "RandomScanner"],
    random_motion=["Motion", "RandomMotion"],
    random_pairs=["RandomPairs", "phantom_maps", "random_shapes"],
    regnet=["RandSyntheticWindowd", "SplineCoefficientsd", "SyntheticPaird", "synthetic_cases"],
)
