#!/usr/bin/env bash
# An RT dose of 1, 2, 3, 4 Gy on planes at z = 100, 103, 106, 109 mm, in the two forms that DICOM allows: two of three
# readers are wrong.
# DICOM (C.8.8.3.2) lets GridFrameOffsetVector start at 0 (distances) or at the z of the first plane (positions).
# Most expect: gray at the right planes in every reader, in both forms.
# Seen: SimpleITK gives the stored integers, 1000 for 1 Gy (DoseGridScaling is no rescale slope to it), and takes
# planes of uneven distance for even ones, the last at 109 instead of 112 mm. PyMedPhys gives Gy, but adds the offsets
# to the position in both forms: planes at 200 ... 209 in the second. plastimatch is right in both and refuses uneven
# planes.
# For users: a dose carried along by a registration is off by the scaling or by the position. Check one plane against
# the file.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 pymedphys==0.41.0 plastimatch==1.10.0
check <<'EOF'
import subprocess

import numpy as np
import pydicom
import SimpleITK as sitk
from expect import expect
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pymedphys.dicom import zyx_and_dose_from_dataset


def write(path: str, offsets: list[float]) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.2", generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dose = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dose.SOPClassUID, dose.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dose.StudyInstanceUID, dose.SeriesInstanceUID, dose.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    dose.Modality, dose.DoseUnits, dose.DoseType, dose.DoseSummationType = "RTDOSE", "GY", "PHYSICAL", "PLAN"
    dose.Rows, dose.Columns, dose.NumberOfFrames, dose.PixelSpacing = 5, 6, 4, [2, 2]
    dose.ImagePositionPatient, dose.ImageOrientationPatient = [10, 20, 100], [1, 0, 0, 0, 1, 0]
    dose.FrameIncrementPointer = pydicom.tag.Tag(0x3004, 0x000C)
    dose.GridFrameOffsetVector, dose.DoseGridScaling = offsets, 0.001
    dose.BitsAllocated = dose.BitsStored = 32
    dose.HighBit, dose.PixelRepresentation, dose.SamplesPerPixel = 31, 0, 1
    dose.PhotometricInterpretation = "MONOCHROME2"
    dose.PixelData = np.repeat(np.arange(1000, 5000, 1000, dtype=np.uint32), 30).tobytes()
    dose.save_as(path, enforce_file_format=True)


def positions(image: sitk.Image) -> list:
    return [image.TransformIndexToPhysicalPoint((0, 0, plane))[2] for plane in range(4)]


FORMS = {"distances": [0, 3, 6, 9], "positions": [100, 103, 106, 109], "uneven distances": [0, 3, 6, 12]}
for form, offsets in FORMS.items():
    write(f"{form}.dcm", offsets)
    image = sitk.ReadImage(f"{form}.dcm")
    expect(f"{form}, SimpleITK, dose", sitk.GetArrayFromImage(image)[:, 0, 0], [1000, 2000, 3000, 4000])
    expect(f"{form}, SimpleITK, z", positions(image), [100, 103, 106, 109])
    (z, _, _), values = zyx_and_dose_from_dataset(pydicom.dcmread(f"{form}.dcm"))
    expect(f"{form}, PyMedPhys, dose", values[:, 0, 0], [1, 2, 3, 4])
    expect(f"{form}, PyMedPhys, z", z, np.add(100, offsets))
    command = ["plastimatch", "convert", "--input-dose-img", f"{form}.dcm", "--output-dose-img", f"{form}.nrrd"]
    run = subprocess.run(command, capture_output=True)
    expect(f"{form}, plastimatch, exit status", run.returncode, 1 if form == "uneven distances" else 0)
    if run.returncode == 0:
        image = sitk.ReadImage(f"{form}.nrrd")
        expect(f"{form}, plastimatch, dose", sitk.GetArrayFromImage(image)[:, 0, 0], [1, 2, 3, 4])
        expect(f"{form}, plastimatch, z", positions(image), [100, 103, 106, 109])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 pymedphys==0.41.0 plastimatch==1.10.0
# distances, SimpleITK, dose: [1000, 2000, 3000, 4000]
# distances, SimpleITK, z: [100.0, 103.0, 106.0, 109.0]
# distances, PyMedPhys, dose: [1.0, 2.0, 3.0, 4.0]
# distances, PyMedPhys, z: [100.0, 103.0, 106.0, 109.0]
# distances, plastimatch, exit status: 0
# distances, plastimatch, dose: [1.0, 2.0, 3.0, 4.0]
# distances, plastimatch, z: [100.0, 103.0, 106.0, 109.0]
# positions, SimpleITK, dose: [1000, 2000, 3000, 4000]
# positions, SimpleITK, z: [100.0, 103.0, 106.0, 109.0]
# positions, PyMedPhys, dose: [1.0, 2.0, 3.0, 4.0]
# positions, PyMedPhys, z: [200.0, 203.0, 206.0, 209.0]
# positions, plastimatch, exit status: 0
# positions, plastimatch, dose: [1.0, 2.0, 3.0, 4.0]
# positions, plastimatch, z: [100.0, 103.0, 106.0, 109.0]
# uneven distances, SimpleITK, dose: [1000, 2000, 3000, 4000]
# uneven distances, SimpleITK, z: [100.0, 103.0, 106.0, 109.0]
# uneven distances, PyMedPhys, dose: [1.0, 2.0, 3.0, 4.0]
# uneven distances, PyMedPhys, z: [100.0, 103.0, 106.0, 112.0]
# uneven distances, plastimatch, exit status: 1
