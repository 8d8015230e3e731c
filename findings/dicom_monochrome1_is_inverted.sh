#!/usr/bin/env bash
# A CT slice whose PhotometricInterpretation is MONOCHROME1, which says that low values are to be SHOWN bright.
# Most expect: the same Hounsfield units as with MONOCHROME2, slope x stored value + intercept (PS3.3, C.11.1).
# Seen: ITK's reader (SimpleITK, ANTs) turns the stored values upside down first, v becomes -1 - v of signed pixels and
# 4095 - v of 12 unsigned bits, and rescales then: water (0 HU) reads as -2049 or 2047 HU. So does highdicom, as it
# documents, unless apply_presentation_lut is False. pydicom and dcm2niix keep the values. Nothing is said, and the
# image that ITK gives no longer states that it was MONOCHROME1.
# For users: scale such series with pydicom, or look at the tag before two tools are compared.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 antspyx==0.6.3 highdicom==0.28.2 dcm2niix==1.0.20260724 nibabel==5.4.2
check <<'EOF'
import subprocess
from pathlib import Path

import ants
import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from expect import expect
from pydicom.pixels import apply_rescale
from series import write_series

for signed, bits in ((1, 16), (0, 12)):
    folder = f"signed{signed}"
    paths = write_series(folder, [0, 2, 4], [1024] * 3)  # 0 HU
    for path in paths:
        data = pydicom.dcmread(path)
        data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME1", signed
        data.BitsStored, data.HighBit = bits, bits - 1
        data.save_as(path)
    Path("out").mkdir(exist_ok=True)
    subprocess.run(["dcm2niix", "-f", folder, "-o", "out", folder], check=True, capture_output=True)
    slices = [pydicom.dcmread(path) for path in paths]
    about = f"{'signed' if signed else 'unsigned'}, {bits} bits"
    inverted = -2049 if signed else 2047
    itk = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder))
    expect(f"{about}, SimpleITK", np.unique(sitk.GetArrayFromImage(itk)), [inverted])
    expect(f"{about}, antspyx", np.unique(ants.image_read(paths[0]).numpy()), [inverted])
    expect(f"{about}, pydicom", np.unique(apply_rescale(slices[0].pixel_array, slices[0])), [0])
    expect(f"{about}, highdicom", np.unique(hd.get_volume_from_series(slices).array), [inverted])
    kept = hd.get_volume_from_series(slices, apply_presentation_lut=False)
    expect(f"{about}, highdicom without presentation LUT", np.unique(kept.array), [0])
    expect(f"{about}, dcm2niix", np.unique(nib.load(f"out/{folder}.nii").get_fdata()), [0])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 antspyx==0.6.3 highdicom==0.28.2 dcm2niix==1.0.20260724 nibabel==5.4.2
# signed, 16 bits, SimpleITK: [-2049]
# signed, 16 bits, antspyx: [-2049.0]
# signed, 16 bits, pydicom: [0.0]
# signed, 16 bits, highdicom: [-2049.0]
# signed, 16 bits, highdicom without presentation LUT: [0.0]
# signed, 16 bits, dcm2niix: [0.0]
# unsigned, 12 bits, SimpleITK: [2047]
# unsigned, 12 bits, antspyx: [2047.0]
# unsigned, 12 bits, pydicom: [0.0]
# unsigned, 12 bits, highdicom: [2047.0]
# unsigned, 12 bits, highdicom without presentation LUT: [0.0]
# unsigned, 12 bits, dcm2niix: [0.0]
