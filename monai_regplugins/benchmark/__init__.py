"""Classical registration that the learned methods are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.benchmark.bspline import (
        SPACINGS,
        BSplineResult,
        control_points,
        register_bspline,
    )
    from monai_regplugins.benchmark.elastix import ElastixResult, elastix_parameters, register_elastix
    from monai_regplugins.benchmark.peers import PEERS, Peer, load_peer

__all__ = [
    "PEERS",
    "SPACINGS",
    "BSplineResult",
    "ElastixResult",
    "Peer",
    "control_points",
    "elastix_parameters",
    "load_peer",
    "register_bspline",
    "register_elastix",
]

export_on_demand(
    __name__,
    bspline=["SPACINGS", "BSplineResult", "control_points", "register_bspline"],
    elastix=["ElastixResult", "elastix_parameters", "register_elastix"],
    peers=["PEERS", "Peer", "load_peer"],
)
