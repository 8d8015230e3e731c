#!/usr/bin/env bash
# `sitk.DiscreteGaussian` with a variance of 400: a blur of 16 voxels instead of 20; with 729: an image of NaN.
# Most expect: a standard deviation of 20 voxels (or 20 mm), whatever it costs.
# Seen: the kernel is cut at 32 voxels either way (`maximumKernelWidth`), and a wide Gaussian comes out as a box with
# rounded edges; no exception, and from 27 voxels on every value is NaN. Even at 5 voxels the default `maximumError`
# costs 3 %. SmoothingRecursiveGaussian stays within 3 % at any width.
# For users: fields and bias maps smoothed by more than about 10 voxels are rougher than said.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7
check <<'EOF'
import numpy as np
import SimpleITK as sitk
from expect import expect

impulse = sitk.Image((401, 401), sitk.sitkFloat32)
impulse[200, 200] = 1


def deviation(image: sitk.Image) -> float:
    profile = sitk.GetArrayFromImage(image).sum(0)
    offsets = np.arange(401) - 200
    return float(np.sqrt((profile * offsets**2).sum() / profile.sum()))


for sigma, wanted in ((2, 1.929), (5, 4.847), (10, 9.672), (20, 15.772), (26, 17.117), (27, np.nan)):
    expect(f"sigma {sigma}, DiscreteGaussian", deviation(sitk.DiscreteGaussian(impulse, float(sigma**2))), wanted, 0.01)
expect("sigma 20, maximumKernelWidth 200", deviation(sitk.DiscreteGaussian(impulse, 400.0, 200)), 20.127, 0.01)
expect("sigma 20, SmoothingRecursiveGaussian", deviation(sitk.SmoothingRecursiveGaussian(impulse, 20.0)), 19.369, 0.01)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7
# sigma 2, DiscreteGaussian: 1.92858
# sigma 5, DiscreteGaussian: 4.84726
# sigma 10, DiscreteGaussian: 9.67214
# sigma 20, DiscreteGaussian: 15.77182
# sigma 26, DiscreteGaussian: 17.11655
# sigma 27, DiscreteGaussian: nan
# sigma 20, maximumKernelWidth 200: 20.12709
# sigma 20, SmoothingRecursiveGaussian: 19.36897
