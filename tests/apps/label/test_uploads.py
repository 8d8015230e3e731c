from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from monai_regplugins.apps.label import uploads
from monai_regplugins.apps.label.requests import RequestError
from monai_regplugins.apps.label.uploads import as_http, is_upload
from monai_regplugins.checks import InputError


class FakeHTTPError(Exception):
    """Stands in for FastAPI's."""


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that was uploaded to a server without FastAPI."""
    monkeypatch.setattr(uploads, "own_folder", lambda: tmp_path)
    monkeypatch.setitem(sys.modules, "fastapi", SimpleNamespace(HTTPException=FakeHTTPError))
    (path := tmp_path / "scan.nii.gz").write_bytes(b"voxels")
    return path


def test_uploads_lie_in_the_folder_of_the_server(upload: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (other := tmp_path / "more" / "scan.nii.gz").write_bytes(b"voxels")
    found = [is_upload(one) for one in (str(upload), str(other), str(tmp_path / "missing.nii.gz"), None, 3)]
    assert found == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("raised", "status"),
    [(InputError("wrong"), 400), (RequestError("nobody", 404), 404), (MemoryError(), 413), (ValueError("else"), None)],
)
def test_a_refusal_removes_uploads(upload: Path, raised: Exception, status: int | None) -> None:
    with pytest.raises(FakeHTTPError if status else ValueError) as caught, as_http(str(upload), "day1", None):
        raise raised
    assert caught.value.args[0] == (status or "else")
    assert not upload.exists()


def test_what_is_right_stays(upload: Path) -> None:
    with as_http(str(upload)):
        pass
    assert upload.is_file()
