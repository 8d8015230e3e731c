"""Functions that every bundle configuration calls: location of the bundle, start of a run with checked overrides."""

from __future__ import annotations

import ast
import atexit
import functools
import gc
import inspect
import logging
import os
import pydoc
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from monai.bundle import ConfigItem, ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.scripts import create_workflow, run, run_workflow
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS
from monai.utils import set_determinism
from tqdm import tqdm

from monai_regplugins.bundle_folders import option_elsewhere
from monai_regplugins.checks import InputError, input_error_message, stop_message, suggest
from monai_regplugins.given_once import given_twice
from monai_regplugins.keys import PHASE_KEYS
from monai_regplugins.option_values import LANGUAGE, default_of, option_value
from monai_regplugins.renamed import OPTIONS, VALUES, current_names, current_value
from monai_regplugins.settings import settle

__all__ = [
    "PATH_KEYS",
    "bundle_root",
    "check_keys",
    "check_overrides",
    "configuration",
    "enclosing_parser",
    "literal_name",
    "start",
]

ExceptHook = Callable[[type[BaseException], BaseException, "TracebackType | None"], Any]

# keys that MONAI's configuration language understands in any component, present or not
LANGUAGE_KEYS = frozenset({"_target_", "_disabled_", "_requires_", "_mode_", "_desc_", "_debug_"})

# settings that are names: what a command line gives for them is taken as text, not as a number or as code
PATH_KEYS = frozenset(
    (
        "fixed",
        "moving",
        "fixed_label",
        "moving_label",
        "fixed_points",
        "moving_points",
        "mask",
        "fixed_mask",
        "moving_mask",
        "fixed_phase",
        "moving_phase",
        "initial_transform",
        "features",
        "pair_id",
        "pairs_file",
        "shard",
        "series",
        "onto",
        "val_series",
        "dataset_dir",
        "embedded_dir",
        "bundle_root",
        "output_dir",
        "eval_dir",
        "ckpt",
        "ckpt_dir",
        "preset",
    )
)

BELOW_ALL_HANDLERS = logging.NOTSET - 1


def bundle_root() -> str:
    """Return the absolute path of the bundle whose configuration is being evaluated; never raises.

    The first of these that is known: the configuration folder of an enclosing workflow (or of a parser that a workflow
    initialized), the ``config_file`` of the command line (also inside ``args_file``), the working directory if it holds
    ``configs/metadata.json``. Otherwise it is ``"."``, since a host that reads a configuration by itself sets
    ``bundle_root`` or does without.

    Example:
        >>> import os
        >>> os.path.isdir(bundle_root())
        True
    """
    try:
        folder = _workflow_config_folder() or _command_line_config_folder()
        if folder is not None:
            absolute = Path(os.path.abspath(folder))
            return str(absolute.parent if absolute.name == "configs" else absolute)
        return os.getcwd() if Path("configs", "metadata.json").is_file() else "."
    except (OSError, ValueError):  # such as a working directory that was removed
        return "."


def start(seed: int | None = None) -> None:
    """Initialize a run; the first item of ``initialize`` in every configuration.

    From here on an :class:`~monai_regplugins.checks.InputError` that ends the program is shown as one line instead of
    a traceback (exit status 1 stays), and unknown overrides end it at once. What was not typed is taken from the preset
    and from the weights, see :func:`~monai_regplugins.settings.settle`.

    Args:
        seed: fixes all random numbers (Python, NumPy, PyTorch); None leaves them free.

    Raises:
        InputError: When an override is given twice, or names a key that the configuration does not have, there is no
            such preset, or the weights are those of another network.
    """
    _show_input_errors_in_one_line()
    _end_in_one_line_when_terminated()
    _end_quickly()
    _remember_config_folder()
    _check_given_once()
    check_overrides()
    _take_current_names()
    _take_names_as_text()
    _take_values()
    _take_settings()
    if seed is not None:
        set_determinism(seed)


def _check_given_once() -> None:
    """Refuse an option that is given twice on a command line, of which ``fire`` takes the last."""
    if _creating_call() is not None and _is_typed() and (twice := given_twice(sys.argv[1:])):
        raise InputError(twice)


def _is_typed() -> bool:
    """Whether overrides come from a command line."""
    return any(str(frame.f_globals.get("__name__")).startswith("fire.") for frame in _caller_frames())


