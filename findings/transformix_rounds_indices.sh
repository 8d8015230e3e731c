#!/usr/bin/env bash
# Landmarks in voxels, given to elastix's transformix by its keyword `index`: an identity transform moves them.
# Most expect: a point file takes voxels with fractions as other programs do, and an identity returns the points.
# Seen: each coordinate is rounded to a whole voxel, halves up: 3.5, 4.5, 2.25 is transformed as 4, 5, 2, in this image
# 1.46 mm away. The output states the rounded index, `InputIndex`, so that a comparison of its columns looks right.
# With the keyword `point`, in mm, nothing is rounded but the columns of indices.
# For users: write points in mm (LPS), and read `OutputPoint`, not `OutputIndexFixed`. A landmark error from indices has
# up to half a voxel along each axis of its own.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 itk-elastix==0.25.4
check <<'EOF'
import re
from pathlib import Path

import itk
import numpy as np
from expect import expect

SPACING = (1.5, 2.0, 3.0)
TRANSFORM = {
    "Transform": ["TranslationTransform"],
    "NumberOfParameters": ["3"],
    "TransformParameters": ["0", "0", "0"],
    "InitialTransformParametersFileName": ["NoInitialTransform"],
    "HowToCombineTransforms": ["Compose"],
    "FixedImageDimension": ["3"],
    "MovingImageDimension": ["3"],
    "FixedInternalImagePixelType": ["float"],
    "MovingInternalImagePixelType": ["float"],
    "Size": ["20", "18", "16"],
    "Index": ["0", "0", "0"],
    "Spacing": [str(value) for value in SPACING],
    "Origin": ["0", "0", "0"],
    "Direction": ["1", "0", "0", "0", "1", "0", "0", "0", "1"],
    "UseDirectionCosines": ["true"],
    "ResampleInterpolator": ["FinalLinearInterpolator"],
    "Resampler": ["DefaultResampler"],
    "DefaultPixelValue": ["0"],
    "ResultImageFormat": ["nii"],
    "ResultImagePixelType": ["float"],
}


def transformed(kind: str, point: list[float]) -> dict[str, list[float]]:
    """The columns of transformix's output for one point."""
    Path("points.txt").write_text(f"{kind}\n1\n{' '.join(map(str, point))}\n")
    image = itk.image_from_array(np.zeros((16, 18, 20), np.float32))
    image.SetSpacing(SPACING)
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(TRANSFORM)
    program = itk.TransformixFilter.New(image)
    program.SetFixedPointSetFileName("points.txt")
    program.SetTransformParameterObject(parameters)
    program.SetOutputDirectory(".")
    program.SetLogToConsole(False)
    program.UpdateLargestPossibleRegion()
    found = re.findall(r"(\w+) = \[ ([^\]]*) \]", Path("outputpoints.txt").read_text())
    return {name: [float(value) for value in values.split()] for name, values in found}


point = [3.5, 4.5, 2.25]
place = [index * size for index, size in zip(point, SPACING)]
for kind, given in (("index", point), ("point", place)):
    columns = transformed(kind, given)
    expect(f"{kind} {given}, InputIndex", columns["InputIndex"], [4, 5, 2])
    away = float(np.linalg.norm(np.subtract(columns["OutputPoint"], place)))
    expect(f"{kind} {given}, the identity moves it by (mm)", away, 1.4577 if kind == "index" else 0.0, 1e-3)
thick = transformed("index", [3.0, 4.0, 6.5])["OutputPoint"]
expect("index [3, 4, 6.5], OutputPoint (mm); it lies at z = 19.5", thick, [4.5, 8.0, 21.0])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 itk-elastix==0.25.4
# index [3.5, 4.5, 2.25], InputIndex: [4.0, 5.0, 2.0]
# index [3.5, 4.5, 2.25], the identity moves it by (mm): 1.45774
# point [5.25, 9.0, 6.75], InputIndex: [4.0, 5.0, 2.0]
# point [5.25, 9.0, 6.75], the identity moves it by (mm): 0.0
# index [3, 4, 6.5], OutputPoint (mm); it lies at z = 19.5: [4.5, 8.0, 21.0]
