#!/usr/bin/env bash
# A surface of an organ from PyVista's `contour` of an oriented image: mirrored, 58 mm away from the organ.
# Most expect: all filters use the direction matrix, as the image's own points, bounds and slices do.
# Seen: `contour` (vtkContourFilter) and vtkSynchronizedTemplates3D leave it out, where vtkFlyingEdges3D,
# vtkMarchingCubes and `contour_labels` do not. `resample` to half the voxels moves the image by one voxel along flipped
# axes: it shifts the origin along x, y and z, not along the axes of the image.
# For users: every NIfTI or DICOM volume whose direction is set. `contour(..., method='flying_edges')`, and a check
# of one point.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 vtk==9.7.2 pyvista==0.49.1
check <<'EOF'
import numpy as np
import pyvista as pv
import vtk
from expect import expect


def middle(mesh: pv.DataSet) -> np.ndarray:
    return np.reshape(pv.wrap(mesh).bounds, (3, 2)).mean(1)


image = pv.ImageData(dimensions=(20, 20, 20), spacing=(2, 1, 1), origin=(100, 50, 0))
image.direction_matrix = np.diag([-1.0, -1, 1])
image["organ"] = (np.abs(image.points - (71, 38, 6)) <= (6, 2, 2)).all(1).astype(np.int16)
expect("middle of its voxels", image.points[image["organ"] == 1].mean(0), [71, 38, 6])

for method in ("contour", "marching_cubes", "flying_edges"):
    wanted = [129, 62, 6] if method == "contour" else [71, 38, 6]
    expect(f"contour, {method}", middle(image.contour([0.5], scalars="organ", method=method)), wanted)
expect("contour_labels", middle(image.contour_labels(scalars="organ")), [71, 38, 6])
expect("threshold", middle(image.threshold(0.5, scalars="organ")), [71, 38, 6])
for kind in ("vtkContourFilter", "vtkSynchronizedTemplates3D", "vtkMarchingCubes", "vtkFlyingEdges3D"):
    surface = getattr(vtk, kind)()
    surface.SetInputData(image)
    surface.SetInputArrayToProcess(0, 0, 0, 0, "organ")
    surface.SetValue(0, 0.5)
    surface.Update()
    wanted = [129, 62, 6] if kind in ("vtkContourFilter", "vtkSynchronizedTemplates3D") else [71, 38, 6]
    expect(kind, middle(surface.GetOutput()), wanted)

for step in (1, -1):
    image = pv.ImageData(dimensions=(20, 20, 20), spacing=(2, 1, 1), origin=(100, 50, 0))
    image.direction_matrix = np.diag([step, step, 1.0])
    image["x"] = image.points[:, 0]
    half = image.resample(0.5, interpolation="linear")
    expect(f"direction {step}: x of voxels after resample", half.points[:4, 0], 101 + step * np.array([0, 4, 8, 12]))
    expect("x that the image had there", half["x"][:4], 100 + step * np.array([1, 5, 9, 13]))
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 vtk==9.7.2 pyvista==0.49.1
# middle of its voxels: [71.0, 38.0, 6.0]
# contour, contour: [129.0, 62.0, 6.0]
# contour, marching_cubes: [71.0, 38.0, 6.0]
# contour, flying_edges: [71.0, 38.0, 6.0]
# contour_labels: [71.0, 38.0, 6.0]
# threshold: [71.0, 38.0, 6.0]
# vtkContourFilter: [129.0, 62.0, 6.0]
# vtkSynchronizedTemplates3D: [129.0, 62.0, 6.0]
# vtkMarchingCubes: [71.0, 38.0, 6.0]
# vtkFlyingEdges3D: [71.0, 38.0, 6.0]
# direction 1: x of voxels after resample: [101.0, 105.0, 109.0, 113.0]
# x that the image had there: [101.0, 105.0, 109.0, 113.0]
# direction -1: x of voxels after resample: [101.0, 97.0, 93.0, 89.0]
# x that the image had there: [99.0, 95.0, 91.0, 87.0]
