"""The environment of the process: its user and the installed packages."""

from __future__ import annotations

import getpass
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed_version", "name_user"]


def name_user() -> None:
    """Give a user without a name their number as one, ``USER=uid1234``.

    A container that runs under a number, ``docker run --user 1234`` or as OpenShift does, has no entry in
    ``/etc/passwd``, and both MONAI and PyTorch ask for the user's name, MONAI when it is imported.

    Example:
        >>> name_user()
        >>> getpass.getuser() != ""
        True
    """
    try:
        getpass.getuser()
    except (ImportError, KeyError, OSError):  # by version of Python and system
        os.environ["USER"] = f"uid{os.getuid()}"


@cache
def installed_version(package: str) -> str:
    """Return the version of a package, empty if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
