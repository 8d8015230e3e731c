"""Release checks: the rules of the MONAI model zoo and of this package."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from monai_regplugins.checks import InputError, load_into, load_weights
from monai_regplugins.environment import installed_version
from monai_regplugins.release import zoo_rules
from monai_regplugins.release.layout import read_metadata, released_files

__all__ = ["check_bundles"]

PACKAGE = "monai-regplugins"
REQUIRED_DOCS = ("docs/README.md", "docs/data_license.txt")
MAX_WEIGHTS = 10 * 10**6  # bytes, of one file; a repository and its clones stay small


def check_bundles(bundles: Iterable[str | Path], tag: str = "", changelog: str | Path | None = None) -> None:
    """Check that bundles are fit for one release.

    Each satisfies the model zoo's rules, has its docs, small weights that fit the network of ``inference.json`` and
    canonical JSON, and bears the version of the installed package, whose ranges hold its pinned versions; all bundles
    pin the same versions. The configurations are evaluated, so they must be one's own.

    Args:
        bundles: folders of the bundles.
        tag: the release; its name is the version, perhaps behind a ``v``. Empty if there is none yet.
        changelog: changelog of the package, which must have the version; None leaves it out.

    Raises:
        InputError: When they are not; the message lists everything wrong, in one line.
    """
    roots = [Path(bundle).resolve() for bundle in bundles]
    found = [f"{root.name}: {problem}" for root in roots for problem in _problems_of(root)]
    found += [*_disagreements(roots), *_tag_problems(tag), *_changelog_problems(changelog)]
    if found:
        raise InputError(f"not fit for release, {len(found)} found: {'; '.join(found)}.")


def _problems_of(bundle: Path) -> list[str]:
    """Return everything wrong with one bundle."""
    if not bundle.is_dir():
        return ["there is no such folder; give the folder of a bundle"]
    found: list[str] = []
    for rule in RULES:
        try:
            found += rule(bundle)
        except InputError as error:
            found.append(str(error))
    return list(dict.fromkeys(problem.removesuffix(".") for problem in found))  # several rules read the metadata


def _doc_problems(bundle: Path) -> Iterator[str]:
    """Yield an error for each missing document: what the bundle is, and whose data its weights come from."""
    for name in REQUIRED_DOCS:
        if not (bundle / name).is_file():
            yield f"{name} is missing; add it"


def _version_problems(bundle: Path) -> Iterator[str]:
    """The bundle bears the version of the package, requires it, and its pins lie in the ranges of the package."""
    metadata, package = read_metadata(bundle), installed_version(PACKAGE)
    if not package:
        yield f"{PACKAGE} is not installed, so that its version and requirements are unknown; install it"
        return
    if metadata["version"] != package:
        yield f"version {metadata['version']} in metadata.json is not {package}, that of the package"
    pins = {canonicalize_name(name): pin for name, pin in zoo_rules.required_versions(metadata).items()}
    if (required := pins.get(canonicalize_name(PACKAGE), "nothing")) != package:
        yield f"metadata.json requires {required} of {PACKAGE}, expected {package}"
    for requirement in _package_requirements():
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is not None and not _lies_in(pin, requirement):
            yield f"metadata.json requires {requirement.name} {pin}, the package {requirement.specifier}"


def _json_problems(bundle: Path) -> Iterator[str]:
    """Each configuration is the text that ``json.dumps(indent=4)`` writes, with no key twice."""
    for path in sorted((bundle / "configs").glob("*.json")):
        name = f"configs/{path.name}"
        content = path.read_bytes()
        try:
            canonical = json.dumps(json.loads(content, object_pairs_hook=_unique), indent=4) + "\n"
        except ValueError as error:
            yield f"{name} is no JSON without repetitions ({error})"
            continue
        if content != canonical.encode():
            yield f"{name} is not canonical JSON; write it with json.dumps(indent=4) and a newline"


def _weight_problems(bundle: Path) -> Iterator[str]:
    """Weights are small plain tensors, and those of ``model.pt`` fit the network of ``inference.json``."""
    for name in released_files(bundle):
        path = bundle / name
        if path.suffix != ".pt":
            continue
        if path.stat().st_size > MAX_WEIGHTS:
            yield f"{name} has {path.stat().st_size / 1e6:.1f} MB, expected at most {MAX_WEIGHTS / 1e6:.0f}"
        try:
            weights = load_weights(path)
            if name == "models/model.pt" and (network := _network(bundle)) is not None:
                load_into(network, weights, path)
        except InputError as error:  # the next file has its own
            yield str(error)


def _network(bundle: Path) -> Any:
    """Return the network of the bundle's inference, None if it cannot be built, which another rule reports."""
    try:
        config = ConfigParser.load_config_file(bundle / "configs" / "inference.json")
        return ConfigParser(config).get_parsed_content("network_def")
    except Exception:  # the network is arbitrary code of the configuration
        return None


def _disagreements(bundles: Sequence[Path]) -> Iterator[str]:
    """Bundles of one release pin the same versions, so that they work in one environment."""
    pins: dict[str, dict[str, str]] = {}
    for bundle in bundles:
        try:
            versions = zoo_rules.required_versions(read_metadata(bundle))
        except InputError:  # reported for the bundle itself
            continue
        for name, version in versions.items():
            pins.setdefault(canonicalize_name(name), {})[bundle.name] = version
    for name, by_bundle in pins.items():
        if len(set(by_bundle.values())) > 1:
            listed = ", ".join(f"{version} in {bundle}" for bundle, version in by_bundle.items())
            yield f"the bundles require different versions of {name}: {listed}"


def _tag_problems(tag: str) -> Iterator[str]:
    """A tag is the version, perhaps behind a ``v``; MONAI splits at each slash."""
    if tag and tag.removeprefix("v") != installed_version(PACKAGE):
        yield f"the tag '{tag}' is not {installed_version(PACKAGE)}, the version of the package"


def _changelog_problems(changelog: str | Path | None) -> Iterator[str]:
    """The changelog of the package has its version."""
    heading = f"## [{installed_version(PACKAGE)}]"
    if changelog is not None and not (
        Path(changelog).is_file() and heading in Path(changelog).read_text(encoding="utf-8")
    ):
        yield f"'{changelog}' has no heading '{heading}'"


def _package_requirements() -> list[Requirement]:
    """Return what the installed package requires, extras left out."""
    requirements = [Requirement(text) for text in requires(PACKAGE) or []]
    return [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]


def _lies_in(version: str, requirement: Requirement) -> bool:
    """Whether an exact version lies in the range of a requirement."""
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of a JSON text, which has no key twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key appears twice")
    return content


RULES = (
    zoo_rules.name_problems,
    zoo_rules.file_problems,
    _doc_problems,
    zoo_rules.metadata_problems,
    zoo_rules.requirement_problems,
    _version_problems,
    _json_problems,
    _weight_problems,
    zoo_rules.network_problems,
    zoo_rules.torchscript_problems,
)
