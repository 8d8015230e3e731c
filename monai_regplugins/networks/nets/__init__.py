"""Networks of the methods, assembly only."""

from monai_regplugins.networks.nets.r2n2 import R2N2
from monai_regplugins.networks.nets.ran import RAN, RANGeometry
from monai_regplugins.networks.nets.regnet import RegNet

__all__ = ["R2N2", "RAN", "RANGeometry", "RegNet"]
