#!/usr/bin/env bash
# Four NIfTI files with the same displacements, given to `ants.apply_transforms`: two of them do nothing, silently.
# A bright spot at y = 10, a shift by 4 voxels; shapes (X, Y, Z, 1, 3) with intent 1007 and 1006, (X, Y, Z, 1, 3) and
# (X, Y, Z, 3) without.
# Most expect: a file that is no displacement field to ANTs is refused, or read as one.
# Seen: with an intent the spot moves (1007: LPS, to y = 6; 1006: RAS, to y = 14). Without one ANTs reads the file as
# a scalar image, takes its first volume for all three components, and says nothing; here that volume is 0.
# For users: MONAI's SaveImage writes a channel-first field as (X, Y, Z, 3) without an intent, which is this case.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 antspyx==0.6.3
check <<'EOF'
import ants
import nibabel as nib
import numpy as np
from expect import expect

AFFINE = np.diag([-1.0, -1, 1, 1])  # identity in LPS
squares = sum((axis - middle) ** 2 for axis, middle in zip(np.indices((24, 24, 24)), (12, 10, 11)))
nib.save(nib.Nifti1Image(np.exp(-squares / 18).astype(np.float32), AFFINE), "image.nii.gz")
image = ants.image_read("image.nii.gz")


def spot_after(shape: tuple, intent: int, component: int) -> np.ndarray:
    displacements = np.zeros(shape, np.float32)
    displacements[..., component] = 4
    field = nib.Nifti1Image(displacements, AFFINE)
    field.header.set_intent(intent)
    nib.save(field, "field.nii.gz")
    warped = ants.apply_transforms(image, image, ["field.nii.gz"]).numpy()
    return np.unravel_index(warped.argmax(), warped.shape)


five, four = (24, 24, 24, 1, 3), (24, 24, 24, 3)
expect("spot without a field", np.unravel_index(image.numpy().argmax(), image.shape), [12, 10, 11])
expect("(X, Y, Z, 1, 3), intent 1007, along y", spot_after(five, 1007, 1), [12, 6, 11])
expect("(X, Y, Z, 1, 3), intent 1006, along y", spot_after(five, 1006, 1), [12, 14, 11])
expect("(X, Y, Z, 1, 3), no intent, along y", spot_after(five, 0, 1), [12, 10, 11])
expect("(X, Y, Z, 3), no intent, along y", spot_after(four, 0, 1), [12, 10, 11])
expect("(X, Y, Z, 3), no intent, along x: all three axes move", spot_after(four, 0, 0), [8, 6, 7])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 antspyx==0.6.3
# spot without a field: [12, 10, 11]
# (X, Y, Z, 1, 3), intent 1007, along y: [12, 6, 11]
# (X, Y, Z, 1, 3), intent 1006, along y: [12, 14, 11]
# (X, Y, Z, 1, 3), no intent, along y: [12, 10, 11]
# (X, Y, Z, 3), no intent, along y: [12, 10, 11]
# (X, Y, Z, 3), no intent, along x: all three axes move: [8, 6, 7]
