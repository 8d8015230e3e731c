#!/usr/bin/env bash
# The Jacobian determinant of a displacement field by greedy's `-r field -rj`: it depends on the voxels.
# A field that stretches everything by 1.1 (determinant 1.331), one that shrinks it to 0.4 (0.064), and one that folds
# along x (-0.5), on grids of 1 and 2 mm, in ITK's axes (LPS) and with x and y the other way round (RAS).
# Most expect: one number for one field, whatever the voxels are, since field and grid carry spacing and direction.
# Seen: `-rj` takes millimeters for voxels and ignores directions. The first field gives 1.728 with voxels of 2 mm, 0.891
# on a RAS grid and 0.768 on one of 2 mm, where it is growth that reads as shrinking. The field that shrinks counts as
# folded with voxels of 2 mm (-0.008), and the fold counts as growth on a RAS grid (2.5). greedy's other way, `-jac`, is
# right on every grid for the first two; of the fold it makes -7.2.
# For users: only voxels of 1 mm in LPS hide it. Volume changes need `-jac`, counts of folds the field in voxel axes.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 picsl_greedy==1.4.0.3
check <<'EOF'
import numpy as np
import SimpleITK as sitk
from expect import expect
from picsl_greedy import Greedy3D

SIZE = 12
FIELDS = {"stretches by 1.1": (1.1, 1.1, 1.1), "shrinks to 0.4": (0.4, 0.4, 0.4), "folds along x": (-0.5, 1.0, 1.0)}
GRIDS = {"LPS": (1.0, 1.0, 1.0), "RAS": (-1.0, -1.0, 1.0)}


def by_greedy(command: str) -> float:
    Greedy3D().execute(f"-V 0 -threads 1 {command} result.nii.gz")
    return float(sitk.ReadImage("result.nii.gz")[SIZE // 2, SIZE // 2, SIZE // 2])


seen = []
for kind, scales in FIELDS.items():
    for orientation, axes in GRIDS.items():
        for spacing in (1.0, 2.0):
            image = sitk.Image((SIZE,) * 3, sitk.sitkFloat32)
            image.SetSpacing((spacing,) * 3)
            image.SetDirection(np.diag(axes).ravel().tolist())
            transform = sitk.AffineTransform(3)
            transform.SetMatrix(np.diag(scales).ravel().tolist())
            transform.SetCenter(image.TransformContinuousIndexToPhysicalPoint(((SIZE - 1) / 2,) * 3))
            grid = (image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection())
            sitk.WriteImage(sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat32, *grid), "field.nii.gz")
            sitk.WriteImage(image, "image.nii.gz")
            true = float(np.prod(scales))
            # The derivative per voxel instead of per mm, along the array's axes instead of x, y and z.
            wrong = float(np.prod(1 + spacing * np.array(axes) * (np.array(scales) - 1)))
            name = f"{kind} ({true:.3f}), {orientation}, {spacing} mm"
            seen.append((f"{name}, -rj ", by_greedy("-rf image.nii.gz -r field.nii.gz -rj"), wrong))
            seen.append((f"{name}, -jac", by_greedy("-jac field.nii.gz"), true if true > 0 else -7.22351))
print()  # greedy prints dots
for name, value, wanted in seen:
    expect(name, value, wanted)
EOF

# Output seen, without the lines of dots that greedy prints:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 picsl_greedy==1.4.0.3
# stretches by 1.1 (1.331), LPS, 1.0 mm, -rj : 1.331
# stretches by 1.1 (1.331), LPS, 1.0 mm, -jac: 1.33101
# stretches by 1.1 (1.331), LPS, 2.0 mm, -rj : 1.728
# stretches by 1.1 (1.331), LPS, 2.0 mm, -jac: 1.33101
# stretches by 1.1 (1.331), RAS, 1.0 mm, -rj : 0.891
# stretches by 1.1 (1.331), RAS, 1.0 mm, -jac: 1.33101
# stretches by 1.1 (1.331), RAS, 2.0 mm, -rj : 0.768
# stretches by 1.1 (1.331), RAS, 2.0 mm, -jac: 1.33101
# shrinks to 0.4 (0.064), LPS, 1.0 mm, -rj : 0.064
# shrinks to 0.4 (0.064), LPS, 1.0 mm, -jac: 0.064
# shrinks to 0.4 (0.064), LPS, 2.0 mm, -rj : -0.008
# shrinks to 0.4 (0.064), LPS, 2.0 mm, -jac: 0.064
# shrinks to 0.4 (0.064), RAS, 1.0 mm, -rj : 1.024
# shrinks to 0.4 (0.064), RAS, 1.0 mm, -jac: 0.064
# shrinks to 0.4 (0.064), RAS, 2.0 mm, -rj : -0.968
# shrinks to 0.4 (0.064), RAS, 2.0 mm, -jac: 0.064
# folds along x (-0.500), LPS, 1.0 mm, -rj : -0.5
# folds along x (-0.500), LPS, 1.0 mm, -jac: -7.22351
# folds along x (-0.500), LPS, 2.0 mm, -rj : -2.0
# folds along x (-0.500), LPS, 2.0 mm, -jac: -7.22351
# folds along x (-0.500), RAS, 1.0 mm, -rj : 2.5
# folds along x (-0.500), RAS, 1.0 mm, -jac: -7.22351
# folds along x (-0.500), RAS, 2.0 mm, -rj : 4.0
# folds along x (-0.500), RAS, 2.0 mm, -jac: -7.22351
