#!/usr/bin/env bash
# One microscope volume, voxels of 500 micrometers, saved as NIfTI and as NRRD, with the unit in the header of both.
# Most expect: a library that converts micrometers in one format does so in the other, or warns.
# Seen: SimpleITK and antspyx read 0.5 mm from NIfTI (xyzt_units) and 500 mm from NRRD ("space units"), without a word;
# the unit is in no metadata of the image that they give.
# For users: one of two files of the same scan is 1000 times as large. Write NRRD in mm.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 antspyx==0.6.3 nibabel==5.4.2 pynrrd==1.1.3
check <<'EOF'
import ants
import nibabel as nib
import nrrd
import numpy as np
import SimpleITK as sitk
from expect import expect

values = np.zeros((4, 5, 6), np.int16)
image = nib.Nifti1Image(values, np.diag([500.0, 500.0, 500.0, 1.0]))
image.header.set_xyzt_units("micron")
nib.save(image, "scan.nii")
header = {"space": "left-posterior-superior", "space directions": 500 * np.eye(3), "space origin": np.zeros(3)}
nrrd.write("scan.nrrd", values, {**header, "space units": ["um", "um", "um"]})
expect("the header", nrrd.read_header("scan.nrrd")["space units"], ["um", "um", "um"])

for name, edge in (("scan.nii", 0.5), ("scan.nrrd", 500)):
    read = sitk.ReadImage(name)
    expect(f"SimpleITK, {name}", read.GetSpacing(), [edge] * 3)
    expect(f"antspyx, {name}", ants.image_read(name).spacing, [edge] * 3)
expect("unit in SimpleITK's metadata", [key for key in read.GetMetaDataKeys() if "unit" in key.lower()], [])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 antspyx==0.6.3 nibabel==5.4.2 pynrrd==1.1.3
# the header: ['um', 'um', 'um']
# SimpleITK, scan.nii: [0.5, 0.5, 0.5]
# antspyx, scan.nii: [0.5, 0.5, 0.5]
# SimpleITK, scan.nrrd: [500.0, 500.0, 500.0]
# antspyx, scan.nrrd: [500.0, 500.0, 500.0]
# unit in SimpleITK's metadata: []
