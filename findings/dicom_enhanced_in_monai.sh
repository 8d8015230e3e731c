#!/usr/bin/env bash
# The same CT as single slices and as one Enhanced (multi-frame) object, opened by MONAI's PydicomReader: two
# different images.
# Most expect: the same array, or an error for the multi-frame object.
# Seen: the single slices are right. The multi-frame object comes without a word with rows and slices swapped (16, 8,
# 16), spacing 1 mm and position 0, and without its rescale intercept: air is 0, not -1024. SimpleITK reads it right,
# though from the top down.
# For users: new scanners write Enhanced CT and MR. Read them with ITKReader, or convert with dcm2niix.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pydicom==3.0.2 highdicom==0.28.2 SimpleITK==2.5.7 torch==2.13.0 monai==1.6.1
check <<'EOF'
import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from expect import expect
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from monai.transforms import LoadImage
from series import write_series

paths = write_series("series", [100 + 2 * number for number in range(8)], [0] * 8)
datasets = [pydicom.dcmread(path) for path in paths]
LegacyConvertedEnhancedCTImage(datasets, hd.UID(), 2, hd.UID(), 1).save_as("enhanced.dcm")

load = LoadImage(reader="PydicomReader")
single, enhanced = load("series"), load("enhanced.dcm")
by_itk = sitk.ReadImage("enhanced.dcm")
expect("single slices, shape", single.shape, [16, 16, 8])
expect("single slices, affine", single.affine[:3], [[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 2, 100]])
expect("single slices, value", float(single.min()), -1024)
expect("multi-frame, shape", enhanced.shape, [16, 8, 16])
expect("multi-frame, affine", enhanced.affine[:3], [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]])
expect("multi-frame, value", float(enhanced.min()), 0)
expect("SimpleITK, size", by_itk.GetSize(), [16, 16, 8])
expect("SimpleITK, spacing and origin along z", [by_itk.GetSpacing()[2], by_itk.GetOrigin()[2]], [2, 114])
expect("SimpleITK, value", by_itk[0, 0, 0], -1024)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pydicom==3.0.2 highdicom==0.28.2 SimpleITK==2.5.7 torch==2.13.0 monai==1.6.1
# single slices, shape: [16, 16, 8]
# single slices, affine: [[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 100.0]]
# single slices, value: -1024.0
# multi-frame, shape: [16, 8, 16]
# multi-frame, affine: [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
# multi-frame, value: 0.0
# SimpleITK, size: [16, 16, 8]
# SimpleITK, spacing and origin along z: [2.0, 114.0]
# SimpleITK, value: -1024
