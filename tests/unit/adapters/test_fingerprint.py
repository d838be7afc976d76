"""A node's data have a fingerprint: equal for equal data, worth nothing without the key of the node."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters.fingerprint import DATA_KEY, node_key, window_of
from reuna.core.fingerprint import Window, digest_of, fingerprint

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
