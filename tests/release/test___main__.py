"""The four commands, as they are called."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from bundle_files import files_of
from released_bundles import metadata, served, tiny_bundle, write_json

from monai_regplugins.checks import InputError
from monai_regplugins.release.__main__ import main

VERSION = version("monai-regplugins")
ZIP = f"tiny_v{VERSION}.zip"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build of two bundles writes."""
    folder = tmp_path_factory.mktemp("release")
    build([tiny_bundle(folder), tiny_bundle(folder, "other")], folder / "dist")
    return folder / "dist"


def build(bundles: list[Path], output_dir: Path, **options: str) -> None:
    """Build a release."""
    words = {"output_dir": str(output_dir), "repo": "owner/name", "tag": VERSION} | options
    flags = [word for key, value in words.items() for word in (f"--{key}", value)]
    main(["build", "--bundles", *map(str, bundles), *flags])


class TestBuild:
    def test_files(self, release: Path) -> None:
        assert files_of(release) == sorted(["SHA256SUMS", "model_info.json", f"other_v{VERSION}.zip", ZIP])
        info = (release / "model_info.json").read_text()
        assert list(json.loads(info)) == [f"other_v{VERSION}", f"tiny_v{VERSION}"]
        assert info == json.dumps(json.loads(info), indent=4) + "\n"
        assert len((release / "SHA256SUMS").read_text().splitlines()) == 2

    def test_nothing_when_anything_is_wrong(self, tmp_path: Path) -> None:
        good, bad = tiny_bundle(tmp_path), tiny_bundle(tmp_path, "bad")
        write_json(bad / "configs" / "metadata.json", metadata() | {"version": "0.0.9"})
        with pytest.raises(InputError, match=r"bad: version 0\.0\.9 in metadata\.json"):
            build([good, bad], tmp_path / "dist")
        assert not (tmp_path / "dist").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"tag": "0.0.9"}, "the tag '0.0.9'"), ({"repo": "owner"}, "repo is 'owner', expected owner/name")],
    )
    def test_refused(self, options: dict[str, str], message: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=message):
            build([tiny_bundle(tmp_path)], tmp_path / "dist", **options)
        assert not (tmp_path / "dist").exists()


class TestCheck:
    def test_fit(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        main(["check", str(tiny_bundle(tmp_path))])
        assert capsys.readouterr().out.endswith("fit for release: tiny\n")

    def test_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no such folder"):
            main(["check", str(tmp_path / "none")])


class TestVerify:
    def test_as_published(self, release: Path, capsys: pytest.CaptureFixture[str]) -> None:
        main(["verify", *map(str, sorted(release.glob("*.zip"))), "--sums", str(release / "SHA256SUMS")])
        assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == [
            "bundle other, as published",
            "bundle tiny, as published",
        ]

    def test_changed(self, release: Path, tmp_path: Path) -> None:
        content = bytearray((release / ZIP).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / ZIP).write_bytes(content)
        with pytest.raises(InputError, match="is not the published file"):
            main(["verify", str(tmp_path / ZIP), "--sums", str(release / "SHA256SUMS")])


class TestInstall:
    def test_as_published(self, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with served(release) as server:
            main(["install", f"{server}/{ZIP}", "--sums", f"{server}/SHA256SUMS", "--bundle_dir", str(tmp_path)])
        assert capsys.readouterr().out == f"installed tiny {VERSION} as {tmp_path / 'tiny'}\n"

    def test_notes(self, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
        monkeypatch.setattr("monai_regplugins.release.__main__.installed_version", lambda package: "0.0.1")
        main(["install", str(release / ZIP), "--bundle_dir", str(tmp_path)])
        said = capsys.readouterr().out
        assert "note: neither --sums nor --sha256 was given" in said
        assert f"pip install monai-regplugins=={VERSION}" in said

    def test_sums_or_sha256(self, release: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["install", str(release / ZIP), "--bundle_dir", "x", "--sums", "y", "--sha256", "z"]
        with pytest.raises(SystemExit):
            main(words)
        assert "not allowed with" in capsys.readouterr().err


@pytest.mark.slow
def test_mistakes_are_told_in_one_line(release: Path, tmp_path: Path) -> None:
    words = ["verify", str(release / ZIP), "--sums", str(release / "model_info.json")]
    line = [sys.executable, "-m", "monai_regplugins.release", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "expected one SHA-256 and name per file" in errors[0]
    assert "Traceback" not in done.stderr
