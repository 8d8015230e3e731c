"""Bundles by name, and a cache of their networks that is renewed when weights change."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_regplugins.apps.label.runs import Runs
from monai_regplugins.checks import InputError
from monai_regplugins.files.atomic import write_file
from monai_regplugins.registration import (
    CONFIG,
    Registration,
    find_bundle,
    load_bundle,
)

__all__ = ["LabelBundle", "Networks", "find_bundles"]

WEIGHTS = Path("models", "model.pt")


@dataclass(frozen=True)
class LabelBundle:
    """A bundle that the app serves.

    Attributes:
        root: its folder, which is only read.
        trained_dir: folder of what training in the app makes.
    """

    root: Path
    trained_dir: Path

    @property
    def name(self) -> str:
        """Its name, the one of its folder."""
        return self.root.name

    @property
    def ckpt(self) -> Path:
        """The weights: those that were trained in the app, else the bundle's own."""
        trained = self.trained_dir / WEIGHTS
        return trained if trained.is_file() else self.root / WEIGHTS

    @property
    def runs(self) -> Runs:
        """Its trainings in the app."""
        return Runs(self.trained_dir)

    def serve(self, run: Path) -> bool:
        """Serve the best model of a training from now on; False if none was better than what was there before."""
        best = run / WEIGHTS
        if best.is_file():
            write_file(self.trained_dir / WEIGHTS, best.read_bytes())
        return best.is_file()

    @cached_property
    def inference(self) -> dict[str, Any]:
        """The configuration of inference, not evaluated."""
        return _read(self.root / CONFIG)

    @property
    def train_file(self) -> Path:
        """The configuration of training."""
        return self.root / "configs" / "train.json"

    @cached_property
    def training(self) -> dict[str, Any]:
        """Its content, not evaluated; empty if the bundle has none."""
        return _read(self.train_file) if self.train_file.is_file() else {}

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return int(self.inference.get("spatial_dims", 3))


def _read(file: Path) -> dict[str, Any]:
    """Read a configuration."""
    content: dict[str, Any] = ConfigParser.load_config_file(file)
    return content


def find_bundles(models: str, bundle_dir: str | None, trained_dir: Path) -> dict[str, LabelBundle]:
    """Find the bundles that the app is to serve.

    Args:
        models: names or folders, comma-separated.
        bundle_dir: where they are, see :func:`~monai_regplugins.load_bundle`.
        trained_dir: where a folder for each of them goes.

    Raises:
        InputError: When there is no such bundle, or two have one name.
    """
    found: dict[str, LabelBundle] = {}
    for word in filter(None, (word.strip() for word in models.split(","))):
        root = find_bundle(word, bundle_dir)
        if root.name in found:
            raise InputError(f"models names two bundles '{root.name}'; rename the folder of one of them.")
        found[root.name] = LabelBundle(root, trained_dir / root.name)
    if not found:
        raise InputError("no models given, nothing to serve; start the server with --conf models ran,regnet,r2n2.")
    return found


class Networks:
    """Cache of loaded bundles; reloaded when their weights file changes.

    Args:
        capacity: how many are kept, those that were used last.
        load: makes one, :func:`~monai_regplugins.load_bundle`.
    """

    def __init__(self, capacity: int = 4, load: Callable[..., Registration] = load_bundle) -> None:
        self.capacity, self._load = capacity, load
        self._kept: OrderedDict[str, tuple[tuple[int, int] | None, Registration]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, bundle: LabelBundle, **overrides: Any) -> Registration:
        """Return the registration of a bundle with some settings.

        Args:
            bundle: the bundle.
            **overrides: see :func:`~monai_regplugins.load_bundle`.

        Raises:
            InputError: As :func:`~monai_regplugins.load_bundle`.
        """
        ckpt = bundle.ckpt
        key = json.dumps([str(bundle.root), str(ckpt), overrides], sort_keys=True, default=str)
        with self._lock:
            version = _version(ckpt)  # before the weights are read, so that newer ones are never taken for these
            kept = self._kept.pop(key, None)
            if kept is None or kept[0] != version:
                kept = version, self._load(bundle.root, ckpt=str(ckpt), **overrides)
            self._kept[key] = kept
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)
        return kept[1]


def _version(file: Path) -> tuple[int, int] | None:
    """What distinguishes the states of a file, None if there is none."""
    if not file.is_file():
        return None
    state = file.stat()
    return state.st_mtime_ns, state.st_size
