"""Archives: equal files make equal ones, and nothing that could do harm is unpacked."""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_files import files_of
from released_bundles import tiny_bundle

from monai_regplugins.checks import InputError
from monai_regplugins.release import archive as archive_module
from monai_regplugins.release.archive import build_zip, check_zip, open_safely
from monai_regplugins.release.layout import released_files


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a bundle."""
    folder = tmp_path_factory.mktemp("good")
    return build_zip(tiny_bundle(folder), folder / "dist")


@pytest.fixture
def with_members(good: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that adds members to an archive, or takes another's place."""

    def make(*members: tuple[Any, bytes], without: str = "") -> Path:
        path = tmp_path / "made" / good.name
        path.parent.mkdir()
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for info in source.infolist():
                if info.filename != without:
                    target.writestr(info, source.read(info))
            for name, content in members:
                target.writestr(name, content)
        return path

    return make


def refused(path: Path, folder: Path, message: str) -> None:
    """Check that an archive is refused and leaves nothing behind, not even beside the folder."""
    before = files_of(folder.parent)
    with pytest.raises(InputError, match=message) as caught:
        open_safely(path, folder)
    assert "\n" not in str(caught.value)
    assert files_of(folder.parent) == before
    assert not list(folder.glob("*"))


class TestBuild:
    def test_equal_files_make_equal_archives(self, good: Path, tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path)
        shutil.copy(good.parents[1] / "tiny/models/model.pt", bundle / "models")
        shutil.copy(good.parents[1] / "tiny/models/model_ncc.pt", bundle / "models")
        os.utime(bundle / "LICENSE", (10**9, 10**9))
        (bundle / "LICENSE").chmod(0o600)
        again = build_zip(bundle, tmp_path / "elsewhere")
        assert again.name == good.name
        assert again.read_bytes() == good.read_bytes()

    def test_members(self, good: Path) -> None:
        with zipfile.ZipFile(good) as archive:
            members = archive.infolist()
        bundle = good.parents[1] / "tiny"
        assert [member.filename for member in members] == [f"tiny/{name}" for name in released_files(bundle)]
        assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
        assert {member.external_attr >> 16 for member in members} == {stat.S_IFREG | 0o644}
        assert {member.compress_type for member in members} == {zipfile.ZIP_DEFLATED}

    def test_the_folder_s_name_counts_from_inside_too(
        self, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(good.parents[1] / "tiny")
        assert build_zip(".", tmp_path).name == good.name


class TestUnpack:
    def test_what_was_packed_comes_back(self, good: Path, tmp_path: Path) -> None:
        assert check_zip(good) == "tiny"
        bundle = open_safely(good, tmp_path / "bundles")
        assert bundle == tmp_path / "bundles" / "tiny"
        source = good.parents[1] / "tiny"
        assert files_of(bundle) == released_files(source)
        assert all((bundle / name).read_bytes() == (source / name).read_bytes() for name in files_of(bundle))
        assert os.listdir(bundle.parent) == ["tiny"]

    def test_archives_of_other_tools_have_folders_as_members(self, with_members: Any, tmp_path: Path) -> None:
        path = with_members(("tiny/", b""), ("tiny/docs/", b""))
        assert open_safely(path, tmp_path / "bundles").name == "tiny"

    def test_an_empty_folder_gives_way(self, good: Path, tmp_path: Path) -> None:
        (tmp_path / "tiny").mkdir()
        assert files_of(open_safely(good, tmp_path))

    @pytest.mark.parametrize("kind", ["bundle", "file", "link"])
    def test_what_is_there_stays(self, kind: str, good: Path, tmp_path: Path) -> None:
        target = tmp_path / "bundles" / "tiny"
        target.parent.mkdir()
        if kind == "bundle":
            target.mkdir()
        held = target / "mine.txt" if kind == "bundle" else target
        if kind == "link":
            held.symlink_to(tmp_path)
        else:
            held.write_text("mine")
        with pytest.raises(InputError, match="is there already, and nothing in it was replaced"):
            open_safely(good, tmp_path / "bundles")
        assert held.is_symlink() if kind == "link" else held.read_text() == "mine"

    def test_a_system_that_refuses(self, good: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(InputError, match=r"cannot write .* nothing was installed"):
            open_safely(good, tmp_path / "file")


def link(name: str) -> zipfile.ZipInfo:
    """A symbolic link as a member."""
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return member


class TestRefused:
    """Each of them leaves nothing behind."""

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("../evil.txt", "'../evil.txt', whose path may lead out"),
            ("tiny/../../evil.txt", "may lead out"),
            ("/etc/evil", "may lead out"),
            ("C:/evil", "may lead out"),
            ("tiny\\..\\..\\evil", "may lead out"),
            ("tiny/docs//evil.md", "may lead out"),
            ("tiny/docs/.hidden", "may lead out"),
            ("tiny/docs/a\nb.md", "may lead out"),
            (link("tiny/docs/link.md"), "a link or a special file"),
            ("other/LICENSE", "has 2 top folders"),
            ("LICENSE", "has 2 top folders"),
            ("tiny/license", "holds a path twice"),
            ("tiny/scripts/__init__.py", "'scripts/__init__.py', which is no part of a released bundle"),
            ("tiny/torch.py", "no part of a released bundle"),
        ],
    )
    def test_member(self, name: Any, message: str, with_members: Any, tmp_path: Path) -> None:
        refused(with_members((name, b"evil")), tmp_path / "bundles", message)

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_member_twice(self, with_members: Any, tmp_path: Path) -> None:
        refused(with_members(("tiny/LICENSE", b"another")), tmp_path / "bundles", "holds a path twice")

    def test_a_file_in_place_of_a_folder(self, with_members: Any, tmp_path: Path) -> None:
        refused(with_members(("tiny/docs/README.md/x.md", b"")), tmp_path / "bundles", "cannot write")

    def test_no_bundle(self, with_members: Any, tmp_path: Path) -> None:
        path = with_members(without="tiny/configs/metadata.json")
        refused(path, tmp_path / "bundles", r"is no bundle, it has no configs/metadata\.json")

    def test_no_metadata(self, with_members: Any, tmp_path: Path) -> None:
        name = "tiny/configs/metadata.json"
        refused(with_members((name, b"{"), without=name), tmp_path / "bundles", r"metadata\.json is no JSON")

    def test_encrypted(self, with_members: Any, tmp_path: Path) -> None:
        path = with_members()
        content = bytearray(path.read_bytes())
        content[content.rfind(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(content)
        refused(path, tmp_path / "bundles", "is encrypted or packed in an unusual way")

    def test_bomb(self, with_members: Any, tmp_path: Path) -> None:
        path = with_members(("tiny/docs/zeros.txt", bytes(30 * 2**20)))
        refused(path, tmp_path / "bundles", "claims to unpack to more than 200 times its size")

    def test_too_large(self, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive_module, "MAX_BYTES", 2000)
        refused(good, tmp_path / "bundles", "claims to hold more than")

    def test_larger_than_it_claims(self, with_members: Any, tmp_path: Path) -> None:
        """Only as much as was announced is ever unpacked, and the sum shows the rest."""
        path = with_members(("tiny/docs/zeros.txt", bytes(1000)))
        content = bytearray(path.read_bytes())
        struct.pack_into("<L", content, content.rfind(b"PK\x01\x02") + 24, 10)
        path.write_bytes(content)
        refused(path, tmp_path / "bundles", "damaged, cut short or no zip")


class TestDamaged:
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
    def test_cut_short(self, share: float, good: Path, tmp_path: Path) -> None:
        path = tmp_path / "cut.zip"
        path.write_bytes(good.read_bytes()[: int(share * good.stat().st_size) or 20])
        refused(path, tmp_path / "bundles", "damaged, cut short or no zip archive .* download it again")

    def test_every_changed_byte_of_a_member_is_noticed(self, good: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(good) as archive:
            member = archive.getinfo("tiny/models/model.pt")
        start, path = member.header_offset + 30 + len(member.filename), tmp_path / "changed.zip"
        for place in range(start, start + member.compress_size, member.compress_size // 7):
            content = bytearray(good.read_bytes())
            content[place] ^= 0xFF
            path.write_bytes(content)
            refused(path, tmp_path / "bundles", "damaged, cut short or no zip archive")
            with pytest.raises(InputError, match="damaged, cut short or no zip archive"):
                check_zip(path)

    def test_missing(self, tmp_path: Path) -> None:
        refused(tmp_path / "none.zip", tmp_path / "bundles", "does not exist")


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_weights_with_code_are_refused_and_do_not_run(form: str, with_members: Any, tmp_path: Path) -> None:
    sign, model = tmp_path / "executed", tmp_path / "model.pt"
    if form == "torch":
        torch.save({"weight": torch.ones(1), "evil": Evil(sign)}, model)
    else:
        model.write_bytes(pickle.dumps(Evil(sign)))
    name = "tiny/models/model.pt"
    path = with_members((name, model.read_bytes()), without=name)
    refused(path, tmp_path / "bundles", r"models/model\.pt of 'tiny_v.*zip' is no file of plain weights")
    assert not sign.exists()
    if form == "torch":
        torch.load(model, weights_only=False)
        assert sign.exists(), "the file would have done something"
