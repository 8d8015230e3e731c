"""Lazy imports: a package imports a module when one of its names is first accessed (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

__all__ = ["export_on_demand"]


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
