"""What the command says of a file that is not as it was named: one message, one next step, a status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reuna.adapters import trust_keys
from reuna.cli import main
from reuna.core.errors import KeyProblem, NotUsable
from reuna.fleet.admit import make_cloud
from reuna.fleet.ending import ENDING
from reuna.fleet.place import main as place_main
from reuna.template import make_project
from reuna.trust.enrolment import Token

Run = Callable[..., tuple[int, str]]
NOPE = "/proc/nope"  #: nobody can make anything there, root neither
TOKEN = Token("127.0.0.1:1", "00" * 32, "secret", "edge", "pump-1").text()


@pytest.fixture
def reuna(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command as a process runs it: its status and what it says on standard error."""
    before = {number: signal.getsignal(number) for number in ENDING}

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["reuna", *arguments])
        monkeypatch.setattr(os, "execv", lambda _python, words: place_main(words[4:]))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, capfd.readouterr().err

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cloud whose databases are folders, a project, a plain file, a policy."""
    folder = tmp_path_factory.mktemp("place")
    make_cloud(folder / "cloud", "line", "127.0.0.1")
    state = folder / "cloud" / "state"
    (state / "register.sqlite").rename(state / "kept")
    (state / "audit.jsonl").unlink()
    for name in ("register.sqlite", "people.sqlite", "audit.jsonl"):
        (state / name).mkdir()
    make_project(folder / "pumps", sample=False)
    train = folder / "pumps" / "data" / "pump-1"
    train.mkdir(parents=True)
    (folder / "file").write_text("not a folder")
    return folder


CLOUD = "cloud/cloud.toml"
UNUSABLE: dict[str, tuple[list[str], str]] = {
    "init where nothing can be made": (["init", NOPE], NOPE),
    "init over a file": (["init", "file"], "file"),
    "init below a file": (["init", "file/p"], "file"),
    "a cloud's folder": (["cloud", "--settings", CLOUD, "--set", f"folder={NOPE}"], NOPE),
    "a new fleet's folder": (["site", "cloud", "line", "--folder", NOPE], NOPE),
    "a register": (["node", "list", "--settings", CLOUD], "register.sqlite"),
    "a register to invite in": (["site", "invite", "z", "--settings", CLOUD], "register.sqlite"),
    "accounts": (["people", "list", "--settings", CLOUD], "people.sqlite"),
    "an audit trail": (["audit", "show", "--settings", CLOUD], "people.sqlite"),
    "a trust folder that is a file": (["trust", "show", "--folder", "file"], "file"),
    "what was seen": (["trust", "templates", "--seen", NOPE], NOPE),
    "a machine that joins": (["join", TOKEN, "--folder", f"{NOPE}/pump-1"], NOPE),
    "a policy to write": (
        ["policy", "init", "--site", "north", "--preset", "company", "--out", f"{NOPE}/policy.toml"],
        NOPE,
    ),
    "an officer's key to write": (["policy", "key", "anna", "--out", f"{NOPE}/anna.key"], NOPE),
    "a build that is not there": (["build", "verify", "nothing.tar"], "nothing.tar"),
    "a build that is a folder": (["build", "show", "pumps"], "pumps"),
    "a settings file that is a folder": (["cloud", "--settings", "pumps"], "pumps"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_path_that_cannot_be_used_is_named_with_a_next_step(
    place: Path, reuna: Run, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.chdir(place)
    arguments, named = UNUSABLE[what]
    status, said = reuna(*arguments)
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("error:") and named in line], said
    assert said.count("next:") == 1
    assert "fetched again" not in said, "nothing is damaged"
    assert status == (2 if "settings" in what else NotUsable.exit_status)


def test_permission_denied_is_no_damage(place: Path, reuna: Run, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    tmp_path.chmod(0o500)
    status, said = reuna("init", str(tmp_path / "new"))
    tmp_path.chmod(0o700)
    assert (status, "Permission denied" in said) == (NotUsable.exit_status, True)


KEYS: dict[str, tuple[bytes | None, str]] = {
    "there is none": (None, "no readable key"),
    "it is something else": (b"hello\n", "is no private key"),
    "it is a certificate": (
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "is no private key",
    ),
}


@pytest.mark.parametrize("why", KEYS)
def test_a_file_that_is_no_key_asks_for_no_passphrase(
    place: Path, reuna: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust_keys, "COST", 2**4)
    content, message = KEYS[why]
    if content is not None:
        Path("anna.key").write_bytes(content)
    with pytest.raises(KeyProblem) as told:
        trust_keys.read_key(Path("anna.key"))
    assert message in told.value.message
    assert "passphrase" not in told.value.next_step
    assert "trust show" not in told.value.next_step


def test_a_passphrase_file_that_is_not_there_is_named(place: Path, reuna: Run) -> None:
    status, said = reuna("trust", "init", "--fleet", "line", "--folder", NOPE, "--passphrase-file", NOPE)
    assert f"cannot read the passphrase in {NOPE}" in said
    assert "trust show" not in said
    assert status == KeyProblem.exit_status


@pytest.mark.parametrize("debug", [True, False])
def test_debug_shows_where_an_error_arose(debug: bool) -> None:
    """In a process of its own: pytest has taken the log."""
    command = [sys.executable, "-m", "reuna.cli", *(["--debug"] if debug else []), "init", NOPE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == NotUsable.exit_status
    assert ("Traceback" in done.stderr) is debug
    assert "next:" in done.stderr
