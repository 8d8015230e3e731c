#!/usr/bin/env bash
# greedy writes its displacement fields in steps of a tenth of a voxel.
# Most expect: a float32 file holds the field that was optimized.
# Seen: by default (`-wp 0.1`) every component is rounded to 0.1 voxel, in the file and in memory: 41 472 numbers take
# 78 values, up to 0.05 voxel off. With `-wp 0` they are written as computed.
# For users: Jacobians, strains and inverse fields from such files show steps; add `-wp 0` where the field itself is
# the result.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 picsl_greedy==1.4.0.3
check <<'EOF'
import numpy as np
import SimpleITK as sitk
from expect import expect
from picsl_greedy import Greedy3D


def blob(center: tuple) -> sitk.Image:
    squares = sum((axis - middle) ** 2 for axis, middle in zip(np.indices((24, 24, 24)), center))
    return sitk.GetImageFromArray(np.exp(-squares / 18).astype(np.float32))


def field(options: str) -> np.ndarray:
    greedy = Greedy3D()
    command = f"-V 0 -i fixed moving -m SSD -n 40x20 -s 2vox 0.5vox -threads 1 -o field {options}"
    greedy.execute(command, fixed=blob((12, 10, 11)), moving=blob((13, 12, 11)), field=None)
    return sitk.GetArrayFromImage(greedy["field"])


rounded, exact = field(""), field("-wp 0")
expect("numbers in the field", rounded.size, 41472)
expect("different values, by default", len(np.unique(rounded)) < 200, True)
expect("largest distance from a multiple of 0.1 voxel", float(np.abs(rounded * 10 - np.round(rounded * 10)).max()), 0)
expect("different values, -wp 0", len(np.unique(exact)) > 40000, True)
expect("largest difference in voxels", float(np.abs(rounded - exact).max()), 0.05)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 picsl_greedy==1.4.0.3
# numbers in the field: 41472
# different values, by default: True
# largest distance from a multiple of 0.1 voxel: 0.0
# different values, -wp 0: True
# largest difference in voxels: 0.05
