"""What the libraries below need to find in the environment of the process."""

from __future__ import annotations

import getpass
import os

__all__ = ["name_user"]


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
