#!/usr/bin/env bash
# A head CT with a gantry tilt of 20 degrees: an upright rod is leaning in some readers, upright in others.
# Most expect: the positions of the slices are used, or an error, since the grid is sheared.
# Seen: SimpleITK and MONAI's ITKReader stack the slices along their normal, silently: after ten slices of 2 mm they are
# 6.9 mm off. dcm2niix writes two files: in the first one the slices are 1.88 mm apart instead of 2, and ITK reads it as
# leaning by its qform; only the second, `_Tilt_1`, has the rod upright (to a voxel). MONAI's PydicomReader is right,
# highdicom refuses.
# For users: compare the first and the last ImagePositionPatient with the affine before a registration.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pydicom==3.0.2 highdicom==0.28.2 SimpleITK==2.5.7 nibabel==5.4.2 dcm2niix==1.0.20260724 \
    torch==2.13.0 monai==1.6.1 itk==5.4.7
check <<'EOF'
import subprocess

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from expect import expect
from monai.transforms import LoadImage
from series import write_series

LPS = np.diag([-1, -1, 1, 1])
paths = write_series("head", [2.0 * number for number in range(11)], [1024] * 11)
for path in paths:
    data = pydicom.dcmread(path)
    data.ImageOrientationPatient = [1, 0, 0, 0, round(float(np.cos(np.pi / 9)), 6), round(float(np.sin(np.pi / 9)), 6)]
    data.GantryDetectorTilt = -20
    pixels = data.pixel_array.copy()
    pixels[8, 4] = 2024  # the rod: the same x and y in all slices, since these start at the same x and y
    data.PixelData = pixels.tobytes()
    data.save_as(path)


def rod(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Give the way from the rod in the first slice to that in the last one (LPS, mm)."""
    ends = [np.unravel_index(np.argmax(values[:, :, slice_]), values.shape[:2]) for slice_ in (0, -1)]
    last = values.shape[2] - 1
    first, second = ([*ends[0], 0, 1], [*ends[1], last, 1])
    return (LPS @ affine @ second - LPS @ affine @ first)[:3]


positions = [np.array(pydicom.dcmread(path).ImagePositionPatient, float) for path in (paths[0], paths[-1])]
expect("first to last position in the files (mm)", positions[1] - positions[0], [0, 0, 20])
scan = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames("head"))
ends = [np.array(scan.TransformIndexToPhysicalPoint((4, 8, number))) for number in (0, 10)]
expect("rod, SimpleITK", ends[1] - ends[0], [0, -6.84, 18.79], 0.01)
for reader, wanted in (("ITKReader", [0, -6.84, 18.79]), ("PydicomReader", [0, 0, 20])):
    image = LoadImage(reader=reader)("head")
    expect(f"MONAI's {reader}", rod(image.numpy(), image.affine.numpy()), wanted, 0.01)
subprocess.run(["dcm2niix", "-z", "n", "-f", "%f", "head"], check=True, capture_output=True)
for name, wanted in (("head/head.nii", [0, 0, 18.79]), ("head/head_Tilt_1.nii", [0, 0.15, 20.05])):
    image = nib.load(name)
    expect(f"dcm2niix, {name}", rod(np.asarray(image.dataobj), image.affine), wanted, 0.01)
scan = sitk.ReadImage("head/head.nii")
ends = [np.array(scan.TransformIndexToPhysicalPoint((4, 7, number))) for number in (0, 10)]
expect("head/head.nii in SimpleITK", ends[1] - ends[0], [0, -6.43, 17.66], 0.01)
try:
    seen = str(highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths]).affine)
except ValueError as error:
    seen = str(error)
expect("highdicom", seen, "Series is not a regularly-spaced volume.")
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pydicom==3.0.2 highdicom==0.28.2 SimpleITK==2.5.7 nibabel==5.4.2 dcm2niix==1.0.20260724 torch==2.13.0 monai==1.6.1 itk==5.4.7
# first to last position in the files (mm): [0.0, 0.0, 20.0]
# rod, SimpleITK: [0.0, -6.8404, 18.79385]
# MONAI's ITKReader: [0.0, -6.8404, 18.79385]
# MONAI's PydicomReader: [0.0, 0.0, 20.0]
# dcm2niix, head/head.nii: [0.0, 0.0, 18.79386]
# dcm2niix, head/head_Tilt_1.nii: [0.0, 0.14998, 20.05459]
# head/head.nii in SimpleITK: [0.0, -6.42787, 17.66045]
# highdicom: Series is not a regularly-spaced volume.
