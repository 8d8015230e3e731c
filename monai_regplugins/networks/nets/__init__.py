"""Networks of the methods, assembly only."""

from monai_regplugins.networks.nets.ran import RAN, RANGeometry

__all__ = ["RAN", "RANGeometry"]
