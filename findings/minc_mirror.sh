#!/usr/bin/env bash
# One image written by SimpleITK as MINC and as NIfTI: nibabel finds it in two places.
# Most expect: SimpleITK turns its LPS coordinates into the RAS coordinates of MINC, as it does for NIfTI.
# Seen: the numbers go into the MINC file as they are, so that x and y change sign against the NIfTI file. SimpleITK
# reads its own file back as it was, which hides it; every MINC tool, and nibabel, sees the image turned by half a
# turn about z. The same holds for MINC transforms: a shift of (1, 2, 3) mm in LPS is written as (1, 2, 3) in RAS.
# For users: a registration between a MINC atlas and a NIfTI scan through SimpleITK starts upside down. Convert with
# nibabel or mincutils.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 h5py==3.16.0 SimpleITK==2.5.7
check <<'EOF'
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from expect import expect

image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.float32))
image.SetSpacing((1, 2, 3))
image.SetOrigin((10, 20, 30))
for name in ("image.nii", "image.mnc"):
    sitk.WriteImage(image, name)

nifti, minc = nib.load("image.nii").affine, nib.load("image.mnc").affine
expect("first voxel, NIfTI, RAS", nifti[:3, 3], [-10, -20, 30])
expect("first voxel, MINC, RAS", minc[:3, 3], [10, 20, 30])
last = np.array([5, 4, 3, 1])  # in x, y, z; MINC's array is in z, y, x
expect("last voxel, NIfTI, RAS", (nifti @ last)[:3], [-15, -28, 39])
expect("last voxel, MINC, RAS", (minc @ [3, 4, 5, 1])[:3], [15, 28, 39])
expect("SimpleITK, MINC read back, LPS", sitk.ReadImage("image.mnc").GetOrigin(), [10, 20, 30])

shift = sitk.AffineTransform(3)
shift.SetTranslation((1, 2, 3))
sitk.WriteTransform(shift, "shift.xfm")
rows = Path("shift.xfm").read_text().split("Linear_Transform =")[1].strip().rstrip(";").splitlines()
expect("MINC transform, last column (true in RAS: -1, -2, 3)", [float(row.split()[-1]) for row in rows], [1, 2, 3])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 h5py==3.16.0 SimpleITK==2.5.7
# first voxel, NIfTI, RAS: [-10.0, -20.0, 30.0]
# first voxel, MINC, RAS: [10.0, 20.0, 30.0]
# last voxel, NIfTI, RAS: [-15.0, -28.0, 39.0]
# last voxel, MINC, RAS: [15.0, 28.0, 39.0]
# SimpleITK, MINC read back, LPS: [10.0, 20.0, 30.0]
# MINC transform, last column (true in RAS: -1, -2, 3): [1.0, 2.0, 3.0]
