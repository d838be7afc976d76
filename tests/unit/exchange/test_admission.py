"""Who may speak right now: the settings file, the register, what was revoked here and above."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.register import Alarm, Register
from reuna.core.errors import BadMessage, BusDown, PermissionDenied
from reuna.core.records import Hello
from reuna.exchange.admission import (
    HEARD_S,
    HELLOS_AHEAD,
    Admission,
    alarm_fields,
    node_fields,
    read_alarm,
    read_node,
    watch,
)
from reuna.sim.clock import EPOCH, InPlace, SimClock, run_virtual
from reuna.trust.enrolment import Node
from reuna.wire import OLDEST, VERSION


def node(name: str, ends: float = EPOCH + 1e6) -> Node:
    return Node(name, "edge", "north", "5d", "k", EPOCH, ends)


class World:
    def __init__(self, folder: Path, listed: list[str]) -> None:
        self.register = Register(folder / "r.sqlite")
        self.above = folder / "revoked.json"
        self.admission = Admission("demo", "edge", "north", self.register, listed, SimClock(), self.above)
        self.told: list[tuple[set[str], set[str]]] = []
        self.loaded = 0
        self.failures = 0
        self.file = folder / "own.pem"
        self.file.write_text("1")

    async def on_names(self, before: frozenset[str], names: frozenset[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise BusDown("the server does not answer")
        self.told.append((set(before), set(names)))

    async def on_files(self) -> None:
        self.loaded += 1

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(
            watch(self.admission, [self.file], self.on_names, self.on_files, SimClock(), InPlace())
        )


def living(folder: Path, listed: list[str], script: Any) -> World:
    async def live() -> World:
        world = World(folder, listed)
        task = world.start()
        await script(world)
        task.cancel()
        return world

    return run_virtual(live())


def test_names_come_from_file_and_register_without_those_revoked_or_ended(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        assert world.admission.names == {"a", "b"}
        world.register.record(node("c"))
        world.register.record(node("d", EPOCH + 100))
        await asyncio.sleep(2)
        assert world.admission.names == {"a", "b", "c", "d"}
        world.register.revoke("a", EPOCH, "stolen")
        world.above.write_text(json.dumps(["c"]))
        await asyncio.sleep(2)
        assert world.admission.names == {"b", "d"}
        await asyncio.sleep(100)
        assert world.admission.names == {"b"}

    world = living(tmp_path, ["a", "b"], script)
    assert world.told[-1] == ({"b", "d"}, {"b"})


def test_who_is_out_is_out_although_the_server_cannot_be_told_and_it_is_told_later(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.failures = 3
        world.register.revoke("a", EPOCH, "")
        world.register.record(node("c"))
        await asyncio.sleep(2.5)
        assert world.admission.names == {"b"}, "neither the revoked nor, yet, the new one"
        await asyncio.sleep(3)
        assert world.admission.names == {"b", "c"}

    world = living(tmp_path, ["a", "b"], script)
    assert world.told == [({"a", "b"}, {"b", "c"})]


def test_who_enrols_is_kept_until_the_servers_know_it(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.failures = 3
        world.register.record(node("c"))
        await world.admission.in_force("c")
        assert world.told == [({"a"}, {"a", "c"})]
        assert world.admission.names == {"a", "c"}

    living(tmp_path, ["a"], script)


def test_who_enrols_is_not_kept_for_ever_by_a_server_that_takes_nothing(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.failures = 1000
        world.register.record(node("c"))
        await world.admission.in_force("c")
        assert world.told == []

    living(tmp_path, ["a"], script)


def test_a_changed_file_is_loaded_once(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        await asyncio.sleep(3)
        assert world.loaded == 0
        world.file.with_name("new").write_text("2")
        world.file.with_name("new").rename(world.file)
        await asyncio.sleep(3)

    assert living(tmp_path, [], script).loaded == 1


def test_who_says_hello_without_end_is_heard_now_and_then_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(world: World) -> None:
        heard = [world.admission.listens("hello.a") for _ in range(1000)]
        assert abs(sum(heard) - HELLOS_AHEAD) <= 1
        assert world.admission.listens("hello.b"), "nobody else pays"
        await asyncio.sleep(10)
        assert world.admission.listens("hello.a")

    living(tmp_path, ["a", "b"], script)
    assert "refused a hello of a: it says more than 5 a second" in caplog.text


def test_a_hello_for_another_name_is_refused_and_a_key_in_two_places_is_held(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        for boot in ("b1", "b2", "b1"):
            assert not world.admission.hear("hello.b", Hello("a", boot, "1", protocol=VERSION))
        assert world.register.alarms() == []
        for boot in ("b1", "b2", "b1"):
            assert world.admission.hear("hello.a", Hello("a", boot, "1", protocol=VERSION))
        assert [alarm.name for alarm in world.register.alarms()] == ["a"]
        await asyncio.sleep(30)
        assert set(world.register.last_heard()) == {"a"}
        assert world.admission.names == {"b"}, "neither of the two is admitted"
        assert world.register.release("a")
        assert not world.register.release("a")
        await asyncio.sleep(3)
        assert world.admission.names == {"a", "b"}
        world.admission.hear("hello.a", Hello("a", "b2", "1", protocol=VERSION))
        assert world.register.held() == frozenset(), "which of the two was the thief only a person knows"
        world.admission.hear("hello.a", Hello("a", "b3", "1", protocol=VERSION))
        assert world.register.held() == frozenset(), "a restart is no second machine"
        world.admission.hear("hello.a", Hello("a", "b1", "1", protocol=VERSION))
        assert world.register.held() == {"a"}, "a start that was over is one, again"

    living(tmp_path, ["a", "b"], script)


def test_what_a_fog_tells_of_its_site_is_read_as_it_was_said() -> None:
    gone = Node("a", "edge", "north", "5d", "k", 1.0, 2.0, revoked=1.5, reason="stolen")
    for known in (node("a"), gone):
        assert read_node("north", node_fields(known)) == known
    alarm = Alarm("a", "b1", 5.0, "doubled")
    assert read_alarm(alarm_fields(alarm)) == alarm


def test_a_fog_cannot_tell_of_another_site_or_role() -> None:
    lie = {**node_fields(node("a")), "site": "south", "role": "cloud"}
    assert (read_node("north", lie).site, read_node("north", lie).role) == ("north", "edge")


@pytest.mark.parametrize("fields", [{}, {"name": 5}, {"name": "a", "revoked": "x"}])
def test_what_cannot_be_read_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        read_node("north", fields)
    with pytest.raises(BadMessage):
        read_alarm(fields)


def test_who_comes_is_written_down_at_once_and_who_stays_now_and_then(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        told: list[set[str]] = []
        write = world.register.heard
        world.register.heard = lambda heard: (told.append(set(heard)), write(heard))  # type: ignore[assignment,func-returns-value]

        async def speak(*names: str) -> None:
            for name in names:
                world.admission.hear(f"hello.{name}", Hello(name, "1", "0", protocol=VERSION))
            await asyncio.sleep(2)

        await speak("a")
        assert told == [{"a"}]
        await speak("a", "stranger")
        assert told == [{"a"}], "it is known, and who is not admitted is no news"
        await speak("a", "b")
        assert told == [{"a"}, {"a", "b", "stranger"}]
        await speak("a")
        await asyncio.sleep(HEARD_S)
        assert told[2:] == [{"a"}], "now and then all the same"
        world.register.hold("b", EPOCH)
        await asyncio.sleep(2)
        world.register.release("b")
        await asyncio.sleep(2)
        await speak("b")
        assert told[3:] == [{"b"}], "it was out, and is there again"

    living(tmp_path, ["a", "b"], script)


def test_with_which_version_a_node_speaks_is_kept_for_the_next_upgrade(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        assert world.admission.hear("hello.a", Hello("a", "1", "0.1.0", protocol=VERSION, oldest=OLDEST))
        assert not world.admission.hear("hello.b", Hello("a", "1", "6.6.6")), "nobody speaks for another"
        await world.admission.note_heard(InPlace())
        assert world.register.last_spoken() == {"a": ("0.1.0", VERSION)}
        world.admission.hear(
            "hello.a", Hello("a", "2", "0.2.0" + "x" * 100, protocol=OLDEST)
        )  # one that is behind
        await world.admission.note_heard(InPlace())

    world = living(tmp_path, ["a", "b"], script)
    assert world.register.last_spoken() == {"a": (f"0.2.0{'x' * 100}"[:40], OLDEST)}


def test_who_speaks_no_protocol_of_ours_takes_no_part_until_it_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shown = {"notAfter": "Jan  1 00:00:00 2100 GMT"}

    async def script(world: World) -> None:
        peer = {**shown, "subjectAltName": (("URI", world.admission.identity("a").uri),)}
        for _ in range(3):
            assert not world.admission.hear("hello.a", Hello("a", "1", "0.9", protocol=OLDEST - 1, oldest=0))
        with pytest.raises(PermissionDenied, match="bring it to this version"):
            world.admission.admit(peer)
        newer = Hello("a", "1", "9.0", protocol=VERSION + 2, oldest=VERSION + 1)
        assert not world.admission.hear("hello.a", newer)
        with pytest.raises(PermissionDenied, match="bring this place to its version"):
            world.admission.admit(peer)
        assert world.admission.hear("hello.a", Hello("a", "1", "0.9", protocol=OLDEST))
        assert world.admission.admit(peer).name == "a"

    living(tmp_path, ["a"], script)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("refused: a ")]
    assert len(said) == 2, "once for each"


def test_the_cloud_lets_no_fog_in_that_stands_under_another(tmp_path: Path) -> None:
    register = Register(tmp_path / "r.sqlite")
    for name, site in (("firm", "firm"), ("north", "firm")):
        register.learn(Node(name, "fog", site, "5d", "k", EPOCH, 4e9))
    assert Admission("demo", "fog", "", register, [], SystemClock()).now_admitted() == {"firm"}
    register.close()


def test_a_fog_lets_in_fogs_under_it_under_their_own_role(tmp_path: Path) -> None:
    register = Register(tmp_path / "r.sqlite")
    register.learn(Node("hall", "fog", "north", "5d", "k", EPOCH, 4e9))
    admission = Admission("demo", "edge", "north", register, ["kiln"], SystemClock(), fogs=["yard"])
    assert admission.names == {"hall", "kiln", "yard"}
    assert admission.fogs == {"hall", "yard"}
    uris = [admission.identity(name).uri for name in ("hall", "yard", "kiln")]
    assert uris == [f"spiffe://north.demo/{what}" for what in ("fog/hall", "fog/yard", "edge/kiln")]
    register.close()


def test_a_fog_under_a_fog_is_told_of_as_one() -> None:
    told = Node("hall", "fog", "north", "5d", "k", EPOCH, EPOCH + 1e6)
    assert read_node("north", node_fields(told)) == told
