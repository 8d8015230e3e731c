"""Atomic result folders, replaced only if this program made them from the same images."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from monai_regplugins.checks import InputError
from monai_regplugins.files.atomic import remove_parts, replace_file, write_file
from monai_regplugins.files.claims import claim, release
from monai_regplugins.io.provenance import PROGRAM, digest_of
from monai_regplugins.keys import PHASE_KEYS

__all__ = ["RECORD", "ResultFolder", "check_result", "read_record", "remove_leftovers", "write_result"]

logger = logging.getLogger(__name__)

RECORD = "provenance.json"
IMAGES = ("fixed", "moving")
LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>claim|[0-9a-f]{8}\.part)")


class ResultFolder:
    """The folder of a pair's results, ``<output_dir>/<name>``.

    Its ``provenance.json`` lists the files that the program made in it, with their sizes and digests. The folder is
    written if it is not there, or if that list is of the same images; then only listed files are replaced, and all
    others stay.

    Args:
        output_dir: folder of the results of all pairs; it is made when needed.
        name: of the pair.
    """

    def __init__(self, output_dir: str | Path, name: str) -> None:
        self.output_dir, self.path = Path(output_dir), Path(output_dir, name)
        self._claim = self.output_dir / f".{name}.claim"

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Check that results of these inputs may be written.

        Args:
            inputs: identity of each input, see :func:`~monai_regplugins.io.provenance.identity_of`.

        Raises:
            InputError: When an input lies in the folder, or the folder is there and is not a result of the same images.
        """
        place = self.path.resolve()
        for name, identity in inputs.items():
            file = Path(identity["file"]) if isinstance(identity, Mapping) and "file" in identity else None
            if file is not None and (file == place or place in file.parents):
                raise InputError(
                    f"the folder of results '{self.path}' holds the pair's {name}, '{file}'; give another output_dir "
                    "or pair_id."
                )
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise InputError(f"'{self.path}' is in the way of a folder of results; give another output_dir or pair_id.")
        if self.path.exists() and not _same_images(read_record(self.path).get("inputs", {}), inputs):
            raise InputError(
                f"'{self.path}' is there already and holds other things than results of these images; give another "
                "output_dir or pair_id."
            )

    def is_complete(self, fingerprint: str) -> bool:
        """Whether all results of this fingerprint are there, each file with its size."""
        record = read_record(self.path)
        files = record.get("files") or {}
        return (
            bool(files)
            and record.get("fingerprint") == fingerprint
            and all(_size(self.path / name) == entry["bytes"] for name, entry in files.items())
        )

    @contextmanager
    def claimed(self, wait: bool = False) -> Iterator[bool]:
        """Keep other processes away from the folder; yields whether none of them has it.

        Args:
            wait: whether to wait until they are ready.

        Raises:
            InputError: When the system refuses to write into ``output_dir``.
        """
        is_new = not self.output_dir.exists()
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            descriptor = claim(self._claim, wait)
        except OSError as error:
            raise self._refused(error) from error
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                release(self._claim, descriptor)
            if is_new:  # and empty, if nothing came of the pair
                with suppress(OSError):
                    self.output_dir.rmdir()

    def write(self, record: Mapping[str, Any], write: Callable[[Path], object]) -> None:
        """Write the results; needs the folder to be claimed.

        Args:
            record: provenance of the results; the list of files is added.
            write: writes them into the empty folder that it is given.

        Raises:
            InputError: When the folder is not ours, see :meth:`check`, or the system refuses, e.g. a full disk; an
                earlier result is unchanged then.
        """
        self.check(record.get("inputs", {}))
        workshop = self.output_dir / f".{self.path.name}.{secrets.token_hex(4)}.part"
        try:
            workshop.mkdir(parents=True)
            (workshop / "new").mkdir()
            write(workshop / "new")
            files = {file.name: _entry(file) for file in sorted((workshop / "new").iterdir())}
            self._publish(workshop, {**record, "files": files})
        except OSError as error:
            raise self._refused(error) from error
        finally:
            shutil.rmtree(workshop, ignore_errors=True)

    def _publish(self, workshop: Path, record: Mapping[str, Any]) -> None:
        """Put the new files into their places."""
        if self.path.exists():
            self._replace(workshop, record)
        else:
            (workshop / "new" / RECORD).write_bytes(_text(record))
            (workshop / "new").rename(self.path)

    def _replace(self, workshop: Path, record: Mapping[str, Any]) -> None:
        """Replace the files of an earlier result, or leave all of them as they were.

        Until all are in place, the record lists old and new files and has no fingerprint: were the process killed,
        the folder would be known as the program's, and not as complete.
        """
        earlier = (self.path / RECORD).read_bytes()
        old, new = read_record(self.path).get("files", {}), record["files"]
        ours = [name for name, entry in old.items() if _is_unchanged(self.path / name, entry)]
        for name in {**old, **new}:
            if name not in ours:
                _keep(self.path / name)
        write_file(self.path / RECORD, _text({**record, "files": _merged(old, new), "fingerprint": None}))
        moved: list[tuple[Path, Path]] = []
        (workshop / "old").mkdir()
        try:
            for name in ours:
                moved.append(_moved(self.path / name, workshop / "old" / name))
            for name in new:
                moved.append(_moved(workshop / "new" / name, self.path / name))
            write_file(self.path / RECORD, _text(record))
        except BaseException:
            for source, target in reversed(moved):
                target.rename(source)
            write_file(self.path / RECORD, earlier)
            raise

    def _refused(self, error: OSError) -> InputError:
        """The error for what the system refuses."""
        reason = error.strerror or error
        return InputError(f"cannot write '{self.path}' ({reason}); free some space or give another output_dir.")


