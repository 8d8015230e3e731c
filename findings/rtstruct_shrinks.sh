#!/usr/bin/env bash
# A mask of 8 x 6 pixels on four slices, written as RTSTRUCT by rt-utils and read by plastimatch: 27 % of the organ is
# gone.
# Most expect: the mask that was written, or an error of a few pixels on a curved border; a box should come back
# exactly.
# Seen: rt-utils draws the contour through the CENTERS of the outermost pixels, so its area is 7 x 5 = 35 of 48 mm2.
# Its own reader fills the border again, which hides this (192 of 192 voxels); plastimatch fills what lies inside by
# the usual rule and gives 140.
# For users: volumes and overlaps of small organs lose about half a pixel all around for every trip through RTSTRUCT
# between two tools.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pydicom==3.0.2 rt-utils==1.2.7 SimpleITK==2.5.7 plastimatch==1.10.0
check <<'EOF'
import subprocess

import numpy as np
import pydicom
import SimpleITK as sitk
from expect import expect
from rt_utils import RTStructBuilder
from series import write_series

write_series("series", [0, 2, 4, 6, 8, 10], [0] * 6)


def trip(mask: np.ndarray) -> tuple:
    structures = RTStructBuilder.create_new("series")
    structures.add_roi(mask, name="organ")
    structures.save("structures.dcm")
    own = RTStructBuilder.create_from("series", "structures.dcm").get_roi_mask_by_name("organ")
    command = "plastimatch convert --input structures.dcm --referenced-ct series"
    command += " --output-prefix out --prefix-format nrrd"
    subprocess.run(command.split(), check=True, capture_output=True)
    return own, sitk.GetArrayFromImage(sitk.ReadImage("out/organ.nrrd")).transpose(1, 2, 0)


box = np.zeros((16, 16, 6), bool)
box[4:10, 4:12, 1:5] = True
own, other = trip(box)
contour = pydicom.dcmread("structures.dcm").ROIContourSequence[0].ContourSequence[0].ContourData
corners = np.array(contour, float).reshape(-1, 3)[:, :2]
expect("corners of the contour (pixels 4 to 11, 4 to 9 of 1 mm)", [corners.min(0), corners.max(0)], [[4, 4], [11, 9]])
expect("voxels written", int(box.sum()), 192)
expect("read by rt-utils", int(own.sum()), 192)
expect("read by plastimatch", int(other.sum()), 140)

rows, columns = np.indices((16, 16)) - 7.5
disc = np.repeat((rows**2 + columns**2 < 30)[..., None], 6, 2)
own, other = trip(disc)
expect("disc of 11 pixels: share left by rt-utils", own.sum() / disc.sum(), 1)
expect("share left by plastimatch", other.sum() / disc.sum(), 0.8296)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pydicom==3.0.2 rt-utils==1.2.7 SimpleITK==2.5.7 plastimatch==1.10.0
# Writing file to structures.dcm
# corners of the contour (pixels 4 to 11, 4 to 9 of 1 mm): [[4.0, 4.0], [11.0, 9.0]]
# voxels written: 192
# read by rt-utils: 192
# read by plastimatch: 140
# Writing file to structures.dcm
# disc of 11 pixels: share left by rt-utils: 1.0
# share left by plastimatch: 0.82955
