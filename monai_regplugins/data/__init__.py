"""Data sets: readers, samplers and digital phantoms."""

from __future__ import annotations

from monai_regplugins.data.animation import animation_frames, write_animation
from monai_regplugins.data.cine import (
    CineSeries,
    read_cine,
    reference_frame,
    series_files,
    write_series,
)
from monai_regplugins.data.cine_lung import CineLung, cine_lung_displacement, cine_lung_subject, make_cine_lung
from monai_regplugins.data.given import given_pairs
from monai_regplugins.data.learn2reg import (
    Learn2RegDataset,
    open_dataset,
    test_pairs,
    training_images,
    training_pairs,
    validation_images,
    validation_pairs,
)
from monai_regplugins.data.phantoms import abdomen_displacement, abdomen_map, abdomen_subject, make_abdomen
from monai_regplugins.data.respiration import respiratory_curve
from monai_regplugins.data.sampler import PairSampler
from monai_regplugins.data.series import chosen_frame, given_series, series_pairs

__all__ = [
    "CineLung",
    "CineSeries",
    "Learn2RegDataset",
    "PairSampler",
    "abdomen_displacement",
    "abdomen_map",
    "abdomen_subject",
    "animation_frames",
    "chosen_frame",
    "cine_lung_displacement",
    "cine_lung_subject",
    "given_pairs",
    "given_series",
    "make_abdomen",
    "make_cine_lung",
    "open_dataset",
    "read_cine",
    "reference_frame",
    "respiratory_curve",
    "series_files",
    "series_pairs",
    "test_pairs",
    "training_images",
    "training_pairs",
    "validation_images",
    "validation_pairs",
    "write_animation",
    "write_series",
]
