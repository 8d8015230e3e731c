#!/usr/bin/env bash
# A 4D series (x, y, z, t) through numpy and back in SimpleITK: a 3D image of vectors, and x is their components.
# Most expect: GetImageFromArray(GetArrayFromImage(image)) has the size of the image.
# Seen: an array of four axes is taken for a 3D image with channels. A series of 5 x 6 x 7 voxels and 8 times comes back
# as 6 x 7 x 8 voxels with 5 components, and CopyInformation then raises. Arrays of two, three and five axes come back
# as they were; with `isVector=False` so does this one. itk's own image_from_array makes it 4D.
# For users: a registered or filtered series needs `isVector=False`; a field of vectors in 2D has three axes and needs
# `isVector=True`.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 itk==5.4.7
check <<'EOF'
import itk
import numpy as np
import SimpleITK as sitk
from expect import expect


def shape(image):
    """Size and number of components."""
    return [*image.GetSize(), image.GetNumberOfComponentsPerPixel()]


for size in ((5, 6), (5, 6, 7), (5, 6, 7, 8), (5, 6, 7, 8, 2)):
    image = sitk.Image(size, sitk.sitkFloat32, 1)
    back = sitk.GetImageFromArray(sitk.GetArrayFromImage(image))
    wanted = [6, 7, 8, 5] if len(size) == 4 else [*size, 1]
    expect(f"{len(size)}D there and back, size and components", shape(back), wanted)
series = sitk.Image((5, 6, 7, 8), sitk.sitkFloat32, 1)
array = sitk.GetArrayFromImage(series)
expect("isVector=False", shape(sitk.GetImageFromArray(array, isVector=False)), [5, 6, 7, 8, 1])
try:
    sitk.GetImageFromArray(array).CopyInformation(series)
    seen = "copied"
except RuntimeError:
    seen = "raises"
expect("CopyInformation", seen, "raises")
expect("itk", [int(n) for n in itk.size(itk.image_from_array(array))], [5, 6, 7, 8])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 itk==5.4.7
# 2D there and back, size and components: [5, 6, 1]
# 3D there and back, size and components: [5, 6, 7, 1]
# 4D there and back, size and components: [6, 7, 8, 5]
# 5D there and back, size and components: [5, 6, 7, 8, 2, 1]
# isVector=False: [5, 6, 7, 8, 1]
# CopyInformation: raises
# itk: [5, 6, 7, 8]
