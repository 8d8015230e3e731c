"""Networks of the methods, assembly only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.networks.nets.r2n2 import R2N2
    from monai_regplugins.networks.nets.ran import RAN, RANGeometry
    from monai_regplugins.networks.nets.regnet import RegNet

__all__ = ["R2N2", "RAN", "RANGeometry", "RegNet"]

export_on_demand(
    __name__,
    r2n2=["R2N2"],
    ran=["RAN", "RANGeometry"],
    regnet=["RegNet"],
)
