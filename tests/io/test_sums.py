"""SHA256SUMS beside weights: what lists them is compared with them, and a list without them is reported."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.io.sums import check_weights

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PLACES = [("SHA256SUMS", "models/model.pt"), ("SHA256SUMS", "./models/model.pt"), ("models/SHA256SUMS", "model.pt")]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights in a bundle, whose parent folder has a list too, of other things."""
    for folder in ("ran/configs", "ran/models"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  ran/models/model.pt\n")
    (tmp_path / "ran/models/model.pt").write_bytes(CONTENT)
    return tmp_path / "ran/models/model.pt"


def write(weights: Path, sums: str, *lines: str) -> None:
    (weights.parents[1] / sums).write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(("sums", "name"), PLACES)
def test_listed(weights: Path, sums: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    write(weights, sums, f"{'0' * 64}  ran_v0.1.0.zip", f"{DIGEST}  {name}")
    check_weights(weights)
    assert not caplog.records
    write(weights, sums, f"{'0' * 64}  {name}")
    with pytest.raises(InputError, match=r"'model\.pt' is not the published file: its SHA-256 is .*; it was changed"):
        check_weights(str(weights))


def test_one_list_of_two_names_them(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(weights, "SHA256SUMS", f"{'0' * 64}  configs/inference.json")
    write(weights, "models/SHA256SUMS", f"{DIGEST}  model.pt")
    check_weights(weights)
    assert not caplog.records


@pytest.mark.parametrize("sums", ["SHA256SUMS", "models/SHA256SUMS"])
def test_not_listed(weights: Path, sums: str, caplog: pytest.LogCaptureFixture) -> None:
    write(weights, sums, f"{'0' * 64}  other.pt")
    check_weights(weights)
    ((_, level, line),) = caplog.record_tuples
    assert level == logging.WARNING
    assert line.startswith(f"'{weights.parents[1] / sums}' does not list 'model.pt'")
    assert "\n" not in line


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xfe"])
def test_a_list_that_cannot_be_read(weights: Path, content: bytes) -> None:
    (weights.parent / "SHA256SUMS").write_bytes(content)
    with pytest.raises(InputError, match="as sha256sum writes them; download it again"):
        check_weights(weights)


def test_no_list(weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the list above the bundle counts, nor that of the bundle for weights that lie elsewhere."""
    check_weights(weights)
    write(weights, "SHA256SUMS", f"{'0' * 64}  models/model.pt")
    (mine := tmp_path / "mine" / "model.pt").parent.mkdir()
    mine.write_bytes(CONTENT)
    check_weights(mine)
    assert not caplog.records


def test_a_link_is_what_it_is_named(weights: Path, tmp_path: Path) -> None:
    """Caches of downloads hold the content elsewhere, and links in the bundle."""
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    write(weights, "models/SHA256SUMS", f"{DIGEST}  model.pt")
    check_weights(weights)
    weights.write_bytes(b"others")
    with pytest.raises(InputError, match="is not the published file"):
        check_weights(weights)
