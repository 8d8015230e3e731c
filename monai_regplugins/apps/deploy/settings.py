"""Settings of an application: folders, and its ``app.yaml``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from monai.bundle import ConfigParser

from monai_regplugins.apps.deploy.inputs import only_bundle
from monai_regplugins.checks import InputError, check_file

__all__ = ["AppPaths", "AppSettings", "read_settings"]

APP_YAML = Path(__file__).with_name("app.yaml")
PLACE = "HOLOSCAN_CONFIG_PATH"  # names the file in a container


class AppPaths(Protocol):
    """Paths of an application's context: ``--input``, ``--output`` and ``--model``."""

    input_path: str
    output_path: str
    model_path: str


class AppSettings(NamedTuple):
    """Settings of an application.

    Attributes:
        input_folder: where its input lies.
        output_folder: where its results go.
        bundle: folder of its bundle.
        registration: other values for keys of the bundle's ``inference.json``.
        selections: rules that pick DICOM series, as the SDK's selector takes them.
    """

    input_folder: Path
    output_folder: Path
    bundle: Path
    registration: dict[str, Any]
    selections: list[dict[str, Any]]


def read_settings(paths: AppPaths) -> AppSettings:
    """Collect the settings; those of ``app.yaml`` from the file that ``HOLOSCAN_CONFIG_PATH`` names, or the package's.

    Args:
        paths: the application's context.

    Raises:
        InputError: When the file is missing or damaged, or there is not one bundle.
    """
    file = check_file(os.environ.get(PLACE) or APP_YAML, "application configuration")
    try:
        config = ConfigParser.load_config_file(file)
        registration, selections = dict(config.get("registration") or {}), list(config.get("selections") or [])
        if not all(isinstance(rule, Mapping) for rule in selections):
            raise TypeError("a rule under 'selections' is no mapping")
    except Exception as error:  # YAML can be damaged in any way
        reason = " ".join(str(error).split())
        raise InputError(f"application configuration '{file}' cannot be read ({reason}); correct it.") from error
    bundle = only_bundle(Path(paths.model_path))
    return AppSettings(Path(paths.input_path), Path(paths.output_path), bundle, registration, selections)
