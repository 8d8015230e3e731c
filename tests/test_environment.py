"""A user without a name, as in containers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from monai_regplugins.environment import name_user

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
WITHOUT_ENTRY = """
import pwd
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code as a user whom neither the environment nor the system names."""
    known = {key: value for key, value in os.environ.items() if key not in NAMES}
    return subprocess.run([sys.executable, "-c", WITHOUT_ENTRY + code], env=known, capture_output=True, text=True)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users have numbers on POSIX systems")
@pytest.mark.slow
def test_the_package_is_imported_by_a_user_without_a_name() -> None:
    assert "uid not found" in run("import monai").stderr, "MONAI does not ask for the name any more"
    done = run("import monai_regplugins.readers.images, monai.config, getpass; print(getpass.getuser())")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"uid{os.getuid()}"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users have numbers on POSIX systems")
def test_a_number_becomes_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("import monai_regplugins, os; print(os.environ['USER'])")
    assert done.stdout.split() == [f"uid{os.getuid()}"], done.stderr
    monkeypatch.setenv("USER", "jane")
    monkeypatch.delenv("LOGNAME", raising=False)
    name_user()
    assert os.environ["USER"] == "jane"


def test_the_program_starts(tmp_path: Path) -> None:
    done = run("import sys; from monai_regplugins.cli import main; sys.argv[1:] = ['--version']; main()")
    assert done.stdout.startswith("regplugins "), done.stderr
