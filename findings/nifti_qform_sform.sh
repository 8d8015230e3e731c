#!/usr/bin/env bash
# A NIfTI file may hold two positions, qform and sform: two tools, two places.
# Here qform_code is 1 (scanner) and sform_code 2 (aligned), 4 (MNI) or 1; the sform lies 100 mm further along every
# axis.
# Most expect: the sform wins wherever it is set, in every reader, as in nibabel.
# Seen: ITK's readers (SimpleITK, ANTs, TorchIO) take the sform only where its code is 1 (or there is no qform).
# nibabel, fslpy and surfa take it always.
# For users: a field made on the one position and applied by a tool that reads the other is off by the difference,
# without a word. After `set_sform` in nibabel, `set_qform` too.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 antspyx==0.6.3 \
    torch==2.13.0 torchio==1.2.1 fslpy==3.29.1 surfa==0.6.3
check <<'EOF'
import ants
import nibabel as nib
import numpy as np
import SimpleITK as sitk
import surfa
import torchio
from expect import expect
from fsl.data.image import Image

FILE = "two_positions.nii.gz"
TO_RAS = np.array([-1, -1, 1])
READERS = {
    "nibabel": lambda: nib.load(FILE).affine[:3, 3],
    "fslpy": lambda: Image(FILE).voxToWorldMat[:3, 3],
    "surfa": lambda: surfa.load_volume(FILE).geom.vox2world.matrix[:3, 3],
    "SimpleITK": lambda: sitk.ReadImage(FILE).GetOrigin() * TO_RAS,
    "ANTs": lambda: ants.image_read(FILE).origin * TO_RAS,
    "TorchIO": lambda: torchio.ScalarImage(FILE).affine[:3, 3],
}


def write(sform_code: int) -> None:
    qform = np.array([[-2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    sform = qform.copy()
    sform[:3, 3] += 100
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.float32), None)
    image.header.set_qform(qform, 1)
    image.header.set_sform(sform, sform_code)
    nib.save(image, FILE)


for code in (2, 4, 1):
    write(code)
    for name, origin in READERS.items():
        shift = 0 if code != 1 and name in ("SimpleITK", "ANTs", "TorchIO") else 100
        expect(f"sform_code {code}, {name}, origin in RAS", origin(), np.array([10, 20, 30]) + shift)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 antspyx==0.6.3 torch==2.13.0 torchio==1.2.1 fslpy==3.29.1 surfa==0.6.3
# sform_code 2, nibabel, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 2, fslpy, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 2, surfa, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 2, SimpleITK, origin in RAS: [10.0, 20.0, 30.0]
# sform_code 2, ANTs, origin in RAS: [10.0, 20.0, 30.0]
# sform_code 2, TorchIO, origin in RAS: [10.0, 20.0, 30.0]
# sform_code 4, nibabel, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 4, fslpy, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 4, surfa, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 4, SimpleITK, origin in RAS: [10.0, 20.0, 30.0]
# sform_code 4, ANTs, origin in RAS: [10.0, 20.0, 30.0]
# sform_code 4, TorchIO, origin in RAS: [10.0, 20.0, 30.0]
# sform_code 1, nibabel, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 1, fslpy, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 1, surfa, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 1, SimpleITK, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 1, ANTs, origin in RAS: [110.0, 120.0, 130.0]
# sform_code 1, TorchIO, origin in RAS: [110.0, 120.0, 130.0]
