"""Settings that a configuration takes from a preset of its bundle, or that come with the weights it loads.

A training writes a record into its weights, as an attribute of the state dict: PyTorch keeps it, loads it without
running code, and every other reader of the file sees a bare state dict. Published weights without a record are
recognized by their content; their settings are those of the preset, or of ``inference.json``, that names them.
"""

from __future__ import annotations

import filecmp
import logging
import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from monai_regplugins.bundle_folders import CONFIG, presets_of, read_json
from monai_regplugins.checks import InputError, check_choice, check_file, load_weights
from monai_regplugins.environment import installed_version
from monai_regplugins.io.provenance import FILE_SETTINGS, NOT_SETTINGS
from monai_regplugins.option_values import LANGUAGE
from monai_regplugins.renamed import OPTIONS

__all__ = ["published_weights", "record_of", "settle", "training_record", "with_record"]

logger = logging.getLogger(__name__)

ATTRIBUTE = "monai_regplugins"  # of a state dict
VERSION = 1
NETWORK = "network_def"
COMPONENTS = (NETWORK, "registration")  # whose arguments may come with weights
CODE = (*LANGUAGE, "_")  # what components begin with, too

PER_AXIS = ("spatial_size", "refine_size", "crop_margin")  # a number for each axis

DATA_SET = ("dataset_dir", "embedded_dir", "phantom")  # each of these chooses one

# Of a training's loss; a registration calls those of its instance optimization by the same names. Weights bring them to
# a training that goes on from them, but for published ones, of which those of the registration are known.
OF_THE_LOSS = ("similarity_weight", "smoothness_weight", "smoothness_form", "lncc_window")

# Settings of one run, files, and noise, which regularizes a training and measures the uncertainty of a registration.
OF_A_RUN = frozenset(
    {"seed", "amp", "noise_std", *FILE_SETTINGS, *(key for keys in NOT_SETTINGS.values() for key in keys)}
)


def settle(parser: ConfigParser, typed: Iterable[str] = ()) -> None:
    """Let a configuration take the settings of its ``preset`` and, below these, those of the weights ``ckpt``.

    An evaluation takes the data set of the weights, too, unless one was typed.

    Args:
        parser: the configuration, with all that was typed in it; it is changed, unless it has no weights.
        typed: the keys that were typed, also by retired names, which nothing replaces. Those that differ from the
            weights' settings are logged in one line, and so are those of the preset, as such.

    Raises:
        InputError: When there is no such preset, the weights cannot be read or are those of another network, or a size
            that came of all this has not a number for each of the ``spatial_dims``.
    """
    if {"bundle_root", "ckpt"} <= parser.get().keys():
        _take_preset_and_weights(parser, typed)
    _check_axes(parser)


def _take_preset_and_weights(parser: ConfigParser, typed: Iterable[str]) -> None:
    """Let a configuration take the settings of its preset and its weights."""
    root = Path(parser.get_parsed_content("bundle_root"))
    kept = {_same_id(OPTIONS.get(key, key)) for key in typed}
    of_preset = _take(parser, _preset_settings(parser, root, kept))
    ckpt = parser.get_parsed_content("ckpt")
    if not ckpt or not Path(ckpt).is_file():
        return
    record = record_of(ckpt, root)
    if record is None:
        load_weights(ckpt)  # what cannot be read has no settings either
        logger.warning("The weights '%s' come without settings; those of the configuration hold.", ckpt)
        return
    _check_network(parser, record, ckpt)
    left_out = () if "loss" in parser.get() else OF_THE_LOSS
    settings = [(key, value) for key, value in record["settings"].items() if key not in left_out]
    values = {key: (_value(parser, key), new) for key, new in settings if key.split("#")[0] in parser.get()}
    differing = {key: pair for key, pair in values.items() if pair[0] != pair[1]}
    overruled = {key: pair for key, pair in differing.items() if _is_among(key, kept)}
    by_preset = {key: pair for key, pair in differing.items() if key not in overruled and _is_among(key, of_preset)}
    taken = {key: new for key, (_, new) in differing.items() if key not in {**overruled, **by_preset}}
    _take(parser, taken)
    _report(ckpt, taken, overruled)
    if by_preset:
        preset = parser.get()["preset"]
        logger.info("The preset '%s' overrules the weights '%s': %s.", preset, ckpt, _changes(by_preset))
    if "evaluating" in parser.get() and not {*DATA_SET} & {*kept, *of_preset}:
        _take_data_set(parser, str(record.get("data", "")), ckpt)


