from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Transform

from monai_regplugins.checks import InputError
from monai_regplugins.engines import PairQueue


class Load(Transform):
    """Stands for reading the files of a pair."""

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        if data["value"] is None:
            raise InputError("moving image is empty; copy it again.")
        if data["value"] == "fault":
            raise ArithmeticError("a fault of the program")
        return {"pair_id": data["pair_id"], "image": torch.full((1, 2), float(data["value"]))}


class Register:
    """An evaluator that doubles an image, with the results in ``results``."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.results: dict[str, float] = {}
        self.calls = 0
        pairs = [{"pair_id": name, "value": value} for name, value in values.items()]
        self.engine = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(pairs, Load()), batch_size=1),
            network=torch.nn.Identity(),
            iteration_update=self.register,
        )

    def register(self, engine: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        self.calls += 1
        self.results[batch["pair_id"][0]] = 2 * float(batch["image"].mean())
        return {}


def test_all_pairs_are_registered_and_the_end_is_told() -> None:
    register, ended = Register({"a": 1, "b": 2}), list[Any]()
    PairQueue(register.engine, on_end=ended.append).run()
    assert register.results == {"a": 2.0, "b": 4.0}
    assert ended == [["a", "b"]]
    assert register.calls == 2
    assert register.engine.state.epoch_length == 2


def test_a_pair_that_fails_is_told_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    register, ended = Register({"a": 1, "b": None, "c": 3}), list[Any]()
    queue = PairQueue(register.engine, on_end=ended.append)
    with caplog.at_level(logging.ERROR), pytest.raises(InputError, match=r"^1 of 3 pairs failed \(b\)"):
        queue.run()
    assert register.results == {"a": 2.0, "c": 6.0}
    assert ended == [["a", "c"]]
    assert "b: moving image is empty; copy it again." in [record.getMessage() for record in caplog.records]


def test_pairs_that_are_done_are_left_out() -> None:
    register = Register({"a": 1, "b": None, "c": 3})
    PairQueue(register.engine, is_done=lambda pair: pair["pair_id"] != "c").run()
    assert register.results == {"c": 6.0}


def test_an_interruption_ends_it_and_the_data_loader_is_the_same_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    register = Register({"a": 1, "b": 2, "c": 3})
    loader = register.engine.data_loader

    def interrupt(engine: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        if "a" in register.results:
            raise KeyboardInterrupt
        return register.register(engine, batch)

    monkeypatch.setattr(register.engine, "_process_function", interrupt)
    with pytest.raises(KeyboardInterrupt):
        PairQueue(register.engine).run()
    assert register.results == {"a": 2.0}
    assert register.engine.data_loader is loader


def test_a_single_pair_fails_with_its_own_error_and_is_done_again() -> None:
    ended: list[Any] = []
    with pytest.raises(RuntimeError) as caught:
        PairQueue(Register({"a": None}).engine, on_end=ended.append).run()
    assert "moving image is empty" in str(caught.value.__cause__)
    register = Register({"a": 1})
    PairQueue(register.engine, is_done=lambda pair: True, on_end=ended.append).run()
    assert register.results == {"a": 2.0}
    assert ended == []


def test_what_ails_all_pairs_is_told_once() -> None:
    register = Register({"a": 1, "b": 2})

    def no_weights(engine: Any) -> None:
        raise InputError("there is no model; train one.")

    register.engine.add_event_handler(Events.STARTED, no_weights)
    with pytest.raises(InputError, match="no model"):
        PairQueue(register.engine).run()


def test_a_fault_of_the_program_is_not_hidden() -> None:
    register = Register({"a": "fault", "b": 2})
    with pytest.raises(RuntimeError):
        PairQueue(register.engine).run()
    assert register.results == {}
