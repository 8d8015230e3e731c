"""The operators in a graph of a user's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_regplugins.registration import load_bundle

from .conftest import Run

pytestmark = pytest.mark.deploy

GRAPH = """
import json, sys
import numpy
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, ConditionType, Operator
from monai_regplugins.apps.deploy.operators import PairFolderOperator, RegistrationOperator
from monai_regplugins.checks import InputError

source, bundle, output, report = sys.argv[1:]

class Sink(Operator):
    def setup(self, spec):
        spec.input("transform")
        spec.input("label")
        spec.input("verdict")

    def compute(self, op_input, op_output, context):
        label, transform = op_input.receive("label"), op_input.receive("transform")
        about = {key: str(value) for key, value in label.metadata().items() if key != "affine"}
        about["verdict"] = op_input.receive("verdict")
        reported = {"transform": transform, "affine": label.metadata()["affine"].tolist(), **about}
        numpy.save(report + ".npy", label.asnumpy())
        open(report, "w").write(json.dumps(reported))

class Arrays(Operator):
    def setup(self, spec):
        spec.output("fixed")
        spec.output("moving")

    def compute(self, op_input, op_output, context):
        for port in ("fixed", "moving"):
            op_output.emit(numpy.zeros((8, 8, 8), numpy.float32), port)

class Graph(Application):
    def __init__(self, first):
        self.first = first
        super().__init__([])

    def compose(self):
        first, sink = self.first(self, CountCondition(self, 1)), Sink(self, name="sink")
        register = RegistrationOperator(self, bundle=bundle, output_folder=output, format="itk_h5", name="register")
        ports = ("fixed", "moving") + ("moving_label",) * (self.first is not Arrays)
        self.add_flow(first, register, {(port, port) for port in ports})
        self.add_flow(register, sink, {(port, port) for port in ("label", "transform", "verdict")})

def files(graph, count):
    return PairFolderOperator(graph, input_folder=source, name="pair")

Graph(files).run()
try:
    Graph(Arrays).run()
except InputError as error:
    print(error)
"""


def test_label_and_transform_come_out_of_their_ports(
    run_deploy: Run, bundle: Path, file_pair: Path, tmp_path: Path
) -> None:
    done = run_deploy("-c", GRAPH, file_pair, bundle, tmp_path / "output", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    reported = json.loads((tmp_path / "report").read_text())
    folder = tmp_path / "output" / "moving_to_fixed"
    assert Path(reported["transform"]) == folder / "displacement_itk.h5"
    assert Path(reported["transform"]).is_file()
    assert {key: reported[key] for key in ("fixed", "moving_label", "folder")} == {
        "fixed": str(file_pair / "fixed.nii.gz"),
        "moving_label": str(file_pair / "moving_label.nii.gz"),
        "folder": str(folder),
    }
    register = load_bundle(bundle, device="cpu")
    result = register(
        *(file_pair / f"{role}.nii.gz" for role in ("fixed", "moving")), moving_label=reported["moving_label"]
    )
    assert result.warped_label is not None
    np.testing.assert_array_equal(np.load(tmp_path / "report.npy").T, result.warped_label[0])
    assert reported["verdict"] == str(result.verdict)
    np.testing.assert_allclose(reported["affine"], result.warped_label.affine)
    assert "expected the path of a file or of a DICOM series' folder" in done.stdout
