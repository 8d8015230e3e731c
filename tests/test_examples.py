"""The examples in the docstrings: they run, and every public class of the building blocks has one."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import monai_regplugins

PACKAGE = Path(monai_regplugins.__file__).parent
WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
BUILDING_BLOCKS = ["fields", "losses", "metrics", "networks.blocks", "networks.nets", "inferers", "transforms"]


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", [module_name(path) for path in WITH_EXAMPLES])
def test_examples_give_what_they_say(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


def test_a_wrong_example_is_noticed() -> None:
    def wrong() -> None:
        """>>> 1 + 1
        3
        """

    (example,) = doctest.DocTestFinder().find(wrong, "wrong")
    assert doctest.DocTestRunner(verbose=False).run(example, out=lambda text: None).failed == 1


@pytest.mark.parametrize("part", BUILDING_BLOCKS)
def test_public_classes_have_an_example(part: str) -> None:
    module = import_module(f"{monai_regplugins.__name__}.{part}")
    classes = [value for name in module.__all__ if inspect.isclass(value := getattr(module, name))]
    assert [value.__name__ for value in classes if ">>> " not in (value.__doc__ or "")] == []
