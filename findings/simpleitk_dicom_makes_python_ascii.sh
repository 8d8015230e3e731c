#!/usr/bin/env bash
# SimpleITK writes a DICOM slice that has a position (0020|0032): afterwards Python opens text files as ASCII.
# Most expect: writing an image changes a file, not the process; a locale, if one is needed, is given back.
# Seen: the locale of the whole process is "C" from then on, for all categories, where it was C.UTF-8. Without position
# and orientation it stays. A later `open(path, "w")` of a patient's or a file's name with an accent raises, and the
# output of a child that is read as text cannot be decoded. In Python's UTF-8 mode (PYTHONUTF8=1) nobody notices.
# For users: name the encoding in every `open`, or take `locale.setlocale(locale.LC_ALL)` before the writer runs and
# give it back behind it.

. "$(dirname "$0")/lib.sh"
export PYTHONUTF8=0
packages numpy==2.3.5 SimpleITK==2.5.7
check <<'EOF'
import locale

import numpy as np
import SimpleITK as sitk
from expect import expect


def written_with(tags):
    """The encoding of text files before and after writing one slice."""
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    before = locale.getencoding()
    image = sitk.GetImageFromArray(np.zeros((8, 8), np.int16))
    for tag, value in tags.items():
        image.SetMetaData(tag, value)
    sitk.WriteImage(image, "slice.dcm")
    return before, locale.setlocale(locale.LC_ALL), locale.getencoding()


expect("no place", written_with({}), ("UTF-8", "C.UTF-8", "UTF-8"))
expect("a number", written_with({"0020|0013": "1"}), ("UTF-8", "C.UTF-8", "UTF-8"))
expect("a position", written_with({"0020|0032": r"0\0\1"}), ("UTF-8", "C", "ANSI_X3.4-1968"))
expect("an orientation", written_with({"0020|0037": r"1\0\0\0\1\0"}), ("UTF-8", "C", "ANSI_X3.4-1968"))
written_with({"0020|0032": r"0\0\1"})
try:
    with open("names.txt", "w") as file:
        file.write("é")
    seen = "written"
except UnicodeEncodeError:
    seen = "refused"
expect("a name with an accent", seen, "refused")
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7
# no place: ['UTF-8', 'C.UTF-8', 'UTF-8']
# a number: ['UTF-8', 'C.UTF-8', 'UTF-8']
# a position: ['UTF-8', 'C', 'ANSI_X3.4-1968']
# an orientation: ['UTF-8', 'C', 'ANSI_X3.4-1968']
# a name with an accent: refused
