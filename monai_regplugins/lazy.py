"""Lazy imports: of the modules of a package on first access (PEP 562), and of what other packages never use here."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["export_on_demand", "postponed_imports"]


def export_on_demand(package: str, **names: Sequence[str]) -> None:
    """Export public names of a package that are imported from its modules on first access.

    So that who needs one name of a package does not wait for all of its modules, nor hold them in memory. For type
    checkers the package repeats its imports under ``if TYPE_CHECKING``. A name that is also that of its module has to
    be imported in the usual way: Python would put the module in its place as soon as anyone imports that.

    Args:
        package: ``__name__`` of the package.
        names: public names, by the names of the package's modules.

    Example:
        >>> from monai_regplugins import engines  # whose file ends with export_on_demand(__name__, ...)
        >>> engines.BatchRunner.__module__
        'monai_regplugins.engines.batch_runner'
    """
    module_of = {name: module for module, its_names in names.items() for name in its_names}
    content = vars(sys.modules[package])

    def find(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        content[name] = getattr(import_module(f"{package}.{module_of[name]}"), name)
        return content[name]

    content["__getattr__"] = find
    content["__dir__"] = lambda: sorted({*content, *module_of})


@contextmanager
def postponed_imports(*modules: str) -> Iterator[None]:
    """Let other packages import names of some modules without these modules.

    Each name becomes a class of which nothing is an instance, and which imports its module when it is used. Modules
    that are imported already stay as they are, and after the ``with`` block all are imported in the usual way.

    Args:
        modules: full names of modules of which only functions, classes and modules are imported by name.

    Example:
        >>> with postponed_imports("this"):
        ...     from this import d
        >>> "this" in sys.modules  # which would have printed a poem
        False
    """
    stand_ins = {name: _StandIn(name) for name in modules if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for stand_in in stand_ins.values():
            stand_in.leave()


class _StandIn(ModuleType):
    """What is imported instead of a module."""

    def leave(self) -> None:
        """Give way to the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (), {"stand_in": self})


class _Name(type):
    """A name of a module that is imported when the name is called, or asked for anything."""

    stand_in: _StandIn

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        return cls._found()(*arguments, **options)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls._found(), name)

    def _found(cls) -> Any:
        cls.stand_in.leave()
        return getattr(import_module(cls.stand_in.__name__), cls.__name__)
