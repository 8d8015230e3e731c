"""Headers that name the files of their voxels: plain names beside the header are read, anything else is refused."""

from __future__ import annotations

import gzip
import os
import random
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from monai_regplugins.checks import InputError
from monai_regplugins.readers.images import SimpleITKReader, read_scan, scan_shape
from monai_regplugins.readers.voxel_files import check_gzip_end, check_no_other_file, voxel_files

META = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
NRRD = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nspacings: 1 1 1\nencoding: raw\n"
VOXELS = np.arange(1, 9, dtype=np.uint8)
SECRET = np.arange(101, 109, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with voxels in one file and in two, in the byte order of the axes, and a file that is not for it."""
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "a.raw").write_bytes(VOXELS.tobytes())
    (tmp_path / "scan" / "s001.raw").write_bytes(VOXELS[:4].tobytes())
    (tmp_path / "scan" / "s002.raw").write_bytes(VOXELS[4:].tobytes())
    (tmp_path / "secret").write_bytes(SECRET.tobytes())
    return tmp_path / "scan"


def header(folder: Path, suffix: str, value: str, after: str = "") -> Path:
    """A header whose field of voxels has this value."""
    text = (
        f"{META}ElementDataFile = {value}\n{after}"
        if suffix in (".mhd", ".mha")
        else f"{NRRD}data file: {value}\n{after}"
    )
    (folder / f"h{suffix}").write_text(text)
    return folder / f"h{suffix}"


SUFFIXES = pytest.mark.parametrize("suffix", [".mhd", ".mha", ".nhdr", ".nrrd"])
READERS = pytest.mark.parametrize(
    "read",
    [
        lambda path: read_scan(path, "image"),
        lambda path: scan_shape(path, "image"),
        lambda path: SimpleITKReader().read(path),
        lambda path: check_no_other_file(path, "image"),
    ],
    ids=["read_scan", "scan_shape", "SimpleITKReader", "upload"],
)


@SUFFIXES
@pytest.mark.parametrize(
    ("value", "after", "files"),
    [
        ("a.raw", "", ["a.raw"]),
        ("LIST", "s001.raw\ns002.raw\n", ["s001.raw", "s002.raw"]),
        ("s%03d.raw 1 2 1", "", ["s001.raw", "s002.raw"]),
    ],
)
def test_files_beside_the_header(folder: Path, suffix: str, value: str, after: str, files: list[str]) -> None:
    path = header(folder, suffix, value, after)
    assert voxel_files(path, "image").files == [folder / name for name in files]
    assert scan_shape(path, "image") == (2, 2, 2)
    np.testing.assert_array_equal(read_scan(path, "image").values.numpy().ravel(order="F"), VOXELS)
    with pytest.raises(InputError, match=r"header whose voxels lie in another file, '.*'; send it as one"):
        check_no_other_file(path, "image")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".mhd", ".nhdr"])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_simpleitk_writes(tmp_path: Path, suffix: str, compressed: bool) -> None:
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    image.SetMetaData("Comment", "data file: x.raw")
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"), useCompression=compressed)
    found = voxel_files(tmp_path / f"a{suffix}", "image")
    alone = suffix in (".mha", ".nrrd")
    assert (found.files == [tmp_path / f"a{suffix}"]) == alone
    assert found.raw is not compressed
    if alone:
        check_no_other_file(tmp_path / f"a{suffix}", "image")


@SUFFIXES
@READERS
@pytest.mark.parametrize("value", ["../secret", "{}/secret", "./a.raw", "sub/a.raw", "..", "a\\b.raw", "-", "C:a.raw"])
def test_no_plain_name(folder: Path, suffix: str, value: str, read: Callable[[Path], object]) -> None:
    value = value.format(folder.parent)
    path = header(folder, suffix, value)
    match = r"image.* (names '.*' as the file of its voxels, expected a plain|is a header whose voxels lie in another)"
    with pytest.raises(InputError, match=match) as caught:
        read(path)
    assert "\n" not in str(caught.value)


@SUFFIXES
@pytest.mark.parametrize("after", ["s001.raw\n../secret\n", "{}/secret\n", "s001.raw\n\ns002.raw\n/dev/zero\n"])
def test_a_list_with_another_file(folder: Path, suffix: str, after: str) -> None:
    path = header(folder, suffix, "LIST", after.format(folder.parent))
    with pytest.raises(InputError, match="expected a plain name in the header's own folder"):
        read_scan(path, "image")


@SUFFIXES
@pytest.mark.parametrize(
    "value", ["s%s.raw 1 2 1", "s%n.raw 1 2 1", "s%d%d.raw 1 2 1", "s%d.raw", "s%d.raw 1 2 0", "%d 0 99999 1"]
)
def test_no_pattern(folder: Path, suffix: str, value: str) -> None:
    with pytest.raises(InputError, match=r"expected a pattern such as 'slice%03d\.raw 1 120 1'"):
        read_scan(header(folder, suffix, value), "image")
    with pytest.raises(InputError, match="expected a plain name"):
        read_scan(header(folder, suffix, "../s%d.raw 1 2 1"), "image")


@SUFFIXES
def test_no_regular_file_beside_the_header(folder: Path, suffix: str) -> None:
    (folder / "link").symlink_to(folder.parent / "secret")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "device").symlink_to("/dev/zero")
    states = {
        "link": "a link out of the header's folder",
        "device": "a link out of the header's folder",
        "folder": "no regular file",
        "pipe": "no regular file",
        "gone.raw": "not there",
        "x" * 300: "too long",
    }
    for name, state in states.items():
        with pytest.raises(InputError, match=state):
            read_scan(header(folder, suffix, name), "image")


@SUFFIXES
def test_links_within_the_folder(folder: Path, suffix: str) -> None:
    (folder / "link.raw").symlink_to("a.raw")
    path = header(folder, suffix, "link.raw")
    (folder.parent / "same").symlink_to(folder)
    np.testing.assert_array_equal(read_scan(path, "image").values.numpy().ravel(order="F"), VOXELS)
    assert read_scan(folder.parent / "same" / path.name, "image").values.shape == (2, 2, 2)


@pytest.mark.parametrize("value", ["LIST", "s%03d.raw 1 2 1"])
def test_one_of_several_files_is_too_short(folder: Path, value: str) -> None:
    """MetaIO would return memory that was never written."""
    (folder / "s002.raw").write_bytes(b"1")
    (folder / "s001.raw").write_bytes(VOXELS.tobytes())
    with pytest.raises(InputError, match="declares 2 x 2 x 2 voxels but the 2 files of its voxels have 9 bytes"):
        read_scan(header(folder, ".mhd", value, "s001.raw\ns002.raw\n"), "image")


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".mhd", META),
        (".mha", META + "Comment\nElementDataFile = LOCAL\nElementDataFile = ../secret\n"),
        (".mha", META + "ElementDataFile\0 = ../secret\n"),
        (".mha", META + "Comment = a\rElementDataFile = ../secret\n"),
        (".mhd", "Comment = " + "x" * 2**20 + "\n" + META),
        (".nrrd", "# comment\n" + NRRD),
        (".nrrd", NRRD + "# c\n" * 2**18),
    ],
)
def test_headers_that_are_none(folder: Path, suffix: str, content: str) -> None:
    (folder / f"h{suffix}").write_bytes(content.encode())
    for check in (voxel_files, check_no_other_file):
        with pytest.raises(InputError, match=r"cannot be read as an image, expected (MetaImage|NRRD) with"):
            check(folder / f"h{suffix}", "image")


def test_a_carriage_return_ends_a_line_of_nrrd(folder: Path) -> None:
    (folder / "h.nrrd").write_bytes((NRRD + "# c\rdata file: ../secret\n\n12345678").encode())
    with pytest.raises(InputError, match="plain name"):
        voxel_files(folder / "h.nrrd", "image")


def mutated(seed: int) -> tuple[str, str]:
    """A header of random line ends, separators and further fields, of which some name ``../secret``."""
    draw = random.Random(seed)
    of_meta = draw.random() < 0.5
    field, lines = ("ElementDataFile", META) if of_meta else ("data file", NRRD)
    separators = [" = ", "=", ": ", "\n= ", " "] if of_meta else [": ", ":  ", ":", " : "]
    fields = [field, field.upper(), f" {field}", f"{field}\0", "datafile", "x"]
    values = ["LOCAL", "a.raw", "../secret", "LIST", "../secret 1 1 1", "Comment", "k:=v", "", "# c"]
    content = lines.splitlines()
    for _ in range(draw.randint(1, 3)):
        content.append(draw.choice(fields) + draw.choice(separators) + draw.choice(values))
    content += draw.choice([[], ["../secret"], ["a.raw", "../secret"]])
    ends = ["\n"] * 8 + ["\r\n", "\r", "\n\n", " \n", "\0\n"]
    text = "".join(line + draw.choice(ends) for line in content) + "\nABCDEFGHIJKL"
    return text, draw.choice([".mhd", ".mha"] if of_meta else [".nhdr", ".nrrd"])


def test_no_spelling_leads_out_of_the_folder(folder: Path) -> None:
    """ITK itself shows which spellings it understands: none that reaches the other file may pass."""
    passed = 0
    for seed in range(400):
        text, suffix = mutated(seed)
        path = folder / f"h{suffix}"
        path.write_bytes(text.encode())
        try:
            voxel_files(path, "image")
        except InputError:
            continue
        reader = sitk.ImageFileReader()
        reader.SetImageIO("MetaImageIO" if suffix.startswith(".m") else "NrrdImageIO")
        reader.SetFileName(str(path))
        try:
            values = sitk.GetArrayFromImage(reader.Execute()).ravel()
        except RuntimeError:
            continue
        passed += 1
        assert not np.isin(values, SECRET).all(), text
    assert passed > 5


def test_other_formats_name_no_files(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz", "a.png", "a.dcm"):
        (tmp_path / name).write_text("ElementDataFile = /etc/passwd\ndata file: /etc/passwd\n")
        assert voxel_files(tmp_path / name, "image").files == [tmp_path / name]
        check_no_other_file(tmp_path / name, "image")


# --- compressed voxels ------------------------------------------------------------------------------------------------

MANY = np.random.default_rng(0).integers(-99, 99, (12, 11, 10)).astype(np.int16)


def compressed(folder: Path, suffix: str) -> tuple[Path, bytes, int]:
    """A compressed MetaImage, its header's file, and what it states of the size."""
    path = folder / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(MANY), str(path), useCompression=True)
    content = path.read_bytes()
    found = re.search(rb"CompressedDataSize = (\d+)\n", content)
    assert found is not None
    return path, content, int(found[1])


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("stated", [None, 0, 1, 0.3, 0.9])
def test_compressed_voxels_are_as_many_as_the_header_states(tmp_path: Path, suffix: str, stated: float | None) -> None:
    """ITK fills up with zeros what a wrong or missing size of the compressed voxels cuts off."""
    path, content, size = compressed(tmp_path, suffix)
    np.testing.assert_array_equal(read_scan(path, "image").values.numpy().T, MANY)
    line = (
        b"" if stated is None else b"CompressedDataSize = %d\n" % (stated if stated in (0, 1) else int(stated * size))
    )
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", line, content))
    with pytest.raises(InputError, match=rf"header of {MANY.nbytes} bytes of voxels, but the \d+ compressed .* hold"):
        read_scan(path, "image")


