"""Release of bundles: checks, archives with checksums, and safe installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.release.archive import build_zip, check_zip, open_safely
    from monai_regplugins.release.checks import check_bundles
    from monai_regplugins.release.download import fetch, install_bundle
    from monai_regplugins.release.layout import read_metadata, released_files
    from monai_regplugins.release.sums import (
        check_sum,
        listed_sum,
        model_info,
        read_sums,
        sums_text,
    )

__all__ = [
    "build_zip",
    "check_bundles",
    "check_sum",
    "check_zip",
    "fetch",
    "install_bundle",
    "listed_sum",
    "model_info",
    "open_safely",
    "read_metadata",
    "read_sums",
    "released_files",
    "sums_text",
]

export_on_demand(
    __name__,
    archive=["build_zip", "check_zip", "open_safely"],
    checks=["check_bundles"],
    download=["fetch", "install_bundle"],
    layout=["read_metadata", "released_files"],
    sums=["check_sum", "listed_sum", "model_info", "read_sums", "sums_text"],
)
