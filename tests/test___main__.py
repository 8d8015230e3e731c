"""The package as a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import monai_regplugins


def test_the_package_runs_as_a_program(repository: Path) -> None:
    words = [sys.executable, "-m", "monai_regplugins"]
    done = subprocess.run([*words, "--version"], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout == f"regplugins {monai_regplugins.__version__}\n"
    refused = subprocess.run([*words, "aply"], cwd=repository, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
