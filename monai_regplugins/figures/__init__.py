"""Figures of pairs and fields, made with matplotlib without touching its global state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.figures.field import draw_field, field_figure
    from monai_regplugins.figures.pair import DrawnImage, draw_pair, pair_figure
    from monai_regplugins.figures.separability import separability_figure

__all__ = ["DrawnImage", "draw_field", "draw_pair", "field_figure", "pair_figure", "separability_figure"]

export_on_demand(
    __name__,
    field=["draw_field", "field_figure"],
    pair=["DrawnImage", "draw_pair", "pair_figure"],
    separability=["separability_figure"],
)
