"""What is wrong with a command line, as far as that is seen without PyTorch, which takes seconds to import."""

from __future__ import annotations

import argparse
import ast
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monai_regplugins.bundle_folders import CONFIG, find_bundle, option_elsewhere, read_json
from monai_regplugins.checks import InputError, check_choice, suggest
from monai_regplugins.engines.share import share_of
from monai_regplugins.given_once import given_twice
from monai_regplugins.option_values import LANGUAGE, default_of, option_value
from monai_regplugins.renamed import OPTIONS, VALUES

__all__ = ["early_error", "given_options"]

AUTO = "auto"
FILES = (
    "fixed_label", "moving_label", "fixed_points", "moving_points", "mask", "fixed_mask", "moving_mask", "ckpt",
)  # fmt: skip
CHOICES = {  # of modules that import PyTorch
    "initial_alignment": ("none", "center", "rigid", "similarity", "affine", "auto"),
    "similarity": ("auto", "lncc", "mse", "mind", "nmi", "features"),
    "refine_transform": ("displacement", "velocity"),
    "fail_on": ("fail", "warn", "never"),
    "points_space": ("voxel", "ras", "lps"),
}
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
        if twice := given_twice(overrides):
            raise InputError(twice)
        _check_files(args)
        configs = _check_options(args.bundle, overrides, "series" in args)
        for key, value in given_options(overrides):
            _check_value(key, value)
            _check_kind(key, value, configs)
    except InputError as error:
        return str(error)
    return ""


def _check_files(args: argparse.Namespace) -> None:
    """Images and list have to exist."""
    kinds = {"fixed": "fixed image", "moving": "moving image", "pairs_file": "list of pairs", "series": "series"}
    for key, what in kinds.items():
        if (path := getattr(args, key, None)) and not os.path.exists(path):
            raise InputError(f"{what} '{path}' does not exist; give the path of an existing file.")


def _check_options(bundle: str, overrides: Sequence[str], is_series: bool = False) -> list[dict[str, Any]]:
    """The bundle has to exist, and options that the possible bundles lack may not be others' or look like theirs.

    The configurations of these bundles are returned.
    """
    files = [find_bundle(name) / CONFIG for name in (PACKAGED if bundle == AUTO else [bundle])]
    overlays = [file.with_name("series.json") for file in files] if is_series else []
    configs = [read_json(file) for file in files]
    known = {key for config in [*configs, *map(read_json, overlays)] for key in config} | {*OPTIONS}
    for word in (word for word in overrides if word.startswith("--")):
        key = re.split("=|#|::", word.lstrip("-"))[0].replace("-", "_")
        if key not in (*known, *OF_MONAI) and (hint := option_elsewhere(key, files[0]) or suggest(key, known)):
            raise InputError(f"unknown override '{key}', {files[0]} has no such key.{hint}")
    return configs


def given_options(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return the options among the words of a command line, with their values."""
    for number, word in enumerate(overrides):
        name, equals, value = word.partition("=")
        if not equals and number + 1 < len(overrides):
            value = overrides[number + 1]
        if word.startswith("--") and value and not value.startswith((*LANGUAGE, "--")):
            key = name.lstrip("-").replace("-", "_")
            yield OPTIONS.get(key, key), value


def _check_value(key: str, value: str) -> None:
    """A file has to exist, and a value that is one of several has to be one of them."""
    if key in FILES and not os.path.exists(value):
        name = key.replace("_", " ")  # as it is called once it is read
        raise InputError(f"{name} '{value}' does not exist; give the path of an existing file.")
    if key in CHOICES and value not in VALUES.get(key, {}):
        check_choice(value, CHOICES[key], key)


def _check_kind(key: str, value: str, configs: Sequence[Mapping[str, Any]]) -> None:
    """A value has to be of the kind that one of the configurations has, such as a number."""
    if key == "shard":
        share_of(value)
    if value in VALUES.get(key, {}):
        return
    try:
        read = ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a text
        read = value
    errors = []
    for config in configs:
        try:
            option_value(key, read, default_of(config, key))
        except InputError as error:
            errors.append(error)
    if len(errors) == len(configs):
        raise errors[0]
