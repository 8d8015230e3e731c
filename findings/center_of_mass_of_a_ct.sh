#!/usr/bin/env bash
# A body in one half of a CT in Hounsfield units: its center of mass lies in the air of the other half.
# Most expect: initialization by moments (SimpleITK, dipy, elastix, ANTs) finds the patient, as it does in MR.
# Seen: air weighs -1000 and the body 50, both sums are negative, and their quotient is a point 0.34 voxels beyond the
# middle, away from the body whose center is 7 voxels to the other side. With 1000 added to the image all are exact.
# For users: add 1024 (or clip at 0) before CenteredTransformInitializer(MOMENTS) or dipy's transform_centers_of_mass.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 dipy==1.12.1
check <<'EOF'
import numpy as np
import SimpleITK as sitk
from dipy.align.imaffine import transform_centers_of_mass
from expect import expect

MOMENTS = sitk.CenteredTransformInitializerFilter.MOMENTS
middle = 15.5
ct = np.full((32, 32, 32), -1000, np.float32)
ct[4:14, 10:22, 10:22] = 50  # center: 8.5, 15.5, 15.5


def centers(array: np.ndarray) -> dict:
    even = np.ones_like(array)  # its center is the middle of the image
    fixed, moving = sitk.GetImageFromArray(even), sitk.GetImageFromArray(array)
    shift = sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), MOMENTS)
    by_dipy = transform_centers_of_mass(even, np.eye(4), array, np.eye(4)).affine
    return {
        "SimpleITK": shift.TransformPoint([middle] * 3)[2],
        "dipy": middle + by_dipy[0, 3],
    }


for name, center in centers(ct).items():
    expect(f"{name}, CT in HU (true: 8.5)", center, 15.8386)
for name, center in centers(ct + 1000).items():
    expect(f"{name}, CT + 1000", center, 8.5)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 dipy==1.12.1
# SimpleITK, CT in HU (true: 8.5): 15.83862
# dipy, CT in HU (true: 8.5): 15.83862
# SimpleITK, CT + 1000: 8.5
# dipy, CT + 1000: 8.5
