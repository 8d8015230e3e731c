"""Fingerprint of a validation (pairs, preprocessing, measure), so that only comparable scores are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from monai_regplugins.io.provenance import digest_of

__all__ = ["validation_fingerprint"]


def validation_fingerprint(evaluator: Any, score_name: str = "score") -> dict[str, str]:
    """Return the fingerprint of an evaluator's validation.

    Files count by their content and not by their place, so that a data set may move. That reads them once, less than
    one validation does.

    Args:
        evaluator: an engine with a data loader of items that name files or hold arrays.
        score_name: the metric that is the score.

    Returns:
        ``measure``, what the score measures (its name where the metric does not state it); ``pairs``, SHA-256 of the
        items in their order; ``preprocessing``, that of the plain settings of the transforms on them.
    """
    dataset = getattr(evaluator.data_loader, "dataset", None)
    pairs = _Hasher().digest(getattr(dataset, "data", None))
    transform = getattr(dataset, "transform", None)
    steps = [(type(step).__name__, _settings(step)) for step in getattr(transform, "transforms", [transform])]
    measures = getattr(evaluator.state, "measures", {})
    return {"measure": measures.get(score_name, score_name), "pairs": pairs, "preprocessing": _Hasher().digest(steps)}


class _Hasher:
    """Reduces nested values to a digest, files and arrays by their content; each file is read once."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}

    def digest(self, value: Any) -> str:
        """Return the SHA-256 of a value."""
        return hashlib.sha256(json.dumps(self._plain(value), sort_keys=True).encode()).hexdigest()

    def _plain(self, value: Any) -> Any:
        """Reduce a value to what JSON holds."""
        if isinstance(value, Mapping):
            return {str(key): self._plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._plain(item) for item in value]
        if isinstance(value, (Tensor, np.ndarray, np.generic)):
            array = np.ascontiguousarray(value)
            return [str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()]
        if isinstance(value, (str, Path)) and Path(value).is_absolute() and Path(value).is_file():
            return self._file(str(value))
        return value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__

    def _file(self, path: str) -> str:
        """Return the SHA-256 of a file."""
        if path not in self._files:
            self._files[path] = digest_of(Path(path))
        return self._files[path]


def _settings(transform: Any) -> dict[str, Any]:
    """Return those attributes of a transform that are plain values or lists of them."""
    return {key: value for key, value in getattr(transform, "__dict__", {}).items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, nothing, or a sequence of these."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(_is_plain(item) for item in value)
    return isinstance(value, (str, int, float, bool, type(None)))
