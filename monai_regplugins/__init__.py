"""Learned deformable registration for MONAI: networks, losses, transforms and engines' parts for registration bundles.

Every class that a bundle's configuration names lives in a subpackage (``monai_regplugins.networks``,
``monai_regplugins.losses``, ...) and is written there with its full dotted path. The top level offers only what each
configuration calls by itself, ``load_bundle`` and ``RegisterPaird``; it imports each of them, and PyTorch, when it is
asked for.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from monai_regplugins.environment import name_user

if TYPE_CHECKING:
    from monai_regplugins.bundle import bundle_root, configuration, start
    from monai_regplugins.bundle_folders import output_root
    from monai_regplugins.register_transform import RegisterPair, RegisterPaird
    from monai_regplugins.registration import load_bundle

__all__ = [
    "RegisterPair",
    "RegisterPaird",
    "__version__",
    "bundle_root",
    "configuration",
    "load_bundle",
    "output_root",
    "start",
]

__version__ = "0.1.0"

name_user()  # before MONAI is imported

SUBPACKAGES = frozenset(module.name for module in iter_modules(__path__))
MODULE_OF = {
    "RegisterPair": "register_transform",
    "RegisterPaird": "register_transform",
    "bundle_root": "bundle",
    "configuration": "bundle",
    "load_bundle": "registration",
    "output_root": "bundle_folders",
    "start": "bundle",
}


def __getattr__(name: str) -> Any:
    """Import a public name or a subpackage; ``dir`` does not list them, since MONAI imports all that it lists."""
    if name in MODULE_OF:
        return getattr(import_module(f"{__name__}.{MODULE_OF[name]}"), name)
    if name in SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
