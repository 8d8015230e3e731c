#!/usr/bin/env bash
# Three breathing phases under one SeriesInstanceUID, each with slices at 0, 2, ... 8 mm: SimpleITK makes one volume
# of them.
# Most expect: three series, a 4D image, or an error.
# Seen: one volume of 15 slices, phase after phase, with a spacing of 4/7 = 0.571 mm that no pair of neighbors has:
# the patient three times in a row within the height of one. A warning goes to standard error and the program goes on.
# highdicom refuses the files.
# For users: 4D-CT of some vendors comes so. Count the positions before reading, or group the files by time first.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 highdicom==0.28.2
check <<'EOF'
import highdicom as hd
import pydicom
import SimpleITK as sitk
from expect import expect
from series import write_series

positions = [0, 2, 4, 6, 8]
values = [100 * phase + position for phase in range(3) for position in positions]
paths = write_series("series", positions * 3, values)

reader = sitk.ImageSeriesReader()
expect("series found", len(reader.GetGDCMSeriesIDs("series")), 1)
image = sitk.ReadImage(reader.GetGDCMSeriesFileNames("series"))
expect("size", image.GetSize(), [16, 16, 15])
expect("spacing", image.GetSpacing(), [1, 1, 4 / 7])
expect("values up the slices", sitk.GetArrayFromImage(image)[:, 0, 0] + 1024, values)
expect("height of the volume in mm (of the patient: 8)", 14 * image.GetSpacing()[2], 8)

details = reader.GetGDCMSeriesFileNames("series", useSeriesDetails=True)
expect("files with useSeriesDetails", len(details), 15)
try:
    answer = str(hd.get_volume_from_series([pydicom.dcmread(path) for path in paths]).shape)
except ValueError as error:
    answer = str(error)
expect("highdicom", answer, "Series is not a regularly-spaced volume.")
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 highdicom==0.28.2
# series found: 1
# size: [16, 16, 15]
# spacing: [1.0, 1.0, 0.57143]
# values up the slices: [0, 2, 4, 6, 8, 100, 102, 104, 106, 108, 200, 202, 204, 206, 208]
# height of the volume in mm (of the patient: 8): 8.0
# files with useSeriesDetails: 15
# highdicom: Series is not a regularly-spaced volume.
