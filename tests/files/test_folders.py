"""A folder that is made whole, once, or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from monai_regplugins.files.folders import absolute_path, files_in, is_foreign, is_made, make_folder


def fill(folder: Path) -> None:
    (folder / "a").write_text("new")


def test_a_folder_is_made_and_an_empty_one_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "deep" / "new", tmp_path / "empty"):
        assert not is_made(target)
        assert make_folder(target, fill) == target
        assert is_made(target)
        assert (target / "a").read_text() == "new"


def test_a_path_without_dots_leads_to_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link stays, unless ".." follows it: that leaves the folder it leads to."""
    for name in ("disk/scans", "disk/segs", "work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "work" / "mine").symlink_to(tmp_path / "disk" / "scans")
    monkeypatch.chdir(tmp_path / "work")
    assert absolute_path("../disk/scans") == tmp_path / "disk" / "scans"
    assert absolute_path("../work/mine") == tmp_path / "work" / "mine"
    assert absolute_path("mine/../segs") == tmp_path / "disk" / "segs"
    assert absolute_path("../work/nowhere") == tmp_path / "work" / "nowhere"


def test_one_that_holds_something_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    make_folder(tmp_path, fill)
    assert (tmp_path / "a").read_text() == "old"


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_folder(tmp_path / "new", fail)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    code = """
    import os, pathlib, sys
    from monai_regplugins.files.folders import make_folder
    make_folder(pathlib.Path(sys.argv[1]), lambda folder: ((folder / "a").touch(), os.kill(os.getpid(), 9)))
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "new")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    make_folder(tmp_path / "new", fill)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new" / "a").read_text() == "new"


def test_of_two_processes_the_faster_one_wins(tmp_path: Path) -> None:
    def overtaken(folder: Path) -> None:
        fill(folder)
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "a").write_text("of the other")

    make_folder(tmp_path / "new", overtaken)
    assert (tmp_path / "new" / "a").read_text() == "of the other"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


SYSTEM = [".DS_Store", "._a.dcm", "Thumbs.db", "THUMBS.DB", "desktop.ini", "DICOMDIR", "Icon\r", ".hidden/c.dcm"]
SYSTEM += ["__MACOSX/b/a.dcm", "@eaDir/a.dcm"]


def test_files_of_a_system_are_left_out_wherever_they_lie(tmp_path: Path) -> None:
    """The name of the folder itself, such as one below ``~/.cache``, does not matter."""
    folder = tmp_path / ".cache" / "DICOMDIR"
    for name in ["b.dcm", "a.dcm", "deep/c.dcm", *SYSTEM, *(f"deep/{name}" for name in SYSTEM)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert files_in(folder) == files_in(folder, "*.dcm") == [folder / "a.dcm", folder / "b.dcm"]
    assert files_in(folder, below=True) == [folder / "a.dcm", folder / "b.dcm", folder / "deep" / "c.dcm"]
    assert files_in(folder, "b*") == [folder / "b.dcm"]
    assert files_in(tmp_path / "none") == []
    assert all(is_foreign(Path(name)) for name in SYSTEM)
    assert not is_foreign(Path("dicomdir.dcm"))
