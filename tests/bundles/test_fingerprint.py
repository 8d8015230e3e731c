"""Whatever changes a result changes its fingerprint."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from monai_regplugins.io.provenance import NOT_SETTINGS, Provenance

OMITTED = {key for keys in NOT_SETTINGS.values() for key in keys}
BUNDLES = ("ran", "r2n2", "regnet")


def scalars(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each number, text and empty list of a configuration stands."""
    if isinstance(value, dict | list) and value:
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from scalars(entry, (*place, key))
    else:
        yield place


def flipped(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x" if isinstance(value, str) else ["x"]


def fingerprint(config: dict[str, Any]) -> str:
    return str(Provenance(config).describe({"fixed": "a", "moving": "b"})["fingerprint"])


@pytest.mark.parametrize("name", BUNDLES)
def test_every_scalar_counts_or_has_a_reason_not_to(name: str, repository: Path) -> None:
    config = ConfigParser.load_config_file(repository / "bundles" / name / "configs" / "inference.json")
    before, same = fingerprint(config), set()
    for place in scalars(config):
        changed = copy.deepcopy(config)
        parent: Any = changed
        for key in place[:-1]:
            parent = parent[key]
        parent[place[-1]] = flipped(parent[place[-1]])
        if fingerprint(changed) == before:
            same.add(place[0])
    assert same == OMITTED & config.keys()


@pytest.mark.parametrize("name", BUNDLES)
def test_nested_overrides_count(name: str, repository: Path) -> None:
    config = ConfigParser.load_config_file(repository / "bundles" / name / "configs" / "inference.json")
    parser = ConfigParser(copy.deepcopy(config))
    parser["inferer#learning_rate"] = 0.4
    assert fingerprint(parser.get()) != fingerprint(config)
