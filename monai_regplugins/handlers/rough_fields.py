"""Fields that are rough in the mean of the pairs, which a score of overlap or similarity does not show."""

from __future__ import annotations

import math
from collections.abc import Mapping

from monai_regplugins.verdict.judge import CHECKS

__all__ = ["rough_fields"]

MEASURES = {  # title, unit, check of the verdict, and by which factor and how much more than before is far above it
    "sdlogj": ("SDlogJ", "", "roughness of the motion", 1.5, 0.0),
    "folding_percent": ("folding", " %", "folds", 1.0, 0.1),
}


def rough_fields(means: Mapping[str, float], start: Mapping[str, float] | None = None) -> str:
    """Say which measures of the fields are above the limit of a WARN, or far above those of a start.

    Far above is half as much again of SDlogJ, the standard deviation of the logarithm of the Jacobian determinant, and
    0.1 % of the voxels more that fold.

    Args:
        means: of the measures over the pairs, ``sdlogj`` and ``folding_percent`` among them.
        start: those of the weights that a training has started from, if any.

    Returns:
        The measures, empty if none is so.

    Example:
        >>> rough_fields({"sdlogj": 0.7, "folding_percent": 0.1}, {"sdlogj": 0.3, "folding_percent": 0.0})
        'SDlogJ 0.700 (0.300 of the weights it started from)'
        >>> rough_fields({"sdlogj": 0.8, "folding_percent": 0.1})
        'SDlogJ 0.800 (a WARN above 0.75)'
    """
    said = []
    for name, (title, unit, check, factor, more) in MEASURES.items():
        value, before, limit = means.get(name, math.nan), (start or {}).get(name, math.nan), CHECKS[check].warn
        if value > limit or value > factor * before + more:
            notes = [f"{before:.3f}{unit} of the weights it started from"] * math.isfinite(before)
            notes += [f"a WARN above {limit}{unit}"] * (value > limit)
            said.append(f"{title} {value:.3f}{unit} ({', '.join(notes)})")
    return ", ".join(said)
