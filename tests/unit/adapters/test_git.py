"""A real git repository, read as a build needs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from reuna.adapters.git import changes, contents, listing, open_checkout, public_address, remote
from reuna.core.errors import ProjectError
from tests.repositories import FILES, commit, git, repository, write


def read(folder: Path, revision: str = "HEAD") -> dict[str, bytes]:
    checkout = open_checkout(folder, revision)
    return contents(checkout, listing(checkout))


def test_what_was_committed_is_what_is_read_whatever_lies_in_the_folder(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    write(folder, {"detector/model.py": "changed", "new.py": "new"})
    assert read(folder) == {name: text.encode() for name, text in FILES.items() if isinstance(text, str)}


def test_an_older_commit_is_read_by_its_tag(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    git(folder, "tag", "v1")
    commit(folder, {"detector/model.py": "x = 2\n"})
    assert read(folder)["detector/model.py"] == b"x = 2\n"
    assert read(folder, "v1")["detector/model.py"] == b"import numpy\n"


def test_a_project_below_the_top_is_read_by_its_own_paths(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a", {"line/pump/reuna.toml": "a", "line/other.py": "b"})
    checkout = open_checkout(folder / "line" / "pump")
    assert checkout.path == "line/pump"
    assert [each.name for each in listing(checkout)] == ["reuna.toml"]
    write(folder, {"line/other.py": "c", "line/pump/reuna.toml": "d"})
    assert changes(checkout) == ["reuna.toml"]


def test_changed_new_and_removed_files_are_changes_and_ignored_ones_are_none(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a", {**FILES, ".gitignore": "made.py\n"})
    assert changes(open_checkout(folder)) == []
    write(folder, {"detector/model.py": "x = 2\n", "ä b.py": "", "made.py": ""})
    (folder / "README.md").unlink()
    assert changes(open_checkout(folder)) == ["README.md", "detector/model.py", "ä b.py"]


def test_neither_attributes_nor_settings_of_the_machine_change_what_is_read(tmp_path: Path) -> None:
    lines = "x = 1\n# $Id$ $Format:%H$\n"
    folder = repository(tmp_path / "a", {**FILES, "detector/lines.py": lines})
    git(folder, "config", "core.autocrlf", "true")
    commit(folder, {".gitattributes": "*.py text eol=crlf ident export-subst\ndetector export-ignore\n"})
    (folder / "detector" / "lines.py").unlink()
    git(folder, "checkout", "detector/lines.py")
    assert (folder / "detector" / "lines.py").read_bytes() != lines.encode()
    assert read(folder)["detector/lines.py"] == lines.encode()


def test_a_replacement_object_has_no_say(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    before = git(folder, "rev-parse", "HEAD")
    git(folder, "replace", before, commit(folder, {"detector/model.py": "import os\n"}))
    assert read(folder, before)["detector/model.py"] == b"import numpy\n"


def test_a_hook_that_git_runs_reads_the_project_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = repository(tmp_path / "a"), repository(tmp_path / "b", {"reuna.toml": "other"})
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert "detector/model.py" in read(folder)


def test_a_revision_that_looks_like_an_option_is_no_commit(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    for revision in ("--all", "nope", "HEAD:reuna.toml"):
        with pytest.raises(ProjectError, match="has no commit"):
            open_checkout(folder, revision)


def test_a_repository_without_a_commit_and_no_repository_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(ProjectError, match="not a git repository"):
        open_checkout(tmp_path)
    git(tmp_path, "init", "--quiet", ".")
    with pytest.raises(ProjectError, match="has no commit yet"):
        open_checkout(tmp_path)


def test_a_project_that_the_commit_does_not_have_is_named(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    write(folder, {"later/reuna.toml": ""})
    with pytest.raises(ProjectError, match="has no folder later"):
        listing(open_checkout(folder / "later"))


def test_without_git_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProjectError, match="git is not installed"):
        open_checkout(tmp_path)


def test_a_git_that_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*_words: object, **_options: object) -> None:
        raise subprocess.TimeoutExpired("git", 60)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(ProjectError, match="did not end"):
        open_checkout(tmp_path)


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    (folder / os.fsdecode(b"\xff.py")).write_text("")
    commit(folder, {})
    with pytest.raises(ProjectError, match="is not UTF-8"):
        listing(open_checkout(folder))


def test_the_remote_is_told_without_its_password(tmp_path: Path) -> None:
    folder = repository(tmp_path / "a")
    assert remote(open_checkout(folder)) == ""
    git(folder, "remote", "add", "origin", "https://anna:secret@git.example.org/pump.git")
    assert remote(open_checkout(folder)) == "git+https://git.example.org/pump.git"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://git.example.org/pump.git", "git+https://git.example.org/pump.git"),
        ("https://token@git.example.org/pump.git#x", "git+https://git.example.org/pump.git"),
        ("https://a:b@c@git.example.org/pump?key=1", "git+https://git.example.org/pump"),
        ("ssh://git@git.example.org:22/pump.git", "git+ssh://git.example.org:22/pump.git"),
        ("git.example.org:/srv/pump.git", "git+ssh://git.example.org/srv/pump.git"),
        ("/srv/pump.git", ""),
        ("C:/pump.git", ""),
        ("file:///srv/pump.git", ""),
        ("ext::sh -c whoami", ""),
        ("https://[::1/pump.git", ""),
        ("https://anna:secret@", ""),
    ],
)  # fmt: skip
def test_of_an_address_only_what_others_may_know_is_told(url: str, said: str) -> None:
    assert public_address(url) == said
