"""Make the folder that ``monailabel start_server --app`` takes, and print its path.

monailabel start_server --app $(python -m monai_regplugins.apps.label) --studies DIR --conf models ran,regnet,r2n2
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_regplugins.checks import InputError
from monai_regplugins.files.atomic import write_file

__all__ = ["default_folder", "main", "make_app"]

MAIN = '''"""The registration app of monai_regplugins, for MONAI Label."""

from monai_regplugins.apps.label.app import RegistrationLabelApp
'''


PACKAGE = "monai_regplugins.apps.label"  # what every main.py of the app imports


def default_folder() -> Path:
    """The folder of the app where no other is given: one per user, since trained models stay in it."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data, "monai_regplugins", "label")


def make_app(folder: str | Path) -> Path:
    """Make an app folder, or bring an old one up to date.

    MONAI Label writes ``logs``, ``model``, ``lib`` and ``bin`` into it, and training the trained models, so that it
    must not lie in the installed package. What is in it already stays.

    Args:
        folder: where; it is made.

    Returns:
        Its absolute path.

    Raises:
        InputError: When it cannot be written, or has a ``main.py`` of something else.
    """
    place = Path(folder).expanduser().absolute()
    if (place / "main.py").is_file() and PACKAGE not in (place / "main.py").read_text(errors="replace"):
        raise InputError(f"'{place / 'main.py'}' is there already and belongs to something else; give another folder.")
    write_file(place / "main.py", MAIN.encode())
    return place


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m monai_regplugins.apps.label", description=__doc__.split("\n")[0])
    parser.add_argument("--output", help=f"folder of the app, by default {default_folder()}")
    try:
        folder = make_app(parser.parse_args(arguments).output or default_folder())
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
