"""A place's backup and its return: what is in it, what is not, and what is refused."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.archive import open_archive
from reuna.adapters.audit import AuditTrail
from reuna.adapters.files import FileBlobs, replace_file
from reuna.adapters.fingerprint import DATA_KEY, node_key
from reuna.adapters.head_store import HeadStore
from reuna.adapters.ledger_file import LedgerFile, segments
from reuna.adapters.people import PeopleStore
from reuna.adapters.register import Register
from reuna.adapters.spool import DiskSpool
from reuna.adapters.toml_file import read_toml
from reuna.adapters.trust_keys import new_key, write_key
from reuna.cli import main
from reuna.core.backup import Marks
from reuna.fleet import backup as backups
from reuna.fleet import ledger as ledgers
from reuna.fleet.admit import make_cloud
from reuna.fleet.ending import ENDING
from reuna.fleet.layout import write_toml
from reuna.fleet.marks import marks_of
from reuna.trust.heads import Signer
from reuna.wire import OLDEST
from tests.unit.adapters.test_ledger_file import Hands
from tests.unit.trust.books import NODE, intent

Run = Callable[..., tuple[int, str, str]]
HOST = "127.0.0.1"


@pytest.fixture
def reuna(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command: its status, standard output and error."""
    before = {number: signal.getsignal(number) for number in ENDING}

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reuna", *(str(each) for each in arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return int(ended.value.code or 0), out, err

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def told(found: tuple[int, str, str]) -> dict:
    assert found[0] == 0, found[2]
    return json.loads(found[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cloud that has worked, stopped."""
    folder = tmp_path_factory.mktemp("made") / "cloud"
    make_cloud(folder, "line", HOST)
    state = folder / "state"
    for store in (Register(state / "register.sqlite"), PeopleStore(state / "people.sqlite")):
        store.close()
    HeadStore(state / "heads.sqlite").close()
    DiskSpool(state / "spool").close()
    blobs = FileBlobs(state / "blobs")
    blobs.put(b"a small model")
    blobs.put(b"\1" * 700_000)
    blobs.new(10).write(b"half a model")
    (state / "nats").mkdir()
    (state / "nats" / "nats.log").write_text("much")
    return folder


@pytest.fixture
def cloud(made: Path, tmp_path: Path) -> Path:
    """Its settings file, in a folder of the test's own."""
    folder = tmp_path / "cloud"
    shutil.copytree(made, folder)
    file = folder / "cloud.toml"
    file.write_text(file.read_text().replace(str(made), str(folder)))
    return file


def edge_at(folder: Path, records: int = 3) -> Path:
    """An edge that kept a ledger; its settings file."""
    state = folder / "state"
    (state / "work").mkdir(parents=True)
    write_key(state / "ledger.key", new_key(), None)
    grow(state / "ledger", records)
    for name in ("edge.pem", "root.crt"):
        (folder / name).write_text(f"certificate {name}")
    (folder / "data").mkdir()
    (folder / "data" / "rows.csv").write_text("secret,rows\n")
    write_key(folder / "edge.key", new_key(), None)
    values = {
        "fleet": "line", "name": "press-1", "folder": str(state), "data": str(folder / "data"),
        "policy": str(folder / "policy.toml"), "root": str(folder / "root.json"),
        "parent": {
            "name": "mill", "nats": f"tls://{HOST}:4222", "freight_host": HOST, "freight_port": 8443,
        },
        "tls": {
            "certificate": str(folder / "edge.pem"), "key": str(folder / "edge.key"),
            "authority": str(folder / "root.crt"),
        },
    }  # fmt: skip
    return write_toml(folder / "edge.toml", values)


def grow(folder: Path, records: int) -> None:
    with closing(LedgerFile(folder, Signer("mill", "press-1", NODE), Hands())) as ledger:
        for number in range(records):
            ledger.append(intent(number))


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of every file."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode & 0o777, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix not in {".sqlite", ".db"}
        and not path.name.endswith(("-wal", "-shm"))
    }


def test_a_whole_place_comes_back_in_another_folder_with_settings_that_name_it(
    cloud: Path, tmp_path: Path, reuna: Run
) -> None:
    done = told(reuna("backup", cloud, tmp_path / "b", "--keys", "--json"))
    assert done["keys"] is True
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert [left["path"] for left in done["left_out"]] == ["state/nats"]
    back = told(reuna("restore", tmp_path / "b", tmp_path / "new", "--json"))
    assert (back["missing_keys"], back["kept"], back["skipped"], back["behind"]) == ([], [], [], [])
    new, old = tree(tmp_path / "new" / "state"), tree(cloud.parent / "state")
    for files in (new, old):
        assert files.pop("audit.jsonl")[0] == 0o600, "which has one line more than it had"
    assert new == {
        name: found for name, found in old.items() if not name.startswith("nats/") and ".part" not in name
    }
    assert tree(cloud.parent / "ca") == tree(tmp_path / "new" / "authority")
    values = read_toml(tmp_path / "new" / "cloud.toml").values
    assert values["folder"] == str(tmp_path / "new" / "state")
    assert values["trust"] == str(tmp_path / "new" / "trust")
    assert values["tls"]["key"] == str(tmp_path / "new" / "authority" / "cloud-cloud.pem")
    status, _, _ = reuna("upgrade", "--check", tmp_path / "new" / "cloud.toml")
    assert status == 0
    assert (tmp_path / "new" / "state").stat().st_mode == (cloud.parent / "state").stat().st_mode


def test_private_keys_stay_out_and_are_named_and_so_does_the_sites_data(tmp_path: Path, reuna: Run) -> None:
    edge = edge_at(tmp_path / "edge")
    status, said, _ = reuna("backup", edge, tmp_path / "b")
    assert status == 0
    assert "state/ledger.key" in said
    assert "named/edge.key" in said
    data = (tmp_path / "b").read_bytes()
    assert b"PRIVATE KEY" not in data
    assert b"secret,rows" not in data
    assert b"certificate edge.pem" in data
    back = told(reuna("restore", tmp_path / "b", tmp_path / "new", "--json"))
    assert [Path(path).name for path in back["missing_keys"]] == ["ledger.key", "edge.key"]
    assert any("Before the place starts bring" in note for note in back["notes"])
    status, said, _ = reuna("backup", edge, tmp_path / "with", "--keys")
    assert "private keys" in said
    assert (tmp_path / "with").read_bytes().count(b"BEGIN PRIVATE KEY") == 2


def test_a_key_is_known_by_its_option_when_not_by_its_form(tmp_path: Path, reuna: Run) -> None:
    edge = edge_at(tmp_path / "edge")
    (tmp_path / "edge" / "edge.key").write_bytes(b"a key in some other form")
    told(reuna("backup", edge, tmp_path / "b", "--json"))
    assert b"some other form" not in (tmp_path / "b").read_bytes()


def test_the_key_of_fingerprints_goes_with_the_keys_though_it_is_no_pem(tmp_path: Path, reuna: Run) -> None:
    edge = edge_at(tmp_path / "edge")
    key = node_key(tmp_path / "edge" / "state" / DATA_KEY)
    told(reuna("backup", edge, tmp_path / "b", "--json"))
    assert key not in (tmp_path / "b").read_bytes()
    told(reuna("backup", edge, tmp_path / "with", "--keys", "--json"))
    assert key in (tmp_path / "with").read_bytes()


def test_the_ledger_ends_at_a_record_and_the_trail_at_a_line(cloud: Path, tmp_path: Path, reuna: Run) -> None:
    edge = edge_at(tmp_path / "edge")
    newest = segments(tmp_path / "edge" / "state" / "ledger")[-1]
    whole = newest.read_bytes()
    newest.write_bytes(whole + whole[:30])
    told(reuna("backup", edge, tmp_path / "b", "--json"))
    told(reuna("restore", tmp_path / "b", tmp_path / "new", "--json"))
    assert segments(tmp_path / "new" / "state" / "ledger")[-1].read_bytes() == whole
    assert ledgers.judge(tmp_path / "new" / "state" / "ledger", None, None).good
    trail = AuditTrail(cloud.parent / "state" / "audit.jsonl")
    for number in range(3):
        trail.append(float(number), "anna", "machine", "x" * 40_000, "allowed")
    told(reuna("backup", cloud, tmp_path / "c", "--json"))
    told(reuna("restore", tmp_path / "c", tmp_path / "d", "--json"))
    lines = list(AuditTrail(tmp_path / "d" / "state" / "audit.jsonl").read())
    assert [line["what"][:1] for line in lines[-5:-2]] == ["x"] * 3
    assert [line["what"] for line in lines[-2:]] == ["place.backup", "place.restore"]
    whole = trail.path.read_bytes()
    for half in (b'{"number": 9, "half', b"z" * 300_000):
        trail.path.write_bytes(whole + half)
        assert backups.whole_lines(trail.path) == len(whole)
    trail.path.write_bytes(b"no line at all")
    assert backups.whole_lines(trail.path) == 0


def test_a_damaged_ledger_is_copied_as_it_is_for_it_is_evidence(tmp_path: Path, reuna: Run) -> None:
    edge = edge_at(tmp_path / "edge")
    newest = segments(tmp_path / "edge" / "state" / "ledger")[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    told(reuna("backup", edge, tmp_path / "b", "--json"))
    told(reuna("restore", tmp_path / "b", tmp_path / "new", "--json"))
    assert segments(tmp_path / "new" / "state" / "ledger")[-1].read_bytes() == data


def test_a_store_that_is_open_and_written_is_in_it_with_all_that_was_committed(
    cloud: Path, tmp_path: Path, reuna: Run
) -> None:
    with closing(Register(cloud.parent / "state" / "register.sqlite")) as register:
        register.revoke("press-9", 1.0, "stolen")
        told(reuna("backup", cloud, tmp_path / "b", "--json"))
        register.revoke("press-8", 1.0, "stolen")
    told(reuna("restore", tmp_path / "b", tmp_path / "new", "--json"))
    with closing(Register(tmp_path / "new" / "state" / "register.sqlite")) as register:
        assert [node.name for node in register.nodes()] == ["operator", "press-9"]


def test_what_cannot_be_copied_is_one_error_and_no_file(cloud: Path, tmp_path: Path, reuna: Run) -> None:
    state = cloud.parent / "state"
    status, _, said = reuna("backup", cloud, state / "b")
    assert (status, "is to be backed up" in said) == (5, True)
    (state / "link").symlink_to("/etc")
    status, _, said = reuna("backup", cloud, tmp_path / "b")
    assert (status, "link is a link" in said) == (5, True)
    (state / "link").unlink()
    (state / "people.sqlite").write_bytes(b"SQLite format 3\0" + b"\xa5" * 5000)
    status, _, said = reuna("backup", cloud, tmp_path / "b")
    assert (status, "people.sqlite" in said) == (5, True)
    status, _, said = reuna("backup", tmp_path / "none.toml", tmp_path / "b")
    assert (status, "no file" in said) == (2, True)
    assert not (tmp_path / "b").exists()


def test_a_socket_is_left_out_and_named(tmp_path: Path, reuna: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = edge_at(tmp_path / "edge")
    monkeypatch.chdir(tmp_path / "edge" / "state")
    with socket.socket(socket.AF_UNIX) as line:
        line.bind("line")
        done = told(reuna("backup", edge, tmp_path / "b", "--json"))
    assert "state/line" in [left["path"] for left in done["left_out"]]


def test_a_backup_that_was_damaged_changes_nothing(cloud: Path, tmp_path: Path, reuna: Run) -> None:
    told(reuna("backup", cloud, tmp_path / "b", "--json"))
    data = bytearray((tmp_path / "b").read_bytes())
    data[data.index(b"\1" * 1000) + 500] ^= 1
    (tmp_path / "b").write_bytes(data)
    (cloud.parent / "ca" / "authority.crt").unlink()  # which would be written before the damage is met
    before = tree(cloud.parent)
    for target in (cloud, tmp_path / "new"):
        status, _, said = reuna("restore", tmp_path / "b", target, "--replace")
        assert (status, "not as it was written" in said) == (5, True)
    assert tree(cloud.parent) == before
    assert not (tmp_path / "new").exists()
    assert reuna("restore", tmp_path / "b", "--check")[0] == 5


def test_the_digest_tells_one_backup_from_another(cloud: Path, tmp_path: Path, reuna: Run) -> None:
    done = told(reuna("backup", cloud, tmp_path / "b", "--json"))
    checked = told(reuna("restore", tmp_path / "b", "--check", "--digest", done["digest"].upper(), "--json"))
    assert checked["digest"] == done["digest"]
    status, _, said = reuna("restore", tmp_path / "b", tmp_path / "new", "--digest", "0" * 64)
    assert (status, "another backup" in said) == (5, True)
    assert reuna("restore", tmp_path / "b")[0] == 2


def test_a_state_that_is_not_empty_is_only_moved_aside_and_keys_come_along(
    tmp_path: Path, reuna: Run
) -> None:
    edge = edge_at(tmp_path / "edge")
    state = tmp_path / "edge" / "state"
    told(reuna("backup", edge, tmp_path / "b", "--json"))
    key = (state / "ledger.key").read_bytes()
    (state / "more").write_text("written later")
    status, _, said = reuna("restore", tmp_path / "b", edge)
    assert (status, "is not empty" in said) == (5, True)
    back = told(reuna("restore", tmp_path / "b", edge, "--replace", "--json"))
    assert (back["carried"], back["missing_keys"]) == (["ledger.key"], [])
    assert (Path(back["aside"]) / "more").read_text() == "written later"
    assert (state / "ledger.key").read_bytes() == key
    assert not (state / "more").exists()
    grow(state / "ledger", 1)


def test_a_running_place_is_not_restored(tmp_path: Path, reuna: Run) -> None:
    edge = edge_at(tmp_path / "edge")
    told(reuna("backup", edge, tmp_path / "b", "--json"))
    with (tmp_path / "edge" / "state" / "ledger" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, said = reuna("restore", tmp_path / "b", edge, "--replace")
    assert (status, "is running" in said) == (5, True)


def test_a_newer_ledger_that_goes_on_from_the_backups_is_kept(tmp_path: Path, reuna: Run) -> None:
    edge = edge_at(tmp_path / "edge")
    state = tmp_path / "edge" / "state"
    told(reuna("backup", edge, tmp_path / "b", "--json"))
    grow(state / "ledger", 5)
    records = marks_of(state).records
    back = told(reuna("restore", tmp_path / "b", edge, "--replace", "--json"))
    assert "ledger" in back["carried"]
    assert (back["marks"]["records"], back["behind"]) == (records, [])
    assert not any("rewritten" in note for note in back["notes"])


@pytest.mark.parametrize("what", ["another", "damaged"])
def test_a_ledger_that_is_another_or_damaged_is_not_kept_and_that_is_said(
    tmp_path: Path, reuna: Run, what: str
) -> None:
    edge = edge_at(tmp_path / "edge")
    state = tmp_path / "edge" / "state"
    told(reuna("backup", edge, tmp_path / "b", "--json"))
    before = marks_of(state)
    if what == "another":
        shutil.rmtree(state / "ledger")
        grow(state / "ledger", 9)
    else:
        grow(state / "ledger", 5)
        newest = segments(state / "ledger")[-1]
        data = bytearray(newest.read_bytes())
        data[-20] ^= 1
        newest.write_bytes(data)
    back = told(reuna("restore", tmp_path / "b", edge, "--replace", "--json"))
    assert "ledger" not in back["carried"]
    assert back["marks"]["records"] == before.records
    assert back["behind"]
    assert any("reuna ledger release press-1" in note for note in back["notes"])


def test_what_lies_outside_the_state_folder_is_never_written_over(
    cloud: Path, tmp_path: Path, reuna: Run
) -> None:
    told(reuna("backup", cloud, tmp_path / "b", "--json"))
    certificate = cloud.parent / "ca" / "authority.crt"
    certificate.write_text("renewed since")
    (cloud.parent / "trust" / "root.json").unlink()
    back = told(reuna("restore", tmp_path / "b", cloud, "--replace", "--json"))
    assert back["kept"] == [str(certificate)]
    assert certificate.read_text() == "renewed since"
    assert (cloud.parent / "trust" / "root.json").is_file()


def test_a_lost_settings_file_comes_back_too(cloud: Path, tmp_path: Path, reuna: Run) -> None:
    told(reuna("backup", cloud, tmp_path / "b", "--json"))
    text = cloud.read_text()
    shutil.rmtree(cloud.parent)
    back = told(reuna("restore", tmp_path / "b", cloud, "--json"))
    assert cloud.read_text() == text
    names = {Path(path).name for path in back["missing_keys"]}
    assert names == {
        "authority.key",
        "cloud-cloud.pem",
        "online-1.key",
        "operator-operator.pem",
        "plans-1.key",
    }
    assert any("rotate online" in note for note in back["notes"])
    assert (cloud.parent / "trust" / "public" / "timestamp.json").is_file()


def test_settings_of_another_place_are_refused(cloud: Path, tmp_path: Path, reuna: Run) -> None:
    edge = edge_at(tmp_path / "edge")
    told(reuna("backup", cloud, tmp_path / "b", "--json"))
    status, _, said = reuna("restore", tmp_path / "b", edge, "--replace")
    assert (status, "of a cloud" in said) == (5, True)
    cloud.write_text(cloud.read_text().replace('fleet = "line"', 'fleet = "other"'))
    status, _, said = reuna("restore", tmp_path / "b", cloud, "--replace")
    assert (status, "of fleet line" in said) == (5, True)


def test_a_restore_that_fails_at_its_last_step_leaves_what_was_there(
    tmp_path: Path, reuna: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = edge_at(tmp_path / "edge")
    told(reuna("backup", edge, tmp_path / "b", "--json"))
    before, rename = tree(tmp_path / "edge"), Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name.startswith(".state.restoring-"):
            raise OSError(28, "no space")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    status, _, said = reuna("restore", tmp_path / "b", edge, "--replace")
    assert (status, "no space" in said) == (5, True)
    assert tree(tmp_path / "edge") == before
    assert {path.name for path in (tmp_path / "edge").iterdir()} >= {"state", "data"}
    assert not list((tmp_path / "edge").glob(".state*"))


def test_the_superusers_restore_gives_files_to_whom_they_belonged(tmp_path: Path, reuna: Run) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the superuser can give a file away")
    edge = edge_at(tmp_path / "edge")
    state = tmp_path / "edge" / "state"
    for path in (state, *state.rglob("*")):
        os.chown(path, 1, 1)
    told(reuna("backup", edge, tmp_path / "b", "--json"))
    told(reuna("restore", tmp_path / "b", edge, "--replace", "--json"))
    assert {path.stat().st_uid for path in (state, *state.rglob("*"))} == {1}


# --- upgrade ---------------------------------------------------------------------------------------


def findings(found: tuple[int, str, str]) -> dict[str, dict]:
    return {each["what"]: each for each in json.loads(found[1])["found"]}


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_an_installation_of_this_version_can_go_on(cloud: Path, tmp_path: Path, reuna: Run) -> None:
    found = reuna("upgrade", "--check", cloud, "--json")
    assert found[0] == 0
    assert len(findings(found)) == 4
    edge = edge_at(tmp_path / "edge")
    assert findings(reuna("upgrade", "--check", edge, "--json"))["format of the ledger"]["found"] == "1"
    assert reuna("upgrade", cloud)[0] == 2


@pytest.mark.parametrize(
    ("statement", "ok", "why"),
    [
        ("CREATE TABLE later (x)", False, "a newer one wrote it"),
        ("ALTER TABLE alarms ADD COLUMN later TEXT", False, "other columns"),
        ("DROP TABLE spoken", True, "added at the next start"),
    ],
)
def test_a_schema_that_this_version_does_not_know_is_named(
    cloud: Path, reuna: Run, statement: str, ok: bool, why: str
) -> None:
    change(cloud.parent / "state" / "register.sqlite", statement)
    found = reuna("upgrade", "--check", cloud, "--json")
    assert found[0] == (0 if ok else 1)
    assert why in findings(found)["schema of register.sqlite"]["why"]


def test_a_node_that_speaks_another_protocol_is_named_unless_it_was_revoked(cloud: Path, reuna: Run) -> None:
    with closing(Register(cloud.parent / "state" / "register.sqlite")) as register:
        before = ("0.0.1", OLDEST - 1)
        register.spoken({"mill": ("0.1.0", OLDEST), "old": before, "gone": before})
        register.revoke("gone", 1.0, "scrapped")
        assert register.last_spoken()["old"] == before
    found = reuna("upgrade", "--check", cloud, "--json")
    assert found[0] == 1
    seen = findings(found)
    assert seen["wire version of mill"]["ok"]
    assert not seen["wire version of old"]["ok"]
    assert "wire version of gone" not in seen
    assert "NO" in reuna("upgrade", "--check", cloud)[1]


def test_a_journal_from_another_version_and_a_run_that_it_began_are_named(cloud: Path, reuna: Run) -> None:
    file = cloud.parent / "state" / "journal" / "journal.sqlite"
    file.parent.mkdir()
    change(
        file,
        "CREATE TABLE dbos_migrations (version INTEGER)",
        "INSERT INTO dbos_migrations VALUES (99999)",
        "CREATE TABLE workflow_status (workflow_uuid TEXT, status TEXT, application_version TEXT)",
        "CREATE TABLE operation_outputs (workflow_uuid TEXT, function_id INTEGER, function_name TEXT)",
        "INSERT INTO workflow_status VALUES ('r-1', 'PENDING', 'reuna-protocol-0'), ('r-2', 'SUCCESS', '')",
        "INSERT INTO operation_outputs VALUES ('r-1', 1, 'round 1'), ('r-1', 2, 'local')",
    )
    assert marks_of(cloud.parent / "state").runs == {"r-1": 1}
    found = findings(reuna("upgrade", "--check", cloud, "--json"))
    assert not found["schema of the journal"]["ok"]
    assert not found["journal of r-1"]["ok"]
    assert "journal of r-2" not in found


@pytest.mark.parametrize("name", ["policy", "trust"])
def test_a_file_that_cannot_be_read_is_a_finding_and_no_trace(tmp_path: Path, reuna: Run, name: str) -> None:
    edge = edge_at(tmp_path / "edge")
    folder = tmp_path / "edge" / "state" / name
    folder.mkdir()
    (folder / {"policy": "policy", "trust": "state"}[name]).write_bytes(b"\xff" * 50)
    found = reuna("upgrade", "--check", edge, "--json")
    assert found[0] == 1
    assert any(each["found"] == "cannot be read" for each in findings(found).values())
    assert marks_of(tmp_path / "edge" / "state").metadata == {}


def test_no_state_has_no_marks(tmp_path: Path) -> None:
    assert marks_of(tmp_path / "none", tmp_path / "none") == Marks()


# --- while the place works -------------------------------------------------------------------------


def test_a_model_that_the_place_drops_meanwhile_is_copied_whole(
    cloud: Path, tmp_path: Path, reuna: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, held = cloud.parent / "state" / "blobs", backups.hold
    large = next(path for path in blobs.iterdir() if path.stat().st_size == 700_000)

    def then_dropped(*given: Any) -> Any:
        holding = held(*given)
        large.unlink()
        return holding

    monkeypatch.setattr(backups, "hold", then_dropped)
    told(reuna("backup", cloud, tmp_path / "b", "--json"))
    told(reuna("restore", tmp_path / "b", tmp_path / "new", "--json"))
    assert (tmp_path / "new" / "state" / "blobs" / large.name).read_bytes() == b"\1" * 700_000


@pytest.mark.parametrize("size", [13, 700_000])
def test_a_file_that_goes_before_it_is_held_is_not_missed(
    cloud: Path, tmp_path: Path, reuna: Run, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    blobs, newest = cloud.parent / "state" / "blobs", backups._newest
    gone = next(path for path in blobs.iterdir() if path.stat().st_size == size)

    def after_it_went(paths: list[Path]) -> set[Path]:
        gone.unlink(missing_ok=True)
        return newest(paths)

    monkeypatch.setattr(backups, "_newest", after_it_went)
    told(reuna("backup", cloud, tmp_path / "b", "--json"))
    assert f"state/blobs/{gone.name}" not in {
        each.path for each in open_archive(tmp_path / "b").manifest.files
    }


def test_a_trust_store_that_changes_while_it_is_read_is_read_again(
    cloud: Path, tmp_path: Path, reuna: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, once, tries = cloud.parent / "trust" / "public", backups._hold, []

    def then_published(*given: Any) -> Any:
        holding = once(*given)
        tries.append(1)
        if len(tries) == 1 or endless:
            replace_file(public / "timestamp.json", b"newer %d" % len(tries))
            replace_file(public / "9.snapshot.json", b"newer")
        return holding

    endless = False
    monkeypatch.setattr(backups, "_hold", then_published)
    told(reuna("backup", cloud, tmp_path / "b", "--json"))
    told(reuna("restore", tmp_path / "b", tmp_path / "new", "--json"))
    assert (tmp_path / "new" / "trust" / "public" / "timestamp.json").read_bytes() == b"newer 1"
    assert (tmp_path / "new" / "trust" / "public" / "9.snapshot.json").is_file()
    assert len(tries) == 2
    endless = True
    status, _, said = reuna("backup", cloud, tmp_path / "c")
    assert (status, "changes faster" in said) == (5, True)


def test_a_file_that_becomes_shorter_is_no_silent_loss(
    cloud: Path, tmp_path: Path, reuna: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, held = cloud.parent / "state" / "blobs", backups.hold

    def then_cut(*given: Any) -> Any:
        holding = held(*given)
        os.truncate(next(path for path in blobs.iterdir() if path.stat().st_size == 700_000), 10)
        return holding

    monkeypatch.setattr(backups, "hold", then_cut)
    status, _, said = reuna("backup", cloud, tmp_path / "b")
    assert (status, "became shorter" in said) == (5, True)
    assert not (tmp_path / "b").exists()


def test_a_backup_of_a_cloud_with_a_bucket_says_that_its_models_are_not_in_it(
    cloud: Path, reuna: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REUNA_CLOUD_STORE", "s3://models/line")
    said = told(reuna("backup", cloud, tmp_path / "b.reuna", "--json"))
    assert "models and bundles are in s3://models/line; let the bucket keep versions" in [
        each["why"] for each in said["left_out"]
    ]
    back = told(reuna("restore", tmp_path / "b.reuna", cloud, "--replace", "--json"))
    assert any(note.startswith("Models are not in the backup") for note in back["notes"])
