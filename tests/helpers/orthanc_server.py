"""An Orthanc on this computer: a DICOM store with DICOMweb, of Debian's packages orthanc and orthanc-dicomweb."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest

PLUGINS = Path("/usr/share/orthanc/plugins")


class OrthancServer:
    """A server that knows nothing at first; the test is skipped where Orthanc is not installed.

    Args:
        folder: of its files, made.
    """

    def __init__(self, folder: Path) -> None:
        program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
        if not (Path(program).is_file() and (PLUGINS / "libOrthancDicomWeb.so").exists()):
            pytest.skip("needs Orthanc and its DICOMweb plugin, of Debian's orthanc and orthanc-dicomweb")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder.mkdir(parents=True)
        settings = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        config = folder / "orthanc.json"
        config.write_text(json.dumps(settings))
        self.log = (folder / "orthanc.log").open("ab")
        self.process = subprocess.Popen([program, config], stdout=self.log, stderr=subprocess.STDOUT)
        self._wait()

    @property
    def dicomweb(self) -> str:
        """The address of its DICOMweb services."""
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def call(self, path: str, content: bytes | None = None) -> bytes:
        """Ask Orthanc itself, not by DICOMweb."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", content)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    def put(self, files: Iterable[Path]) -> None:
        """Give it files."""
        for file in files:
            self.call("/instances", file.read_bytes())

    def find(self, **tags: str) -> list[Any]:
        """The data sets that have these tags."""
        query = json.dumps({"Level": "Instance", "Query": tags}).encode()
        found = json.loads(self.call("/tools/find", query))
        return [pydicom.dcmread(BytesIO(self.call(f"/instances/{one}/file"))) for one in found]

    def _wait(self) -> None:
        for _ in range(100):
            try:
                self.call("/system")
            except OSError:
                assert self.process.poll() is None, Path(self.log.name).read_text()[-2000:]
                time.sleep(0.2)
            else:
                return
        raise TimeoutError(Path(self.log.name).read_text()[-2000:])

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(60)
        self.log.close()
