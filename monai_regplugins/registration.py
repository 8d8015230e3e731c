"""Python API of the bundles: load a bundle folder as a function that registers two images."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from monai.bundle import ConfigParser, ReferenceResolver
from monai.data import MetaTensor
from torch import Tensor

from monai_regplugins.bundle import (
    PATH_KEYS,
    check_keys,
    literal_name,
)
from monai_regplugins.bundle_folders import CONFIG, find_bundle
from monai_regplugins.checks import InputError, input_error_message, suggest
from monai_regplugins.data.pair_list import COLUMNS, named_pair
from monai_regplugins.io.provenance import Provenance
from monai_regplugins.io.result_folder import ResultFolder
from monai_regplugins.keys import PHASE_KEYS
from monai_regplugins.option_values import LANGUAGE
from monai_regplugins.readers.held_images import held_image
from monai_regplugins.readers.images import as_scan, in_memory
from monai_regplugins.renamed import current_names
from monai_regplugins.result import Part, RegistrationResult
from monai_regplugins.settings import settle

__all__ = ["CONFIG", "Registration", "find_bundle", "load_bundle"]

Source: TypeAlias = "str | os.PathLike[str] | npt.NDArray[Any] | Tensor | Any"  # or an image of another library
Config: TypeAlias = dict[str, Any]

NEEDED = ("bundle_root", "ckpt", "device", "output_dir", "pairs", "register", "writer")
OF_THE_PAIR = (*COLUMNS, *PHASE_KEYS, "pair_id", "pairs", "pairs_file", "dataset_dir", "max_pairs", "output_dir")
UNNAMED = "moving_to_fixed"
TRIES = 10  # to list the modules of MONAI while other threads import some


def load_bundle(
    name_or_dir: str | os.PathLike[str],
    *,
    bundle_dir: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    preset: str = "",
    **overrides: Any,
) -> Registration:
    """Load a bundle of this package as a function that registers two images.

    Its ``configs/inference.json`` does the work, as on the command line, with the same results. A configuration is
    code: load bundles of those whom you trust. The weights are not: nothing in their file is executed, and where the
    bundle has a ``SHA256SUMS``, in its folder or beside them, it has to list them as they are.

    Args:
        name_or_dir: folder of a bundle, or its name; an existing folder comes before a name.
        bundle_dir: folder of bundles; by default ``bundles`` in the working directory, then the folder that
            ``monai.bundle download`` uses by default, then those that come with this package.
        device: where to compute, by default a GPU if there is one.
        preset: settings of the bundle by name, such as ``"hippocampus"`` of RAN; ``regplugins bundles`` lists them.
        **overrides: keys of the configuration with other values, such as ``refine_steps=30``,
            ``initial_alignment="auto"`` or ``ckpt="mine/model.pt"``; they overrule the preset, which overrules the
            settings that come with the weights. Text is taken as it is: expressions belong into a configuration file.

    Raises:
        InputError: When there is no such bundle or preset, an override is unknown, or the weights are missing, do not
            fit or are not those of ``SHA256SUMS``.

    Example:
        >>> register = load_bundle("ran", refine_steps=30)  # doctest: +SKIP
        >>> result = register("fixed.nii.gz", "moving.nii.gz")  # doctest: +SKIP
        >>> result.ddf, result.warped, result.metrics["ncc"]  # doctest: +SKIP
    """
    root, overrides = (
        find_bundle(name_or_dir, bundle_dir),
        current_names(overrides | ({"preset": preset} if preset else {})),
    )
    file = root / CONFIG
    with _in_plain_words():
        config = _read(file)
        if misplaced := [key for key in overrides if key in OF_THE_PAIR]:
            raise InputError(f"{misplaced[0]} belongs to a pair, not to the bundle; give it when you register or save.")
        check_keys(overrides, config, str(file))
        parser = ConfigParser({**config, "bundle_root": literal_name("bundle_root", str(root))})
        literal = {key: _literal(key, value) for key, value in overrides.items()}
        for key, value in (literal if device is None else {**literal, "device": torch.device(device)}).items():
            try:
                parser[key] = value
            except (LookupError, ValueError) as error:  # inside of something that is not there
                hint = suggest(ReferenceResolver.split_id(key)[0], config)
                raise InputError(f"unknown override '{key}', {file} has no such place.{hint}") from error
        settle(parser, literal)
        return Registration(parser.get())


class Registration:
    """A loaded bundle (network and weights in memory) that registers pairs; see :func:`load_bundle`.

    Several threads may share one; their pairs take turns. Pickled, as on its way to a worker process that is started by
    ``spawn``, it is its configuration, and there loads the weights from the same file again.

    Args:
        config: content of a bundle's ``inference.json``, with overrides, its ``bundle_root`` an absolute path.

    Raises:
        InputError: When the weights are missing, do not fit or are not those of ``SHA256SUMS``.
    """

    def __init__(self, config: Config) -> None:
        self._config = copy.deepcopy(config)
        self.uncertainty = bool(config.get("uncertainty"))  # whether results have one
        self._lock = threading.Lock()
        weights = Path(ConfigParser(config).get_parsed_content("ckpt"))
        provenance = Provenance(config, weights)
        content = _parser({**config, "pairs": [], "provenance": provenance}).get_parsed_content
        self._provenance, self._register, self._writer = provenance, content("register"), content("writer")
        self._register.prepare()
        self._digest = provenance.digest  # of the weights that were loaded, now that they cannot be others

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded_again, (self._config, self._digest)

    def __call__(
        self,
        fixed: Source,
        moving: Source,
        *,
        fixed_label: Source | None = None,
        moving_label: Source | None = None,
        fixed_points: Source | None = None,
        moving_points: Source | None = None,
        mask: Source | None = None,
        fixed_mask: Source | None = None,
        moving_mask: Source | None = None,
        fixed_phase: str | int = "",
        moving_phase: str | int = "",
        spacing: Sequence[float] | None = None,
        pair_id: str = "",
        output_dir: str | os.PathLike[str] | None = None,
    ) -> RegistrationResult:
        """Register a pair.

        Each image is a path as on the command line (NIfTI, NRRD, MetaImage, PNG, a DICOM series ...), a
        :class:`~monai.data.MetaTensor` with its affine (voxels to RAS mm), an image of nibabel, SimpleITK or TorchIO
        with its geometry, or an array or tensor without one, of shape ``(*spatial)`` or ``(1, *spatial)``, in the unit
        that the bundle was trained on, such as HU.

        Args:
            fixed: the image that stays.
            moving: the image that is brought onto it, from a grid of its own.
            fixed_label: label map of the fixed image, on its grid or another one of the same world, to compare with.
            moving_label: label map of the moving image, likewise, which comes along.
            fixed_points: points of the fixed image, voxels, (N, d) or a file.
            moving_points: their partners in the moving image, voxels of that.
            mask: another name of ``fixed_mask``.
            fixed_mask: where the fixed image counts, likewise.
            moving_mask: where the moving image counts, likewise.
            fixed_phase: which volume of a fixed image with several, such as the phase of a 4D-CT: its name or number.
            moving_phase: which one of the moving image, likewise.
            spacing: voxel size along each axis in mm of images that have none; by default 1.
            pair_id: name of the pair, and of its folder when it is saved; by default made of the files' names.
            output_dir: where the result is going to be saved, to be checked before anything is registered.

        Raises:
            InputError: When something about the pair is wrong, in the words of the command line, or its folder in
                ``output_dir`` holds anything else than results of these images.
        """
        images: dict[str, Source] = {"fixed": fixed, "moving": moving}
        others = {
            "fixed_label": fixed_label,
            "moving_label": moving_label,
            "fixed_points": fixed_points,
            "moving_points": moving_points,
            "mask": mask,
            "fixed_mask": fixed_mask,
            "moving_mask": moving_mask,
        }
        with _in_plain_words():
            images = {side: held_image(image) for side, image in images.items()}
            given = images | {column: held_image(one) for column, one in others.items() if one is not None}
        if spacing is not None:
            given |= _placed(images, spacing)
        files = {key: os.fspath(source) for key, source in given.items() if isinstance(source, str | os.PathLike)}
        with _in_plain_words(), self._lock:
            phases = {key: str(phase) for key, phase in zip(PHASE_KEYS, (fixed_phase, moving_phase), strict=True)}
            files |= {key: phase for key, phase in phases.items() if phase}
            named = named_pair(files, pair_id=pair_id or ("" if {"fixed", "moving"} <= files.keys() else UNNAMED))
            pair = {**{COLUMNS[column]: source for column, source in given.items()}, **named}
            record = self._provenance.describe(pair)
            if output_dir is not None:
                ResultFolder(Path(output_dir), str(pair["pair_id"])).check(record["inputs"])
            return RegistrationResult.saved_by(self._register(pair), self._save, record)

    def _save(
        self, result: RegistrationResult, output_dir: Path, more: Mapping[str, Any], parts: Sequence[Part]
    ) -> Path:
        """Write a result, with what was known of the pair when it was read."""
        with _in_plain_words(), ResultFolder(output_dir, result.pair_id).claimed(wait=True):
            folder: Path = self._writer.write(result, {**result.record, **more}, output_dir, parts)
            return folder


def _parser(config: Config) -> ConfigParser:
    """Return a parser that has listed the modules of MONAI.

    Its loop over all modules fails where another thread imports one meanwhile, as in a server; then it tries again.
    """
    parser = ConfigParser(config)
    for _ in range(TRIES):
        with suppress(RuntimeError):  # the dictionary of the modules changed its size
            parser.locator.get_component_module_name("")
            break
    return parser


def _loaded_again(config: Config, digest: str) -> Registration:
    """A bundle in another process, with the weights that it had.

    Raises:
        InputError: When their file is another one by now.
    """
    registration = Registration(config)
    if registration._digest != digest:
        raise InputError(
            f"the weights '{registration._provenance.weights}' are others than when the bundle was loaded; load it "
            "again."
        )
    return registration


@contextmanager
def _in_plain_words() -> Iterator[None]:
    """Raise the input error behind what MONAI's parts raise."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        message = input_error_message(error)
        if message is None:
            raise
        raise InputError(message) from error


