"""Registration in MONAI Deploy: operators for its graphs, and an application each for NIfTI and DICOM pairs.

``operators``, ``nifti_app`` and ``dicom_app`` import the MONAI Deploy App SDK, which lives in an environment of its
own, see ``requirements.txt`` beside this file.
"""
