#!/usr/bin/env bash
# A DICOM segmentation of two organs on slices of 2 mm, opened by SimpleITK: one stack of both, 1 mm apart.
# Most expect: an error, a label map, or one channel per organ, on the grid of the CT.
# Seen: a plain 3D image. Its 7 "slices" are the 3 slices of the first organ and the 4 of the second, one after the
# other; the spacing along z is 1 mm (2 in the file); values are 0 and 255. It has the look of a mask. dcmqi and
# highdicom read it right, on 5 slices (those that hold anything), not on the 8 of the CT.
# For users: a mask loaded like that overlaps its CT by chance. Read it with highdicom and match its geometry to the
# CT's.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pydicom==3.0.2 highdicom==0.28.2 SimpleITK==2.5.7 dcmqi==1.5.7
check <<'EOF'
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from expect import expect
from pydicom.sr.codedict import codes
from series import write_series

datasets = [pydicom.dcmread(path) for path in write_series("series", [2 * number for number in range(8)], [0] * 8)]
mask = np.zeros((8, 16, 16), np.uint8)
mask[2:5, 4:9, 4:9] = 1
mask[3:7, 10:14, 10:14] = 2
manual, binary = hd.seg.SegmentAlgorithmTypeValues.MANUAL, hd.seg.SegmentationTypeValues.BINARY
organs = [hd.seg.SegmentDescription(k, f"organ {k}", codes.SCT.Organ, codes.SCT.Liver, manual) for k in (1, 2)]
made = hd.seg.Segmentation(datasets, mask, binary, organs, hd.UID(), 2, hd.UID(), 1, "maker", "model", "1", "serial")
made.save_as("seg.dcm")


def describe(name: str, image: sitk.Image, wanted: list, areas: list) -> None:
    along_z = [image.GetSize()[2], image.GetSpacing()[2], image.GetOrigin()[2]]
    expect(f"{name}, slices, spacing and origin along z", along_z, wanted)
    expect(f"{name}, voxels in each slice", (sitk.GetArrayFromImage(image) > 0).sum((1, 2)), areas)


stack = sitk.ReadImage("seg.dcm")
expect("SimpleITK, values", np.unique(sitk.GetArrayFromImage(stack)), [0, 255])
describe("SimpleITK", stack, [7, 1, 8], [25, 25, 25, 16, 16, 16, 16])
Path("dcmqi").mkdir()
command = "segimage2itkimage --inputDICOM seg.dcm --outputDirectory dcmqi -t nrrd"
subprocess.run(command.split(), check=True, capture_output=True)
describe("dcmqi, organ 1", sitk.ReadImage("dcmqi/1.nrrd"), [5, 2, 4], [25, 25, 25, 0, 0])
describe("dcmqi, organ 2", sitk.ReadImage("dcmqi/2.nrrd"), [5, 2, 4], [0, 16, 16, 16, 16])
volume = hd.seg.segread("seg.dcm").get_volume(combine_segments=True)
expect("highdicom, slices", volume.shape[0], 5)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pydicom==3.0.2 highdicom==0.28.2 SimpleITK==2.5.7 dcmqi==1.5.7
# SimpleITK, values: [0, 255]
# SimpleITK, slices, spacing and origin along z: [7.0, 1.0, 8.0]
# SimpleITK, voxels in each slice: [25, 25, 25, 16, 16, 16, 16]
# dcmqi, organ 1, slices, spacing and origin along z: [5.0, 2.0, 4.0]
# dcmqi, organ 1, voxels in each slice: [25, 25, 25, 0, 0]
# dcmqi, organ 2, slices, spacing and origin along z: [5.0, 2.0, 4.0]
# dcmqi, organ 2, voxels in each slice: [0, 16, 16, 16, 16]
# highdicom, slices: 5
