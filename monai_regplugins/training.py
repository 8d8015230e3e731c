"""Checks before a training, and the commands to use its result that are logged after it."""

from __future__ import annotations

import ast
import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import ConfigParser

from monai_regplugins.bundle import configuration, enclosing_parser
from monai_regplugins.checks import InputError, load_weights
from monai_regplugins.data.learn2reg import Learn2RegDataset, validation_pairs
from monai_regplugins.option_values import LANGUAGE
from monai_regplugins.settings import record_of, training_record

__all__ = [
    "LABEL_OPTIONS",
    "check_settings",
    "labeled",
    "log_commands",
    "log_registration",
    "record",
    "register_command",
    "shown",
]

logger = logging.getLogger(__name__)

COUNTS = ("max_epochs", "val_interval", "pairs_per_epoch", "images_per_epoch", "batch_size")
COUNTS_OR_NONE = ("warmup_steps", "val_pairs", "val_cases", "num_workers")

IS_IT_BETTER = "Is it better than optimization alone, and than the published weights?"
LABEL_OPTIONS = "--moving_label LABELS warps a label map along, --fixed_label LABELS measures its overlap"
MANY_PAIRS = 50  # to evaluate; each takes seconds, in 3D up to half a minute
FEW_PAIRS = 10  # to compare several methods on in 3D

OF_IMAGES = (  # settings of how images are prepared, of any bundle
    *("spatial_size", "voxel_size", "window", "clip", "intensity_range", "initial_alignment", "extend_border"),
    "mask_threshold",
)

# A training and the use of its result may differ in these: how many pairs are validated meanwhile and go together, and
# the noise, which regularizes the one and measures the uncertainty of the other.
NOT_FOLLOWED = ("val_pairs", "batch_size", "noise_std", "preset")
OF_THE_DATA = ("phantom",)  # settings that do nothing beside two images

PLAIN_WORD = re.compile(r"[\w./~-]+")  # anything else may be a list, a number or an expression to the command line


def check_settings() -> None:
    """Reject invalid training settings; part of ``initialize`` of every training configuration.

    They are read from the configuration that is being evaluated; without one the check is silent. Checked are those it
    has of the following: counts, the time, the learning rate and its divisor, all ``*_weight`` and ``*_probability``,
    that the grid is as large as the network needs, that the data set has its dimensions, and that a resumed training
    has one if it had one. A training on own data that starts from given weights logs which settings of its images are
    theirs.

    Raises:
        InputError: When one is no number or out of its range, or the data set has other dimensions or is missing.
    """
    parser = enclosing_parser()
    if parser is None:
        return
    values = {name: parser.get_parsed_content(name) for name in _keys(parser) if _rule(name) is not None}
    for name, value in values.items():
        expected, is_good = _rule(name) or ("", bool)
        if isinstance(value, bool) or not isinstance(value, int | float) or not is_good(value):
            raise InputError(f"{name} is {value!r}, expected {expected}; give such a number by --{name}.")
    _check_grid(parser)
    start = _start_of(parser)
    _check_resumed_data(parser, *start)
    _check_dimensions(parser)
    _report_settings_of_start(parser, *start)


def labeled(pairs: Sequence[Mapping[str, Any]], label_weight: float) -> Sequence[Mapping[str, Any]]:
    """Return training pairs as they are, if they have the labels that a loss wants.

    Raises:
        InputError: When ``label_weight`` is above zero and a pair lacks a label map.
    """
    lacking = [pair for pair in pairs if not {"moving_label", "fixed_label"} <= pair.keys()]
    if label_weight > 0 and lacking:
        raise InputError(
            f"label_weight is {label_weight}, but {len(lacking)} of {len(pairs)} training pairs lack labels "
            f"(first '{lacking[0]['pair_id']}'); give each image its label map, or leave label_weight at 0."
        )
    return pairs


def record() -> dict[str, Any]:
    """Return what the weights of the training that is being evaluated are to say of themselves; empty without one.

    See :func:`~monai_regplugins.settings.training_record`.

    Example:
        >>> record()
        {}
    """
    parser = enclosing_parser()
    return {} if parser is None else training_record(parser)


