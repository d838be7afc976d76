"""What the cloud believes of what a fog tells: of itself and of its own edges, and no word of the cloud's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.events import EventLog
from reuna.adapters.register import Register
from reuna.cloud.actions import Coordinator
from reuna.cloud.hearing import OWN_WORDS, take_event, take_hello, take_roster
from reuna.cloud.holdings import Holdings
from reuna.cloud.presence import EDGES, KEEP_S, Presence
from reuna.core import labelled, operating
from reuna.core.labelled import Labelled
from reuna.core.operating import Operating
from reuna.core.records import Event, Hello, Setting
from reuna.core.roster import Roster, Stand
from reuna.exchange.releases import event_of
from reuna.exchange.roster import Rosters, Telling
from reuna.wire import encode

FOGS = ("north", "south")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Coordinator]:
    log, nothing = EventLog(tmp_path / "of the cloud.sqlite"), cast("Any", None)
    made = Coordinator("cloud", nothing, log, nothing, nothing, nothing, nothing)
    made.sites = {"edge-1": "north", "edge-2": "south"}
    yield made
    log.close()


def told(cloud: Coordinator, node: str, what: str = "sat out") -> bool:
    return cloud.may_tell("north", Event(node, "b", 1, 0.0, what, "r-1"), FOGS)


def test_a_fog_tells_of_itself_and_of_its_edges(cloud: Coordinator) -> None:
    assert told(cloud, "north")
    assert told(cloud, "edge-1")
    assert told(cloud, "edge-that-no-run-has-yet")


@pytest.mark.parametrize("node", ["south", "edge-2", "cloud"])
def test_a_fog_does_not_tell_of_another_fog_its_edges_or_the_cloud(cloud: Coordinator, node: str) -> None:
    assert not told(cloud, node)


@pytest.mark.parametrize("what", sorted(OWN_WORDS))
def test_what_the_cloud_says_of_a_run_nobody_else_says(cloud: Coordinator, what: str) -> None:
    assert not told(cloud, "north", what)
    assert not told(cloud, "edge-1", what)


def test_the_words_of_the_cloud_are_those_that_a_run_reports() -> None:
    """Planted: a word that the conductor begins to say must be its own."""
    import inspect
    import re

    from reuna.cloud import actions, coordinator, rollouts, train
    from reuna.loop import rollout

    said = re.findall(
        r'report\(spec, "(\w+)"', "".join(map(inspect.getsource, (train, coordinator, actions)))
    )
    told = re.findall(r'Note\("(\w+)"', inspect.getsource(rollout))
    words = {rollouts.ASKED, *(rollouts.TOLD.format(word) for word in (*told, *rollout.FINAL))}
    assert {*said, "local", "evaluate", EDGES, *words} == OWN_WORDS


class Admits:
    names = frozenset(FOGS)
    register: Register

    def listens(self, subject: str) -> bool:
        return True

    def hear(self, subject: str, hello: Hello) -> bool:
        return subject == f"hello.{hello.node}"


async def test_a_fog_tells_of_the_edges_that_joined_it_and_of_nobody_elses(
    cloud: Coordinator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    admits, log = Admits(), EventLog(tmp_path / "events.sqlite")
    admits.register = Register(tmp_path / "register.sqlite")
    node: dict[str, Setting] = {"name": "edge-3", "serial": "ab", "key": "cd", "issued": 1.0}
    node |= {"expires": 2.0, "revoked": -1.0}
    for seq, fog in enumerate(FOGS):
        told = Event(fog, "b", seq, 0.0, "node", fields=node)
        await take_event(cloud, cast("Any", admits), log, f"event.{fog}", encode(told))
    found = admits.register.node("edge-3")
    assert found is not None
    assert found.site == "north"
    assert "south tells of edge-3, which is not of its site" in caplog.text
    assert log.counts() == {"node": 1}
    admits.register.close()
    log.close()


class Hears:
    async def on_hello(self, hello: Hello) -> None:
        """Nothing follows here."""


class Clouds:
    """The cloud's side of presence over one log, with a clock that is set by hand."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.clock = Hand()
        self.asked: list[str] = []
        self.presence = Presence(log, self.clock)
        self.rosters = Rosters(cast("Any", self), self.clock, self.presence.below)

    async def publish(self, subject: str, _data: bytes) -> bool:
        self.asked.append(subject)
        return True

    async def hello(self, fog: str, *children: str, below: Stand | None = None) -> None:
        admission, hears = cast("Any", Admits()), cast("Any", Hears())
        said = encode(Hello(fog, "b", "1", children, below=below))
        who = admission, self.presence, self.rosters
        await take_hello(*who, lambda *_: True, hears, hears, f"hello.{fog}", said)

    async def roster(self, fog: str, data: bytes) -> None:
        await take_roster(cast("Any", Admits()), self.presence, self.rosters, f"roster.{fog}", data)

    def nodes(self) -> dict[str, float]:
        return self.presence.nodes(lambda _fog, names: sorted(names))

    def below(self, fog: str) -> list[str]:
        return sorted(self.presence.below[fog].names)


