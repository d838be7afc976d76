"""What may leave, and that the ledger knows before it leaves."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime

import msgspec
import pytest

from reuna.core.errors import DiskFull, NotApproved, Refused
from reuna.core.records import Purpose, Terms, Work
from reuna.exchange.allowance import MESSAGES, SECONDS
from reuna.exchange.flows import SiteFlows
from reuna.exchange.intents import Leaving, Standing
from reuna.trust.ledger import Entry, settled
from reuna.trust.policy import Budget, Code, CodeEntry, Limits, Source, Window, digest
from reuna.trust.policy_text import parse
from reuna.trust.requests import Request
from reuna.wire import digest_bytes

TO = "spiffe://fleet/gateway/fog"
POLICY = parse(
    """
format = "reuna/policy/v1"
site = "mill"
serial = 3
valid = { from = 1970-01-01, until = 2100-01-01 }
signers = { threshold = 1, keys = { officer = "%s" } }
recipients = { fog = "spiffe://fleet/gateway/fog" }
[sources.data]
columns = ["*"]
[[flows]]
kind = "model_update"
to = ["fog"]
protection = "clear"
max_rounds_per_day = 2
[[flows]]
kind = "metric"
to = ["fog"]
names = ["loss"]
[[flows]]
kind = "presence"
to = ["fog"]
"""
    % ("ab" * 32),
    "policy.toml",
)


class Written:
    """A ledger in memory, on a disk that may be full."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.full = False

    def append_all(self, entries: Sequence[Entry]) -> list[int]:
        if self.full:
            raise DiskFull("no space")
        self.entries += entries
        return list(range(len(self.entries) - len(entries), len(self.entries)))

    def of(self, kind: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == kind]


def work(code: str, run: str = "r-1", purpose: Purpose = "training") -> Work:
    return Work(run, code, purpose)


class Noon:
    """A clock that stands still until it is moved."""

    time = 12 * 3600.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


class Site:
    def __init__(self) -> None:
        self.ledger = Written()
        self.standing = Standing(POLICY, digest(POLICY))
        self.clock = Noon()
        self.flows = self.restarted()

    def restarted(self) -> SiteFlows:
        self.flows = SiteFlows(
            self.ledger, lambda now: self.standing, self.clock, list(enumerate(self.ledger.entries))
        )
        return self.flows

    def update(self, round: int, to: str = TO) -> Leaving:
        data = f"update {round}".encode()
        request = Request("model_update", to, len(data), self.clock.now(), "r-1", round)
        return Leaving(request, digest_bytes(data))

    def hello(self) -> Leaving:
        return Leaving(Request("presence", TO, 7, self.clock.now()), digest_bytes(b"i am up"))


@pytest.fixture
def site() -> Site:
    return Site()


def test_an_intent_is_written_before_anything_leaves(site: Site) -> None:
    (number,) = site.flows.leave(site.update(1))
    entry = site.ledger.entries[number]
    assert (entry.kind, entry.rule, entry.policy_serial) == ("intent", "flows[1] model_update", 3)


def test_what_no_rule_allows_is_refused_and_written_down_once_a_minute(site: Site) -> None:
    for _ in range(3):
        with pytest.raises(Refused) as refusal:
            site.flows.leave(site.update(1, to="spiffe://fleet/cloud/cloud"))
    assert refusal.value.reason == "policy"
    assert [entry.decision for entry in site.ledger.of("refused")] == ["deny"]
    assert not site.ledger.of("intent")


def test_all_payloads_leave_or_none(site: Site) -> None:
    with pytest.raises(Refused):
        site.flows.leave(site.update(1), site.update(2, to="spiffe://fleet/cloud/cloud"))
    assert not site.ledger.of("intent")


def test_the_same_bytes_leave_under_the_entry_they_have_also_after_a_restart(site: Site) -> None:
    first = site.flows.leave(site.update(1))
    assert site.flows.leave(site.update(1)) == first
    assert site.restarted().leave(site.update(1)) == first
    assert len(site.ledger.of("intent")) == 1


