#!/usr/bin/env bash
# MONAI's `GaussianSmooth(sigma, approx="sampled")` of a constant image of 100: 104 for half a voxel, 241 for 0.3.
# Most expect: 100; a smoothing filter keeps the mean, and "sampled" is only another way to discretize the Gaussian.
# Seen: the samples of the density are not divided by their sum, which exceeds 1 along each axis where the Gaussian is
# narrow against a voxel, so a volume gains three times; "scalespace" loses up to 0.6 %, "erf", the default, keeps it.
# For users: take "erf" for widths below a voxel, or divide by the sum of `gaussian_1d`; a window in Hounsfield units
# or a threshold behind the filter is shifted otherwise.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0 monai==1.6.1
check <<'EOF'
import torch
from expect import expect
from monai.networks.layers import gaussian_1d
from monai.transforms import GaussianSmooth

constant = torch.full((1, 21, 21, 21), 100.0)
seen = {
    0.3: {"erf": 100.0, "sampled": 240.66, "scalespace": 99.44},
    0.5: {"erf": 100.0, "sampled": 104.38, "scalespace": 99.84},
    1.0: {"erf": 100.0, "sampled": 100.0, "scalespace": 99.93},
}
for sigma, by_method in seen.items():
    for method, wanted in by_method.items():
        middle = float(GaussianSmooth(sigma, approx=method)(constant)[0, 10, 10, 10])
        expect(f"100 smoothed by {sigma} voxels, {method}", middle, wanted, 0.02)
expect("sum of the sampled weights at 0.3", float(gaussian_1d(torch.tensor(0.3), approx="sampled").sum()), 1.3401)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0 monai==1.6.1
# 100 smoothed by 0.3 voxels, erf: 99.99982
# 100 smoothed by 0.3 voxels, sampled: 240.65857
# 100 smoothed by 0.3 voxels, scalespace: 99.43707
# 100 smoothed by 0.5 voxels, erf: 99.99981
# 100 smoothed by 0.5 voxels, sampled: 104.3775
# 100 smoothed by 0.5 voxels, scalespace: 99.84249
# 100 smoothed by 1.0 voxels, erf: 99.99798
# 100 smoothed by 1.0 voxels, sampled: 99.99911
# 100 smoothed by 1.0 voxels, scalespace: 99.93475
# sum of the sampled weights at 0.3: 1.34009
