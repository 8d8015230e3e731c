#!/usr/bin/env bash
# MONAI's mutual information loss of an image with itself: 0, as with noise, when intensities are not within [0, 1].
# Most expect: mutual information knows no units; the bins follow the image, as in ITK and ANTs.
# Seen: both images are clamped to [0, 1] first. The same blob scores -0.454 with itself on [0, 1], -0.081 on [-1, 1],
# and -0.000001 on [5, 6], equal to noise; the loss is finite, falls for no motion and warns of nothing.
# For users: CT in HU or z-scored MR give a loss without a gradient. Scale to [0, 1] first.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0 monai==1.6.1
check <<'EOF'
import numpy as np
import torch
from expect import expect
from monai.losses import GlobalMutualInformationLoss

squares = sum((axis - middle) ** 2 for axis, middle in zip(np.indices((24, 24, 24)), (12, 10, 11)))
blob = torch.from_numpy(np.exp(-squares / 18).astype(np.float32))[None, None]
noise = torch.rand(blob.shape, generator=torch.Generator().manual_seed(0))
loss = GlobalMutualInformationLoss()


def gradient(gain: float, offset: float) -> float:
    moving = torch.roll(gain * blob + offset, 2, 2).requires_grad_()
    loss(moving, gain * blob + offset).backward()
    return float(moving.grad.abs().sum())


for name, gain, offset, itself in (("[0, 1]", 1, 0, -0.454), ("[-1, 1]", 2, -1, -0.0815), ("[5, 6]", 1, 5, 0)):
    scaled = gain * blob + offset
    expect(f"{name}, with itself", float(loss(scaled, scaled)), itself)
    expect(f"{name}, with noise of that range", float(loss(gain * noise + offset, scaled)), 0, 0.006)
expect("[0, 1], sum of the gradient is above 0", gradient(1, 0) > 0, True)
expect("[5, 6], sum of the gradient", gradient(1, 5), 0, 1e-9)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0 monai==1.6.1
# [0, 1], with itself: -0.45403
# [0, 1], with noise of that range: -0.00522
# [-1, 1], with itself: -0.08147
# [-1, 1], with noise of that range: -0.00382
# [5, 6], with itself: -0.0
# [5, 6], with noise of that range: -0.0
# [0, 1], sum of the gradient is above 0: True
# [5, 6], sum of the gradient: 0.0
