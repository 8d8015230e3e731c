"""MONAI Label's datastore of a DICOMweb server: images are series, labels that a person has seen segmentations."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import requests
import SimpleITK as sitk
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.convert import dicom_to_nifti
from monailabel.datastore.utils.dicom import dicom_web_download_series
from pydicom import dcmread
from pydicom.dataset import Dataset

from monai_regplugins.apps.deploy.segmentation import write_segmentation
from monai_regplugins.apps.label.labels import LabelNames, StoredLabel
from monai_regplugins.apps.label.requests import RequestError, check_name
from monai_regplugins.apps.label.store import TAGS
from monai_regplugins.apps.label.uploads import as_http
from monai_regplugins.readers.dicom_files import is_dicom
from monai_regplugins.readers.images import read_scan

__all__ = ["SeriesDatastore"]

logger = logging.getLogger(__name__)

FINAL = TAGS[0]
PARTLY = ".fetched_"  # prefix of what is not fetched as a whole yet
LATELY = 5.0  # s, for which the list of segmentations is not asked for again


class Segmentation(NamedTuple):
    """A DICOM segmentation on the server.

    Attributes:
        study: its study instance UID.
        series: its series instance UID.
        image: series instance UID of the images that it was drawn on.
        names: number to label of its segments.
        when: date and time, to be compared.
    """

    study: str
    series: str
    image: str
    names: Mapping[int, str]
    when: str


class SeriesDatastore(DICOMWebDatastore):
    """Images and labels of a DICOMweb server, with a copy of what has been asked for in a folder.

    Final labels are the newest segmentation of an image on the server; saving one stores a segmentation there. Labels
    with other tags stay in the folder. What is saved as a DICOM file is stored on the server, whatever its tag.
    Several threads may use it; while one fetches a series, the others go on with those that are there.

    Args:
        **settings: of MONAI Label's datastore.
    """

    def __init__(self, **settings: Any) -> None:
        self.turn, self.fetching = threading.RLock(), threading.RLock()
        self._known: dict[str, Segmentation | None] = {}
        self._seen: tuple[float, dict[str, Segmentation]] | None = None
        super().__init__(**settings)
        for parent in map(Path, (self._datastore.image_path(), self._datastore.label_path(FINAL))):
            for left in parent.glob(f"{PARTLY}*"):  # by a server that was killed
                shutil.rmtree(left, ignore_errors=True)

    def series_folder(self, image_id: str) -> str:
        """The folder of the files of a series, which are fetched once.

        Raises:
            RequestError: When the server has no such series, status 404.
        """
        return str(self._fetched(image_id, Path(self._datastore.image_path())))

    def _fetched(self, series: str, parent: Path) -> Path:
        """Fetch a series into a folder of its name, whole or not at all."""
        folder = parent / check_name(series, "the series")
        if not folder.is_dir():
            with self.fetching:
                if not folder.is_dir():
                    self._fetch(series, folder)
        return folder

    def _fetch(self, series: str, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTLY) as partly:
            files = Path(partly, "files")
            try:
                with asked():
                    dicom_web_download_series(None, series, str(files), self._client, self._fetch_by_frame)
            except IndexError:
                raise RequestError(f"there is no series '{series}' on the DICOMweb server.", 404) from None
            files.replace(folder)

    def get_image_uri(self, image_id: str) -> str:
        """A NIfTI file of the series, for viewers; MONAI Label lists an image once it has one."""
        with as_http():
            file = Path(self._datastore.image_path(), f"{check_name(image_id, 'the series')}.nii.gz")
            if not file.is_file():
                with self.fetching:
                    self._add(image_id, file)
            return str(file)

    def _add(self, image_id: str, file: Path) -> None:
        """Add an image as NIfTI, unless another thread has just done so."""
        if file.is_file():
            return
        made = dicom_to_nifti(self.series_folder(image_id))
        try:
            with asked(), self.turn:
                LocalDatastore.add_image(self, image_id, made, self._dicom_info(image_id))
        finally:
            Path(made).unlink()

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Tag to id of the labels of an image."""
        with self.turn:
            labels: dict[str, str] = super().get_labels_by_image_id(image_id)
            labels.pop(FINAL, None)  # a copy of what was on the server
            return labels | ({FINAL: image_id} if image_id in self._segmentations() else {})

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the images that have a segmentation."""
        with self.turn:
            return [image_id for image_id in self.list_images() if image_id in self._segmentations()]

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The file of a label map; segmentations are fetched and converted once."""
        if label_tag != FINAL:
            return str(LocalDatastore.get_label_uri(self, label_id, label_tag))
        if not (source := self.segmentation_file(label_id)):
            return ""
        converted = Path(source).with_suffix(".nrrd")
        if not converted.is_file():
            with self.fetching:
                self._convert(source, self.get_image_uri(label_id), converted)
        return str(converted)

    def _convert(self, segmentation: str, image: str, path: Path) -> None:
        """Write a segmentation, which may have fewer slices, as label map on the grid of its image."""
        made = dicom_to_nifti(segmentation, is_seg=True)
        try:
            grid, label = sitk.ReadImage(image), sitk.ReadImage(made)
            sitk.WriteImage(sitk.Resample(label, grid, sitk.Transform(), sitk.sitkNearestNeighbor), str(path))
        finally:
            Path(made).unlink()

    def segmentation_file(self, image_id: str) -> str:
        """The DICOM segmentation of an image, fetched once; empty if it has none."""
        with self.turn:
            found = self._segmentations().get(image_id)
        if found is None:
            return ""
        return str(min(self._fetched(found.series, Path(self._datastore.label_path(FINAL))).glob("*.dcm")))

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What is known of a label; of a segmentation the names of its segments."""
        with self.turn:
            found = self._segmentations().get(label_id) if label_tag == FINAL else None
            if found is None:
                return dict(super().get_label_info(label_id, label_tag))
            return {"params": {"label_names": {name: number for number, name in found.names.items()}}}

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Save a label: a final one as segmentation on the server, a DICOM file there as it is, others in the folder.

        Raises:
            HTTPException: When the label cannot be a segmentation of the series, or the server does not take it.
        """
        tag, file = str(getattr(label_tag, "value", label_tag)), Path(label_filename)
        with as_http(label_filename):
            check_name(tag, "the tag")
            self.get_image_uri(image_id)
            if is_dicom(file):
                self._store(file)
            elif tag == FINAL:
                with tempfile.TemporaryDirectory() as folder:
                    self._store(self._segmentation(image_id, file, label_info or {}, Path(folder)))
            else:
                with self.turn:
                    LocalDatastore.save_label(self, image_id, label_filename, tag, label_info)
        return image_id

    def _segmentation(self, image_id: str, file: Path, info: Mapping[str, Any], folder: Path) -> Path:
        """Write a label map as segmentation of an image."""
        label = read_scan(file, "label", exact=True)
        names = LabelNames()(StoredLabel(str(file), info))
        path = folder / "segmentation.dcm"
        series = Path(self.series_folder(image_id))
        write_segmentation(label.values.numpy(), label.affine.numpy(), series, path, names=names)
        return path

    def _store(self, file: Path) -> None:
        """Store a DICOM file on the server."""
        with asked():
            self._client.store_instances([dcmread(file)])
        self._seen = None

    def _segmentations(self) -> dict[str, Segmentation]:
        """The newest segmentation of each image, by the image's id."""
        if self._seen is None or time.monotonic() - self._seen[0] > LATELY:
            with asked():
                found = self._client.search_for_series(search_filters={"Modality": "SEG"})
                known = [self._described(Dataset.from_json(one)) for one in found]
            newest = sorted((one for one in known if one is not None), key=lambda one: one.when)
            self._seen = time.monotonic(), {one.image: one for one in newest}
        return self._seen[1]

    def _described(self, series: Dataset) -> Segmentation | None:
        """Ask for the header of a segmentation once; None for one that says not what it was drawn on."""
        uid = str(series.SeriesInstanceUID)
        if uid not in self._known:
            self._known[uid] = None
            header = Dataset.from_json(self._client.retrieve_series_metadata(str(series.StudyInstanceUID), uid)[0])
            with suppress(AttributeError, IndexError):
                names = {int(one.SegmentNumber): str(one.SegmentLabel) for one in header.SegmentSequence}
                image = str(header.ReferencedSeriesSequence[0].SeriesInstanceUID)
                when = f"{header.get('ContentDate', '')}{header.get('ContentTime', '')}"
                self._known[uid] = Segmentation(str(series.StudyInstanceUID), uid, image, names, when)
        return self._known[uid]


@contextmanager
def asked() -> Iterator[None]:
    """Turn errors of the DICOMweb server into one that says so, status 502."""
    try:
        yield
    except requests.RequestException as error:
        logger.warning("The DICOMweb server does not do as it is asked: %s", error)
        raise RequestError(
            f"the DICOMweb server does not do as it is asked ({type(error).__name__}); this server's log says more.",
            502,
        ) from error
