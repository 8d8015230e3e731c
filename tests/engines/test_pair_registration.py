from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Transform

from monai_regplugins.checks import InputError, input_error_message
from monai_regplugins.engines import PairPrepareBatch, PairRegistration
from monai_regplugins.fields import warp


class Load(Transform):
    """Stands for reading the files of a pair."""

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        if data["value"] is None:
            raise InputError("moving image is empty; copy it again.")
        image = torch.full((1, 4, 4), float(data["value"]))
        return {"pair_id": data["pair_id"], "moving": image, "fixed": image + 1, "spacing": torch.ones(2)}


def inferer(inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
    ddf = torch.ones(len(inputs), 2, 4, 4)
    return {"ddf": ddf, "warped": warp(inputs[:, :1], ddf)}


@pytest.fixture
def evaluator() -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([], None)),
        network=torch.nn.Identity(),
        inferer=inferer,  # type: ignore[arg-type]
        prepare_batch=PairPrepareBatch(),
    )


def test_one_pair_after_the_other(evaluator: SupervisedEvaluator) -> None:
    register = PairRegistration(evaluator, Load())
    results = [
        register({"pair_id": name, "value": value, "fixed": f"{name}.nii"}) for name, value in (("a", 1), ("b", 2))
    ]
    assert [result.pair_id for result in results] == ["a", "b"]
    assert [result.fixed.unique().item() for result in results] == [2.0, 3.0]
    assert results[0].ddf.shape == (2, 4, 4)
    assert results[0].given == {"pair_id": "a", "fixed": "a.nii"}
    assert all(result.seconds > 0 for result in results)


def test_an_error_is_raised_and_the_next_pair_can_be_registered(evaluator: SupervisedEvaluator) -> None:
    register = PairRegistration(evaluator, Load())
    with pytest.raises(RuntimeError) as caught:
        register({"pair_id": "a", "value": None})
    assert input_error_message(caught.value) == "moving image is empty; copy it again."
    assert register({"pair_id": "b", "value": 5}).pair_id == "b"


def test_weights_are_loaded_once(evaluator: SupervisedEvaluator) -> None:
    calls: list[Any] = []
    register = PairRegistration(evaluator, Load(), weights=calls.append)
    register.prepare()
    register({"pair_id": "a", "value": 1})
    register({"pair_id": "b", "value": 1})
    assert calls == [evaluator]


def test_the_evaluator_lets_go_of_a_pair(evaluator: SupervisedEvaluator) -> None:
    """Else the pair would be there beside the next one of a list."""
    result = PairRegistration(evaluator, Load())({"pair_id": "a", "value": 1})
    field = weakref.ref(result.ddf)
    result.pred.clear()
    assert field() is None