@pytest.mark.parametrize("count", [0.5, 2])
def test_a_compressed_stream_of_another_length(tmp_path: Path, count: float) -> None:
    path, content, size = compressed(tmp_path, ".mha")
    stream = zlib.compress((MANY.tobytes() * 2)[: int(count * MANY.nbytes)])
    content = content[:-size].replace(b"CompressedDataSize = %d" % size, b"CompressedDataSize = %d" % len(stream))
    path.write_bytes(content + stream)
    with pytest.raises(InputError, match=rf"hold {int(count * MANY.nbytes)}; it is damaged"):
        read_scan(path, "image")


def test_compressed_voxels_that_are_noise(tmp_path: Path) -> None:
    path, content, size = compressed(tmp_path, ".mha")
    path.write_bytes(content[:-size] + bytes(range(256)) * (size // 256 + 1))
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_scan(path, "image")


@pytest.mark.parametrize("parts", [1, 2])
def test_gzip_files_that_are_cut_short(tmp_path: Path, parts: int) -> None:
    """One of two parts states at its end the length of the second part alone."""
    content = random.Random(0).randbytes(3000)
    file = tmp_path / "a.nii.gz"
    file.write_bytes(b"".join(gzip.compress(content[part::parts]) for part in range(parts)))
    check_gzip_end(file, 3000, "image")
    check_gzip_end(file, 2990, "image")
    with pytest.raises(InputError, match="declares 3001 bytes but the file inflates to 3000; it is cut short"):
        check_gzip_end(file, 3001, "image")
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(InputError, match="declares 3000 bytes but the file inflates to"):
        check_gzip_end(file, 3000, "image")
