"""Readers of scans: NIfTI, MetaImage, NRRD, DICOM series, cine series, with checks before the pixels are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.readers.cine import (
        CineSeries,
        read_cine,
        reference_frame,
        series_files,
        write_series,
    )
    from monai_regplugins.readers.dicom_series import read_dicom_series, series_of

__all__ = [
    "CineSeries",
    "read_cine",
    "read_dicom_series",
    "reference_frame",
    "series_files",
    "series_of",
    "write_series",
]

export_on_demand(
    __name__,
    cine=["CineSeries", "read_cine", "reference_frame", "series_files", "write_series"],
    dicom_series=["read_dicom_series", "series_of"],
)
