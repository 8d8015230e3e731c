#!/usr/bin/env bash
# `sitk.Warp(image, field)` with image and field on one grid of 2 mm at (10, 20, 30): an image of zeros.
# Most expect: the warped image on the grid of the field, as the field's own size is taken.
# Seen: the size is the field's, but spacing, origin and direction are 1 mm, 0 and identity, so that the result
# samples another place and holds nothing. With `outputParameteresFromImage` (spelled so) it is right; so is Resample
# with a transform.
# For users: unit-test images (1 mm, origin 0) pass, the first real scan comes out empty.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7
check <<'EOF'
import SimpleITK as sitk
from expect import expect


def warped(spacing: float, origin: tuple, **options) -> list:
    image = sitk.Image((8, 8, 8), sitk.sitkFloat32) + 1
    field = sitk.Image((8, 8, 8), sitk.sitkVectorFloat64, 3)
    for grid in (image, field):
        grid.SetSpacing([spacing] * 3)
        grid.SetOrigin(origin)
    if options:
        warp = sitk.WarpImageFilter()
        warp.SetOutputParameteresFromImage(field)
        result = warp.Execute(image, field)
    else:
        result = sitk.Warp(image, field)
    return [*result.GetSize(), *result.GetSpacing(), *result.GetOrigin(), sitk.GetArrayViewFromImage(result).mean()]


expect("1 mm at 0: size, spacing, origin, mean (of ones)", warped(1, (0, 0, 0)), [8, 8, 8, 1, 1, 1, 0, 0, 0, 1])
expect("2 mm at (10, 20, 30)", warped(2, (10, 20, 30)), [8, 8, 8, 1, 1, 1, 0, 0, 0, 0])
expect("2 mm, grid given", warped(2, (10, 20, 30), grid=True), [8, 8, 8, 2, 2, 2, 10, 20, 30, 1])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7
# 1 mm at 0: size, spacing, origin, mean (of ones): [8.0, 8.0, 8.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
# 2 mm at (10, 20, 30): [8.0, 8.0, 8.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
# 2 mm, grid given: [8.0, 8.0, 8.0, 2.0, 2.0, 2.0, 10.0, 20.0, 30.0, 1.0]