def _check_axes(parser: ConfigParser) -> None:
    """Refuse sizes that have not one whole number for each axis, before anything is read or written by them."""
    config, dims = parser.get(), _value(parser, "spatial_dims")
    for name in (name for name in PER_AXIS if name in config and dims in (2, 3)):
        value = _value(parser, name)
        is_margin = name == "crop_margin"  # may be one number, sizes may be left out
        numbers = [value] * dims if is_margin and not isinstance(value, list) else value
        if not is_margin and numbers in ([], ""):
            continue
        if isinstance(numbers, list) and len(numbers) == dims and all(isinstance(n, Integral) for n in numbers):
            continue
        other = 5 - dims
        is_other = isinstance(value, list) and len(value) == other
        raise InputError(
            f"{name} is {value!r}, expected {dims} whole numbers, one for each axis, since spatial_dims is {dims}; "
            f"change it{f', or give spatial_dims {other} if the images are {other}D' * is_other}."
        )
    if isinstance(size := _value(parser, "voxel_size"), list):
        raise InputError(f"voxel_size is {size}, expected one number of mm for all axes; change it.")


def _take_data_set(parser: ConfigParser, name: str, ckpt: str) -> None:
    """Let an evaluation take the data set that its weights were trained on, if they lie beside their checkpoint."""
    if folder := trained_on(ckpt, name):
        logger.info("Evaluating on '%s', which '%s' was trained on; --dataset_dir takes another one.", folder, ckpt)
        _take(parser, {"dataset_dir": folder})
    elif name:
        logger.warning(
            "The weights '%s' were trained on '%s' and are evaluated on the phantom of the bundle; give --dataset_dir.",
            ckpt,
            name,
        )


def trained_on(weights: str | Path, name: str) -> str:
    """Return the data set that weights were trained on, as their checkpoint knows it; empty if it is not there.

    Args:
        weights: beside ``checkpoint.pt``. They know the name of the folder alone, as they may be passed on.
        name: that of their record, ``data``.

    Example:
        >>> trained_on("no/model.pt", "scans")
        ''
    """
    state = _read(Path(weights).with_name("checkpoint.pt"))
    folder = str(state.get("data", "")) if isinstance(state, Mapping) else ""
    is_plain = os.path.isabs(folder) and "#" not in folder  # no code, no id
    return folder if name and is_plain and Path(folder).name == name and Path(folder).is_dir() else ""


def record_of(weights: str | Path, root: Path) -> dict[str, Any] | None:
    """Return what weights say of themselves; None if they come without settings.

    Args:
        weights: an existing file: a state dict, or a checkpoint of a training.
        root: folder of the bundle; its published weights are recognized by their content, wherever they lie.

    Returns:
        ``settings``, values by key, plain ones; in weights of a training also ``version``, ``bundle``, ``network``
        (its class), what they were scored with, ``data``, the name of the data set's folder if that was not the
        bundle's phantom, and ``started_from``, the name of the published weights of the bundle that the training
        started from, itself or those before it.

    Raises:
        InputError: When the record is one of a later version of this package.
    """
    state = _read(Path(weights))
    record = state.get("record") if isinstance(state, Mapping) and "optimizer" in state else None
    record = record or getattr(state, "__dict__", {}).get(ATTRIBUTE)
    if not isinstance(record, Mapping):
        name, own = _published(Path(weights), root)
        return {"settings": own} if name else None
    if record.get("version") != VERSION:
        raise InputError(
            f"the settings in the weights '{weights}' have version {record.get('version')}, expected {VERSION}; update "
            "monai_regplugins."
        )
    given = record.get("settings")
    settings = given.items() if isinstance(given, Mapping) else ()
    return {**record, "settings": {str(key): value for key, value in settings if _is_setting(str(key), value)}}


