"""Files and folders that appear whole or not at all, and locks between processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.files.atomic import replace_file, write_file
    from monai_regplugins.files.folders import files_in, is_foreign, is_made, make_folder

__all__ = ["files_in", "is_foreign", "is_made", "make_folder", "replace_file", "write_file"]

export_on_demand(
    __name__,
    atomic=["replace_file", "write_file"],
    folders=["files_in", "is_foreign", "is_made", "make_folder"],
)
