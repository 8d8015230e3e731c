"""The datastore by ids, without paths of the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai_regplugins.apps.label.labels import StoredLabel
from monai_regplugins.apps.label.requests import RequestError, check_name
from monai_regplugins.checks import suggest

__all__ = ["AUTO", "TAGS", "Store"]

AUTO = "auto"
TAGS = ("final", "original")  # MONAI Label's own: seen by a person, made by a model


class Store:
    """Images and labels of MONAI Label's datastore.

    Args:
        datastore: returns the datastore; asked each time, since the app makes it before or after this.
    """

    def __init__(self, datastore: Callable[[], Any]) -> None:
        self._datastore = datastore

    def images(self) -> list[str]:
        """All image ids, sorted."""
        return sorted(self._datastore().list_images())

    def image(self, image_id: Any, what: str) -> str:
        """Return the path of an image, of a DICOMweb server the folder of the series.

        Args:
            image_id: its id.
            what: what it is for, for the message.

        Raises:
            RequestError: When this is a path (status 400), or there is no such image (404).
        """
        name = check_name(image_id, what)
        known = self._datastore().list_images()
        if name not in known:
            raise RequestError(f"there is no image '{name}' ({what}) in the datastore.{suggest(name, known)}", 404)
        datastore = self._datastore()
        return str(getattr(datastore, "series_folder", datastore.get_image_uri)(name))

    def label(self, image_id: str, tag: str = AUTO) -> tuple[StoredLabel, str]:
        """Return a label map of an image that is there, and its tag.

        Args:
            image_id: id of the image.
            tag: which one; ``auto`` takes ``final``, else ``original``.

        Raises:
            RequestError: When it has none.
        """
        labels = self._datastore().get_labels_by_image_id(image_id)
        for wanted in TAGS if tag == AUTO else (tag,):
            if wanted in labels:
                return self._stored(labels[wanted], wanted), wanted
        which = "label" if tag == AUTO else f"label with the tag '{tag}'"
        raise RequestError(f"image '{image_id}' has no {which}; choose another image or save a label for it first.")

    def labelled(self) -> list[str]:
        """Ids of the images that have a label, those that a person has seen first."""
        tags = {image_id: self._datastore().get_labels_by_image_id(image_id) for image_id in self.images()}
        with_label = [image_id for image_id in tags if any(tag in tags[image_id] for tag in TAGS)]
        return sorted(with_label, key=lambda image_id: TAGS[0] not in tags[image_id])

    def labels(self) -> list[StoredLabel]:
        """All label maps that can be propagated, one per image."""
        return [self.label(image_id)[0] for image_id in self.labelled()]

    def training_entries(self) -> list[dict[str, str]]:
        """``image`` and ``label`` (final ones) of all images, paths."""
        entries = []
        for image_id in self.images():
            final = self._datastore().get_labels_by_image_id(image_id).get(TAGS[0])
            label = {"label": str(self._datastore().get_label_uri(final, TAGS[0]))} if final else {}
            entries.append({"image": str(self._datastore().get_image_uri(image_id)), **label})
        return entries

    def save(self, image_id: str, file: str, tag: str, info: dict[str, Any]) -> None:
        """Keep a file beside an image, under a tag."""
        self._datastore().save_label(image_id, file, tag, info)

    def _stored(self, label_id: str, tag: str) -> StoredLabel:
        datastore = self._datastore()
        info, origin = datastore.get_label_info(label_id, tag) or {}, ""
        if tag == TAGS[0] and hasattr(datastore, "segmentation_file"):
            origin = datastore.segmentation_file(label_id)
        return StoredLabel(str(datastore.get_label_uri(label_id, tag)), info, origin)
