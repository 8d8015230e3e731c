"""What the benchmarks share: numbers, tables, configurations, files."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from monai_regplugins.benchmark import reporting
from monai_regplugins.checks import InputError


def test_output_is_checked_before_the_work(tmp_path: Path) -> None:
    reporting.check_output(tmp_path / "table.md")
    reporting.check_output(None)
    with pytest.raises(InputError, match=r"ends in \.json or \.md"):
        reporting.check_output(tmp_path / "table.csv")
    with pytest.raises(InputError, match="folder does not exist"):
        reporting.check_output(tmp_path / "missing" / "table.md")


def test_table() -> None:
    lines = reporting.markdown_table(["method", "DSC"], [["greedy", reporting.number(0.12345, 3)]]).splitlines()
    assert lines == ["| method | DSC |", "| --- | ---: |", "| greedy | 0.123 |"]
    assert {reporting.number(value, 2) for value in (None, math.nan, math.inf)} == {"-"}
    below = reporting.table_with_facts(["method"], [["greedy"]], {"data_set": "Phantom"}).splitlines()
    assert below == ["| method |", "| --- |", "| greedy |", "", "- data set: Phantom"]


def test_setting() -> None:
    values = {"a=1": 1, "a=[1, 2]": [1, 2], "a=fast": "fast", "a=x=y": "x=y", "a=true": True}
    assert {text: reporting.setting(text) for text in values} == {text: ("a", v) for text, v in values.items()}
    with pytest.raises(argparse.ArgumentTypeError, match="'a' is no KEY=VALUE"):
        reporting.setting("a")


def test_given() -> None:
    args = argparse.Namespace(ckpt="model.pt", steps=None, seed=0)
    assert reporting.given(args, ("ckpt", "steps", "seed")) == {"ckpt": "model.pt", "seed": 0}


def test_configuration(tmp_path: Path) -> None:
    file = tmp_path / "configs" / "evaluate.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"bundle_root": "", "steps": 3}), encoding="utf-8")
    assert reporting.read_config(file, {"steps": 4}) == {"bundle_root": str(tmp_path), "steps": 4}
    with pytest.raises(InputError, match=r"no key 'step' to set\. Did you mean 'steps'"):
        reporting.read_config(file, {"step": 1})
    with pytest.raises(InputError, match="does not exist"):
        reporting.read_config(file.with_name("train.json"), {})


@dataclass
class Row:
    seconds: float


def test_publish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("report.md", "report.json"):
        assert reporting.publish(tmp_path / name, "text", {"seed": 1}, rows={"a": Row(2.0)}) == "text"
        assert capsys.readouterr().out == "text\n"
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == "text\n"
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content == {"seed": 1, "rows": {"a": {"seconds": 2.0}}}
    assert len(list(tmp_path.iterdir())) == 2, "a temporary file is left"


def test_clock_counts_work_not_waiting() -> None:
    cpu = torch.device("cpu")
    start = reporting.clock(cpu)
    sum(range(300_000))
    assert 0 < reporting.clock(cpu) - start < 1


def test_hardware() -> None:
    words = reporting.hardware(torch.device("cpu"))
    assert f"PyTorch {torch.__version__}" in words
    assert reporting.processor() in words
    assert f"{torch.get_num_threads()} thread(s)" in words


def test_command_line() -> None:
    words = reporting.command_line("somewhere/compare.py", ["--pairs", "1", "--output", "my table.md"])
    assert words == "python benchmarks/compare.py --pairs 1 --output 'my table.md'"
