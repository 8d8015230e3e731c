#!/usr/bin/env bash
# OpenCV moves an image by 0.01 pixels: float32 moves by 0.01, float64 not at all.
# Most expect: float64 is at least as exact as float32; linear interpolation is exact on a ramp in both, and cubic too.
# Seen: `remap` and `warpAffine` round positions in float64 images to 1/32 pixel in OpenCV 5; in OpenCV 4 they do so in
# float32, too. The cubic interpolation makes 0.136 pixels (OpenCV 4: 0.128) out of 0.1 on a ramp, where scipy's cubic
# spline gives 0.1.
# For users: below 1/64 pixel nothing moves, so finite differences of a measure are zero or jump, and subpixel accuracy
# ends at 0.016 pixels. Take float32 in OpenCV 5, or scipy.

. "$(dirname "$0")/lib.sh"
images() {
    check <<'EOF'
import cv2
import numpy as np
from expect import expect
from scipy.ndimage import map_coordinates

version = int(cv2.__version__.split(".")[0])
ramp = np.tile(np.arange(64.0), (8, 1))
columns, rows = np.meshgrid(np.arange(64, dtype=np.float32), np.arange(8, dtype=np.float32))


def moved(kind: type, shift: float, interpolation: int = cv2.INTER_LINEAR) -> float:
    return float(cv2.remap(ramp.astype(kind), columns + np.float32(shift), rows, interpolation)[4, 30] - 30)


def warped(kind: type, shift: float) -> float:
    matrix = np.array([[1, 0, -shift], [0, 1, 0]])
    return float(cv2.warpAffine(ramp.astype(kind), matrix, (64, 8), flags=cv2.INTER_LINEAR)[4, 30] - 30)


steps = {0.01: 0, 0.02: 0.03125, 0.05: 0.0625, 0.1: 0.09375}
for shift, step in steps.items():
    for kind in (np.float32, np.float64):
        wanted = step if kind is np.float64 or version == 4 else shift
        expect(f"OpenCV {version}, {kind.__name__}, {shift} pixels, remap", moved(kind, shift), wanted, 1e-4)
        expect(f"OpenCV {version}, {kind.__name__}, {shift} pixels, warpAffine", warped(kind, shift), wanted, 1e-4)
for kind in (np.float32, np.float64):
    cubic = moved(kind, 0.1, cv2.INTER_CUBIC)
    expect(f"OpenCV {version}, {kind.__name__}, 0.1 pixels, cubic", cubic, 0.136 if version == 5 else 0.1283, 1e-3)
place = [np.full((1,), 4.0), np.full((1,), 30.1)]
expect("scipy, 0.1 pixels, cubic spline", float(map_coordinates(ramp, place, order=3)[0] - 30), 0.1)
EOF
}
packages numpy==2.3.5 scipy==1.15.3 opencv-python-headless==5.0.0.93
images
packages numpy==2.3.5 scipy==1.15.3 opencv-python-headless==4.13.0.92
images

# Output seen:
# Python 3.11.7, numpy==2.3.5 scipy==1.15.3 opencv-python-headless==5.0.0.93
# OpenCV 5, float32, 0.01 pixels, remap: 0.01
# OpenCV 5, float32, 0.01 pixels, warpAffine: 0.01
# OpenCV 5, float64, 0.01 pixels, remap: 0.0
# OpenCV 5, float64, 0.01 pixels, warpAffine: 0.0
# OpenCV 5, float32, 0.02 pixels, remap: 0.02
# OpenCV 5, float32, 0.02 pixels, warpAffine: 0.02
# OpenCV 5, float64, 0.02 pixels, remap: 0.03125
# OpenCV 5, float64, 0.02 pixels, warpAffine: 0.03125
# OpenCV 5, float32, 0.05 pixels, remap: 0.05
# OpenCV 5, float32, 0.05 pixels, warpAffine: 0.05
# OpenCV 5, float64, 0.05 pixels, remap: 0.0625
# OpenCV 5, float64, 0.05 pixels, warpAffine: 0.0625
# OpenCV 5, float32, 0.1 pixels, remap: 0.1
# OpenCV 5, float32, 0.1 pixels, warpAffine: 0.1
# OpenCV 5, float64, 0.1 pixels, remap: 0.09375
# OpenCV 5, float64, 0.1 pixels, warpAffine: 0.09375
# OpenCV 5, float32, 0.1 pixels, cubic: 0.136
# OpenCV 5, float64, 0.1 pixels, cubic: 0.136
# scipy, 0.1 pixels, cubic spline: 0.1
# Python 3.11.7, numpy==2.3.5 scipy==1.15.3 opencv-python-headless==4.13.0.92
# OpenCV 4, float32, 0.01 pixels, remap: 0.0
# OpenCV 4, float32, 0.01 pixels, warpAffine: 0.0
# OpenCV 4, float64, 0.01 pixels, remap: 0.0
# OpenCV 4, float64, 0.01 pixels, warpAffine: 0.0
# OpenCV 4, float32, 0.02 pixels, remap: 0.03125
# OpenCV 4, float32, 0.02 pixels, warpAffine: 0.03125
# OpenCV 4, float64, 0.02 pixels, remap: 0.03125
# OpenCV 4, float64, 0.02 pixels, warpAffine: 0.03125
# OpenCV 4, float32, 0.05 pixels, remap: 0.0625
# OpenCV 4, float32, 0.05 pixels, warpAffine: 0.0625
# OpenCV 4, float64, 0.05 pixels, remap: 0.0625
# OpenCV 4, float64, 0.05 pixels, warpAffine: 0.0625
# OpenCV 4, float32, 0.1 pixels, remap: 0.09375
# OpenCV 4, float32, 0.1 pixels, warpAffine: 0.09375
# OpenCV 4, float64, 0.1 pixels, remap: 0.09375
# OpenCV 4, float64, 0.1 pixels, warpAffine: 0.09375
# OpenCV 4, float32, 0.1 pixels, cubic: 0.12827
# OpenCV 4, float64, 0.1 pixels, cubic: 0.12827
# scipy, 0.1 pixels, cubic spline: 0.1
