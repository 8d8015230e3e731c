"""A server of MONAI Label on this computer, with bundles of fresh weights and a small folder of studies."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser

ATLAS_VALUES = {1: 3, 2: 7}  # labels of the atlas, with gaps between their values


def fresh_bundle(source: Path, folder: Path) -> Path:
    """Copy a bundle's text files, and make weights that move things by about a voxel."""
    bundle = folder / source.name
    shutil.copytree(source / "configs", bundle / "configs")
    (bundle / "models").mkdir()
    torch.manual_seed(1)
    file = bundle / "configs" / "inference.json"
    config = ConfigParser.load_config_file(file)
    if "voxel_size" in config:  # so that coarse phantoms are not made fine
        file.write_text(json.dumps({**config, "voxel_size": 16.0}), encoding="utf-8")
    network = ConfigParser(config)
    torch.save(network.get_parsed_content("network_def").state_dict(), bundle / "models" / "model.pt")
    return bundle


def fill_studies(folder: Path, phantom: Path) -> Path:
    """Make a folder of studies: five images, and a label of two organs for the first, named ``atlas``."""
    folder.mkdir(parents=True)
    images = sorted((phantom / "imagesTr").glob("*.nii.gz"))
    for name, image in zip(("atlas", "day1", "day2", "day3", "day4"), images, strict=True):
        shutil.copy(image, folder / f"{name}.nii.gz")
    label = nib.load(phantom / "labelsTr" / images[0].name)
    values = np.asarray(label.dataobj)
    kept = np.zeros(values.shape, np.uint8)
    for value, new in ATLAS_VALUES.items():
        kept[values == value] = new
    (folder / "labels" / "final").mkdir(parents=True)
    nib.save(nib.Nifti1Image(kept, label.affine), folder / "labels" / "final" / "atlas.nii.gz")
    return folder


def form(params: dict[str, Any], files: dict[str, Path] | list[tuple[str, Path]]) -> tuple[bytes, str]:
    """The body of a form with ``params`` and files by their fields, and its content type."""
    limit, parts = "limit", [('name="params"', json.dumps(params).encode())]
    fields = files.items() if isinstance(files, dict) else files
    parts += [(f'name="{key}"; filename="{file.name}"', file.read_bytes()) for key, file in fields]
    body = b"".join(
        f"--{limit}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    return body + f"--{limit}--\r\n".encode(), f"multipart/form-data; boundary={limit}"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class LabelServer:
    """A server on this computer, and plain HTTP to it."""

    def __init__(
        self, python: str, app: Path, studies: Path | str, bundle_dir: Path, models: str = "ran,r2n2", **variables: str
    ) -> None:
        self.python, self.app, self.studies = python, app, Path(studies)
        self.port = free_port()
        subprocess.run([python, "-m", "monai_regplugins.apps.label", "--output", str(app)], check=True, cwd=app.parent)
        command = [python, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
        settings = {"models": models, "bundle_dir": str(bundle_dir), "max_voxels": "100000"}
        for key, value in settings.items():
            command += ["--conf", key, value]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "HOME": str(app.parent)}
        environment |= {"TMPDIR": str(app.parent / "temporary"), **variables}
        (app.parent / "temporary").mkdir(exist_ok=True)
        self.log = (app.parent / "server.log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            cwd=app.parent,
            env=environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self._wait()

    @classmethod
    def at(cls, port: int, process: subprocess.Popen[bytes], app: Path, studies: Path, log: Path) -> LabelServer:
        """One that has been started in another way."""
        server = cls.__new__(cls)
        server.port, server.process, server.app, server.studies = port, process, app, studies
        server.log = log.open("ab")
        server._wait()
        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _wait(self) -> None:
        for _ in range(600):
            try:
                assert self.get("/info/")
            except OSError:
                assert self.process.poll() is None, Path(self.log.name).read_text()[-4000:]
                time.sleep(1)
            else:
                return
        raise TimeoutError(Path(self.log.name).read_text()[-4000:])

    def call(self, method: str, path: str, body: bytes = b"", content_type: str = "") -> tuple[int, bytes]:
        """Send one request; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def hang_up(self, path: str, body: bytes, content_type: str) -> None:
        """Send a request and go before the answer comes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", path, body, {"Content-Type": content_type})
        connection.close()

    def get(self, path: str) -> Any:
        """Return what JSON is at a path."""
        return json.loads(self.call("GET", path)[1])

    def post(self, path: str, content: Any = None) -> tuple[int, Any]:
        """Send JSON; return status and JSON."""
        status, body = self.call("POST", path, json.dumps(content or {}).encode(), "application/json")
        return status, json.loads(body)

    def infer(
        self,
        model: str,
        image_id: str,
        params: dict[str, Any],
        output: str = "json",
        files: dict[str, Path] | None = None,
    ) -> tuple[int, bytes]:
        """Ask for an answer as a browser does, with a form."""
        path = f"/infer/{quote(model)}?{urlencode({'image': image_id, 'output': output})}"
        return self.call("POST", path, *form(params, files or {}))

    def upload(self, image_id: str, file: Path) -> tuple[int, bytes]:
        """Add an image to the datastore."""
        return self.call("PUT", f"/datastore/?{urlencode({'image': image_id})}", *form({}, {"file": file}))

    def save_label(self, image_id: str, file: Path, tag: str, params: dict[str, Any]) -> tuple[int, bytes]:
        """Save a label of an image, as a viewer does."""
        path = f"/datastore/label?{urlencode({'image': image_id, 'tag': tag})}"
        return self.call("PUT", path, *form(params, {"label": file}))

    def wait_for(self, path: str) -> dict[str, Any]:
        """Wait for a task in the background and return how it ended."""
        for _ in range(600):
            if (task := self.get(path))["status"] not in ("SUBMITTED", "RUNNING"):
                return dict(task)
            time.sleep(1)
        raise TimeoutError(path)

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(60)
        self.log.close()
