"""A glance on the event loop says what a look says, or that it takes one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import Refused
from reuna.core.records import Terms, Work
from reuna.exchange.flows import SiteFlows
from reuna.exchange.intents import Standing
from reuna.trust.ledger import Entry
from reuna.trust.policy import Limits, Source, Window, digest
from tests.unit.exchange.test_flows import CODE, POLICY, TO, Site, Written, allowing, work

NIGHT = Limits(windows=(Window((0, 1, 2, 3, 4, 5, 6), 22 * 60, 23 * 60),))


def seen(site: Site) -> SiteFlows:
    """Flow control of a site whose policy was read before."""
    site.flows = SiteFlows(
        site.ledger, lambda _now: site.standing, site.clock, (), at_hand=lambda _now: site.standing
    )
    return site.flows


@pytest.fixture
def site() -> Site:
    made = Site()
    allowing(made, {"data": Source(("flow",))})
    seen(made)
    return made


def waits(ask: Callable[[], Terms | None]) -> bool:
    try:
        ask()
    except BlockingIOError:
        return True
    return False


def test_it_answers_when_the_ledger_says_already_what_code_does(site: Site) -> None:
    assert site.flows.glance(1, TO) is None
    assert waits(lambda: site.flows.glance(1, TO, work(CODE)))
    assert site.flows.moment(1, TO, work(CODE)) == Terms(1, ("flow",))
    written = list(site.ledger.entries)
    assert site.flows.glance(1, TO, work(CODE)) == Terms(1, ("flow",))
    for other in (work(CODE, run="r-2"), work(CODE, purpose="evaluation"), work("d" * 64)):
        assert waits(partial(site.flows.glance, 1, TO, other))
    assert waits(lambda: site.flows.glance(1, TO, work(CODE), "is signed by nobody"))
    assert site.ledger.entries == written


@pytest.mark.parametrize("what", ["stopped", "night", "no policy", "other columns", "not read", "many bytes"])
def test_what_is_refused_changed_or_not_read_takes_a_look(site: Site, what: str) -> None:
    site.flows.moment(1, TO, work(CODE))
    written, size = list(site.ledger.entries), 1000
    if what == "stopped":
        site.standing = msgspec.structs.replace(site.standing, stopped=True)
    elif what in ("night", "many bytes"):
        assert site.standing.policy is not None
        limits = NIGHT if what == "night" else Limits(bytes_per_day=size - 1)
        policy = msgspec.structs.replace(site.standing.policy, limits=limits)
        site.standing = Standing(policy, digest(policy))
    elif what == "no policy":
        site.standing = Standing(None, why="it is signed by nobody")
    elif what == "other columns":
        allowing(site, {"data": Source(("*",))}, serial=4)
    else:
        site.flows = SiteFlows(site.ledger, lambda _now: site.standing, site.clock, ())
    assert waits(lambda: site.flows.glance(size, TO, work(CODE)))
    assert site.ledger.entries == written


class Stuck(Written):
    """A ledger whose disk is busy until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.free = threading.Event(), threading.Event()

    def append_all(self, entries: Sequence[Entry]) -> list[int]:
        self.begun.set()
        assert self.free.wait(10)
        return super().append_all(entries)


def test_it_waits_for_nobody_who_writes_to_the_ledger(site: Site) -> None:
    site.ledger = stuck = Stuck()
    flows = seen(site)
    writer = threading.Thread(target=lambda: flows.leave(site.update(1)))
    writer.start()
    try:
        assert stuck.begun.wait(10)
        assert waits(lambda: flows.glance(1, TO))
    finally:
        stuck.free.set()
        writer.join(10)
    assert not waits(lambda: flows.glance(1, TO))


works = st.one_of(
    st.none(),
    st.builds(
        Work,
        st.sampled_from(["r-1", "r-2"]),
        st.sampled_from([CODE, "d" * 64]),
        st.sampled_from(["training", "evaluation"]),
    ),
)
columns = st.sampled_from([("flow",), ("*",), ("flow", "level"), ()])


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    """Of a site whose policy lets more or less."""
    holder = Site()
    allowing(holder, {"data": Source(draw(columns))}, draw(st.integers(3, 4)))
    assert holder.standing.policy is not None
    limits = draw(st.sampled_from([POLICY.limits, NIGHT]))
    policy = msgspec.structs.replace(holder.standing.policy, limits=limits)
    return Standing(policy, digest(policy), stopped=draw(st.booleans()))


@given(
    st.lists(
        st.tuples(standings(), works, st.sampled_from(["", "is signed by nobody"]), st.booleans()),
        max_size=12,
    )
)
def test_whenever_it_answers_a_look_says_the_same_and_writes_nothing(
    asked: list[tuple[Standing, Work | None, str, bool]],
) -> None:
    site = Site()
    flows = seen(site)
    for standing, wanted, unsigned, looks in asked:
        site.standing = standing
        if looks:
            try:
                flows.moment(1, TO, wanted, unsigned)
            except Refused:
                continue
        written = list(site.ledger.entries)
        try:
            found = flows.glance(1, TO, wanted, unsigned)
        except BlockingIOError:
            assert not looks or wanted is not None, "what a look has let is let by a glance"
            continue
        assert flows.moment(1, TO, wanted, unsigned) == found
        assert site.ledger.entries == written
