"""A node's data have a fingerprint: equal for equal data, worth nothing without the key of the node."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters import fingerprint as adapter
from reuna.adapters.files import file_sha256
from reuna.adapters.fingerprint import DATA_KEY, DataFolder, node_key, window_of
from reuna.core.fingerprint import Window, as_fields, digest_of, fingerprint, is_told, setup
from reuna.core.records import Event

NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=9)
FILES = st.dictionaries(NAMES, st.integers(0, 3).map(lambda n: f"{n:064x}"), max_size=5)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "monday.csv").write_text("t\n1\n2\n")
    (folder / "notes.json").write_text("{}")
    return folder


def window(data: Path) -> Window:
    found = window_of(data, data.parent / DATA_KEY)
    assert found
    return found


def test_equal_data_of_a_node_have_equal_fingerprints_and_any_change_another(data: Path) -> None:
    first = window(data)
    assert (first.files, first.bytes) == (2, 8)
    assert window(data) == first
    (data / ".hidden").write_text("x")
    (data / ".cache").mkdir()
    (data / ".cache" / "more.csv").write_text("x")
    assert window(data) == first, "what is hidden is no data"
    monday = data / "train" / "monday.csv"
    seen = {first.fingerprint}
    for change in (
        lambda: monday.write_text("t\n1\n3\n"),
        lambda: monday.rename(data / "train" / "tuesday.csv"),
        lambda: (data / "train" / "empty.csv").write_text(""),
        lambda: (data / "notes.json").unlink(),
    ):
        change()
        seen.add(window(data).fingerprint)
    assert len(seen) == 5


def test_who_has_not_the_nodes_key_cannot_try_values(data: Path, tmp_path: Path) -> None:
    """Whoever guesses every byte of the data still has no fingerprint to compare."""
    told = window(data).fingerprint
    files = {
        path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in data.rglob("*")
        if path.is_file()
    }
    guessed = digest_of(files)
    assert told == fingerprint(node_key(tmp_path / DATA_KEY), guessed)
    assert told not in {guessed, fingerprint(b"", guessed), fingerprint(bytes(32), guessed)}
    other = window_of(data, tmp_path / "another.key")
    assert other
    assert other.fingerprint != told, "nor do two nodes with equal data know it of each other"


def test_the_key_is_made_once_for_the_nodes_user_alone(tmp_path: Path) -> None:
    file = tmp_path / DATA_KEY
    key = node_key(file)
    assert (len(key), stat.S_IMODE(file.stat().st_mode)) == (32, 0o600)
    assert node_key(file) == key
    file.write_bytes(b"cut")
    assert len(node_key(file)) == 32


def test_data_that_cannot_be_read_have_none_and_nothing_fails(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert window_of(data / "nowhere", data.parent / DATA_KEY) is None
    assert window_of(data, data.parent / "nowhere" / DATA_KEY) is None
    assert "the data have no fingerprint" in caplog.text


@given(FILES, FILES)
def test_the_digest_is_of_the_files_and_of_no_order(a: dict[str, str], b: dict[str, str]) -> None:
    assert digest_of(dict(reversed(a.items()))) == digest_of(a)
    assert (digest_of(a) == digest_of(b)) == (a == b)


def test_its_bytes_stay_as_they_were_told() -> None:
    digest = digest_of({"train/monday.csv": "00" * 32, "é": "11" * 32})
    assert digest == "73eec84026a6ce0a932274fce6f4532b5719d30bdb6a9548f7b1047af01e647c"
    assert (
        fingerprint(bytes(32), digest) == "77e0ca9101fcb0ddd7222f170530adc9a1682990e1eea2bb5296451f599dbebc"
    )
    assert setup(bytes(32), digest) == "a24fb1874b1cbfa94a55800e612796f948bc5facbdde78289f516348f42797a0"


# --- a folder that is read when it may have changed -------------------------------------------------


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, of which all are old enough to be believed."""
    found: list[Path] = []
    monkeypatch.setattr(adapter, "SETTLED_NS", -(10**15))
    monkeypatch.setattr(adapter, "file_sha256", lambda path: found.append(path) or file_sha256(path))
    return found


@pytest.fixture
def folder(data: Path) -> DataFolder:
    return DataFolder(data, data.parent / DATA_KEY)


def test_data_that_did_not_change_since_they_were_read_are_not_read_again(
    folder: DataFolder, data: Path, read: list[Path]
) -> None:
    first = folder.anew(None)
    assert first
    assert (first.fingerprint, first.files, first.bytes) == (window(data).fingerprint, 2, 8)
    read.clear()
    assert folder.since(folder.marks(), None) == first
    assert read == []
    assert folder.anew(None) == first
    assert len(read) == 2, "who is asked reads every byte"


def _put_back(path: Path) -> None:
    """Another byte, under the old size and the old time of the last change."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"1", b"7"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte, and the time put back": _put_back,
    "a row": lambda monday: monday.write_text("t\n1\n2\n3\n"),
    "a name": lambda monday: monday.rename(monday.with_name("tuesday.csv")),
    "a file more": lambda monday: (monday.parent / "empty.csv").write_text(""),
    "another file in its place": lambda monday: Path(shutil.copy2(monday, monday.parent / ".x")).replace(
        monday
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_in_the_folder_it_is_read_again(
    folder: DataFolder, data: Path, read: list[Path], what: str
) -> None:
    folder.anew(None)
    read.clear()
    CHANGES[what](data / "train" / "monday.csv")
    assert folder.since(folder.marks(), None)
    assert read


def test_of_files_that_changed_a_moment_before_they_were_read_nothing_is_kept(
    folder: DataFolder, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "SETTLED_NS", 10**15)
    folder.anew(None)
    read.clear()
    folder.since(folder.marks(), None)
    assert len(read) == 2


def test_data_that_changed_since_the_marks_were_taken_are_nobodys(
    folder: DataFolder, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marks = folder.marks()
    (data / "notes.json").write_text("{ }")
    assert folder.since(marks, None) is None
    assert "they change while they are read" in caplog.text
    assert DataFolder(data / "nowhere", data.parent / DATA_KEY).anew(None) is None


def test_columns_and_packages_are_another_setup_of_the_same_data(
    folder: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(columns: tuple[str, ...] | None) -> tuple[str, str]:
        found = folder.anew(columns)
        assert found
        return found.fingerprint, found.setup

    every, some = told(None), told(("t",))
    assert told(None) == every
    assert every[0] == some[0]
    assert every[1] != some[1]
    (tmp_path / "more" / "numpy-2.9.9.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "more")
    updated = told(None)[1]
    assert updated != every[1]
    (tmp_path / "more" / "notes.txt").write_text("")
    assert told(None)[1] == updated
    (tmp_path / "more" / "numpy-2.9.9.dist-info").rename(tmp_path / "more" / "numpy-2.9.8.dist-info")
    assert told(None)[1] not in {updated, every[1]}


def test_an_event_says_of_the_data_nothing_else() -> None:
    fields = as_fields(Window("f1" * 32, 1, 2, "0a" * 32), 7)
    event = Event("pump-1", "b", 1, 1.0, "data", "r-1", 1, fields)
    assert fields == {"fingerprint": "f1" * 32, "files": 1, "bytes": 2, "setup": "0a" * 32, "rows": 7}
    assert is_told(event)
    for name, value in (("setup", "row 7"), ("setup", 7), ("name", "0a" * 32), ("fingerprint", "x")):
        assert not is_told(msgspec.structs.replace(event, fields={**fields, name: value}))
    assert "setup" not in as_fields(Window("f1" * 32, 1, 2), None)
