"""Lists of pairs: tables, arrays, and every mistake in one line with its place."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.data.pair_list import COLUMNS, named_pair, phase_list, read_pair_list
from monai_regplugins.keys import (
    IMAGE_KEYS,
    LABEL_KEYS,
    MASK_KEYS,
    POINT_KEYS,
)

FILES = ("f.nii.gz", "m.nii.gz", "f2.nrrd", "label.nii", "points.csv", "partners.csv", "mask.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files to name, and one that may be a DICOM series; what they hold does not matter here."""
    (tmp_path / "images" / "series").mkdir(parents=True)
    for name in FILES:
        (tmp_path / "images" / name).write_bytes(b"x")
    return tmp_path


def write(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


HEADER = "fixed,moving,fixed_label,moving_label,fixed_points,moving_points,mask,pair_id\n"
ROW = "images/f.nii.gz,images/m.nii.gz,images/label.nii,,images/points.csv,images/partners.csv,images/mask.png,case 1\n"


def test_columns_fill_the_keys_of_a_pair() -> None:
    assert set(COLUMNS.values()) <= {*IMAGE_KEYS, *LABEL_KEYS, *MASK_KEYS, *POINT_KEYS}


def test_a_cell_that_a_spreadsheet_takes_as_text_is_read_as_it_was(folder: Path) -> None:
    row = "images/series,images/series,'=1+1,'50%,'-1\n"
    (pair,) = read_pair_list(write(folder, f"fixed,moving,fixed_phase,moving_phase,pair_id\n{row}"))
    assert (pair["fixed_phase"], pair["moving_phase"], pair["pair_id"]) == ("=1+1", "'50%", "-1")


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "of a spreadsheet"])
def test_a_table_with_all_columns(folder: Path, start: str) -> None:
    images = folder / "images"
    expected = {
        "fixed": str(images / "f.nii.gz"),
        "moving": str(images / "m.nii.gz"),
        "fixed_label": str(images / "label.nii"),
        "fixed_keypoints": str(images / "points.csv"),
        "moving_keypoints": str(images / "partners.csv"),
        "fixed_mask": str(images / "mask.png"),
        "pair_id": "case 1",
    }
    assert read_pair_list(write(folder, start + HEADER + ROW)) == [expected]


def test_rows_keep_their_order_and_get_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    text = f' moving , fixed\r\n"images/m.nii.gz",{folder}/images/f2.nrrd\r\n\r\n,\r\nimages/series,images/f.nii.gz\r\n'
    pairs = read_pair_list(write(folder, text).relative_to(folder))
    assert [pair["pair_id"] for pair in pairs] == ["m_to_f2", "series_to_f"]
    assert pairs[1]["moving"] == str(folder / "images" / "series")


def test_an_array(folder: Path) -> None:
    rows = [
        {"fixed": "images/f.nii.gz", "moving": "images/m.nii.gz", "mask": None, "fixed_label": ""},
        {"fixed": "images/f.nii.gz", "moving": "images/series/../series", "pair_id": "b"},
    ]
    first, second = read_pair_list(write(folder, json.dumps(rows), "pairs.JSON"))
    assert first.keys() == {"fixed", "moving", "pair_id"}
    assert second["pair_id"] == "b"


def test_phases_belong_to_the_pair_and_its_name(folder: Path) -> None:
    one, other = "images/f.nii.gz", "images/m.nii.gz"
    text = f"fixed,moving,fixed_phase,moving_phase\n{one},{one},0%,50% In/a\n{one},{other},,3\n"
    first, second = read_pair_list(write(folder, text))
    assert (first["fixed_phase"], first["moving_phase"]) == ("0%", "50% In/a")
    assert first["pair_id"] == "f_50%-In-a_to_f_0%"
    assert "fixed_phase" not in second
    assert second["pair_id"] == "m_3_to_f"


def test_all_phases_onto_one(tmp_path: Path) -> None:
    file = tmp_path / "4d.nii"
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5, 4), np.float32), np.eye(4)), file)
    pairs = phase_list(file, "2")
    assert [pair["moving_phase"] for pair in pairs] == ["0", "1", "3"]
    assert {(pair["fixed"], pair["moving"], pair["fixed_phase"]) for pair in pairs} == {(str(file), str(file), "2")}
    assert [pair["fixed_phase"] for pair in phase_list(file)] == ["0", "0", "0"]
    with pytest.raises(InputError, match="has no volume '7'"):
        phase_list(file, "7")
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.eye(4)), file)
    with pytest.raises(InputError, match="holds one volume, expected several"):
        phase_list(file)


