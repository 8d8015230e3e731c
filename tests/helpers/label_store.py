"""Stands in for MONAI Label's datastore, which the main environment does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class FakeDatastore:
    """Images and labels by id, with the methods of MONAI Label's datastore that the app calls."""

    def __init__(self, images: dict[str, Path]) -> None:
        self.images_by_id = images
        self.labels: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
        self.saved: list[tuple[str, str, dict[str, Any]]] = []

    def list_images(self) -> list[str]:
        return list(self.images_by_id)

    def get_image_uri(self, image_id: str) -> str:
        return str(self.images_by_id[image_id])

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        return {tag: image_id for owner, tag in self.labels if owner == image_id}

    def get_label_uri(self, label_id: str, tag: str) -> str:
        return str(self.labels[label_id, tag][0])

    def get_label_info(self, label_id: str, tag: str) -> dict[str, Any]:
        return self.labels[label_id, tag][1]

    def save_label(self, image_id: str, file: str, tag: str, info: dict[str, Any]) -> str:
        assert Path(file).is_file()
        self.saved.append((image_id, tag, info))
        return image_id
