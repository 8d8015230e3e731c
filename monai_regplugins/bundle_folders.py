"""Location of bundles: a given folder, ``bundles``, MONAI's download folder, or this package."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from monai_regplugins.checks import InputError, suggest
from monai_regplugins.files.folders import files_in

__all__ = [
    "CONFIG",
    "all_bundles",
    "find_bundle",
    "option_elsewhere",
    "output_root",
    "packaged_bundles",
    "presets_of",
    "read_json",
    "search_folders",
]

Root = TypeVar("Root", bound="str | os.PathLike[str]")

CONFIG = Path("configs", "inference.json")
OF_A_REGISTRATION = {"fixed", "moving", "pairs_file", "register", "writer"}  # keys of CONFIG in bundles of this package
PACKAGE = Path(__file__).absolute().parent


def packaged_bundles() -> Path:
    """Return the folder of the bundles that come with this package.

    A wheel holds them inside the package; in a working copy of the repository they lie beside it.

    Example:
        >>> packaged_bundles().name
        'bundles'
    """
    working_copy = PACKAGE.parent
    is_working_copy = (working_copy / "pyproject.toml").is_file() and (working_copy / "bundles").is_dir()
    return (working_copy if is_working_copy else PACKAGE) / "bundles"


def search_folders(bundle_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders in which a bundle is looked for by its name, the first one first.

    Args:
        bundle_dir: the only one to look in; by default ``bundles`` in the working directory, the folder that
            ``monai.bundle download`` uses by default, and the bundles of this package.
    """
    if bundle_dir is not None:
        return [Path(bundle_dir)]
    return [Path("bundles"), _hub() / "bundle", packaged_bundles()]


def _hub() -> Path:
    """The folder that ``torch.hub.get_dir`` returns, without PyTorch where that is not imported yet."""
    if (torch := sys.modules.get("torch")) is not None:
        return Path(torch.hub.get_dir())
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")), "hub").expanduser()


def find_bundle(name_or_dir: str | os.PathLike[str], bundle_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the absolute path of a bundle's folder.

    A path of a bundle, also one relative to the working directory, comes before a name in :func:`search_folders`.

    Args:
        name_or_dir: folder of a bundle, or its name.
        bundle_dir: see :func:`search_folders`.

    Raises:
        InputError: When there is no such bundle.
    """
    folders = search_folders(bundle_dir)
    for folder in (Path(), *folders):
        if (root := (folder / name_or_dir).absolute()).joinpath(CONFIG).is_file():
            return root
    known = [root.name for folder in folders for root in _bundles_in(folder)]
    raise InputError(
        f"there is no bundle '{os.fspath(name_or_dir)}', a folder with {CONFIG.as_posix()}, neither here nor in "
        f"{' nor in '.join(map(str, folders))}; give its folder, or download it first (monai.bundle download)."
        f"{suggest(Path(name_or_dir).name, known)}"
    )


def all_bundles() -> dict[str, Path]:
    """Return the registration bundles of :func:`search_folders` by their names; of two of one name the first.

    Bundles of other kinds, such as segmentation, are left out.
    """
    roots = (root for folder in search_folders() for root in _bundles_in(folder))
    found: dict[str, Path] = {}
    for root in roots:
        if read_json(root / CONFIG).keys() >= OF_A_REGISTRATION:
            found.setdefault(root.name, root.absolute())
    return found


def presets_of(root: Path, config: Collection[str] = ()) -> list[str]:
    """Return the names of the configurations that only change settings of a bundle's inference.

    Args:
        root: folder of the bundle.
        config: keys of a configuration, such as that of training; what only changes settings of it counts, too.
    """
    settings = read_json(root / CONFIG).keys()
    others = {file.stem: read_json(file) for file in files_in(root / "configs", "*.json") if file.name != CONFIG.name}
    return [
        name for name, content in others.items() if any(_changes_only(content, keys) for keys in (settings, config))
    ]


def option_elsewhere(key: str, file: str | os.PathLike[str]) -> str:
    """Return a sentence on what else of a bundle, or which other bundle, has an option; empty if none has it.

    Args:
        key: the option.
        file: the configuration that lacks it.

    Example:
        >>> option_elsewhere("label_weight", packaged_bundles() / "r2n2" / "configs" / "train.json")
        " It is an option of the bundle 'ran'."
    """
    own = Path(file).absolute()
    tasks = {f"'{name}'": own.with_name(name) for name in ("train.json", "evaluate.json", CONFIG.name)}
    bundles = {f"the bundle '{name}'": root / "configs" / own.name for name, root in all_bundles().items()}
    found = [what for what, other in {**tasks, **bundles}.items() if other != own and key in read_json(other)]
    return f" It is an option of {' and '.join(found)}." if found else ""


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file is missing, damaged or holds something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def output_root(bundle_root: Root) -> Root | str:
    """Return the folder in which a bundle's runs write by default.

    That is the bundle itself, or the working directory, ``"."``, if the bundle belongs to the installed package or may
    not be written.

    Args:
        bundle_root: folder of the bundle.

    Example:
        >>> output_root(PACKAGE / "bundles" / "ran")
        '.'
    """
    root = Path(bundle_root).absolute()
    is_installed = root.is_relative_to(PACKAGE)
    return "." if is_installed or (root.is_dir() and not os.access(root, os.W_OK)) else bundle_root


def _bundles_in(folder: Path) -> Iterator[Path]:
    """Yield the bundles that a folder holds, in the order of their names."""
    for root in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (root / CONFIG).is_file():
            yield root


def _changes_only(overlay: dict[str, Any], settings: Collection[str]) -> bool:
    """Whether a configuration is no run of its own, and holds nothing but values of settings, or inside of these."""
    names = {key.replace("::", "#").partition("#")[0] for key in overlay}
    return bool(names) and "initialize" not in names and names <= {*settings}
