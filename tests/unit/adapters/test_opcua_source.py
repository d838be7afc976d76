"""A source of kind `opcua` over a library that is a fake: pauses, gaps and what waits, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from asyncua import ua

from reuna.adapters.opcua import session as sessions
from reuna.adapters.opcua import source
from reuna.adapters.opcua.connection import _check_token
from reuna.adapters.opcua.refusals import Lost, in_our_words
from reuna.adapters.opcua.session import Message, Session
from reuna.adapters.opcua.source import OpcUaSource
from reuna.core.errors import Unreachable
from reuna.core.opcua_values import Heard
from reuna.core.sources import NS, Batch, check_batch, ns_of
from reuna.sim.clock import EPOCH, InPlace, SimClock, run_virtual
from tests.opcua import settings, tag

START = ns_of(EPOCH)
TAGS = [tag("oil"), tag("heat")]


class Noting(SimClock):
    """Notes how long was waited between two connections."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await super().sleep(seconds)


class Fake:
    """A library whose server gives one reading a second, and goes away after some seconds."""

    Lost = Lost

    def __init__(self, *lasts_s: int, refuses: tuple[int, ...] = ()) -> None:
        self.lasts_s = list(lasts_s)
        self.refuses = refuses
        self.filled: list[tuple[int, int]] = []
        self.offset_ns = 0
        self.fill_s = 0.0
        self.also = False  #: gives the second tag, too, at the very first
        self.joined = 0

    @asynccontextmanager
    async def opened(self, said: Any, clock: Any, offload: Any, strict: bool) -> AsyncIterator[Fake]:
        if not self.lasts_s:
            raise Unreachable("refused") if strict else Lost("away")
        self.clock, self.left, self.number = clock, self.lasts_s.pop(0), 0
        if not self.left:
            raise Lost("away")
        yield self

    async def start(self) -> dict[str, list[int]]:
        return {"refused": list(self.refuses)} if self.refuses else {}

    async def join(self, places: Sequence[int]) -> dict[str, list[int]]:
        self.joined += 1
        return {"refused": list(places)} if self.joined < 3 else {}

    async def fill(self, first_ns: int, last_ns: int) -> bool:
        self.filled.append((first_ns, last_ns))
        await asyncio.sleep(self.fill_s)
        return True

    async def next(self) -> Message:
        if not self.left:
            raise Lost("gone")
        await asyncio.sleep(1)
        self.left -= 1
        self.number += 1
        heard, now_ns = Heard(), ns_of(self.clock.now()) + self.offset_ns
        heard.add(0, now_ns, 1.0, 0)
        if self.also and self.number == 1:
            heard.add(1, now_ns, 2.0, 0)
            self.also = False
        return Message(heard, self.number, now_ns)


def given(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, seconds: float, after_ns: int | None = None, **more: Any
) -> Any:
    """Batches of that long, the pauses, and what ended it."""
    monkeypatch.setattr(source, "_library", lambda: fake)

    async def run() -> tuple[list[Batch], list[float]]:
        clock = Noting()
        made = OpcUaSource(settings("opc.tcp://x", TAGS, **more), clock, InPlace(), after_ns)
        found: list[Batch] = []

        async def take() -> None:
            async for batch in made.batches():
                check_batch(batch, made.tags)
                found.append(batch)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(take(), seconds)
        return found, clock.pauses

    return run_virtual(run())


def test_a_server_that_goes_at_once_each_time_is_left_alone_ever_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, pauses = given(Fake(*[1] * 9), monkeypatch, 60)
    assert pauses[:9] == [0, 0.25, 0.5, 1, 2, 4, 5, 5, 5]


def test_after_a_connection_that_lasted_the_pauses_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pauses = given(Fake(1, 0, 0, 0, 30, 1, 0), monkeypatch, 60)
    assert pauses[:7] == [0, 0.25, 0.5, 1, 0, 0.25, 0.5]


