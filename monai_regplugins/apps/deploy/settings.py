"""Settings of an application: folders, and its ``app.yaml``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from monai.bundle import ConfigParser

from monai_regplugins.apps.deploy.inputs import only_bundle
from monai_regplugins.apps.deploy.tags import check_tags
from monai_regplugins.checks import InputError, check_choice, check_file
from monai_regplugins.engines.batch_runner import BAD
from monai_regplugins.renamed import current_names

__all__ = ["NOT_TRUSTED", "AppPaths", "AppSettings", "exit_status", "read_settings"]

APP_YAML = Path(__file__).with_name("app.yaml")
DEFAULTS = {"initial_alignment": "auto"}  # as in the app for MONAI Label: prior scans seldom lie as the current one
NOT_TRUSTED = 3  # exit status: the results are there, and their verdict is bad
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
        tags: what ``registration`` and ``segmentation`` say of themselves, value by keyword of DICOM.
    """

    input_folder: Path
    output_folder: Path
    bundle: Path
    registration: dict[str, Any]
    selections: list[dict[str, Any]]
    tags: dict[str, dict[str, Any]]

    @property
    def fail_on(self) -> str:
        """Verdicts that are an error: ``fail``, ``warn``, which is WARN and FAIL, or ``never``."""
        return str(self.registration.get("fail_on", "fail"))


def read_settings(paths: AppPaths) -> AppSettings:
    """Collect the settings; those of ``app.yaml`` from the file that ``HOLOSCAN_CONFIG_PATH`` names, or the package's.

    Args:
        paths: the application's context.

    Raises:
        InputError: When the file is missing or damaged, a setting of it is wrong, or there is not one bundle.
    """
    file = check_file(os.environ.get(PLACE) or APP_YAML, "application configuration")
    try:
        config = ConfigParser.load_config_file(file)
        registration = {**DEFAULTS, **current_names(config.get("registration") or {})}
        selections = list(config.get("selections") or [])
        tags = dict(config.get("tags") or {})
        if not all(isinstance(rule, Mapping) for rule in selections):
            raise TypeError("a rule under 'selections' is no mapping")
    except Exception as error:  # YAML can be damaged in any way
        reason = " ".join(str(error).split())
        raise InputError(f"application configuration '{file}' cannot be read ({reason}); correct it.") from error
    bundle = only_bundle(Path(paths.model_path))
    folders = Path(paths.input_path), Path(paths.output_path)
    settings = AppSettings(*folders, bundle, registration, selections, check_tags(tags))
    check_choice(settings.fail_on, tuple(BAD), "fail_on")
    return settings


def exit_status(verdict: str, fail_on: str) -> int:
    """The exit status of an application whose results are written.

    Args:
        verdict: ``PASS``, ``WARN`` or ``FAIL``.
        fail_on: see :attr:`AppSettings.fail_on`.

    Example:
        >>> [exit_status("WARN", fail_on) for fail_on in ("never", "fail", "warn")]
        [0, 0, 3]
    """
    return NOT_TRUSTED if verdict in BAD[fail_on] else 0
