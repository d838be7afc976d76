"""`reuna doctor`: each thing that can be wrong with sources and sinks is found, and told with what to do."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyModbusTCP.server import ModbusServer
from typer.testing import CliRunner

from reuna.adapters.certificates import CertificateAuthority
from reuna.cli import app
from tests.servers.mosquitto import Mosquitto


def doctor(folder: Path, text: str, *words: str, seconds: str = "0.6") -> tuple[int, dict[str, dict]]:
    """Exit status and findings by check."""
    path = folder / "sources.toml"
    path.write_text(text)
    done = CliRunner().invoke(app, ["doctor", str(path), "--seconds", seconds, "--json", *words])
    assert done.exit_code in {0, 1}, done.exception
    found = json.loads(done.stdout)
    assert bool(found["wrong"]) is (done.exit_code == 1)
    assert all(each["next_step"] for each in found["findings"] if each["level"] != "fine")
    return done.exit_code, {each["check"]: each for each in found["findings"]}


def modbus(port: int, host: str = "127.0.0.1", tags: str = "oil = { address = 3 }") -> str:
    return f'[sources.press]\nkind = "modbus"\nhost = "{host}"\nport = {port}\nevery_s = 0.1\n[sources.press.tags]\n{tags}\n'


@pytest.fixture
def closed() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def device(closed: int):
    made = ModbusServer("127.0.0.1", closed, no_block=True)
    made.start()
    yield closed
    made.stop()


def test_a_device_that_is_well_ends_with_0(tmp_path: Path, device: int) -> None:
    status, found = doctor(tmp_path, modbus(device) + f'[store]\nfolder = "{tmp_path}/store"\nmib = 16\n')
    assert status == 0
    assert {check: each["level"] for check, each in found.items()} == dict.fromkeys(
        ("name", "port", "readings", "clock", "store"), "fine"
    )


def test_a_name_that_nobody_knows_is_wrong(tmp_path: Path) -> None:
    status, found = doctor(tmp_path, modbus(1, "no such name"))
    assert status == 1
    assert list(found) == ["name"]


def test_a_port_that_does_not_open_is_wrong(tmp_path: Path, closed: int) -> None:
    status, found = doctor(tmp_path, modbus(closed))
    assert (status, found["port"]["level"]) == (1, "wrong")
    assert "readings" not in found


def test_an_opc_ua_server_that_is_away_is_wrong(tmp_path: Path, closed: int) -> None:
    text = f'[sources.s]\nkind = "opcua"\nsecurity = "none"\nurl = "opc.tcp://127.0.0.1:{closed}"\n[sources.s.tags]\n'
    status, found = doctor(tmp_path, text + 'oil = { node = "ns=2;i=1" }\n')
    assert (status, found["port"]["level"]) == (1, "wrong")


def test_a_tag_that_is_missing_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("time,oil\n5,6\n")
    files = f'[sources.s]\nkind = "files"\nfolder = "{tmp_path}/in"\ntime = "time"\n[sources.s.tags]\noil = {{}}\nheat = {{}}\n'
    status, found = doctor(tmp_path, files)
    assert status == 1
    assert found["readings"]["what"] == "no reading of heat"
    assert found["clock"]["level"] == "wrong"  # of 1970
    assert found["gap"]["what"] == "a.csv: no column 'heat'"


def test_a_rate_below_what_is_declared_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    now = datetime.fromtimestamp(time.time(), UTC).isoformat()
    (tmp_path / "in" / "a.csv").write_text(f"time,oil\n{now},6\n")
    files = f'[sources.s]\nkind = "files"\nfolder = "{tmp_path}/in"\ntime = "time"\nevery_s = 0.05\n[sources.s.tags]\noil = {{}}\n'
    assert doctor(tmp_path, files)[0] == 0
    status, found = doctor(tmp_path, files, "--every", "0.05")
    assert (status, found["rate"]["level"]) == (1, "wrong")


def test_a_source_that_cannot_begin_is_wrong_and_says_why(tmp_path: Path) -> None:
    text = (
        f'[sources.s]\nkind = "files"\nfolder = "{tmp_path}/gone"\ntime = "t"\n[sources.s.tags]\noil = {{}}\n'
    )
    status, found = doctor(tmp_path, text)
    assert (status, found["source"]["next_step"]) == (1, "Correct `folder` in its settings.")


def mqtt(port: int, more: str) -> str:
    return f'[sources.line]\nkind = "mqtt"\nhost = "127.0.0.1"\nport = {port}\n{more}\n[sources.line.tags]\noil = {{ topic = "oil" }}\n'


def test_certificates_are_looked_at(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "authority", "plant")
    other = CertificateAuthority.create(tmp_path / "other", "plant")
    server = authority.issue("gateway", "broker", ["127.0.0.1"], timedelta(days=20))
    mine = authority.issue("edge", "reader", lifetime=timedelta(days=90))
    files = [f"cafile {server.authority}", f"certfile {server.certificate}", f"keyfile {server.key}"]
    broker = Mosquitto(tmp_path, [*files, "allow_anonymous true"])
    broker.start()
    try:
        ours = f'certificate = "{mine.certificate}"\nkey = "{mine.key}"\n'
        _, found = doctor(tmp_path, mqtt(broker.port, f'authority = "{mine.authority}"\n{ours}'))
        assert (found["certificate"]["level"], found["certificate"]["what"][:17]) == (
            "doubtful",
            "that of 127.0.0.1",
        )
        status, found = doctor(tmp_path, mqtt(broker.port, f'authority = "{other.certificate}"'))
        assert (status, found["certificate"]["level"]) == (1, "wrong")
        assert "is not accepted" in found["certificate"]["what"]
        status, found = doctor(tmp_path, mqtt(broker.port, f'authority = "{tmp_path}/gone"'))
        assert (status, found["certificate"]["what"]) == (
            1,
            f"no TLS: {tmp_path}/gone: No such file or directory",
        )
    finally:
        broker.stop()


def test_a_password_that_anyone_can_read_is_doubtful(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    broker.start()
    try:
        (tmp_path / "password").write_text("secret\n")
        broker.publish("oil", "5", retain=True)
        status, found = doctor(
            tmp_path, mqtt(broker.port, f'user = "a"\npassword_file = "{tmp_path}/password"')
        )
        assert (status, found["password"]["level"]) == (0, "doubtful")
    finally:
        broker.stop()


def test_for_people_each_finding_has_its_next_step_below_it(tmp_path: Path, closed: int) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(modbus(closed))
    done = CliRunner().invoke(app, ["doctor", str(path), "--seconds", "0.5"])
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["fine", "name", "press:"]
    assert lines[1].split()[:3] == ["wrong", "port", "press:"]
    assert lines[2].split()[0] == "next:"
    assert lines[-1] == "1 wrong"


def sinks(folder: Path, text: str, *words: str) -> tuple[int, dict[str, dict]]:
    """`doctor`, of a file of sinks."""
    return doctor(folder, text, *words)


def test_a_folder_that_may_be_written_is_fine_and_made_by_nobody(tmp_path: Path) -> None:
    status, found = sinks(
        tmp_path, f'[sinks.a]\nkind = "file"\nfolder = "{tmp_path}/new/answers"\nmib = 2\nfile_mib = 1\n'
    )
    assert (status, found["folder"]["level"]) == (0, "fine")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_a_file_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    status, found = sinks(tmp_path, f'[sinks.a]\nkind = "file"\nfolder = "{tmp_path}/taken/x"\n')
    assert (status, found["folder"]["level"]) == (1, "wrong")


def test_a_disk_too_small_for_a_sinks_files_is_doubtful(tmp_path: Path) -> None:
    most = 1 << 24
    _, found = sinks(tmp_path, f'[sinks.a]\nkind = "file"\nfolder = "{tmp_path}"\nmib = {most}\n')
    assert found["folder"]["level"] == "doubtful"


def test_a_webhooks_port_and_token_are_looked_at_and_nothing_is_sent(tmp_path: Path, device: int) -> None:
    token = tmp_path / "token"
    text = f'[sinks.a]\nkind = "webhook"\nurl = "http://127.0.0.1:{device}/x"\ntoken_file = "{token}"\n'
    assert sinks(tmp_path, text)[1]["token"]["level"] == "wrong"
    token.write_text("\n")
    assert "no token" in sinks(tmp_path, text)[1]["token"]["what"]
    token.write_text("secret\n")
    token.chmod(0o644)
    assert sinks(tmp_path, text)[1]["token"]["level"] == "doubtful"
    token.chmod(0o640)
    status, found = sinks(tmp_path, text)
    assert (status, {each["level"] for each in found.values()}) == (0, {"fine"})
    assert "secret" not in str(found)


def test_a_webhook_where_nobody_listens_is_wrong(tmp_path: Path, closed: int) -> None:
    status, found = sinks(tmp_path, f'[sinks.a]\nkind = "webhook"\nurl = "http://127.0.0.1:{closed}/x"\n')
    assert (status, found["port"]["level"]) == (1, "wrong")


def test_a_broker_that_does_not_let_us_write_is_found_when_we_may_send(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite plant/ours\ntopic readwrite spBv1.0/g/NDATA/ours\n")
    broker = Mosquitto(tmp_path, ["allow_anonymous true", f"acl_file {tmp_path / 'acl'}"])
    broker.start()
    try:
        where = f'host = "127.0.0.1"\nport = {broker.port}\n'
        for more, level in (("ours", "fine"), ("theirs", "wrong")):
            for text in (
                f'[sinks.a]\nkind = "mqtt"\n{where}topic = "plant/{more}"\n',
                f'[sinks.a]\nkind = "sparkplug"\n{where}group = "g"\nnode = "{more}"\n',
            ):
                assert sinks(tmp_path, text)[0] == 0, "what is not asked is not found"
                assert not [line for line in broker.log if "PUBLISH" in line]
                status, found = sinks(tmp_path, text, "--send")
                assert (found["broker"]["level"], found["topic"]["level"]) == ("fine", level)
                assert status == (level == "wrong")
                broker.log.clear()
    finally:
        broker.stop()


def test_a_broker_that_does_not_let_us_in_is_wrong(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, ["allow_anonymous false"])
    broker.start()
    try:
        text = f'[sinks.a]\nkind = "mqtt"\nhost = "127.0.0.1"\nport = {broker.port}\ntopic = "a"\n'
        status, found = sinks(tmp_path, text)
        assert (status, found["broker"]["level"]) == (1, "wrong")
    finally:
        broker.stop()


def test_sources_and_sinks_are_examined_together(tmp_path: Path, device: int) -> None:
    file = tmp_path / "sinks.toml"
    file.write_text(f'[sinks.a]\nkind = "file"\nfolder = "{tmp_path}"\nmib = 2\nfile_mib = 1\n')
    status, found = doctor(tmp_path, modbus(device), str(file))
    assert status == 0
    assert {"readings", "folder"} <= set(found)
