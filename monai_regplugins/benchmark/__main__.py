"""Compare bundles with registration methods that install from pip, on the pairs of a data set or of a list.

The preprocessing of the first bundle prepares the pairs, once, so that all methods get the same images. Then each
method runs in a process of its own, which makes seconds, CPU seconds and peak memory its own. Without a data set the
pairs are those of the first bundle's phantom. Means are over all pairs; a method that fails on one says so in its row.

    python -m monai_regplugins.benchmark --bundle bundles/ran --methods identity greedy ran --output comparison.md
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from monai_regplugins.benchmark.baselines import BASELINES
from monai_regplugins.benchmark.reporting import (
    check_output,
    hardware,
    publish,
    read_config,
    setting,
)
from monai_regplugins.benchmark.runner import BenchmarkMethod, MethodResult, compare
from monai_regplugins.benchmark.table import answer, comparison_table, regularity_figure
from monai_regplugins.bundle import start
from monai_regplugins.bundle_folders import read_json
from monai_regplugins.checks import InputError, check_file, suggest
from monai_regplugins.data.learn2reg import Learn2RegDataset
from monai_regplugins.data.pair_list import read_pair_list
from monai_regplugins.environment import installed_version
from monai_regplugins.given_once import OptionParser
from monai_regplugins.settings import published_weights, record_of
from monai_regplugins.training import LABEL_OPTIONS, register_command, shown

STEPS = 30  # of optimization alone, if there are none to follow
ALONE = "optimization alone"
NAMED = 10  # pairs
DEFAULT_BASELINES = ("identity", "elastix", "greedy", "ants", "demons", "dipy")
SOFTWARE = ("monai-regplugins", "monai", "torch", "numpy")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = OptionParser(
        prog="python -m monai_regplugins.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--bundle", type=Path, action="append", required=True, help="folder of a bundle; may be given again")
    add("--ckpt", nargs="+", default=[], help="weights of each bundle, in their order (default: the bundle's)")
    add(
        "--dataset_dir",
        help="folder of a data set (default: that which the first --ckpt was trained on, else the bundle's phantom)",
    )
    add("--pairs_file", help="list of pairs in place of a data set, .csv or .json")
    add("--pairs", type=int, default=0, help="how many pairs to register (default: all)")
    add(
        "--methods",
        nargs="+",
        help=f"among {', '.join(BASELINES)}, voxelmorph, the bundles, published (of a bundle's own weights "
        "those that --ckpt was trained from, else each) and optimization (of the first bundle, without a network) "
        "(default: the usual ones)",
    )
    add("--voxelmorph_ckpt", help="weights of MONAI's VoxelMorph, which takes part if they are given")
    add("--refine_steps", type=int, default=0, help="also register with so many steps of instance optimization")
    add(
        "--stiffness",
        nargs="+",
        type=float,
        default=[],
        help="factors on the regularization of each method that has one: the alignment-regularity curve",
    )
    add("--set", nargs="+", default=[], type=setting, metavar="KEY=VALUE", help="other keys of the configurations")
    add("--threads", type=int, default=1, help="CPU threads; seconds compare best with one (default: 1)")
    add("--seed", type=int, default=0, help="of the methods that draw random numbers (default: 0)")
    add("--time_limit", type=float, help="seconds after which a method is ended (default: none)")
    add("--output", type=Path, help="file to write, .md for the table or .json for all values")
    add("--figure", type=Path, help="picture of the alignment-regularity curves to write, .png, .svg or .pdf")
    args = parser.parse_args(argv)
    if args.threads < 1 or min(args.pairs, args.refine_steps, args.seed) < 0:
        parser.error("--threads must be at least 1, --pairs, --refine_steps and --seed at least 0")
    if any(not factor > 0 for factor in args.stiffness) or (args.figure and not args.stiffness):
        parser.error("--stiffness takes numbers above 0, and --figure draws what it gives")
    if args.dataset_dir and args.pairs_file:
        parser.error("give --dataset_dir or --pairs_file, not both")
    if args.ckpt and len(args.ckpt) != len(args.bundle):
        parser.error(f"{len(args.ckpt)} --ckpt for {len(args.bundle)} --bundle; give one each, or none")
    return args


def read_bundles(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the evaluation configurations of the bundles with the arguments in them, by the names of their folders.

    Raises:
        InputError: When a bundle has no such configuration, or no bundle has a key that is to be set.
    """
    files = [root / "configs" / "evaluate.json" for root in args.bundle]
    plain = [read_config(file, {}) for file in files]
    known = [key for config in plain for key in config]
    if unknown := [key for key, _ in args.set if key not in known]:
        raise InputError(f"no bundle has a key '{unknown[0]}' to set.{suggest(unknown[0], known)}")
    configs: dict[str, dict[str, Any]] = {}
    for number, (file, config) in enumerate(zip(files, plain, strict=True)):
        name = file.resolve().parents[1].name
        overrides = _overrides(args, config, args.ckpt[number] if args.ckpt else None)
        configs[name if name not in configs else f"{name}-{number + 1}"] = read_config(file, overrides)
    return configs


