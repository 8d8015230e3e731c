"""Sphinx configuration of the site: ``sphinx-build -n -W --keep-going docs docs/_build/html``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import monai_regplugins

sys.path.append(str(Path(__file__).parent))  # where reference_pages is

project = monai_regplugins.__name__
author = copyright = f"{project} developers"
release = version = monai_regplugins.__version__
extensions = [
    "myst_parser",
    "reference_pages",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 100
nitpick_ignore_regex = [("py:.*", rf"(?!{project}\b).*")]  # names of other packages, whose sites a build need not reach

if os.environ.get("DOCS_INTERSPHINX"):  # where there is a network: link them after all
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "monai": ("https://docs.monai.io/en/stable", None),
    }
