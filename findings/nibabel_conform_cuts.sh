#!/usr/bin/env bash
# `nibabel.processing.conform(image)` of a CT of 400 x 400 x 300 mm: only what lies within 256 mm is left.
# Most expect: the whole image, resampled to 1 mm and turned to RAS; the number of voxels follows from its size.
# Seen: 256 x 256 x 256 voxels of 1 mm whatever the image measures: 35 % of the body's volume, without a word. The
# image is centered, so that the cut is at all six sides. A head fits, which is what the defaults are made for.
# For users: give `out_shape`, or use `resample_to_output`, whose grid covers the image.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 scipy==1.15.3 nibabel==5.4.2
check <<'EOF'
import nibabel as nib
import numpy as np
from expect import expect
from nibabel.processing import conform, resample_to_output


def liters(image):
    """The volume of all voxels above one half."""
    return float((image.get_fdata() > 0.5).sum() * np.prod(image.header.get_zooms()) / 1e6)


ct = nib.Nifti1Image(np.ones((200, 200, 100), np.float32), np.diag([-2.0, 2.0, 3.0, 1.0]))
whole, made = resample_to_output(ct, (1, 1, 1), order=0), conform(ct, order=0)
expect("image, voxels", ct.shape, (200, 200, 100))
expect("image, liters", liters(ct), 48.0)
expect("conform, voxels", made.shape, (256, 256, 256))
expect("conform, liters", liters(made), 16.777, 0.001)
expect("conform, share", liters(made) / liters(ct), 0.3495, 0.001)
expect("resample_to_output, voxels", whole.shape, (399, 399, 298))
expect("resample_to_output, share", liters(whole) / liters(ct), 0.988, 0.01)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 scipy==1.15.3 nibabel==5.4.2
# image, voxels: [200, 200, 100]
# image, liters: 48.0
# conform, voxels: [256, 256, 256]
# conform, liters: 16.77722
# conform, share: 0.34953
# resample_to_output, voxels: [399, 399, 298]
# resample_to_output, share: 0.98837
