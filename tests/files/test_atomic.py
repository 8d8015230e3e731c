"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.files import atomic
from monai_regplugins.files.atomic import replace_file, write_file


def refuse(error: BaseException) -> Any:
    """Return a function that raises ``error`` whatever it is given."""

    def refused(*args: object, **kwargs: object) -> None:
        raise error

    return refused


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_makes_folders_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    for content in (b"a longer first content", b"second"):
        write_file(path, content)
        assert path.read_bytes() == content
    assert names(path.parent) == ["file.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    write_file(path, b"old")
    monkeypatch.setattr(os, call, refuse(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))

    with pytest.raises(InputError, match=r"cannot write '.*file.bin' \(No space left on device\).*unchanged"):
        write_file(path, b"new")

    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_interrupt_passes_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    write_file(path, b"old")
    monkeypatch.setattr(os, "fsync", refuse(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        write_file(path, b"new")

    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_what_a_killed_process_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    with monkeypatch.context() as killed:  # neither renamed nor cleaned up
        killed.setattr(os, "replace", refuse(KeyboardInterrupt()))
        killed.setattr(atomic.shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            write_file(path, b"half")
    assert len(names(tmp_path)) == 1

    write_file(path, b"whole")

    assert names(tmp_path) == ["file.bin"]
    assert path.read_bytes() == b"whole"


def test_a_file_in_place_of_a_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"no folder")
    with pytest.raises(InputError, match="cannot write"):
        write_file(tmp_path / "folder" / "file.bin", b"content")


def test_files_of_others_are_no_leftovers(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / ".part-01234567-file.bin").symlink_to(tmp_path / "mine")
    (tmp_path / ".part-89abcdef-file.bin").mkdir()
    (tmp_path / ".part-89abcdef-file.bin" / "mine.txt").write_text("mine")
    before = names(tmp_path)
    write_file(tmp_path / "file.bin", b"content")
    assert names(tmp_path) == sorted([*before, "file.bin"])


def test_what_is_left_of_every_file_of_a_folder_is_removed(tmp_path: Path) -> None:
    for name in (".part-01234567-a.csv/a.csv", ".part-89abcdef-b/b/c", ".part-01234567-mine/other", ".part-1-a/a"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    with atomic.workshop(tmp_path / "a.csv") as mine:
        atomic.remove_parts(tmp_path)
        assert names(tmp_path) == sorted([".part-01234567-mine", ".part-1-a", mine.name])
    atomic.remove_parts(tmp_path / "none")


def test_another_process_is_not_disturbed(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        write_file(tmp_path / "file.bin", b"by another one, meanwhile")
        temporary.write_bytes(b"last")

    replace_file(tmp_path / "file.bin", write)
    assert (tmp_path / "file.bin").read_bytes() == b"last"
    assert names(tmp_path) == ["file.bin"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "file.bin").symlink_to(tmp_path / "mine")
    write_file(tmp_path / "file.bin", b"content")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert (tmp_path / "file.bin").read_bytes() == b"content"
