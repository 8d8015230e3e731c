"""Transforms of a pair: loading, one grid, intensities, sizes, augmentation, and the warp of the original images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.transforms.augment import RandIntensityFactord, RandPairCropd, RandSwapPaird
    from monai_regplugins.transforms.load import (
        LoadPaird,
        LoadSubjectd,
        SimpleITKReader,
        load_points,
    )
    from monai_regplugins.transforms.prepare import (
        IsotropicSubjectd,
        ResampleToFixedd,
        ResizePaird,
        ScalePaird,
        ScaleRangePaird,
        StandardizePaird,
    )
    from monai_regplugins.transforms.warp_original import (
        WarpOriginald,
        inverse_displacement,
        map_to_moving,
        resample_original,
        total_displacement,
    )

__all__ = [
    "IsotropicSubjectd",
    "LoadPaird",
    "LoadSubjectd",
    "RandIntensityFactord",
    "RandPairCropd",
    "RandSwapPaird",
    "ResampleToFixedd",
    "ResizePaird",
    "ScalePaird",
    "ScaleRangePaird",
    "SimpleITKReader",
    "StandardizePaird",
    "WarpOriginald",
    "inverse_displacement",
    "load_points",
    "map_to_moving",
    "resample_original",
    "total_displacement",
]

export_on_demand(
    __name__,
    augment=["RandIntensityFactord", "RandPairCropd", "RandSwapPaird"],
    load=["LoadPaird", "LoadSubjectd", "SimpleITKReader", "load_points"],
    prepare=[
        "IsotropicSubjectd",
        "ResampleToFixedd",
        "ResizePaird",
        "ScalePaird",
        "ScaleRangePaird",
        "StandardizePaird",
    ],
    warp_original=["WarpOriginald", "inverse_displacement", "map_to_moving", "resample_original", "total_displacement"],
)