def with_record(state: Mapping[str, Tensor], record: Mapping[str, Any]) -> OrderedDict[str, Tensor]:
    """Return a state dict with a record as its attribute, to be written by ``torch.save``.

    Example:
        >>> state = with_record({"weight": torch.ones(2)}, {"version": 1})
        >>> list(state), vars(state)
        (['weight'], {'monai_regplugins': {'version': 1}})
    """
    carrying = OrderedDict(state)
    if record:
        vars(carrying)[ATTRIBUTE] = dict(record)
    return carrying


def training_record(parser: ConfigParser) -> dict[str, Any]:
    """Return the record of a training: the settings that its bundle's inference shares, and its network's arguments.

    Settings that training has not, such as those of the refinement, are those of the weights it starts from.

    Args:
        parser: configuration of the training.
    """
    root, ckpt = Path(parser.get_parsed_content("bundle_root")), parser.get_parsed_content("ckpt")
    is_given = ckpt and Path(ckpt).is_file()
    before = (record_of(ckpt, root) or {}) if is_given else {}
    start = (_published(Path(ckpt), root)[0] or before.get("started_from")) if is_given else None
    config = parser.get()
    own = {name: _value(parser, name) for name in _trained_settings(root) if name in config}
    network = {key: _value(parser, key) for key in _changed_arguments(config, root)}
    settings = {**before.get("settings", {}), **own, **network}
    return {
        "version": VERSION,
        "package": installed_version("monai-regplugins"),
        "bundle": root.name,
        "network": _network(config),
        "settings": {key: value for key, value in settings.items() if _is_setting(key, value)},
    } | ({"started_from": start} if start else {})


def _preset_settings(parser: ConfigParser, root: Path, typed: Collection[str]) -> dict[str, Any]:
    """Return the settings of the chosen preset that the configuration has and nobody typed."""
    name, config = str(parser.get().get("preset", "")), parser.get()
    if not name:
        return {}
    known = presets_of(root, config)
    if not known:
        raise InputError(f"preset is '{name}', but the bundle {root.name} has none for this; leave it out.")
    check_choice(name, known, f"preset of the bundle {root.name}")
    content = read_json(root / "configs" / f"{name}.json")
    settings = {_same_id(key): value for key, value in content.items()}
    return {key: new for key, new in settings.items() if key.split("#")[0] in config and not _is_among(key, typed)}


def published_weights(root: Path) -> dict[Path, dict[str, Any]]:
    """Return the published weights of a bundle, those of ``inference.json`` first, and the settings of each.

    Args:
        root: folder of the bundle.

    Example:
        >>> published_weights(Path("no/bundle"))
        {}
    """
    config = read_json(root / CONFIG)
    shared = {name: config[name] for name in _trained_settings(root) if name not in OF_THE_LOSS}
    presets = [read_json(root / "configs" / f"{name}.json") for name in presets_of(root)]
    found = {}
    for content in ({"ckpt": config.get("ckpt", "")}, *presets):
        named = ConfigParser({"bundle_root": str(root), "ckpt": content.get("ckpt", "")}).get_parsed_content("ckpt")
        if Path(named).is_file():
            own = {_same_id(key): value for key, value in content.items() if key not in {*OF_A_RUN, *OF_THE_LOSS}}
            found[Path(named)] = shared | own
    return found


def _published(weights: Path, root: Path) -> tuple[str, dict[str, Any]]:
    """Return which of a bundle's published weights these are, and their settings; nothing of others."""
    for file, settings in published_weights(root).items():
        if filecmp.cmp(weights, file, shallow=False):
            return file.name, settings
    return "", {}


