#!/usr/bin/env bash
# A field that stretches everything by 1.2: SimpleITK's Jacobian determinant is 1.728 or 0.768, by the orientation of
# the grid.
# Most expect: 1.2 x 1.2 x 1.2 = 1.728 on every grid, since field and grid carry their directions.
# Seen: 1.728 on an LPS grid; 0.768 = 0.8 x 0.8 x 1.2 where x and y run the other way (RAS, what nibabel writes most);
# 1.248 on a grid turned by 90 degrees. The filter uses spacing but not direction, as if x, y and z were the array's
# axes.
# For users: stretching reads as shrinking, and folding may go unseen. Give the filter the field in voxel axes, or
# compute it from the affine.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7
check <<'EOF'
import numpy as np
import SimpleITK as sitk
from expect import expect

GRIDS = {
    "LPS": np.eye(3),
    "RAS": np.diag([-1.0, -1, 1]),
    "turned by 90 degrees about z": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
}


def stretch(direction: np.ndarray) -> sitk.Image:
    """u(p) = 0.2 p in physical coordinates, on 8 x 8 x 8 voxels of 1 mm."""
    z, y, x = np.indices((8, 8, 8))
    points = np.stack([x, y, z], -1) @ direction.T
    field = sitk.GetImageFromArray((0.2 * points).astype(np.float32), isVector=True)
    field.SetDirection(direction.ravel())
    return field


for (name, direction), wanted in zip(GRIDS.items(), (1.728, 0.768, 1.248)):
    field = sitk.Image(stretch(direction))
    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    corners = [field.TransformIndexToPhysicalPoint(index) for index in ((3, 3, 3), (4, 3, 3), (3, 4, 3), (3, 3, 4))]
    mapped = np.array([transform.TransformPoint(corner) for corner in corners])
    determinant = sitk.DisplacementFieldJacobianDeterminant(field)
    expect(f"{name}: volume of a mapped voxel", abs(np.linalg.det(mapped[1:] - mapped[0])), 1.728)
    expect(f"{name}: DisplacementFieldJacobianDeterminant", determinant[4, 4, 4], wanted)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7
# LPS: volume of a mapped voxel: 1.728
# LPS: DisplacementFieldJacobianDeterminant: 1.728
# RAS: volume of a mapped voxel: 1.728
# RAS: DisplacementFieldJacobianDeterminant: 0.768
# turned by 90 degrees about z: volume of a mapped voxel: 1.728
# turned by 90 degrees about z: DisplacementFieldJacobianDeterminant: 1.248
