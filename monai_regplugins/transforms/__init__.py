"""Transforms of a pair: loading, one grid, intensities, sizes, augmentation, and the way back to the originals."""

from __future__ import annotations

from monai_regplugins.transforms.augment import RandIntensityFactord, RandPairCropd, RandSwapPaird
from monai_regplugins.transforms.border import ExtendBorderd
from monai_regplugins.transforms.load import LoadPaird, LoadSubjectd, SimpleITKReader, load_points
from monai_regplugins.transforms.prepare import (
    IsotropicSubjectd,
    MovingToFixedGridd,
    ResizePaird,
    ScalePaird,
    StandardizePaird,
)
from monai_regplugins.transforms.synthetic import RandSyntheticPaird
from monai_regplugins.transforms.synthetic_window import (
    RandSyntheticWindowd,
    SplineCoefficientsd,
    SyntheticPaird,
    synthetic_cases,
)
from monai_regplugins.transforms.total import WarpOriginald, resample_original, total_displacement

__all__ = [
    "ExtendBorderd",
    "IsotropicSubjectd",
    "LoadPaird",
    "LoadSubjectd",
    "MovingToFixedGridd",
    "RandIntensityFactord",
    "RandPairCropd",
    "RandSwapPaird",
    "RandSyntheticPaird",
    "RandSyntheticWindowd",
    "ResizePaird",
    "ScalePaird",
    "SimpleITKReader",
    "SplineCoefficientsd",
    "StandardizePaird",
    "SyntheticPaird",
    "WarpOriginald",
    "load_points",
    "resample_original",
    "synthetic_cases",
    "total_displacement",
]