class Hand:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


async def test_a_cloud_that_restarts_knows_the_edges_that_fogs_told_of_before_they_tell_again(
    tmp_path: Path,
) -> None:
    """Planted: without that a rollout right after a restart finds no edge, or those of some fogs only."""
    log = EventLog(tmp_path / "events.sqlite")
    cloud, fog = Clouds(log), Telling("life")
    for edges in (("edge-1", "edge-2"), ("edge-1",)):
        for each in fog.told(edges):
            await cloud.roster("north", encode(each))
        cloud.clock.at += KEEP_S
        await cloud.hello("north", below=fog.stand)
    log.close()
    log = EventLog(tmp_path / "events.sqlite")
    restarted = Clouds(log)
    assert restarted.below("north") == cloud.below("north") == ["edge-1"]
    assert restarted.nodes() == {}, "who is there is heard anew"
    await restarted.hello("north", below=fog.stand)
    assert restarted.nodes() == {"north": 1000.0, "edge-1": 1000.0}
    assert restarted.asked == [], "what it kept is what the fog has told"
    assert log.counts() == {}, "no time line has it"
    log.close()


async def test_edges_that_come_one_by_one_are_not_written_down_each_time(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.sqlite")
    cloud, fog = Clouds(log), Telling("life")
    names = [f"edge-{number}" for number in range(50)]
    for count in range(1, 51):
        for each in fog.told(names[:count]):
            await cloud.roster("north", encode(each))
    assert [len(event.fields) for _, event in log.last(EDGES)] == [1]
    cloud.clock.at += KEEP_S
    await cloud.hello("north", below=fog.stand)
    assert [len(event.fields) for _, event in log.last(EDGES)] == [50]
    log.close()


async def test_a_fog_one_protocol_behind_names_all_its_edges_each_time(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.sqlite")
    cloud = Clouds(log)
    await cloud.hello("north", "edge-1", "edge-2")
    cloud.clock.at += 5.0
    await cloud.hello("north", "edge-2")
    assert cloud.nodes() == {"north": 1005.0, "edge-1": 1005.0, "edge-2": 1005.0}, "heard of so far"
    assert cloud.below("north") == ["edge-2"]
    assert cloud.asked == []
    log.close()


async def test_what_is_no_roster_or_of_no_fog_is_refused_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(tmp_path / "events.sqlite")
    cloud = Clouds(log)
    (told,) = Telling("life").told(["edge-1"])
    await cloud.roster("ghost", encode(told))
    await cloud.roster("north", encode(told)[:-3])
    await cloud.roster("north", encode(Roster(Stand("l", 1, 0), ("Bad Name",))))
    await cloud.roster("north", encode(Roster(Stand("l", 1, 0), (), (), 7, 3)))
    assert "refused a roster of ghost" in caplog.text
    assert caplog.text.count("refused a roster on roster.north") == 3
    assert cloud.nodes() == {}
    log.close()


async def tell(cloud: Coordinator, log: EventLog, subject: str, event: Event) -> None:
    admission: Any = Admits()
    await take_event(cloud, admission, log, subject, encode(event))


async def test_what_edges_hold_is_kept_the_newest_word_of_each_and_who_waits_is_told(tmp_path: Path) -> None:
    log, nothing = EventLog(tmp_path / "events.sqlite"), cast("Any", None)
    holdings = Holdings(nothing, log, nothing, nothing)
    cloud = Coordinator("cloud", nothing, log, nothing, nothing, holdings, nothing)
    mark = holdings.turn.mark
    waiting = asyncio.create_task(holdings.turn.over(mark, 60))
    await asyncio.sleep(0)
    first, second = (event_of("edge-1", "b", number, 0.0, []) for number in (0, 1))
    await tell(cloud, log, "event.north", first)
    await waiting
    assert holdings.turn.mark == mark + 1
    await tell(cloud, log, "event.north", second)
    await tell(cloud, log, "event.north", first)
    assert holdings.turn.mark == mark + 2, "what came again changes nothing"
    assert [event for _, event in log.last("releases")] == [second]
    log.close()


async def test_what_cannot_be_what_an_edge_holds_is_refused_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, nothing = EventLog(tmp_path / "events.sqlite"), cast("Any", None)
    cloud = Coordinator(
        "cloud", nothing, log, nothing, nothing, Holdings(nothing, log, nothing, nothing), nothing
    )
    cloud.sites = {"edge-2": "south"}
    good = event_of("edge-1", "b", 0, 0.0, [])
    await tell(cloud, log, "event.north", msgspec.structs.replace(good, fields={"held": "[{}]"}))
    await tell(cloud, log, "event.north", msgspec.structs.replace(good, node="edge-2"))
    assert log.last("releases") == []
    assert "what edge-1 holds cannot be read" in caplog.text
    assert "of 'edge-2' is not its to tell" in caplog.text
    log.close()


async def test_what_edges_run_is_kept_the_newest_word_of_each_and_what_is_none_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, nothing = EventLog(tmp_path / "events.sqlite"), cast("Any", None)
    register: Any = Registered()
    holdings = Holdings(nothing, log, register, nothing)
    cloud = Coordinator("cloud", nothing, log, nothing, nothing, holdings, nothing)
    cloud.monitor = watching = cast("Any", Watching())
    mark = holdings.turn.mark
    told = [Operating("pumps", 4, "a" * 64, "trial", windows=7)]
    await tell(cloud, log, "event.north", operating.event_of("edge-1", "b", 0, 0.0, told))
    assert holdings.turn.mark == mark + 1
    assert holdings.operates()["edge-1"][1] == told
    assert watching.heard_of == 1, "what a node runs may be an alarm"
    bad = msgspec.structs.replace(operating.event_of("edge-1", "b", 1, 0.0, []), fields={"operating": "[7]"})
    await tell(cloud, log, "event.north", bad)
    assert "what edge-1 runs cannot be read" in caplog.text
    assert holdings.operates()["edge-1"][1] == told
    log.close()


async def test_what_edges_tell_of_labelled_rows_is_kept_and_triggers_look_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, nothing = EventLog(tmp_path / "events.sqlite"), cast("Any", None)
    cloud = Coordinator("cloud", nothing, log, nothing, nothing, nothing, nothing)
    news = asyncio.Event()
    cloud.triggers = cast("Any", SimpleNamespace(news=news))
    event = labelled.as_event("edge-1", "b", 0, 0.0, Labelled("r-1", 500))
    await tell(cloud, log, "event.north", event)
    assert news.is_set()
    await tell(cloud, log, "event.north", msgspec.structs.replace(event, seq=1, fields={"rows": "many"}))
    assert "labelled rows cannot be read" in caplog.text
    assert [told for _, told in log.last(labelled.WHAT)] == [event]
    log.close()


class Watching:
    """A monitor that counts."""

    heard_of = 0

    async def heard(self) -> None:
        self.heard_of += 1


class Registered:
    def nodes(self) -> list[Any]:
        return []


class Door:
    """Two fogs are let in; the register is empty but for what a fog told."""

    def __init__(self, folder: Path) -> None:
        self.names = frozenset(FOGS)
        self.fleet = "mill"
        self.register = Register(folder / "register.sqlite")

    def listens(self, _subject: str) -> bool:
        return True

    def hear(self, subject: str, hello: Hello) -> bool:
        return subject == f"hello.{hello.node}"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Coordinator, Door, EventLog]]:
    """A cloud whose fog north has told of the fogs under it: hall, and yard under that."""
    nothing: Any = None
    door, log = Door(tmp_path), EventLog(tmp_path / "events.sqlite")
    cloud = Coordinator("cloud", nothing, log, nothing, cast("Any", door), nothing, nothing)
    told_of = {"hall": ("robot", "yard"), "yard": ("crane",), "south": ("stolen",)}
    asyncio.run(says(cloud, door, log, Hello("north", "b", "1", ("kiln", "hall"), fogs=told_of)))
    yield cloud, door, log
    door.register.close()
    log.close()