def check_overrides() -> None:
    """Reject overrides, from the command line or ``create_workflow``, of keys that the configuration files do not have.

    MONAI accepts any name and lets a mistyped one have no effect. Keys are compared with the files, since overrides
    have already entered the parsed configuration. A new argument of an existing component
    (``--optimizer#weight_decay 1e-4``) passes if the component has it. Without an
    enclosing ``create_workflow`` there is nothing to compare, and the check is silent.

    Raises:
        InputError: When there are unknown overrides; the message gives the closest key of each.
    """
    call = _creating_call()
    if call is None or call.f_locals.get("config_file") is None:
        return
    arguments = {**call.f_locals["kwargs"], **call.f_locals["_args"]}  # the second lacks those that are None
    allowed = _argument_names(call.f_locals["workflow_class"]) | _tracking_keys(arguments.get("tracking"))
    config_file = call.f_locals["config_file"]
    config = ConfigParser.load_config_files(config_file)
    overrides = [key for key in arguments if key not in allowed and OPTIONS.get(key) not in config]
    check_keys(overrides, config, config_file)


def check_keys(keys: Iterable[str], config: Mapping[str, Any], config_file: str | Sequence[str]) -> None:
    """Reject keys that do not exist in a configuration.

    Args:
        keys: ids of what is to be overridden.
        config: the configuration.
        config_file: the file or files that it was read from, for the message.

    Raises:
        InputError: When there are unknown keys; the message gives the closest key of each.
    """
    given = list(keys)
    others = tuple(key.removesuffix("_target_") for key in given if key.endswith(("#_target_", "::_target_")))
    unknown = [key for key in given if not (key.startswith(others) or _names_a_key(key, config))]
    if unknown:
        raise InputError(_phrase_unknown(unknown, config, config_file))


def configuration() -> dict[str, Any]:
    """Return the configuration that is being evaluated, with its overrides; empty if there is none.

    Example:
        >>> configuration()
        {}
    """
    parser = enclosing_parser()
    return {} if parser is None else dict(parser.get())


def enclosing_parser() -> ConfigParser | None:
    """Return the parser that evaluates the expression which called, None outside of any."""
    found = (frame.f_locals.get("self") for frame in _caller_frames())
    return next((parser for parser in found if isinstance(parser, ConfigParser)), None)


def _take_current_names() -> None:
    """Rename settings of the configuration that came under retired names, from a command line or a file."""
    parser = enclosing_parser()
    if parser is None:
        return
    config = parser.get()
    old = {key for key in OPTIONS if key in config and OPTIONS[key] in config}
    given = {key: config[key] for key in config if key in old or key in VALUES}
    for key, value in current_names(given).items():
        if key not in given or given[key] != value:
            config[key] = value
            parser.ref_resolver.items[key] = ConfigItem(value, key)  # in place of what was made of it before
    for key in old:
        del config[key]


def _take_names_as_text() -> None:
    """Replace overrides that are paths or names by what the user wrote.

    ``fire`` reads numbers, tuples and comments (``--fixed 20240611``, ``a#b``), and MONAI would evaluate a name that
    begins with ``$``.
    """
    call, parser = _creating_call(), enclosing_parser()
    if call is None or parser is None:
        return
    overrides = {**call.f_locals["kwargs"], **call.f_locals["_args"]}
    is_typed = _is_typed()
    config = parser.get()
    for key in PATH_KEYS & overrides.keys():
        written = _command_line_value(key) if is_typed else None
        if text := str(overrides[key]) if written is None else written:
            config[key] = literal_name(key, text)
            parser.ref_resolver.items[key] = ConfigItem(config[key], key)  # in place of what was made of it before


def _take_values() -> None:
    """Read overrides by the kind of value that the first configuration file has: ``false`` is no text.

    Raises:
        InputError: When an override is of another kind.
    """
    call, parser = _creating_call(), enclosing_parser()
    if call is None or parser is None or call.f_locals["config_file"] is None:
        return
    files = call.f_locals["config_file"]
    defaults = ConfigParser.load_config_file(files if isinstance(files, str | Path) else files[0])
    given = {**call.f_locals["kwargs"], **call.f_locals["_args"]}
    given = {OPTIONS.get(key, key): value for key, value in given.items() if OPTIONS.get(key, key) not in PATH_KEYS}
    _check_device(str(given.get("device", "")))
    current = {key: current_value(key, value) for key, value in given.items()}
    read = {key: option_value(key, value, default_of(defaults, key)) for key, value in current.items()}
    changed = {key: value for key, value in read.items() if value is not given[key]}
    for key, value in changed.items():
        parser[key] = value
    if changed:
        parser.parse(reset=True)


