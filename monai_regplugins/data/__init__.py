"""Data sets and lists of pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.data.dicom_pair import CheckSeriesPaird
    from monai_regplugins.data.dirlab import (
        DIRLAB_CASES,
        DirLabImage,
        DirLabPair,
        convert_dirlab,
        read_dirlab,
    )
    from monai_regplugins.data.given import given_pairs
    from monai_regplugins.data.learn2reg import (
        Learn2RegDataset,
        training_images,
        training_pairs,
        validation_images,
        validation_pairs,
    )
    from monai_regplugins.data.pair_list import read_pair_list
    from monai_regplugins.data.prepare_pair import PreparePaird
    from monai_regplugins.data.sampler import PairSampler

__all__ = [
    "DIRLAB_CASES",
    "CheckSeriesPaird",
    "DirLabImage",
    "DirLabPair",
    "Learn2RegDataset",
    "PairSampler",
    "PreparePaird",
    "convert_dirlab",
    "given_pairs",
    "read_dirlab",
    "read_pair_list",
    "training_images",
    "training_pairs",
    "validation_images",
    "validation_pairs",
]

export_on_demand(
    __name__,
    dicom_pair=["CheckSeriesPaird"],
    dirlab=["DIRLAB_CASES", "DirLabImage", "DirLabPair", "convert_dirlab", "read_dirlab"],
    given=["given_pairs"],
    learn2reg=[
        "Learn2RegDataset",
        "training_images",
        "training_pairs",
        "validation_images",
        "validation_pairs",
    ],
    pair_list=["read_pair_list"],
    prepare_pair=["PreparePaird"],
    sampler=["PairSampler"],
)