async def says(cloud: Coordinator, door: Door, log: EventLog, hello: Hello) -> None:
    hears, nothing = cast("Any", Hears()), cast("Any", None)
    rosters = Rosters(nothing, SystemClock(), cloud.presence.below)
    who = cast("Any", door), cloud.presence, rosters
    await take_hello(*who, cloud.is_of, hears, hears, f"hello.{hello.node}", encode(hello))


Tree = tuple[Coordinator, Door, EventLog]


def test_the_cloud_knows_the_tree_that_a_fog_tells_of(tree: Tree) -> None:
    cloud, _, log = tree
    shape = {
        "fogs": {"hall": ("robot",), "north": ("kiln",), "yard": ("crane",)},
        "above": {"hall": "north", "yard": "hall"},
    }
    assert cloud.fleet() == {"fleet": "mill", **shape}
    assert {"kiln", "hall", "robot", "crane"} <= cloud.nodes().keys()
    assert "south" not in cloud.presence.below, "a fog of the cloud's own is not north's to tell of"
    nothing: Any = None
    restarted = Coordinator("cloud", nothing, log, nothing, nothing, nothing, nothing)
    assert restarted.presence.above == cloud.presence.above
    assert restarted.presence.told().keys() == cloud.presence.told().keys()


async def test_a_fog_that_is_not_told_of_any_more_has_nobody(tree: Tree) -> None:
    cloud, door, log = tree
    await says(cloud, door, log, Hello("north", "b", "1", ("kiln",)))
    assert cloud.fleet()["fogs"] == {"north": ("kiln",)}
    assert cloud.fleet()["above"] == {}


