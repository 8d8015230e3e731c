"""Folders of results: nothing that the program has not made is ever lost, and no half of a result counts as whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.io import result_folder
from monai_regplugins.io.provenance import identity_of
from monai_regplugins.io.result_folder import (
    ResultFolder,
    check_result,
    read_record,
    remove_leftovers,
    write_result,
)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    return make_inputs(tmp_path / "images")


def make_inputs(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for side in ("fixed", "moving"):
        (folder / f"{side}.nii").write_text(side)
    return {side: identity_of(folder / f"{side}.nii") for side in ("fixed", "moving")}


def write(folder: ResultFolder, inputs: Mapping[str, Any], fingerprint: str = "1", **files: str) -> None:
    def fill(place: Path) -> None:
        for name, content in files.items():
            (place / f"{name}.txt").write_text(content)

    with folder.claimed() as mine:
        assert mine
        folder.write({"program": "monai_regplugins", "inputs": inputs, "fingerprint": fingerprint}, fill)


def test_it_is_complete_while_all_files_are_there(tmp_path: Path, inputs: dict[str, Any]) -> None:
    folder = ResultFolder(tmp_path / "new" / "out", "a_to_b")
    assert not folder.is_complete("1")
    write(folder, inputs, one="1", two="22")
    assert folder.is_complete("1")
    assert not folder.is_complete("2")
    assert sorted(contents(folder.output_dir)) == ["a_to_b/one.txt", "a_to_b/provenance.json", "a_to_b/two.txt"]
    for corrupt in (lambda path: path.write_text("3"), lambda path: path.write_text(""), Path.unlink):
        corrupt(folder.path / "two.txt")
        assert not folder.is_complete("1")


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"files": {"a": 1}}', '{"program": "monai_regplugins"}'])
def test_a_foreign_record_is_none(text: str, tmp_path: Path, inputs: dict[str, Any]) -> None:
    folder = ResultFolder(tmp_path, "a_to_b")
    folder.path.mkdir()
    (folder.path / "provenance.json").write_text(text)
    assert not folder.is_complete("1")
    with pytest.raises(InputError, match="holds other things"):
        write(folder, inputs, one="1")
    assert contents(folder.path) == {"provenance.json": text.encode()}


@pytest.mark.parametrize("name", ["../mine.txt", "..", "more/mine.txt", "/mine.txt"])
def test_a_record_that_lists_files_elsewhere_is_none(name: str, tmp_path: Path, inputs: dict[str, Any]) -> None:
    folder = ResultFolder(tmp_path / "out", "a_to_b")
    write(folder, inputs, one="1")
    (tmp_path / "out" / "mine.txt").write_text("1")
    record = read_record(folder.path)
    record["files"][name] = record["files"]["one.txt"]
    (folder.path / "provenance.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="holds other things"):
        write(folder, inputs, one="2")
    assert (tmp_path / "out" / "mine.txt").read_text() == "1"


def test_files_of_others_stay_and_old_results_go(tmp_path: Path, inputs: dict[str, Any]) -> None:
    folder = ResultFolder(tmp_path / "out", "a_to_b")
    write(folder, inputs, one="1", two="2")
    (folder.path / "mine.txt").write_text("hours of work")
    (folder.path / "more").mkdir()
    (folder.path / "more" / "mine.txt").write_text("and more")
    write(folder, inputs, "2", one="another", three="3")
    found = contents(folder.output_dir)
    assert found.pop("a_to_b/provenance.json")
    assert found == {
        "a_to_b/one.txt": b"another",
        "a_to_b/three.txt": b"3",
        "a_to_b/mine.txt": b"hours of work",
        "a_to_b/more/mine.txt": b"and more",
    }
    assert folder.is_complete("2")


def test_a_result_that_was_changed_by_hand_is_kept(tmp_path: Path, inputs: dict[str, Any]) -> None:
    folder = ResultFolder(tmp_path, "a_to_b")
    write(folder, inputs, label="by the network")
    (folder.path / "label.txt").write_text("corrected by hand")
    (folder.path / "new.txt").write_text("mine, of a name that comes later")
    write(folder, inputs, label="again", new="new")
    (folder.path / "label.txt").write_text("corrected again")
    write(folder, inputs, label="a third time", new="new")
    found = {name: content.decode() for name, content in contents(folder.path).items() if name != "provenance.json"}
    assert found == {
        "label.txt": "a third time",
        "label.kept-1.txt": "corrected by hand",
        "label.kept-2.txt": "corrected again",
        "new.txt": "new",
        "new.kept-1.txt": "mine, of a name that comes later",
    }


def test_results_of_other_images_stay(tmp_path: Path, inputs: dict[str, Any]) -> None:
    folder = ResultFolder(tmp_path / "out", "a_to_b")
    write(folder, inputs, one="1")
    before = contents(tmp_path)
    other = make_inputs(tmp_path / "of another patient")
    with pytest.raises(InputError, match=r"'.*a_to_b' is there already and holds other things"):
        write(folder, other, one="2")
    assert {name: content for name, content in contents(tmp_path).items() if name in before} == before
    assert sorted(os.listdir(tmp_path / "out")) == ["a_to_b"]


def test_images_in_memory_are_known_by_their_values(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path, "a_to_b")
    image = np.arange(8.0).reshape(2, 2, 2)
    inputs = {"fixed": identity_of(image), "moving": identity_of(image + 1)}
    write(folder, inputs, one="1")
    write(folder, {"fixed": identity_of(image.copy()), "moving": identity_of(image + 1)}, one="2")
    with pytest.raises(InputError, match="holds other things"):
        write(folder, {**inputs, "moving": identity_of(image + 2)}, one="3")


def test_unknown_images_replace_nothing(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path, "a_to_b")
    write(folder, {}, one="1")
    with pytest.raises(InputError, match="holds other things"):
        write(folder, {}, one="2")


@pytest.mark.parametrize("name", ["images", "moving.nii"])
def test_a_folder_that_holds_an_input_is_refused(name: str, tmp_path: Path, inputs: dict[str, Any]) -> None:
    place = tmp_path if name == "images" else tmp_path / "images"
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"holds the pair's (fixed|moving)"):
        write(ResultFolder(place, name), inputs, one="1")
    assert contents(tmp_path) == before


def test_an_input_behind_a_link_counts(tmp_path: Path, inputs: dict[str, Any]) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "images")
    through = {side: identity_of(tmp_path / "link" / f"{side}.nii") for side in ("fixed", "moving")}
    with pytest.raises(InputError, match="holds the pair's"):
        write(ResultFolder(tmp_path, "images"), through, one="1")
    with pytest.raises(InputError, match="holds the pair's"):
        write(ResultFolder(tmp_path, "link"), inputs, one="1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is in the way"):
        write(ResultFolder(tmp_path, "out"), inputs, one="1")


@pytest.mark.parametrize("step", range(6))
def test_a_failure_at_any_step_leaves_the_earlier_result(
    step: int, tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ResultFolder(tmp_path / "out", "a_to_b")
    write(folder, inputs, one="1", two="2")
    (folder.path / "mine.txt").write_text("mine")
    before, rename, replace, calls = contents(folder.output_dir), Path.rename, os.replace, [0]

    def failing(do: Any) -> Any:
        def call(*args: Any) -> Any:
            calls[0] += 1
            if calls[0] == step + 1:
                raise OSError(28, "No space left on device")
            return do(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing(rename))
        patch.setattr(os, "replace", failing(replace))
        with pytest.raises(InputError, match="No space left on device"):
            write(folder, inputs, "2", one="another", three="3")
    assert contents(folder.output_dir) == before
    assert folder.is_complete("1")


@pytest.mark.parametrize("step", range(8))
def test_a_kill_at_any_step_is_repaired_by_the_next_run(
    step: int, tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the process ended there: nothing is undone, nothing cleaned up."""
    folder = ResultFolder(tmp_path / "out", "a_to_b")
    write(folder, inputs, one="1", two="2")
    (folder.path / "mine.txt").write_text("mine")
    rename, replace, unlink, calls = Path.rename, os.replace, Path.unlink, [0]

    def until_killed(do: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] > step:
                raise KeyboardInterrupt
            return do(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", until_killed(rename))
        patch.setattr(os, "replace", until_killed(replace))
        patch.setattr(
            Path, "unlink", lambda path, **kwargs: unlink(path, **kwargs) if path.suffix == ".claim" else None
        )
        patch.setattr(result_folder.shutil, "rmtree", lambda *args, **kwargs: None)
        try:
            write(folder, inputs, "2", one="another", three="3")
        except KeyboardInterrupt:
            assert not folder.is_complete("2")
    remove_leftovers(folder.output_dir)
    assert [name for name in os.listdir(folder.output_dir) if name.startswith(".")] == []
    write(folder, inputs, "2", one="another", three="3")
    assert folder.is_complete("2")
    found = {name: text for name, text in contents(folder.path).items() if not name.startswith((".part-", "prov"))}
    assert found == {"one.txt": b"another", "three.txt": b"3", "mine.txt": b"mine"}


def test_leftovers_are_removed_and_the_work_of_others_is_not(tmp_path: Path) -> None:
    for name in (".a.0123abcd.part/new", ".b.0123abcd.part/new", ".mine.0123abcd.part/other", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".a.claim").touch()
    (tmp_path / ".c.0123abcd.part").symlink_to(tmp_path / ".hidden")
    with ResultFolder(tmp_path, "b").claimed():
        remove_leftovers(tmp_path)
        left = {".b.claim", ".b.0123abcd.part", ".c.0123abcd.part", ".mine.0123abcd.part", ".hidden"}
        assert set(os.listdir(tmp_path)) == left


def test_what_is_left_of_files_is_removed_in_the_folders_of_pairs_too(tmp_path: Path) -> None:
    left = [".part-01234567-metrics.csv/metrics.csv", "a/.part-89abcdef-provenance.json/provenance.json"]
    mine = [".part-01234567-notes/mine.txt", "a/notes.txt", "b/.part-01234567-x/x"]
    for name in (*left, *mine):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    remove_leftovers(tmp_path, ["a", "none"])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(mine)


# --- files beside others


def test_a_table_is_replaced_if_the_program_made_it(tmp_path: Path) -> None:
    table = tmp_path / "new" / "metrics.csv"
    for content in (b"first", b"second"):
        write_result(table, content)
        assert table.read_bytes() == content
    write_result(table.with_name("report.html"), lambda path: path.write_bytes(b"page"))
    assert sorted(read_record(table.parent)["files"]) == ["metrics.csv", "report.html"]
    assert sorted(os.listdir(table.parent)) == ["metrics.csv", "provenance.json", "report.html"]


def test_a_table_of_someone_else_stays(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("mine")
    with pytest.raises(InputError, match=r"'.*metrics.csv' is there already and was not written by this program"):
        write_result(tmp_path / "metrics.csv", b"ours")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "provenance.json").write_text('{"of": "another program"}')
    with pytest.raises(InputError, match=r"provenance\.json' is there already"):
        write_result(tmp_path / "b" / "metrics.csv", b"ours")
    (tmp_path / "link.csv").symlink_to(tmp_path / "metrics.csv")
    with pytest.raises(InputError, match="is there already"):
        write_result(tmp_path / "link.csv", b"ours")
    assert (tmp_path / "metrics.csv").read_text() == "mine"
    assert json.loads((tmp_path / "b" / "provenance.json").read_text()) == {"of": "another program"}


def test_a_table_that_was_changed_is_kept(tmp_path: Path) -> None:
    write_result(tmp_path / "metrics.csv", b"ours")
    (tmp_path / "metrics.csv").write_text("with my notes")
    write_result(tmp_path / "metrics.csv", b"ours again")
    assert (tmp_path / "metrics.kept-1.csv").read_text() == "with my notes"
    assert (tmp_path / "metrics.csv").read_bytes() == b"ours again"


def test_the_record_states_what_it_is_told(tmp_path: Path, inputs: dict[str, Any]) -> None:
    write_result(tmp_path / "a.nii", b"1", {"series": inputs["fixed"]}, {"weights": "w", "inputs": {}, "files": {}})
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert (record["weights"], list(record["files"]), list(record["inputs"])) == ("w", ["a.nii"], ["series"])


def test_results_of_another_series_stay(tmp_path: Path, inputs: dict[str, Any]) -> None:
    write_result(tmp_path / "aligned.nii", b"1", {"series": inputs["fixed"]})
    write_result(tmp_path / "aligned.nii", b"2", {"series": inputs["fixed"]})
    for name in ("aligned.nii", "other.nii"):
        with pytest.raises(InputError, match=r"holds results of another series, '.*fixed.nii'"):
            check_result(tmp_path / name, {"series": inputs["moving"]})
    assert (tmp_path / "aligned.nii").read_bytes() == b"2"
