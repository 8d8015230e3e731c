#!/usr/bin/env bash
# pycpd's RigidRegistration returns R and t of `y -> s R y + t`; applied like that the points miss by more than a
# unit.
# Most expect: R is the rotation matrix of column vectors, as in ITK, nibabel and every text on rigid registration.
# Seen: R is the transpose: points are rows and the result is s Y R + t. The library's own transformed points are
# right. The affine matrix B is transposed in the same way.
# For users: a pre-alignment from pycpd turns the wrong way round when written as a transform; write R.T.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pycpd==2.0.0
check <<'EOF'
import numpy as np
from expect import expect
from pycpd import AffineRegistration, RigidRegistration

cos, sin = np.cos(0.4), np.sin(0.4)
rotation, shift = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]), np.array([0.1, 0.2, 0.3])
affine = rotation + np.array([[0, 0.1, 0], [0, 0, 0], [0, 0, 0.1]])
source = np.random.default_rng(0).normal(size=(60, 3))


def largest(moved: np.ndarray, target: np.ndarray) -> float:
    return float(np.abs(moved - target).max())


target = source @ rotation.T + shift
moved, (scale, found, offset) = RigidRegistration(X=target, Y=source).register()
expect("rigid, largest error of pycpd's own points", largest(moved, target), 0)
expect("R against the rotation", largest(found, rotation), 0.7788)
expect("R against its transpose", largest(found, rotation.T), 0)
expect("error of R y + t", largest(scale * source @ found.T + offset, target) > 1, True)

target = source @ affine.T + shift
moved, (found, offset) = AffineRegistration(X=target, Y=source).register()
expect("affine, largest error of pycpd's own points", largest(moved, target), 0, 0.01)
expect("B against the transpose of the matrix", largest(found, affine.T), 0, 0.01)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pycpd==2.0.0
# rigid, largest error of pycpd's own points: 0.0
# R against the rotation: 0.77884
# R against its transpose: 0.0
# error of R y + t: True
# affine, largest error of pycpd's own points: 0.0
# B against the transpose of the matrix: 0.0
