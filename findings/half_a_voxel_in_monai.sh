#!/usr/bin/env bash
# Twelve labels in a row moved by half a voxel with MONAI's Warp("nearest"): five of them vanish, others double.
# Most expect: every voxel takes a neighbor, all to the same side, as in SimpleITK, ANTs and scipy.
# Seen: 0 1 2 3 ... becomes 1 1 3 4 4 6 6 8 8 10 10 11: sampling positions are rounded to the nearest EVEN voxel (by
# torch's grid_sample), or after rounding errors to either side. scipy and SimpleITK give 1 2 3 ... 11.
# For users: half voxels are no accident: they come with every change of size by 2 and every even-to-odd crop. Thin
# labels lose slices. Move labels a little off the half (1e-3 voxel), or interpolate one-hot maps.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 scipy==1.15.3 SimpleITK==2.5.7 torch==2.13.0 monai==1.6.1
check <<'EOF'
import numpy as np
import SimpleITK as sitk
import torch
from expect import expect
from monai.networks.blocks import Warp
from scipy.ndimage import map_coordinates

labels = np.arange(12)


def by_monai(shift: float) -> np.ndarray:
    image = torch.from_numpy(labels)[None, None, :, None].expand(1, 1, 12, 3).float()
    field = torch.zeros(1, 2, 12, 3)
    field[:, 0] = shift
    return Warp("nearest", "border")(image, field)[0, 0, :, 1].int().numpy()


def by_sitk(shift: float) -> np.ndarray:
    image = sitk.GetImageFromArray(np.tile(labels.astype(np.uint8), (3, 1)))
    moved = sitk.Resample(image, image, sitk.TranslationTransform(2, (shift, 0)), sitk.sitkNearestNeighbor)
    return sitk.GetArrayFromImage(moved)[1]


def by_scipy(shift: float) -> np.ndarray:
    return map_coordinates(labels, [labels + shift], order=0, mode="nearest")


expect("SimpleITK, half a voxel (0 is outside)", by_sitk(0.5), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0])
expect("scipy", by_scipy(0.5), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11])
expect("MONAI", by_monai(0.5), [1, 1, 3, 4, 4, 6, 6, 8, 8, 10, 10, 11])
expect("MONAI, labels that are left", np.unique(by_monai(0.5)), [1, 3, 4, 6, 8, 10, 11])
expect("MONAI, 0.501 voxels", by_monai(0.501), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 scipy==1.15.3 SimpleITK==2.5.7 torch==2.13.0 monai==1.6.1
# SimpleITK, half a voxel (0 is outside): [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0]
# scipy: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11]
# MONAI: [1, 1, 3, 4, 4, 6, 6, 8, 8, 10, 10, 11]
# MONAI, labels that are left: [1, 3, 4, 6, 8, 10, 11]
# MONAI, 0.501 voxels: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11]