def write_result(
    path: str | Path,
    content: bytes | Callable[[Path], object],
    inputs: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a file of results beside others, such as a table; never over a file of someone else.

    As in a :class:`ResultFolder`, the ``provenance.json`` beside it lists the files that the program has made.

    Args:
        path: the file; missing folders are made.
        content: all of its bytes, or a function that makes the file of the name it is given.
        inputs: identity of the inputs that the file is of, see :func:`~monai_regplugins.io.provenance.identity_of`.
        about: what else the record states, such as weights and settings.

    Raises:
        InputError: As :func:`check_result`, or when the system refuses.
    """
    target = Path(path)
    with ResultFolder(target.parent, RECORD).claimed(wait=True):
        check_result(target, inputs)

        def enter(file: Path) -> None:
            _enter(target, file, inputs or {}, about or {})

        if isinstance(content, bytes):
            write_file(target, content, before=enter)
        else:
            replace_file(target, content, before=enter)


def _enter(target: Path, file: Path, inputs: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Enter ``file``, which is about to become ``target``, into the record beside it."""
    record: dict[str, Any] = {"program": PROGRAM, "files": {}, **read_record(target.parent)}
    files = _merged(record["files"], {target.name: _entry(file)})
    if target.name in record["files"] and not _is_unchanged(target, record["files"][target.name]):
        _keep(target)
    known = {**record.get("inputs", {}), **inputs}
    named = {"inputs": known} if known else {}
    write_file(target.parent / RECORD, _text({**record, **about, **named, "files": files}))


def check_result(path: str | Path, inputs: Mapping[str, Any] | None = None) -> None:
    """Check that :func:`write_result` may write a file.

    Args:
        path: the file.
        inputs: as of :func:`write_result`.

    Raises:
        InputError: When there is a file of this name, or a ``provenance.json``, that the program has not made, or one
            that it made of other inputs.
    """
    target = Path(path)
    record = read_record(target.parent)
    for file, known in ((target, target.name in record.get("files", {})), (target.parent / RECORD, bool(record))):
        if os.path.lexists(file) and not known:
            raise InputError(
                f"'{file}' is there already and was not written by this program; move it, or give another output_dir."
            )
    for name, identity in (inputs or {}).items():
        other = record.get("inputs", {}).get(name)
        if other is not None and _place(other) != _place(identity):
            raise InputError(
                f"'{target.parent}' holds results of another {name}, '{_place(other)}'; give another output_dir."
            )


def remove_leftovers(output_dir: str | Path, names: Iterable[str] = ()) -> None:
    """Remove the temporary folders and files of results that killed processes have left in a folder.

    Args:
        output_dir: the folder.
        names: of pairs whose results may be in it; their folders are cleaned, too.
    """
    folder = Path(output_dir)
    for place in (folder, *(folder / name for name in names)):
        remove_parts(place)
    found = [LEFTOVER.fullmatch(name) for name in (os.listdir(folder) if folder.is_dir() else ())]
    for name in {match["name"] for match in found if match}:
        with suppress(InputError), ResultFolder(folder, name).claimed() as mine:
            for workshop in folder.glob(f".{escape(name)}.{'[0-9a-f]' * 8}.part") if mine else ():
                if not workshop.is_symlink() and set(os.listdir(workshop)) <= {"new", "old"}:
                    shutil.rmtree(workshop)


def read_record(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's ``provenance.json``, empty if there is none of this program."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    sound = isinstance(record, dict) and record.get("program") == PROGRAM and isinstance(record.get("files"), dict)
    return record if sound and all(map(_is_plain_name, record["files"])) else {}


def _is_plain_name(name: str) -> bool:
    """Whether a name leads to a file of the folder and nowhere else."""
    return Path(name).name == name and name not in (".", "..")


def _same_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records are of the same two images, and of the same volumes in them."""
    same_volumes = all(one.get(key) == other.get(key) for key in PHASE_KEYS)
    return same_volumes and all(_place(one.get(side)) == _place(other.get(side)) is not None for side in IMAGES)


def _place(identity: Any) -> Any:
    """Where an input lies or, in memory, the digest of its values; None if that is unknown."""
    keys = ("file", "sha256")
    return next((identity[key] for key in keys if key in identity), None) if isinstance(identity, Mapping) else None


def _entry(file: Path) -> dict[str, Any]:
    """What the record states of a file."""
    return {"bytes": file.stat().st_size, "sha256": digest_of(file)}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of old and new files, while either may be in place."""
    merged = dict(old)
    for name, entry in new.items():
        before = [old[name]["sha256"], *old[name].get("or", [])] if name in old else []
        merged[name] = {**entry, "or": before} if before else entry
    return merged


def _is_unchanged(file: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a file is as the program wrote it."""
    return not file.is_symlink() and digest_of(file) in (entry["sha256"], *entry.get("or", []))


def _keep(file: Path) -> None:
    """Rename a file that has the name of a result, but another content than the program wrote; remove an empty one."""
    if _size(file):
        kept = next(free for n in itertools.count(1) if not os.path.lexists(free := _numbered(file, n)))
        file.rename(kept)
        logger.warning("'%s' was not written by this program; it is now '%s'.", file, kept.name)
    else:
        file.unlink(missing_ok=True)


def _size(file: Path) -> int | None:
    """Bytes of a file, a link included; None if there is none."""
    try:
        return file.lstat().st_size
    except OSError:
        return None


def _numbered(file: Path, number: int) -> Path:
    """The name of a file that is kept: ``warped.kept-1.nii.gz``."""
    stem, dot, suffix = file.name.partition(".")
    return file.with_name(f"{stem}.kept-{number}{dot}{suffix}")


def _moved(source: Path, target: Path) -> tuple[Path, Path]:
    """Rename a file; return both names."""
    source.rename(target)
    return source, target


def _text(record: Mapping[str, Any]) -> bytes:
    """A record as the content of a file."""
    return (json.dumps(record, indent=2) + "\n").encode()
