#!/usr/bin/env bash
# "The" thin-plate spline through twelve pairs of landmarks, in 2D and in 3D, by ITK, VTK and SciPy: two splines.
# Landmarks lie in a square or cube of 100 mm and move by normal noise of 4 mm.
# Most expect: the spline of least bending, which is unique: kernel r^2 log r in 2D, r in 3D (Bookstein 1989, Duchon).
# Seen: all go through the landmarks. VTK's default and SciPy's kernel "thin_plate_spline" are r^2 log r in 3D too, ITK's
# ThinPlateSplineKernelTransform is r in 2D too. Between the landmarks the two are 1 mm apart on average and over 3 mm at
# most, of motions of about 4, and 13 to 24 mm outside of the square or cube.
# For users: in 3D take `SetBasisToR` in VTK and the kernel "linear" with degree=1 in SciPy, in 2D ITK's
# ThinPlateR2LogRSplineKernelTransform. A landmark transform carried from one program to another by its landmarks moves
# organs that have none by millimeters.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 scipy==1.15.3 itk==5.4.7 vtk==9.7.2
check <<'EOF'
import itk
import numpy as np
import vtk
from expect import expect
from scipy.interpolate import RBFInterpolator


def by_itk(kind: str, source: np.ndarray, target: np.ndarray, places: np.ndarray) -> np.ndarray:
    transform = getattr(itk, kind)[itk.D, source.shape[1]].New()
    for index, (before, after) in enumerate(zip(source, target)):
        transform.GetSourceLandmarks().SetPoint(index, before.tolist())
        transform.GetTargetLandmarks().SetPoint(index, after.tolist())
    transform.ComputeWMatrix()
    return np.array([list(transform.TransformPoint(place.tolist())) for place in places])


def by_vtk(basis: str, source: np.ndarray, target: np.ndarray, places: np.ndarray) -> np.ndarray:
    transform = vtk.vtkThinPlateSplineTransform()
    if basis:
        getattr(transform, basis)()
    rest = (0.0,) * (3 - source.shape[1])
    for points, hand_over in ((source, transform.SetSourceLandmarks), (target, transform.SetTargetLandmarks)):
        landmarks = vtk.vtkPoints()
        for point in points:
            landmarks.InsertNextPoint(*point, *rest)
        hand_over(landmarks)
    return np.array([transform.TransformPoint(*place, *rest)[: source.shape[1]] for place in places])


def by_scipy(kernel: str, source: np.ndarray, target: np.ndarray, places: np.ndarray) -> np.ndarray:
    return RBFInterpolator(source, target, kernel=kernel, degree=1)(places)


SPLINES = {  # and the dimension in which it is the one of least bending
    "ITK, ThinPlateSplineKernelTransform": (by_itk, "ThinPlateSplineKernelTransform", 3),
    "ITK, ThinPlateR2LogRSplineKernelTransform": (by_itk, "ThinPlateR2LogRSplineKernelTransform", 2),
    "VTK": (by_vtk, "", 2),
    "VTK, SetBasisToR": (by_vtk, "SetBasisToR", 3),
    "SciPy, thin_plate_spline": (by_scipy, "thin_plate_spline", 2),
    "SciPy, linear": (by_scipy, "linear", 3),
}
AWAY = {2: (1.4419, 3.5957, 23.7614), 3: (1.1401, 3.4303, 13.5259)}  # mean and largest inside, largest outside
random = np.random.default_rng(0)
for dimension in (2, 3):
    source = random.uniform(0, 100, (12, dimension))
    target = source + random.normal(0, 4, source.shape)
    inside, outside = random.uniform(10, 90, (200, dimension)), random.uniform(-60, 160, (200, dimension))
    least = "thin_plate_spline" if dimension == 2 else "linear"
    motion = np.linalg.norm(target - source, axis=1)
    expect(f"{dimension}D, mean motion of the landmarks in mm", motion.mean(), {2: 4.4475, 3: 4.2413}[dimension])
    for name, (spline, option, home) in SPLINES.items():
        missed = np.abs(spline(option, source, target, source) - target).max()
        expect(f"{name}, off at the landmarks (mm)", missed, 0)
        far = [
            np.linalg.norm(spline(option, source, target, places) - by_scipy(least, source, target, places), axis=1)
            for places in (inside, outside)
        ]
        seen = [far[0].mean(), far[0].max(), far[1].max()]
        wanted = (0, 0, 0) if home == dimension else AWAY[dimension]
        expect("    off the spline of least bending: mean, largest, largest outside (mm)", seen, wanted, 2e-3)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 scipy==1.15.3 itk==5.4.7 vtk==9.7.2
# 2D, mean motion of the landmarks in mm: 4.44752
# ITK, ThinPlateSplineKernelTransform, off at the landmarks (mm): 0.0
#     off the spline of least bending: mean, largest, largest outside (mm): [1.4419, 3.59574, 23.76139]
# ITK, ThinPlateR2LogRSplineKernelTransform, off at the landmarks (mm): 0.0
#     off the spline of least bending: mean, largest, largest outside (mm): [0.0, 0.0, 0.0]
# VTK, off at the landmarks (mm): 0.0
#     off the spline of least bending: mean, largest, largest outside (mm): [0.0, 0.0, 1e-05]
# VTK, SetBasisToR, off at the landmarks (mm): 0.0
#     off the spline of least bending: mean, largest, largest outside (mm): [1.4419, 3.59574, 23.76139]
# SciPy, thin_plate_spline, off at the landmarks (mm): 0.0
#     off the spline of least bending: mean, largest, largest outside (mm): [0.0, 0.0, 0.0]
# SciPy, linear, off at the landmarks (mm): 0.0
#     off the spline of least bending: mean, largest, largest outside (mm): [1.4419, 3.59574, 23.76139]
# 3D, mean motion of the landmarks in mm: 4.24126
# ITK, ThinPlateSplineKernelTransform, off at the landmarks (mm): 0.0
#     off the spline of least bending: mean, largest, largest outside (mm): [0.0, 0.0, 0.0]
# ITK, ThinPlateR2LogRSplineKernelTransform, off at the landmarks (mm): 0.0
#     off the spline of least bending: mean, largest, largest outside (mm): [1.14005, 3.43034, 13.52591]
# VTK, off at the landmarks (mm): 1e-05
#     off the spline of least bending: mean, largest, largest outside (mm): [1.14005, 3.43035, 13.52592]
# VTK, SetBasisToR, off at the landmarks (mm): 1e-05
#     off the spline of least bending: mean, largest, largest outside (mm): [0.0, 1e-05, 1e-05]
# SciPy, thin_plate_spline, off at the landmarks (mm): 0.0
#     off the spline of least bending: mean, largest, largest outside (mm): [1.14005, 3.43034, 13.52591]
# SciPy, linear, off at the landmarks (mm): 0.0
#     off the spline of least bending: mean, largest, largest outside (mm): [0.0, 0.0, 0.0]
