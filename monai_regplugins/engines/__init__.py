"""Parts of the training and evaluation engines, and the registration of one pair or many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.engines.batch_runner import BatchRunner
    from monai_regplugins.engines.pair_registration import PairRegistration
    from monai_regplugins.engines.prepare_batch import TARGET_KEYS, PairPrepareBatch

__all__ = ["TARGET_KEYS", "BatchRunner", "PairPrepareBatch", "PairRegistration"]

export_on_demand(
    __name__,
    batch_runner=["BatchRunner"],
    pair_registration=["PairRegistration"],
    prepare_batch=["TARGET_KEYS", "PairPrepareBatch"],
)
