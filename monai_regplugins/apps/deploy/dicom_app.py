"""Register two DICOM series: ``python -m monai_regplugins.apps.deploy.dicom_app -i IN -o OUT -m BUNDLE``.

``IN`` holds DICOM files, in any folders. The rules in ``app.yaml`` pick the fixed and the moving series and, if labels
are to come along, the moving one's segmentation. The pair's folder in ``OUT`` gets ``displacement.dcm``, a Deformable
Spatial Registration, and ``segmentation.dcm``, beside what the command line writes.
"""

from __future__ import annotations

import json
import sys

from monai.deploy.conditions import CountCondition
from monai.deploy.operators import DICOMDataLoaderOperator, DICOMSeriesSelectorOperator

from monai_regplugins.apps.deploy.inputs import ROLES
from monai_regplugins.apps.deploy.operators import (
    PairApplication,
    PairSeriesOperator,
    RegistrationOperator,
    SegmentationWriterOperator,
)

__all__ = ["SeriesPairApp"]


class SeriesPairApp(PairApplication):
    """Registers the pair of series among the DICOM files of the input folder."""

    def compose(self) -> None:
        """Connect the operators.

        Raises:
            InputError: When the settings or the bundle are not fit for use.
        """
        settings = self.settings
        rules = json.dumps({"selections": settings.selections})
        load = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=settings.input_folder, name="load")
        # all_matched: two series that fit are an error, not a choice of the first one
        select = DICOMSeriesSelectorOperator(self, rules=rules, all_matched=True, name="select")
        pair = PairSeriesOperator(self, name="pair")
        self.register = RegistrationOperator(
            self,
            bundle=settings.bundle,
            output_folder=settings.output_folder,
            format="dicom",
            pair_id="moving_to_fixed",
            overrides=settings.registration,
            tags=settings.tags["registration"],
            name="register",
        )
        write = SegmentationWriterOperator(self, tags=settings.tags["segmentation"], name="write")
        self.add_flow(load, select, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(select, pair, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(pair, self.register, {(role, role) for role in ROLES})
        self.add_flow(self.register, write, {("label", "label")})


if __name__ == "__main__":
    sys.exit(SeriesPairApp.main())
