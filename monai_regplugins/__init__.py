"""Learned deformable registration for MONAI: networks, losses, transforms and engines' parts for registration bundles.

Every class that a bundle's configuration names lives in a subpackage (``monai_regplugins.networks``,
``monai_regplugins.losses``, ...) and is written there with its full dotted path. The top level offers only what each
configuration calls by itself, and imports none of the subpackages.
"""

from __future__ import annotations

from monai_regplugins.bundle import bundle_root, start

__all__ = ["__version__", "bundle_root", "start"]

__version__ = "0.1.0"
