"""Options that were renamed. Old names and values keep working for one release, with one line of the log for each."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

__all__ = ["OPTIONS", "VALUES", "current_names", "current_value"]

logger = logging.getLogger(__name__)

# retired in 0.1.0, to be removed in 0.2.0
OPTIONS = {"prealign": "initial_alignment", "forms": "formats", "form": "format"}
VALUES: dict[str, dict[str, Any]] = {
    "initial_alignment": {"moments": "center", "correlation": "affine"},
    "uncertainty": {"none": False, "localization": True, "weights": True},
}
IMPLIED = {("uncertainty", "weights"): {"network_uncertainty": "weights"}}  # other options that a retired value sets


def current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Replace retired option names and values by the current ones.

    Args:
        settings: values by option; other options are returned as they are. A retired name overrides the current one.

    Example:
        >>> current_names({"prealign": "moments", "seed": 0})
        {'initial_alignment': 'center', 'seed': 0}
    """
    renamed = dict(settings)
    for old, new in OPTIONS.items():
        if old in renamed:
            logger.warning("Option '%s' is called '%s' now; the old name ends with the next release.", old, new)
            renamed = {new if key == old else key: value for key, value in renamed.items() if key != new}
    for option in (option for option in VALUES if option in renamed):
        old, new = renamed[option], current_value(option, renamed[option])
        if new is not old:
            logger.warning("%s '%s' is called '%s' now; the old name ends with the next release.", option, old, new)
            renamed = {**IMPLIED.get((option, old), {}), **renamed, option: new}
    return renamed


def current_value(option: str, value: Any) -> Any:
    """Replace a retired value of an option by the current one, without a line of the log.

    Example:
        >>> current_value("uncertainty", "localization"), current_value("uncertainty", False)
        (True, False)
    """
    return VALUES.get(option, {}).get(value, value) if isinstance(value, str) else value
