from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_regplugins.apps.label.requests import RequestError
from monai_regplugins.apps.label.runs import Runs
from monai_regplugins.checks import InputError


def test_one_training_at_a_time(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "ran")
    assert runs.last() is None
    runs.check_free()
    with runs.begun({"model": "ran", "max_epochs": 3}) as run:
        assert run == tmp_path / "ran" / "runs" / "1"
        state = runs.last()
        assert state is not None
        assert (state["status"], state["id"], state["request"]["max_epochs"]) == ("RUNNING", "ran-1", 3)
        for begin in (Runs(tmp_path / "ran").check_free, lambda: Runs(tmp_path / "ran").begun({}).__enter__()):
            with pytest.raises(RequestError, match=f"'ran' is being trained since {state['start_ts']}") as caught:
                begin()
            assert caught.value.status == 409
        assert [path.name for path in run.parent.iterdir()] == ["1"]
    runs.check_free()
    assert runs.last() == {**state, "status": "DONE", "end_ts": runs.last()["end_ts"]}  # type: ignore[index]


def test_how_a_training_ended(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "ran")
    with pytest.raises(InputError, match="too few"), runs.begun({}):
        raise InputError("too few images.")
    state = runs.last()
    assert state is not None
    assert (state["status"], state["details"]) == ("ERROR", ["too few images."])
    with runs.begun({}) as run:
        killed = (run / "state.json").read_bytes()
    (run / "state.json").write_bytes(killed)  # as that of a process that was killed
    stopped = runs.last()
    assert stopped is not None
    assert (stopped["status"], stopped["id"]) == ("STOPPED", "ran-2")
    assert json.loads(killed)["status"] == "RUNNING"
    (run / "state.json").write_text("damaged")
    assert runs.last() == state
