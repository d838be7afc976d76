"""A cloud whose tables are in a real PostgreSQL, as its operator meets it on the command line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from reuna.adapters.events import EventLog
from reuna.adapters.people import PeopleStore
from reuna.adapters.postgresql import PostgresqlDatabase
from reuna.adapters.register import Register
from reuna.cli import main
from reuna.core.errors import DatabaseTooNew, NotUsable, PermissionDenied, ReunaError, SettingsError
from reuna.core.records import Event
from reuna.exchange.storage import tables_of
from reuna.fleet.admit import make_cloud
from reuna.fleet.ending import ENDING
from reuna.fleet.move import move
from reuna.trust.enrolment import Node
from reuna.trust.people import Person
from tests.servers.postgresql import PASSWORD, PostgresqlServer, binary

NODE = Node("mill-3", "fog", "mill-3", "5d", "k1", issued=0.0, expires=1e12)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "cloud"
    make_cloud(folder, "line", "127.0.0.1")
    return folder


@pytest.fixture
def in_files(made: Path, tmp_path: Path) -> Path:
    """Settings of a cloud that keeps its tables in its folder; it was not started yet."""
    shutil.copytree(made, tmp_path / "cloud")
    file = tmp_path / "cloud" / "cloud.toml"
    file.write_text(file.read_text().replace(str(made), str(tmp_path / "cloud")))
    return file


@pytest.fixture
def cloud(in_files: Path, postgresql: PostgresqlServer) -> Path:
    """The same after its tables were moved to the server."""
    move({"folder": str(in_files.parent / "state"), "database": postgresql.url()})
    return in_files


@pytest.fixture
def reuna(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    before = {number: signal.getsignal(number) for number in ENDING}

    def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
            for name, value in {"REUNA_CLOUD_DATABASE": postgresql.url(), **more}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["reuna", *map(str, words)])
            main()
        done = subprocess.CompletedProcess("reuna", int(ended.value.code or 0), *capfd.readouterr())
        assert "Traceback" not in done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def add(reuna: Run, cloud: Path, tmp_path: Path, name: str = "anna") -> subprocess.CompletedProcess[str]:
    (tmp_path / "secret").write_text("seven green boats sail\n")
    return reuna(
        "people",
        "add",
        name,
        "--role",
        "engineer",
        "--settings",
        cloud,
        "--password-file",
        tmp_path / "secret",
    )


def test_what_a_command_writes_is_on_the_server_and_in_no_file(
    reuna: Run, cloud: Path, tmp_path: Path, postgresql: PostgresqlServer
) -> None:
    done = add(reuna, cloud, tmp_path)
    assert done.returncode == 0, done.stderr
    assert reuna("people", "list", "--settings", cloud).stdout.startswith("anna ")
    assert [row[0] for row in postgresql.sql("reuna", "SELECT name FROM reuna.people")] == ["anna"]
    assert not list((cloud.parent / "state").glob("*.sqlite"))


@pytest.mark.parametrize(
    ("url", "secret", "status", "said"),
    [
        ("postgresql://reuna@127.0.0.1:{port}/reuna", "wrong", 4, "password authentication failed"),
        ("postgresql://reuna@127.0.0.1:{port}/nix", PASSWORD, 2, 'database "nix" does not exist'),
        ("postgresql://reuna@127.0.0.1:1/reuna", PASSWORD, 4, "Connection refused"),
        ("postgresql://reuna:hunter2@127.0.0.1:{port}/reuna", PASSWORD, 2, "database holds a password"),
        ("postgresql://reuna@127.0.0.1:{port}/reuna?password=hunter2", PASSWORD, 2, "holds a password"),
        ("mysql://reuna@127.0.0.1/reuna", PASSWORD, 2, "names no database of PostgreSQL"),
        ("reuna:hunter2", PASSWORD, 2, "database is no URL"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_error_with_a_next_step(
    reuna: Run, cloud: Path, postgresql: PostgresqlServer, url: str, secret: str, status: int, said: str
) -> None:
    done = reuna("people", "list", "--settings", cloud, REUNA_CLOUD_DATABASE=url.format(port=postgresql.port), PGPASSWORD=secret)  # fmt: skip
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert "hunter2" not in done.stderr


def test_without_the_right_to_make_tables_it_says_what_to_grant(
    reuna: Run, in_files: Path, postgresql: PostgresqlServer
) -> None:
    postgresql.sql("postgres", "ALTER DATABASE reuna OWNER TO owner")
    done = reuna("storage", "move", in_files)
    assert (done.returncode, "GRANT CREATE" in done.stderr) == (5, True), done.stderr


def test_without_the_extra_the_error_says_how_to_install_it(
    cloud: Path, postgresql: PostgresqlServer
) -> None:
    script = (
        "import sys; sys.modules['alembic'] = None\n"
        "from reuna.adapters.postgresql import PostgresqlDatabase\n"
        "from reuna.core.errors import ExtraMissing\n"
        "try: PostgresqlDatabase(sys.argv[1], 'any')\n"
        "except ExtraMissing as error: print(error.next_step)"
    )
    done = subprocess.run([sys.executable, "-c", script, postgresql.url()], capture_output=True, text=True)
    assert done.stdout == "pip install 'reuna[postgresql]'\n", done.stderr


def test_upgrade_check_says_what_the_next_start_would_do_and_changes_nothing(
    reuna: Run, in_files: Path, postgresql: PostgresqlServer
) -> None:
    cloud = in_files
    before = json.loads(reuna("upgrade", "--check", cloud, "--json").stdout)
    (schema, *_) = before["found"]
    assert (before["ok"], schema["found"], schema["why"]) == (
        True,
        "none",
        "at the next start: 0001 register, accounts, events, heads",
    )
    assert postgresql.sql("reuna", "SELECT 1 FROM pg_namespace WHERE nspname = 'reuna'") == []
    move({"folder": str(cloud.parent / "state"), "database": postgresql.url()})
    (schema, *_) = json.loads(reuna("upgrade", "--check", cloud, "--json").stdout)["found"]
    assert (schema["found"], schema["known"], schema["why"]) == ("0001", "0001", "")
    postgresql.sql("reuna", "UPDATE reuna.schema_version SET version_num = '9999'")
    newer = reuna("upgrade", "--check", cloud, "--json")
    assert (newer.returncode, json.loads(newer.stdout)["ok"]) == (1, False)
    refused = reuna("people", "list", "--settings", cloud)
    assert (refused.returncode, "R116" in refused.stderr) == (2, True), refused.stderr


def test_of_many_that_start_at_once_one_makes_the_tables(postgresql: PostgresqlServer) -> None:
    def start(_: int) -> str:
        with closing(PostgresqlDatabase(postgresql.url(), "any")) as database:
            return database.versions().found

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(start, range(6))) == ["0001"] * 6


def test_a_step_that_fails_leaves_nothing_half_done(postgresql: PostgresqlServer) -> None:
    postgresql.sql("reuna", "CREATE SCHEMA reuna AUTHORIZATION reuna; CREATE TABLE reuna.heads (odd TEXT)")
    postgresql.sql("reuna", "ALTER TABLE reuna.heads OWNER TO reuna")
    with pytest.raises(ReunaError, match="already exists"):
        PostgresqlDatabase(postgresql.url(), "any")
    tables = postgresql.sql(
        "reuna", "SELECT table_name FROM information_schema.tables WHERE table_schema = 'reuna'"
    )
    assert tables == [("heads",)]


def test_a_database_of_a_newer_version_is_not_touched(postgresql: PostgresqlServer) -> None:
    PostgresqlDatabase(postgresql.url(), "any").close()
    postgresql.sql("reuna", "UPDATE reuna.schema_version SET version_num = '0042'")
    with pytest.raises(DatabaseTooNew, match="has schema 0042, this version of Reuna knows up to 0001"):
        PostgresqlDatabase(postgresql.url(), "any")


# --- backup and restore ----------------------------------------------------------------------------


def test_half_a_backup_is_refused_with_the_step_that_makes_it_whole(
    reuna: Run, cloud: Path, tmp_path: Path, postgresql: PostgresqlServer
) -> None:
    assert add(reuna, cloud, tmp_path).returncode == 0
    refused = reuna("backup", cloud, tmp_path / "b.reuna")
    assert (refused.returncode, (tmp_path / "b.reuna").exists()) == (5, False)
    assert f"pg_dump --format=custom --file=reuna.dump '{postgresql.url()}'" in refused.stderr
    (tmp_path / "odd").write_text("no dump")
    odd = reuna("backup", cloud, tmp_path / "b.reuna", "--dump", tmp_path / "odd")
    assert (odd.returncode, "no dump in the custom format" in odd.stderr) == (5, True)
    plain = reuna("backup", cloud, tmp_path / "b.reuna", "--dump", tmp_path / "odd", REUNA_CLOUD_DATABASE="")
    assert (plain.returncode, "there is no dump" in plain.stderr) == (5, True)


def test_a_backup_with_its_dump_brings_everything_back_and_waits_until_the_dump_is_loaded(
    reuna: Run, cloud: Path, tmp_path: Path, postgresql: PostgresqlServer
) -> None:
    assert add(reuna, cloud, tmp_path).returncode == 0
    dump, pg_dump, pg_restore = tmp_path / "reuna.dump", binary("pg_dump"), binary("pg_restore")
    assert pg_dump is not None
    assert pg_restore is not None
    subprocess.run([pg_dump, "--format=custom", f"--file={dump}", postgresql.url()], check=True, timeout=60)
    done = reuna("backup", cloud, tmp_path / "b.reuna", "--dump", dump)
    assert done.returncode == 0, done.stderr
    assert add(reuna, cloud, tmp_path, "later").returncode == 0
    postgresql.fresh()
    back = reuna("restore", tmp_path / "b.reuna", cloud, "--replace", "--json")
    notes = json.loads(back.stdout)["notes"]
    waiting = cloud.parent / "state" / "database.dump"
    assert any(f"--dbname DATABASE {waiting}" in note for note in notes)
    early = reuna("people", "list", "--settings", cloud)
    assert (early.returncode, "is not loaded yet" in early.stderr) == (5, True), early.stderr
    load = [pg_restore, "--clean", "--if-exists", "--no-owner", "--dbname", postgresql.url(), str(waiting)]
    subprocess.run(load, check=True, timeout=60)
    waiting.unlink()
    listed = reuna("people", "list", "--settings", cloud)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["anna"]


# --- from files to a server ------------------------------------------------------------------------


def filled(state: Path) -> None:
    with closing(Register(state / "register.sqlite")) as register:
        register.record(NODE)
    with closing(PeopleStore(state / "people.sqlite")) as people:
        people.add(Person("anna", frozenset({"viewer"}), "$hash"), ("https://issuer", "s-1"))
    with closing(EventLog(state / "events.sqlite")) as log:
        for seq in range(3):
            log.record(Event("edge-1", "b1", seq, 1.0, "trained", "r1", 1, {}))


def test_tables_move_to_the_server_all_at_once_and_work_goes_on_there(
    reuna: Run, in_files: Path, postgresql: PostgresqlServer
) -> None:
    cloud, state = in_files, in_files.parent / "state"
    filled(state)
    early = reuna("people", "list", "--settings", cloud)
    assert (early.returncode, "reuna storage move" in early.stderr) == (5, True), early.stderr
    done = reuna("storage", "move", cloud, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert (rows["nodes"], rows["people"], rows["identities"], rows["events"]) == (2, 1, 1, 3)
    settings = {"folder": str(state), "database": postgresql.url()}
    with closing(Register(tables_of(settings, "register.sqlite"))) as register:
        assert register.node("mill-3") == NODE
    with closing(EventLog(tables_of(settings, "events.sqlite"))) as log:
        assert log.record(Event("edge-1", "b1", 9, 1.0, "trained", "r1", 1, {})), (
            "numbers go on after the last"
        )
        assert [event.seq for event in log.read("r1")] == [0, 1, 2, 9]
    assert sorted(
        path.name for path in state.glob("*.sqlite*") if not path.name.endswith(("-wal", "-shm"))
    ) == [
        "events.sqlite.moved",
        "people.sqlite.moved",
        "register.sqlite.moved",
    ]
    with pytest.raises(NotUsable, match="were moved to a server"):
        tables_of({"folder": str(state)}, "register.sqlite")
    again = reuna("storage", "move", cloud)
    assert (again.returncode, "there are no tables" in again.stderr) == (5, True)


def test_tables_are_not_mixed_with_those_of_another_cloud(
    reuna: Run, in_files: Path, postgresql: PostgresqlServer
) -> None:
    with closing(Register(PostgresqlDatabase(postgresql.url(), "register"))) as other:
        other.record(NODE)
    filled(in_files.parent / "state")
    done = reuna("storage", "move", in_files)
    assert (done.returncode, "has rows in nodes already" in done.stderr) == (5, True), done.stderr
    assert postgresql.sql("reuna", "SELECT count(*) FROM reuna.people") == [(0,)], "nothing of it was done"
    assert (in_files.parent / "state" / "register.sqlite").exists()


def test_a_wrong_password_is_no_reason_to_show_one(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    with pytest.raises(PermissionDenied) as refused:
        PostgresqlDatabase(postgresql.url(), "any")
    with pytest.raises(SettingsError) as wrong:
        PostgresqlDatabase(postgresql.url().replace("@", ":hunter2@"), "any")
    for error in (refused.value, wrong.value):
        assert "hunter2" not in f"{error!r} {error.next_step} {error.__cause__!r}"
