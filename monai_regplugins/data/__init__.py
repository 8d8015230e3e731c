"""Data sets: readers, samplers and digital phantoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.data.animation import animation_frames, write_animation
    from monai_regplugins.data.cine import CineSeries, read_cine, reference_frame, series_files, write_series
    from monai_regplugins.data.cine_lung import CineLung, cine_lung_displacement, cine_lung_subject, make_cine_lung
    from monai_regplugins.data.dicom_pair import CheckSeriesPaird
    from monai_regplugins.data.dirlab import DIRLAB_CASES, DirLabImage, DirLabPair, convert_dirlab, read_dirlab
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
    from monai_regplugins.data.pair_list import read_pair_list
    from monai_regplugins.data.phantoms import abdomen_displacement, abdomen_map, abdomen_subject, make_abdomen
    from monai_regplugins.data.random_contrast import Contrast, RandomScanner
    from monai_regplugins.data.random_motion import Motion, RandomMotion
    from monai_regplugins.data.random_pairs import RandomPairs, phantom_maps, random_shapes
    from monai_regplugins.data.respiration import respiratory_curve
    from monai_regplugins.data.sampler import PairSampler
    from monai_regplugins.data.series import chosen_frame, given_series, series_pairs
    from monai_regplugins.data.thorax import Thorax, make_thorax, thorax_displacement, thorax_subject

__all__ = [
    "DIRLAB_CASES",
    "CheckSeriesPaird",
    "CineLung",
    "CineSeries",
    "Contrast",
    "DirLabImage",
    "DirLabPair",
    "Learn2RegDataset",
    "Motion",
    "PairSampler",
    "RandomMotion",
    "RandomPairs",
    "RandomScanner",
    "Thorax",
    "abdomen_displacement",
    "abdomen_map",
    "abdomen_subject",
    "animation_frames",
    "chosen_frame",
    "cine_lung_displacement",
    "cine_lung_subject",
    "convert_dirlab",
    "given_pairs",
    "given_series",
    "make_abdomen",
    "make_cine_lung",
    "make_thorax",
    "open_dataset",
    "phantom_maps",
    "random_shapes",
    "read_cine",
    "read_dirlab",
    "read_pair_list",
    "reference_frame",
    "respiratory_curve",
    "series_files",
    "series_pairs",
    "test_pairs",
    "thorax_displacement",
    "thorax_subject",
    "training_images",
    "training_pairs",
    "validation_images",
    "validation_pairs",
    "write_animation",
    "write_series",
]

export_on_demand(
    __name__,
    animation=["animation_frames", "write_animation"],
    cine=["CineSeries", "read_cine", "reference_frame", "series_files", "write_series"],
    cine_lung=["CineLung", "cine_lung_displacement", "cine_lung_subject", "make_cine_lung"],
    dicom_pair=["CheckSeriesPaird"],
    dirlab=["DIRLAB_CASES", "DirLabImage", "DirLabPair", "convert_dirlab", "read_dirlab"],
    given=["given_pairs"],
    learn2reg=[
        "Learn2RegDataset",
        "open_dataset",
        "test_pairs",
        "training_images",
        "training_pairs",
        "validation_images",
        "validation_pairs",
    ],
    pair_list=["read_pair_list"],
    phantoms=["abdomen_displacement", "abdomen_map", "abdomen_subject", "make_abdomen"],
    random_contrast=["Contrast", "RandomScanner"],
    random_motion=["Motion", "RandomMotion"],
    random_pairs=["RandomPairs", "phantom_maps", "random_shapes"],
    respiration=["respiratory_curve"],
    sampler=["PairSampler"],
    series=["chosen_frame", "given_series", "series_pairs"],
    thorax=["Thorax", "make_thorax", "thorax_displacement", "thorax_subject"],
)
