"""Who may speak at a parent right now, and what follows when that changes.

Names come from the settings file and from the register, without those revoked here or above and
those whose certificate has ended. `watch` looks once a second, so that a command, a renewal and a
revocation take effect without a restart and without touching anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.register import Alarm, Register
from reuna.adapters.tls import ends_s, identity_of
from reuna.core.errors import BadMessage, PermissionDenied, ReunaError
from reuna.core.pace import Pace
from reuna.core.ports import Clock, Offload
from reuna.core.records import Hello, Identity, Setting
from reuna.core.tally import Tally
from reuna.trust.enrolment import Boots, Node, hear
from reuna.wire import OLDEST, VERSION, agreed

log = logging.getLogger("reuna.admission")
LOOK_S = 1.0
HEARD_S = 10.0  #: how often the register is told who was heard; of whom it knows nothing yet, at once
HELLOS_PER_S = 5.0  #: of one child: a new one says it four times in its first second
HELLOS_AHEAD = 50
LONGEST_VERSION = 40  #: characters of what a node calls its version
IN_FORCE_S = 10.0  #: how long a machine that enrols is kept until the servers know it


class Admission:
    """The names of one parent's children; `admit` is asked about each request.

    ``role`` and ``site`` are of those children; at a fog there may be ``fogs`` beside its edges.
    ``above``: a file of names revoked by the parent.
    """

    def __init__(
        self,
        fleet: str,
        role: str,
        site: str,
        register: Register,
        listed: Collection[str],
        clock: Clock,
        above: Path | None = None,
        fogs: Collection[str] = (),
    ) -> None:
        self.fleet = fleet
        self.listed = frozenset(listed)
        self.listed_fogs = frozenset(fogs)
        self._fogs = self.listed_fogs  #: names that are those of fogs, at a fog
        self.register = register
        self._of = (fleet, role, site)
        self._clock = clock
        self._above = above
        self._pace, self._tally = Pace(HELLOS_PER_S, HELLOS_AHEAD), Tally()
        self._boots: dict[str, Boots] = {}
        self._heard: dict[str, float] = {}
        self._noted: set[str] = set()  #: names that the register was told of since they came
        self._spoken: dict[str, tuple[str, int]] = {}  #: version of Reuna and of the protocol, where new
        self._strange: dict[str, str] = {}  #: names that speak no protocol of ours -> what is said of it
        self._back: set[str] = set()  #: names that were out, and were not heard of since they came back
        self._turn = asyncio.Event()  #: set, and replaced, each time ``names`` changes
        self.names = self.now_admitted()

    def now_admitted(self) -> frozenset[str]:
        """Names admitted at this moment, from what is written down."""
        now, listed = self._clock.now(), self.listed | self.listed_fogs
        own = [node for node in self.register.nodes() if self._is_child(node)]
        known = {node.name: node.state(now) for node in own}
        active = {name for name, state in known.items() if state == "active"}
        self._fogs = self.listed_fogs | {node.name for node in own if node.role == "fog"}
        return (listed - known.keys() | active) - _names_in(self._above) - self.register.held()

    def _is_child(self, node: Node) -> bool:
        """Whether a node speaks here. The cloud also knows fogs that stand under other fogs."""
        role, site = self._of[1:]
        if node.role == "fog" and not site:
            return role == "fog" and node.site in {node.name, ""}
        return node.role in {role, ""} or (node.role == "fog" and bool(site))

    def revoked_above(self) -> frozenset[str]:
        """Names that were revoked further up."""
        return _names_in(self._above)

    @property
    def fogs(self) -> frozenset[str]:
        """Those of the children that are fogs, at a fog."""
        return self._fogs & self.names

    def is_fog(self, name: str) -> bool:
        """Whether a child of that name is a fog under this one."""
        return name in self._fogs

    def take_over(self, names: frozenset[str]) -> None:
        """``names`` are admitted from now on."""
        self._back |= self.names - names
        self._noted &= names
        self.names, turn, self._turn = names, self._turn, asyncio.Event()
        turn.set()

    async def in_force(self, name: str) -> None:
        """Return when ``name`` is admitted, or after `IN_FORCE_S`: then the machine has to try again."""

        async def admitted() -> None:
            while name not in self.names:
                await self._turn.wait()

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(admitted(), IN_FORCE_S)

    def identity(self, name: str) -> Identity:
        """Who a child of that name is."""
        fleet, role, site = self._of
        return Identity(fleet, "fog" if self.is_fog(name) else role, name, site)

    def admit(self, peercert: Mapping[str, Any]) -> Identity:
        """Who asks, when it may. Raises `PermissionDenied`, or `ConnectionResetError` when the
        certificate of the connection has ended: the child comes again with its new one.
        """
        try:
            identity = identity_of(peercert)
            if identity != self.identity(identity.name) or identity.name not in self.names:
                raise PermissionDenied(f"{identity.uri} is not admitted here")
            if identity.name in self._strange:
                raise PermissionDenied(self._strange[identity.name])
        except PermissionDenied as error:
            log.warning("refused a request: %s", error)
            raise
        if ends_s(peercert["notAfter"]) <= self._clock.now():
            raise ConnectionResetError(f"the certificate of {identity.uri} has ended")
        return identity

    def listens(self, subject: str) -> bool:
        """Whether a hello on that subject is looked at: who says it all the time is heard now and then."""
        if self._pace.allows(subject, self._clock.now()):
            return True
        if times := self._tally.count(subject, "flood"):
            name = subject.removeprefix("hello.")
            log.warning(
                "refused a hello of %s: it says more than %g a second; %d times", name, HELLOS_PER_S, times
            )
        return False

    def hear(self, subject: str, hello: Hello) -> bool:
        """Take in a hello; False when it is not for its own name, or of one that speaks no protocol of ours.

        A cloned node raises an alarm, and is held: which of the two is the thief only a person can tell.
        """
        if subject != f"hello.{hello.node}":
            log.warning("refused a hello of %s on %s", hello.node, subject)
            return False
        self._heard[hello.node] = self._clock.now()
        self._spoken[hello.node] = (hello.version[:LONGEST_VERSION], hello.protocol)
        if hello.node in self.names and self._doubled(hello):
            said = "the same key speaks from two places; both are refused until you revoke or release it"
            self.register.hold(hello.node, self._clock.now())
            if self.register.alarm(Alarm(hello.node, hello.boot, self._clock.now(), said)):
                log.error("alarm: %s: %s", hello.node, said)
        return self._understood(hello)

    def _understood(self, hello: Hello) -> bool:
        """Whether we speak with it. Said once: such a node gives and gets nothing until it is upgraded."""
        if agreed(hello.oldest, hello.protocol) is not None:
            self._strange.pop(hello.node, None)
            return True
        theirs = f"{hello.oldest} to {hello.protocol}" if hello.oldest < hello.protocol else hello.protocol
        step = "bring it to this version" if hello.protocol < OLDEST else "bring this place to its version"
        said = (
            f"{hello.node} (Reuna {hello.version[:LONGEST_VERSION]!r}) speaks protocol {theirs},"
            f" this place {OLDEST} to {VERSION}: {step}"
        )
        if self._strange.get(hello.node) != said:
            self._strange[hello.node] = said
            log.error("refused: %s", said)
        return False

    def _doubled(self, hello: Hello) -> bool:
        """Whether a start that was over speaks again. Whoever is the first of a released name may go on."""
        self._boots[hello.node], doubled = hear(self._boots.get(hello.node, Boots()), hello.boot)
        first = hello.node in self._back
        self._back.discard(hello.node)
        return doubled and not first

    def newly_heard(self) -> bool:
        """Whether somebody was heard of whom the register was not told yet."""
        return not self._heard.keys() & self.names <= self._noted

    async def note_heard(self, offload: Offload) -> None:
        """Write down who was heard since the last time."""
        heard, self._heard = self._heard, {}
        spoken = dict(self._spoken)
        await offload(lambda: self._note(heard, spoken))
        self._noted |= heard.keys() & self.names

    def _note(self, heard: Mapping[str, float], spoken: Mapping[str, tuple[str, int]]) -> None:
        if heard:
            self.register.heard(heard)
        known = self.register.last_spoken()
        new = {name: said for name, said in spoken.items() if known.get(name) != said}
        if new:
            self.register.spoken(new)


Names = frozenset[str]
OnNames = Callable[[Names, Names], Awaitable[None]]  #: before, after


async def watch(
    admission: Admission,
    files: Sequence[Path],
    on_names: OnNames,
    on_files: Callable[[], Awaitable[None]],
    clock: Clock,
    offload: Offload,
) -> None:
    """Tell of changed names and of renewed certificate files. Runs until cancelled.

    What failed is tried again a second later.
    """
    seen, told, noted = _stamps(files), admission.names, clock.now()
    while True:
        await clock.sleep(LOOK_S)
        try:
            names = await offload(admission.now_admitted)  # the register may be a server that is away
            admission.take_over(names & told)  # who is out is out at once, who is new waits for the servers
            if names != told:
                await on_names(told, names)
                told = names
                admission.take_over(names)
                log.info("admitted are now %s", ", ".join(sorted(names)) or "none")
            if (stamps := _stamps(files)) != seen:
                await on_files()
                seen = stamps
            if clock.now() - noted >= HEARD_S or admission.newly_heard():
                noted = clock.now()
                await admission.note_heard(offload)
        except (ReunaError, OSError) as error:
            log.error("a change was not taken over yet: %s", error)


def _stamps(files: Sequence[Path]) -> list[tuple[int, int]]:
    return [(stat.st_mtime_ns, stat.st_ino) for stat in (file.stat() for file in files)]


def _names_in(file: Path | None) -> frozenset[str]:
    """Names in a list kept by `reuna.exchange.renewal.follow_revoked`; one not there yet is empty."""
    if file is None or not file.exists():
        return frozenset()
    return frozenset(json.loads(file.read_bytes()))


def node_fields(node: Node) -> dict[str, Setting]:
    """A node of a site, as the fields of an event to the cloud."""
    ended = -1.0 if node.revoked is None else node.revoked
    return {**msgspec.structs.asdict(node), "revoked": ended}


def read_node(site: str, fields: Mapping[str, Setting]) -> Node:
    """The edge, or the fog under it, that a fog told of. Raises `BadMessage`."""
    _check_finite(f"a node of {site}", fields)
    ended, role = fields.get("revoked"), "fog" if fields.get("role") == "fog" else "edge"
    values = {**fields, "revoked": None if ended == -1.0 else ended, "role": role, "site": site}
    try:
        return msgspec.convert(values, Node)
    except msgspec.ValidationError as error:
        raise BadMessage(f"a node of {site} cannot be read: {error}") from error


def _check_finite(what: str, fields: Mapping[str, Setting]) -> None:
    """No time is infinite, and a database takes what is no number for what is missing."""
    for name, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BadMessage(f"{what} cannot be read: {name!r:.40} is {value}")


def alarm_fields(alarm: Alarm) -> dict[str, Setting]:
    """An alarm of a site, as the fields of an event to the cloud."""
    return dict(alarm._asdict())


def read_alarm(fields: Mapping[str, Setting]) -> Alarm:
    """The alarm that a fog told of. Raises `BadMessage`."""
    _check_finite("an alarm", fields)
    try:
        return msgspec.convert([fields.get(name) for name in Alarm._fields], Alarm)
    except msgspec.ValidationError as error:
        raise BadMessage(f"an alarm cannot be read: {error}") from error
