#!/usr/bin/env bash
# scikit-image's optical_flow_tvl1 of one CT slice that moved by 3 pixels: 3 as uint8, 0.2 as int16, 0 as int32, 105 as
# float HU.
# Most expect: the type of the numbers does not matter; int16 is what CT files hold, and both images have the same.
# Seen: integers are divided by the largest number of their type, floats are taken as they are, and `attachment` = 15
# weighs differences of intensity against changes of the flow. HU in int16 become a range of 0.03, and the flow is
# nearly zero everywhere; HU in float make it tear. No warning. The local optical_flow_ilk finds 3 in all types but int32,
# where it returns exactly 0.
# For users: a flow of almost zero looks like two images that agree. Scale both by the same numbers to float in [0, 1].

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 scipy==1.15.3 scikit-image==0.26.0
check <<'EOF'
import numpy as np
from expect import expect
from skimage.registration import optical_flow_ilk, optical_flow_tvl1

rows, columns = np.indices((64, 64))


def slice_at(column: float) -> np.ndarray:
    return np.exp(-((rows - 32) ** 2 + (columns - column) ** 2) / 60)


kinds = {
    "float in [0, 1]": (lambda image: image, 2.969, 0.05),
    "uint8, 0 to 255": (lambda image: (255 * image).astype(np.uint8), 2.964, 0.05),
    "uint16, 0 to 4095": (lambda image: (4095 * image).astype(np.uint16), 0.376, 0.05),
    "int16, -1000 to 0 HU": (lambda image: (1000 * image - 1000).astype(np.int16), 0.172, 0.05),
    "int32, -1000 to 0 HU": (lambda image: (1000 * image - 1000).astype(np.int32), 0, 1e-3),
}
for name, (convert, wanted, tolerance) in kinds.items():
    fixed, moving = convert(slice_at(30)), convert(slice_at(33))
    at_center = float(optical_flow_tvl1(fixed, moving)[1, 32, 30])
    expect(f"{name}, motion of the center, TV-L1", at_center, wanted, tolerance)
    local = float(optical_flow_ilk(fixed, moving)[1, 32, 30])
    expect(f"{name}, motion of the center, ILK", local, 0 if fixed.dtype == np.int32 else 3, 0.01)
largest = np.abs(optical_flow_tvl1(1000 * slice_at(30), 1000 * slice_at(33))).max()
expect("float, 0 to 1000 HU, largest motion over 50 pixels", bool(largest > 50), True)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 scipy==1.15.3 scikit-image==0.26.0
# float in [0, 1], motion of the center, TV-L1: 2.96908
# float in [0, 1], motion of the center, ILK: 3.0
# uint8, 0 to 255, motion of the center, TV-L1: 2.96407
# uint8, 0 to 255, motion of the center, ILK: 3.0
# uint16, 0 to 4095, motion of the center, TV-L1: 0.37643
# uint16, 0 to 4095, motion of the center, ILK: 3.0
# int16, -1000 to 0 HU, motion of the center, TV-L1: 0.17183
# int16, -1000 to 0 HU, motion of the center, ILK: 3.0
# int32, -1000 to 0 HU, motion of the center, TV-L1: 0.0
# int32, -1000 to 0 HU, motion of the center, ILK: 0.0
# float, 0 to 1000 HU, largest motion over 50 pixels: True
