#!/usr/bin/env bash
# A label map of 0, 2 and 5 halved by scikit-image's `resize(labels, shape, order=0, preserve_range=True)`: as integers it
# keeps its labels, as floats it gets organs that nobody has.
# Most expect: order 0 is the nearest neighbor, which makes no new values, whatever the type of the numbers is.
# Seen: floats are smoothed first (`anti_aliasing` is on by default where an image shrinks, and only bool and integers
# of order 0 are left out), so that the borders take 35 values between the labels. Rounded to integers, 144 voxels carry
# labels 1 and 4, which nobody has, and label 5 has lost 28 % of its voxels. `rescale` does the same.
# For users: nibabel's `get_fdata()` and most networks give floats. Cast before, or pass `anti_aliasing=False`.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 scikit-image==0.26.0
check <<'EOF'
import nibabel as nib
import numpy as np
from expect import expect
from skimage.transform import rescale, resize

labels = np.zeros((60, 60, 8), np.uint8)
labels[20:40, 20:40] = 2
labels[40:50, 20:40] = 5
nib.save(nib.Nifti1Image(labels, np.eye(4)), "labels.nii.gz")
image = nib.load("labels.nii.gz")
WANTED = {"uint8": [6000, 800, 400], "get_fdata()": [5968, 32, 800, 112, 288]}
for name, given in (("uint8", np.asarray(image.dataobj)), ("get_fdata()", image.get_fdata())):
    half = resize(given, (30, 30, 8), order=0, preserve_range=True)
    expect(f"{name}, resize, more than three values", len(np.unique(half)) > 3, name != "uint8")
    seen = np.unique(np.rint(half).astype(int), return_counts=True)
    expect("    labels, rounded", seen[0], [0, 2, 5] if name == "uint8" else [0, 1, 2, 4, 5])
    expect("    voxels", seen[1], WANTED[name])
    scaled = rescale(given, (0.5, 0.5, 1), order=0, preserve_range=True)
    expect(f"{name}, rescale, the same", bool((scaled == half).all()), True)
    plain = resize(given, (30, 30, 8), order=0, preserve_range=True, anti_aliasing=False)
    expect(f"{name}, anti_aliasing=False", np.unique(plain), [0, 2, 5])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 scikit-image==0.26.0
# uint8, resize, more than three values: False
#     labels, rounded: [0, 2, 5]
#     voxels: [6000, 800, 400]
# uint8, rescale, the same: True
# uint8, anti_aliasing=False: [0, 2, 5]
# get_fdata(), resize, more than three values: True
#     labels, rounded: [0, 1, 2, 4, 5]
#     voxels: [5968, 32, 800, 112, 288]
# get_fdata(), rescale, the same: True
# get_fdata(), anti_aliasing=False: [0.0, 2.0, 5.0]
