#!/usr/bin/env bash
# Labels resampled by the identity onto their own grid with the interpolators made for labels: thin ones are gone.
# A block of 4 x 20 x 20 voxels (1), a plate one voxel thick (2), one of two voxels (3), and lines of 1 x 1 (4) and 2 x 2
# voxels (5), which are 24 long; voxels of 1 and of 5 mm along z.
# Most expect: labels at the same places come back as they are, since an identity samples the voxels' own centers, and
# that an interpolator for labels keeps small ones better than the nearest neighbor does.
# Seen: SimpleITK's sitkLabelGaussian and ANTsPy's "multiLabel" take the label that weighs most in a Gaussian window, at
# whole voxels too. The plate and the line of one voxel vanish whole in both, without a warning; with "multiLabel" the
# line of 2 x 2 voxels does, too, and the plate of two loses a fifth. sitkLabelLinear and "genericLabel" change nothing.
# For users: vessels, ducts, cortex and one-slice lesions are gone before anything has moved. Take the linear ones, and
# count the voxels of each label before and behind.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 antspyx==0.6.3
check <<'EOF'
import ants
import numpy as np
import SimpleITK as sitk
from expect import expect

labels = np.zeros((26, 30, 30), np.uint8)
labels[2:6, 5:25, 5:25] = 1
labels[9, 5:25, 5:25] = 2
labels[13:15, 5:25, 5:25] = 3
labels[20, 8, 3:27] = 4
labels[20:22, 20:22, 3:27] = 5
WHOLE = [1600, 400, 800, 24, 96]
WANTED = {
    "SimpleITK": {"sitkNearestNeighbor": WHOLE, "sitkLabelLinear": WHOLE, "sitkLabelGaussian": [1592, 0, 792, 0, 88]},
    "ANTsPy": {"nearestNeighbor": WHOLE, "genericLabel": WHOLE, "multiLabel": [1440, 0, 648, 0, 0]},
}
ants.write_transform(ants.create_ants_transform(dimension=3, matrix=np.eye(3)), "identity.mat")


def voxels(array: np.ndarray) -> list[int]:
    return [int((array == label).sum()) for label in range(1, 6)]


expect("voxels of each label", voxels(labels), WHOLE)
for spacing in ((1.0, 1.0, 1.0), (1.0, 1.0, 5.0)):
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(spacing)
    for name, left in WANTED["SimpleITK"].items():
        moved = sitk.Resample(image, image, sitk.Transform(), getattr(sitk, name))
        expect(f"SimpleITK, {name}, {spacing[2]} mm", voxels(sitk.GetArrayFromImage(moved)), left)
    image = ants.from_numpy(labels.T.astype(np.float32), spacing=spacing)
    for name, left in WANTED["ANTsPy"].items():
        moved = ants.apply_transforms(image, image, ["identity.mat"], interpolator=name)
        expect(f"ANTsPy, {name}, {spacing[2]} mm", voxels(moved.numpy()), left)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 antspyx==0.6.3
# voxels of each label: [1600, 400, 800, 24, 96]
# SimpleITK, sitkNearestNeighbor, 1.0 mm: [1600, 400, 800, 24, 96]
# SimpleITK, sitkLabelLinear, 1.0 mm: [1600, 400, 800, 24, 96]
# SimpleITK, sitkLabelGaussian, 1.0 mm: [1592, 0, 792, 0, 88]
# ANTsPy, nearestNeighbor, 1.0 mm: [1600, 400, 800, 24, 96]
# ANTsPy, genericLabel, 1.0 mm: [1600, 400, 800, 24, 96]
# ANTsPy, multiLabel, 1.0 mm: [1440, 0, 648, 0, 0]
# SimpleITK, sitkNearestNeighbor, 5.0 mm: [1600, 400, 800, 24, 96]
# SimpleITK, sitkLabelLinear, 5.0 mm: [1600, 400, 800, 24, 96]
# SimpleITK, sitkLabelGaussian, 5.0 mm: [1592, 0, 792, 0, 88]
# ANTsPy, nearestNeighbor, 5.0 mm: [1600, 400, 800, 24, 96]
# ANTsPy, genericLabel, 5.0 mm: [1600, 400, 800, 24, 96]
# ANTsPy, multiLabel, 5.0 mm: [1440, 0, 648, 0, 0]
