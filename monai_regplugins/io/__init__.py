"""Displacement fields in and out of files that other tools read."""

from __future__ import annotations

from monai_regplugins.io.displacement import load_itk_nifti, save_itk_nifti

__all__ = ["load_itk_nifti", "save_itk_nifti"]
