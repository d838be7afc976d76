"""Answers leave to a sink only as the site's policy says, and its ledger has every byte before."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from reuna.adapters.clock import ThreadOffload
from reuna.core.errors import BadMessage, Refused, SettingsError, Unreachable
from reuna.core.notices import Notice
from reuna.core.outcomes import Outcome
from reuna.core.sink_settings import FileTarget, SinkSettings
from reuna.core.sinks import Chosen, Said
from reuna.exchange.declared_sinks import declared
from reuna.exchange.flows import Passage, SiteFlows
from reuna.exchange.intents import Standing
from reuna.exchange.link import EgressSettings
from reuna.exchange.sinks import SinkGate, open_gate, opened
from reuna.trust.ledger import Entry
from reuna.trust.policy import FlowRule, Limits, Policy, digest
from reuna.trust.policy_text import parse

SAID = EgressSettings(
    name="edge-1", parent="fog-1", parent_identity="", nats_url="", freight_host="", freight_port=1,
    certificate="", key="", authority="", folder="", fleet="line", root="", policy="",
    bus=("gateway", "fog-1"), freight=("gateway", "fog-1"),
)  # fmt: skip
ADDRESS = "file:/answers"
SETTINGS = SinkSettings("archive", "file", FileTarget("/answers"), Chosen(), 1.0)
OF_ALARMS = SinkSettings("alarms", "file", FileTarget("/alarms"), Chosen("alarms"), 1.0)
DRIFT = Notice("inputs", "p", "d" * 64, "", "raised", 5, 5, ("oil",), 600, 1)
POLICY = parse(
    """
format = "reuna/policy/v1"
site = "mill"
serial = 3
valid = { from = 1970-01-01, until = 2100-01-01 }
signers = { threshold = 1, keys = { officer = "%s" } }
recipients = { archive = "file:/answers", other = "https://alarms.plant/" }
[[flows]]
kind = "prediction"
to = ["archive"]
max_values_per_round = 6
max_rounds_per_day = 2
"""
    % ("ab" * 32),
    "policy.toml",
)


class Written:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def append_all(self, entries: Sequence[Entry]) -> list[int]:
        self.entries += entries
        return list(range(len(self.entries) - len(entries), len(self.entries)))

    def of(self, kind: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == kind]


class Noon:
    time = 12 * 3600.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


class Counterpart:
    """A sink that keeps what comes, is away, or takes nothing."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.away = False
        self.takes = True
        self.tries = 0

    def encode(self, said: Said) -> tuple[bytes, ...]:
        return tuple(map(msgspec.json.encode, said))

    async def send(self, messages: Sequence[bytes]) -> bool:
        self.tries += 1
        if self.away:
            raise Unreachable("it is away")
        self.got += messages if self.takes else ()
        return self.takes

    async def close(self) -> None:
        pass


class Site:
    def __init__(self) -> None:
        self.ledger, self.sink, self.clock = Written(), Counterpart(), Noon()
        self.standing = Standing(POLICY, digest(POLICY))
        self.flows = SiteFlows(self.ledger, lambda _now: self.standing, self.clock, ())
        self.gate = SinkGate(
            "edge-1", [SETTINGS, OF_ALARMS], lambda _: self.sink, self.flows, self.in_time, self.clock
        )

    async def in_time(self, ask: Callable[[], Passage]) -> Passage:
        return ask()

    def put(self, policy: Policy) -> None:
        self.standing = Standing(policy, digest(policy))

    async def deliver(self, number: int = 1, answers: int = 2) -> bool:
        return await self.gate.deliver("archive", number, [outcome(number + each) for each in range(answers)])


def outcome(number: int) -> Outcome:
    return Outcome("p", 1, "d" * 64, number, number + 2, "answered", 1.0, (0.25, 0.75))


@pytest.fixture
def site() -> Site:
    return Site()


