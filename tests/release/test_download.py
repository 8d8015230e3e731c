"""Files from paths and servers, whole or refused, and their installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bundle_files import files_of
from released_bundles import served, tiny_bundle

from monai_regplugins.checks import InputError
from monai_regplugins.io.provenance import digest_of
from monai_regplugins.release import download
from monai_regplugins.release.archive import build_zip
from monai_regplugins.release.download import fetch, install_bundle
from monai_regplugins.release.sums import sums_text


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is published."""
    folder = tmp_path_factory.mktemp("release")
    archive = build_zip(tiny_bundle(folder), folder / "dist")
    (archive.parent / "SHA256SUMS").write_text(sums_text([archive]))
    return archive.parent


@pytest.fixture(scope="module")
def archive(release: Path) -> Path:
    return next(release.glob("*.zip"))


class TestFetch:
    @pytest.mark.parametrize("kind", ["path", "file", "http"])
    def test_whole(self, kind: str, archive: Path, tmp_path: Path) -> None:
        with served(archive.parent) as server:
            source = {"path": archive, "file": archive.as_uri(), "http": f"{server}/{archive.name}?download=1"}[kind]
            copy = fetch(source, tmp_path)
        assert copy == tmp_path / archive.name
        assert copy.read_bytes() == archive.read_bytes()

    def test_cut_short(self, archive: Path, tmp_path: Path) -> None:
        size = archive.stat().st_size
        with (
            served(archive.parent, {archive.name: 100}) as server,
            pytest.raises(InputError, match=rf"was cut short, 100 of {size} bytes came; download it again"),
        ):
            fetch(f"{server}/{archive.name}", tmp_path)

    def test_too_large(self, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(download, "MAX_BYTES", 100)
        monkeypatch.setattr(download, "BLOCK", 64)
        with pytest.raises(InputError, match="no bundle does"):
            fetch(archive, tmp_path)
        assert (tmp_path / archive.name).stat().st_size <= 100 + 64

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("none.zip", "file 'none.zip' does not exist"),
            ("ftp://host/a.zip", "an http, https or file address that ends in its name"),
            ("https://host/", "ends in its name"),
            ("https://host/a/%2e%2e", "ends in its name"),
            ("http://[host/a.zip", "is no address"),
            ("file:///none/a.zip", "cannot download"),
            ("http://127.0.0.1:9/a.zip", "cannot download .* check the address and the network"),
        ],
    )
    def test_refused(self, source: str, message: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=message):
            fetch(source, tmp_path)
        assert all(path.stat().st_size == 0 for path in tmp_path.iterdir())

    def test_not_found(self, tmp_path: Path) -> None:
        with served(tmp_path) as server, pytest.raises(InputError, match="HTTP Error 404"):
            fetch(f"{server}/a.zip", tmp_path)


class TestInstall:
    @pytest.mark.parametrize("kind", ["sums", "sha256", "nothing"])
    def test_from_a_server(self, kind: str, archive: Path, tmp_path: Path) -> None:
        with served(archive.parent) as server:
            known: dict[str, Any] = {
                "sums": {"sums": f"{server}/SHA256SUMS"},
                "sha256": {"sha256": digest_of(archive)},
                "nothing": {},
            }[kind]
            bundle = install_bundle(f"{server}/{archive.name}", tmp_path / "bundles", **known)
        assert bundle == tmp_path / "bundles" / "tiny"
        assert "configs/metadata.json" in files_of(bundle)

    @pytest.mark.parametrize("known", ["sums", "sha256"])
    def test_changed(self, known: str, archive: Path, tmp_path: Path) -> None:
        """Of another archive that is a bundle itself, nothing is unpacked."""
        bundle = tiny_bundle(tmp_path / "other")
        (bundle / "LICENSE").write_text("mine")
        changed = build_zip(bundle, tmp_path)
        expected: dict[str, Any] = {
            "sums": {"sums": archive.parent / "SHA256SUMS"},
            "sha256": {"sha256": digest_of(archive)},
        }[known]
        with pytest.raises(InputError, match="is not the published file"):
            install_bundle(changed, tmp_path / "bundles", **expected)
        assert not (tmp_path / "bundles").exists()

    def test_cut_short(self, archive: Path, tmp_path: Path) -> None:
        with (
            served(archive.parent, {archive.name: 1000}) as server,
            pytest.raises(InputError, match="was cut short"),
        ):
            install_bundle(f"{server}/{archive.name}", tmp_path / "bundles", sums=f"{server}/SHA256SUMS")
        assert not (tmp_path / "bundles").exists()

    def test_never_over_a_bundle(self, archive: Path, tmp_path: Path) -> None:
        bundle = install_bundle(archive, tmp_path)
        (bundle / "configs" / "mine.json").write_text("{}")
        before = files_of(bundle)
        with pytest.raises(InputError, match="is there already"):
            install_bundle(archive, tmp_path)
        assert files_of(bundle) == before
