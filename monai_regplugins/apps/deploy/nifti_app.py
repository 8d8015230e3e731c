"""Register the pair of files in a folder: ``python -m monai_regplugins.apps.deploy.nifti_app -i IN -o OUT -m BUNDLE``.

``IN`` holds ``fixed.nii.gz``, ``moving.nii.gz`` and, if a label map is to come along, ``moving_label.nii.gz``; other
formats have other suffixes. The pair's folder in ``OUT`` is that of the command line. Settings are in ``app.yaml``.
"""

from __future__ import annotations

import sys

from monai_regplugins.apps.deploy.inputs import ROLES
from monai_regplugins.apps.deploy.operators import PairApplication, PairFolderOperator, RegistrationOperator

__all__ = ["FilePairApp"]


class FilePairApp(PairApplication):
    """Registers the pair of files in the input folder."""

    def compose(self) -> None:
        """Connect the operators.

        Raises:
            InputError: When the settings or the bundle are not fit for use.
        """
        settings = self.settings
        pair = PairFolderOperator(self, input_folder=settings.input_folder, name="pair")
        self.register = RegistrationOperator(
            self,
            bundle=settings.bundle,
            output_folder=settings.output_folder,
            overrides=settings.registration,
            tags=settings.tags["registration"],
            name="register",
        )
        self.add_flow(pair, self.register, {(role, role) for role in ROLES})


if __name__ == "__main__":
    sys.exit(FilePairApp.main())
