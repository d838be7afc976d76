"""A crash with secrets in memory tells none: not in what is written, not in the list of processes, in no core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reuna.fleet.admit import make_cloud
from reuna.fleet.layout import make_fleet
from reuna.trust.enrolment import Token

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
PASSWORD = "correct horse battery staple"
TOKEN = Token("cloud.example:8444", "0" * 64, "c2VjcmV0LXdvcmQtb2YtYS10b2tlbg", "fog", "mill-3")
#: Breaks a function as a mistake of ours would; says what others see of the process, then runs the command.
CRASHING = """
import importlib, resource, sys
from pathlib import Path
module, name, *words = sys.argv[1:]
def crash(*args, **kwargs):
    for file in ("cmdline", "environ"):
        print(Path(f"/proc/self/{file}").read_bytes().replace(bytes(1), b" ").decode())
    print("core", resource.getrlimit(resource.RLIMIT_CORE))
    raise RuntimeError("a mistake of ours")
setattr(importlib.import_module(module), name, crash)
if words[0] == "cloud":  # the command becomes this; the mistake would not come along
    from reuna.fleet.place import main
    main(words)
sys.argv = ["reuna", *words]
from reuna.cli import main
main()
"""


def crashes(folder: Path, where: str, *words: str, given: str = "") -> str:
    """All that the command wrote until it crashed in that function."""
    module, _, name = where.rpartition(".")
    command = [sys.executable, "-c", CRASHING, module, name, *words]
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, timeout=90)
    written = done.stdout + done.stderr
    assert "a mistake of ours" in written, written
    return written


@pytest.fixture
def password(tmp_path: Path) -> str:
    file = tmp_path / "secret"
    file.write_text(PASSWORD)
    return str(file)


def test_a_token_that_came_in_or_lies_in_a_file(tmp_path: Path) -> None:
    text = TOKEN.text()
    (tmp_path / "token").write_text(text)
    for written in (
        crashes(tmp_path, "reuna.fleet.join.fetch_root", "join", "-", given=text + "\n"),
        crashes(tmp_path, "reuna.fleet.join.fetch_root", "join", given=text + "\n"),
        crashes(tmp_path, "reuna.fleet.join.fetch_root", "join", "--token-file", "token"),
    ):
        assert text not in written
        assert TOKEN.secret not in written
    assert text in crashes(tmp_path, "reuna.fleet.join.fetch_root", "join", text), "as a word it is seen"


def test_a_password_and_a_passphrase(tmp_path: Path, password: str) -> None:
    file = make_cloud(tmp_path / "cloud", "line-4", "127.0.0.1")
    people = ("people", "add", "anna", "--role", "viewer", "--settings", str(file))
    assert PASSWORD not in crashes(
        tmp_path, "reuna.fleet.people.hashed", *people, "--password-file", password
    )
    trust = ("trust", "init", "--fleet", "line-4", "--passphrase-file", password)
    assert PASSWORD not in crashes(tmp_path, "reuna.fleet.trust.write_key", *trust)


def test_the_keys_of_a_place_and_no_image_of_its_memory(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet", "local", {"fog-1": {"edge-1": tmp_path}})
    (cloud,) = fleet.of("cloud")
    written = crashes(tmp_path, "reuna.cloud.coordinator.Planner", "cloud", "--settings", str(cloud.settings))
    assert "core (0, 0)" in written
    keys = [
        path for path in fleet.folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()
    ]
    assert len(keys) >= 5
    for key in keys:
        for line in key.read_text().splitlines():
            assert line.startswith("-----") or len(line) < 20 or line not in written, key
