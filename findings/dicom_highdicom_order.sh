#!/usr/bin/env bash
# Slices at z = 0 ... 10 mm: highdicom's volume begins at the top, everyone else's at the bottom.
# Most expect: sorted by position, lowest first, as in SimpleITK, pydicom's examples and MONAI; the arrays then agree.
# Seen: `get_volume_from_series` (and `Segmentation.get_volume`) puts the highest slice first, so that its axes
# (slice, row, column) are right-handed; its affine says so. Values and geometry are right, array against array is
# mirrored.
# For users: masks from highdicom laid over an array from SimpleITK or MONAI are upside down, and nothing fails where
# they are of one shape. Compare through the affines.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 highdicom==0.28.2
check <<'EOF'
import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from expect import expect
from series import write_series

paths = write_series("series", [0, 2, 4, 6, 8, 10], [0, 10, 20, 30, 40, 50])
by_itk = sitk.GetArrayFromImage(sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames("series")))
datasets = [pydicom.dcmread(path) for path in paths]
volume = hd.get_volume_from_series(datasets)
expect("values up the slices, SimpleITK", by_itk[:, 0, 0], [-1024, -1014, -1004, -994, -984, -974])
expect("highdicom", volume.array[:, 0, 0], [-974, -984, -994, -1004, -1014, -1024])
expect("highdicom, z of its first slice", volume.affine[2, 3], 10)

mask = np.zeros((6, 16, 16), np.uint8)
mask[0] = 1  # the lowest slice
organ = pydicom.sr.codedict.codes.SCT.Liver
segment = hd.seg.SegmentDescription(1, "liver", organ, organ, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
kind = hd.seg.SegmentationTypeValues.BINARY
made = hd.seg.Segmentation(datasets, mask, kind, [segment], hd.UID(), 2, hd.UID(), 1, "maker", "model", "1", "serial")
back = made.get_volume(combine_segments=True).match_geometry(volume)
expect("mask of the lowest slice: slice of the array that came in", int(mask.any((1, 2)).argmax()), 0)
expect("slice of the array that comes back", int(back.array.any((1, 2)).argmax()), 5)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 highdicom==0.28.2
# values up the slices, SimpleITK: [-1024, -1014, -1004, -994, -984, -974]
# highdicom: [-974.0, -984.0, -994.0, -1004.0, -1014.0, -1024.0]
# highdicom, z of its first slice: 10.0
# mask of the lowest slice: slice of the array that came in: 0
# slice of the array that comes back: 5
