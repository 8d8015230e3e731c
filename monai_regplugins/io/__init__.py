"""Displacement fields in and out of files that other tools read, and files that are written whole or not at all."""

from __future__ import annotations

from monai_regplugins.io.atomic import replace_file, write_file
from monai_regplugins.io.displacement import load_itk_nifti, save_itk_nifti

__all__ = ["load_itk_nifti", "replace_file", "save_itk_nifti", "write_file"]
