#!/usr/bin/env bash
# Two labels of the Allen brain atlas, 312782546 and 312782550, read by MONAI and ANTsPy: they are one.
# Most expect: an int32 label file gives int32, or floats that hold it.
# Seen: MONAI's LoadImage and ants.image_read give float32 by default, which holds whole numbers up to 16 777 216
# only; the two labels and many of their siblings fall together as 312782560. SimpleITK, nibabel (float64) and
# TorchIO's LabelMap keep them apart.
# For users: Dice of such labels is computed over merged regions, and saved files hold labels that no atlas has. Load
# with dtype=np.int32 (MONAI) or renumber the labels first.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 antspyx==0.6.3 torch==2.13.0 monai==1.6.1 torchio==1.2.1
check <<'EOF'
import ants
import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torchio
from expect import expect
from monai.transforms import LoadImage

LABELS = [997, 312782546, 312782550, 614454277]
MERGED = [997, 312782560, 614454272]
FILE = "atlas.nii.gz"
nib.save(nib.Nifti1Image(np.array(LABELS, np.int32).reshape(2, 2, 1), np.eye(4)), FILE)

expect("SimpleITK", np.unique(sitk.GetArrayFromImage(sitk.ReadImage(FILE))), LABELS)
expect("nibabel, get_fdata", np.unique(nib.load(FILE).get_fdata()), LABELS)
expect("TorchIO, LabelMap", np.unique(torchio.LabelMap(FILE).data.numpy()), LABELS)
expect("MONAI, LoadImage", np.unique(LoadImage()(FILE).numpy()), MERGED)
expect("MONAI, LoadImage(dtype=np.int32)", np.unique(LoadImage(dtype=np.int32)(FILE).numpy()), LABELS)
expect("ANTs, image_read", np.unique(ants.image_read(FILE).numpy()), MERGED)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 nibabel==5.4.2 SimpleITK==2.5.7 antspyx==0.6.3 torch==2.13.0 monai==1.6.1 torchio==1.2.1
# SimpleITK: [997, 312782546, 312782550, 614454277]
# nibabel, get_fdata: [997.0, 312782546.0, 312782550.0, 614454277.0]
# TorchIO, LabelMap: [997, 312782546, 312782550, 614454277]
# MONAI, LoadImage: [997.0, 312782560.0, 614454272.0]
# MONAI, LoadImage(dtype=np.int32): [997, 312782546, 312782550, 614454277]
# ANTs, image_read: [997.0, 312782560.0, 614454272.0]
