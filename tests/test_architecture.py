"""The page on the architecture names files, objects and layers that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from monai_regplugins.result import RegistrationResult

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "concepts" / "architecture.md").read_text(encoding="utf-8")
STATIONS = re.findall(r"^[ |-]*(\w+) .*?(monai_regplugins/\S+\.py)", PAGE.split("```")[1], flags=re.MULTILINE)


def targets(config: Any) -> Iterator[str]:
    """Names of all classes that a configuration makes, in its order."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config["_target_"].rpartition(".")[2]
        config = list(config.values())
    for part in config if isinstance(config, list) else []:
        yield from targets(part)


@pytest.mark.parametrize(("name", "path"), STATIONS)
def test_each_station_is_where_the_page_says(name: str, path: str) -> None:
    module = import_module(path.removesuffix(".py").replace("/", "."))
    assert getattr(module, name).__module__ == module.__name__


def test_no_station_of_a_configuration_is_left_out() -> None:
    config = json.loads((ROOT / "bundles" / "ran" / "configs" / "inference.json").read_text(encoding="utf-8"))
    ours = set(targets({key: config[key] for key in ("register", "queue", "writer", "inferer", "registration")}))
    named = {name for name, _ in STATIONS}
    assert ours - named == {"WeightsLoader"}
    order = [name for name in targets(config["preprocessing"]) if name in named]
    assert order == [name for name, _ in STATIONS if name in order]


def test_files_and_properties_exist() -> None:
    assert all((ROOT / path).is_file() for path in re.findall(r"monai_regplugins/\w\S*\.py", PAGE))
    rows = re.findall(r"^\| (`\w.*?) \|", PAGE, flags=re.MULTILINE)
    properties = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert properties
    assert all(hasattr(RegistrationResult, name) for name in properties)
