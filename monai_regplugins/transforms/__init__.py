"""Transforms of a pair: loading, one grid, intensities, sizes, augmentation, and the way back to the originals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.transforms.augment import RandIntensityFactord, RandPairCropd, RandSwapPaird
    from monai_regplugins.transforms.border import ExtendBorderd
    from monai_regplugins.transforms.dicom_series import read_dicom_series, series_of
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
    from monai_regplugins.transforms.total import (
        WarpOriginald,
        inverse_displacement,
        map_to_moving,
        resample_original,
        total_displacement,
    )

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
    "inverse_displacement",
    "load_points",
    "map_to_moving",
    "read_dicom_series",
    "resample_original",
    "series_of",
    "synthetic_cases",
    "total_displacement",
]

export_on_demand(
    __name__,
    augment=["RandIntensityFactord", "RandPairCropd", "RandSwapPaird"],
    border=["ExtendBorderd"],
    dicom_series=["read_dicom_series", "series_of"],
    load=["LoadPaird", "LoadSubjectd", "SimpleITKReader", "load_points"],
    prepare=["IsotropicSubjectd", "MovingToFixedGridd", "ResizePaird", "ScalePaird", "StandardizePaird"],
    synthetic=["RandSyntheticPaird"],
    synthetic_window=["RandSyntheticWindowd", "SplineCoefficientsd", "SyntheticPaird", "synthetic_cases"],
    total=["WarpOriginald", "inverse_displacement", "map_to_moving", "resample_original", "total_displacement"],
)