def test_a_fog_speaks_of_what_a_run_has_under_it_however_deep(tree: Tree) -> None:
    cloud = tree[0]
    spec: Any = SimpleNamespace(
        fogs={"north": (), "hall": ("robot",), "south": ("press",), "attic": ("lamp",)},
        above={"hall": "north", "attic": "south"},
    )
    cloud.runs_over(spec)
    assert cloud.is_of("north", "robot", FOGS) and cloud.is_of("north", "hall", FOGS)
    for node in ("press", "lamp", "attic", "south"):
        assert not cloud.is_of("north", node, FOGS), node


async def test_nodes_that_a_fog_under_a_fog_takes_in_are_learnt_through_the_one_above(tree: Tree) -> None:
    cloud, door, log = tree
    for number, site in enumerate(("hall", "elsewhere")):
        fields: dict[str, Setting] = {
            "name": f"new-{number}", "serial": "5d", "key": "k", "issued": 1.0, "expires": 9e9, "revoked": -1.0,
            "reason": "", "role": "edge", "site": "",
        }  # fmt: skip
        event = Event(site, "b", number, 0.0, "node", fields=fields)
        await take_event(cloud, cast("Any", door), log, "event.north", encode(event))
    assert [(node.name, node.site) for node in door.register.nodes()] == [("new-0", "hall")]


def test_where_a_fog_stands_follows_what_fogs_tell(tmp_path: Path) -> None:
    """Planted: a tree that is looked for once stays what it was."""
    log = EventLog(tmp_path / "of the cloud.sqlite")
    presence = Presence(log, SystemClock())
    presence.told_of("firm", ["north", "edge-1"]).close()
    assert presence.above == {}
    presence.told_of("north", ["edge-2"]).close()
    assert presence.above == {"north": "firm"}
    presence.told_of("firm", ["edge-1"]).close()
    assert presence.above == {}
    log.close()
