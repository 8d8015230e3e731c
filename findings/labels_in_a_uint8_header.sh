#!/usr/bin/env bash
# Labels 0, 1, 2 and 4 as float32, saved by nibabel with the header of a uint8 file: label 1 is gone and 2 becomes 1.
# Most expect: nibabel writes float32, or casts whole numbers to uint8, which fits.
# Seen: it scales the values to the whole range of uint8, and they come back as 0, 1.0039, 1.9922, 4, in nibabel and
# in SimpleITK alike. `mask == 1` finds nothing, and a cast to integers makes label 2 a 1.
# For users: results that went through float (every network, every resampling) need `.astype(np.uint8)`, or
# `header.set_data_dtype`, before they are saved with an old header.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7
check <<'EOF'
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from expect import expect

labels = np.array([0, 1, 2, 4], np.float32).reshape(4, 1, 1)
old = nib.Nifti1Image(np.zeros((4, 1, 1), np.uint8), np.eye(4))
nib.save(nib.Nifti1Image(labels, np.eye(4), old.header), "labels.nii.gz")

read = nib.load("labels.nii.gz")
expect("type in the file", str(read.get_data_dtype()), "uint8")
expect("nibabel", read.get_fdata().ravel(), [0, 1.00392, 1.99216, 4], 1e-4)
expect("voxels of label 1", int((read.get_fdata() == 1).sum()), 0)
expect("SimpleITK", sitk.GetArrayFromImage(sitk.ReadImage("labels.nii.gz")).ravel(), [0, 1.00392, 1.99216, 4], 1e-4)
expect("cast to integers", read.get_fdata().astype(int).ravel(), [0, 1, 1, 4])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7
# type in the file: uint8
# nibabel: [0.0, 1.00392, 1.99216, 4.0]
# voxels of label 1: 0
# SimpleITK: [0.0, 1.0039199590682983, 1.9921599626541138, 4.0]
# cast to integers: [0, 1, 1, 4]
