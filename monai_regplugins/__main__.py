"""``python -m monai_regplugins``: the command ``regplugins``."""

from __future__ import annotations

import sys

from monai_regplugins.cli import main

if __name__ == "__main__":
    sys.exit(main())