def _trained_settings(root: Path) -> list[str]:
    """Return the names of plain settings that training and inference of a bundle share."""
    training, inference = read_json(root / "configs" / "train.json"), read_json(root / CONFIG)
    return [key for key in inference if key in training and _is_setting(key, inference[key])]


def _changed_arguments(config: Mapping[str, Any], root: Path) -> list[str]:
    """Return the keys of the network's arguments that are others than in the bundle's training."""
    before = read_json(root / "configs" / "train.json").get(NETWORK, {})
    return [f"{NETWORK}#{key}" for key, value in config[NETWORK].items() if key not in before or before[key] != value]


def _check_network(parser: ConfigParser, record: Mapping[str, Any], ckpt: Any) -> None:
    """Refuse weights of another network."""
    found = _network(parser.get())
    if (expected := record.get("network", found)) != found:
        raise InputError(
            f"the weights '{ckpt}' were trained in the bundle '{record.get('bundle')}' for the network {expected}, "
            f"expected {found}; use that bundle, other weights, or, for a network of your own, "
            f"--{NETWORK}#_target_ {expected}."
        )


def _network(config: Mapping[str, Any]) -> str:
    """Return the class of a configuration's network."""
    network = config.get(NETWORK)
    return str(network.get("_target_", "")) if isinstance(network, Mapping) else ""


def _take(parser: ConfigParser, settings: Mapping[str, Any]) -> set[str]:
    """Set values of a configuration that may be in the middle of its evaluation; return their keys."""
    for key, value in settings.items():
        parser[key] = value
    if settings:
        parser.parse(reset=True)
    return {*settings}


def _value(parser: ConfigParser, key: str) -> Any:
    """Return a setting of a configuration, evaluated; None if it has none of this name."""
    try:
        return _as_lists(parser.get_parsed_content(key))
    except KeyError:
        return None


def _as_lists(value: Any) -> Any:
    """Return tuples as lists, since a command line gives either."""
    return [_as_lists(entry) for entry in value] if isinstance(value, list | tuple) else value


def _is_setting(key: str, value: Any) -> bool:
    """Whether a value may come with weights: no code, no component, no path, nothing of one run alone."""
    top, _, argument = key.partition("#")
    is_argument = top in COMPONENTS and argument.isidentifier() and not argument.startswith(CODE)
    return (is_argument or not argument) and top not in OF_A_RUN and _is_plain(value)


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a name, or a list of such."""
    if isinstance(value, list | tuple):
        return all(_is_plain(entry) for entry in value)
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and value[:1] not in CODE)


def _is_among(key: str, typed: Collection[str]) -> bool:
    """Whether a key, what it is inside of, or something inside of it was typed."""
    return any(f"{key}#".startswith(f"{one}#") or f"{one}#".startswith(f"{key}#") for one in typed)


def _same_id(key: str) -> str:
    """Write an id in the one of its two spellings that this module compares."""
    return key.replace("::", "#").removeprefix("+")


def _report(ckpt: Any, taken: Mapping[str, Any], overruled: Mapping[str, tuple[Any, Any]]) -> None:
    """Log which settings come with weights, and which were typed in their place."""
    if taken:
        listed = ", ".join(f"{key} {value}" for key, value in taken.items())
        logger.info("The weights '%s' bring %s.", ckpt, listed)
    if overruled:
        logger.warning("Other settings than those of the weights '%s': %s.", ckpt, _changes(overruled))


def _changes(pairs: Mapping[str, tuple[Any, Any]]) -> str:
    """List settings with the values that they would have by the weights."""
    return ", ".join(f"{key} {value} instead of {of_weights}" for key, (value, of_weights) in pairs.items())


def _read(weights: Path) -> Any:
    """Read a file of weights; None if it is none, which their loader will say."""
    try:
        return torch.load(check_file(weights, "checkpoint"), map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # a damaged or foreign file can fail in any way inside the unpickler
        return None
