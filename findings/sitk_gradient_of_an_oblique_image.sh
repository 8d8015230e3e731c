#!/usr/bin/env bash
# SimpleITK's Gradient of an image whose values are x in mm, on an oblique grid: (0.878, -0.479, 0).
# Most expect: (1, 0, 0) on every grid, as ITK gives it, and as the help of SetUseImageDirection says ("default is On").
# Seen: the default of SimpleITK is off: derivatives per mm along the voxel axes. On the grid of a RAS file x and y have
# the wrong sign. The same in GradientRecursiveGaussian. TransformPoint and displacement fields use physical axes.
# For users: forces, normals and Jacobians made with it are wrong unless the direction is the identity. Give
# useImageDirection=True, by name.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 itk-core==5.4.7 itk-numerics==5.4.7 itk-io==5.4.7 itk-filtering==5.4.7
check <<'EOF'
import itk
import numpy as np
import SimpleITK as sitk
from expect import expect

cosine, sine = np.cos(0.5), np.sin(0.5)
GRIDS = {
    "identity": np.eye(3),
    "oblique": np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]),
    "RAS": np.diag([-1.0, -1, 1]),
}


def x_on(grid: np.ndarray) -> sitk.Image:
    """Make an image that holds the x coordinate of its voxels."""
    direction = grid.ravel().tolist()
    points = sitk.PhysicalPointSource(sitk.sitkVectorFloat32, (9, 9, 9), (5, 6, 7), (2, 1, 3), direction)
    return sitk.VectorIndexSelectionCast(points, 0)


def by_itk(image: sitk.Image) -> np.ndarray:
    same = itk.image_from_array(sitk.GetArrayFromImage(image))
    same.SetSpacing(image.GetSpacing())
    same.SetDirection(np.reshape(image.GetDirection(), (3, 3)))
    gradient = itk.GradientImageFilter[type(same), itk.F, itk.F].New(same)
    gradient.Update()
    return itk.array_from_image(gradient.GetOutput())[4, 4, 4]


WANTED = {"identity": [1, 0, 0], "oblique": [0.87758, -0.47943, 0], "RAS": [-1, 0, 0]}
for name, grid in GRIDS.items():
    image = x_on(grid)
    expect(f"{name}: SimpleITK", sitk.Gradient(image)[4, 4, 4], WANTED[name])
    smooth = sitk.GradientRecursiveGaussian(image, sigma=1.0)[4, 4, 4]
    expect("SimpleITK, recursive Gaussian", smooth, WANTED[name], 0.02)
    expect("SimpleITK, useImageDirection=True", sitk.Gradient(image, useImageDirection=True)[4, 4, 4], [1, 0, 0])
    expect("ITK", by_itk(image), [1, 0, 0])
expect("default in SimpleITK", sitk.GradientImageFilter().GetUseImageDirection(), False)
help_text = " ".join(sitk.GradientImageFilter.SetUseImageDirection.__doc__.split())
expect("its help says On", "The default value of this flag is On" in help_text, True)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 itk-core==5.4.7 itk-numerics==5.4.7 itk-io==5.4.7 itk-filtering==5.4.7
# identity: SimpleITK: [1.0, 0.0, 0.0]
# SimpleITK, recursive Gaussian: [0.99999, 0.0, 0.0]
# SimpleITK, useImageDirection=True: [1.0, 0.0, 0.0]
# ITK: [1.0, 0.0, 0.0]
# oblique: SimpleITK: [0.87758, -0.47943, 0.0]
# SimpleITK, recursive Gaussian: [0.87758, -0.48051, 0.0]
# SimpleITK, useImageDirection=True: [1.0, 0.0, 0.0]
# ITK: [1.0, 0.0, 0.0]
# RAS: SimpleITK: [-1.0, 0.0, 0.0]
# SimpleITK, recursive Gaussian: [-0.99999, 0.0, 0.0]
# SimpleITK, useImageDirection=True: [1.0, 0.0, 0.0]
# ITK: [1.0, 0.0, 0.0]
# default in SimpleITK: False
# its help says On: True