def test_the_time_between_two_connections_is_one_stretch_of_gaps_in_the_servers_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Fake(20, 0, 0, 5)
    fake.offset_ns = 100 * NS
    batches, _ = given(fake, monkeypatch, 26)
    gaps = [gap for batch in batches for gap in batch.gaps]
    assert [gap.reason for gap in gaps][:3] == ["gone", "away", "nothing was read until now"]
    assert gaps[0].first_ns == START + 120 * NS
    assert [gap.first_ns for gap in gaps[1:3]] == [gap.last_ns for gap in gaps[:2]]
    assert gaps[2].last_ns == START + 120 * NS + NS * 3 // 4  # pauses of 0, 0.25 and 0.5 s
    around = ns_of(2 * 0.05)
    assert fake.filled == [(gaps[0].first_ns - around, gaps[2].last_ns + around)]


def test_only_what_this_connection_gave_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(5, 30)
    fake.also = True
    batches, _ = given(fake, monkeypatch, 30, unchanged_s=2.0)
    heat = [time for b in batches if "heat" in b.columns for time in b.columns["heat"].times.tolist()]
    assert heat == [START + second * NS for second in (1, 3, 5)]


def test_what_was_never_read_has_no_history_and_what_is_old_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Fake(5)
    given(fake, monkeypatch, 3)
    assert fake.filled == []
    fake = Fake(5)
    given(fake, monkeypatch, 3, after_ns=1)
    ((first_ns, last_ns),) = fake.filled
    assert last_ns - first_ns == 86_400 * NS + ns_of(0.1)


def test_a_cancellation_that_the_library_loses_ends_the_source_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Losing(Fake):
        @asynccontextmanager
        async def opened(self, said: Any, clock: Any, offload: Any, strict: bool) -> AsyncIterator[Fake]:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                raise Lost("closed") from None
            yield self

    monkeypatch.setattr(source, "_library", lambda: Losing())

    async def run() -> bool:
        made = OpcUaSource(settings("opc.tcp://x", TAGS), SimClock(), InPlace())
        task = asyncio.ensure_future(anext(made.batches()))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert run_virtual(run())


def test_history_that_a_break_cut_off_is_read_again_from_its_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(5, 5, 20, 5)
    fake.fill_s = 7.0
    given(fake, monkeypatch, 37)
    first, second, third = (first_ns for first_ns, _ in fake.filled)
    assert first == second == START + 5 * NS - ns_of(0.1)
    assert third > START + 20 * NS, "what was read once is not read again"


def test_a_tag_that_is_refused_is_told_and_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "AGAIN_S", 3.0)
    fake = Fake(20, refuses=(1,))
    batches, _ = given(fake, monkeypatch, 15)
    told = [gap for batch in batches for gap in batch.gaps]
    assert [(gap.tags, gap.reason) for gap in told] == [(("heat",), "refused")] * 3
    assert told[1].last_ns - told[1].first_ns == 3 * NS
    assert fake.joined == 3


def made_session(**more: Any) -> Session:
    client: Any = None
    return Session(client, settings("opc.tcp://x", TAGS, **more), SimClock(), patience_s=5.0)


def published(*data: Any, number: int = 1) -> ua.PublishResult:
    said = ua.NotificationMessage(SequenceNumber=number, NotificationData=list(data))
    return ua.PublishResult(1, NotificationMessage=said)


def test_while_what_came_waits_the_server_is_not_asked_for_more() -> None:
    async def run() -> list[bool]:
        session = made_session()
        for number in range(sessions.WAITING):
            await session._published(published(number=number))
        more = asyncio.create_task(session._published(published()))
        await asyncio.sleep(1)
        waits = more.done()
        await session.next()
        await asyncio.sleep(1)
        return [waits, more.done()]

    assert run_virtual(run()) == [False, True]


@pytest.mark.parametrize("ticks", range(4))
def test_who_is_cancelled_while_a_message_comes_is_cancelled(ticks: int) -> None:
    async def run() -> bool:
        session = made_session()
        waits = asyncio.create_task(session.next())
        await asyncio.sleep(0)
        await session._published(published())
        for _ in range(ticks):
            await asyncio.sleep(0)
        too_late = not waits.cancel()
        await asyncio.wait({waits})
        return too_late or waits.cancelled()

    assert run_virtual(run())


