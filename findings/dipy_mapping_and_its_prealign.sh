#!/usr/bin/env bash
# A dipy mapping written to a file and read back with the pre-alignment it was made with: worse than no registration.
# Most expect: `read_mapping(..., prealign=P)` wants the P that went into `optimize`; the file holds the rest.
# Seen: `optimize` keeps the INVERSE of P in the mapping, the file holds none, and `read_mapping` hands what it gets
# to the mapping as it is. With P the result is off by twice the pre-alignment, silently; with inv(P) it is the one
# that was optimized.
# For users: keep `mapping.prealign` beside the file and read with that.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 dipy==1.12.1
check <<'EOF'
import logging

import nibabel as nib
import numpy as np
from dipy.align import read_mapping, write_mapping
from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import SSDMetric
from expect import expect

logging.getLogger("dipy").setLevel(logging.ERROR)


def blob(center: tuple) -> np.ndarray:
    squares = sum((axis - middle) ** 2 for axis, middle in zip(np.indices((24, 24, 24)), center))
    return np.exp(-squares / 18).astype(np.float32)


static, moving = blob((12, 10, 11)), blob((15, 10, 11))
for name, array in (("static", static), ("moving", moving)):
    nib.save(nib.Nifti1Image(array, np.eye(4)), f"{name}.nii.gz")
prealign = np.eye(4)
prealign[0, 3] = 2.5
registration = SymmetricDiffeomorphicRegistration(SSDMetric(3), [20, 10])
mapping = registration.optimize(static, moving, np.eye(4), np.eye(4), prealign)
write_mapping(mapping, "mapping.nii.gz")


def difference(warped: np.ndarray) -> float:
    return 1000 * float(np.abs(warped - static).mean())


def read_with(matrix: np.ndarray | None) -> float:
    read = read_mapping("mapping.nii.gz", "static.nii.gz", "moving.nii.gz", prealign=matrix)
    return difference(read.transform(moving))


expect("shift given to optimize, kept by the mapping", [prealign[0, 3], mapping.prealign[0, 3]], [2.5, -2.5])
expect("1000 x mean difference before", difference(moving), 23.586, 0.05)
expect("after", difference(mapping.transform(moving)), 1.782, 0.05)
expect("read with the shift given to optimize", read_with(prealign), 35.346, 0.05)
expect("read with its inverse", read_with(np.linalg.inv(prealign)), 1.782, 0.05)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 dipy==1.12.1
# shift given to optimize, kept by the mapping: [2.5, -2.5]
# 1000 x mean difference before: 23.58588
# after: 1.7821
# read with the shift given to optimize: 35.346
# read with its inverse: 1.7821