async def test_what_arrives_is_what_the_ledger_says_byte_for_byte(site: Site) -> None:
    assert await site.deliver()
    site.flows.flush()
    (intent,), (became,) = site.ledger.of("intent"), site.ledger.of("outcome")
    data = b"".join(site.sink.got)
    assert (intent.flow, intent.to, intent.rule) == ("prediction", ADDRESS, "flows[1] prediction")
    assert intent.payload_bytes == len(data)
    assert intent.payload == hashlib.sha256(hashlib.sha256(data).digest()).hexdigest()
    assert (intent.values, intent.run, intent.round) == (6, "sink/archive", 1)
    assert became.reason == "acknowledged"


async def test_an_address_that_no_rule_names_gets_nothing_and_the_ledger_says_so(site: Site) -> None:
    site.put(msgspec.structs.replace(POLICY, flows=(FlowRule("prediction", ("other",)),)))
    assert not await site.deliver()
    assert site.sink.tries == 0
    (refused,) = site.ledger.of("refused")
    assert (refused.flow, refused.to) == ("prediction", ADDRESS)


async def test_without_a_rule_for_predictions_none_leaves(site: Site) -> None:
    site.put(msgspec.structs.replace(POLICY, flows=()))
    assert not await site.deliver()
    assert site.sink.tries == 0


async def test_a_delivery_is_a_round_so_that_its_numbers_and_the_days_rounds_are_bounded(site: Site) -> None:
    assert not await site.deliver(1, answers=3), "nine numbers, and six are allowed"
    assert await site.deliver(1)
    assert await site.deliver(3)
    with pytest.raises(Refused, match="round"):  # the gate waits for tomorrow; `in_time` here does not
        raise_until(await deliver_raw(site, 5))


async def deliver_raw(site: Site, number: int) -> Refused:
    """Why a delivery has to wait."""
    found: list[Refused] = []

    async def noted(ask: Callable[[], Passage]) -> Passage:
        try:
            return ask()
        except Refused as refusal:
            found.append(refusal)
            raise

    site.gate._in_time = noted  # type: ignore[assignment]
    assert not await site.deliver(number)
    return found[0]


def raise_until(refusal: Refused) -> None:
    assert refusal.until == 24 * 3600.0
    raise refusal


async def test_the_same_answers_again_leave_under_the_entry_they_have(site: Site) -> None:
    site.put(msgspec.structs.replace(POLICY, limits=Limits(bytes_per_day=600)))  # room for one, not for two
    site.sink.away = True
    for _ in range(3):
        with pytest.raises(Unreachable):
            await site.deliver()
    site.sink.away = False
    assert await site.deliver()
    assert len(site.ledger.of("intent")) == 1


async def test_what_waits_for_a_sink_does_not_leave_once_the_policy_stops_it(site: Site) -> None:
    site.sink.away = True
    with pytest.raises(Unreachable):
        await site.deliver()
    site.sink.away = False
    site.put(msgspec.structs.replace(POLICY, serial=4, flows=()))
    assert not await site.deliver()
    site.put(POLICY)
    site.standing = msgspec.structs.replace(site.standing, stopped=True)
    assert not await site.deliver()
    assert site.sink.got == []


async def test_what_the_receiver_never_takes_is_refused_and_written_down(site: Site) -> None:
    site.sink.takes = False
    assert not await site.deliver()
    site.flows.flush()
    assert [each.reason for each in site.ledger.of("outcome")] == ["refused: receiver"]


async def test_a_sink_that_is_not_declared_is_a_bad_message(site: Site) -> None:
    with pytest.raises(BadMessage, match="no sink 'other'"):
        await site.gate.deliver("other", 1, [outcome(1)])


def test_a_mistake_in_the_file_is_told_at_its_line(tmp_path: Path) -> None:
    file = tmp_path / "sinks.toml"
    file.write_text('[sinks.a]\nkind = "file"\nfolder = "here"\n')
    with pytest.raises(SettingsError, match=r"sinks\.toml:3:1: sinks\.a\.folder"):
        declared(str(file))
    assert declared("") == ()


