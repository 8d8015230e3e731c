#!/usr/bin/env bash
# A stack with voxels of 0.5 x 0.25 x 2 mm as TIFF, in five ways, opened by SimpleITK: three spacings, none right.
# Most expect: the spacing of the file, or 1 mm with a warning where the reader does not know the form.
# Seen: SimpleITK looks at the TIFF resolution tags alone. ImageJ's unit (in its description) and OME's PhysicalSize are
# not read: 1 mm, or 12.7 mm where OME says 0.5 mm and the tags 2 per inch, which is what tifffile writes for a
# resolution of 2 without a unit. The distance of slices is 1 in all five, in SimpleITK's own file too, and its origin
# is gone. In 2D, JPEG keeps whole dots per inch (0.7 mm comes back as 0.7056) and BMP nothing.
# For users: microscopy and histology come so. Set the spacing by hand (tifffile reads it), or convert to NIfTI or NRRD.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 tifffile==2026.3.3
check <<'EOF'
import logging

import numpy as np
import SimpleITK as sitk
import tifffile
from expect import expect

logging.getLogger("tifffile").setLevel(logging.ERROR)
sitk.ProcessObject.SetGlobalWarningDisplay(False)
array = np.zeros((5, 12, 16), np.uint8)


def spacing(name: str) -> tuple:
    return sitk.ReadImage(name).GetSpacing()


image = sitk.GetImageFromArray(array)
image.SetSpacing((0.5, 0.25, 2))
image.SetOrigin((10, 20, 30))
sitk.WriteImage(image, "itk.tif")
expect("SimpleITK's own, spacing", spacing("itk.tif"), [0.5, 0.25, 1])
expect("SimpleITK's own, origin", sitk.ReadImage("itk.tif").GetOrigin(), [0, 0, 0])

tifffile.imwrite("ij.tif", array, imagej=True, resolution=(2, 4), metadata={"spacing": 2, "unit": "mm"})
expect("ImageJ in mm", spacing("ij.tif"), [1, 1, 1])
tifffile.imwrite("cm.tif", array, resolution=(20, 40), resolutionunit="CENTIMETER")
expect("tags per centimeter", spacing("cm.tif"), [0.5, 0.25, 1])

sizes = {f"PhysicalSize{axis}": size for axis, size in (("X", 0.5), ("Y", 0.25), ("Z", 2))}
units = {f"PhysicalSize{axis}Unit": "mm" for axis in "XYZ"}
tifffile.imwrite("plain.ome.tif", array, metadata={"axes": "ZYX", **sizes, **units})
expect("OME in mm", spacing("plain.ome.tif"), [1, 1, 1])
tifffile.imwrite("tags.ome.tif", array, resolution=(2, 4), metadata={"axes": "ZYX", **sizes, **units})
expect("OME in mm, tags written without a unit", spacing("tags.ome.tif"), [12.7, 6.35, 1])
expect("OME, its own record", 'PhysicalSizeX="0.5"' in tifffile.TiffFile("plain.ome.tif").ome_metadata, True)

slice_ = sitk.Image((16, 12), sitk.sitkUInt8)
slice_.SetSpacing((0.7, 0.7))
for ending, wanted in (("tif", 0.7), ("png", 0.7), ("jpg", 0.70556), ("bmp", 1)):
    sitk.WriteImage(slice_, f"slice.{ending}")
    expect(f"2D with 0.7 mm as {ending}", spacing(f"slice.{ending}")[0], wanted, 1e-4)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 tifffile==2026.3.3
# SimpleITK's own, spacing: [0.5, 0.25, 1.0]
# SimpleITK's own, origin: [0.0, 0.0, 0.0]
# ImageJ in mm: [1.0, 1.0, 1.0]
# tags per centimeter: [0.5, 0.25, 1.0]
# OME in mm: [1.0, 1.0, 1.0]
# OME in mm, tags written without a unit: [12.7, 6.35, 1.0]
# OME, its own record: True
# 2D with 0.7 mm as tif: 0.7
# 2D with 0.7 mm as png: 0.7
# 2D with 0.7 mm as jpg: 0.70556
# 2D with 0.7 mm as bmp: 1.0
