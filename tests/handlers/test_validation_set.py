"""What distinguishes two validations, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose

from monai_regplugins.handlers import RegistrationMetrics
from monai_regplugins.handlers.validation_set import validation_fingerprint
from monai_regplugins.transforms import LoadPaird, ScalePaird


def evaluator(items: list[Any], window: Any = (0, 100), measure: str = "dsc") -> Any:
    """The parts of an evaluator that are looked at."""
    transform = Compose([LoadPaird(spatial_dims=3), ScalePaird(window=window)])
    loader = DataLoader(Dataset(items, transform), batch_size=1)
    return SimpleNamespace(data_loader=loader, state=SimpleNamespace(measures={"score": measure}))


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    """Two pairs, one of files and one in memory."""
    for name in "ab":
        (tmp_path / f"{name}.nii.gz").write_bytes(name.encode() * 100)
    paths = {"moving": str(tmp_path / "a.nii.gz"), "fixed": str(tmp_path / "b.nii.gz")}
    arrays = {"moving": torch.zeros(1, 2, 2), "fixed": np.ones((1, 2, 2)), "field": {"seed": 1, "next": True}}
    return [{**paths, "pair_id": "a_to_b"}, {**arrays, "pair_id": "frame", "spacing": (1.0, None)}]


def test_equal_is_equal_and_a_data_set_may_move(items: list[dict[str, Any]], tmp_path: Path) -> None:
    found = validation_fingerprint(evaluator(items))
    assert found["measure"] == "dsc"
    assert found == validation_fingerprint(evaluator([dict(item) for item in items]))
    moved = shutil.copytree(tmp_path, tmp_path / "moved")
    paths = {key: str(moved / Path(items[0][key]).name) for key in ("moving", "fixed")}
    assert found == validation_fingerprint(evaluator([items[0] | paths, items[1]]))


@pytest.mark.parametrize("change", ["content", "order", "fewer", "array", "number", "name"])
def test_other_pairs(items: list[dict[str, Any]], tmp_path: Path, change: str) -> None:
    before = validation_fingerprint(evaluator(items))
    first, second = items
    if change == "content":  # of the same size
        (tmp_path / "a.nii.gz").write_bytes(b"c" * 100)
    changed = {
        "content": items,
        "order": [second, first],
        "fewer": [first],
        "array": [first, {**second, "moving": torch.full((1, 2, 2), 1e-6)}],
        "number": [first, {**second, "field": {"seed": 2, "next": True}}],
        "name": [{**first, "pair_id": "b_to_a"}, second],
    }
    after = validation_fingerprint(evaluator(changed[change]))
    assert {key for key in before if before[key] != after[key]} == {"pairs"}


def test_other_measure_and_preprocessing(items: list[dict[str, Any]]) -> None:
    before = validation_fingerprint(evaluator(items))
    assert before | {"measure": "tre"} == validation_fingerprint(evaluator(items, measure="tre"))
    after = validation_fingerprint(evaluator(items, window=(0, 200)))
    assert {key for key in before if before[key] != after[key]} == {"preprocessing"}


def test_a_real_evaluator(make_training: Any) -> None:
    found = [
        validation_fingerprint(make_training(metric=RegistrationMetrics(**kwargs), num_validation=number).evaluator)
        for kwargs, number in (({}, 2), ({"labels": [1, 2]}, 2), ({}, 2), ({}, 3))
    ]
    assert found[0] == found[2]
    assert [one["measure"] for one in found[:2]] == ["dsc", "dsc of labels 1, 2"]
    assert found[0]["pairs"] != found[3]["pairs"]


def test_a_metric_that_does_not_tell_and_no_data_set(items: list[dict[str, Any]]) -> None:
    bare = SimpleNamespace(data_loader=[1, 2], state=SimpleNamespace())
    assert validation_fingerprint(bare, "loss")["measure"] == "loss"
