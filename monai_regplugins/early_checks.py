"""What is wrong with a command line, as far as that is seen without PyTorch, which takes seconds to import."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

from monai_regplugins.bundle_folders import CONFIG, find_bundle, read_json
from monai_regplugins.checks import InputError, suggest
from monai_regplugins.renamed import OPTIONS

__all__ = ["early_error"]

AUTO = "auto"
PACKAGED = ("ran", "r2n2", "regnet")
OF_MONAI = (
    "args_file", "config_file", "final_id", "init_id", "logging_file", "meta_file", "run_id", "tracking",
    "workflow_type",
)  # fmt: skip


def early_error(args: argparse.Namespace, overrides: Sequence[str]) -> str:
    """Return what is wrong with the files and options of a registration, empty for nothing.

    An option that the inference may know otherwise is left to it, as is all that needs the content of a file.

    Args:
        args: ``bundle``, and ``fixed`` and ``moving``, or ``pairs_file``, or ``series``.
        overrides: words of the command line that set keys of the configuration.

    Example:
        >>> early_error(argparse.Namespace(bundle="ran", fixed="none.nii"), [])
        "fixed image 'none.nii' does not exist; give the path of an existing file."
    """
    try:
        _check_files(args)
        _check_options(args.bundle, overrides, "series" in args)
    except InputError as error:
        return str(error)
    return ""


def _check_files(args: argparse.Namespace) -> None:
    """Images and list have to exist."""
    kinds = {"fixed": "fixed image", "moving": "moving image", "pairs_file": "list of pairs", "series": "series"}
    for key, what in kinds.items():
        if (path := getattr(args, key, None)) and not os.path.exists(path):
            raise InputError(f"{what} '{path}' does not exist; give the path of an existing file.")


def _check_options(bundle: str, overrides: Sequence[str], is_series: bool = False) -> None:
    """The bundle has to exist, and options that none of the possible bundles has may not look like one of theirs."""
    files = [find_bundle(name) / CONFIG for name in (PACKAGED if bundle == AUTO else [bundle])]
    overlays = [file.with_name("series.json") for file in files] if is_series else []
    known = {key for file in [*files, *overlays] for key in read_json(file)} | {*OPTIONS}
    for word in (word for word in overrides if word.startswith("--")):
        key = re.split("=|#|::", word.lstrip("-"))[0].replace("-", "_")
        if key not in (*known, *OF_MONAI) and (hint := suggest(key, known)):
            raise InputError(f"unknown override '{key}', {files[0]} has no such key.{hint}")
