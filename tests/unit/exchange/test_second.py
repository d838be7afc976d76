"""A window leaves for the fog only as the site's policy says, once, and its ledger has every byte before."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from reuna.adapters.clock import ThreadOffload
from reuna.core.errors import BadMessage, Refused, SettingsError, Unreachable
from reuna.core.second import Doubtful, Opinion, Opinions, Window
from reuna.exchange.flows import SiteFlows
from reuna.exchange.intents import Standing
from reuna.exchange.second import SecondOpinions
from reuna.trust.explain import explain
from reuna.trust.policy import Policy, digest
from reuna.trust.policy_text import parse
from reuna.wire import encode
from tests.unit.exchange.test_sinks import Noon, Written

FOG = "spiffe://north.line/gateway/north"
TEXT = """
format = "reuna/policy/v1"
site = "mill"
serial = 3
valid = {{ from = 1970-01-01, until = 2100-01-01 }}
signers = {{ threshold = 1, keys = {{ officer = "{key}" }} }}
recipients = {{ gateway = "{fog}", south = "spiffe://south.line/gateway/south", cloud = "spiffe://line/cloud/cloud" }}
[[flows]]
kind = "window"
to = ["{to}"]
{more}
"""
ASKED = Doubtful(
    "big", 1.0, 10**9, {"a": "bar", "b": "degC"},
    (Window(5 * 10**9, 0, 2, {"a": (bytes(16), b"\1\1"), "b": (bytes(16), b"\1\1")}),), 0.2,
)  # fmt: skip
SAID = Opinions(7, "e" * 64, (Opinion(True, False, 1.0, (0.1, 0.9)),))


def policy(more: str = "", to: str = "gateway") -> Policy:
    return parse(TEXT.format(key="ab" * 32, fog=FOG, to=to, more=more), "policy.toml")


class Site:
    def __init__(self) -> None:
        self.ledger, self.clock, self.sent = Written(), Noon(), list[bytes]()
        self.put(policy())
        self.flows = SiteFlows(self.ledger, lambda _now: self.standing, self.clock, ())
        self.answers: Callable[[], Awaitable[bytes]] = self.at_once
        self.fog = SecondOpinions(FOG, self.flows, self, self.clock, ThreadOffload())

    async def at_once(self) -> bytes:
        return encode(SAID)

    async def advise(self, data: bytes) -> bytes:
        self.sent.append(data)
        return await self.answers()

    def put(self, policy: Policy) -> None:
        self.standing = Standing(policy, digest(policy))

    def became(self) -> list[str]:
        self.flows.flush()
        return [each.reason for each in self.ledger.of("outcome")]


@pytest.fixture
def site() -> Site:
    return Site()


async def test_what_is_sent_is_what_the_ledger_says(site: Site) -> None:
    assert await site.fog.advise(ASKED) == SAID
    (data,) = site.sent
    (intent,) = site.ledger.of("intent")
    assert (intent.flow, intent.to, intent.rule) == ("window", FOG, "flows[1] window")
    assert (intent.payload_bytes, intent.run, intent.round, intent.values) == (len(data), "fog/big", 5, 4)
    assert intent.payload == hashlib.sha256(hashlib.sha256(data).digest()).hexdigest()
    assert site.became() == ["answered"]


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"to": "south"}, "recipient"),
        ({"more": 'names = ["a"]'}, "names"),
        ({"more": "max_values_per_round = 3"}, "values"),
        ({"more": "max_rounds_per_day = 0"}, "rounds"),
    ],
)
async def test_what_the_policy_refuses_stays_here(site: Site, rule: dict[str, str], why: str) -> None:
    site.put(policy(**rule))
    with pytest.raises(Refused) as told:
        await site.fog.advise(ASKED)
    assert told.value.reason == "policy"
    assert site.sent == []
    assert [each.reason.split(":")[0] for each in site.ledger.of("refused")] == [why]


async def test_without_a_rule_no_window_leaves(site: Site) -> None:
    site.put(msgspec.structs.replace(policy(), flows=()))
    with pytest.raises(Refused):
        await site.fog.advise(ASKED)
    assert site.sent == []


async def test_the_same_window_is_judged_by_the_policy_of_its_moment(site: Site) -> None:
    await site.fog.advise(ASKED)
    await site.fog.advise(ASKED)
    assert len(site.ledger.of("intent")) == 1, "as after a restart: under the entry that it has"
    site.put(policy(to="south"))
    with pytest.raises(Refused):
        await site.fog.advise(ASKED)
    assert len(site.sent) == 2


async def test_a_fog_that_says_nothing_is_late(site: Site) -> None:
    site.answers = asyncio.Event().wait  # type: ignore[assignment]
    with pytest.raises(Refused) as told:
        await site.fog.advise(ASKED)
    assert told.value.reason == "late"
    assert site.became() == ["no answer in time"]


@pytest.mark.parametrize("error", [Unreachable("it is away"), Refused("full", "too many")])
async def test_a_fog_that_does_not_answer_is_not_asked_again(site: Site, error: Exception) -> None:
    async def fails() -> bytes:
        raise error

    site.answers = fails
    with pytest.raises(type(error)):
        await site.fog.advise(ASKED)
    assert len(site.sent) == 1
    assert site.became() == ["refused: full" if isinstance(error, Refused) else "no answer"]


@pytest.mark.parametrize(
    "data", [b"", b"\1\2", encode(Opinions(7, "e", ())), encode(Opinions(7, "e", SAID.windows * 2))]
)
async def test_an_answer_that_is_none_of_ours_is_a_bad_message(site: Site, data: bytes) -> None:
    async def says() -> bytes:
        return data

    site.answers = says
    with pytest.raises(BadMessage):
        await site.fog.advise(ASKED)


def test_the_rule_is_explained_and_what_means_nothing_in_it_is_refused() -> None:
    assert any("only the signals a" in line for line in explain(policy('names = ["a"]')))
    with pytest.raises(SettingsError, match="min_cohort"):
        policy("min_cohort = 3")


def test_no_policy_lets_a_window_go_beyond_a_fog() -> None:
    with pytest.raises(SettingsError, match="names cloud: a window may go to the site's own fog alone"):
        policy(to="cloud")
