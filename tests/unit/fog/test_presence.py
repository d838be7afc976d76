"""A fog tells at once which edges came or went."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.register import Register
from reuna.core.records import Hello
from reuna.core.roster import Roster
from reuna.exchange.admission import Admission
from reuna.exchange.roster import Rosters, Telling
from reuna.fog import gateway
from reuna.fog.train import Combiner
from reuna.sim.clock import run_virtual
from reuna.wire import VERSION, encode

EDGES = ("press-1", "press-2")
FOGS = ("hall-1", "hall-2")


class Fog:
    """What of a gateway takes part in that."""

    def __init__(self, register: Register) -> None:
        clock = SystemClock()
        self.admission = Admission("demo", "edge", "mill-3", register, EDGES, clock, fogs=FOGS)
        unused: Any = None
        self.combiner = Combiner("mill-3", (*EDGES, *FOGS), *[unused] * 5)
        self.told: list[tuple[str, ...]] = []
        self.of_fogs: list[dict[str, tuple[str, ...]]] = []
        below: Any = SimpleNamespace(changed=lambda: self.told.append(self.combiner.present()))
        presence: Any = SimpleNamespace(changed=lambda: self.of_fogs.append(self.combiner.below()))
        bus: Any = SimpleNamespace(publish=self.ask)
        self.asked: list[str] = []
        self.watch = gateway.Watch(presence, below, Rosters(bus, clock, {}))

    async def hears(
        self, name: str, subject: str = "", below: tuple[str, ...] = (), said: Hello | None = None
    ) -> None:
        data = encode(said or Hello(name, "b", "0", below, protocol=VERSION))
        news: Any = SimpleNamespace(on_hello=ignore)
        subject = subject or f"hello.{name}"
        await gateway._hello(self.admission, self.combiner, news, self.watch, subject, data)

    async def ask(self, subject: str, _data: bytes) -> bool:
        self.asked.append(subject)
        return True

    async def hears_roster(self, name: str, told: Roster) -> None:
        await gateway._roster(self.admission, self.combiner, self.watch, f"roster.{name}", encode(told))


async def ignore(*_: object) -> None:
    return


@pytest.fixture
def fog(tmp_path: Path) -> Iterator[Fog]:
    register = Register(tmp_path / "register.sqlite")
    yield Fog(register)
    register.close()


async def test_an_edge_that_comes_is_told_of_at_once_and_one_that_stays_is_no_news(fog: Fog) -> None:
    await fog.hears("press-1")
    await fog.hears("press-1")
    assert fog.told == [("press-1",)]
    await fog.hears("press-2", "hello.press-1")
    assert fog.told == [("press-1",)], "nobody speaks for another"
    await fog.hears("press-2")
    assert fog.told[1:] == [EDGES]


async def test_a_fog_under_it_brings_those_under_that_and_an_edge_brings_nobody(fog: Fog) -> None:
    await fog.hears("hall-1", below=("robot-1",))
    await fog.hears("press-1", below=("robot-2",))
    assert fog.combiner.below() == {"hall-1": ("robot-1",)}
    await fog.hears("hall-1")
    assert fog.combiner.below() == {"hall-1": ()}
    assert fog.told == [("hall-1",), ("hall-1", "press-1")]
    assert fog.of_fogs == [{"hall-1": ("robot-1",)}, {"hall-1": ()}], "each of these is news"


async def test_a_fog_under_it_tells_of_changes_and_is_asked_for_the_whole_when_one_was_missed(
    fog: Fog,
) -> None:
    telling = Telling("life")
    for change in telling.told(("robot-1",)):
        await fog.hears_roster("hall-1", change)
    hello = Hello("hall-1", "b", "0", protocol=VERSION, below=telling.stand)
    await fog.hears("hall-1", said=hello)
    assert (fog.combiner.below(), fog.asked) == ({"hall-1": ("robot-1",)}, [])
    telling.told(("robot-1", "robot-2"))  # lost on its way
    await fog.hears("hall-1", said=msgspec.structs.replace(hello, below=telling.stand))
    assert fog.asked == ["whole.hall-1"]
    for page in telling.whole():
        await fog.hears_roster("hall-1", page)
    assert fog.combiner.below() == {"hall-1": ("robot-1", "robot-2")}
    await fog.hears_roster("press-1", telling.whole()[0])
    assert "press-1" not in fog.watch.rosters.held, "an edge has nobody under it"


async def test_a_fog_under_it_speaks_of_nobody_who_stands_elsewhere(fog: Fog) -> None:
    await fog.hears("hall-1", below=("robot-1",))
    may_tell = partial(gateway._may_tell, fog.admission, fog.combiner)
    assert may_tell("hall-1", "hall-1") and may_tell("hall-1", "robot-1") and may_tell("hall-1", "new")
    for other in ("press-1", "hall-2", "mill-3"):
        assert not may_tell("hall-1", other)
    assert not may_tell("hall-2", "robot-1"), "it stands under hall-1"
    assert may_tell("press-1", "press-1") and not may_tell("press-1", "new")


async def test_an_edge_that_is_admitted_no_more_is_named_no_more_at_once(
    fog: Fog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in EDGES:
        await fog.hears(name)
    monkeypatch.setattr(gateway, "leaf_config", lambda *_: None)
    ended: list[str] = []

    async def end(uri: str) -> None:
        ended.append(uri)

    servers: Any = SimpleNamespace(recheck=lambda: None, reload=ignore, disconnect=end)
    settings = {"fleet": "demo", "name": "mill-3"}
    desk = gateway.Desk(settings, servers, servers, servers, fog.combiner, fog.watch.below, fog.admission)
    await desk.on_names(fog.admission.names, frozenset({"press-2", "hall-1"}))
    assert fog.told[2:] == [("press-2",)]
    assert ended == ["spiffe://mill-3.demo/fog/hall-2"], "a reload leaves its leaf link open"


def test_an_edge_that_says_it_seldom_is_waited_for_longer() -> None:
    unused: Any = None

    async def live() -> list[tuple[str, ...]]:
        combiner = Combiner("mill-3", EDGES, *[unused] * 5)
        await combiner.on_hello(Hello("press-1", "b", "0"))
        await combiner.on_hello(Hello("press-2", "b", "0", every_s=60.0))
        found = []
        for seconds in (29, 2, 118, 2):
            await asyncio.sleep(seconds)
            found.append(combiner.present())
        return found

    assert run_virtual(live()) == [EDGES, ("press-2",), ("press-2",), ()]
