"""Digital phantoms: abdomen, thorax and a cine series of the lung, with exact fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.phantoms.abdomen import (
        abdomen_displacement,
        abdomen_map,
        abdomen_subject,
        make_abdomen,
    )
    from monai_regplugins.phantoms.abdomen_pairs import AbdomenPairs
    from monai_regplugins.phantoms.cine_lung import (
        CineLung,
        cine_lung_displacement,
        cine_lung_subject,
        make_cine_lung,
    )
    from monai_regplugins.phantoms.embedded import open_dataset
    from monai_regplugins.phantoms.thorax import (
        Thorax,
        make_thorax,
        thorax_displacement,
        thorax_subject,
    )

__all__ = [
    "AbdomenPairs",
    "CineLung",
    "Thorax",
    "abdomen_displacement",
    "abdomen_map",
    "abdomen_subject",
    "cine_lung_displacement",
    "cine_lung_subject",
    "make_abdomen",
    "make_cine_lung",
    "make_thorax",
    "open_dataset",
    "thorax_displacement",
    "thorax_subject",
]

export_on_demand(
    __name__,
    abdomen=["abdomen_displacement", "abdomen_map", "abdomen_subject", "make_abdomen"],
    abdomen_pairs=["AbdomenPairs"],
    cine_lung=["CineLung", "cine_lung_displacement", "cine_lung_subject", "make_cine_lung"],
    embedded=["open_dataset"],
    thorax=["Thorax", "make_thorax", "thorax_displacement", "thorax_subject"],
)