def _overrides(args: argparse.Namespace, config: Mapping[str, Any], ckpt: str | None) -> dict[str, Any]:
    """Return the arguments of the command line that are keys of a configuration, with these weights."""
    overrides = {key: value for key, value in args.set if key in config}
    overrides |= {"ckpt": ckpt} if ckpt else {}
    overrides |= {"dataset_dir": args.dataset_dir} if args.dataset_dir else {}
    return overrides | ({"val_pairs": args.pairs} if args.pairs and not args.pairs_file else {})


def choose_methods(args: argparse.Namespace, configs: Mapping[str, dict[str, Any]]) -> list[BenchmarkMethod]:
    """Return the methods that the command line asks for, in its order.

    Raises:
        InputError: When a method is unknown, or has no weights.
    """
    choices = [*BASELINES, "voxelmorph", "published", "optimization", *configs]
    default = [*DEFAULT_BASELINES, *(["voxelmorph"] if args.voxelmorph_ckpt else []), *configs]
    methods = []
    for name in dict.fromkeys(args.methods or default):
        if name not in choices:
            raise InputError(
                f"method '{name}' is unknown, expected one of {', '.join(choices)}, or a bundle given by --bundle."
                f"{suggest(name, choices)}"
            )
        if name in configs:
            methods += _with_and_without_refinement(name, configs[name], args.refine_steps)
        elif name == "published":
            methods += _published(args)
        elif name == "optimization":
            options = {"config": next(iter(configs.values())), "refine_steps": args.refine_steps or STEPS}
            methods.append(BenchmarkMethod(ALONE, "bundle", options | {"alone": True}))
        elif name == "voxelmorph":
            methods.append(_voxelmorph(args.voxelmorph_ckpt, next(iter(configs.values()))))
        else:
            methods.append(BenchmarkMethod(name, name))
    if not args.stiffness:
        return methods
    return [one for method in methods for one in method.with_stiffness(args.stiffness)]


def facts(
    args: argparse.Namespace,
    config: Mapping[str, Any],
    results: Mapping[str, MethodResult],
    methods: Sequence[BenchmarkMethod] = (),
) -> dict[str, Any]:
    """Return what is needed to understand and to repeat a comparison, by name."""
    parser = ConfigParser(dict(config))
    aligned = f", initial alignment '{config['initial_alignment']}' in every row" if _start(config) == "aligned" else ""
    chosen = {
        name: BASELINES[name] for name in dict.fromkeys(one.partition(" x ")[0] for one in results) if name in BASELINES
    }
    packages = dict.fromkeys([*SOFTWARE, *(baseline.package for baseline in chosen.values())])
    weights = [(method, file) for method in methods if (file := _weights_of(method))]
    data_set = args.pairs_file or Learn2RegDataset(parser.get_parsed_content("dataset_dir")).name
    return {
        "data_set": data_set,
        "pairs": max(len(result.pairs) for result in results.values()),
        "names_of_the_pairs": _names(results),
        "preprocessing": f"that of {args.bundle[0].resolve().name}{aligned}",
        **{name: baseline.about for name, baseline in chosen.items()},
        **_answers(args, results, methods, _more_pairs(args, config)),
        **{f"weights of {method.name}": file for method, file in weights},
        **_trained_on(data_set, weights),
        **_data_of_published(weights),
        **_differing_settings(methods, args.refine_steps),
        **_registration(args, results, weights),
        "versions": ", ".join(f"{package} {installed_version(package) or 'not installed'}" for package in packages),
        "threads_of_a_method": args.threads,
        "seed": args.seed,
        "hardware": hardware(parser.get_parsed_content("device")),
    }


