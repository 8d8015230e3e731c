"""Data sets in Learn2Reg's format: one ``<Name>_dataset.json``, NIfTI or PNG images, pairs of them; or plain folders.

Source: the json files of the Learn2Reg challenges, https://learn2reg.grand-challenge.org. A pair is a dictionary of
paths, ``moving`` and ``fixed``, with ``moving_label``, ``fixed_mask``, ``fixed_landmarks`` ... where there are such
files, and ``pair_id``, ``<moving>_to_<fixed>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import permutations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from monai_regplugins.checks import InputError, check_file, suggest
from monai_regplugins.data.plain_folders import content_of_layout, remedy
from monai_regplugins.files.folders import absolute_path, files_in

__all__ = ["Learn2RegDataset", "training_pairs", "validation_pairs"]

Pair = dict[str, str]
Item = TypeVar("Item")

COMPANIONS = {"label": ".nii.gz", "mask": ".nii.gz", "keypoints": ".csv", "landmarks": ".csv"}


class Learn2RegDataset:
    """A Learn2Reg data set on disk.

    Args:
        dataset_dir: folder with one ``*_dataset.json``, or without one in a layout of
            :func:`~monai_regplugins.data.plain_folders.content_of_layout`.
        content: what its json file will say, if there is none yet.

    Attributes:
        name: name of the data set.
        spatial_dims: 2 or 3.
        label_names: label value to structure, as in the json file; empty if there are no labels.
        pairing: which pairs train: ``listed`` ones, those ``within`` each subject, or ``between`` any two subjects.
        subjects: the training entries, ``image`` and what else there is of ``label``, ``mask``, ``keypoints``,
            ``landmarks``, with absolute paths.

    Raises:
        InputError: When the folder, the json file or one of the files it names is missing or not as expected.
    """

    def __init__(self, dataset_dir: str | Path, content: Mapping[str, Any] | None = None) -> None:
        self._folder = absolute_path(dataset_dir)
        if content is None and not files_in(self._folder, "*_dataset.json"):
            content = content_of_layout(self._folder)
        self._json = _find_json(self._folder) if content is None else self._folder
        self._content = _read_json(self._json) if content is None else content
        self.name: str = str(self._content.get("name", self._json.name.removesuffix("_dataset.json")))
        within = self._content.get("pairings") == "paired"
        is_listed = bool(self._content.get("training_paired_images"))
        self.pairing = "listed" if is_listed else "within" if within else "between"
        self.spatial_dims: int = self._read_spatial_dims()
        self.label_names: dict[int, str] = self._read_label_names()
        self.subjects: list[dict[str, str]] = self._read_subjects("training")
        if not self.subjects:
            raise self._error("lists no images under 'training'", 'list at least one {"image": path}')
        self._known = {entry["image"]: entry for entry in [*self._read_subjects("validation"), *self.subjects]}

    def training_pairs(self, seed: int = 0, validation_fraction: float = 0.2) -> list[Pair]:
        """Pairs to train on, none of a subject that validates.

        The pairs under ``training_paired_images`` if there are any; else all ordered pairs of the training images, of
        different subjects, or within a subject where ``pairings`` is "paired".

        Args:
            seed: seed of the split, used when there is no ``registration_val``.
            validation_fraction: part of the subjects that validates then, at least two (one if paired).

        Raises:
            InputError: When no pair is left.
        """
        validation = self._pairs_under("registration_val")
        if validation:
            taken = {_subject_id(image) for pair in validation for image in pair}
            pairs = [pair for pair in self._candidates() if taken.isdisjoint(map(_subject_id, pair))]
        else:
            pairs, _ = self._split(seed, validation_fraction)
        if not pairs:
            raise self._error(
                "leaves no pair of images to train on once the subjects that validate are set apart",
                "add subjects under 'training' or pairs under 'training_paired_images'",
            )
        return [self._item(*pair) for pair in pairs]

    def validation_pairs(self, seed: int = 0, validation_fraction: float = 0.2, max_pairs: int = 0) -> list[Pair]:
        """Pairs to validate on: those under ``registration_val``, else those of the subjects split away.

        Args:
            seed: seed of the split and of the choice; give the one of :meth:`training_pairs`.
            validation_fraction: see :meth:`training_pairs`.
            max_pairs: take a random choice of so many pairs, always the same for one seed; 0 takes all.

        Raises:
            InputError: When there is no such pair.
        """
        pairs = self._pairs_under("registration_val") or self._split(seed, validation_fraction)[1]
        if not pairs:
            raise self._error("has no pair to validate on", "list pairs under 'registration_val' or add subjects")
        if 0 < max_pairs < len(pairs):
            chosen = np.random.default_rng(seed).choice(len(pairs), max_pairs, replace=False)
            pairs = [pairs[index] for index in sorted(chosen)]
        return [self._item(*pair) for pair in pairs]

    def training_images(self, seed: int = 0, validation_fraction: float = 0.2) -> list[dict[str, str]]:
        """Single images to train on with synthetic fields: those under ``training`` of no subject that validates.

        Each has ``image``, its ``mask`` if there is one, and ``image_id``.

        Args:
            seed: seed of the split, used when there are neither ``validation`` images nor ``registration_val`` pairs.
            validation_fraction: part of the subjects that validates then.

        Raises:
            InputError: When no image is left.
        """
        away = {_subject_id(entry["image"]) for entry in self._validation_entries(seed, validation_fraction)}
        left = [entry for entry in self.subjects if _subject_id(entry["image"]) not in away]
        if not left:
            raise self._error("leaves no image to train on", "add images of further subjects under 'training'")
        return [self._single(entry) for entry in left]

    def validation_images(self, seed: int = 0, validation_fraction: float = 0.2) -> list[dict[str, str]]:
        """Single images to validate on: those under ``validation``, of ``registration_val``, or split away.

        Raises:
            InputError: When there is none, because all images are of one subject.
        """
        entries = self._validation_entries(seed, validation_fraction)
        if not entries:
            raise self._error("has images of one subject only", "list others under 'validation'")
        return [self._single(entry) for entry in entries]

    def _validation_entries(self, seed: int, fraction: float) -> list[dict[str, str]]:
        """Images of the subjects that validate, each once."""
        listed = self._read_subjects("validation")
        pairs = self._pairs_under("registration_val")
        if listed:
            return listed
        if pairs:
            images = dict.fromkeys(image for pair in pairs for image in reversed(pair))
            return [self._known.get(image, {"image": image}) for image in images]
        subjects = sorted({_subject_id(entry["image"]) for entry in self.subjects})
        away = _choose(subjects, fraction, 1, seed) if len(subjects) > 1 else set()
        return [entry for entry in self.subjects if _subject_id(entry["image"]) in away]

    def _single(self, entry: dict[str, str]) -> dict[str, str]:
        """What a training on single images needs of an entry."""
        image = entry["image"]
        companions = self._companions(image)
        mask = {"mask": companions["mask"]} if "mask" in companions else {}
        return {"image": image, **mask, "image_id": self._image_id(image)}

    def _candidates(self) -> list[tuple[str, str]]:
        """All (moving, fixed) that could train, before any are set apart for validation."""
        listed = self._pairs_under("training_paired_images")
        if listed:
            return listed
        within = self.pairing == "within"
        images = [entry["image"] for entry in self.subjects]
        return [(m, f) for f, m in permutations(images, 2) if (_subject_id(m) == _subject_id(f)) == within]

    def _split(self, seed: int, fraction: float) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Candidates for training and for validation: no subject in both; no pair in both if there is one subject."""
        if not 0 < fraction < 1:
            raise InputError(f"validation_fraction is {fraction}, expected a number between 0 and 1, such as 0.2.")
        pairs = self._candidates()
        subjects = sorted({_subject_id(image) for pair in pairs for image in pair})
        if len(subjects) > 1:
            within = all(_subject_id(moving) == _subject_id(fixed) for moving, fixed in pairs)
            away = _choose(subjects, fraction, 1 if within else 2, seed)
            training = [pair for pair in pairs if away.isdisjoint(map(_subject_id, pair))]
            return training, [pair for pair in pairs if away.issuperset(map(_subject_id, pair))]
        chosen = _choose(sorted({tuple(sorted(pair)) for pair in pairs}), fraction, 1, seed)
        both_ways = chosen | {(fixed, moving) for moving, fixed in chosen}  # a pair and its reverse stay together
        return [pair for pair in pairs if pair not in both_ways], [pair for pair in pairs if pair in both_ways]

    def _item(self, moving: str, fixed: str) -> Pair:
        item = {"moving": moving, "fixed": fixed}
        for role, image in (("moving", moving), ("fixed", fixed)):
            item |= {f"{role}_{key}": path for key, path in self._companions(image).items()}
        item["pair_id"] = f"{self._image_id(moving)}_to_{self._image_id(fixed)}"
        return item

    def _companions(self, image: str) -> dict[str, str]:
        """Label, mask, keypoints and landmarks of an image: as listed, else as found in ``labelsTr`` and so on."""
        if image in self._known:
            return {key: path for key, path in self._known[image].items() if key != "image"}
        path = Path(image)
        stem = re.sub(r"(\.nii)?\.\w+$", "", path.name)
        found = {}
        for key, suffix in COMPANIONS.items():
            plural = key if key.endswith("s") else f"{key}s"
            folder = path.parent.parent / path.parent.name.replace("images", plural, 1)
            name = path.name if suffix == ".nii.gz" else stem + suffix
            if folder != path.parent and (folder / name).is_file():
                found[key] = str(folder / name)
        return found

    def _image_id(self, image: str) -> str:
        """``0117_0001`` of ``LungCT_0117_0001.nii.gz``; a lone ``_0000`` says nothing and is dropped."""
        identity = re.sub(r"(\.nii)?\.\w+$", "", Path(image).name).removeprefix(f"{self.name}_")
        return identity if self._content.get("pairings") == "paired" else identity.removesuffix("_0000")

    def _read_spatial_dims(self) -> int:
        sizes, shapes = (self._content.get(key, {}) for key in ("tensorImageSize", "tensorImageShape"))
        size = sizes.get("0", "") if isinstance(sizes, dict) else sizes
        shape = shapes.get("0", []) if isinstance(shapes, dict) else shapes
        dims = str(size)[:1] or str(len(shape))
        if dims not in ("2", "3"):
            raise self._error(f"gives tensorImageSize {size!r}", 'write "tensorImageSize": {"0": "3D"} (or "2D")')
        return int(dims)

    def _read_label_names(self) -> dict[int, str]:
        labels = self._content.get("labels", {})
        try:
            return {int(value): str(name) for value, name in labels.get("0", {}).items()}
        except (AttributeError, ValueError):
            raise self._error(
                "has 'labels' that are no table of whole numbers", 'write {"0": {"0": "background", "1": ...}}'
            ) from None

    def _read_subjects(self, key: str) -> list[dict[str, str]]:
        """Entries under a key of the json file, with absolute paths that exist."""
        subjects = []
        for number, entry in enumerate(self._entries(key)):
            files = {"image": entry} if isinstance(entry, str) else entry
            where = f"'{key}' entry {number}"
            if not isinstance(files, dict) or "image" not in files:
                given = list(files) if isinstance(files, dict) else [str(files)]
                hint = suggest("image", given)
                raise self._error(f"has no 'image' in {where}, only {given}", f"name the image of this entry.{hint}")
            wanted = ("image", *COMPANIONS)
            subjects.append({name: self._path(files[name], f"{name} of {where}") for name in wanted if name in files})
        return subjects

    def _pairs_under(self, key: str) -> list[tuple[str, str]]:
        """(moving, fixed) paths listed under a key of the json file, none if the key is absent."""
        pairs = []
        for number, entry in enumerate(self._entries(key)):
            if not isinstance(entry, dict) or not {"fixed", "moving"} <= entry.keys():
                raise self._error(
                    f"has no 'fixed' and 'moving' in '{key}' entry {number}", 'write {"fixed": path, "moving": path}'
                )
            moving, fixed = (
                self._path(entry[role], f"{role} of '{key}' entry {number}") for role in ("moving", "fixed")
            )
            pairs.append((moving, fixed))
        return pairs

    def _entries(self, key: str) -> list[Any]:
        entries = self._content.get(key, [])
        if not isinstance(entries, list):
            raise self._error(f"has '{key}' that is no list", "write a list of entries, [{...}, ...]")
        if key == "training" and key not in self._content:
            raise self._error("has no key 'training'", f"list the images under it.{suggest(key, self._content)}")
        return entries

    def _path(self, relative: Any, what: str) -> str:
        return str(check_file(self._folder / str(relative), f"{what} in '{self._json}'"))

    def _error(self, wrong: str, remedy: str) -> InputError:
        return InputError(f"'{self._json}' {wrong}; {remedy}{'' if remedy.endswith('?') else '.'}")


