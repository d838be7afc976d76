"""What the cloud takes over of what fogs say: events, once each, and who is there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.events import EventLog
from reuna.adapters.register import Register
from reuna.cloud.holdings import LAST_WORDS
from reuna.cloud.plan import Planner
from reuna.cloud.presence import EDGES, Presence
from reuna.cloud.rollouts import WORDS
from reuna.core import labelled, operating, watched
from reuna.core.errors import BadMessage
from reuna.core.records import Event, Hello
from reuna.core.tree import top_of
from reuna.exchange.admission import Admission, read_alarm, read_node
from reuna.exchange.news import NewsDesk
from reuna.exchange.room import STORE, when_there_is_room
from reuna.exchange.roster import Rosters
from reuna.wire import decode

if TYPE_CHECKING:
    from reuna.cloud.actions import Coordinator

log = logging.getLogger("reuna.cloud")
OWN_WORDS = frozenset(
    {"round", "short", "waits", "refused", "local", "evaluate", "resumed", "gates", EDGES, *WORDS}
)  #: what the cloud says of a run or a rollout
#: Of what nodes say again and again the last counts; each is read before it is kept.
LAST: dict[str, Callable[[Event], object]] = {
    **LAST_WORDS,
    watched.WHAT: lambda event: watched.read_fields(event.fields),
    labelled.WHAT: labelled.read_labelled,
}


async def take_event(
    coordinator: Coordinator, admission: Admission, events: EventLog, subject: str, data: bytes
) -> None:
    """Record an event once; what is no event of ours is dropped and said."""
    fog = subject.removeprefix("event.")
    try:
        event = decode(Event, data)
        if not coordinator.may_tell(fog, event, admission.names):
            raise BadMessage(f"{event.what!r:.40} of {event.node!r:.80} is not its to tell")
        if event.what in ("node", "alarm") and coordinator.is_fog(fog, event.node):  # it speaks of its site
            keep = partial(ThreadOffload(), lambda: learn(admission.register, event))
            await when_there_is_room(keep, SystemClock(), log, waits=STORE)
        last = event.what in LAST
        if last:
            LAST[event.what](event)
        record = partial(ThreadOffload(), lambda: events.record(event, last=last))
        if not await when_there_is_room(record, SystemClock(), log, waits=STORE):
            log.info("an event came again on %s: %r %s of %r", subject, event.boot, event.seq, event.node)
        elif event.what in LAST_WORDS:
            coordinator.holdings.turn.on()
            if event.what == operating.WHAT:
                await coordinator.monitor.heard()
        elif event.what == watched.WHAT:
            await coordinator.monitor.heard()
            coordinator.triggers.news.set()
        elif event.what == labelled.WHAT:
            coordinator.triggers.news.set()
        elif coordinator.traces:
            coordinator.traces.heard(event)
    except BadMessage as error:
        log.warning("refused an event on %s: %s", subject, error)


def learn(register: Register, event: Event) -> None:
    """Keep what a fog says of its edges. Raises `BadMessage`."""
    if event.what == "node":
        node = read_node(event.node, event.fields)
        if not register.learn(node):
            raise BadMessage(f"{event.node} tells of {node.name}, which is not of its site")
    elif event.what == "alarm":
        alarm = read_alarm(event.fields)
        known = register.node(alarm.name)
        if known is None or known.site != event.node:
            raise BadMessage(f"{event.node} raises an alarm about {alarm.name}, which is not of its site")
        register.alarm(alarm)


async def take_hello(
    admission: Admission,
    presence: Presence,
    rosters: Rosters,
    is_of: Callable[[str, str, Collection[str]], bool],
    planner: Planner,
    news: NewsDesk,
    subject: str,
    data: bytes,
) -> None:
    """Note who is there, and how far it has told which edges and fogs it has."""
    if not admission.listens(subject):
        return
    try:
        hello = decode(Hello, data)
    except BadMessage as error:
        log.warning("refused a hello: %s", error)
        return
    if not admission.hear(subject, hello):
        return
    await presence.heard(hello.node, await rosters.on_hello(hello))
    for fog, below in told_under(presence, partial(is_of, hello.node), admission.names, hello).items():
        await presence.told_of(fog, below)
    await planner.on_hello(hello)
    await news.on_hello(hello)


def told_under(
    presence: Presence,
    is_own: Callable[[str, Collection[str]], bool],
    names: Collection[str],
    hello: Hello,
) -> dict[str, tuple[str, ...]]:
    """The fogs under a fog, each with the children that it may tell of.

    A fog that it told of before and does not now has none. ``is_own``: whether it may speak of a node.
    """

    def own(nodes: Sequence[str]) -> tuple[str, ...]:
        return tuple(each for each in nodes if is_own(each, names))

    found = {fog: own(below) for fog, below in hello.fogs.items() if fog not in names and own((fog,))}
    above = presence.above
    before = {fog for fog in above if top_of(fog, {}, above) == hello.node}
    return {**found, **dict.fromkeys(before - found.keys(), ())}


async def take_roster(
    admission: Admission, presence: Presence, rosters: Rosters, subject: str, data: bytes
) -> None:
    """Note which edges came to a fog and which went; nobody else than it may publish on its subject."""
    fog = subject.removeprefix("roster.")
    if fog not in admission.names:
        log.warning("refused a roster of %s, which is no fog here", fog)
        return
    try:
        heard = await rosters.on_roster(fog, data)
    except BadMessage as error:
        log.warning("refused a roster on %s: %s", subject, error)
        return
    await presence.heard(fog, heard)
