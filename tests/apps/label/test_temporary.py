from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from monai_regplugins.apps.label.temporary import remove_abandoned

OWN = """
import os, sys, tempfile, time
from monai_regplugins.apps.label.temporary import own_folder
folder = own_folder()
(folder / "label.nii.gz").write_text("a patient")
assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(folder)
print(folder, flush=True)
sys.stdin.read()
"""
CHILD = """
import time
from monai_regplugins.apps.label.temporary import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def started(code: str, temporary: Path) -> subprocess.Popen[str]:
    """A process with a folder for its temporary files."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_folders_end_with_their_processes(tmp_path: Path) -> None:
    killed, alive = started(OWN, tmp_path), started(OWN, tmp_path)
    places = [Path(line(process)) for process in (killed, alive)]
    killed.kill()
    killed.communicate()
    foreign, link = tmp_path / "monai_regplugins_notes", tmp_path / "monai_regplugins_link"
    foreign.mkdir()  # without a lock it may be anything
    link.symlink_to(places[1])
    assert places[0].is_dir()  # it could not
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([places[1], foreign, link])
    alive.communicate()  # ends its input, and so the process
    assert sorted(tmp_path.iterdir()) == sorted([foreign, link])


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    parent = started(PARENT, tmp_path)
    child = int(line(parent))
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.1)


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended, but that nobody has waited for, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