def log_commands(weights: str | Path, output_dir: str | Path, overlays: Sequence[str] = ()) -> None:
    """Log the commands that evaluate the result of a training, compare it and register with it, which is the last line.

    For a training that a time limit has cut short, or that has improved no score, the first is how it goes on.

    They carry every setting that the configurations of training and of the task share, in which these differ, and that
    does not come with the weights, such as ``--measure``.

    Args:
        weights: the result.
        output_dir: folder of the training; the evaluation goes there.
        overlays: configurations on top of ``inference.json``, such as ``series``.
    """
    if (parser := enclosing_parser()) is None:
        return
    root = Path(parser.get_parsed_content("bundle_root"))

    def command(task: str, names: Sequence[str], output: Path) -> str:
        files = [root / "configs" / f"{name}.json" for name in names]
        places = {"ckpt": shown(weights), "output_dir": shown(output), **_data_set(parser)}
        words = ["python", "-m", "monai.bundle", "run", task, "--config_file", _config_word(files)]
        return shlex.join([*words, *_options({**places, **_settings_to_follow(parser, files)})])

    evaluating, pairs = command("evaluating", ["evaluate"], Path(output_dir)), len(_pairs_to_validate(parser))
    few = pairs > MANY_PAIRS
    if again := _resume_command(Path(weights), sys.argv):
        logger.info("Go on with the training:\n%s", again)
    logger.info(
        "Evaluate it%s:\n%s%s",
        f" on {MANY_PAIRS} of its {pairs} validation pairs" if few else "",
        evaluating,
        f" --val_pairs {MANY_PAIRS}" if few else "",
    )
    logger.info("%s\n%s", IS_IT_BETTER, _comparison(root, weights, parser, MANY_PAIRS if few else 0))
    if overlays:  # of a series
        output = Path(output_dir, "inference")
        logger.info("Register with it:\n%s", command("inference", ["inference", *overlays], output))
        return
    settings = _settings_to_follow(parser, [root / "configs" / "inference.json"])
    following = {name: value for name, value in settings.items() if name not in OF_THE_DATA}
    _log_register(parser, weights, following, "the validations")


def _pairs_to_validate(parser: ConfigParser) -> Sequence[Mapping[str, str]]:
    """Return the validation pairs of the user's data set; none of the phantom, or if it is no folder of pairs."""
    config = parser.get()
    if not {"dataset_dir", "embedded_dir"} <= config.keys() or not (places := _data_set(parser)):
        return []
    try:
        return validation_pairs(places["dataset_dir"], seed=config.get("seed", 0))
    except InputError:
        return []


def _log_register(parser: ConfigParser, weights: str | Path, settings: Mapping[str, Any], measured: str) -> None:
    """Log the command that registers own images with weights, how that differs from what was measured, and hints."""
    root = Path(parser.get_parsed_content("bundle_root"))
    of_weights = (record_of(weights, root) or {}).get("settings", {})
    is_unlike = "refine_steps" not in settings and of_weights.get("refine_steps", math.inf) > 0
    unlike = (
        f" (optimizes the network's field for each pair, which {measured} did not; --refine_steps 0 leaves that out)"
    )
    about = unlike if is_unlike else ""
    labels = any("moving_label" in pair for pair in _pairs_to_validate(parser))
    hint = f"; {LABEL_OPTIONS}" if labels else ""
    command = register_command(root, weights, settings)
    logger.info("Register your own images with these weights%s%s:\n%s", about, hint, command)


def log_registration(weights: str | Path) -> None:
    """Log the commands that compare evaluated weights and register with them, in the first process of an evaluation."""
    parser = enclosing_parser()
    if parser is not None and idist.get_rank() == 0:
        root = Path(parser.get_parsed_content("bundle_root"))
        if {"dataset_dir", "embedded_dir"} <= parser.get().keys():
            compared = _comparison(root, weights, parser, parser.get().get("val_pairs", 0))
            logger.info("%s\n%s", IS_IT_BETTER, compared)
        steps = parser.get().get("refine_steps", 0)
        _log_register(parser, weights, {"refine_steps": steps} if steps else {}, "this evaluation")


def register_command(root: str | Path, weights: str | Path, settings: Mapping[str, Any] | None = None) -> str:
    """Return the command that registers two images with weights of a bundle.

    Args:
        root: folder of the bundle.
        weights: the weights.
        settings: other settings than the default ones, and than those that come with the weights.

    Example:
        >>> register_command("bundles/ran", "model.pt", {"refine_steps": 30})
        'regplugins register FIXED MOVING --bundle bundles/ran --ckpt model.pt --refine_steps 30 -o out'
    """
    words = ["--bundle", shown(root), "--ckpt", shown(weights), *_options(settings or {})]
    return shlex.join(["regplugins", "register", "FIXED", "MOVING", *words, "-o", "out"])