def test_equal_bytes_for_another_plan_are_another_payload(site: Site) -> None:
    first = site.update(1)
    for_another = Leaving(first.request, first.payload, "b" * 64)
    assert site.flows.leave(first) != site.flows.leave(for_another)


def presence(site: Site) -> tuple[int, int]:
    """Messages and bytes of presence that left, by the ledger."""
    sent = [e for e in settled(enumerate(site.ledger.entries)) if e.kind == "intent" and e.flow == "presence"]
    return sum(e.messages for e in sent), sum(e.payload_bytes for e in sent)


def test_a_minute_of_hellos_is_allowed_before_the_first_and_settled_after_the_last(site: Site) -> None:
    for _ in range(12):
        site.flows.leave(site.hello())
    site.flows.flush()
    (allowed,) = site.ledger.of("intent")
    assert (allowed.messages, allowed.payload_bytes) == (MESSAGES, 7 * MESSAGES)
    assert presence(site) == (MESSAGES, 7 * MESSAGES), "until it is settled all counts"
    site.clock.time += SECONDS
    site.flows.flush()
    (said,) = site.ledger.of("outcome")
    assert (said.messages, said.payload_bytes, presence(site)) == (12, 84, (12, 84))
    each = bytes.fromhex(digest_bytes(b"i am up"))
    assert said.payload == hashlib.sha256(12 * each).hexdigest()


def test_more_or_larger_hellos_than_were_allowed_ask_again(site: Site) -> None:
    for _ in range(MESSAGES + 1):
        site.flows.leave(site.hello())
    long = msgspec.structs.replace(site.hello().request, bytes=8 * 7 * MESSAGES)
    site.flows.leave(Leaving(long, digest_bytes(b"x")))
    site.flows.close()
    assert len(site.ledger.of("intent")) == 3
    assert presence(site) == (MESSAGES + 2, 7 * (MESSAGES + 1) + 8 * 7 * MESSAGES)


def test_each_hello_asks_the_policy_that_is_in_force(site: Site) -> None:
    site.flows.leave(site.hello())
    site.standing = Standing(POLICY, digest(POLICY), stopped=True)
    with pytest.raises(Refused, match="kill switch"):
        site.flows.leave(site.hello())
    site.standing = Standing(None, why="there is no file policy.toml")
    with pytest.raises(Refused, match="no file"):
        site.flows.leave(site.hello())
    site.flows.close()
    assert presence(site) == (1, 7)


def limited(site: Site, most: int) -> None:
    policy = msgspec.structs.replace(POLICY, limits=Limits(bytes_per_day=most))
    site.standing = Standing(policy, digest(policy))


def test_hellos_that_did_not_leave_are_given_back_to_the_day(site: Site) -> None:
    limited(site, 7 * MESSAGES + 8)
    site.flows.leave(site.hello())
    with pytest.raises(Refused):
        site.flows.leave(site.update(10))
    site.clock.time += SECONDS
    site.flows.flush()
    site.flows.leave(site.update(10))
    site.restarted().leave(site.update(11))


def test_a_hello_that_stayed_after_all_is_not_counted_and_its_bytes_are_free_again(site: Site) -> None:
    limited(site, 7 * MESSAGES + 8)
    for _ in range(3):
        site.flows.leave(site.hello())
    site.flows.stayed(site.hello())
    site.flows.close()
    (said,) = site.ledger.of("outcome")
    assert (said.messages, said.payload_bytes, said.reason, presence(site)) == (2, 14, "sent", (2, 14))
    assert said.payload == hashlib.sha256(2 * bytes.fromhex(digest_bytes(b"i am up"))).hexdigest()