TWO = "fixed,moving,pair_id\nimages/f.nii.gz,images/m.nii.gz,{}\nimages/f2.nrrd,images/m.nii.gz,{}\n"
PAIR = '{"fixed": "images/f.nii.gz", "moving": "images/m.nii.gz"}'
MISTAKES = {
    "unknown column": ("fixed,movin\na,b\n", "line 2 of .* unknown column 'movin', .* Did you mean 'moving'?"),
    "no column": ("fixed;moving\na;b\n", "unknown column 'fixed;moving'"),
    "column twice": ("fixed,moving,fixed\n", "two columns of one name"),
    "empty": ("", r"is empty \(0 bytes\)"),
    "no rows": (HEADER, "holds no pair; give at least one"),
    "no moving": ("fixed,moving\nimages/f.nii.gz,\n", "line 2 of .* has no moving image"),
    "neither": ("fixed,moving,mask\n,,images/mask.png\n", "line 2 of .* has no fixed and no moving image"),
    "cells": ("fixed,moving\n\nimages/f.nii.gz,images/m.nii.gz,x\n", "line 3 of .* has 3 cells, expected 2"),
    "same id": (TWO.format("a", "a"), "line 3 of .* has the same pair_id as line 2, 'a'"),
    "same names": (TWO.format("", "").replace("f2.nrrd", "f.nii.gz"), "same pair_id as line 2, 'm_to_f'"),
    "id with a slash": (TWO.format("a", "../b"), r"pair_id '../b' in line 3 of .* names no folder"),
    "id of dots": (TWO.format("..", "b"), "pair_id '..' in line 2 of .* names no folder"),
    "id that is hidden": (TWO.format(".a", "b"), "pair_id '.a' in line 2 of .* names no folder"),
    "id of a table": (TWO.format("a", "Metrics.csv"), "pair_id 'Metrics.csv' in line 3 of .* is reserved"),
    "id of a row": (TWO.format("mean", "b"), "pair_id 'mean' in line 2 of .* is reserved"),
    "long id": (TWO.format("a", "x" * 300), r"pair_id 'x+\.\.\.' in line 3 of .* has 300 bytes, expected at most 200"),
    "ids of another case": (
        TWO.format("Lung", "lUNG"),
        "line 3 of .* same pair_id as line 2, 'Lung' on disks that ignore",
    ),
    "ids of another form": (TWO.format("\u00e9", "e\u0301"), "line 3 of .* same pair_id as line 2, 'é' on disks"),
    "id of two lines": (TWO.format('"a\nb"', "b"), r"pair_id 'a\\nb' in line 3 of .* names no folder"),
    "open quotation": ('fixed,moving\n"images/f.nii.gz,b\n', r"cannot be read \(unexpected end of data\)"),
    "json": ('[{"fixed": ]', r"cannot be read \(Expecting value: line 1 column 12"),
    "deep json": ("[" * 100_000, r"cannot be read \(maximum recursion depth"),
    "json object": ('{"pairs": []}', "is no array of objects"),
    "json strings": ('["a", "b"]', "is no array of objects"),
    "json empty": ("[]", "holds no pair"),
    "json number": ('[{"fixed": 1, "moving": "b"}]', "entry 1 of .* has 1 under 'fixed', expected a text"),
    "json key": (f'[{PAIR}, {{"fixed_lable": "x"}}]', "entry 2 of .* 'fixed_lable', .* Did you mean 'fixed_label'"),
    "json twice": (f"[{PAIR}, {PAIR}]", "entry 2 of .* has the same pair_id as entry 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(folder: Path, mistake: str) -> None:
    text, message = MISTAKES[mistake]
    path = write(folder, text, "pairs.json" if "json" in mistake else "pairs.csv")
    with pytest.raises(InputError, match=message) as error:
        read_pair_list(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_lists_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(InputError, match=r"pair list '.*' does not exist.*Did you mean 'pairs.csv'\?"):
        read_pair_list(write(folder, HEADER + ROW).with_name("pair.csv"))
    with pytest.raises(InputError, match=r"suffix of pair list '.*' is '.xlsx'; choose one of '.csv', '.json'"):
        read_pair_list(write(folder, HEADER, "pairs.xlsx"))
    (folder / "latin.csv").write_bytes("fixed,moving\nä,b\n".encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read"):
        read_pair_list(folder / "latin.csv")


def test_the_name_of_a_folder_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scan.1", "scan.2"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "scan.1")
    assert named_pair({"fixed": ".", "moving": "../scan.2"})["pair_id"] == "scan.2_to_scan.1"


def test_masks_of_both_images() -> None:
    files = {"fixed": "f.nii", "moving": "m.nii", "fixed_mask": "a.nii", "moving_mask": "b.nii"}
    pair = named_pair(files)
    assert (pair["fixed_mask"], pair["moving_mask"]) == ("a.nii", "b.nii")
    with pytest.raises(InputError, match=r"^mask and fixed_mask are both given"):
        named_pair({**files, "mask": "c.nii"})
