#!/usr/bin/env bash
# A shift of 3 mm and a field of zeros, given to `ants.apply_transforms` as [shift, field]: it moves the other way.
# Most expect: a field of zeros changes nothing, and transforms are inverted where `whichtoinvert` asks for it.
# Seen: where the list is one file named *.mat and one that is not, in this order, `whichtoinvert` becomes (True, False)
# by itself, for images and points, as only the docstring says. The shift alone, after the field, before two fields, or
# with the same numbers in a file named *.txt goes the way it should. The default suits `invtransforms` of
# `ants.registration`; for a matrix of one's own after a field, as in a chain to an atlas, it is the inverse.
# For users: always give `whichtoinvert`.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 antspyx==0.6.3
check <<'EOF'
import ants
import numpy as np
import pandas as pd
import SimpleITK as sitk
from expect import expect

array = np.zeros((21, 21, 21), np.float32)
array[10, 10, 10] = 1
image = ants.from_numpy(array)
shift = sitk.AffineTransform(3)
shift.SetTranslation((3.0, 0.0, 0.0))
sitk.WriteTransform(shift, "shift.mat")
sitk.WriteTransform(shift, "shift.txt")
sitk.WriteImage(sitk.GetImageFromArray(np.zeros((21, 21, 21, 3)), isVector=True), "field.nii.gz")
points = pd.DataFrame({"x": [10.0], "y": [10.0], "z": [10.0]})


def moved(*files: str, **options: list) -> list:
    warped = ants.apply_transforms(image, image, list(files), "nearestNeighbor", **options).numpy()
    there = ants.apply_transforms_to_points(3, points, list(files), **options)
    return [int(np.argwhere(warped > 0.5)[0, 0]) - 10, float(there["x"][0]) - 10]


expect("shift.mat, spot and point in x", moved("shift.mat"), [-3, 3])
expect("shift.mat, field", moved("shift.mat", "field.nii.gz"), [3, -3])
expect("shift.mat, field, with [False, False]", moved("shift.mat", "field.nii.gz", whichtoinvert=[False] * 2), [-3, 3])
expect("field, shift.mat", moved("field.nii.gz", "shift.mat"), [-3, 3])
expect("shift.mat, field, field", moved("shift.mat", "field.nii.gz", "field.nii.gz"), [-3, 3])
expect("shift.txt, field", moved("shift.txt", "field.nii.gz"), [-3, 3])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 antspyx==0.6.3
# shift.mat, spot and point in x: [-3.0, 3.0]
# shift.mat, field: [3.0, -3.0]
# shift.mat, field, with [False, False]: [-3.0, 3.0]
# field, shift.mat: [-3.0, 3.0]
# shift.mat, field, field: [-3.0, 3.0]
# shift.txt, field: [-3.0, 3.0]
