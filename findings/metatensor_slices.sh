#!/usr/bin/env bash
# The same crop, `image[4:]`, in five libraries: MONAI's MetaTensor stays where it was.
# Most expect: a MetaTensor carries its affine so that slices and flips keep their place, as images of SimpleITK,
# nibabel and surfa do.
# Seen: `x[:, 4:]` has the affine of the whole image (4 voxels off), `x[:, ::2]` still has voxels of 1 mm,
# `torch.flip(x, (1,))` is a mirrored patient. ANTsPy moves the origin of a crop, and ignores a step: `image[::2]` is
# the whole image.
# For users: crop and flip with MONAI's transforms (SpatialCrop, Flip), which update the affine, before anything is
# saved.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 surfa==0.6.3 antspyx==0.6.3 torch==2.13.0 monai==1.6.1
check <<'EOF'
import ants
import nibabel as nib
import numpy as np
import SimpleITK as sitk
import surfa
import torch
from expect import expect
from monai.data import MetaTensor
from monai.transforms import SpatialCrop

values = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
affine = np.eye(4)
affine[:3, 3] = 10, 20, 30
tensor = MetaTensor(torch.from_numpy(values)[None], affine=torch.from_numpy(affine))
by_sitk = sitk.GetImageFromArray(values)
by_sitk.SetOrigin((10, 20, 30))
by_nibabel = nib.Nifti1Image(values, affine)
by_surfa = surfa.Volume(values, surfa.ImageGeometry((10, 10, 10), vox2world=affine))
by_ants = ants.from_numpy(values, origin=(10.0, 20.0, 30.0))

expect("crop, origin, SimpleITK", by_sitk[4:].GetOrigin(), [14, 20, 30])
expect("crop, origin, nibabel", by_nibabel.slicer[4:].affine[:3, 3], [14, 20, 30])
expect("crop, origin, surfa", by_surfa[4:, :, :].geom.vox2world.matrix[:3, 3], [14, 20, 30])
expect("crop, origin, ANTs", by_ants[4:, :, :].origin, [14, 20, 30])
expect("crop, origin, MetaTensor", tensor[:, 4:].affine[:3, 3], [10, 20, 30])
crop = SpatialCrop(roi_start=(4, 0, 0), roi_end=(10, 10, 10))
expect("crop, origin, MONAI's SpatialCrop", crop(tensor).affine[:3, 3], [14, 20, 30])
expect("every second, spacing, SimpleITK", by_sitk[::2].GetSpacing(), [2, 1, 1])
expect("every second, spacing, nibabel", by_nibabel.slicer[::2].header.get_zooms(), [2, 1, 1])
expect("every second, spacing, MetaTensor", tensor[:, ::2].affine.diagonal()[:3], [1, 1, 1])
expect("every second, voxels, ANTs", by_ants[::2, :, :].shape, [10, 10, 10])
expect("flip, affine, MetaTensor", torch.flip(tensor, (1,)).affine[0], [1, 0, 0, 10])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 surfa==0.6.3 antspyx==0.6.3 torch==2.13.0 monai==1.6.1
# crop, origin, SimpleITK: [14.0, 20.0, 30.0]
# crop, origin, nibabel: [14.0, 20.0, 30.0]
# crop, origin, surfa: [14.0, 20.0, 30.0]
# crop, origin, ANTs: [14.0, 20.0, 30.0]
# crop, origin, MetaTensor: [10.0, 20.0, 30.0]
# crop, origin, MONAI's SpatialCrop: [14.0, 20.0, 30.0]
# every second, spacing, SimpleITK: [2.0, 1.0, 1.0]
# every second, spacing, nibabel: [2.0, 1.0, 1.0]
# every second, spacing, MetaTensor: [1.0, 1.0, 1.0]
# every second, voxels, ANTs: [10, 10, 10]
# flip, affine, MetaTensor: [1.0, 0.0, 0.0, 10.0]
