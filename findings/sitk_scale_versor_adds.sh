#!/usr/bin/env bash
# A turn of 90 degrees and a scale of 2 in SimpleITK's ScaleVersor3DTransform: 45 degrees, and lengths times 1.414.
# Most expect: the matrix is a product of rotation and scales, so that scale 2 doubles all lengths.
# Seen: it is the SUM: rotation + scales - 1. Scale and angle are right only where the other one is nothing. At 90
# degrees scale 1.5 is 1.118 across the axis and 1.5 along it; at 180 degrees scale 2 makes a line of the whole image.
# ScaleSkewVersor3DTransform does the same; Similarity3DTransform multiplies.
# For users: do not report scales or angles of these two, and do not set them by hand: take the singular values of
# GetMatrix(). Similarity3DTransform or AffineTransform instead.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7
check <<'EOF'
import numpy as np
import SimpleITK as sitk
from expect import expect


def describe(kind: type, scale: float, degrees: float) -> list[float]:
    """Give the angle of the x axis, and what becomes of lengths along x and z."""
    transform = kind()
    transform.SetRotation((0.0, 0.0, 1.0), np.deg2rad(degrees))
    transform.SetScale(scale if kind is sitk.Similarity3DTransform else [scale] * 3)
    matrix = np.reshape(transform.GetMatrix(), (3, 3))
    angle = np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return [angle, np.linalg.norm(matrix[:, 0]), np.linalg.norm(matrix[:, 2])]


for kind in (sitk.ScaleVersor3DTransform, sitk.ScaleSkewVersor3DTransform):
    expect(f"{kind.__name__}, 2 and 0 degrees: angle, scales", describe(kind, 2, 0), [0, 2, 2])
    expect("1 and 90 degrees", describe(kind, 1, 90), [90, 1, 1])
    expect("2 and 90 degrees", describe(kind, 2, 90), [45, 1.41421, 2])
    expect("1.5 and 90 degrees", describe(kind, 1.5, 90), [63.43495, 1.11803, 1.5])
    expect("1.3 and 40 degrees", describe(kind, 1.3, 40), [31.08888, 1.24480, 1.3])
    expect("2 and 180 degrees", describe(kind, 2, 180)[1:], [0, 2])
kind = sitk.Similarity3DTransform
expect("Similarity3DTransform, 1.3 and 40 degrees", describe(kind, 1.3, 40), [40, 1.3, 1.3])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7
# ScaleVersor3DTransform, 2 and 0 degrees: angle, scales: [0.0, 2.0, 2.0]
# 1 and 90 degrees: [90.0, 1.0, 1.0]
# 2 and 90 degrees: [45.0, 1.41421, 2.0]
# 1.5 and 90 degrees: [63.43495, 1.11803, 1.5]
# 1.3 and 40 degrees: [31.08851, 1.24484, 1.3]
# 2 and 180 degrees: [0.0, 2.0]
# ScaleSkewVersor3DTransform, 2 and 0 degrees: angle, scales: [0.0, 2.0, 2.0]
# 1 and 90 degrees: [90.0, 1.0, 1.0]
# 2 and 90 degrees: [45.0, 1.41421, 2.0]
# 1.5 and 90 degrees: [63.43495, 1.11803, 1.5]
# 1.3 and 40 degrees: [31.08851, 1.24484, 1.3]
# 2 and 180 degrees: [0.0, 2.0]
# Similarity3DTransform, 1.3 and 40 degrees: [40.0, 1.3, 1.3]