def _resume_command(weights: Path, argv: Sequence[str]) -> str:
    """Return the command line of a training with its checkpoint; empty if it is complete, or not of a command line."""
    checkpoint = weights.with_name("checkpoint.pt")
    is_typed = Path(argv[0]).parts[-3:-1] == ("monai", "bundle") and "WORLD_SIZE" not in os.environ  # of torchrun
    if not is_typed or not checkpoint.is_file():
        return ""
    state = load_weights(checkpoint)
    epoch, steps, wanted = state["trainer"]["epoch"], state.get("steps", 0), configuration().get("max_epochs")
    if weights.name == "model.pt" and not steps:
        return ""
    left_out = ["ckpt"]
    more = {"ckpt": shown(checkpoint)}
    if not steps and epoch >= wanted:
        left_out, more = [*left_out, "max_epochs"], {**more, "max_epochs": str(2 * epoch)}
    words = [word for name, value in more.items() for word in (f"--{name}", value)]
    return shlex.join(["python", "-m", "monai.bundle", *_without(argv[1:], left_out), *words])


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return the words of a command line without some options, each with its value in the next word or behind ``=``."""
    kept, skipped = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        is_one = name.startswith("-") and name.lstrip("-") in options
        if not is_one and not skipped:
            kept.append(word)
        skipped = is_one and not equals
    return kept


def _comparison(root: Path, weights: str | Path, parser: ConfigParser, evaluated: int) -> str:
    """Return the command that compares weights with optimization alone and with the bundle's own ones.

    In 2D it takes as many pairs as the evaluation, all for 0; those of 3D take long.
    """
    pairs = evaluated if parser.get().get("spatial_dims") == 2 else FEW_PAIRS
    places = {"bundle": shown(root), "ckpt": shown(weights), **_data_set(parser)}
    places |= ({"pairs": str(pairs)} if pairs else {}) | {"refine_steps": "30"}
    words = [word for name, value in places.items() for word in (f"--{name}", value)]
    methods = ["identity", "optimization", root.name, "published"]
    return shlex.join(["python", "-m", "monai_regplugins.benchmark", *words, "--methods", *methods])


def shown(path: str | Path) -> str:
    """Return a path as it is typed: from the working directory where that is above it, else in full."""
    full = Path(os.path.abspath(path))
    return str(full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else full)


def _rule(name: str) -> tuple[str, Callable[[float], bool]] | None:
    """Return what is expected of a setting, in words and as a test of a number; None for any other key."""
    if name in COUNTS:
        return "a whole number of at least 1", lambda value: isinstance(value, int) and value >= 1
    if name in COUNTS_OR_NONE:
        return "a whole number of at least 0", lambda value: isinstance(value, int) and value >= 0
    if name == "learning_rate_divisor":
        return "a finite number above 0", lambda value: math.isfinite(value) and value > 0
    if name in ("learning_rate", "max_minutes") or name.endswith("_weight"):
        return "a finite number of at least 0", lambda value: math.isfinite(value) and value >= 0
    if name.endswith("_probability"):
        return "a number from 0 to 1", lambda value: 0 <= value <= 1
    return None


def _check_dimensions(parser: ConfigParser) -> None:
    """Refuse a data set of the user's that is 2D where the network is 3D, or the reverse."""
    places = [_keys(parser).count(name) and parser.get_parsed_content(name) for name in ("dataset_dir", "embedded_dir")]
    if not places[0] or places[0] == places[1] or not Path(places[0]).is_dir():
        return
    dims, found = parser.get_parsed_content("spatial_dims"), Learn2RegDataset(places[0]).spatial_dims
    if dims != found:
        bundle = {2: "r2n2", 3: "ran"}[found]
        raise InputError(
            f"the data set '{places[0]}' is {found}D and spatial_dims {dims}; train the bundle {bundle}, which is "
            f"{found}D, or give --spatial_dims {found} and a grid of {found} numbers."
        )


def _check_grid(parser: ConfigParser) -> None:
    """Refuse a grid that the network does not take.

    Axes down to half of its minimum are padded, unless it returns a sequence, whose fields the loss takes as they are.
    """
    if not {"spatial_size", "network_def"} <= {*_keys(parser)}:
        return
    size, network = (parser.get_parsed_content(name) for name in ("spatial_size", "network_def"))
    margin = parser.get_parsed_content("crop_margin") if "crop_margin" in _keys(parser) else 0
    margins = [margin] * len(size) if isinstance(margin, int) else margin
    minimum = getattr(network, "minimum_size", 1)
    least = minimum if getattr(network, "return_sequence", False) else (minimum + 1) // 2
    if not size or any(n != -1 and n - 2 * m < least for n, m in zip(size, margins, strict=True)):
        cropped = f" beside a crop_margin of {margin}" if any(margins) else ""
        raise InputError(
            f"spatial_size is {list(size)}, but {type(network).__name__} is trained on at least {least} voxels along "
            f"each axis{cropped}; give such a size, or -1 to keep an axis of the images."
        )


