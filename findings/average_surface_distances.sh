#!/usr/bin/env bash
# "The" average surface distance of one organ with a false island: 2.0, 1.1, 0.5 or 0.0 voxels.
# Most expect: one number, the mean over both surfaces.
# Seen: MONAI's compute_average_surface_distance and MedPy's asd count from the prediction to the truth only, MONAI by
# default (`symmetric=False`); swap the arguments and they are 0. SimpleITK's GetAverageHausdorffDistance averages
# over all voxels of the regions, inner ones (0) included. surface-distance gives both directions and leaves the
# choice.
# For users: an organ that is found only in part (nothing false, half of it missing) scores 0.5 instead of 1.5 in the
# default of MONAI. Pass `symmetric=True`.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 medpy==0.5.2 torch==2.13.0 monai==1.6.1 surface-distance==0.1 SimpleITK==2.5.7
check <<'EOF'
import numpy as np
import SimpleITK as sitk
import surface_distance
import torch
from expect import expect
from medpy.metric import binary
from monai.metrics import compute_average_surface_distance

truth = np.zeros((30, 30, 30), bool)
truth[8:20, 8:20, 8:20] = True
found = truth.copy()
found[27:29, 26:29, 5:29] = True


def by_monai(**options) -> float:
    masks = [torch.from_numpy(mask)[None, None].float() for mask in (found, truth)]
    return float(compute_average_surface_distance(*masks, include_background=True, **options))


hausdorff = sitk.HausdorffDistanceImageFilter()
hausdorff.Execute(*[sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (truth, found)])
both = surface_distance.compute_surface_distances(truth, found, (1, 1, 1))
expect("MONAI", by_monai(), 2.0123)
expect("MONAI, symmetric=True", by_monai(symmetric=True), 1.0967)
expect("MedPy, asd(found, truth)", binary.asd(found, truth), 2.0123)
expect("MedPy, asd(truth, found)", binary.asd(truth, found), 0)
expect("MedPy, assd", binary.assd(found, truth), 1.0967)
expect("SimpleITK", hausdorff.GetAverageHausdorffDistance(), 0.4687)
expect("surface-distance", surface_distance.compute_average_surface_distance(both), [0, 2.4047])

half = truth.copy()
half[8:14] = False  # half of the organ is missing
masks = [torch.from_numpy(mask)[None, None].float() for mask in (half, truth)]
one = float(compute_average_surface_distance(*masks, include_background=True))
two = float(compute_average_surface_distance(*masks, include_background=True, symmetric=True))
expect("half an organ, MONAI and MONAI with symmetric=True", [one, two], [0.4741, 1.4631])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 medpy==0.5.2 torch==2.13.0 monai==1.6.1 surface-distance==0.1 SimpleITK==2.5.7
# MONAI: 2.01226
# MONAI, symmetric=True: 1.09668
# MedPy, asd(found, truth): 2.01226
# MedPy, asd(truth, found): 0.0
# MedPy, assd: 1.09668
# SimpleITK: 0.46867
# surface-distance: [0.0, 2.40475]
# half an organ, MONAI and MONAI with symmetric=True: [0.47414, 1.46309]
