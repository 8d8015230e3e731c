#!/usr/bin/env bash
# BrainGlobe's AnatomicalSpace maps a stack and the points in it to another orientation: along a flipped axis they part
# by one voxel.
# Most expect: a cell found at voxel 3 of a stack is at the mapped point of the mapped stack.
# Seen: from "asr" to "rai" the bright voxel goes from 3 to 8 along an axis of 12 voxels (12 - 1 - 3), the point to 9
# (12 - 3), which is its neighbor; for a voxel at the border, 0, the point is 12, outside of the stack. Both ways round
# it is back where it was, so that a round trip hides it. It is as if points counted from the edge of the first voxel,
# not from its center: 3.5, the center, goes to 8.5.
# For users: cells that were found as voxel numbers, as by argwhere, lie one voxel off after each flip. Add 0.5 before
# mapping and take it away behind it.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 scipy==1.15.3 brainglobe-space==1.0.3
check <<'EOF'
import numpy as np
from brainglobe_space import AnatomicalSpace
from expect import expect

shape = (10, 12, 14)
source, target = AnatomicalSpace("asr", shape=shape), AnatomicalSpace("rai", shape=(14, 10, 12))
for name, voxel in (("inside", (2, 3, 4)), ("at the border", (2, 0, 4))):
    stack = np.zeros(shape)
    stack[voxel] = 1
    where = np.argwhere(source.map_stack_to(target, stack))[0].tolist()
    point = source.map_points_to(target, np.array([voxel], float))
    expect(f"{name}, stack", where, [4, 2, 11 - voxel[1]])
    expect(f"{name}, point", point[0].tolist(), [4.0, 2.0, 12.0 - voxel[1]])
    expect(f"{name}, point there and back", target.map_points_to(source, point)[0].tolist(), [float(n) for n in voxel])
center = source.map_points_to(target, np.array([[2.5, 3.5, 4.5]]))[0].tolist()
expect("center counted from the edge", center, [4.5, 2.5, 8.5])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 scipy==1.15.3 brainglobe-space==1.0.3
# inside, stack: [4, 2, 8]
# inside, point: [4.0, 2.0, 9.0]
# inside, point there and back: [2.0, 3.0, 4.0]
# at the border, stack: [4, 2, 11]
# at the border, point: [4.0, 2.0, 12.0]
# at the border, point there and back: [2.0, 0.0, 4.0]
# center counted from the edge: [4.5, 2.5, 8.5]