def _read(file: Path) -> Config:
    """Read a configuration without evaluating it."""
    try:
        config: Config = ConfigParser.load_config_file(file)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"configuration '{file}' cannot be read ({reason}); download the bundle again.") from error
    if missing := [key for key in NEEDED if key not in config]:
        raise InputError(f"'{file}' has no {', '.join(missing)}; expected a registration bundle of this package.")
    return config


def _literal(key: str, value: Any) -> Any:
    """A value that the configuration takes as it is, whatever a text in it begins with.

    Raises:
        InputError: When it is, or holds, code of the configuration's language.
    """
    if isinstance(value, Mapping):
        return {name: _literal(key, entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(key, entry) for entry in value]
    if key in PATH_KEYS and isinstance(value, str | os.PathLike):
        return literal_name(key, os.fspath(value))
    if isinstance(value, str) and value[:1] in LANGUAGE:
        raise InputError(
            f"override {key} is {value!r}, an expression of the configuration's language, expected a value; write "
            "expressions into a configuration file."
        )
    return value


def _placed(images: Mapping[str, Source], spacing: Sequence[float]) -> dict[str, MetaTensor]:
    """Put the images that have no voxel size onto grids of one."""
    plain = {side: image for side, image in images.items() if in_memory(image) and not isinstance(image, MetaTensor)}
    if not plain:
        raise InputError("spacing is given, but both images have their own; leave it out.")
    if len(spacing) not in (2, 3) or not all(size > 0 for size in spacing):
        raise InputError(f"spacing is {list(spacing)}, expected mm above 0 for each of 2 or 3 axes.")
    affine = torch.from_numpy(np.diag([*spacing, *[1.0] * (4 - len(spacing))]))
    scans = {side: as_scan(image, f"{side} image", affine) for side, image in plain.items()}
    return {side: MetaTensor(scan.values, affine=scan.affine) for side, scan in scans.items()}
