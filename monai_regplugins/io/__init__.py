"""Transforms in and out of files that other tools read, and what is done with them: apply, compose, invert, convert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.io.dicom_identity import DicomIdentity
    from monai_regplugins.io.displacement import load_itk_nifti, save_itk_nifti
    from monai_regplugins.io.formats import (
        FORMATS,
        FieldFormat,
        FieldPair,
        format_of,
        load_field,
        output_name,
        save_field,
    )
    from monai_regplugins.io.linear import load_linear, save_linear
    from monai_regplugins.io.operations import apply, compose, convert, inspect, invert, jacobian
    from monai_regplugins.io.provenance import Provenance
    from monai_regplugins.io.resampling import apply_to_image, apply_to_points
    from monai_regplugins.io.transform_files import load_transform

__all__ = [
    "FORMATS",
    "DicomIdentity",
    "FieldFormat",
    "FieldPair",
    "Provenance",
    "apply",
    "apply_to_image",
    "apply_to_points",
    "compose",
    "convert",
    "format_of",
    "inspect",
    "invert",
    "jacobian",
    "load_field",
    "load_itk_nifti",
    "load_linear",
    "load_transform",
    "output_name",
    "save_field",
    "save_itk_nifti",
    "save_linear",
]

export_on_demand(
    __name__,
    dicom_identity=["DicomIdentity"],
    displacement=["load_itk_nifti", "save_itk_nifti"],
    formats=["FORMATS", "FieldFormat", "FieldPair", "format_of", "load_field", "output_name", "save_field"],
    linear=["load_linear", "save_linear"],
    operations=["apply", "compose", "convert", "inspect", "invert", "jacobian"],
    provenance=["Provenance"],
    resampling=["apply_to_image", "apply_to_points"],
    transform_files=["load_transform"],
)
