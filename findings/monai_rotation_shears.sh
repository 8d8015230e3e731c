#!/usr/bin/env bash
# MONAI's Rotate by 20 degrees about x, of a scan with voxels of 1 x 1 x 4 mm: the axes meet at 40 degrees, not at 90.
# Most expect: a rotation of an image with an affine is rigid in mm, as in TorchIO: a ball stays a ball.
# Seen: Rotate, Affine and RandAffine turn in voxels: in mm that is a shear, and on the grid of the scan a ball of 12 mm
# becomes an ellipsoid of 7 and 23 mm. Only the MetaTensor's affine undoes it, by sheared axes: written as NIfTI,
# SimpleITK refuses them.
# For users: with thick slices, rotations as augmentation or as known truth are no rigid motions. Resample first.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 torch==2.13.0 monai==1.6.1 torchio==1.2.1
check <<'EOF'
import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
import torchio as tio
from expect import expect
from monai.data import MetaTensor
from monai.transforms import Affine, RandAffine, Rotate

SPACING = np.array([1.0, 1, 4])
ANGLE = np.deg2rad(20)
indices = np.indices((48, 48, 12)).reshape(3, -1).T
distances = np.linalg.norm((indices - (23.5, 23.5, 5.5)) * SPACING, axis=1)
ball = torch.from_numpy(1 / (1 + np.exp(2 * (distances - 12)))).reshape(1, 48, 48, 12).float()
scan = MetaTensor(ball, affine=torch.from_numpy(np.diag([*SPACING, 1])))


def lengths(image: torch.Tensor) -> np.ndarray:
    """Measure the three half axes of a bright ellipsoid on a grid of the spacing."""
    weights = np.asarray(image, float).ravel()
    points = indices * SPACING
    points = points - np.average(points, axis=0, weights=weights)
    moments = np.cov(points.T, aweights=weights)
    return np.sqrt(5 * np.linalg.eigvalsh(moments))


expect("half axes of the ball (mm)", lengths(ball), [12.2, 12.2, 12.4], 0.1)
WAYS = {
    "Rotate": Rotate([ANGLE, 0, 0]),
    "Affine": Affine(rotate_params=[ANGLE, 0, 0], image_only=True),
    "RandAffine": RandAffine(prob=1, rotate_range=[(ANGLE, ANGLE), 0, 0]),
}
for name, way in WAYS.items():
    turned = way(scan)
    y, z = np.asarray(turned.affine)[:3, 1:3].T
    between = np.rad2deg(np.arccos(y @ z / np.linalg.norm(y) / np.linalg.norm(z)))
    expect(f"MONAI's {name}, angle between the y and z axes", between, 39.683, 0.01)
    expect("half axes on the grid of the scan", lengths(turned), [7, 12.2, 22.6], 0.5)
turned = tio.Affine(scales=1, degrees=(20, 0, 0), translation=0)(tio.ScalarImage(tensor=ball, affine=scan.affine))
expect("TorchIO, half axes", lengths(turned.data), [12.2, 12.2, 12.9], 0.1)
nib.save(nib.Nifti1Image(np.asarray(WAYS["Rotate"](scan))[0], WAYS["Rotate"](scan).affine.numpy()), "turned.nii.gz")
try:
    seen = str(sitk.ReadImage("turned.nii.gz").GetDirection())
except RuntimeError as error:
    seen = "an error of non-orthonormal directions" if "orthonormal" in str(error) else str(error)
expect("SimpleITK reads the file", seen, "an error of non-orthonormal directions")
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 torch==2.13.0 monai==1.6.1 torchio==1.2.1
# half axes of the ball (mm): [12.20295, 12.20295, 12.37769]
# MONAI's Rotate, angle between the y and z axes: 39.68315
# half axes on the grid of the scan: [6.98172, 12.20027, 22.62671]
# MONAI's Affine, angle between the y and z axes: 39.68315
# half axes on the grid of the scan: [7.35053, 12.18943, 22.6535]
# MONAI's RandAffine, angle between the y and z axes: 39.68315
# half axes on the grid of the scan: [7.35053, 12.18943, 22.6535]
# TorchIO, half axes: [12.20418, 12.23379, 12.92039]
# SimpleITK reads the file: an error of non-orthonormal directions
