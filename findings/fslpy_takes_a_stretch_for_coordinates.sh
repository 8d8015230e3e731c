#!/usr/bin/env bash
# FNIRT's displacement fields, as fslpy reads them: one that stretches by more than 1.5 is taken for coordinates.
# Most expect: intent 2006 (FSL's displacement field) holds displacements, whatever they are.
# Seen: fslpy decides by which reading varies less over the grid. A field that scales by 1.4 about the center is
# "relative" and right. One that scales by 1.6 is "absolute": its displacement of 6.6 mm is taken for the place that it
# leads to, and a point at 30 mm goes to 6.6 instead of 36.6 mm. With `defType="relative"` it is right.
# For users: fields between brains of very different size (mouse and human, infant and adult, affine part included)
# need the type by name.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 fslpy==3.29.1
check <<'EOF'
import nibabel as nib
import numpy as np
from expect import expect
from fsl.data.image import Image
from fsl.transform import fnirt

SIZE, VOXEL = 20, 2.0
affine = np.diag([-VOXEL, VOXEL, VOXEL, 1.0])
reference = Image(np.zeros((SIZE,) * 3, np.float32), xform=affine)
places = np.stack(np.meshgrid(*[np.arange(SIZE) * VOXEL] * 3, indexing="ij"), -1)
away = places - places.mean((0, 1, 2))
for scale, kind in ((0.5, "relative"), (1.4, "relative"), (1.6, "absolute"), (2.0, "absolute")):
    field = nib.Nifti1Image(((scale - 1) * away).astype(np.float32), affine)
    field.header.set_intent(2006)
    nib.save(field, "warp.nii.gz")
    expect(f"scaled by {scale}, type", fnirt.readFnirt("warp.nii.gz", reference, reference).deformationType, kind)
    wanted = 30.0 + (scale - 1) * away[15, 0, 0, 0]
    for name, given in (("by itself", {}), ("by name", {"defType": "relative"})):
        found = fnirt.readFnirt("warp.nii.gz", reference, reference, **given).transform([[30.0] * 3], "fsl", "fsl")[0, 0]
        off = -30.0 if kind == "absolute" and not given else 0.0
        expect(f"scaled by {scale}, read {name}, error mm", found - wanted, off)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 fslpy==3.29.1
# scaled by 0.5, type: relative
# scaled by 0.5, read by itself, error mm: 0.0
# scaled by 0.5, read by name, error mm: 0.0
# scaled by 1.4, type: relative
# scaled by 1.4, read by itself, error mm: 0.0
# scaled by 1.4, read by name, error mm: 0.0
# scaled by 1.6, type: absolute
# scaled by 1.6, read by itself, error mm: -30.0
# scaled by 1.6, read by name, error mm: -0.0
# scaled by 2.0, type: absolute
# scaled by 2.0, read by itself, error mm: -30.0
# scaled by 2.0, read by name, error mm: 0.0
