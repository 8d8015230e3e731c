#!/usr/bin/env bash
# MONAI's bridge to ITK, `monai.data.itk_torch_bridge`: a displacement of 2 voxels along the first axis of the image that
# it makes, by `monai_to_itk_ddf` and by `monai_to_itk_affine`: 6 mm along z, and 2 mm along x.
# The ITK image has 6 x 5 x 4 voxels of 1 x 2 x 3 mm along x, y and z; `itk_image_to_metatensor` makes (1, 6, 5, 4) of it.
# Most expect: the functions of one module agree on the order of axes, the field is that of the image given, and an array
# that is converted is as it was.
# Seen: matrices go by x, y, z, as the MetaTensor does; fields go by z, y, x, as numpy's view of an ITK image does, and as
# the docstring's (3, D, H, W) means. A field in the MetaTensor's shape is taken all the same, and becomes a field on a
# grid of 4 x 5 x 6 voxels instead of the image's, without an error. And the input is multiplied by the spacing in place:
# converted twice, 6 mm become 18, and a warp by the same array behind it moves three times as far.
# For users: only 1 mm and equal motion along all axes hide it. Give a copy, transposed: `ddf[::-1].transpose(0, 3, 2, 1)`.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0 monai==1.6.1 itk==5.4.7
check <<'EOF'
import itk
import numpy as np
import torch
from expect import expect
from monai.data.itk_torch_bridge import itk_image_to_metatensor, monai_to_itk_affine, monai_to_itk_ddf

image = itk.image_from_array(np.zeros((4, 5, 6), np.float32))
image.SetSpacing((1.0, 2.0, 3.0))
expect("MetaTensor of the image", list(itk_image_to_metatensor(image).shape), [1, 6, 5, 4])


def field(shape: tuple[int, int, int]) -> np.ndarray:
    """Two voxels along the first axis."""
    ddf = np.zeros((3, *shape), np.float32)
    ddf[0] = 2
    return ddf


def in_mm(ddf: np.ndarray) -> list[float]:
    return itk.array_from_image(monai_to_itk_ddf(image, ddf))[1, 1, 1].tolist()


matrix = torch.eye(4, dtype=torch.float64)
matrix[0, 3] = 2
expect("monai_to_itk_affine, x, y, z in mm", monai_to_itk_affine(image, matrix)[1], [2, 0, 0])
ddf = field((6, 5, 4))
converted = monai_to_itk_ddf(image, ddf)
expect("monai_to_itk_ddf", itk.array_from_image(converted)[1, 1, 1].tolist(), [0, 0, 6])
expect("    size of its grid, that of the image is [6, 5, 4]", list(itk.size(converted)), [4, 5, 6])
expect("    the input behind it", ddf[:, 1, 1, 1].tolist(), [6, 0, 0])
expect("    converted again", in_mm(ddf), [0, 0, 18])
turned = field((6, 5, 4))[::-1].transpose(0, 3, 2, 1).copy()
expect("monai_to_itk_ddf of a copy with its axes and components turned round", in_mm(turned), [2, 0, 0])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0 monai==1.6.1 itk==5.4.7
# MetaTensor of the image: [1, 6, 5, 4]
# monai_to_itk_affine, x, y, z in mm: [2.0, 0.0, 0.0]
# monai_to_itk_ddf: [0.0, 0.0, 6.0]
#     size of its grid, that of the image is [6, 5, 4]: [4, 5, 6]
#     the input behind it: [6.0, 0.0, 0.0]
#     converted again: [0.0, 0.0, 18.0]
# monai_to_itk_ddf of a copy with its axes and components turned round: [2.0, 0.0, 0.0]
