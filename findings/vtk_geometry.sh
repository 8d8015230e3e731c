#!/usr/bin/env bash
# One rotated image as MetaImage, NRRD and NIfTI, opened by VTK (PyVista): wrong in three ways.
# Most expect: VTK 9 keeps origin and direction of all three, or ignores both in all three.
# Seen: MetaImage is turned the wrong way round (the direction is transposed, a turn of +17 degrees becomes -17); NRRD
# keeps the origin and loses the direction; NIfTI loses both, and where the x axis points left (qfac -1, usual for
# scans) its slices come out in reverse order.
# For users: meshes and fields drawn over such a volume miss it, and by each format differently. Take the array and
# the geometry from nibabel or SimpleITK and set `origin` and `direction_matrix` by hand.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 vtk==9.7.2 pyvista==0.49.1
check <<'EOF'
import nibabel as nib
import numpy as np
import pyvista
import SimpleITK as sitk
from expect import expect

values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
cos, sin = np.cos(0.3), np.sin(0.3)
image = sitk.GetImageFromArray(values.transpose(2, 1, 0))
image.SetOrigin((10, 20, 30))
image.SetDirection((cos, -sin, 0, sin, cos, 0, 0, 0, 1))
true = image.TransformIndexToPhysicalPoint((1, 0, 0))
expect("SimpleITK, position of voxel (1, 0, 0)", true, [10 + cos, 20 + sin, 30])

for suffix, wanted in (("mha", [10 + cos, 20 - sin, 30]), ("nrrd", [11, 20, 30]), ("nii", [1, 0, 0])):
    sitk.WriteImage(image, f"turned.{suffix}")
    expect(f"VTK, {suffix}", pyvista.read(f"turned.{suffix}").points[1], wanted)

for name, x, wanted in (("right", 2, [0, 1, 2, 3]), ("left", -2, [3, 2, 1, 0])):
    affine = np.diag([x, 2.0, 2, 1])
    nifti = nib.Nifti1Image(values, affine)
    nifti.set_qform(affine, 1)
    nib.save(nifti, "order.nii.gz")
    grid = pyvista.read("order.nii.gz")
    array = np.asarray(grid.active_scalars).reshape(grid.dimensions, order="F")
    expect(f"VTK, NIfTI, x to the {name}: first voxel of each slice (in the file: 0 1 2 3)", array[0, 0], wanted)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 vtk==9.7.2 pyvista==0.49.1
# SimpleITK, position of voxel (1, 0, 0): [10.95534, 20.29552, 30.0]
# VTK, mha: [10.95534, 19.70448, 30.0]
# VTK, nrrd: [11.0, 20.0, 30.0]
# VTK, nii: [1.0, 0.0, 0.0]
# VTK, NIfTI, x to the right: first voxel of each slice (in the file: 0 1 2 3): [0.0, 1.0, 2.0, 3.0]
# VTK, NIfTI, x to the left: first voxel of each slice (in the file: 0 1 2 3): [3.0, 2.0, 1.0, 0.0]
