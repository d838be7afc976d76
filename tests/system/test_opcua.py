"""Sources of kind `opcua` against a server of another stack, in a process of its own whose power is cut."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from typer.testing import CliRunner

from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.opcua import source
from reuna.adapters.opcua.files import fetch_server, make_client
from reuna.adapters.opcua.source import OpcUaSource
from reuna.cli import app
from reuna.core.errors import KeyProblem, NotUsable, Unreachable
from reuna.core.opcua_settings import OpcUaSettings, OpcUaTag, node
from reuna.core.sources import BAD, GOOD, NS, UNCERTAIN, Scaling, ns_of
from tests.opcua import URI, Authority, Machine, Reader, settings, tag

pytestmark = [pytest.mark.system]


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine(nodes=[{"node": "oil", "value": 1.5}], history=3)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def plain() -> Iterator[Machine]:
    """A machine without security that stays on; each test has nodes of its own."""
    made = Machine().start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``client`` is trusted by `secure`, ``other`` is not; ``server`` is its certificate."""
    folder = tmp_path_factory.mktemp("pki")
    for name in ("client", "other"):
        make_client(folder / name, name, 30)
    (folder / "password").write_text("squeeze\n")
    return folder


@pytest.fixture(scope="module")
def secure(pki: Path) -> Iterator[Machine]:
    said = Authority().server(pki / "server", alone=True)
    made = Machine(
        **said,
        trusted=[str(pki / "client" / "client.der")],
        user="anna",
        password="squeeze",
        nodes=[{"node": "oil", "value": 1.5}],
    ).start()
    yield made
    made.kill()


def secured(machine: Machine, pki: Path, **more: Any) -> OpcUaSettings:
    given = {
        "security": "Basic256Sha256",
        "certificate": str(pki / "client" / "client.der"),
        "key": str(pki / "client" / "client.key"),
        "server_certificate": str(pki / "server" / "server.der"),
        "user": "anna",
        "password_file": str(pki / "password"),
        **more,
    }
    return settings(machine.url, [tag("oil")], **given)


@pytest.fixture
async def reading() -> AsyncIterator[Any]:
    """Makes readers, and closes them."""
    made: list[Reader] = []

    def make(said: OpcUaSettings, clock: Any = None, after_ns: int | None = None) -> Reader:
        made.append(Reader(OpcUaSource(said, clock or SystemClock(), ThreadOffload(), after_ns)))
        return made[-1]

    yield make
    for each in made:
        await each.stream.aclose()


async def test_a_reading_has_the_machines_time_its_quality_and_the_servers_own_code(
    plain: Machine, reading: Any
) -> None:
    plain.set("flow", 1.0)
    plain.set("heat", 20.0, status="BAD_SENSOR_FAILURE")
    plain.set("word", "stuck")
    reader = reading(settings(plain.url, [tag("flow", scaling=Scaling(2, 1)), tag("heat"), tag("word")]))
    await reader.until(lambda it: {"flow", "heat", "word"} <= {name for b in it.given for name in b.columns})
    at_ns = ns_of(1_795_000_000.5)  # o6 makes times of floats
    plain.set("flow", 3.0, status="UNCERTAIN_LAST_USABLE_VALUE", at_ns=at_ns)
    await reader.until(lambda it: 7.0 in it.values("flow"))
    flow = reader.column("flow")
    place = flow.values.tolist().index(7.0)
    assert (flow.times[place], flow.quality[place], flow.codes[place]) == (at_ns, UNCERTAIN, 0x40900000)
    assert flow.quality[1 - place] == GOOD
    heat, word = reader.column("heat"), reader.column("word")
    assert (heat.quality[-1], heat.codes[-1]) == (BAD, 0x808C0000)
    assert (word.quality[-1], word.codes[-1]) == (BAD, 0x80740000)
    assert reader.given[0].received_ns


async def test_a_tag_that_is_wrong_is_named_and_does_not_stop_the_rest(
    plain: Machine, reading: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "AGAIN_S", 0.0)
    plain.set("well", 1.0, unit=["bar", 4342098])
    plain.set("kelvin", 1.0, unit=["K", 4932940])
    elsewhere = OpcUaTag("elsewhere", node("nsu=urn:nowhere;s=x"))
    tags = [tag("well", "bar"), tag("kelvin", "degC"), tag("later"), elsewhere]
    reader = reading(settings(plain.url, tags))
    await reader.until(lambda it: len(it.values("well")) > 0)
    told = {gap.tags: gap.reason for gap in reader.gaps}
    assert told[("later",)] == "the server refuses it: BadNodeIdUnknown"
    assert told[("kelvin",)] == "the server has it in K, not in degC"
    assert told[("elsewhere",)] == "the server has no namespace urn:nowhere"
    plain.set("later", 5.0)
    plain.set("well", 2.0)
    await reader.until(lambda it: 5.0 in it.values("later"))
    assert not reader.values("kelvin")


