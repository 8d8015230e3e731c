"""Parts of the training and evaluation engines."""

from __future__ import annotations

from monai_regplugins.engines.pair_queue import PairQueue
from monai_regplugins.engines.prepare_batch import TARGET_KEYS, PairPrepareBatch

__all__ = ["TARGET_KEYS", "PairPrepareBatch", "PairQueue"]
