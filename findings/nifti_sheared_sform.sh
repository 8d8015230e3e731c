#!/usr/bin/env bash
# A NIfTI file whose sform is sheared or stretched, as a 12-parameter registration leaves it when it is written into the
# header, with sform_code 1 and with or without a qform beside it.
# Most expect: a reader uses the matrix as it is, or says that it cannot.
# Seen: nibabel uses it. SimpleITK refuses a shear of 0.01 % of a voxel where the sform is alone, but with a qform in the
# file it reads the qform instead, 100 mm away, without an error. A sform that is stretched by 30 % keeps its origin and
# directions there, but the voxel sizes are those of pixdim, with a line on standard error alone.
# For users: resample such an image instead of writing the matrix into its header.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7
check 2> /dev/null <<'EOF'
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from expect import expect

FILE = "affine_in_the_header.nii"


def write(shear: float, stretch: float, qform_code: int) -> None:
    qform = np.diag([2.0, 3.0, 4.0, 1.0])
    sform = qform * stretch
    sform[0, 1] = shear * 3.0
    sform[:3, 3], sform[3, 3] = 100.0, 1.0
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.float32), None)
    image.header.set_qform(qform, qform_code)
    image.header.set_sform(sform, 1)
    image.header["pixdim"][1:4] = 2, 3, 4
    nib.save(image, FILE)


def read() -> str:
    try:
        image = sitk.ReadImage(FILE)
    except RuntimeError:
        return "error"
    form = "sform" if image.GetOrigin()[2] == 100 else "qform"
    return f"{form}, spacing {image.GetSpacing()[0]:g}"


for shear in (0.0, 1e-4, 1e-2):
    for code in (0, 1):
        write(shear, 1.0, code)
        beside = "with a qform" if code else "alone"
        wanted = "sform, spacing 2" if shear == 0 else "qform, spacing 2" if code else "error"
        expect(f"shear {shear:g}, {beside}, SimpleITK", read(), wanted)
        expect(f"shear {shear:g}, {beside}, nibabel", nib.load(FILE).affine[0, [1, 3]], [shear * 3.0, 100.0], 1e-5)
write(0.0, 1.3, 1)
expect("stretch 1.3, with a qform, SimpleITK", read(), "sform, spacing 2")
expect("stretch 1.3, with a qform, nibabel", nib.load(FILE).affine[0, 0], 2.6)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7
# shear 0, alone, SimpleITK: sform, spacing 2
# shear 0, alone, nibabel: [0.0, 100.0]
# shear 0, with a qform, SimpleITK: sform, spacing 2
# shear 0, with a qform, nibabel: [0.0, 100.0]
# shear 0.0001, alone, SimpleITK: error
# shear 0.0001, alone, nibabel: [0.0003, 100.0]
# shear 0.0001, with a qform, SimpleITK: qform, spacing 2
# shear 0.0001, with a qform, nibabel: [0.0003, 100.0]
# shear 0.01, alone, SimpleITK: error
# shear 0.01, alone, nibabel: [0.03, 100.0]
# shear 0.01, with a qform, SimpleITK: qform, spacing 2
# shear 0.01, with a qform, nibabel: [0.03, 100.0]
# stretch 1.3, with a qform, SimpleITK: sform, spacing 2
# stretch 1.3, with a qform, nibabel: 2.6