def test_silence_and_the_end_of_a_subscription_are_the_end_of_a_connection() -> None:
    async def run() -> list[str]:
        said = []
        session = made_session()
        for work in ("nothing", "timeout"):
            if work == "timeout":
                ended = ua.StatusChangeNotification(Status=ua.StatusCode(ua.StatusCodes.BadTimeout))
                await session._published(published(ended))
            try:
                await session.next()
            except Lost as lost:
                said.append(str(lost))
        return said

    assert run_virtual(run()) == ["no sign of life for 5 s", "the server ended the subscription: BadTimeout"]


@pytest.mark.parametrize(("stamps", "found_s"), [("source", 1.0), ("server", 2.0), ("arrival", EPOCH)])
def test_the_settings_say_whose_time_a_reading_has(stamps: str, found_s: float) -> None:
    moments = [datetime.fromtimestamp(second, UTC) for second in (1, 2)]
    value = ua.DataValue(ua.Variant(1.5), SourceTimestamp=moments[0], ServerTimestamp=moments[1])
    item = ua.MonitoredItemNotification(ClientHandle=0, Value=value)
    unknown = ua.MonitoredItemNotification(ClientHandle=9, Value=value)

    async def run() -> Message:
        session = made_session(timestamps=stamps)
        await session._published(published(ua.DataChangeNotification(MonitoredItems=[item, unknown])))
        return await session.next()

    message = run_virtual(run())
    assert message.heard.times == [ns_of(found_s)]
    assert (message.sent_ns == START) is (stamps == "arrival")


def endpoint(policy: str, *tokens: ua.UserTokenPolicy) -> ua.EndpointDescription:
    return ua.EndpointDescription(SecurityPolicyUri=policy, UserIdentityTokens=list(tokens))


def test_a_password_does_not_leave_where_it_could_be_read() -> None:
    none = "http://opcfoundation.org/UA/SecurityPolicy#None"
    token = ua.UserTokenPolicy(TokenType=ua.UserTokenType.UserName, SecurityPolicyUri=none)
    signed = settings("opc.tcp://x", TAGS, security="Basic256Sha256", mode="Sign", user="anna")
    with pytest.raises(Unreachable, match="would take the password unencrypted"):
        _check_token(endpoint("a policy", token), signed)
    with pytest.raises(Unreachable, match="takes no user names"):
        _check_token(endpoint("a policy", ua.UserTokenPolicy(TokenType=ua.UserTokenType.Anonymous)), signed)
    hidden = settings("opc.tcp://x", TAGS, security="Basic256Sha256", user="anna", mode="SignAndEncrypt")
    _check_token(endpoint("a policy", token), hidden)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (TimeoutError(), Lost, "does not answer"),
        (ConnectionError("Connection is closed"), Lost, "Connection is closed"),
        (ValueError("junk"), Lost, "answers what is no OPC UA: junk"),
        (ua.UaStatusCodeError(ua.StatusCodes.BadTooManySessions), Lost, "BadTooManySessions"),
        (
            ua.UaStatusCodeError(ua.StatusCodes.BadInvalidTimestamp),
            Unreachable,
            "refuses this machine's time",
        ),
        (ua.UaStatusCodeError(ua.StatusCodes.BadSecurityModeRejected), Unreachable, "refuses security none"),
        (ua.UaError("No matching endpoints: 1, None"), Unreachable, "does not offer security none"),
    ],
)
def test_what_may_pass_by_itself_is_told_from_what_may_not(
    error: Exception, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said), in_our_words(settings("opc.tcp://x", TAGS)):
        raise error


def test_a_server_whose_history_is_no_service_gives_none() -> None:
    async def refuse(asked: Any) -> Any:
        raise ua.UaStatusCodeError(ua.StatusCodes.BadServiceUnsupported)

    async def broken(asked: Any) -> Any:
        raise ConnectionError("gone")

    async def run() -> list[bool]:
        session = made_session()
        session.limits, session.nodes = {"history": 0}, {0: ua.NodeId(1)}
        whole = []
        for read in (refuse, broken):
            session.client = SimpleNamespace(uaclient=SimpleNamespace(history_read=read))
            whole.append(await session.fill(0, NS))
        assert session._queue.empty()
        return whole

    assert run_virtual(run()) == [True, False]
