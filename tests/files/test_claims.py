from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.files.claims import claim, release

HOLD = """
import sys, time
from pathlib import Path
from monai_regplugins.files.claims import claim
print(claim(Path(sys.argv[1])) is not None, flush=True)
time.sleep(60)
"""


def test_only_one_has_a_claim_and_nothing_is_left(tmp_path: Path) -> None:
    place = tmp_path / ".a.claim"
    first = claim(place)
    assert first is not None
    assert claim(place) is None
    release(place, first)
    second = claim(place)
    assert second is not None
    release(place, second)
    assert list(tmp_path.iterdir()) == []


def test_one_waits_for_the_other(tmp_path: Path) -> None:
    place, order = tmp_path / ".a.claim", list[str]()
    first = claim(place)
    assert first is not None

    def second() -> None:
        descriptor = claim(place, wait=True)
        order.append("second")
        assert descriptor is not None
        release(place, descriptor)

    thread = threading.Thread(target=second)
    thread.start()
    order.append("first")
    release(place, first)
    thread.join(10)
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_has_no_claim(tmp_path: Path) -> None:
    place = tmp_path / ".a.claim"
    command = [sys.executable, "-c", HOLD, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert claim(place) is None
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert place.exists()
    descriptor = claim(place)
    assert descriptor is not None
    release(place, descriptor)


def test_what_is_no_claim_stays(tmp_path: Path) -> None:
    place, mine = tmp_path / ".a.claim", tmp_path / "mine.txt"
    mine.write_text("mine")
    place.symlink_to(mine)
    with pytest.raises(OSError, match="symbolic links"):
        claim(place)
    place.unlink()
    place.write_text("mine too")
    with pytest.raises(InputError, match="is in the way"):
        claim(place)
    assert (mine.read_text(), place.read_text()) == ("mine", "mine too")
