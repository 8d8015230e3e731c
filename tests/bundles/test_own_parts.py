"""The recipes of the page on own parts, each trained for an epoch with the files that the page shows."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

pytestmark = [pytest.mark.bundle, pytest.mark.slow]

Create = Callable[..., ConfigWorkflow]


@pytest.fixture
def recipes(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files."""
    page = (repository / "docs" / "how-to" / "use-your-own-parts.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]  # the later blocks are examples of their own
    (tmp_path / "own_parts.py").write_text(code, encoding="utf-8")
    for name, content in re.findall(r"`(own_\w+\.json)`:\n\n```json\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return tmp_path


@pytest.fixture
def train(create: Create, repository: Path, recipes: Path) -> Callable[..., ConfigWorkflow]:
    """Return a function that trains with one of the files."""

    def trained(name: str, **changes: Any) -> ConfigWorkflow:
        files = [repository / "bundles" / "ran" / "configs" / "train.json", recipes / name]
        workflow = create(files, recipes / "run", **changes)
        workflow.run()
        return workflow

    return trained


def means(folder: Path) -> dict[str, float]:
    """The row of the means of a table of measures."""
    with (folder / "eval" / "metrics.csv").open(newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["pair_id"] == "mean"]
    return {name: float(value) for name, value in row.items() if name != "pair_id" and value}


def test_similarity_and_a_further_term(train: Callable[..., ConfigWorkflow]) -> None:
    loss = train("own_similarity.json").parser.get_parsed_content("loss")
    assert type(loss.terms["similarity"].loss).__name__ == "GradientDifference"
    assert {"similarity", "smoothness", "information"} <= set(loss.last)
    assert loss.last["similarity"] > 0


def test_network(train: Callable[..., ConfigWorkflow], create: Create, repository: Path, recipes: Path) -> None:
    weights = train("own_network.json").parser.get_parsed_content("network").state_dict()
    saved = next((recipes / "run" / "models").glob("model*.pt"))
    file = recipes / "for_evaluation.json"
    definition = json.loads((recipes / "own_network.json").read_text())["network_def"]
    file.write_text(json.dumps({"network_def": definition, "registration#divisor": 4}))
    evaluation = create(
        [repository / "bundles" / "ran" / "configs" / "evaluate.json", file],
        recipes / "again",
        "infer",
        ckpt=str(saved),
    )
    evaluation.run()
    found = evaluation.parser.get_parsed_content("network").state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(value, found[name]) for name, value in weights.items())


def test_measure_that_selects_the_best_model(train: Callable[..., ConfigWorkflow], recipes: Path) -> None:
    score = json.loads((recipes / "own_measure.json").read_text())["validate#key_metric#score#measure"]
    workflow = train("own_measure.json", **{"validate#key_metric#score#measure": score})
    found = means(recipes / "run")
    state = workflow.parser.get_parsed_content("validate#evaluator").state
    assert state.metrics["score"] == pytest.approx(-found["own_brightness"], rel=1e-5)
    assert state.metrics["score_before"] == pytest.approx(-found["own_brightness_before"], rel=1e-5)
    assert found["own_brightness"] != found["own_brightness_before"]


def test_measure_of_an_inference(create: Create, repository: Path, trained_ran: Path, recipes: Path) -> None:
    (content,) = [
        value for name, value in json.loads((recipes / "own_measure.json").read_text()).items() if name.endswith("own")
    ]
    weights = str(next((trained_ran / "models").glob("model*.pt")))
    config = repository / "bundles" / "ran" / "configs" / "inference.json"
    create([config], recipes / "out", "infer", ckpt=weights, max_pairs=1, **{"register#own": content}).run()
    (file,) = (recipes / "out").glob("*/metrics.json")
    assert {"own_brightness", "own_brightness_before"} <= set(json.loads(file.read_text()))


def test_data_source(train: Callable[..., ConfigWorkflow], phantoms: Path, recipes: Path) -> None:
    (recipes / "scans").mkdir()
    for k, image in enumerate(sorted((phantoms / "imagesTr").glob("*.nii.gz"))[:4]):
        shutil.copy(image, recipes / "scans" / f"scan_{k}.nii.gz")
    data = train("own_data.json").parser.get_parsed_content("train#dataset").data
    assert [pair["pair_id"] for pair in data] == ["pair_0", "pair_1", "pair_2"]
