#!/usr/bin/env bash
# A CT series with pixels of 2 mm between rows and 1 mm between columns, read by MONAI Deploy's
# DICOMSeriesToVolumeOperator and by SimpleITK.
# Most expect: the affine of the volume that the operator hands on to be the one of the series.
# Seen: the operator takes the first value of Pixel Spacing, which is the distance between rows, for that between
# columns, and the other way round. In the affine a column is 2 mm wide and a row 1 mm high: a square of 12 x 12 mm
# becomes one of 24 x 6 mm. Its metadata say the right spacing of rows and columns beside that.
# For users: nothing is wrong with square pixels; with others, volumes stay right and shapes and places do not. Read
# such a series with SimpleITK, or exchange the two in the affine.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0 monai==1.6.1 monai-deploy-app-sdk==4.0.0 holoscan-cu13==4.2.0 holoscan-cli==4.2.0 \
    nvidia-cuda-runtime==13.5.37 pydicom==3.0.2 highdicom==0.28.2 SimpleITK==2.5.7 nibabel==5.4.2
export HOLOSCAN_LOG_LEVEL=OFF GXF_LOG_LEVEL=NONE CUDA_VISIBLE_DEVICES=
LD_LIBRARY_PATH=$(echo "$work"/environment/lib/python3*/site-packages/nvidia/cu13/lib)
export LD_LIBRARY_PATH
check <<'EOF'
import json
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from expect import expect
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, Operator
from monai.deploy.operators import (
    DICOMDataLoaderOperator,
    DICOMSeriesSelectorOperator,
    DICOMSeriesToVolumeOperator,
)
from series import write_series

for path in write_series("series", [0.0, 2.0, 4.0, 6.0], [0, 1, 2, 3]):
    data = pydicom.dcmread(path)
    data.PixelSpacing = [2, 1]  # between rows, between columns
    data.save_as(path)

seen = {}


class Sink(Operator):
    def setup(self, spec):
        spec.input("image")

    def compute(self, op_input, op_output, context):
        seen.update(op_input.receive("image").metadata())


class Read(Application):
    def compose(self):
        rules = json.dumps({"selections": [{"name": "ct", "conditions": {"Modality": "CT"}}]})
        load = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=Path("series"), name="load")
        select = DICOMSeriesSelectorOperator(self, rules=rules, name="select")
        read, sink = DICOMSeriesToVolumeOperator(self, name="read"), Sink(self, name="sink")
        self.add_flow(load, select, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(select, read, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(read, sink, {("image", "image")})


Read([]).run()
reader = sitk.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames("series"))
expect("SimpleITK, mm between columns, rows, slices", reader.Execute().GetSpacing(), [1, 2, 2])
affine = np.abs(seen["nifti_affine_transform"])
expect("MONAI Deploy, mm between columns, rows, slices", np.linalg.norm(affine[:3, :3], axis=0), [2, 1, 2])
expect("its metadata, between rows and between columns", [seen["row_pixel_spacing"], seen["col_pixel_spacing"]], [2, 1])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0 monai==1.6.1 monai-deploy-app-sdk==4.0.0 holoscan-cu13==4.2.0
#     holoscan-cli==4.2.0 nvidia-cuda-runtime==13.5.37 pydicom==3.0.2 highdicom==0.28.2 SimpleITK==2.5.7 nibabel==5.4.2
# SimpleITK, mm between columns, rows, slices: [1.0, 2.0, 2.0]
# MONAI Deploy, mm between columns, rows, slices: [2.0, 1.0, 2.0]
# its metadata, between rows and between columns: [2.0, 1.0]
