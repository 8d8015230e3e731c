"""Outputs of a registration: files, figures, tables and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.outputs.figure_field import FieldFigure, field_figure
    from monai_regplugins.outputs.figure_pair import PairFigure, pair_figure
    from monai_regplugins.outputs.figure_separability import separability_figure
    from monai_regplugins.outputs.local_transforms import LocalTransformsWriter, local_transforms_figure
    from monai_regplugins.outputs.metric_table import MetricTable, metrics_csv, summary_table
    from monai_regplugins.outputs.registration_writer import RegistrationWriter
    from monai_regplugins.outputs.report import RegistrationReport

__all__ = [
    "FieldFigure",
    "LocalTransformsWriter",
    "MetricTable",
    "PairFigure",
    "RegistrationReport",
    "RegistrationWriter",
    "field_figure",
    "local_transforms_figure",
    "metrics_csv",
    "pair_figure",
    "separability_figure",
    "summary_table",
]

export_on_demand(
    __name__,
    figure_field=["FieldFigure", "field_figure"],
    figure_pair=["PairFigure", "pair_figure"],
    figure_separability=["separability_figure"],
    local_transforms=["LocalTransformsWriter", "local_transforms_figure"],
    metric_table=["MetricTable", "metrics_csv", "summary_table"],
    registration_writer=["RegistrationWriter"],
    report=["RegistrationReport"],
)
