"""The networks of the bundles outside of this package: TorchScript, torch.export, ONNX, each equal to eager."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from bundle_files import configs, read_weights
from monai.bundle import ConfigParser, ckpt_export, onnx_export
from torch import nn

from monai_regplugins import load_bundle

pytestmark = [pytest.mark.bundle, pytest.mark.slow]

CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "ran-3d": ("ran", {}, (16, 16, 18)),
    "ran-2d": ("ran", {"spatial_dims": 2}, (16, 18)),
    "r2n2-2d": ("r2n2", {"steps": 2}, (32, 35)),
    "r2n2-3d": ("r2n2", {"spatial_dims": 3, "steps": 2, "channels": [4, 8, 16]}, (32, 32, 33)),
    "regnet-3d": ("regnet", {"width": 0.2}, (12, 13, 12)),
    "regnet-2d": ("regnet", {"spatial_dims": 2}, (20, 23)),
    "regnet-exact": ("regnet", {"spatial_dims": 2, "dense_mode": "exact"}, (20, 23)),
}


class Case(NamedTuple):
    """A bundle with weights that move voxels, its network, and the configuration's overrides that made it."""

    bundle: Path
    network: nn.Module
    overrides: dict[str, Any]
    image: torch.Tensor

    def files(self) -> dict[str, str]:
        return {
            "config_file": str(*configs(self.bundle, "inference")),
            "ckpt_file": str(self.bundle / "models/model.pt"),
        }

    def eager(self, image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            ddf: torch.Tensor = self.network(image)
        assert ddf.abs().max() > 0.01
        return ddf


@pytest.fixture
def case(request: pytest.FixtureRequest, copy_bundle: Callable[[str, Path], Path], tmp_path: Path) -> Case:
    name, overrides, size = CASES[request.param]
    bundle = copy_bundle(name, tmp_path)
    parser = ConfigParser(ConfigParser.load_config_file(*configs(bundle, "inference")) | overrides)
    network = parser.get_parsed_content("network_def").eval()
    for weight in network.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    (bundle / "models").mkdir()
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    return Case(bundle, network, overrides, torch.rand(1, 2, *size))


def assert_equal(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_torchscript(case: Case) -> None:
    """One file for all sizes."""
    file = case.bundle / "models" / "model.ts"
    ckpt_export(net_id="network_def", filepath=str(file), **case.files(), **case.overrides)
    scripted = torch.jit.load(file)
    for image in (case.image, torch.rand(2, 2, *(n + 3 for n in case.image.shape[2:]))):
        assert_equal(scripted(image), case.eager(image))


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_torch_export(case: Case, tmp_path: Path) -> None:
    """For the size and batch of the example, through a file."""
    with torch.no_grad():
        torch.export.save(torch.export.export(case.network, (case.image,)), tmp_path / "model.pt2")
        exported = torch.export.load(tmp_path / "model.pt2").module()
        assert_equal(exported(case.image), case.eager(case.image))


@pytest.mark.parametrize(("case", "axes"), [("regnet-2d", (0, 2, 3)), ("r2n2-2d", (0,))], indirect=["case"])
def test_torch_export_for_more_than_the_example(case: Case, axes: tuple[int, ...]) -> None:
    """RegNet for sizes as even or odd as those of the example, R2N2 for any batch."""
    example = torch.rand(2, *(n + 2 * (axis in axes) for axis, n in enumerate(case.image.shape) if axis))
    with torch.no_grad():
        dynamic = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
        exported = torch.export.export(case.network, (example,), dynamic_shapes=(dynamic,)).module()
        assert_equal(exported(case.image), case.eager(case.image))


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("case", [name for name in CASES if name != "ran-3d"], indirect=True)  # that one is the page's
def test_onnx(case: Case, tmp_path: Path) -> None:
    """For the size of the example, in another runtime."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    shape, file = list(case.image.shape), tmp_path / "model.onnx"
    onnx_export("network_def", str(file), **case.files(), input_shape=shape, **case.overrides)
    assert_equal(run_onnx(file, case.image), case.eager(case.image))


def run_onnx(file: Path, image: torch.Tensor) -> torch.Tensor:
    """What an ONNX file gives, in float32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    (field,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert field.dtype == np.float32
    return torch.from_numpy(field)


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_an_exported_file_registers_as_the_page_shows(
    repository: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file equals the network, and the block of the page, run on a pair, gives the field of the bundle."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    page = (repository / "docs" / "how-to" / "use-in-python.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"python -m monai.bundle (onnx_export .*?)\n```", page, re.DOTALL)
    (code,) = [one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import onnxruntime" in one]
    words = shlex.split(command.replace("\\\n", " "))
    options = {key.removeprefix("--"): value for key, value in zip(words[1::2], words[2::2], strict=True)}
    shape, names = ast.literal_eval(options["input_shape"]), ast.literal_eval(options["converter_kwargs"])
    monkeypatch.chdir(repository)
    files = {key: options[key] for key in ("config_file", "ckpt_file")}
    onnx_export("network_def", str(tmp_path / "ran.onnx"), **files, input_shape=shape, converter_kwargs=names)
    monkeypatch.chdir(tmp_path)
    config = ConfigParser.load_config_file(repository / options["config_file"])
    eager = ConfigParser(config).get_parsed_content("network_def").eval()
    eager.load_state_dict(read_weights(repository / options["ckpt_file"]))
    image = torch.rand(shape)
    with torch.no_grad():
        ddf = eager(image)
    assert ddf.abs().max() > 0.01
    assert_equal(run_onnx(tmp_path / "ran.onnx", image), ddf)
    for side, file in zip(("fixed", "moving"), sorted((phantoms / "imagesTr").glob("*.nii.gz")), strict=False):
        shutil.copy(file, f"{side}.nii.gz")
    values: dict[str, Any] = {}
    exec(code, values)
    expected = load_bundle(repository / "bundles" / "ran", device="cpu", refine_steps=0)(
        "fixed.nii.gz", "moving.nii.gz"
    )
    assert expected.ddf.abs().max() > 0.5
    torch.testing.assert_close(values["found"]["ddf"][0], expected.ddf, rtol=0, atol=1e-3)