async def test_a_file_with_mistakes_stops_no_egress(
    tmp_path: Path, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "sinks.toml"
    file.write_text("[sinks.a]\n")
    settings = msgspec.structs.replace(SAID, sinks=str(file))
    gate = open_gate(settings, site.flows, site.in_time)
    assert "no answer leaves: R101" in caplog.text
    with pytest.raises(BadMessage):
        await gate.deliver("a", 1, [outcome(1)])


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ('kind = "file"\nfolder = "/answers"', "FileSink"),
        ('kind = "webhook"\nurl = "https://alarms.plant/"', "WebhookSink"),
        ('kind = "mqtt"\nhost = "broker.plant"\ntopic = "t"', "MqttSink"),
        ('kind = "sparkplug"\nhost = "broker.plant"\ngroup = "g"\nnode = "n"', "SparkplugSink"),
        ('kind = "opcua"\nurl = "opc.tcp://press"\nnode = "ns=2;s=A"\nsecurity = "none"', "OpcUaSink"),
    ],
)
async def test_each_kind_is_opened_by_its_adapter(tmp_path: Path, table: str, kind: str) -> None:
    file = tmp_path / "sinks.toml"
    file.write_text(f"[sinks.a]\n{table}\n")
    (settings,) = declared(str(file))
    sink = opened(settings, ThreadOffload())
    assert type(sink).__name__ == kind
    await sink.close()


async def test_over_the_line_between_place_and_egress_it_is_the_same(site: Site) -> None:
    import socket

    from reuna.exchange.link import Frames, LinkServer, RemoteLink

    ours, theirs = socket.socketpair()
    place, egress = await Frames.over(ours), await Frames.over(theirs)

    class Nothing:
        async def listen(self, _handle: object) -> None:
            """No plan comes."""

    link = RemoteLink(place)
    tasks = [
        asyncio.create_task(LinkServer(egress, Nothing(), Nothing(), site.gate, Nothing(), Nothing()).run()),  # type: ignore[arg-type]
        asyncio.create_task(link.run()),
    ]
    assert await link.deliver("archive", 1, [outcome(1)])
    site.sink.away = True
    with pytest.raises(Unreachable, match="it is away"):
        await link.deliver("archive", 2, [outcome(2)])
    place.close()
    egress.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def letting_alarms_out(**more: object) -> Policy:
    rule = FlowRule("statistic", ("alarms",), **more)  # type: ignore[arg-type]
    recipients = {**POLICY.recipients, "alarms": "file:/alarms"}
    return msgspec.structs.replace(POLICY, recipients=recipients, flows=(rule,))


async def test_a_nodes_own_alarm_leaves_as_a_statistic(site: Site) -> None:
    assert not await site.gate.warn("alarms", 1, [DRIFT]), "no rule lets statistics go there"
    site.put(letting_alarms_out(min_cell=100))
    assert await site.gate.warn("alarms", 2, [DRIFT])
    site.flows.flush()
    (intent,) = site.ledger.of("intent")
    assert (intent.flow, intent.to, intent.run, intent.round) == (
        "statistic",
        "file:/alarms",
        "sink/alarms",
        2,
    )
    assert b'"node":"edge-1"' in site.sink.got[0]


async def test_an_alarm_of_fewer_rows_than_the_site_lets_out_stays(site: Site) -> None:
    site.put(letting_alarms_out(min_cell=601))
    assert not await site.gate.warn("alarms", 1, [DRIFT])
    few = msgspec.structs.replace(DRIFT, rows=9)
    site.put(letting_alarms_out(min_cell=10))
    assert not await site.gate.warn("alarms", 2, [DRIFT, few])
    assert site.sink.tries == 0


async def test_an_alarm_that_waits_stops_when_its_rule_is_taken_away(site: Site) -> None:
    site.put(letting_alarms_out())
    site.sink.away = True
    with pytest.raises(Unreachable):
        await site.gate.warn("alarms", 1, [DRIFT])
    site.sink.away = False
    site.put(msgspec.structs.replace(POLICY, flows=()))
    assert not await site.gate.warn("alarms", 1, [DRIFT])
    assert site.sink.got == []


async def test_a_sink_of_alarms_is_given_no_answer_and_one_of_answers_no_alarm(site: Site) -> None:
    with pytest.raises(BadMessage, match="no sink 'alarms' of"):
        await site.gate.deliver("alarms", 1, [outcome(1)])
    with pytest.raises(BadMessage, match="no sink 'archive' of alarms"):
        await site.gate.warn("archive", 1, [DRIFT])
