from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_regplugins.apps.label.labels import (
    LabelNames,
    StoredLabel,
    label_table,
    read_names,
    relabel,
)
from monai_regplugins.checks import InputError


def stored(path: Path, values: list[int], **info: Any) -> StoredLabel:
    """A label map that has these values."""
    image = np.zeros((len(values), 2, 2), np.int16)
    image[:, 0, 0] = values
    nib.save(nib.Nifti1Image(image, np.eye(4)), path)
    return StoredLabel(str(path), info)


def test_values_without_names(tmp_path: Path) -> None:
    label = stored(tmp_path / "a.nii.gz", [9, 2, 0, 5])
    assert LabelNames()(label) == {2: "label_2", 5: "label_5", 9: "label_9"}
    assert LabelNames({5: "liver", 7: "lung"})(label) == {2: "label_2", 5: "liver", 9: "label_9"}


def test_a_label_map_with_nan_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sound, spoiled = stored(tmp_path / "a.nii.gz", [2]), StoredLabel(str(tmp_path / "b.nii.gz"), {})
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), np.nan, np.float32), np.eye(4)), spoiled.path)
    with pytest.raises(InputError, match="holds NaN or infinity, expected whole numbers"):
        LabelNames()(spoiled)
    assert label_table([sound, spoiled], LabelNames()) == {"label_2": 1}
    assert "A label map is left out" in caplog.text


def test_names_of_the_client(tmp_path: Path) -> None:
    drawn = [{"name": "liver", "idx": 2}, {"name": "spleen", "idx": 5}]
    assert LabelNames()(stored(tmp_path / "a.nii.gz", [2, 5], label_info=drawn)) == {2: "liver", 5: "spleen"}
    # 3D Slicer with a background segment: counted from 2, written from 1
    counted = [{"name": "liver", "idx": 2}, {"name": "spleen", "idx": 3}]
    assert LabelNames()(stored(tmp_path / "b.nii.gz", [1, 2], label_info=counted)) == {1: "liver", 2: "spleen"}
    some = [{"name": "liver", "idx": 2}]
    assert LabelNames()(stored(tmp_path / "c.nii.gz", [2, 5], label_info=some)) == {2: "liver", 5: "label_5"}


def test_names_of_an_answer_need_no_file() -> None:
    label = StoredLabel("nowhere.nii.gz", {"params": {"label_names": {"b": 2, "a": 1}}})
    assert list(LabelNames()(label).items()) == [(1, "a"), (2, "b")]


def test_a_file_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, path = LabelNames(), tmp_path / "a.nii.gz"
    label = stored(path, [1])
    assert names.values(str(path)) == [1]
    stored(path, [1, 4])
    os.utime(path, ns=(1, 1))
    assert names(label) == {1: "label_1", 4: "label_4"}
    monkeypatch.setattr("monai_regplugins.apps.label.labels.read_scan", None)
    assert names.values(str(path)) == [1, 4]


def test_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = stored(tmp_path / "b.nii.gz", [3, 7], ts=1)
    second = stored(tmp_path / "a.nii.gz", [1, 7], ts=2)
    broken = StoredLabel(str(tmp_path / "missing.nii.gz"), {"ts": 0})
    table = label_table([second, broken, first], LabelNames())
    assert table == {"label_3": 1, "label_7": 2, "label_1": 3}
    assert "missing.nii.gz" in caplog.text
    assert label_table([], LabelNames()) == {}


def test_relabel() -> None:
    values = np.array([[0, 3], [7, 9]], np.int16)
    changed = relabel(values, {3: "a", 7: "b"}, {"a": 1, "b": 2})
    assert changed.tolist() == [[0, 1], [2, 0]]
    assert changed.dtype == np.uint8
    many = {f"label_{value}": value for value in range(1, 301)}
    assert relabel(values, {9: "label_300"}, many).max() == 300


def test_read_names(tmp_path: Path) -> None:
    assert read_names('{"liver": 6, "spleen": "1"}') == {6: "liver", 1: "spleen"}
    (tmp_path / "names.json").write_text('{"liver": 6}')
    assert read_names(str(tmp_path / "names.json")) == {6: "liver"}
    for text in ("{", '{"liver": "x"}', "missing.json", '{"a": null}'):
        with pytest.raises(InputError, match="write names and values as JSON"):
            read_names(text)
