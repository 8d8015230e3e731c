"""Learned deformable registration for MONAI: networks, losses, transforms and engines' parts for registration bundles.

Every class that a bundle's configuration names lives in a subpackage (``monai_regplugins.networks``,
``monai_regplugins.losses``, ...) and is written there with its full dotted path. The top level offers only what each
configuration calls by itself, and ``load_bundle``; it imports none of the subpackages.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from monai_regplugins.bundle import bundle_root, configuration, start

if TYPE_CHECKING:
    from monai_regplugins.registration import load_bundle

__all__ = ["__version__", "bundle_root", "configuration", "load_bundle", "start"]

__version__ = "0.1.0"

SUBPACKAGES = frozenset(module.name for module in iter_modules(__path__))


def __getattr__(name: str) -> Any:
    """Import ``load_bundle`` or a subpackage when it is asked for, so that a configuration needs one import."""
    if name == "load_bundle":
        from monai_regplugins.registration import load_bundle

        return load_bundle
    if name in SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
