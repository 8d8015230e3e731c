"""Sums: what sha256sum writes and reads, and the list that MONAI reads."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import monai.bundle.scripts as monai_bundle
import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.release.sums import (
    check_sum,
    listed_sum,
    model_info,
    read_sums,
    sums_text,
)

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("ran_v0.1.0.zip", "r2n2_v0.1.0.zip")]
    for path in paths:
        path.write_bytes(CONTENT)
    return paths


class TestSums:
    def test_written_and_read(self, files: list[Path]) -> None:
        text = sums_text(files)
        assert text == f"{DIGEST}  r2n2_v0.1.0.zip\n{DIGEST}  ran_v0.1.0.zip\n"
        assert read_sums(text, "SHA256SUMS") == {path.name: DIGEST for path in files}
        assert listed_sum(text, "ran_v0.1.0.zip", "SHA256SUMS") == DIGEST

    @pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
    def test_sha256sum_reads_them(self, files: list[Path]) -> None:
        folder = files[0].parent
        (folder / "SHA256SUMS").write_text(sums_text(files))
        command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    def test_other_spellings(self) -> None:
        text = f"{DIGEST.upper()} *ran.zip\r\n\n{DIGEST}  with blank.zip\n"
        assert read_sums(text, "SHA256SUMS") == {"ran.zip": DIGEST, "with blank.zip": DIGEST}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty"),
            ("<html>not found</html>", "has the line '<html>not found</html>', expected one SHA-256"),
            (f"{DIGEST[1:]}  ran.zip", "expected one SHA-256"),
            (f"{DIGEST}  ran.zip\n{'0' * 64}  ran.zip", "expected one SHA-256"),
        ],
    )
    def test_refused(self, text: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            read_sums(text, "SHA256SUMS")

    def test_a_file_that_is_not_listed(self, files: list[Path]) -> None:
        with pytest.raises(InputError, match=r"does not list 'ran\.zip'; .* Did you mean 'ran_v0\.1\.0\.zip'"):
            listed_sum(sums_text(files), "ran.zip", "SHA256SUMS")


class TestCheck:
    def test_equal(self, files: list[Path]) -> None:
        check_sum(files[0], f" {DIGEST.upper()}\n")

    @pytest.mark.parametrize(
        ("sha256", "message"),
        [("0" * 64, f"its SHA-256 is {DIGEST}, expected 000"), ("abc", "'abc', expected 64 hexadecimal digits")],
    )
    def test_refused(self, sha256: str, message: str, files: list[Path]) -> None:
        with pytest.raises(InputError, match=message):
            check_sum(files[0], sha256)


class TestModelInfo:
    def test_content(self, files: list[Path]) -> None:
        assert model_info(files, "owner/name", "0.1.0") == {
            f"{name}_v0.1.0": {
                "checksum": hashlib.sha1(CONTENT).hexdigest(),
                "source": f"https://github.com/owner/name/releases/download/0.1.0/{name}_v0.1.0.zip",
            }
            for name in ("r2n2", "ran")
        }

    def test_monai_finds_the_versions(self, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        """MONAI asks for the list at the tag, and then for the very address that the list has."""
        info = model_info(files, "owner/name", "0.1.0")
        asked: list[str] = []

        class Answer:
            text = json.dumps(info)

            def raise_for_status(self) -> None:
                """It is there."""

        def get(url: str, **_: Any) -> Answer:
            asked.append(url)
            return Answer()

        pytest.importorskip("requests")
        monkeypatch.setattr(monai_bundle.requests, "get", get)
        versions = monai_bundle.get_bundle_versions("ran", repo="owner/name", tag="0.1.0")
        assert versions == {"latest_version": "0.1.0", "all_versions": ["0.1.0"]}
        assert asked == ["https://raw.githubusercontent.com/owner/name/0.1.0/models/model_info.json"]
        monkeypatch.setattr(monai_bundle, "download_url", lambda url, **_: asked.append(url))
        monkeypatch.setattr(monai_bundle, "extractall", lambda **_: None)
        monai_bundle._download_from_github("owner/name/0.1.0", files[0].parent, "ran_v0.1.0")
        assert asked[-1] == info["ran_v0.1.0"]["source"]
