"""The report on an installation, and its exit status."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from monai_regplugins import bundle_folders, doctor
from monai_regplugins.doctor import run_doctor


def sound() -> Iterator[str]:
    yield "fine"


def broken() -> Iterator[str]:
    yield "found a"
    raise RuntimeError("no\nb")


def test_the_exit_status_tells_of_a_failed_check(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"one": sound})
    assert run_doctor() == 0
    assert capsys.readouterr().out == "one:\n  fine\neverything works\n"
    monkeypatch.setattr(doctor, "CHECKS", {"one": broken, "two": sound})
    assert run_doctor() == 1
    assert capsys.readouterr().out == "one:\n  found a\n  FAILED: no b\ntwo:\n  fine\n1 of 2 checks failed\n"


def test_versions_and_devices(capsys: Any) -> None:
    assert all(doctor._passes(title, doctor.CHECKS[title]) for title in ("versions", "devices"))
    text = capsys.readouterr().out
    assert [name for name in doctor.PACKAGES if f"  {name} {importlib.metadata.version(name)}\n" not in text] == []
    assert "memory free: " in text


def test_a_package_that_is_missing_or_broken(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    assert not doctor._passes("versions", doctor.CHECKS["versions"])
    assert "FAILED: not installed: no-such-package; run pip install no-such-package" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not doctor._passes("devices", doctor.CHECKS["devices"])
    assert "FAILED: import of torch halted" in capsys.readouterr().out


def test_bundles_that_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(bundle_folders, "packaged_bundles", lambda: tmp_path / "bundles")
    assert not doctor._passes("bundles", doctor.CHECKS["bundles"])
    assert "FAILED: there is no bundle 'ran'" in capsys.readouterr().out


@pytest.mark.bundle
@pytest.mark.slow
def test_everything_works_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_doctor() == 0
    text = capsys.readouterr().out
    assert "the weights of ran, r2n2, regnet fit\n" in text
    assert "warped_label.nii.gz" in text
    assert list(tmp_path.iterdir()) == []