async def test_a_scale_says_that_the_servers_unit_is_another(plain: Machine, reading: Any) -> None:
    plain.set("celsius", 20.0, unit=["°C", 4408652])
    reader = reading(settings(plain.url, [tag("celsius", "K", scaling=Scaling(1, 273.15))]))
    await reader.until(lambda it: it.values("celsius"))
    assert reader.values("celsius") == [293.15]


async def test_a_value_that_does_not_change_is_given_again_while_the_server_shows_life(
    plain: Machine, reading: Any
) -> None:
    plain.set("still", 4.0, ago_s=3600)
    said = settings(plain.url, [tag("still")], unchanged_s=0.2, silence_s=1.0)
    reader = reading(said)
    await reader.until(lambda it: len(it.values("still")) >= 4)
    assert set(reader.values("still")) == {4.0}
    times = reader.column("still").times.tolist()
    assert times[-1] - times[1] >= 0.4 * NS
    assert abs(times[-1] - reader.given[-1].received_ns) < NS


async def test_small_changes_are_not_sent_where_there_is_a_deadband(
    plain: Machine, reading: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    plain.set("slow", 1.0)
    plain.set("share", 1.0, range=[0, 200])
    plain.set("note", "a")
    bands: dict[str, Any] = {"deadband": 1.0}
    plain.set("mark", 0.0)
    tags = [tag("slow", **bands), tag("share", percent=True, **bands), tag("note", **bands), tag("mark")]
    reader = reading(settings(plain.url, tags))
    await reader.until(lambda it: it.values("slow") and it.values("share") and it.values("note"))
    assert "the server takes no deadband for note; every change is sent" in caplog.text
    for number in (1.5, 1.9, 4.0):  # of a range of 200 one percent is 2
        plain.set("slow", number)
        plain.set("share", number)
        for mark in (number, -number):  # twice: in between all was sampled
            plain.set("mark", mark)
            await reader.until(lambda it: it.values("mark")[-1:] == [mark])
    await reader.until(lambda it: 4.0 in it.values("slow") and 4.0 in it.values("share"))
    assert reader.values("slow") == [1.0, 4.0]
    assert reader.values("share") == [1.0, 4.0]


async def test_after_a_power_cut_it_reads_on_with_a_gap_that_history_fills(
    machine: Machine, reading: Any
) -> None:
    machine.start()
    reader = reading(settings(machine.url, [tag("oil"), tag("new")]))
    await reader.until(lambda it: it.values("oil") == [1.5])
    machine.kill()
    await reader.until(lambda it: any("refused" in gap.reason for gap in it.gaps))
    # Back with another namespace before ours: the same URI has another number now.
    machine.start(namespaces=["urn:other"], nodes=[{"node": "oil", "value": 9.0}])
    broke_ns = reader.gaps[-1].first_ns
    for number in range(10):
        machine.set("oil", float(number), at_ns=broke_ns + number * 1000)
    await reader.until(lambda it: len(it.values("oil", historical=True)) >= 10)
    await reader.until(lambda it: len(it.values("oil")) > 1)
    gap = next(gap for gap in reader.gaps if gap.reason == "nothing was read until now")
    assert gap.first_ns >= reader.column("oil").times[0]
    kept = reader.column("oil", historical=True)
    assert set(map(float, range(10))) <= set(kept.values.tolist())
    assert kept.quality.max() == GOOD


async def test_it_begins_with_the_history_since_the_newest_reading_in_the_store(
    machine: Machine, reading: Any
) -> None:
    machine.start()
    now_ns = ns_of(SystemClock().now())
    for ago in (300, 200, 100):
        machine.set("oil", float(ago), at_ns=now_ns - ago * NS)
    reader = reading(settings(machine.url, [tag("oil")]), after_ns=now_ns - 250 * NS)
    await reader.until(lambda it: 100.0 in it.values("oil", historical=True))
    kept = reader.values("oil", historical=True)
    assert 200.0 in kept
    assert 300.0 not in kept
    assert (reader.gaps[0].first_ns, reader.gaps[0].reason) == (
        now_ns - 250 * NS,
        "nothing was read until now",
    )
    bounded = reading(settings(machine.url, [tag("oil")], backfill_s=150.0), after_ns=now_ns - 250 * NS)
    await bounded.until(lambda it: 100.0 in it.values("oil", historical=True))
    assert 200.0 not in bounded.values("oil", historical=True)
    never = reading(settings(machine.url, [tag("oil")], backfill_s=0.0), after_ns=now_ns - 250 * NS)
    await never.until(lambda it: it.values("oil"))
    machine.set("oil", 7.0)
    await never.until(lambda it: 7.0 in it.values("oil"))
    assert not never.values("oil", historical=True)


async def test_a_server_that_hangs_is_lost_and_found_again(machine: Machine, reading: Any) -> None:
    machine.start()
    assert machine._process is not None
    reader = reading(settings(machine.url, [tag("oil")], silence_s=1.0))
    await reader.until(lambda it: it.values("oil"))
    os.kill(machine._process.pid, signal.SIGSTOP)
    try:
        await reader.until(lambda it: bool(it.gaps))
    finally:
        os.kill(machine._process.pid, signal.SIGCONT)
    assert reader.gaps[0].reason in ("no sign of life for 1 s", "the connection ended")
    machine.set("oil", 8.0)
    await reader.until(lambda it: 8.0 in it.values("oil"))


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ("Basic256Sha256", "Sign"),
        ("Basic256Sha256", "SignAndEncrypt"),
        ("Aes128_Sha256_RsaOaep", "SignAndEncrypt"),
        ("Aes256_Sha256_RsaPss", "SignAndEncrypt"),
    ],
)
async def test_a_secured_server_is_read_with_certificates_and_a_user(
    secure: Machine, pki: Path, reading: Any, policy: str, mode: str
) -> None:
    reader = reading(secured(secure, pki, security=policy, mode=mode))
    await reader.until(lambda it: it.values("oil") == [1.5])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"certificate": "other/client.der", "key": "other/client.key"}, "refuses this client's certificate"),
        ({"server_certificate": "other/client.der"}, "shows a certificate that is not trusted by"),
        ({"trust": "other", "server_certificate": ""}, "it is not in the folder, and no authority is"),
        ({"password_file": "server/server.txt"}, "refuses the user anna"),
        ({"user": "", "password_file": ""}, "refuses the user anonymous"),
    ],
)
async def test_what_somebody_has_to_correct_is_told(
    secure: Machine, pki: Path, reading: Any, more: dict[str, str], said: str
) -> None:
    (pki / "server" / "server.txt").write_text("wrong\n")
    paths = {key: str(pki / each) if "/" in each or key == "trust" else each for key, each in more.items()}
    reader = reading(secured(secure, pki, **paths))
    with pytest.raises(Unreachable, match=said) as told:
        await reader.until(lambda it: False)
    assert told.value.next_step != Unreachable.default_next_step


