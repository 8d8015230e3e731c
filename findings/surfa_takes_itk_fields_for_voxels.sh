#!/usr/bin/env bash
# A displacement of 4 mm on voxels of 2 mm, saved with the intent of ITK and ANTs (1007): FreeSurfer's surfa moves by
# 4 voxels, 8 mm.
# Most expect: vectors in mm, as everywhere with NIFTI_INTENT_VECTOR, or a refusal.
# Seen: `surfa.load_warp` looks for intent 1006 only (displacement vector, RAS mm). Any other file is taken for
# displacements in voxels along the array's axes, without a word; LPS signs become array directions.
# For users: on 1 mm grids the mistake hides in the signs alone. Give surfa files of intent 1006 with RAS components.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 surfa==0.6.3
check <<'EOF'
import nibabel as nib
import numpy as np
import surfa
from expect import expect

affine = np.diag([2.0, 2, 2, 1])
image = surfa.Volume(np.eye(24, dtype=np.float32)[12][:, None, None] * np.ones((1, 24, 24), np.float32))
image.geom.update(voxsize=2, vox2world=affine)


def plane_after(intent: int) -> tuple:
    """Where the bright plane at x = 12 voxels is seen after a displacement of 4 along x."""
    displacements = np.zeros((24, 24, 24, 1, 3), np.float32)
    displacements[..., 0] = 4
    field = nib.Nifti1Image(displacements, affine)
    field.header.set_intent(intent)
    nib.save(field, "field.nii.gz")
    warp = surfa.load_warp("field.nii.gz")
    warp.source = image.geom
    warped = warp.transform(image).data.squeeze()
    return warp.format, int(warped[:, 12, 12].argmax())


for name, intent, wanted in (("1006", 1006, 10), ("1007, ITK", 1007, 8), ("none", 0, 8)):
    kind, plane = plane_after(intent)
    expect(f"intent {name}: surfa's format (1: voxels, 3: RAS mm)", kind, 3 if intent == 1006 else 1)
    expect(f"intent {name}: plane at voxel 12 is seen at (4 mm are 2 voxels)", plane, wanted)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 surfa==0.6.3
# intent 1006: surfa's format (1: voxels, 3: RAS mm): 3
# intent 1006: plane at voxel 12 is seen at (4 mm are 2 voxels): 10
# intent 1007, ITK: surfa's format (1: voxels, 3: RAS mm): 1
# intent 1007, ITK: plane at voxel 12 is seen at (4 mm are 2 voxels): 8
# intent none: surfa's format (1: voxels, 3: RAS mm): 1
# intent none: plane at voxel 12 is seen at (4 mm are 2 voxels): 8
