"""The one check of the scripts in this folder."""

from typing import Any

import numpy as np


def expect(what: str, seen: Any, wanted: Any, tolerance: float = 1e-3) -> None:
    """Print what is seen and stop with exit status 1 where it is not what was seen before.

    Args:
        what: Name of the value.
        seen: Text, number or array.
        wanted: The value seen before.
        tolerance: Largest difference of numbers.

    Raises:
        SystemExit: The value has changed.
    """
    print(f"{what}: {_short(seen)}")
    if not _same(seen, wanted, tolerance):
        raise SystemExit(f"changed: expected {_short(wanted)}")


def _short(value: Any) -> Any:
    array = np.asarray(value)
    return np.round(array + 0.0, 5).tolist() if array.dtype.kind == "f" else array.tolist()


def _same(seen: Any, wanted: Any, tolerance: float) -> bool:
    try:
        seen, wanted = np.asarray(seen, float), np.asarray(wanted, float)
    except (TypeError, ValueError):
        return bool(seen == wanted)
    return seen.shape == wanted.shape and np.allclose(seen, wanted, rtol=0, atol=tolerance, equal_nan=True)
