"""A backup's file: whole or not there, and refused when it is anything but what was written."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.parsers.backups import FILES, manifest, packed
from reuna.adapters.archive import open_archive, writing
from reuna.core.backup import (
    Folder,
    Manifest,
    Marks,
    Taken,
    behind,
    check_path,
    read_manifest,
    write_manifest,
)
from reuna.core.errors import Corrupted, DiskFull, NotUsable

ABOUT = write_manifest(manifest())


def quiet(_count: int) -> None:
    """No progress."""


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    with writing(tmp_path / "b", 0o600) as archive:
        digests = [archive.add(iter([data[:7], data[7:]]), len(data)) for data in FILES.values()]
        archive.finish(manifest())
    assert digests == [taken.sha256 for taken in manifest().files]
    found = open_archive(tmp_path / "b")
    found.verify(quiet)
    assert (found.manifest, found.digest) == (manifest(), archive.digest)
    assert [b"".join(found.read(index)) for index in range(3)] == list(FILES.values())
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_any_tar_lists_it(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(packed(ABOUT))
    with tarfile.open(tmp_path / "b") as tar:
        assert tar.getnames() == ["00000001", "00000002", "00000003", "manifest.json", "manifest.sha256"]


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "b", 0o600) as archive:
        archive.add(iter([b"x"]), 1)
        raise ZeroDivisionError
    with pytest.raises(EOFError), writing(tmp_path / "b", 0o600) as archive:
        archive.add(iter([b"x"]), 2)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="b in ") as raised, writing(tmp_path / "b", 0o600) as archive:
        archive.finish(manifest())
    assert "another disk" in raised.value.next_step
    with pytest.raises(DiskFull, match="b in "), writing(tmp_path / "b", 0o600):
        raise DiskFull("no space for the copy of a database")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(NotUsable, match="there already"), writing(tmp_path / "b", 0o600):
        pass
    with pytest.raises(NotUsable, match="there already"), writing(tmp_path / "late", 0o600):
        (tmp_path / "late").write_text("came meanwhile")
    with pytest.raises(NotUsable, match="no folder"), writing(tmp_path / "no" / "b", 0o600):
        pass
    assert (tmp_path / "b").read_text() == "mine"
    assert (tmp_path / "late").read_text() == "came meanwhile"


def refused(tmp_path: Path, data: bytes, match: str) -> None:
    (tmp_path / "b").write_bytes(data)
    with pytest.raises(Corrupted, match=match):
        open_archive(tmp_path / "b").verify(quiet)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = packed(ABOUT)
    for size in {*range(0, len(whole), 512), len(whole) - 1, 1}:
        refused(tmp_path, whole[:size], "cut short|no backup")
    refused(tmp_path, whole + b"x", "cut short")


@given(st.data())
def test_no_changed_byte_of_what_counts_is_believed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(packed(ABOUT))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    file = tmp_path_factory.mktemp("b") / "b"
    file.write_bytes(whole)
    try:
        found = open_archive(file)
        found.verify(quiet)
    except Corrupted:
        return
    assert found.manifest == manifest(), "padding may differ, and what no reader looks at"


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "first",
    [
        member("00000001", tarfile.SYMTYPE, link="/etc"),
        member("00000001", tarfile.LNKTYPE, link="00000002"),
        member("00000001", tarfile.DIRTYPE),
        member("00000001", tarfile.GNUTYPE_LONGNAME, 512) + bytes(512),
        member("00000001", tarfile.XHDTYPE, 512) + bytes(512),
        member("../00000001"),
        member("00000002"),
        member("/etc/passwd"),
    ],
    ids=["symlink", "hard link", "folder", "long name", "extended", "parent", "number", "absolute"],
)
def test_members_that_are_no_numbered_file_are_refused(tmp_path: Path, first: bytes) -> None:
    refused(tmp_path, first + packed(ABOUT), "no backup")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_member_in_its_place_but_of_another_kind_is_refused(tmp_path: Path, kind: bytes) -> None:
    size = len(FILES["edge.toml"])
    refused(tmp_path, member("00000001", kind, size) + packed(ABOUT)[512:], "no backup")
    refused(tmp_path, member("00000001", size=size, link="x") + packed(ABOUT)[512:], "no backup")
    (tmp_path / "b").write_bytes(member("00000001", size=size) + packed(ABOUT)[512:])
    open_archive(tmp_path / "b").verify(quiet)


def test_a_length_beyond_the_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    refused(tmp_path, member("00000001", size=1 << 60) + packed(ABOUT), "cut short")


def test_a_manifest_that_is_not_that_of_the_files_is_refused(tmp_path: Path) -> None:
    other = {**FILES, "state/policy/policy": b"q" * 600}
    refused(tmp_path, packed(ABOUT, other), "state/policy/policy is not as it was written")
    refused(tmp_path, packed(ABOUT, {**FILES, "more": b""}), "other files")
    refused(
        tmp_path, packed(ABOUT).replace(b'"press-1"', b'"press-2"'), "the manifest is not as it was written"
    )


def with_file(path: str) -> bytes:
    taken = Taken(path, 1, "ab" * 32, 0o600)
    return msgspec.json.encode(manifest(files=(*manifest().files, taken)))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "../x", "state/../../x", "state//x", "state/./x", "", ".", "..", "state/\0", "state/a\nb", "a\\b",
        "state/" + "x" * 256, "state/" + "x/" * 600 + "x", "nowhere/x", "state", "edge.toml",
    ],
)  # fmt: skip
def test_a_manifest_names_no_path_that_leads_out_or_stands_twice(path: str) -> None:
    with pytest.raises(Corrupted):
        read_manifest(with_file(path))
    read_manifest(with_file("state/other"))


def test_a_later_format_is_told_from_damage() -> None:
    later = msgspec.json.encode({"format": "reuna/backup/v2", "version": "9.0", "new": 1})
    with pytest.raises(Corrupted, match="this version reads reuna/backup/v1") as raised:
        read_manifest(later)
    assert "9.0" in raised.value.next_step


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "moon"}, "no place"),
        ({"files": manifest().files[1:]}, "has no edge.toml"),
        ({"files": (Taken("edge.toml", -1, "ab" * 32, 0o600),)}, "cannot be read"),
        ({"files": (Taken("edge.toml", 1, "../" * 21 + "x", 0o600),)}, "cannot be read"),
        ({"folders": (Folder("state", 0o4755),)}, "cannot be read"),
    ],
)
def test_a_manifest_that_says_what_it_may_not_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(Corrupted, match=said):
        read_manifest(msgspec.json.encode(manifest(**change)))


@given(st.text(max_size=60))
def test_a_good_path_stays_in_its_folder(path: str) -> None:
    if not check_path(path):
        assert os.path.normpath(f"/base/{path}").startswith("/base/")


def test_only_a_file_is_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotUsable):
            open_archive(path)


def test_what_is_older_is_said_for_each_thing_that_never_goes_back() -> None:
    old = Marks("a", 5, 2, {"root": 1, "timestamp": 4}, {"r-1": 1})
    assert behind(old, old) == behind(old, Marks()) == []
    new = Marks("a", 6, 3, {"root": 1, "timestamp": 5}, {"r-1": 2, "r-2": 1})
    assert [sentence.split()[0] for sentence in behind(old, new)] == ["the", "the", "timestamp", "r-1", "r-2"]
    assert "b" in behind(old, Marks("b", 1))[0]


def test_golden_bytes_of_a_manifest_stay_readable() -> None:
    golden = (Path(__file__).parents[2] / "golden" / "backup-1.json").read_bytes()
    assert write_manifest(manifest()) == golden
    assert read_manifest(golden) == manifest()
    assert io.BytesIO(golden).readline() == b"{\n"
    assert Manifest.__struct_fields__[0] == "format"
