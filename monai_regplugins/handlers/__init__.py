"""Handlers of training and evaluation: measures, tables, pictures, progress, checkpoints, seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.handlers.field_figure import FieldFigure, field_figure  # named as its module
from monai_regplugins.handlers.separability_figure import separability_figure  # named as its module
from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.handlers.checkpoint import Checkpointing, WeightsLoader
    from monai_regplugins.handlers.curves import CurvesFigure, curves_figure
    from monai_regplugins.handlers.figure import PairFigure, pair_figure
    from monai_regplugins.handlers.local_transforms import LocalTransformsWriter, local_transforms_figure
    from monai_regplugins.handlers.metric_table import MetricTable, metrics_csv, summary_table
    from monai_regplugins.handlers.progress import LossTerms, TrainingProgress
    from monai_regplugins.handlers.registration_metrics import RegistrationMetrics
    from monai_regplugins.handlers.registration_writer import RegistrationWriter
    from monai_regplugins.handlers.report import RegistrationReport
    from monai_regplugins.handlers.seeding import EpochSeed
    from monai_regplugins.handlers.series_writer import SeriesWriter, curve_figure

__all__ = [
    "Checkpointing",
    "CurvesFigure",
    "EpochSeed",
    "FieldFigure",
    "LocalTransformsWriter",
    "LossTerms",
    "MetricTable",
    "PairFigure",
    "RegistrationMetrics",
    "RegistrationReport",
    "RegistrationWriter",
    "SeriesWriter",
    "TrainingProgress",
    "WeightsLoader",
    "curve_figure",
    "curves_figure",
    "field_figure",
    "local_transforms_figure",
    "metrics_csv",
    "pair_figure",
    "separability_figure",
    "summary_table",
]

export_on_demand(
    __name__,
    checkpoint=["Checkpointing", "WeightsLoader"],
    curves=["CurvesFigure", "curves_figure"],
    figure=["PairFigure", "pair_figure"],
    local_transforms=["LocalTransformsWriter", "local_transforms_figure"],
    metric_table=["MetricTable", "metrics_csv", "summary_table"],
    progress=["LossTerms", "TrainingProgress"],
    registration_metrics=["RegistrationMetrics"],
    registration_writer=["RegistrationWriter"],
    report=["RegistrationReport"],
    seeding=["EpochSeed"],
    series_writer=["SeriesWriter", "curve_figure"],
)
