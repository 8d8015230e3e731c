#!/usr/bin/env bash
# NIfTI-2, the format under CIFTI and of images longer than 32767 voxels: ITK has no reader for it, and MONAI hides
# that.
# Most expect: what calls itself a NIfTI reader reads both versions, as nibabel, fslpy and VTK do; and MONAI's
# `LoadImage` with `reader="ITKReader"` reads with ITK or fails.
# Seen: SimpleITK 2.5.7 and itk 5.4.7 find no reader for a plain uncompressed NIfTI-2 file. MONAI, asked for
# ITKReader, opens it: it tries its other readers without a word.
# For users: an ITK step in the middle of a nibabel pipeline stops; and the reader named in a MONAI configuration need
# not be the one whose conventions (see nifti_qform_sform.sh) were used.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 itk-io==5.4.7 fslpy==3.29.1 \
    vtk==9.7.2 pyvista==0.49.1 torch==2.13.0 monai==1.6.1
check <<'EOF'
import itk
import nibabel as nib
import numpy as np
import pyvista
import SimpleITK as sitk
from expect import expect
from fsl.data.image import Image
from monai.transforms import LoadImage

FILE = "image.nii"
nib.save(nib.Nifti2Image(np.zeros((5, 6, 7), np.float32), np.eye(4)), FILE)
REFUSED = "no reader"


def answer(read) -> str:
    try:
        return str(tuple(read()))
    except RuntimeError as error:
        return REFUSED if "ImageIO reader" in str(error) or "Could not create IO object" in str(error) else str(error)


expect("nibabel", answer(lambda: nib.load(FILE).shape), "(5, 6, 7)")
expect("fslpy", answer(lambda: Image(FILE).shape), "(5, 6, 7)")
expect("VTK", answer(lambda: pyvista.read(FILE).dimensions), "(5, 6, 7)")
expect("itk", answer(lambda: itk.size(itk.imread(FILE))), REFUSED)
expect("SimpleITK", answer(lambda: sitk.ReadImage(FILE).GetSize()), REFUSED)
expect("MONAI, ITKReader", answer(lambda: LoadImage(reader="ITKReader")(FILE).shape), "(5, 6, 7)")
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 itk-io==5.4.7 fslpy==3.29.1 vtk==9.7.2 pyvista==0.49.1 torch==2.13.0 monai==1.6.1
# nibabel: (5, 6, 7)
# fslpy: (5, 6, 7)
# VTK: (5, 6, 7)
# itk: no reader
# SimpleITK: no reader
# MONAI, ITKReader: (5, 6, 7)
