"""Outputs of a registration: files, tables and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.outputs.local_transforms import LocalTransformsWriter, local_transforms_figure
    from monai_regplugins.outputs.metric_table import MetricTable, metrics_csv, summary_table
    from monai_regplugins.outputs.registration_writer import RegistrationWriter
    from monai_regplugins.outputs.report import RegistrationReport

__all__ = [
    "LocalTransformsWriter",
    "MetricTable",
    "RegistrationReport",
    "RegistrationWriter",
    "local_transforms_figure",
    "metrics_csv",
    "summary_table",
]

export_on_demand(
    __name__,
    local_transforms=["LocalTransformsWriter", "local_transforms_figure"],
    metric_table=["MetricTable", "metrics_csv", "summary_table"],
    registration_writer=["RegistrationWriter"],
    report=["RegistrationReport"],
)
