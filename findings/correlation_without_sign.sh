#!/usr/bin/env bash
# An image against its own negative: "correlation" calls it a perfect match in SimpleITK, ANTs and MONAI.
# Most expect: correlation +1 for the image with itself, -1 (the worst) with its negative.
# Seen: SimpleITK's Correlation and ANTSNeighborhoodCorrelation and MONAI's LocalNormalizedCrossCorrelationLoss are -1
# (best) for both: each is the negative SQUARE of a correlation. numpy's coefficient tells the two apart.
# For users: these metrics suit inverted contrast, and are no check that two scans of one modality agree: an inverted
# label map, a field that carries dark onto bright, scores as well.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 torch==2.13.0 monai==1.6.1
check <<'EOF'
import numpy as np
import SimpleITK as sitk
import torch
from expect import expect
from monai.losses import LocalNormalizedCrossCorrelationLoss

noise = np.random.default_rng(0).normal(size=(24, 24, 24)).astype(np.float32)
image = sitk.DiscreteGaussian(sitk.GetImageFromArray(noise), 2.0)
negative = -image


def by_sitk(moving: sitk.Image, neighborhood: int) -> float:
    method = sitk.ImageRegistrationMethod()
    method.SetInitialTransform(sitk.TranslationTransform(3))
    method.SetInterpolator(sitk.sitkLinear)
    if neighborhood:
        method.SetMetricAsANTSNeighborhoodCorrelation(neighborhood)
    else:
        method.SetMetricAsCorrelation()
    return method.MetricEvaluate(image, moving)


def by_monai(moving: sitk.Image) -> float:
    fixed, moving = (torch.from_numpy(sitk.GetArrayFromImage(array))[None, None] for array in (image, moving))
    return float(LocalNormalizedCrossCorrelationLoss()(fixed, moving))


for name, moving, coefficient in (("itself", image, 1), ("its negative", negative, -1)):
    flat = [sitk.GetArrayFromImage(array).ravel() for array in (image, moving)]
    expect(f"{name}, numpy.corrcoef", np.corrcoef(flat)[0, 1], coefficient)
    expect(f"{name}, SimpleITK, Correlation", by_sitk(moving, 0), -1)
    expect(f"{name}, SimpleITK, ANTSNeighborhoodCorrelation", by_sitk(moving, 2), -1)
    expect(f"{name}, MONAI, LNCC loss", by_monai(moving), -1)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 torch==2.13.0 monai==1.6.1
# itself, numpy.corrcoef: 1.0
# itself, SimpleITK, Correlation: -1.0
# itself, SimpleITK, ANTSNeighborhoodCorrelation: -1.0
# itself, MONAI, LNCC loss: -1.0
# its negative, numpy.corrcoef: -1.0
# its negative, SimpleITK, Correlation: -1.0
# its negative, SimpleITK, ANTSNeighborhoodCorrelation: -1.0
# its negative, MONAI, LNCC loss: -1.0