async def test_a_policy_that_is_not_offered_is_named_with_those_that_are(
    plain: Machine, pki: Path, reading: Any
) -> None:
    if not (pki / "server").exists():
        Authority().server(pki / "server")
    with pytest.raises(Unreachable, match="does not offer Basic256Sha256 SignAndEncrypt, but None None_"):
        await reading(secured(plain, pki)).until(lambda it: False)


async def test_a_server_that_answers_nothing_without_security_is_read_by_its_pinned_certificate(
    pki: Path, reading: Any, tmp_path: Path
) -> None:
    said = Authority().server(tmp_path / "s", alone=True)
    machine = Machine(
        **said,
        only=True,
        trusted=[str(pki / "client" / "client.der")],
        user="anna",
        password="squeeze",
        nodes=[{"node": "oil", "value": 1.5}],
    ).start()
    try:
        reader = reading(secured(machine, pki, server_certificate=said["certificate"]))
        await reader.until(lambda it: it.values("oil") == [1.5])
        for wrong, what in (
            (settings(machine.url, [tag("oil")]), "(does not offer|refuses) security none"),
            (secured(machine, pki, server_certificate="", trust=str(tmp_path / "s")), "without security"),
            (
                secured(machine, pki, server_certificate=said["certificate"], mode="Sign"),
                "takes a password unencrypted",
            ),
        ):
            with pytest.raises(Unreachable, match=what):
                await reading(wrong).until(lambda it: False)
        with pytest.raises(Unreachable, match="refuses security none"):
            await fetch_server(tmp_path, machine.url)
    finally:
        machine.kill()


async def test_files_that_do_not_fit_are_told_before_anything_is_sent(pki: Path, reading: Any) -> None:
    nobody = Machine()
    with pytest.raises(KeyProblem, match=r"is not the key of"):
        await reading(secured(nobody, pki, key=str(pki / "other" / "client.key"))).until(lambda it: False)
    with pytest.raises(NotUsable):
        await reading(secured(nobody, pki, key=str(pki / "nothing"))).until(lambda it: False)