def _check_device(device: str) -> None:
    """Refuse a GPU that PyTorch does not find."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"device is '{device}', but PyTorch {torch.__version__} finds no GPU here; leave it out for the CPU."
        )


def _take_settings() -> None:
    """Take settings from the preset and the weights; overrides, and all files but the first, count as typed."""
    call, parser = _creating_call(), enclosing_parser()
    if call is None or parser is None:
        return
    files = call.f_locals["config_file"]
    overlays = [] if isinstance(files, str) else list(files or ())[1:]
    typed = [*call.f_locals["kwargs"], *call.f_locals["_args"]]
    typed += [key for file in overlays for key in ConfigParser.load_config_file(file)]
    settle(parser, typed)


class LiteralPath(type(Path())):  # type: ignore[misc]
    """A name that MONAI's configuration language leaves alone, and to which its expressions may add text."""

    def __add__(self, text: str) -> LiteralPath:
        return type(self)(f"{self}{text}")

    def __radd__(self, text: str) -> str:
        return f"{text}{self}"


def literal_name(key: str, text: str) -> str | Path:
    """Return a name in a form that MONAI's configuration language leaves alone; ``~`` is the user's home.

    Args:
        key: the setting, one of ``PATH_KEYS``.
        text: the name.

    Example:
        >>> literal_name("output_dir", "$out") + "/eval"
        LiteralPath('$out/eval')
    """
    name = text if key in (*PHASE_KEYS, "pair_id") else os.path.expanduser(text)
    return LiteralPath(name) if name[:1] in LANGUAGE or "#" in name else name


def _creating_call() -> FrameType | None:
    """Return the frame of the ``create_workflow`` that evaluates the configuration, if there is one."""
    return next((frame for frame in _caller_frames() if frame.f_code is create_workflow.__code__), None)


def _caller_frames() -> Iterator[FrameType]:
    """Yield the stack of callers, innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _workflow_config_folder() -> str | None:
    """Return ``config_root_path`` of the innermost calling workflow."""
    for frame in _caller_frames():
        # static, because a ConfigParser on the way would try to resolve the attribute as a key
        folder = inspect.getattr_static(frame.f_locals.get("self"), "config_root_path", None)
        if isinstance(folder, str | Path):
            return str(folder)
    return None


def _remember_config_folder() -> None:
    """Note the workflow's folder on its parser, which is also asked when no workflow is among the callers."""
    folder, parser = _workflow_config_folder(), enclosing_parser()
    if folder is not None and parser is not None:
        vars(parser)["config_root_path"] = os.path.abspath(folder)


def _command_line_config_folder() -> str | None:
    """Return the folder of the first ``config_file`` that the command line, or its ``args_file``, names."""
    text = _command_line_value("config_file")
    if text is None and (args_file := _command_line_value("args_file")) and Path(args_file).is_file():
        text = ConfigParser.load_config_file(args_file).get("config_file")
    first = _first_path(text)
    return os.path.dirname(first) or "." if first and Path(first).is_file() else None


def _command_line_value(name: str) -> str | None:
    """Return the value of ``--name value`` or ``--name=value``, spelled as the ``fire`` package allows."""
    words: list[str] = getattr(sys, "argv", [])  # absent where Python is embedded
    for word, following in zip(words, [*words[1:], None], strict=True):
        key, equals, value = word.partition("=")
        if key.lstrip("-").replace("-", "_") == name and (equals or word.startswith("-")):
            return value if equals else following
    return None


def _first_path(files: str | Sequence[str] | None) -> str | None:
    """Return the first of one path, a list of paths, or a list written as text."""
    if isinstance(files, str) and files.lstrip().startswith(("[", "(")):
        try:
            files = ast.literal_eval(files.strip())
        except (SyntaxError, ValueError):
            return None
    if not files:
        return None
    return files if isinstance(files, str) else str(files[0])


def _argument_names(workflow_class: type) -> set[str]:
    """Return the names that MONAI's own functions take, so that no configuration has to."""
    parameters = [
        parameter
        for function in (run, run_workflow, create_workflow, ConfigWorkflow, workflow_class)
        for parameter in inspect.signature(function).parameters.values()
    ]
    return {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}


def _tracking_keys(tracking: str | dict[str, Any] | None) -> set[str]:
    """Return the top-level keys that experiment tracking adds to a configuration."""
    if tracking is None:
        return set()
    built_in = DEFAULT_EXP_MGMT_SETTINGS.get(tracking) if isinstance(tracking, str) else None
    settings: dict[str, Any] = built_in or ConfigParser.load_config_files(tracking)
    return {"save_execute_config", *settings["configs"]}


def _names_a_key(key: str, config: Mapping[str, Any]) -> bool:
    """Whether the id ``key`` (``a``, ``a#b``, ``a::0::b``) exists in ``config`` or may be added to it."""
    parent, last = _parent_of(key, config)
    if not isinstance(parent, Mapping):  # inside a list or a replaced item: MONAI has already found the place
        return True
    return last in parent or last in LANGUAGE_KEYS or ("_target_" in parent and last in _arguments(parent, [last]))


