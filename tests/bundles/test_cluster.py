"""The example of a cluster runs, on two workers of this machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.mark.slow
@pytest.mark.skipif(find_spec("distributed") is None, reason="needs dask and distributed")
def test_pairs_are_registered_by_workers(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs" / "how-to" / "use-in-python.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(from dask.*?)```", page, re.DOTALL)
    (tmp_path / "cluster.py").write_text(example, encoding="utf-8")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (3, 6, 6)).astype(np.uint8)
    for number, values in enumerate(coarse):
        Image.fromarray(values).resize((48, 48), Image.Resampling.BICUBIC).save(tmp_path / f"{number}.png")
    lines = ["fixed,moving,pair_id", "0.png,1.png,first", "0.png,2.png,second", "0.png,0.png,third"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "cluster.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    levels = ast.literal_eval(done.stdout.splitlines()[-1])
    assert levels.keys() == {"first", "second", "third"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == levels.keys()
    assert all((tmp_path / "out" / name / "provenance.json").is_file() for name in levels)