def test_an_allowance_under_which_nothing_left_costs_nothing_also_after_a_restart(site: Site) -> None:
    limited(site, 7 * MESSAGES + 8)
    site.flows.leave(site.hello())
    site.flows.stayed(site.hello())
    site.flows.stayed(site.hello())
    site.flows.close()
    (said,) = site.ledger.of("outcome")
    assert (said.messages, said.payload_bytes, said.reason, presence(site)) == (0, 0, "stayed", (0, 0))
    site.restarted().leave(site.update(10))


def test_a_hello_that_stayed_under_an_allowance_that_is_over_counts_as_sent(site: Site) -> None:
    site.flows.leave(site.hello())
    site.clock.time += SECONDS
    site.flows.flush()
    site.flows.stayed(site.hello())
    assert presence(site) == (1, 7)


def test_a_budget_without_room_for_a_minute_lets_single_hellos_leave(site: Site) -> None:
    limited(site, 20)
    site.flows.leave(site.hello())
    site.flows.leave(site.hello())
    with pytest.raises(Refused, match="bytes"):
        site.flows.leave(site.hello())
    site.flows.close()
    assert presence(site) == (2, 14)


def test_after_a_crash_all_that_was_allowed_counts(site: Site) -> None:
    limited(site, 7 * MESSAGES + 8)
    site.flows.leave(site.hello())
    with pytest.raises(Refused):
        site.restarted().leave(site.update(10))
    assert presence(site) == (MESSAGES, 7 * MESSAGES)


def test_the_ledger_says_what_is_left_of_epsilon(site: Site) -> None:
    budget = Budget(unit="asset-day", max_epsilon_round=0.5, max_epsilon_total=2.0, delta=1e-6)
    flows = (msgspec.structs.replace(POLICY.flows[0], dp=budget, max_rounds_per_day=None), *POLICY.flows[1:])
    policy = msgspec.structs.replace(POLICY, flows=flows)
    site.standing = Standing(policy, digest(policy))
    for number in range(3):
        update = site.update(number)
        private = {"epsilon": 0.5, "epsilon_unit": "asset-day", "delta": 1e-6}
        site.flows.leave(
            msgspec.structs.replace(update, request=msgspec.structs.replace(update.request, **private))
        )
    assert [entry.epsilon_left for entry in site.ledger.of("intent")] == [1.5, 1.0, 0.5]
    assert site.flows.leave(site.hello()) == ()
    assert site.ledger.of("intent")[-1].epsilon_left is None


def test_a_budget_is_spent_across_restarts_also_when_nobody_knows_what_became_of_it(site: Site) -> None:
    site.flows.leave(site.update(1))
    site.restarted().leave(site.update(2))
    with pytest.raises(Refused, match="round"):
        site.restarted().leave(site.update(3))


def test_nothing_leaves_when_the_ledger_cannot_be_written(site: Site) -> None:
    site.ledger.full = True
    with pytest.raises(DiskFull):
        site.flows.leave(site.update(1))
    site.ledger.full = False
    assert site.flows.leave(site.update(1))


def test_a_full_disk_spends_no_budget_however_often_it_is_tried(site: Site) -> None:
    site.ledger.full = True
    for _ in range(5):
        with pytest.raises(DiskFull):
            site.flows.leave(site.update(1))
    site.ledger.full = False
    site.flows.leave(site.update(1))
    site.flows.leave(site.update(2))


def test_nothing_leaves_without_a_policy_or_with_the_kill_switch_on(site: Site) -> None:
    site.standing = Standing(None, why="there is no file policy.toml")
    with pytest.raises(Refused, match="no file"):
        site.flows.leave(site.hello())
    site.standing = Standing(POLICY, digest(POLICY), stopped=True)
    with pytest.raises(Refused, match="kill switch"):
        site.flows.leave(site.hello())
    site.standing = Standing(POLICY, digest(POLICY))
    site.flows.leave(site.hello())
    assert [entry.policy for entry in site.ledger.of("policy")] == [digest(POLICY)]


