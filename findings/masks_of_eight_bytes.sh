#!/usr/bin/env bash
# Memory that PyTorch takes on a CPU for what one does with a boolean mask, beside NumPy.
# Here the mask has 50 million voxels, about those of a CT of 512 x 512 x 190; bytes a voxel are of the peak of the process.
# Most expect: `mask > 0` and `mask.sum()` of a boolean mask take a byte a voxel or none, as in NumPy.
# Seen: nine and eight. A comparison with a number and a sum of booleans, or of `uint8` labels, first make an int64 copy
# of all; `image * mask` makes a float32 copy of the mask beside the product, and `image[mask]` lists int64 places first.
# NumPy converts in small blocks. `mask & other`, `torch.where` and `uint8 > 0` take no more than their result.
# For users: on a large scan `mask > 0` of a mask that is boolean already, or a voxel count for an overlap, can be the
# peak of a whole program: here 450 MB for nothing. Use the mask as it is, `torch.where`, and `torch.count_nonzero`.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0
check <<'EOF'
import subprocess
import sys

from expect import expect

SETUP = """
import resource
import numpy as np
import torch

torch.set_num_threads(1)
n = 50_000_000
mask, labels, image = (torch.ones(n, dtype=kind) for kind in (torch.bool, torch.uint8, torch.float32))
numpy_mask, numpy_image = mask.numpy(), image.numpy()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = {code}
print(round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / n))
"""
SEEN = {
    "mask > 0": 9,
    "numpy_mask > 0": 1,
    "labels > 0": 1,
    "mask & mask": 1,
    "mask.sum()": 8,
    "labels.sum()": 8,
    "numpy_mask.sum()": 0,
    "torch.count_nonzero(mask)": 0,
    "image * mask": 8,
    "numpy_image * numpy_mask": 4,
    "torch.where(mask, image, 0)": 4,
    "image[mask]": 12,
    "numpy_image[numpy_mask]": 4,
}
for code, bytes_seen in SEEN.items():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SETUP.replace("{code}", code)], capture_output=True, text=True, check=True
    )
    expect(f"bytes a voxel for {code}", int(done.stdout), bytes_seen)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0
# bytes a voxel for mask > 0: 9
# bytes a voxel for numpy_mask > 0: 1
# bytes a voxel for labels > 0: 1
# bytes a voxel for mask & mask: 1
# bytes a voxel for mask.sum(): 8
# bytes a voxel for labels.sum(): 8
# bytes a voxel for numpy_mask.sum(): 0
# bytes a voxel for torch.count_nonzero(mask): 0
# bytes a voxel for image * mask: 8
# bytes a voxel for numpy_image * numpy_mask: 4
# bytes a voxel for torch.where(mask, image, 0): 4
# bytes a voxel for image[mask]: 12
# bytes a voxel for numpy_image[numpy_mask]: 4
