"""The notebook runs from top to bottom."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure


def run(source: str, values: dict[str, Any]) -> Any:
    """Run a cell; return what its last line is, as a notebook shows it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), values)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), values)


@pytest.mark.slow
def test_the_notebook_runs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads((repository / "docs" / "first_registration.ipynb").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {}
    shown = [run("".join(cell["source"]), values) for cell in content["cells"] if cell["cell_type"] == "code"]
    _, (level, _), figure, metrics, (_, length), (names, same) = shown
    assert level == "PASS"
    assert isinstance(figure, Figure)
    assert metrics["dsc"] > 0.8 > 0.5 > metrics["dsc_before"]
    assert length.endswith("at most")
    assert {"warped.nii.gz", "metrics.json", "registration.png"} <= set(names)
    assert same


def test_the_notebook_holds_no_outputs(repository: Path) -> None:
    content = json.loads((repository / "docs" / "first_registration.ipynb").read_text(encoding="utf-8"))
    assert [cell["outputs"] for cell in content["cells"] if cell.get("outputs")] == []
