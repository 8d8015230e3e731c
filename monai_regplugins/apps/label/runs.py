"""Trainings of a bundle: one at a time, each in a folder of its own that says how far it has come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from monai_regplugins.apps.label.requests import RequestError
from monai_regplugins.checks import InputError
from monai_regplugins.files.atomic import write_file
from monai_regplugins.files.claims import claim, release

__all__ = ["Runs"]

STATE = "state.json"
CLAIM = ".training.claim"


class Runs:
    """The trainings in a folder, ``runs/<number>``.

    Args:
        folder: that of a bundle's trained models.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def begun(self, request: Mapping[str, Any]) -> Iterator[Path]:
        """Keep other trainings away, yield the folder of a new one, and write down how it ended.

        Raises:
            RequestError: When another one has not ended, status 409.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = claim(self.folder / CLAIM)
        if descriptor is None:
            raise self._refusal()
        try:
            run = self._new_folder()
            state = {"id": f"{self.folder.name}-{run.name}", "request": dict(request), "start_ts": _now()}
            _write(run, {**state, "status": "RUNNING"})
            try:
                yield run
            except BaseException as error:
                reason = str(error) if isinstance(error, InputError) else repr(error)
                _write(run, {**state, "status": "ERROR", "end_ts": _now(), "details": [reason]})
                raise
            _write(run, {**state, "status": "DONE", "end_ts": _now()})
        finally:
            release(self.folder / CLAIM, descriptor)

    def check_free(self) -> None:
        """Check that a training may begin.

        Raises:
            RequestError: When one has not ended, status 409.
        """
        if self.is_running():
            raise self._refusal()

    def is_running(self) -> bool:
        """Whether a process is at a training."""
        if not (self.folder / CLAIM).is_file():
            return False
        descriptor = claim(self.folder / CLAIM)
        if descriptor is not None:
            release(self.folder / CLAIM, descriptor)
        return descriptor is None

    def last(self) -> dict[str, Any] | None:
        """The state of the last training as MONAI Label's tasks have it; STOPPED if its process did not live to end it.

        None if there was none.
        """
        state = next(filter(None, map(_read, reversed(self._folders()))), None)
        if state is not None and state["status"] == "RUNNING" and not self.is_running():
            return {**state, "status": "STOPPED"}
        return state

    def _folders(self) -> list[Path]:
        """The folders of all trainings, the last one last."""
        folders = (path for path in (self.folder / "runs").glob("*") if path.name.isdigit())
        return sorted(folders, key=lambda path: int(path.name))

    def _new_folder(self) -> Path:
        taken = self._folders()
        folder = self.folder / "runs" / str(int(taken[-1].name) + 1 if taken else 1)
        folder.mkdir(parents=True)
        return folder

    def _refusal(self) -> RequestError:
        since = next((state["start_ts"] for state in map(_read, reversed(self._folders())) if state), "a moment ago")
        return RequestError(
            f"'{self.folder.name}' is being trained since {since}, by this server or another one with the same app "
            "folder; wait until that has ended, or stop it.",
            409,
        )


def _now() -> str:
    """The time as MONAI Label writes it."""
    return datetime.now().strftime("%Y-%m-%d %H:%M:%S")


def _write(run: Path, state: Mapping[str, Any]) -> None:
    write_file(run / STATE, (json.dumps(state, indent=2, default=str) + "\n").encode())


def _read(run: Path) -> dict[str, Any] | None:
    """The state of a training; None of one that has none, as those of earlier versions."""
    try:
        state: dict[str, Any] = json.loads((run / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state
