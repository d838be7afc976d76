"""An officer sees what will run: every changed byte shows, and nothing in it moves the terminal."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from reuna.adapters.project import source_text
from reuna.cli import app
from reuna.core.errors import ProjectError, SettingsError
from reuna.core.foreign import readable
from reuna.fleet.review import review
from reuna.wire import digest_bytes


def bundle(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, content in files.items():
            packed.writestr(f"{name}.py", content)
    return out.getvalue()


def edge(folder: Path, waiting: bytes, ran: bytes = b"") -> Path:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    (folder / "work" / "waiting.zip").write_bytes(waiting)
    if ran:
        (folder / "work" / "ran.zip").write_bytes(ran)
    return folder


def test_a_changed_line_shows_and_an_unchanged_file_does_not(tmp_path: Path) -> None:
    found = review(edge(tmp_path, bundle(a=b"x = 2\n", b=b"y\n"), bundle(a=b"x = 1\n", b=b"y\n")))
    assert [line for line in found.changes if not line.startswith("@@")] == [
        "--- before/a.py", "+++ a.py", "-x = 1", "+x = 2", " ",
    ]  # fmt: skip


def test_a_new_file_without_a_line_shows(tmp_path: Path) -> None:
    assert "+++ b.py" in review(edge(tmp_path, bundle(a=b"x", b=b""), bundle(a=b"x"))).changes


@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\x0c\n", b""])
def test_another_end_of_a_line_is_a_difference(tmp_path: Path, end: bytes) -> None:
    assert review(edge(tmp_path, bundle(a=b"x" + end), bundle(a=b"x\n"))).changes


def test_code_of_equal_length_that_is_not_utf_8_shows_with_both_digests(tmp_path: Path) -> None:
    head = "# coding: latin-1\nname = '\xe9'\n".encode("latin-1")
    old, new = head + b"keep()\n", head + b"send()\n"
    changes = review(edge(tmp_path, bundle(a=new), bundle(a=old))).changes
    assert f"{len(old)} bytes, SHA-256 {digest_bytes(old)}" in changes[0]
    assert f"{len(new)} bytes, SHA-256 {digest_bytes(new)}" in changes[1]
    assert "not UTF-8" in changes[2]


def test_a_bundle_that_cannot_be_read_is_not_to_be_approved(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        review(edge(tmp_path, b"PK no zip"))


HOSTILE = "x = 1\x1b[1A\x1b[2K\u202e\u2066# fine\u200b\r"


def test_what_would_steer_the_terminal_is_written_out(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["code", "review", str(edge(tmp_path, bundle(a=HOSTILE.encode())))])
    assert done.exit_code == 0
    assert r"+x = 1\x1b[1A\x1b[2K\u202e\u2066# fine\u200b\x0d" in done.stdout
    assert not any(sign in done.stdout for sign in "\x1b\u202e\u2066\u200b\r")


@given(st.text())
def test_readable_text_holds_only_what_a_terminal_shows_and_is_shown_once(text: str) -> None:
    shown = readable(text)
    assert all(each.isprintable() or each == "\t" for each in shown)
    assert readable(shown) == shown


@pytest.mark.parametrize(
    "content",
    [
        b"# coding: utf-7\n# +AAo-import os\n",  # Python runs a line that is a comment to a reader
        b"# -*- coding: unicode_escape -*-\n# \\u000aimport os\n",
        "# coding: latin-1\nname = '\xe9'\n".encode("latin-1"),
        b"\n# vim: set fileencoding=cp1252 :\n",
        b"# coding: no-such\n",
        b"name = '\xff'\n",
    ],
)
def test_code_that_python_reads_in_another_way_than_a_person_is_refused(content: bytes) -> None:
    with pytest.raises(ProjectError, match="UTF-8"):
        source_text("a.py", content)


@pytest.mark.parametrize(
    "content", [b"", b"x = 1\n", "# coding: utf-8\n# \u20ac\n".encode(), b"\xef\xbb\xbfx\n"]
)
def test_utf_8_passes(content: bytes) -> None:
    assert source_text("a.py", content) == content.decode()
