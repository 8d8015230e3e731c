#!/usr/bin/env bash
# 20 voxels of 1 mm resampled to 3 mm: 6, 7 or 8 voxels, from -0.5, 0 or 2 mm on, by the library.
# Most expect: 7 voxels (20 / 3 rounded), centered on the old field of view.
# Seen: MONAI 7 from the first center on; TorchIO 6, inside the old image; surfa 7 over the old edges; nibabel and
# nilearn 8, the last of which lies outside the image and is 0. Each tells its grid rightly in its affine.
# For users: "resampled to 3 mm" does not name a grid. Two libraries' outputs must not be paired voxel by voxel, even
# of one shape; and with nibabel or nilearn a CT in HU gains a slice of water (0) at its end.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 scipy==1.15.3 nilearn==0.14.1 surfa==0.6.3 \
    torch==2.13.0 monai==1.6.1 torchio==1.2.1
check <<'EOF'
import monai.transforms as monai
import nibabel as nib
import numpy as np
import surfa
import torch
import torchio
from expect import expect
from monai.data import MetaTensor
from nibabel.processing import resample_to_output
from nilearn.image import resample_img

ramp = np.broadcast_to(np.arange(100, 120, dtype=np.float32)[:, None, None], (20, 20, 20)).copy()
image = nib.Nifti1Image(ramp, np.eye(4))


def by_monai() -> tuple:
    result = monai.Spacing((3, 3, 3))(MetaTensor(torch.from_numpy(ramp)[None], affine=torch.eye(4)))
    return result[0].numpy(), result.affine.numpy()


def by_torchio() -> tuple:
    result = torchio.Resample(3)(torchio.ScalarImage(tensor=ramp[None]))
    return result.numpy()[0], result.affine


def by_surfa() -> tuple:
    result = surfa.Volume(ramp, surfa.ImageGeometry((20, 20, 20), vox2world=np.eye(4))).resize((3, 3, 3))
    return result.data, result.geom.vox2world.matrix


def by_nibabel() -> tuple:
    result = resample_to_output(image, (3, 3, 3), order=1)
    return result.get_fdata(), result.affine


def by_nilearn() -> tuple:
    result = resample_img(image, np.diag([3.0, 3, 3]), interpolation="linear")
    return result.get_fdata(), result.affine


WANTED = {
    by_monai: (7, 0, 118),
    by_torchio: (6, 2, 117),
    by_surfa: (7, -0.5, 117.5),
    by_nibabel: (8, 0, 0),
    by_nilearn: (8, 0, 0),
}
for resample, wanted in WANTED.items():
    values, affine = resample()
    seen = [values.shape[0], affine[0, 3], values[-1, values.shape[1] // 2, values.shape[2] // 2]]
    expect(f"{resample.__name__}: voxels, position of the first (mm), value of the last", seen, wanted)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 scipy==1.15.3 nilearn==0.14.1 surfa==0.6.3 \
    torch==2.13.0 monai==1.6.1 torchio==1.2.1
# by_monai: voxels, position of the first (mm), value of the last: [7.0, 0.0, 118.0]
# by_torchio: voxels, position of the first (mm), value of the last: [6.0, 2.0, 117.0]
# by_surfa: voxels, position of the first (mm), value of the last: [7.0, -0.5, 117.5]
# by_nibabel: voxels, position of the first (mm), value of the last: [8.0, 0.0, 0.0]
# by_nilearn: voxels, position of the first (mm), value of the last: [8.0, 0.0, 0.0]
