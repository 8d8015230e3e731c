"""Networks of the methods, assembly only."""

from monai_regplugins.networks.nets.r2n2 import R2N2
from monai_regplugins.networks.nets.ran import RAN, RANGeometry

__all__ = ["R2N2", "RAN", "RANGeometry"]
