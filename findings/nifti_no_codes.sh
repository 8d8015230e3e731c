#!/usr/bin/env bash
# A NIfTI file without qform and sform (both codes 0): three origins, two handednesses.
# Most expect: no position means identity with the voxel sizes, the first voxel at the origin, in every reader.
# Seen: nibabel and surfa put the middle of the image at the origin and mirror the x axis; fslpy puts the first voxel
# at the origin, with RAS axes; SimpleITK and ANTs put it there too, but with LPS axes, half a turn about z away.
# For users: two programs that agree on every other file disagree by half an image and a mirror on this one. Set a
# form before registering, or refuse such files.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 antspyx==0.6.3 fslpy==3.29.1 surfa==0.6.3
check <<'EOF'
import ants
import nibabel as nib
import numpy as np
import SimpleITK as sitk
import surfa
from expect import expect
from fsl.data.image import Image

FILE = "no_codes.nii.gz"
image = nib.Nifti1Image(np.zeros((5, 6, 7), np.float32), None)
image.header.set_zooms((2, 3, 4))
nib.save(image, FILE)


def from_lps(origin, spacing, direction) -> np.ndarray:
    affine = np.column_stack([np.reshape(direction, (3, 3)) * spacing, origin])
    return affine * [[-1], [-1], [1]]


itk, by_ants = sitk.ReadImage(FILE), ants.image_read(FILE)
centered = [[-2, 0, 0, 4], [0, 3, 0, -7.5], [0, 0, 4, -12]]
half_turn = [[-2, 0, 0, 0], [0, -3, 0, 0], [0, 0, 4, 0]]
expect("nibabel, RAS affine", nib.load(FILE).affine[:3], centered)
expect("surfa", surfa.load_volume(FILE).geom.vox2world.matrix[:3], centered)
expect("fslpy", Image(FILE).voxToWorldMat[:3], [[2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 4, 0]])
expect("SimpleITK", from_lps(itk.GetOrigin(), itk.GetSpacing(), itk.GetDirection()), half_turn)
expect("ANTs", from_lps(by_ants.origin, by_ants.spacing, by_ants.direction), half_turn)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 antspyx==0.6.3 fslpy==3.29.1 surfa==0.6.3
# nibabel, RAS affine: [[-2.0, 0.0, 0.0, 4.0], [0.0, 3.0, 0.0, -7.5], [0.0, 0.0, 4.0, -12.0]]
# surfa: [[-2.0, 0.0, 0.0, 4.0], [0.0, 3.0, 0.0, -7.5], [0.0, 0.0, 4.0, -12.0]]
# fslpy: [[2.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0]]
# SimpleITK: [[-2.0, 0.0, 0.0, 0.0], [0.0, -3.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0]]
# ANTs: [[-2.0, 0.0, 0.0, 0.0], [0.0, -3.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0]]
