#!/usr/bin/env bash
# Dice of an organ that is in neither image: nan, 0, 1, infinity, 1.8e308 or an AttributeError.
# Most expect: 1 (nothing to find, nothing found), or nan.
# Seen: MedPy and MONAI's DiceMetric give nan; DiceMetric(ignore_empty=False) 1; MONAI's DiceLoss 0, a perfect match;
# SimpleITK gives infinity as Dice and the largest double as Jaccard index, neither of which a nan-mean leaves out;
# surface-distance 0.1 means nan and raises AttributeError, since it says np.NaN and NumPy 2 has none.
# For users: organs are often absent from crops and pairs. One such case turns a mean from SimpleITK into infinity.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 medpy==0.5.2 torch==2.13.0 monai==1.6.1 surface-distance==0.1 SimpleITK==2.5.7
check <<'EOF'
import numpy as np
import SimpleITK as sitk
import surface_distance
import torch
from expect import expect
from medpy.metric import binary
from monai.losses import DiceLoss
from monai.metrics import DiceMetric

absent = np.zeros((8, 8, 8), bool)
tensor = torch.from_numpy(absent)[None, None].float()
overlap = sitk.LabelOverlapMeasuresImageFilter()
overlap.Execute(*[sitk.GetImageFromArray(absent.astype(np.uint8))] * 2)


def by_deepmind() -> str:
    try:
        return str(surface_distance.compute_dice_coefficient(absent, absent))
    except AttributeError as error:
        return str(error).split(".")[0]


expect("MedPy", binary.dc(absent, absent), np.nan)
expect("MONAI, DiceMetric", float(DiceMetric()(tensor, tensor)), np.nan)
expect("MONAI, DiceMetric(ignore_empty=False)", float(DiceMetric(ignore_empty=False)(tensor, tensor)), 1)
expect("MONAI, DiceLoss", float(DiceLoss()(tensor, tensor)), 0)
expect("SimpleITK, Dice", overlap.GetDiceCoefficient(), np.inf)
expect("SimpleITK, Jaccard is the largest double", overlap.GetJaccardCoefficient() == np.finfo(float).max, True)
mean = np.nanmean([0.9, overlap.GetDiceCoefficient()])
expect("mean of SimpleITK's Dice over an organ at 0.9 and this one", mean, np.inf)
expect("surface-distance", by_deepmind(), "`np")
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 medpy==0.5.2 torch==2.13.0 monai==1.6.1 surface-distance==0.1 SimpleITK==2.5.7
# MedPy: nan
# MONAI, DiceMetric: nan
# MONAI, DiceMetric(ignore_empty=False): 1.0
# MONAI, DiceLoss: 0.0
# SimpleITK, Dice: inf
# SimpleITK, Jaccard is the largest double: True
# mean of SimpleITK's Dice over an organ at 0.9 and this one: inf
# surface-distance: `np