def test_outcomes_are_written_with_what_leaves_next_or_by_flush(site: Site) -> None:
    site.flows.arrived(site.flows.leave(site.update(1)), "acknowledged")
    assert not site.ledger.of("outcome")
    site.flows.flush()
    (outcome,) = site.ledger.of("outcome")
    assert outcome.reason == "acknowledged"
    assert outcome.intent is not None
    assert site.ledger.entries[outcome.intent].kind == "intent"


def test_outcomes_outlive_a_full_disk(site: Site) -> None:
    site.flows.arrived(site.flows.leave(site.update(1)), "acknowledged")
    site.ledger.full = True
    with pytest.raises(DiskFull):
        site.flows.flush()
    site.ledger.full = False
    site.flows.flush()
    assert len(site.ledger.of("outcome")) == 1


def test_names_on_no_list_stay_and_that_is_written_down(site: Site) -> None:
    assert site.flows.listed("metric", TO, ["loss", "rows"]) == {"loss"}
    (refused,) = site.ledger.of("refused")
    assert "rows" in refused.reason
    assert datetime.fromtimestamp(refused.time_ms / 1000, UTC)


def test_code_waits_where_officers_are_asked_and_is_refused_where_they_are_not() -> None:
    site, code = Site(), "c" * 64
    for rule, error in ((Code(new_code="ask"), NotApproved), (Code(new_code="deny"), Refused)):
        policy = msgspec.structs.replace(POLICY, code=rule)
        site.standing = Standing(policy, digest(policy))
        with pytest.raises(error):
            site.flows.approved(work(code), "")
    site.standing = Standing(None, why="no policy yet")
    with pytest.raises(NotApproved, match="no policy yet"):
        site.flows.approved(work(code), "")


@pytest.mark.parametrize("allowed", [True, False])
def test_code_runs_when_the_policy_and_the_fleets_code_role_both_allow_it(allowed: bool) -> None:
    site, code = Site(), "c" * 64
    entries = (CodeEntry(code, ("dpo",), date(2030, 1, 1)),) if allowed else ()
    policy = msgspec.structs.replace(POLICY, code=Code(allow=entries, min_sandbox_level=2, new_code="ask"))
    site.standing = Standing(policy, digest(policy))
    with pytest.raises(NotApproved, match="for the fleet's code role" if allowed else "officers"):
        site.flows.approved(work(code), "waits for the fleet's code role")
    assert not site.ledger.of("code")
    (refused,) = site.ledger.of("refused")
    assert refused.reason.startswith("code-unsigned" if allowed else "code-ask")
    if allowed:
        assert site.flows.approved(work(code), "") == Terms(2)
        assert [entry.reason for entry in site.ledger.of("code")] == [
            "runs",
            "reads all columns of data for training",
        ]


def allowing(site: Site, sources: dict[str, Source], serial: int = 3) -> None:
    """The code ``c…`` may run, and read that."""
    code = Code(allow=(CodeEntry("c" * 64, ("officer",), date(2030, 1, 1)),), min_sandbox_level=1)
    policy = msgspec.structs.replace(POLICY, code=code, sources=sources, serial=serial)
    site.standing = Standing(policy, digest(policy))


CODE = "c" * 64


def test_what_is_no_source_of_the_policy_is_not_read_and_that_stands_in_the_ledger(site: Site) -> None:
    for sources in ({}, {"staff": Source(("*",))}, {"data": Source(("*",), purpose=("evaluation",))}):
        allowing(site, sources)
        site.clock.time += 100
        with pytest.raises(Refused) as refusal:
            site.flows.approved(work(CODE), "")
        assert (refusal.value.reason, refusal.value.until) == ("policy", None)
    reasons = [entry.reason.partition(":")[0] for entry in site.ledger.of("refused")]
    assert reasons == ["source", "source", "purpose"]
    assert not site.ledger.of("code")
    assert site.flows.approved(work(CODE, purpose="evaluation"), "") == Terms(1)


