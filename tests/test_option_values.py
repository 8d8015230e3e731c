"""Values of options by the kind of their defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import create_workflow

from monai_regplugins.checks import InputError, input_error_message
from monai_regplugins.option_values import default_of, option_value


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        ("false", True, False),
        ("False", True, False),
        ("TRUE", False, True),
        (0, True, False),
        (1, False, True),
        ("$@refine_steps > 0", False, "$@refine_steps > 0"),
        (None, False, None),
        (3, 30, 3),
        (0.5, 30, 0.5),
        ("@other", 30, "@other"),
        ([0, 1, 2], 0, [0, 1, 2]),  # one for each axis
        ([], [-160, 240], []),
        ((0, 1), [-160, 240], (0, 1)),
        (["$1 + 1", 2], [-160, 240], ["$1 + 1", 2]),
        ("", [-160, 240], ""),
        ("all", [], "all"),  # a list of names
        ("voxel", None, "voxel"),
        ("lncc", "mse", "lncc"),
        (3, "auto", 3),
        ({"_target_": "x"}, {"_target_": "y"}, {"_target_": "x"}),
    ],
)
def test_values_of_the_kind_of_the_default(value: Any, default: Any, expected: Any) -> None:
    found = option_value("name", value, default)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "default", "message"),
    [
        ("maybe", False, "name is 'maybe', expected true or false"),
        (2, False, "name is 2, expected true or false"),
        ("abc", 30, r"name is 'abc', expected a number \(by default 30\)"),
        (True, 30, r"name is True, expected a number \(by default 30\)"),
        (24, [24, 20, 24], "name is 24, expected a list of numbers such as"),
        ("24", [24, 20, 24], "name is '24', expected a list of numbers such as"),
        (["a", "b"], [-160, 240], "expected a list of numbers such as"),
    ],
)
def test_other_kinds_are_refused(value: Any, default: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        option_value("name", value, default)


def test_default_of_an_id() -> None:
    config = {"loss": {"terms": {"weight": 2}}, "steps": 3}
    assert default_of(config, "loss#terms::weight") == 2
    assert default_of(config, "steps") == 3
    assert default_of(config, "steps#more") is None
    assert default_of(config, "none#more") is None


@pytest.fixture
def overridden(repository: Path, tmp_path: Path) -> Any:
    """A function that creates RAN's inference with overrides."""
    config_file = str(repository / "bundles" / "ran" / "configs" / "inference.json")
    fixed = {"config_file": config_file, "workflow_type": "inference", "logging_file": False}
    return lambda **overrides: create_workflow(**fixed, output_dir=str(tmp_path), **overrides).parser


def test_a_switch_of_a_configuration_is_off_however_it_is_written(overridden: Any) -> None:
    parser = overridden(**{"inverse": "false", "masked_loss": "FALSE", "amp": 0, "registration#passes": 2})
    assert [parser.get_parsed_content(key) for key in ("inverse", "masked_loss", "amp")] == [False, False, False]
    assert parser.get_parsed_content("writer").inverse is False


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"inverse": "maybe"}, "inverse is 'maybe', expected true or false"),
        ({"refine_steps": "abc"}, r"refine_steps is 'abc', expected a number \(by default 30\)"),
        ({"spatial_size": 24}, "spatial_size is 24, expected a list of numbers"),
        ({"device": "cuda:1"}, "device is 'cuda:1', but PyTorch .* finds no GPU here"),
    ],
)
def test_a_configuration_refuses_values_of_another_kind(
    overrides: dict[str, Any], message: str, overridden: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError) as caught:
        overridden(**overrides)
    assert re.match(message, input_error_message(caught.value) or "")
