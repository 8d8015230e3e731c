"""Fixtures for all tests."""

from __future__ import annotations

import locale
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_regplugins.checks import say_when_stopped

ROOT = Path(__file__).resolve().parents[1]

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # they share the cores
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Return the folder of a data set of real images beside the repository, or skip the test."""

    def find(name: str) -> Path:
        folder = ROOT.parent / "shared" / "data" / name
        if not folder.is_dir():
            pytest.skip(f"needs the real images of {name}, expected in ../shared/data beside the repository")
        return folder

    return find


@pytest.fixture(autouse=True)
def _termination() -> Iterator[None]:
    """Give back what ends the process: the start of a configuration lets SIGTERM raise, which a test would swallow.

    And what it says then: a training says how to go on with it.
    """
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    say_when_stopped(None)


@pytest.fixture(autouse=True)
def _encoding() -> Iterator[None]:
    """Give back the locale: SimpleITK sets that of C when it writes DICOM, and text files are ASCII by default then."""
    before = locale.setlocale(locale.LC_CTYPE)
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Fix all global random numbers before each test."""
    value = 0
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 -- MONAI's transforms may draw from the global state
    torch.manual_seed(value)
    return value