def main(argv: Sequence[str] | None = None) -> str:
    """Register, measure, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    check_output(args.figure, (".png", ".svg", ".pdf"), "figure")
    for ckpt in args.ckpt:
        check_file(ckpt, "ckpt")
    configs = read_bundles(args)
    methods, config = choose_methods(args, configs), next(iter(configs.values()))
    parser = ConfigParser(dict(config))
    if args.pairs_file:
        pairs = read_pair_list(args.pairs_file)[: args.pairs or None]
    else:
        pairs = parser.get_parsed_content("dataset").data
    results = compare(methods, config, pairs, args.threads, args.seed, args.time_limit)
    command = shlex.join(["python", "-m", "monai_regplugins.benchmark", *argv])
    about = {**facts(args, config, results, methods), "command": command}
    if args.figure:
        regularity_figure(methods, results).savefig(args.figure, dpi=80)
    table = comparison_table(results, about, parser.get_parsed_content("device").type == "cuda", _start(config))
    return publish(args.output, table, about, results=results)


def _start(config: Mapping[str, Any]) -> str:
    """Return what the table of an evaluation calls the pairs as all methods get them."""
    return "before" if config.get("initial_alignment", "none") == "none" else "aligned"


def _trained_on(data_set: str, weights: Sequence[tuple[BenchmarkMethod, str]]) -> dict[str, str]:
    """Say which published weights, or weights that started from such, are named like the data set, and may know it."""
    said = {}
    for method, file in weights:
        root = _root_of(method)
        names = {Path(file).name, (record_of(file, root) or {}).get("started_from", "")}
        for name in sorted(names & {published.name for published in published_weights(root)}):
            word = Path(name).stem.removeprefix("model").strip("_").partition("_")[0]  # what they are for, if any
            if word and word in data_set.lower():
                said[f"training of {method.name}"] = (
                    f"that of '{name}' was on such data: pairs of images that it saw there are no fair comparison"
                )
    return said


def _data_of_published(weights: Sequence[tuple[BenchmarkMethod, str]]) -> dict[str, str]:
    """Say what the published weights of each bundle were trained on, whatever the data set is called."""
    roots = [_root_of(method) for method, file in weights if _knows_published(_root_of(method), file)]
    sources = {root.resolve().name: read_json(root / "configs" / "metadata.json").get("data_source") for root in roots}
    return {
        f"published weights of {name}": f"trained on {source}; images that are among these are no fair comparison"
        for name, source in sources.items()
        if source
    }


def _knows_published(root: Path, weights: str) -> bool:
    """Whether weights are published ones of a bundle, or started from such."""
    is_published = any(file.resolve() == Path(weights).resolve() for file in published_weights(root))
    return is_published or bool((record_of(weights, root) or {}).get("started_from"))


def _registration(
    args: argparse.Namespace, results: Mapping[str, MethodResult], weights: Sequence[tuple[BenchmarkMethod, str]]
) -> dict[str, str]:
    """Return the command that registers with each of the user's weights, and a hint where the pairs have labels."""
    commands = {
        f"to register with {method.name}": register_command(
            _root_of(method), file, _better_steps(args.refine_steps, results, method.name)
        )
        for method, file in weights
        if "(published)" not in method.name
    }
    labels = any("dsc" in result.metrics for result in results.values())
    return commands | ({"with label maps": LABEL_OPTIONS} if commands and labels else {})


def _with_and_without_refinement(name: str, config: dict[str, Any], steps: int) -> list[BenchmarkMethod]:
    """Return a bundle as a method, and the same with instance optimization if it is to take any steps."""
    plain = BenchmarkMethod(name, "bundle", {"config": config})
    refined = BenchmarkMethod(f"{name} + {steps} steps", "bundle", {"config": config, "refine_steps": steps})
    return [plain, refined] if steps else [plain]


def _published(args: argparse.Namespace) -> list[BenchmarkMethod]:
    """Return the bundles with their own weights, to be compared with others."""
    methods = []
    for number, root in enumerate(args.bundle):
        config_file, name = root / "configs" / "evaluate.json", root.resolve().name
        plain = read_config(config_file, {})
        for file in _weights_to_compare(root, args.ckpt[number] if args.ckpt else None):
            config = read_config(config_file, _overrides(args, plain, str(file)))
            methods += _with_and_without_refinement(f"{name} {file.name} (published)", config, args.refine_steps)
    return methods


def _weights_to_compare(root: Path, ckpt: str | None) -> list[Path]:
    """Return the published weights that a training started from; all of the bundle if it started from none of them."""
    published = list(published_weights(root.resolve()))
    record = record_of(check_file(ckpt, "ckpt"), root.resolve()) if ckpt else None
    start = (record or {}).get("started_from")
    return [file for file in published if file.name == start] or published


def _better_steps(steps: int, results: Mapping[str, MethodResult], name: str) -> dict[str, int]:
    """Return the steps of instance optimization after which a bundle was better in the mean; none if it has one row."""
    rows = [results.get(name), results.get(f"{name} + {steps} steps")]
    if any(row is None or not row.metrics for row in rows):
        return {}
    alone, refined = (row.metrics for row in rows if row is not None)
    measure = next((one for one in ("dsc", "tre", "ncc") if one in alone), "")
    gain = refined.get(measure, math.nan) - alone.get(measure, math.nan)
    return {"refine_steps": 0 if (-gain if measure == "tre" else gain) < 0 else steps}


