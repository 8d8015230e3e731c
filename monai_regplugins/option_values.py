"""Values of options as a command line gives them, by the kind of value that the configuration has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_regplugins.checks import InputError

__all__ = ["LANGUAGE", "default_of", "option_value"]

SWITCH = {"true": True, "false": False}
LANGUAGE = ("$", "@", "%")  # what expressions, references and copies of the configuration language begin with


def option_value(name: str, value: Any, default: Any) -> Any:
    """Return the value of an option, of the kind of its default: a switch, a number or a list of numbers.

    ``false`` would else be a text, which counts as true. What is code of the configuration's language, what is None,
    and options of other kinds are left as they are.

    Args:
        name: of the option, for the message.
        value: what was given.
        default: the value in the configuration file.

    Raises:
        InputError: When the value is of another kind.

    Example:
        >>> option_value("inverse", "false", True), option_value("window", "", [-160, 240])
        (False, '')
    """
    if value is None or (isinstance(value, str) and (not value or value.startswith(LANGUAGE))):
        return value
    if isinstance(default, bool):
        return _switch(name, value)
    if isinstance(default, int | float) and isinstance(value, str | bool):  # several numbers may be one for each axis
        raise InputError(f"{name} is {value!r}, expected a number (by default {default}); correct it.")
    numbers = isinstance(default, Sequence) and len(default) > 0 and all(map(_is_number, default))
    if numbers and not (isinstance(value, Sequence) and not isinstance(value, str) and all(map(_is_entry, value))):
        raise InputError(f'{name} is {value!r}, expected a list of numbers such as "{list(default)}"; correct it.')
    return value


def default_of(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of an id such as ``loss#weight`` in a configuration, None if there is none.

    Example:
        >>> default_of({"loss": {"weight": 2.0}}, "loss#weight")
        2.0
    """
    value: Any = config
    for part in key.replace("::", "#").split("#"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _switch(name: str, value: Any) -> bool:
    """True or False, in letters of any case or as a number."""
    found = SWITCH.get(value.lower()) if isinstance(value, str) else value
    if found not in (True, False):
        raise InputError(f"{name} is {value!r}, expected true or false; correct it.")
    return bool(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_entry(value: Any) -> bool:
    """A number, or one that code computes."""
    return _is_number(value) or (isinstance(value, str) and value.startswith(LANGUAGE))
