#!/usr/bin/env bash
# A CT series from z = 0 on, slices 5 mm apart: `ants.dicom_read` shuffles them and says 1 mm.
# Most expect: slices in order of position, with the series' spacing and origin, as in SimpleITK (both are ITK
# inside).
# Seen: slices lie in the order of `os.listdir`, which is arbitrary; the spacing along z is 1 mm whatever their
# distance; the origin is that of the file listed first.
# For users: registrations in ANTsPy that start from DICOM work on a scrambled, squeezed patient. Convert to NIfTI
# first.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 antspyx==0.6.3
check <<'EOF'
import os

import ants
import SimpleITK as sitk
from expect import expect
from series import write_series

ORDER = [3, 0, 5, 1, 4, 2]  # names say nothing about positions, as those of most archives
paths = write_series("series", [5 * number for number in range(6)], [10 * number for number in range(6)])
for number, path in zip(ORDER, list(paths)):
    os.rename(path, f"series/image{number}.dcm")
position = {f"image{number}.dcm": index for index, number in enumerate(ORDER)}
listed = [position[name] for name in os.listdir("series")]

by_itk = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames("series"))
by_ants = ants.dicom_read("series")
expect("SimpleITK, values up the slices", sitk.GetArrayFromImage(by_itk)[:, 0, 0], range(-1024, -964, 10))
expect("ANTs follows the listing of the folder", by_ants.numpy()[0, 0], [10 * index - 1024 for index in listed])
expect("that is no order of position", listed != sorted(listed), True)
expect("SimpleITK, spacing and origin", [*by_itk.GetSpacing(), *by_itk.GetOrigin()], [1, 1, 5, 0, 0, 0])
expect("ANTs, spacing", by_ants.spacing, [1, 1, 1])
expect("ANTs, origin is that of the file listed first", by_ants.origin, [0, 0, 5 * listed[0]])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 pydicom==3.0.2 SimpleITK==2.5.7 antspyx==0.6.3
# SimpleITK, values up the slices: [-1024, -1014, -1004, -994, -984, -974]
# ANTs follows the listing of the folder: [-994.0, -1014.0, -984.0, -1024.0, -1004.0, -974.0]
# that is no order of position: True
# SimpleITK, spacing and origin: [1.0, 1.0, 5.0, 0.0, 0.0, 0.0]
# ANTs, spacing: [1.0, 1.0, 1.0]
# ANTs, origin is that of the file listed first: [0.0, 0.0, 15.0]
