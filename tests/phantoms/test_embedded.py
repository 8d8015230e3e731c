"""A bundle's own phantom: made once, and only where the bundle keeps it."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path

import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.phantoms.embedded import PHANTOMS, open_dataset


@pytest.mark.parametrize("phantom", PHANTOMS)
def test_only_the_embedded_one_is_made_and_once(
    phantom: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        folder.mkdir()
        (folder / "x").touch()

    monkeypatch.setattr(import_module(f"monai_regplugins.phantoms.{phantom}"), f"make_{phantom}", make)
    embedded = tmp_path / "data"
    with pytest.raises(InputError, match="does not exist"):
        open_dataset(tmp_path / "typo", embedded, phantom)
    assert made == []
    with caplog.at_level(logging.INFO):
        assert open_dataset(str(embedded), tmp_path / "other" / ".." / "data", phantom) == str(embedded)
    assert made == [embedded]
    assert len(caplog.records) == 1
    assert open_dataset(str(embedded), embedded, phantom) == str(embedded)
    assert len(made) == 1


def test_a_mistyped_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'abdomen'"):
        open_dataset(tmp_path, tmp_path, "abdomn")
