#!/usr/bin/env bash
# One organ, one small false island 14 voxels away: HD95 is 0.0, 2.5 or 5.0, by the package.
# Most expect: the same number, perhaps with differences of a voxel's fraction; HD100 and the surfaces are the same.
# Seen: MedPy pools the distances of both directions and takes one percentile (0.0: more than 95 % are zero);
# plastimatch averages the two directed percentiles (2.5) and, for whole regions, gives 0.0; MONAI takes the larger
# directed one (5.0); DeepMind's surface-distance too (5.0), weighing the surface elements by area.
# For users: HD95 of two papers is comparable only where they name the package.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 medpy==0.5.2 torch==2.13.0 monai==1.6.1 surface-distance==0.1 SimpleITK==2.5.7 plastimatch==1.10.0
check <<'EOF'
import re
import subprocess

import numpy as np
import SimpleITK as sitk
import surface_distance
import torch
from expect import expect
from medpy.metric import binary
from monai.metrics import compute_hausdorff_distance


def ball(center: tuple, radius: float) -> np.ndarray:
    return sum((axis - middle) ** 2 for axis, middle in zip(np.indices((40, 40, 40)), center)) < radius**2


def by_monai(percentile: int) -> float:
    masks = [torch.from_numpy(mask)[None, None].float() for mask in (found, truth)]
    return float(compute_hausdorff_distance(*masks, include_background=True, percentile=percentile))


def by_plastimatch() -> dict:
    for name, mask in (("truth", truth), ("found", found)):
        sitk.WriteImage(sitk.GetImageFromArray(mask.astype(np.uint8)), f"{name}.nrrd")
    command = "plastimatch dice --hausdorff truth.nrrd found.nrrd"
    lines = subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
    return {name.strip(): float(value) for name, value in re.findall(r"^(.*Haus.*) = (.*)$", lines, re.MULTILINE)}


truth = ball((20, 20, 20), 9)
found = truth | ball((20, 20, 34), 2.5)
distances = surface_distance.compute_surface_distances(truth, found, (1, 1, 1))
plastimatch = by_plastimatch()
expect("HD100, MedPy", binary.hd(found, truth), 8)
expect("HD100, MONAI", by_monai(100), 8)
expect("HD100, plastimatch, boundary", plastimatch["Hausdorff distance (boundary)"], 8)
expect("HD95, MedPy", binary.hd95(found, truth), 0)
expect("HD95, plastimatch, regions", plastimatch["Percent (0.95) Hausdorff distance"], 0)
expect("HD95, plastimatch, boundary", plastimatch["Percent (0.95) Hausdorff distance (boundary)"], 2.5)
expect("HD95, MONAI", by_monai(95), 5)
expect("HD95, surface-distance", surface_distance.compute_robust_hausdorff(distances, 95), 5)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 medpy==0.5.2 torch==2.13.0 monai==1.6.1 surface-distance==0.1 SimpleITK==2.5.7 plastimatch==1.10.0
# HD100, MedPy: 8.0
# HD100, MONAI: 8.0
# HD100, plastimatch, boundary: 8.0
# HD95, MedPy: 0.0
# HD95, plastimatch, regions: 0.0
# HD95, plastimatch, boundary: 2.5
# HD95, MONAI: 5.0
# HD95, surface-distance: 5.0
