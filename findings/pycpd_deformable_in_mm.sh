#!/usr/bin/env bash
# pycpd's DeformableRegistration of one point set in three units: solved, not moved, and destroyed; and its result given
# other points.
# Most expect: units do not matter, as in the method's first program, which normalizes the points; and
# `transform_point_cloud(points)` transforms any points, as that of the rigid and affine classes does.
# Seen: the kernel's width (`beta` = 2), the weight and the stop are in the units of the points, and nothing is
# normalized. In a cube of side 1 a tenth of the error is left, in one of 100 mm nearly all, in one of 0.001 five
# times as much as before. And each of other points gets the motion of the registered point with the same number in the
# list: the registered points in another order are as far off as before. It is an error only where their count differs.
# For users: divide by the size of the set first, and move other points by `points + kernel(points, Y) @ W`.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pycpd==2.0.0
check <<'EOF'
import numpy as np
from expect import expect
from pycpd import DeformableRegistration

random = np.random.default_rng(0)
source = random.uniform(0, 1, (100, 3))
order = random.permutation(100)


def bend(points: np.ndarray) -> np.ndarray:
    return points + np.sin(4 * points[:, [1]]) * [0.08, 0, 0]


def left(moved: np.ndarray, target: np.ndarray) -> float:
    return float(np.linalg.norm(moved - target, axis=1).mean() / np.linalg.norm(bend(source) - source, axis=1).mean())


for size, wanted in ((1, 0.083), (100, 0.956), (0.001, 4.744)):
    moved, _ = DeformableRegistration(X=bend(source) * size, Y=source * size).register()
    expect(f"cube of side {size}, part of the error that is left", left(moved / size, bend(source)), wanted, 0.02)
scaled = DeformableRegistration(X=bend(source) * 100, Y=source * 100, beta=200, alpha=2e-4).register()[0]
expect("side 100, beta = 200 and alpha = 2e-4", bool(left(scaled / 100, bend(source)) < 0.1), True)

method = DeformableRegistration(X=bend(source), Y=source)
method.register()
same, shuffled = method.transform_point_cloud(source), method.transform_point_cloud(source[order])
expect("the same points again", left(same, bend(source)), 0.083, 0.02)
expect("the same points in another order", left(shuffled, bend(source[order])), 0.927, 0.05)
squares = ((source[order][:, None] - source[None]) ** 2).sum(axis=2)
by_kernel = source[order] + np.exp(-squares / (2 * method.beta**2)) @ method.W
expect("in another order, by the kernel", left(by_kernel, bend(source[order])), 0.083, 0.02)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pycpd==2.0.0
# cube of side 1, part of the error that is left: 0.08271
# cube of side 100, part of the error that is left: 0.95622
# cube of side 0.001, part of the error that is left: 4.74373
# side 100, beta = 200 and alpha = 2e-4: True
# the same points again: 0.08271
# the same points in another order: 0.92747
# in another order, by the kernel: 0.08271
