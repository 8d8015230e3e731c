#!/usr/bin/env bash
# One displacement field, one point between two voxels: ITK and nitransforms disagree, even about the sign.
# Most expect: linear interpolation of the field, as in ITK and ANTs, which wrote it; the file is a sampled field, and
# no spline is named.
# Seen: nitransforms 25.1.0 fits cubic splines through the samples. Next to a displacement of -4 mm it moves points by
# +0.5 mm where ITK moves them by 0, and 2.4 instead of 2 mm on the way there.
# For users: on smooth fields the two agree to hundredths of a millimeter; on fields with jumps (sliding organs,
# masks, B-spline ends) points and folding differ between the tools, and one of them is not what the registration
# optimized.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 nitransforms==25.1.0
check <<'EOF'
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from expect import expect
from nitransforms.nonlinear import DenseFieldTransform

displacements = np.zeros((12, 12, 12, 1, 3), np.float32)
displacements[6, 6, 6, 0, 0] = 4  # LPS
image = nib.Nifti1Image(displacements, np.eye(4))
image.header.set_intent(1007)
nib.save(image, "field.nii.gz")

by_itk = sitk.DisplacementFieldTransform(sitk.ReadImage("field.nii.gz", sitk.sitkVectorFloat64))
by_nitransforms = DenseFieldTransform.from_filename("field.nii.gz", fmt="itk")
for x, itk_wanted, wanted in ((6, -4, -4), (5.5, -2, -2.4019), (5, 0, 0), (4.5, 0, 0.5089), (3.5, 0, -0.1335)):
    moved = by_itk.TransformPoint((-x, -6.0, 6.0))
    expect(f"x = {x}, moved by ITK (RAS, mm)", -moved[0] - x, itk_wanted)
    expect(f"x = {x}, moved by nitransforms", by_nitransforms.map(np.array([[x, 6, 6]]))[0, 0] - x, wanted)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 nitransforms==25.1.0
# x = 6, moved by ITK (RAS, mm): -4.0
# x = 6, moved by nitransforms: -4.0
# x = 5.5, moved by ITK (RAS, mm): -2.0
# x = 5.5, moved by nitransforms: -2.40193
# x = 5, moved by ITK (RAS, mm): 0.0
# x = 5, moved by nitransforms: 0.0
# x = 4.5, moved by ITK (RAS, mm): 0.0
# x = 4.5, moved by nitransforms: 0.50886
# x = 3.5, moved by ITK (RAS, mm): 0.0
# x = 3.5, moved by nitransforms: -0.13351
