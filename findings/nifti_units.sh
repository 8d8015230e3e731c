#!/usr/bin/env bash
# A NIfTI file in micrometers: its affine is in another unit in every second reader.
# Most expect: all readers give millimeters (the unit is in the header), or none looks at it.
# Seen: SimpleITK divides spacing and origin by 1000; nibabel and fslpy leave them; surfa divides the voxel sizes and
# keeps the center of the image, so that its first voxel (1062, 2075, 3175) is right in neither unit.
# For users: microscopy and preclinical scans registered on nibabel's numbers give fields 1000 times too long for ITK.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 fslpy==3.29.1 surfa==0.6.3
check <<'EOF'
import nibabel as nib
import numpy as np
import SimpleITK as sitk
import surfa
from expect import expect
from fsl.data.image import Image

FILE = "micron.nii.gz"
affine = np.array([[25.0, 0, 0, 1000], [0, 25, 0, 2000], [0, 0, 50, 3000], [0, 0, 0, 1]])
image = nib.Nifti1Image(np.zeros((5, 6, 7), np.float32), affine)
image.set_qform(affine, 1)
image.header.set_xyzt_units("micron", "sec")
nib.save(image, FILE)

itk, by_surfa = sitk.ReadImage(FILE), surfa.load_volume(FILE).geom
expect("nibabel, voxel sizes and origin", [*nib.load(FILE).header.get_zooms(), *nib.load(FILE).affine[:3, 3]],
       [25, 25, 50, 1000, 2000, 3000])
expect("fslpy", [*Image(FILE).pixdim[:3], *Image(FILE).voxToWorldMat[:3, 3]],
       [25, 25, 50, 1000, 2000, 3000])
expect("SimpleITK (LPS)", [*itk.GetSpacing(), *itk.GetOrigin()], [0.025, 0.025, 0.05, -1, -2, 3])
expect("surfa", [*by_surfa.voxsize, *by_surfa.vox2world.matrix[:3, 3]],
       [0.025, 0.025, 0.05, 1062.4375, 2074.925, 3174.825])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 fslpy==3.29.1 surfa==0.6.3
# nibabel, voxel sizes and origin: [25.0, 25.0, 50.0, 1000.0, 2000.0, 3000.0]
# fslpy: [25.0, 25.0, 50.0, 1000.0, 2000.0, 3000.0]
# SimpleITK (LPS): [0.025, 0.025, 0.05, -1.0, -2.0, 3.0]
# surfa: [0.025, 0.025, 0.05, 1062.4375, 2074.925, 3174.825]
