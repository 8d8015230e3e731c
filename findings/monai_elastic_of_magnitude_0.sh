#!/usr/bin/env bash
# MONAI's random elastic transforms with `magnitude_range` 0 and 4: in 2D 0 moves by up to 1.4 pixels, in 3D 4 moves
# by less than 0.1.
# Most expect: displacements of up to about 4 voxels in both, and an image that stays where it is for 0.
# Seen: Rand2DElastic enlarges a coarse grid of POSITIONS with torch's bicubic kernel (a = -0.75), which keeps no ramp
# straight: the identity gets ripples of 5 % of `spacing`, and images of odd size move by half a pixel as a whole.
# Rand3DElastic draws an offset for each voxel, then smooths: of 4 voxels 0.08 are left with a sigma of 5, 0.03 with 8.
# For users: 3D augmentation and synthetic truth with the numbers of 2D do next to nothing; measure the field. In 2D
# even the transform of magnitude 0 is a deformation.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0 monai==1.6.1
check <<'EOF'
import torch
from expect import expect
from monai.transforms import Rand2DElastic, Rand3DElastic


def motion(transform: Rand2DElastic | Rand3DElastic, shape: tuple) -> torch.Tensor:
    """The displacement of the voxels far from the border, seen on an image that holds their positions."""
    positions = torch.stack(torch.meshgrid(*[torch.arange(float(size)) for size in shape], indexing="ij"))
    inner = (slice(None), *[slice(14, -14)] * len(shape))
    transform.set_random_state(0)
    return (transform(positions) - positions).as_tensor()[inner]


def in_2d(magnitude: float, spacing: float, size: int = 96) -> torch.Tensor:
    numbers = {"magnitude_range": (magnitude, magnitude), "prob": 1.0, "padding_mode": "border"}
    return motion(Rand2DElastic(spacing=(spacing, spacing), **numbers), (size, 96))


def in_3d(magnitude: float, sigma: float) -> torch.Tensor:
    numbers = {"magnitude_range": (magnitude, magnitude), "prob": 1.0, "padding_mode": "border"}
    return motion(Rand3DElastic(sigma_range=(sigma, sigma), **numbers), (40, 40, 40))


for spacing, wanted in ((8, 0.381), (16, 0.769), (30, 1.443)):
    expect(f"2D, magnitude 0, spacing {spacing}, largest motion", float(in_2d(0, spacing).abs().max()), wanted, 0.01)
expect("2D, magnitude 0, spacing 8, 96 rows, mean motion", float(in_2d(0, 8)[0].mean()), 0, 0.02)
expect("2D, magnitude 0, spacing 8, 97 rows, mean motion", float(in_2d(0, 8, 97)[0].mean()), 0.505, 0.02)
expect("2D, magnitude 4, spacing 16, over 4 pixels", bool(in_2d(4, 16).abs().max() > 4), True)
expect("3D, magnitude 0, sigma 5, largest motion", float(in_3d(0, 5).abs().max()), 0)
for sigma, wanted in ((2, 0.367), (5, 0.08), (8, 0.032)):
    expect(f"3D, magnitude 4, sigma {sigma}, largest motion", float(in_3d(4, sigma).abs().max()), wanted, 0.01)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0 monai==1.6.1
# 2D, magnitude 0, spacing 8, largest motion: 0.38086
# 2D, magnitude 0, spacing 16, largest motion: 0.76904
# 2D, magnitude 0, spacing 30, largest motion: 1.44267
# 2D, magnitude 0, spacing 8, 96 rows, mean motion: 0.0
# 2D, magnitude 0, spacing 8, 97 rows, mean motion: 0.50467
# 2D, magnitude 4, spacing 16, over 4 pixels: True
# 3D, magnitude 0, sigma 5, largest motion: 0.0
# 3D, magnitude 4, sigma 2, largest motion: 0.3672
# 3D, magnitude 4, sigma 5, largest motion: 0.08028
# 3D, magnitude 4, sigma 8, largest motion: 0.0319