def _names(results: Mapping[str, MethodResult]) -> str:
    """Return the names of the pairs that were registered, of many the first ones."""
    names = list(dict.fromkeys(str(row["pair_id"]) for result in results.values() for row in result.pairs))
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _more_pairs(args: argparse.Namespace, config: Mapping[str, Any]) -> str:
    """Say how to register all pairs if ``--pairs`` left some out."""
    if not args.pairs:
        return ""
    everything = ConfigParser({**config, "val_pairs": 0})
    known = read_pair_list(args.pairs_file) if args.pairs_file else everything.get_parsed_content("dataset").data
    return f"; --pairs takes more of the {len(known)} there are" if len(known) > args.pairs else ""


def _answers(
    args: argparse.Namespace,
    results: Mapping[str, MethodResult],
    methods: Sequence[BenchmarkMethod],
    more_pairs: str = "",
) -> dict[str, str]:
    """Say whether each bundle is better than optimization alone and than the published weights, on the same pairs.

    And whether its refined row is better than the network alone. Where something is not shown, that there are more
    pairs is said, too.
    """
    if args.stiffness:  # rows of a curve
        return {}
    bundles = [method for method in methods if method.kind == "bundle" and method.name != ALONE]
    compared, steps = list[tuple[str, str]](), f" + {args.refine_steps} steps"
    for refined in dict.fromkeys((False, bool(args.refine_steps))):
        rows = [method.name for method in bundles if bool(method.options.get("refine_steps")) == refined]
        others = [name for name in rows if "(published)" in name]
        own = [name for name in rows if name not in others]
        compared += [(one, other) for one in own for other in (ALONE, *others) if {one, other} <= results.keys()]
        compared += [(one, one.removesuffix(steps)) for one in own] if refined else []
    said = {(one, other): answer(results[one], results[other]) for one, other in compared}
    hints = {(one, other): "; use --refine_steps 0" for one, other in said if one.removesuffix(steps) == other}
    return {
        f"{one} better than {other}": words
        + hints.get((one, other), "") * ("no:" in words and "yes:" not in words)
        + more_pairs * ("not shown:" in words)
        for (one, other), words in said.items()
        if words
    }


def _differing_settings(methods: Sequence[BenchmarkMethod], refine_steps: int) -> dict[str, str]:
    """Say in which settings the bundles' rows differ, those of the optimization alone being the first bundle's."""
    rows = [method for method in methods if method.kind == "bundle"]
    rows = [one for one in rows if one.options.get("alone") or not refine_steps or one.options.get("refine_steps")]
    values = {row.name: _settings_of(row.options["config"], bool(row.options.get("alone"))) for row in rows}
    known = {key: [found[key] for found in values.values() if key in found] for key in chain(*values.values())}
    differing = [key for key, found in known.items() if any(one != found[0] for one in found)]
    said = {name: [f"{key} {found[key]}" for key in differing if key in found] for name, found in values.items()}
    return {f"settings of {name}": ", ".join(words) for name, words in said.items() if words}


def _settings_of(config: Mapping[str, Any], alone: bool) -> dict[str, Any]:
    """Return the plain settings that a configuration's inferer and network depend on, those of the inferer if alone."""
    parser, left = ConfigParser(dict(config)), ["inferer", *(["network_def"] if not alone else [])]
    found: dict[str, None] = {}
    while left:
        for key in (one.partition("::")[0] for one in ReferenceResolver.find_refs_in_config(config[left.pop()], "")):
            if key in config and key not in found and not (alone and key == "registration"):
                found[key] = None
                left.append(key)
    values = {key: parser.get_parsed_content(key) for key in found if not isinstance(config[key], Mapping)}
    return {key: value for key, value in values.items() if isinstance(value, int | float | str | list)}


def _weights_of(method: BenchmarkMethod) -> str:
    """Return the file of a network's weights, nothing for a method without them and for its second row."""
    if method.kind != "bundle" or method.options.get("refine_steps") or method.options.get("alone"):
        return ""
    return shown(ConfigParser(dict(method.options["config"])).get_parsed_content("ckpt"))


def _root_of(method: BenchmarkMethod) -> Path:
    """Return the folder of a bundle."""
    return Path(ConfigParser(dict(method.options["config"])).get_parsed_content("bundle_root"))


def _voxelmorph(ckpt: str | None, config: Mapping[str, Any]) -> BenchmarkMethod:
    """Return VoxelMorph on the grid of a bundle's network."""
    if not ckpt:
        raise InputError("voxelmorph has no weights of its own; give those of MONAI's VoxelMorph by --voxelmorph_ckpt.")
    parser = ConfigParser(dict(config))
    size = parser.get_parsed_content("spatial_size") if "spatial_size" in config else []
    dims = parser.get_parsed_content("spatial_dims")
    options = {"ckpt": str(check_file(ckpt, "voxelmorph_ckpt")), "spatial_dims": dims, "spatial_size": size}
    return BenchmarkMethod("voxelmorph", "voxelmorph", options)


if __name__ == "__main__":
    start()  # input errors in one line
    main()
