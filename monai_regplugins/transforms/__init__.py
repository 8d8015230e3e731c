"""Transforms of a pair: loading, one grid, intensities, sizes, augmentation, and the way back to the originals."""

from __future__ import annotations

from monai_regplugins.transforms.augment import RandIntensityFactord, RandPairCropd, RandSwapPaird
from monai_regplugins.transforms.border import ExtendBorderd
from monai_regplugins.transforms.load import LoadImaged, LoadPaird, SimpleITKReader, load_points
from monai_regplugins.transforms.prepare import (
    IsotropicImaged,
    MovingToFixedGridd,
    ResizePaird,
    ScalePaird,
    StandardizePaird,
)
from monai_regplugins.transforms.synthetic import RandSyntheticPaird
from monai_regplugins.transforms.total import WarpOriginald, resample_original, total_displacement

__all__ = [
    "ExtendBorderd",
    "IsotropicImaged",
    "LoadImaged",
    "LoadPaird",
    "MovingToFixedGridd",
    "RandIntensityFactord",
    "RandPairCropd",
    "RandSwapPaird",
    "RandSyntheticPaird",
    "ResizePaird",
    "ScalePaird",
    "SimpleITKReader",
    "StandardizePaird",
    "WarpOriginald",
    "load_points",
    "resample_original",
    "total_displacement",
]
