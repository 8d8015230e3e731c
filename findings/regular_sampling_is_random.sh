#!/usr/bin/env bash
# SimpleITK's metric sampling REGULAR: two runs on the same images, two results.
# Most expect: REGULAR takes every n-th voxel and repeats exactly; only RANDOM varies from run to run.
# Seen: both vary: REGULAR moves its points by random fractions of a voxel, seeded by the clock. With a seed both
# repeat.
# For users: a pipeline that chose REGULAR to be reproducible is not. Give `SetMetricSamplingPercentage` its second
# argument.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7
check <<'EOF'
import numpy as np
import SimpleITK as sitk
from expect import expect

sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def blob(center: tuple) -> sitk.Image:
    squares = sum((axis - middle) ** 2 for axis, middle in zip(np.indices((24, 24, 24)), center))
    return sitk.GetImageFromArray(np.exp(-squares / 18).astype(np.float32))


def register(strategy: str, *seed: int) -> tuple:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(getattr(method, strategy))
    method.SetMetricSamplingPercentage(0.02, *seed)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 30)
    method.SetInitialTransform(sitk.TranslationTransform(3), inPlace=False)
    return method.Execute(blob((12, 10, 11)), blob((13, 12, 11))).GetParameters()


def different(strategy: str, *seed: int) -> int:
    return len({register(strategy, *seed) for _ in range(4)})


expect("NONE, different results of four runs", different("NONE"), 1)
expect("RANDOM", different("RANDOM"), 4)
expect("REGULAR", different("REGULAR"), 4)
expect("RANDOM, seed 1", different("RANDOM", 1), 1)
expect("REGULAR, seed 1", different("REGULAR", 1), 1)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7
# NONE, different results of four runs: 1
# RANDOM: 4
# REGULAR: 4
# RANDOM, seed 1: 1
# REGULAR, seed 1: 1