def training_pairs(dataset_dir: str | Path, seed: int = 0, validation_fraction: float = 0.2) -> list[Pair]:
    """:meth:`Learn2RegDataset.training_pairs` of a folder."""
    return Learn2RegDataset(dataset_dir).training_pairs(seed, validation_fraction)


def validation_pairs(
    dataset_dir: str | Path, seed: int = 0, validation_fraction: float = 0.2, max_pairs: int = 0
) -> list[Pair]:
    """:meth:`Learn2RegDataset.validation_pairs` of a folder."""
    return Learn2RegDataset(dataset_dir).validation_pairs(seed, validation_fraction, max_pairs)


def training_images(dataset_dir: str | Path, seed: int = 0, validation_fraction: float = 0.2) -> list[dict[str, str]]:
    """:meth:`Learn2RegDataset.training_images` of a folder."""
    return Learn2RegDataset(dataset_dir).training_images(seed, validation_fraction)


def validation_images(dataset_dir: str | Path, seed: int = 0, validation_fraction: float = 0.2) -> list[dict[str, str]]:
    """:meth:`Learn2RegDataset.validation_images` of a folder."""
    return Learn2RegDataset(dataset_dir).validation_images(seed, validation_fraction)


def _find_json(folder: Path) -> Path:
    if not folder.is_dir():
        state = "is no folder" if folder.exists() else "does not exist"
        beside = [path.name for path in folder.parent.glob("*") if path.is_dir()]
        raise InputError(
            f"dataset_dir '{folder}' {state}; give a folder with 'images' and 'labels', or with the '*_dataset.json' "
            f"that is written by: regplugins describe IMAGES --labels LABELS.{suggest(folder.name, beside)}"
        )
    found = files_in(folder, "*_dataset.json")
    if not found:
        raise InputError(
            f"dataset_dir '{folder}' should hold one '*_dataset.json', or 'images' and 'labels', found none; "
            f"{remedy(folder)}"
        )
    if len(found) > 1:
        listed = ", ".join(file.name for file in found)
        raise InputError(
            f"dataset_dir '{folder}' should hold one '*_dataset.json', found {len(found)} of them ({listed}); keep "
            "exactly one."
        )
    return found[0]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(check_file(file, "data set description").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"'{file}' is not valid JSON ({error}); correct it or download it again.") from None
    if not isinstance(content, dict):
        raise InputError(f"'{file}' holds a {type(content).__name__}, expected an object; write {{\"training\": ...}}.")
    return content


@lru_cache(maxsize=10_000)  # asked twice for each of very many pairs
def _subject_id(image: str) -> str:
    """The number before the last one, ``0117`` of ``LungCT_0117_0001.nii.gz``; else the whole name."""
    match = re.search(r"_(\d+)_\d+(\.nii)?\.\w+$", Path(image).name)
    return match[1] if match else Path(image).name


def _choose(items: Sequence[Item], fraction: float, least: int, seed: int) -> set[Item]:
    """A seeded choice of a fraction of items, at least ``least``."""
    count = max(least, round(fraction * len(items)))
    return {items[index] for index in np.random.default_rng(seed).permutation(len(items))[:count]}
