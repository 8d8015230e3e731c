#!/usr/bin/env bash
# MONAI's local normalized cross-correlation of an image with itself: -1, -0.64 or 0, by the units of the image.
# Most expect: -1 whatever the gain and offset; that is what "normalized" is for. Where both images are flat: 0.
# Seen: noise of amplitude 0.01 scores -0.64 with itself, of 0.001 nothing at all (`smooth_dr` = 1e-5 is added to a
# product of variances); flat images score 0 where they are 0 and -0.875 where they are 1 or -1000, since the window
# reaches over the border into zeros; a blob scores -0.97 with itself and -0.34 with twice itself plus 5.
# For users: scale images to about [0, 1] with background 0 before the loss, and compare losses only within one
# scaling.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0 monai==1.6.1
check <<'EOF'
import numpy as np
import torch
from expect import expect
from monai.losses import LocalNormalizedCrossCorrelationLoss

generator = torch.Generator().manual_seed(0)
noise = torch.nn.functional.avg_pool3d(torch.randn(1, 1, 28, 28, 28, generator=generator), 5, 1)
squares = sum((axis - middle) ** 2 for axis, middle in zip(np.indices((24, 24, 24)), (12, 10, 11)))
blob = torch.from_numpy(np.exp(-squares / 18).astype(np.float32))[None, None]
flat = torch.zeros(1, 1, 16, 16, 16)


def lncc(image: torch.Tensor, other: torch.Tensor, size: int = 9) -> float:
    return float(LocalNormalizedCrossCorrelationLoss(kernel_size=size)(image, other))


for gain, wanted in ((1, -1), (0.1, -1), (0.01, -0.6433), (0.001, 0)):
    expect(f"noise x {gain} with itself, window 3", lncc(gain * noise, gain * noise, 3), wanted, 0.002)
for value, wanted in ((0, 0), (1, -0.875), (-1000, -0.875)):
    expect(f"flat {value} with itself", lncc(flat + value, flat + value), wanted)
expect("a blob with itself", lncc(blob, blob), -0.9661)
expect("a blob with twice itself plus 5", lncc(blob, 2 * blob + 5), -0.3373)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0 monai==1.6.1
# noise x 1 with itself, window 3: -1.0
# noise x 0.1 with itself, window 3: -1.0
# noise x 0.01 with itself, window 3: -0.6433
# noise x 0.001 with itself, window 3: -0.00012
# flat 0 with itself: 0.0
# flat 1 with itself: -0.875
# flat -1000 with itself: -0.875
# a blob with itself: -0.96614
# a blob with twice itself plus 5: -0.33733