def _is_embedded(parser: ConfigParser) -> bool:
    """Whether a configuration has a data set and it is the bundle's own phantom."""
    places = [parser.get_parsed_content(name) for name in ("dataset_dir", "embedded_dir") if name in _keys(parser)]
    return len(places) == 2 and places[0] == places[1]


def _start_of(parser: ConfigParser) -> tuple[str, Mapping[str, Any]]:
    """The weights or the checkpoint that a training begins with, and what it holds; nothing from scratch."""
    ckpt = parser.get_parsed_content("ckpt") if "ckpt" in _keys(parser) else ""
    return ckpt, load_weights(ckpt) if ckpt else {}


def _check_resumed_data(parser: ConfigParser, ckpt: str, state: Mapping[str, Any]) -> None:
    """Refuse to resume a training on own data without them, before the phantom is made in their place."""
    if ckpt and _is_embedded(parser) and (data := state.get("data")):
        raise InputError(
            f"checkpoint '{ckpt}' is of a training on the data set '{data}'; give that, too: --dataset_dir "
            f"{shlex.quote(shown(data))}."
        )


def _report_settings_of_start(parser: ConfigParser, ckpt: str, state: Mapping[str, Any]) -> None:
    """Log how own images are prepared where a training starts from given weights, whose settings hold.

    A training on the phantom that starts from weights of own images may have lost its data set: that is a warning.
    """
    if not ckpt or "optimizer" in state:
        return
    if _is_embedded(parser):
        data = (record_of(ckpt, Path(parser.get_parsed_content("bundle_root"))) or {}).get("data")
        if data:
            text = "The weights '%s' were trained on '%s'; this training is on the phantom: --dataset_dir takes images."
            logger.warning(text, ckpt, data)
        return
    values = {name: parser.get_parsed_content(name) for name in OF_IMAGES if name in _keys(parser)}
    logger.info(
        "Training from '%s' on own images, prepared as for these weights where nothing else was given: %s. "
        "'regplugins describe' proposes what fits your images.",
        ckpt,
        ", ".join(f"{name} {value}" for name, value in values.items()),
    )


def _keys(parser: ConfigParser) -> list[str]:
    """Return the top-level keys of a configuration."""
    return list(parser.config) if isinstance(parser.config, dict) else []


def _settings_to_follow(parser: ConfigParser, files: Sequence[Path]) -> dict[str, Any]:
    """Return the training's values of plain settings for which the configuration of ``files`` has another one."""
    config = ConfigParser.load_config_files([str(file) for file in files])
    with_weights = {*training_record(parser)["settings"], *NOT_FOLLOWED}
    shared = [name for name in _keys(parser) if name not in with_weights and _is_plain(config.get(name, {}))]
    values = {name: parser.get_parsed_content(name) for name in shared}
    return {name: value for name, value in values.items() if value != config[name]}


def _data_set(parser: ConfigParser) -> dict[str, str]:
    """Return the data set of a training if it is not the embedded one."""
    given, embedded = (parser.get_parsed_content(name) for name in ("dataset_dir", "embedded_dir"))
    return {} if given == embedded else {"dataset_dir": shown(given)}


def _is_plain(value: Any) -> bool:
    """Whether an item of a configuration is a value, or a list of values, and no expression, reference or component."""
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return not isinstance(value, Mapping) and not str(value).startswith(LANGUAGE)


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as words of a command."""
    return [word for name, value in settings.items() for word in (f"--{name}", _word(value))]


def _config_word(files: Sequence[Path]) -> str:
    """Return one file as it is, several as a list."""
    names = [shown(file) for file in files]
    return names[0] if len(names) == 1 else repr(names).replace(" ", "")


def _word(value: Any) -> str:
    """Return a value as a word of a command that the command line reads as just this value."""
    if value is None:  # MONAI passes over an argument that is None
        return "$None"
    if not isinstance(value, str):
        return repr(value).replace(" ", "")
    return value if PLAIN_WORD.fullmatch(value) and not _is_literal(value) else repr(value)


def _is_literal(text: str) -> bool:
    """Whether Python would read a text as a number or the like."""
    try:
        ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return False
    return True