class Ahead(SystemClock):
    def now(self) -> float:
        return super().now() + 3600


async def test_a_clock_far_away_is_told_at_the_beginning_and_logged_later(
    plain: Machine, reading: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plain.set("clocked", 1.0)
    said = settings(plain.url, [tag("clocked")])
    with pytest.raises(Unreachable, match=r"is 3600 s behind this machine's"):
        await reading(said, Ahead()).until(lambda it: False)
    for known in (
        reading(said, Ahead(), after_ns=1),
        reading(settings(plain.url, [tag("clocked")], clock_s=0.0)),
    ):
        await known.until(lambda it: it.values("clocked"))
    assert "is 3600 s behind this machine's; readings have the server's times" in caplog.text


async def test_readings_may_have_the_time_of_their_arrival(plain: Machine, reading: Any) -> None:
    plain.set("late", 1.0, ago_s=500)
    before_ns = ns_of(SystemClock().now())
    reader = reading(settings(plain.url, [tag("late")], timestamps="arrival"))
    await reader.until(lambda it: it.values("late"))
    assert reader.column("late").times[0] >= before_ns


async def test_a_server_that_is_away_is_tried_with_growing_pauses_and_told_once(reading: Any) -> None:
    pauses: list[float] = []

    class Noting(SystemClock):
        async def sleep(self, seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 12:
                raise StopAsyncIteration
            await asyncio.sleep(0)

    reader = reading(settings(Machine().url, [tag("oil")]), Noting())
    with pytest.raises(RuntimeError):
        await reader.until(lambda it: False)
    assert pauses == [0, 0.25, 0.5, 1, 2, 4, 5, 5, 5, 5, 5, 5]
    assert [gap.reason.rpartition(": ")[2] for gap in reader.gaps] == ["Connection refused"]


async def test_once_read_what_has_to_be_corrected_is_waited_for(
    secure: Machine, pki: Path, reading: Any
) -> None:
    stranger = secured(
        secure, pki, certificate=str(pki / "other" / "client.der"), key=str(pki / "other" / "client.key")
    )
    reader = reading(stranger, after_ns=1)
    await reader.until(lambda it: bool(it.gaps))
    assert "refuses this client's certificate" in reader.gaps[0].reason


async def test_the_certificate_of_a_server_is_fetched_with_its_fingerprint(
    secure: Machine, plain: Machine, pki: Path, tmp_path: Path
) -> None:
    made = await fetch_server(tmp_path, secure.url)
    assert (tmp_path / "server.der").read_bytes() == (pki / "server" / "server.der").read_bytes()
    found = x509.load_der_x509_certificate((tmp_path / "server.der").read_bytes())
    from cryptography.hazmat.primitives import hashes

    assert made["fingerprint"].replace(" ", "").lower() == found.fingerprint(hashes.SHA1()).hex()
    with pytest.raises(Unreachable, match="shows no certificate"):
        await fetch_server(tmp_path, plain.url)
    (tmp_path / "server.der").write_bytes(b"another")
    with pytest.raises(KeyProblem, match="there already"):
        await fetch_server(tmp_path, secure.url)
    with pytest.raises(Unreachable, match="Connection refused"):
        await fetch_server(tmp_path, Machine().url)


SOURCES = """
[sources.press]
kind = "opcua"
url = "{url}"
security = "none"
every_s = 0.02
publish_s = 0.05
[sources.press.tags]
oil = {{ node = "nsu={uri};s=oil", unit = "bar" }}
[store]
folder = "{folder}/store"
"""


def test_the_commands_show_and_record_it(machine: Machine, tmp_path: Path) -> None:
    machine.start()
    path = tmp_path / "sources.toml"
    path.write_text(SOURCES.format(url=machine.url, uri=URI, folder=tmp_path))
    done = CliRunner().invoke(app, ["source", "test", str(path), "--seconds", "1", "--json"])
    assert done.exit_code == 0, done.output
    oil = json.loads(done.stdout)["sources"]["press"]["tags"]["oil"]
    assert (oil["value"], oil["unit"], oil["quality"]) == (1.5, "bar", "good")
    done = CliRunner().invoke(app, ["source", "record", str(path), "--seconds", "1", "--json"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["source", "stored", str(path), "--json"])
    assert json.loads(done.stdout)["sources"]["press"]["tags"]["oil"]["value"] == 1.5