def test_code_may_read_the_columns_of_its_nodes_own_dataset(site: Site) -> None:
    allowing(site, {"data": Source(("*",)), "press": Source(("flow", "heat"))})
    site.flows = SiteFlows(site.ledger, lambda now: site.standing, site.clock, (), dataset="press")
    assert site.flows.approved(work(CODE), "") == Terms(1, ("flow", "heat"))
    assert [entry.reason for entry in site.ledger.of("code")] == [
        "runs",
        "reads flow, heat of press for training",
    ]
    assert site.ledger.of("code")[-1].rule == "sources.press"


def test_what_each_run_reads_stands_in_the_ledger_once_for_each_policy_also_after_a_restart(
    site: Site,
) -> None:
    allowing(site, {"data": Source(("flow",))})
    for _ in range(3):
        site.flows.approved(work(CODE), "")
    site.restarted().approved(work(CODE), "")
    site.flows.approved(work(CODE, run="r-2"), "")
    site.flows.approved(work(CODE, run="r-2", purpose="evaluation"), "")
    allowing(site, {"data": Source(("*",))}, serial=4)
    site.flows.approved(work(CODE, run="r-2"), "")
    read = [(e.run, e.reason) for e in site.ledger.of("code") if e.reason != "runs"]
    assert read == [
        ("r-1", "reads flow of data for training"),
        ("r-2", "reads flow of data for training"),
        ("r-2", "reads flow of data for evaluation"),
        ("r-2", "reads all columns of data for training"),
    ]


def test_what_may_leave_later_says_when(site: Site) -> None:
    night = Limits(windows=(Window((0, 1, 2, 3, 4, 5, 6), 22 * 60, 23 * 60),))
    policy = msgspec.structs.replace(POLICY, limits=night)
    site.standing = Standing(policy, digest(policy))
    for ask in (lambda: site.flows.leave(site.update(1)), lambda: site.flows.moment(1, TO)):
        with pytest.raises(Refused) as refusal:
            ask()
        assert refusal.value.until == 22 * 3600
    site.standing = Standing(POLICY, digest(POLICY), stopped=True)
    mark = site.flows.mark()
    for ask in (lambda: site.flows.leave(site.update(1)), lambda: site.flows.moment(1, TO)):
        with pytest.raises(Refused) as refusal:
            ask()
        assert refusal.value.until == math.inf
    site.standing = Standing(POLICY, digest(POLICY))
    assert site.flows.mark() != mark
    site.flows.moment(1, TO)
    with pytest.raises(Refused) as refusal:
        site.flows.leave(site.update(1, to="spiffe://fleet/cloud/cloud"))
    assert refusal.value.until is None


def test_one_look_says_whether_anything_may_leave_and_on_what_terms_code_may_run(site: Site) -> None:
    allowing(site, {"data": Source(("flow",))})
    looks: list[float] = []

    def rules(now: float) -> Standing:
        looks.append(now)
        return site.standing

    site.flows = SiteFlows(site.ledger, rules, site.clock, ())
    assert site.flows.moment(1, TO) is None
    assert not site.ledger.of("code")
    assert site.flows.moment(1, TO, work(CODE), "") == Terms(1, ("flow",))
    assert len(looks) == 2
    assert [entry.reason for entry in site.ledger.of("code")] == ["runs", "reads flow of data for training"]
    assert site.flows.moment(1, TO, work("d" * 64), "") is None, "who asks for it hears why"
    assert site.flows.moment(1, TO, work(CODE), "is signed by nobody") is None
    assert len(site.ledger.of("refused")) == 2
    site.standing = msgspec.structs.replace(site.standing, stopped=True)
    with pytest.raises(Refused, match="kill switch"):
        site.flows.moment(1, TO, work(CODE), "")


def test_while_the_kill_switch_is_on_code_waits_for_it_and_not_for_an_officer(site: Site) -> None:
    allowing(site, {"data": Source(("*",))})
    site.standing = msgspec.structs.replace(site.standing, stopped=True)
    with pytest.raises(Refused) as refusal:
        site.flows.approved(work(CODE), "")
    assert refusal.value.until == math.inf
