"""Handlers of training and evaluation: checkpoints, curves, figures, metrics, progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.handlers.checkpoint import Checkpointing, WeightsLoader
    from monai_regplugins.handlers.curves import CurvesFigure, curves_figure
    from monai_regplugins.handlers.evaluation import evaluation_handlers
    from monai_regplugins.handlers.figures import FieldFigure, PairFigure
    from monai_regplugins.handlers.progress import LossTerms, TrainingProgress
    from monai_regplugins.handlers.registration_metrics import RegistrationMetrics
    from monai_regplugins.handlers.seeding import EpochSeed
    from monai_regplugins.handlers.tensorboard import TensorBoardCurves
    from monai_regplugins.handlers.validation import TimeLimit, Validation

__all__ = [
    "Checkpointing",
    "CurvesFigure",
    "EpochSeed",
    "FieldFigure",
    "LossTerms",
    "PairFigure",
    "RegistrationMetrics",
    "TensorBoardCurves",
    "TimeLimit",
    "TrainingProgress",
    "Validation",
    "WeightsLoader",
    "curves_figure",
    "evaluation_handlers",
]

export_on_demand(
    __name__,
    checkpoint=["Checkpointing", "WeightsLoader"],
    curves=["CurvesFigure", "curves_figure"],
    evaluation=["evaluation_handlers"],
    figures=["FieldFigure", "PairFigure"],
    progress=["LossTerms", "TrainingProgress"],
    registration_metrics=["RegistrationMetrics"],
    seeding=["EpochSeed"],
    tensorboard=["TensorBoardCurves"],
    validation=["TimeLimit", "Validation"],
)
