#!/usr/bin/env bash
# One Analyze 7.5 pair (.hdr and .img): front and back change places between nibabel and ITK, and the origins differ.
# Most expect: one geometry (an error, or a guess that all share).
# Seen: nibabel and fslpy run the second axis to the front and put 0 in the middle of the image; SimpleITK and ANTs
# run it to the back, from 0 at the first voxel, and warn of nothing but the format's age. Nobody looks at the header's
# `orient`: 0 (axial) and 1 (coronal) give the same.
# For users: a registration in one tool and its transform in another turn the patient around. Rewrite such files as
# NIfTI once, after a look at the anatomy.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 antspyx==0.6.3 fslpy==3.29.1
check <<'EOF' 2> check.log || { cat check.log; exit 1; }
import ants
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from expect import expect
from fsl.data.image import Image

LPS = np.diag([-1, -1, 1])


def write(orient: int) -> None:
    image = nib.AnalyzeImage(np.zeros((4, 6, 5), np.int16), None)
    image.header.set_zooms((2, 1, 3))
    image.header["orient"] = orient
    nib.save(image, "old.img")


for orient in (0, 1):
    write(orient)
    by_nibabel, by_fslpy = nib.load("old.img").affine, Image("old.img").voxToWorldMat
    by_sitk, by_ants = sitk.ReadImage("old.hdr"), ants.image_read("old.img")
    print("orient", orient, "(steps of the three axes and first voxel, RAS)")
    expect("nibabel", [*np.diag(by_nibabel)[:3], *by_nibabel[:3, 3]], [-2, 1, 3, 3, -2.5, -6])
    expect("fslpy", [*np.diag(by_fslpy)[:3], *by_fslpy[:3, 3]], [-2, 1, 3, 3, -2.5, -6])
    steps = np.diag(LPS @ np.reshape(by_sitk.GetDirection(), (3, 3))) * by_sitk.GetSpacing()
    expect("SimpleITK", [*steps, *(LPS @ by_sitk.GetOrigin())], [-2, -1, 3, 0, 0, 0])
    steps = np.diag(LPS @ by_ants.direction) * by_ants.spacing
    expect("ANTs", [*steps, *(LPS @ by_ants.origin)], [-2, -1, 3, 0, 0, 0])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 antspyx==0.6.3 fslpy==3.29.1
# orient 0 (steps of the three axes and first voxel, RAS)
# nibabel: [-2.0, 1.0, 3.0, 3.0, -2.5, -6.0]
# fslpy: [-2.0, 1.0, 3.0, 3.0, -2.5, -6.0]
# SimpleITK: [-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]
# ANTs: [-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]
# orient 1 (steps of the three axes and first voxel, RAS)
# nibabel: [-2.0, 1.0, 3.0, 3.0, -2.5, -6.0]
# fslpy: [-2.0, 1.0, 3.0, 3.0, -2.5, -6.0]
# SimpleITK: [-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]
# ANTs: [-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]
