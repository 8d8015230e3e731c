"""Bundles as they are released: a tiny one that is made here, and complete copies of real ones."""

from __future__ import annotations

import copy
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from packaging.version import Version

TENSOR: dict[str, Any] = {
    "type": "image",
    "format": "magnitude",
    "num_channels": 2,
    "spatial_shape": ["8 + n", "8 + n"],
    "dtype": "float32",
    "value_range": [],
}
NETWORK = {"_target_": "torch.nn.Conv2d", "in_channels": 2, "out_channels": 2, "kernel_size": 3, "padding": 1}


def metadata() -> dict[str, Any]:
    """The metadata of the tiny bundle; each call makes them anew."""
    number, pins = version("monai-regplugins"), {name: Version(version(name)) for name in ("monai", "torch", "numpy")}
    content = {
        "schema": "https://project-monai.github.io/schema/meta_schema_20240725.json",
        "version": number,
        "changelog": {number: "first"},
        "monai_version": pins["monai"].public,
        "pytorch_version": pins["torch"].base_version,
        "numpy_version": pins["numpy"].public,
        "required_packages_version": {"monai-regplugins": number, "pytorch-ignite": version("pytorch-ignite")},
        **dict.fromkeys(("task", "description", "authors", "copyright"), "none"),
        "network_data_format": {"inputs": {"image": TENSOR}, "outputs": {"pred": TENSOR}},
    }
    return copy.deepcopy(content)


def write_json(path: Path, content: Any) -> None:
    """Write a file as configurations are written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def tiny_bundle(folder: Path, name: str = "tiny") -> Path:
    """Make a bundle that is fit for release, with what its use leaves behind; its network is one convolution."""
    bundle = folder / name
    write_json(bundle / "configs" / "metadata.json", metadata())
    write_json(bundle / "configs" / "inference.json", {"network_def": NETWORK})
    texts = {
        "LICENSE": "Apache-2.0",
        "configs/logging.conf": "[loggers]",
        "docs/README.md": "Weights: `models/model.pt`, `models/model_ncc.pt`; a training's: `models/checkpoint.pt`, "
        "`models/model_last.pt`.",
        "docs/data_license.txt": "none",
        "docs/.hidden": "no",
        ".gitignore": "data",
        "data/phantom/image.nii.gz": "large",
        "eval/metrics.csv": "dsc",
        "output/run/models/model.pt": "another",
        "runs/train/models/model.pt": "a training's",
        "configs/__pycache__/x.pyc": "compiled",
        "models/model_other.pt": "named nowhere",
    }
    for path, text in texts.items():
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        (bundle / path).write_text(text)
    weights = torch.nn.Conv2d(2, 2, 3).state_dict()
    for path in ("model.pt", "model_ncc.pt", "checkpoint.pt", "model_last.pt"):
        torch.save(weights, bundle / "models" / path)
    return bundle


def complete_bundle(source: Path, folder: Path) -> Path:
    """Copy what a release of a bundle needs; weights of a freshly made network stand in where there are none."""
    bundle = folder / source.name
    for part in ("configs", "docs"):
        shutil.copytree(source / part, bundle / part)
    shutil.copy(source / "LICENSE", bundle)
    (bundle / "models").mkdir()
    if (weights := source / "models" / "model.pt").is_file():
        shutil.copy(weights, bundle / "models")
    else:
        network = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / "inference.json"))
        torch.save(network.get_parsed_content("network_def").state_dict(), bundle / "models" / "model.pt")
    return bundle


@contextmanager
def served(folder: Path, cut_short: Mapping[str, int] | None = None) -> Iterator[str]:
    """Serve a folder on this computer and give its address; files in ``cut_short`` end after so many bytes."""
    handler: Callable[..., Any] = partial(_Handler, directory=str(folder), cut_short=cut_short or {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(SimpleHTTPRequestHandler):
    """Serves in silence, and breaks off where it is set to."""

    def __init__(self, *args: Any, cut_short: Mapping[str, int], **kwargs: Any) -> None:
        self.cut_short = cut_short
        super().__init__(*args, **kwargs)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        name = Path(self.path).name
        outputfile.write(source.read(self.cut_short.get(name, -1)))
        self.close_connection = name in self.cut_short

    def log_message(self, *args: Any) -> None:
        """Say nothing."""
