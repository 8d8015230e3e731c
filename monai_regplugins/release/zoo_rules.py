"""MONAI Model Zoo's rules for a bundle, each a function that yields what is wrong.

The zoo also wants a version that its list of published models does not have yet. Here that list is made together with
the release, and its tag has the new version in it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jsonschema import Draft7Validator
from monai.bundle import ckpt_export, verify_net_in_out

from monai_regplugins.release.layout import read_metadata

__all__ = [
    "METADATA_SCHEMA",
    "file_problems",
    "metadata_problems",
    "name_problems",
    "network_problems",
    "required_versions",
    "requirement_problems",
    "torchscript_problems",
]

REQUIRED_FILES = ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt")
LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")
BUNDLE_NAME = re.compile(r"[a-z][a-z0-9_]*")
EXACT_VERSION = re.compile(r"\d+(\.\d+)+([abc]\d+|rc\d+|\.post\d+)?")
PIP_NAME = re.compile(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", re.ASCII)
SMALLEST: dict[str, Any] = {"n": 1, "p": 1, "any": 32}  # sizes in place of the symbols of a spatial_shape

TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        "type": {"type": "string"},
        "format": {"type": "string"},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "dtype": {"type": "string"},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
}
FORMAT = {
    "type": "object",
    "required": ["inputs", "outputs"],
    "additionalProperties": {"type": "object", "additionalProperties": TENSOR},
}
PINS = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}  # key by pip's name
TEXTS = ["schema", "version", *PINS.values(), "task", "description", "authors", "copyright"]
METADATA_SCHEMA: dict[str, Any] = {  # what MONAI's metadata schema of 2024-07-25 asks for
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": [*TEXTS, "required_packages_version", "network_data_format"],
    "properties": {
        **{name: {"type": "string"} for name in [*TEXTS, "name", "intended_use", "data_source", "data_type"]},
        "changelog": {"type": "object", "additionalProperties": {"type": "string"}},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "supported_apps": {"type": "object"},
        "eval_metrics": {"type": "object"},
        "references": {"type": "array", "items": {"type": "string"}},
    },
    "patternProperties": {"_data_format$": FORMAT},
}


def name_problems(bundle: Path) -> Iterator[str]:
    """A bundle's name is a plain word without ``_v``, behind which MONAI reads the version."""
    if not BUNDLE_NAME.fullmatch(bundle.name) or "_v" in bundle.name:
        yield f"the name '{bundle.name}' is not of lower case letters, digits and underscores without '_v'; rename it"


def file_problems(bundle: Path) -> Iterator[str]:
    """The required files are there, and no list of files that would have to be downloaded separately."""
    for name in REQUIRED_FILES:
        if not (bundle / name).is_file():
            yield f"{name} is missing; add it"
    for name in LARGE_FILES:
        if (bundle / name).exists():
            yield f"{name} is there; put its files into the bundle and remove it"


def metadata_problems(bundle: Path) -> Iterator[str]:
    """The metadata fit MONAI's schema, and the changelog has the version.

    Raises:
        InputError: When there are no metadata to read.
    """
    metadata = read_metadata(bundle)
    for error in Draft7Validator(METADATA_SCHEMA).iter_errors(metadata):
        place = "#".join(map(str, error.absolute_path))
        yield f"metadata.json{' at ' if place else ''}{place}: {_in_one_line(error.message)}"
    changelog = metadata.get("changelog")
    if not isinstance(changelog, dict) or metadata["version"] not in changelog:
        yield f"the changelog in metadata.json lacks version {metadata['version']}; say there what changed"


def requirement_problems(bundle: Path) -> Iterator[str]:
    """Packages are given as names that pip knows, each with one exact version.

    Raises:
        InputError: When there are no metadata to read.
    """
    metadata = read_metadata(bundle)
    if "optional_packages_version" in metadata:
        yield "metadata.json has optional_packages_version, which MONAI would take in place of the required ones"
    for name, version in required_versions(metadata).items():
        if not PIP_NAME.fullmatch(name) or not EXACT_VERSION.fullmatch(version):
            yield f"metadata.json requires {name} {version}, expected a pip name and an exact version such as 1.2.3"


def network_problems(bundle: Path) -> Iterator[str]:
    """The network gives for the inputs of the metadata the outputs of the metadata."""
    files: dict[str, Any] = {
        "meta_file": str(bundle / "configs/metadata.json"),
        "config_file": str(bundle / "configs/inference.json"),
    }
    if all(Path(file).is_file() for file in files.values()):
        try:
            verify_net_in_out(net_id="network_def", device="cpu", **SMALLEST, **files)
        except Exception as error:  # the network is arbitrary code of the configuration
            yield f"network_def does not do what metadata.json says ({_in_one_line(error)})"


def torchscript_problems(bundle: Path) -> Iterator[str]:
    """The network with its weights can be exported as TorchScript, and read again."""
    config, weights = bundle / "configs" / "inference.json", bundle / "models" / "model.pt"
    if not (config.is_file() and weights.is_file()):
        return
    with tempfile.TemporaryDirectory() as workshop:
        exported = Path(workshop) / "model.ts"
        try:
            ckpt_export(
                net_id="network_def",
                filepath=str(exported),
                ckpt_file=str(weights),
                meta_file=str(bundle / "configs" / "metadata.json"),
                config_file=str(config),
            )
            torch.jit.load(exported, map_location="cpu")
        except Exception as error:  # the network is arbitrary code of the configuration
            yield f"network_def cannot be exported as TorchScript ({_in_one_line(error)})"


def required_versions(metadata: dict[str, Any]) -> dict[str, str]:
    """Return all versions that the metadata pin, by the names that pip knows."""
    required = metadata.get("required_packages_version")
    pins = {name: metadata[key] for name, key in PINS.items() if key in metadata}
    pins |= required if isinstance(required, dict) else {}
    return {name: str(version) for name, version in pins.items()}


def _in_one_line(error: object, length: int = 200) -> str:
    """Return what an error says, shortened to one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= length else f"{text[:length]}..."
