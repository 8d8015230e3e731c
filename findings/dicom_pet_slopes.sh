#!/usr/bin/env bash
# A PET series with a rescale slope of its own in every slice (as scanners write them): ITK's values wrap to negative.
# Most expect: slope x stored value in every slice, in float where it is needed.
# Seen: each slice is scaled by its slope, then stored in the type that fits the FIRST slice. After a first slope of 1
# that is a 16-bit integer: 40 x 1000 reads as -25536, and a slope of 1.25 loses its fraction. The order of the slopes
# decides whether the scan is right.
# For users: uptake values from SimpleITK are wrong without a warning. Read with pydicom or highdicom and scale there.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 highdicom==0.28.2
check <<'EOF'
import highdicom as hd
import pydicom
import SimpleITK as sitk
from expect import expect
from series import write_series


def read(folder: str, slopes: list[float]) -> tuple:
    paths = write_series(folder, [0, 2, 4, 6], [1001] * 4, "PT", slopes)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder))
    volume = hd.get_volume_from_series([pydicom.dcmread(path) for path in paths])
    return image.GetPixelIDTypeAsString(), sitk.GetArrayFromImage(image)[:, 0, 0], volume.array[::-1, 0, 0]


kind, by_itk, by_highdicom = read("integer_first", [1, 20, 40, 1.25])
expect("slopes 1, 20, 40, 1.25, type", kind, "16-bit signed integer")
expect("SimpleITK", by_itk, [1001, 20020, 40040 - 65536, 1251])
expect("highdicom", by_highdicom, [1001, 20020, 40040, 1251.25])

kind, by_itk, by_highdicom = read("fraction_first", [1.25, 20, 40, 1])
expect("slopes 1.25, 20, 40, 1, type", kind, "64-bit float")
expect("SimpleITK", by_itk, [1251.25, 20020, 40040, 1001])
expect("highdicom", by_highdicom, [1251.25, 20020, 40040, 1001])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 highdicom==0.28.2
# slopes 1, 20, 40, 1.25, type: 16-bit signed integer
# SimpleITK: [1001, 20020, -25496, 1251]
# highdicom: [1001.0, 20020.0, 40040.0, 1251.25]
# slopes 1.25, 20, 40, 1, type: 64-bit float
# SimpleITK: [1251.25, 20020.0, 40040.0, 1001.0]
# highdicom: [1251.25, 20020.0, 40040.0, 1001.0]
