"""The bundles inside of other programs: MONAI Label and MONAI Deploy."""
