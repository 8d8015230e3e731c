"""Displacement fields in and out of files that other tools read, and files that are written whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.io.dicom_identity import DicomIdentity
    from monai_regplugins.io.displacement import load_itk_nifti, save_itk_nifti
    from monai_regplugins.io.forms import (
        FORMS,
        FieldForm,
        FieldPair,
        form_of,
        load_field,
        output_name,
        save_field,
    )
    from monai_regplugins.io.provenance import Provenance

__all__ = [
    "FORMS",
    "DicomIdentity",
    "FieldForm",
    "FieldPair",
    "Provenance",
    "form_of",
    "load_field",
    "load_itk_nifti",
    "output_name",
    "save_field",
    "save_itk_nifti",
]

export_on_demand(
    __name__,
    dicom_identity=["DicomIdentity"],
    displacement=["load_itk_nifti", "save_itk_nifti"],
    forms=["FORMS", "FieldForm", "FieldPair", "form_of", "load_field", "output_name", "save_field"],
    provenance=["Provenance"],
)
