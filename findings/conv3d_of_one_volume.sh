#!/usr/bin/env bash
# A 3D convolution of one volume in PyTorch, and of two of them at once, on a CPU.
# Here it has 16 channels and a 3 x 3 x 3 kernel, and a volume has 32 x 32 x 32 voxels, as in a registration network.
# Most expect: two volumes take about twice the time of one.
# Seen: two take a fraction of the time of one (a fifth where this was written). A batch of one volume of up to about a
# million values goes to `slow_conv3d`, a batch of two of the same volumes to oneDNN; in 2D both go to oneDNN.
# For users: a network that registers one small pair at a time runs several times faster if the pair is given twice, and
# times per pair measured in batches say nothing about single pairs.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0
check 2> >(grep -v '^USDT' >&2) <<'EOF'
import time

import torch
from expect import expect
from torch.profiler import ProfilerActivity, profile

torch.set_num_threads(1)


def kernel(convolution: torch.nn.Module, *shape: int) -> str:
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as seen:
        convolution(torch.rand(*shape))
    names = [event.key for event in seen.key_averages()]
    return "slow_conv3d" if "aten::slow_conv3d" in names else "oneDNN" if "aten::mkldnn_convolution" in names else "?"


def seconds(convolution: torch.nn.Module, *shape: int) -> float:
    volumes, times = torch.rand(*shape), []
    with torch.no_grad():
        for _ in range(7):
            start = time.process_time()
            convolution(volumes)
            times.append(time.process_time() - start)
    return min(times)


conv3d, conv2d = torch.nn.Conv3d(16, 16, 3, padding=1), torch.nn.Conv2d(16, 16, 3, padding=1)
for size in (8, 32, 64):
    wanted = "oneDNN" if size == 64 else "slow_conv3d"
    expect(f"one volume of {size}^3 voxels goes to", kernel(conv3d, 1, 16, size, size, size), wanted)
    expect(f"two volumes of {size}^3 voxels go to", kernel(conv3d, 2, 16, size, size, size), "oneDNN")
expect("one image of 64^2 pixels goes to", kernel(conv2d, 1, 16, 64, 64), "oneDNN")
alone, both = seconds(conv3d, 1, 16, 32, 32, 32), seconds(conv3d, 2, 16, 32, 32, 32)
expect("two volumes of 32^3 voxels take less time than one", both < alone, True)
same = torch.rand(1, 16, 32, 32, 32)
with torch.no_grad():
    difference = float((conv3d(same) - conv3d(same.expand(2, -1, -1, -1, -1))[:1]).abs().max())
expect("largest difference of the results below 1e-5", difference < 1e-5, True)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0
# one volume of 8^3 voxels goes to: slow_conv3d
# two volumes of 8^3 voxels go to: oneDNN
# one volume of 32^3 voxels goes to: slow_conv3d
# two volumes of 32^3 voxels go to: oneDNN
# one volume of 64^3 voxels goes to: oneDNN
# two volumes of 64^3 voxels go to: oneDNN
# one image of 64^2 pixels goes to: oneDNN
# two volumes of 32^3 voxels take less time than one: True
# largest difference of the results below 1e-5: True
