"""Data sets: readers, samplers and digital phantoms."""

from __future__ import annotations

from monai_regplugins.data.given import given_pairs
from monai_regplugins.data.learn2reg import (
    Learn2RegDataset,
    open_dataset,
    test_pairs,
    training_pairs,
    validation_pairs,
)
from monai_regplugins.data.phantoms import abdomen_displacement, abdomen_map, abdomen_subject, make_abdomen
from monai_regplugins.data.sampler import PairSampler

__all__ = [
    "Learn2RegDataset",
    "PairSampler",
    "abdomen_displacement",
    "abdomen_map",
    "abdomen_subject",
    "given_pairs",
    "make_abdomen",
    "open_dataset",
    "test_pairs",
    "training_pairs",
    "validation_pairs",
]