def _arguments(component: Mapping[str, Any], otherwise: Sequence[str] = ()) -> list[str]:
    """Return the names of a component's arguments; ``otherwise`` if it takes any, or is not known by its full name."""
    try:
        parameters = inspect.signature(pydoc.locate(str(component["_target_"]))).parameters  # type: ignore[arg-type]
    except (pydoc.ErrorDuringImport, TypeError, ValueError):
        return list(otherwise)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return list(otherwise) if takes_any else list(parameters)


def _parent_of(key: str, config: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the item that would hold ``key``, None if the files do not have it, and the last part of ``key``."""
    *path, last = ReferenceResolver.split_id(key.removeprefix("+"))
    parent: Any = config
    for part in path:
        if isinstance(parent, Mapping):
            parent = parent.get(part)
        elif isinstance(parent, list) and part.isdigit() and int(part) < len(parent):
            parent = parent[int(part)]
        else:
            return None, last
    return parent, last


def _phrase_unknown(unknown: Sequence[str], config: Mapping[str, Any], config_file: str | Sequence[str]) -> str:
    """Message for unknown overrides, with what else has them, the closest keys, or the list of settings."""
    first = config_file if isinstance(config_file, str) else config_file[0]
    hints = {key: option_elsewhere(key, first) or _hint(key, config) for key in unknown}
    files = config_file if isinstance(config_file, str) else ", ".join(config_file)
    message = f"unknown override {', '.join(repr(key) for key in unknown)}, {files} has no such key."
    if all(hints.values()):
        return message + "".join(hints.values())
    settings = [key for key, value in config.items() if not isinstance(value, dict | list)]
    return f"{message}{''.join(hints.values())} Settings: {', '.join(settings)}."


def _hint(key: str, config: Mapping[str, Any]) -> str:
    """Suggest the closest existing id for ``key``."""
    parent, last = _parent_of(key, config)
    path = key[: len(key) - len(last)]
    arguments = _arguments(parent) if isinstance(parent, Mapping) and "_target_" in parent else []
    return suggest(key, [path + str(name) for name in (*parent, *arguments)])


def _show_input_errors_in_one_line() -> None:
    """Install the exception hook and the log record factory, once."""
    if not _is_installed(sys.excepthook, _report):
        sys.excepthook = functools.partial(_report, sys.excepthook)
    factory = logging.getLogRecordFactory()
    if not _is_installed(factory, _make_record):
        logging.setLogRecordFactory(functools.partial(_make_record, factory))


def _end_in_one_line_when_terminated() -> None:
    """Let SIGTERM end the program as an interruption from the keyboard does, which cleans up."""

    def end(number: int, frame: FrameType | None) -> None:
        _close_bars()
        sys.stderr.write(f"{stop_message()}\n")
        raise SystemExit(128 + number)

    is_main_thread = threading.current_thread() is threading.main_thread()
    if is_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def _end_quickly() -> None:
    """Let Python not look for garbage when it ends, once: among all that PyTorch and MONAI import, a second's work."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)


def _is_installed(current: Callable[..., Any], ours: Callable[..., Any]) -> bool:
    """Whether ``current`` is ``ours``, bound to what was there before."""
    return isinstance(current, functools.partial) and current.func is ours


def _report(previous: ExceptHook, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an input error or an interruption as one line, leave any other error to the hook that was there before."""
    _close_bars()
    message = input_error_message(error)
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write(f"{stop_message()}\n")
    elif message is None:
        previous(kind, error, trace)
    else:
        sys.stderr.write(f"error: {message}\n")


def _close_bars() -> None:
    """End the lines of open progress bars; a message would else begin in one of them, or not be the last line."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()


def _make_record(previous: Callable[..., logging.LogRecord], *args: Any, **kwargs: Any) -> logging.LogRecord:
    """Make a log record, out of reach of all handlers if it is an engine's report of an input error.

    Engines and their handlers log an error, with traceback, before they pass it on. A filter would have to sit on
    each of their loggers, and those are made after the start.
    """
    record = previous(*args, **kwargs)
    from_engine = record.name.startswith("ignite.") or record.funcName == "exception_raised"
    error = sys.exc_info()[1] if from_engine and record.levelno >= logging.ERROR else None
    ends = isinstance(error, KeyboardInterrupt | SystemExit)
    if error is not None and (ends or input_error_message(error) is not None):
        record.levelno = BELOW_ALL_HANDLERS
    return record
