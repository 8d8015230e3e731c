#!/usr/bin/env bash
# "Move by +4 voxels", "scale by 2", "rotate by +90 degrees": MONAI does the opposite of TorchIO and scipy.
# Most expect: a spot at 10 moves to 14, a box of 9 voxels grows to about 18, and a quarter turn goes the way that
# scipy, scikit-image and numpy turn.
# Seen: MONAI's Affine and RandAffine move the spot to 6 and shrink the box (their parameters describe where samples
# are TAKEN), while its own Zoom grows it; its Rotate turns against scipy, numpy and TorchIO. TorchIO's Affine moves,
# grows and turns as said.
# For users: synthetic motion made with MONAI has the sign of a pull field; made with TorchIO that of a push.
# Known-truth tests that mix them are wrong by twice the motion.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 scipy==1.15.3 torch==2.13.0 monai==1.6.1 torchio==1.2.1
check <<'EOF'
import monai.transforms as monai
import numpy as np
import torchio
from expect import expect
from scipy import ndimage

spot = np.zeros((1, 21, 21, 21), np.float32)
spot[0, 10, 10, 10] = 1
box = np.zeros((1, 21, 21, 21), np.float32)
box[0, 6:15, 6:15, 6:15] = 1
side = np.zeros((1, 21, 21, 21), np.float32)
side[0, 15, 10, :] = 1  # 5 voxels from the middle along the first axis


def brightest(image) -> list:
    array = np.asarray(image)[0]
    return [int(index) for index in np.unravel_index(array.argmax(), array.shape)]


def length(image) -> int:
    return int((np.asarray(image)[0, :, 10, 10] > 0.5).sum())


def by_torchio(image: np.ndarray, scales=1, degrees=0, translation=0) -> np.ndarray:
    affine = torchio.Affine(scales=scales, degrees=degrees, translation=translation)
    return affine(torchio.ScalarImage(tensor=image)).numpy()


zeros = {"padding_mode": "zeros", "image_only": True}
shifted = monai.Affine(translate_params=(4, 0, 0), **zeros)(spot)
expect("translate (4, 0, 0): spot, MONAI Affine", brightest(shifted), [6, 10, 10])
random = monai.RandAffine(prob=1, translate_range=((4, 4), (0, 0), (0, 0)), padding_mode="zeros")
expect("spot, MONAI RandAffine", brightest(random(spot)), [6, 10, 10])
expect("spot, TorchIO", brightest(by_torchio(spot, translation=(4, 0, 0))), [14, 10, 10])
expect("scale 2: side of the box (9), MONAI Affine", length(monai.Affine(scale_params=(2, 2, 2), **zeros)(box)), 5)
expect("side, MONAI Zoom", length(monai.Zoom(2)(box)), 18)
expect("side, TorchIO", length(by_torchio(box, scales=(2, 2, 2))), 17)
expect("rotate 90: column, MONAI Rotate", brightest(monai.Rotate((0, 0, np.pi / 2))(side))[:2], [10, 5])
expect("column, scipy", brightest(ndimage.rotate(side, 90, axes=(1, 2), reshape=False, order=1))[:2], [10, 15])
expect("column, TorchIO", brightest(by_torchio(side, degrees=(0, 0, 90)))[:2], [10, 15])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 scipy==1.15.3 torch==2.13.0 monai==1.6.1 torchio==1.2.1
# translate (4, 0, 0): spot, MONAI Affine: [6, 10, 10]
# spot, MONAI RandAffine: [6, 10, 10]
# spot, TorchIO: [14, 10, 10]
# scale 2: side of the box (9), MONAI Affine: 5
# side, MONAI Zoom: 18
# side, TorchIO: 17
# rotate 90: column, MONAI Rotate: [10, 5]
# column, scipy: [10, 15]
# column, TorchIO: [10, 15]
