"""The round, decided: each refusal has a manifest that only that guard stops."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from reuna.core import plans
from reuna.core.errors import LearnerError, NotApproved, Refused, ReunaError, ServerMissing
from reuna.core.readiness import Module, Needs, as_settings
from reuna.core.records import Contribution, Encoding, Grid, Member, Plan, Said
from reuna.loop import train
from tests.plans import PLAN

DIGEST = "p" * 64


def update(node: str = "a", **changes: Any) -> Contribution:
    good = train.answer(PLAN, DIGEST, Member(node, weight=7, metrics={"loss": 0.5}), "d" * 64, 4)
    return msgspec.structs.replace(good, **changes)


def partial(**changes: Any) -> Contribution:
    rows = [update("a"), update("b")]
    row = train.closing_row(PLAN, DIGEST, "fog", PLAN.cohort, rows)
    return msgspec.structs.replace(train.with_sum(row, PLAN, rows, "d" * 64), **changes)


SINGLY = msgspec.structs.replace(PLAN, combine="singly")


def updates(**changes: Any) -> Contribution:
    rows = [update("a"), update("b", width=3, size=30)]
    row = train.closing_row(SINGLY, DIGEST, "fog", PLAN.cohort, rows)
    return msgspec.structs.replace(train.with_updates(row, SINGLY, rows, "d" * 64), **changes)


def judge(manifest: Contribution, plan: Plan | None = PLAN, peer: str = "", closed: bool = False) -> str:
    """The reason of the refusal, '' when admitted."""
    children = ("a", "b", "c", "fog")
    try:
        train.admit(plan, DIGEST, manifest, peer or manifest.sender, children, closed)
    except Refused as refusal:
        return refusal.reason
    return ""


PACKED_SINGLY = msgspec.structs.replace(SINGLY, encoding=Encoding())


@pytest.mark.parametrize(
    ("reason", "size", "plan"),
    [
        ("", 79, PACKED_SINGLY),
        ("shape", 79, SINGLY),
        ("oversized", 80, PACKED_SINGLY),
        ("oversized", 0, PACKED_SINGLY),
    ],
)
def test_packed_updates_are_admitted_where_they_are_asked_and_smaller(
    reason: str, size: int, plan: Plan
) -> None:
    assert judge(updates(packed=True, size=size), plan) == reason


def test_updates_passed_up_singly_are_admitted_where_they_are_asked() -> None:
    assert judge(updates(), SINGLY) == ""
    assert (updates().width, updates().size, updates().weight) == (4, 2 * 10 * 4, 14)
    assert judge(update(), SINGLY) == ""


@pytest.mark.parametrize(
    ("reason", "manifest", "plan"),
    [
        ("shape", updates(), PLAN),
        ("shape", partial(), SINGLY),
        ("shape", updates(sender="a", size=40, members=(Member("a", 14),)), SINGLY),
        ("shape", updates(width=3, size=60), SINGLY),
        ("shape", updates(width=8, size=160), SINGLY),
        ("oversized", updates(size=120), SINGLY),
        ("oversized", updates(size=40), SINGLY),
    ],
)
def test_updates_passed_up_singly_in_another_form_are_refused(
    reason: str, manifest: Contribution, plan: Plan
) -> None:
    assert judge(manifest, plan) == reason


def test_a_value_of_single_updates_is_at_most_one_of_the_grid() -> None:
    assert train.largest_value(SINGLY, updates()) == 2**31 - 1


def test_honest_contributions_are_admitted() -> None:
    assert judge(update()) == ""
    assert judge(partial()) == ""
    assert judge(train.answer(PLAN, DIGEST, Member("a", absent=train.AWAITED))) == ""
    assert judge(partial(members=(Member("a", 14), Member("b", absent=train.UNHEARD)))) == ""


@pytest.mark.parametrize(
    ("reason", "manifest"),
    [
        ("stale", update(round=2)),
        ("stale", update(run="r-0")),
        ("stale", update(attempt=2)),
        ("plan", update(plan="q" * 64)),
        ("shape", update(params=11)),
        ("shape", update(width=8)),
        ("oversized", update(size=10**12)),
        ("weight", update(weight=8)),
        ("weight", update(weight=0, members=(Member("a", 0),))),
        ("weight", update(weight=101, members=(Member("a", 101),))),
        ("weight", update(weight=-1, members=(Member("a", -1),))),
        ("metrics", update(members=(Member("a", 7, metrics={"loss": math.nan}),))),
        ("metrics", update(members=(Member("a", 7, metrics={"loss": math.inf}),))),
        ("metrics", update(members=(Member("a", 7, metrics={str(i): 1.0 for i in range(65)}),))),
        ("metrics", update(members=(Member("a", 7, metrics={"x" * 65: 1.0}),))),
        ("identity", update(members=(Member("b", 7),))),
        ("identity", update(members=())),
        ("malformed", update(members=(Member("a", 7, saturated=-1),))),
        ("oversized", update(members=(Member("a", 7, size=41),))),
        ("oversized", update(members=(Member("a", 7, size=-1),))),
        ("oversized", train.answer(PLAN, DIGEST, Member("a", absent="no data", size=1))),
        ("identity", partial(members=(Member("a", 7), Member("a", 7)))),
        ("identity", partial(members=(Member("z", 14),))),
        ("identity", partial(sender="a")),
        (
            "identity",
            msgspec.structs.replace(
                train.answer(PLAN, DIGEST, Member("b", absent=train.AWAITED)), sender="a"
            ),
        ),
        ("shape", partial(sender="a", members=(Member("a", 14),))),
        ("shape", update("fog", members=(Member("a", 7),))),
        ("weight", partial(weight=15)),
        ("malformed", update(refused={"b": {"range": 1}})),
        ("malformed", partial(refused={"b": {"because": 1}})),
        ("malformed", partial(refused={"b": {"range": 0}})),
        ("malformed", partial(refused={"b" * 65: {"range": 1}})),
        ("shape", msgspec.structs.replace(train.answer(PLAN, DIGEST, Member("a")), size=4)),
        ("shape", msgspec.structs.replace(train.answer(PLAN, DIGEST, Member("a")), digest="row 7: 0.25")),
        ("malformed", update(members=(Member("a", 7, digest="row 7: 0.25"),))),
        ("absence", train.answer(PLAN, DIGEST, Member("a", absent="R107 ValueError: row 7: 0.25"))),
        ("absence", train.answer(PLAN, DIGEST, Member("a", absent=f"{train.AWAITED}."))),
        ("absence", train.answer(PLAN, DIGEST, Member("a", absent=train.AWAITED, metrics={"loss": 0.5}))),
        ("absence", train.answer(PLAN, DIGEST, Member("a", absent=train.AWAITED, saturated=7))),
        ("absence", train.answer(PLAN, DIGEST, Member("a", absent=train.AWAITED, digest="e" * 64))),
        ("absence", partial(members=(Member("a", 14), Member("b", absent="row 7: 0.25")))),
    ],
)
def test_a_bad_manifest_is_refused_for_its_reason(reason: str, manifest: Contribution) -> None:
    assert judge(manifest) == reason


@pytest.mark.parametrize("kind", [LearnerError, NotApproved, ServerMissing])
def test_why_an_edge_gives_nothing_is_said_in_our_words_alone(kind: type[ReunaError]) -> None:
    said = plans.absence("a", kind("ValueError: row 7: 0.25"))
    assert said.absent in train.ABSENT
    assert said.absent.startswith(kind.code if kind is not ServerMissing else "R000")
    train.check_words(PLAN, said)


def test_a_certificate_of_another_node_is_refused() -> None:
    assert judge(update("a"), peer="b") == "identity"


def test_a_node_outside_the_cohort_is_refused() -> None:
    assert judge(update("z")) == "not-invited"


def test_nothing_is_admitted_after_the_close_or_without_a_round() -> None:
    assert judge(update(), closed=True) == "closed"
    assert judge(update(), plan=None) == "stale"


def test_a_body_is_refused_where_only_reports_are_asked() -> None:
    assert judge(update(), plan=msgspec.structs.replace(PLAN, task="evaluate")) == "shape"


def test_a_round_needs_its_quorum_of_nodes_that_gave_something() -> None:
    absent = train.answer(PLAN, DIGEST, Member("c", absent=train.UNHEARD))
    assert not train.reaches_quorum(PLAN, [update("a"), absent])
    assert train.reaches_quorum(PLAN, [update("a"), update("b")])
    assert train.reaches_quorum(PLAN, [partial()])


def test_the_closing_row_names_everybody_and_why_they_are_absent() -> None:
    rows = [update("b")]
    row = train.closing_row(PLAN, DIGEST, "fog", PLAN.cohort, rows)
    assert [member.node for member in row.members] == ["a", "b", "c"]
    assert [bool(member.absent) for member in row.members] == [True, False, True]
    assert train.with_sum(row, PLAN, rows, "d" * 64).weight == 7


def test_bytes_of_a_round_are_those_of_the_bodies_that_came_in() -> None:
    liar = Member("a", 7, "d" * 64, size=1)
    rows = [update("a", width=2, size=20, members=(liar,)), update("b", width=1, size=10)]
    row = train.with_sum(train.closing_row(PLAN, DIGEST, "fog", PLAN.cohort, rows), PLAN, rows, "d" * 64)
    assert [member.size for member in row.members] == [20, 10, 0]
    assert train.bytes_sent(rows) == 30
    assert train.bytes_sent([row]) == 30 + row.size
    assert judge(row) == ""


def test_a_row_that_closes_says_what_was_refused_and_so_does_its_sum() -> None:
    rows, refused = [update("a"), update("b")], {"b": {"range": 2}}
    row = train.closing_row(PLAN, DIGEST, "fog", PLAN.cohort, rows, refused)
    assert train.with_sum(row, PLAN, rows, "d" * 64).refused == refused
    assert judge(partial(refused=refused)) == ""


def test_a_body_whose_values_are_small_may_be_narrow_but_not_wider_than_the_grid() -> None:
    assert judge(update(width=2, size=20)) == ""
    assert judge(update(width=8, size=80)) == "shape"
    assert judge(update(width=3, size=30)) == ""
    assert judge(update(width=7, size=70)) == "shape"
    assert judge(update(width=0, size=0)) == "shape"


def test_a_sum_is_as_wide_as_its_parts_need() -> None:
    narrow = [update("a", width=1, size=10), update("b", width=1, size=10)]
    row = train.closing_row(PLAN, DIGEST, "fog", PLAN.cohort, narrow)
    assert train.with_sum(row, PLAN, narrow, "d" * 64).width == 2
    assert train.with_sum(row, PLAN, [update("a")], "d" * 64).width == 5


def test_updates_are_weighted_once_and_partials_not_again() -> None:
    assert [part.multiplier for part in train.parts([update("a"), partial()])] == [7, 1]


SAID = (Said("code", "wait", "code-ask"), Said("libraries", "no", "torch"))
CHECK = msgspec.structs.replace(PLAN, task="check", settings=as_settings(Needs((Module("torch"),))))


def test_a_check_is_answered_in_words_and_nothing_else_is() -> None:
    answer = train.answer(CHECK, DIGEST, Member("a", said=SAID))
    assert judge(answer, CHECK) == ""
    assert judge(train.answer(PLAN, DIGEST, Member("a", said=SAID[:1]))) == "malformed"
    with_body = train.answer(CHECK, DIGEST, Member("a", weight=7), "d" * 64, 4)
    assert judge(with_body, CHECK) == "shape"
    both = Member("a", absent=train.AWAITED, said=SAID)
    assert judge(train.answer(CHECK, DIGEST, both), CHECK) == "absence"


@pytest.mark.parametrize("said", [Said("code", "no", "row 7: 0.25"), Said("libraries", "no", "pandas")])
def test_other_words_than_those_of_the_closed_lists_are_refused(said: Said) -> None:
    assert judge(train.answer(CHECK, DIGEST, Member("a", said=(said,))), CHECK) == "malformed"


def test_whom_a_parent_knows_to_be_older_is_absent_for_that_and_others_for_their_silence() -> None:
    row = train.closing_row(CHECK, DIGEST, "fog", ("a", "b"), [], known=[Member("a", absent=train.OLDER)])
    assert {each.node: each.absent for each in row.members} == {"a": train.OLDER, "b": train.UNHEARD}
    assert train.OLDER in train.ABSENT


# --- fogs under fogs ---------------------------------------------------------------------------

DEEP = msgspec.structs.replace(
    PLAN, cohort=("a", "b", "c"), tree={"firm": ("a", "north"), "north": ("b", "yard"), "yard": ("c",)}
)


def of_north(**changes: Any) -> Contribution:
    row = train.closing_row(DEEP, DIGEST, "north", ("b", "c"), [update("b")])
    return msgspec.structs.replace(train.with_sum(row, DEEP, [update("b")], "d" * 64), **changes)


def judge_at_firm(manifest: Contribution) -> str:
    try:
        train.admit(DEEP, DIGEST, manifest, manifest.sender, ("a", "north"), closed=False)
    except Refused as refusal:
        return refusal.reason
    return ""


@pytest.mark.parametrize(
    ("reason", "manifest"),
    [
        ("", of_north()),
        ("", of_north(refused={"b": {"range": 1}, "yard/c": {"range": 2}})),
        ("", update("a")),
        ("identity", of_north(members=(Member("a", 7),))),
        ("identity", of_north(sender="a")),
        ("malformed", of_north(refused={"elsewhere/c": {"range": 1}})),
        ("malformed", of_north(refused={"yard/" + "c" * 65: {"range": 1}})),
    ],
)
def test_a_fog_under_a_fog_speaks_for_the_edges_under_it_alone(reason: str, manifest: Contribution) -> None:
    assert judge_at_firm(manifest) == reason


def test_who_is_no_fog_of_the_tree_speaks_for_nobody() -> None:
    with pytest.raises(Refused, check=lambda error: error.reason == "identity"):
        train.admit(DEEP, DIGEST, of_north(sender="lab"), "lab", ("lab",), closed=False)


def test_each_fog_asks_its_own_children_and_speaks_for_all_under_it() -> None:
    assert train.children(DEEP, "firm") == ("a", "north")
    assert train.children(DEEP, "yard") == ("c",)
    assert train.edges_of(DEEP, "north") == ("b", "c")
    assert [train.edges_at(DEEP, child) for child in ("a", "north")] == [("a",), ("b", "c")]
    assert train.children(PLAN, "fog") == train.edges_of(PLAN, "fog") == PLAN.cohort
    found = [train.levels(DEEP, [child]) for child in ("a", "yard", "north", "firm")]
    assert found == [0, 1, 2, 3]
    assert (train.levels(PLAN, ["a"]), train.levels(PLAN, ["fog"])) == (0, 1)


WIDE = msgspec.structs.replace(
    DEEP,
    cohort=("a", "b", "c", "d", "e", "f"),
    tree={"firm": ("a", "b", "north"), "north": ("c", "yard"), "yard": ("d", "e", "f")},
)


def enough_in(plan: Plan, enough: int, buffer: int = 0) -> list[int]:
    changed = msgspec.structs.replace(plan, enough=enough, buffer=buffer)
    return [train.enough_at(changed, fog) for fog in ("firm", "north", "yard")]


def test_a_fog_under_a_fog_closes_with_its_share_of_the_share_above() -> None:
    # Of 3 north has 2, as 4 of 6 nodes are there; of these yard has 1, and north's own node the other.
    assert enough_in(WIDE, 3) == [3, 2, 1]
    assert enough_in(WIDE, 4) == [4, 3, 2]
    assert enough_in(PLAN, 2) == [2, 2, 2], "where all stand under the addressee, the plan says it"


def test_where_all_under_a_fog_are_wanted_all_are_waited_for() -> None:
    assert enough_in(WIDE, 0) == [0, 0, 0]
    assert enough_in(WIDE, 6) == [6, 0, 0]


def test_a_fog_under_a_fog_always_goes_on_with_some_where_steps_are_buffered() -> None:
    assert enough_in(WIDE, 1, buffer=1) == [1, 1, 1]
    assert enough_in(WIDE, 3, buffer=3) == [3, 2, 2]


def test_a_tree_that_leads_back_to_itself_ends_here_too() -> None:
    round_about = msgspec.structs.replace(DEEP, enough=1, tree={"firm": ("north",), "north": ("firm", "b")})
    assert train.enough_at(round_about, "north") >= 0


def test_a_sum_of_sums_is_as_wide_as_the_weights_in_it_need() -> None:
    """Two sums of seven weights each, whose integers take 3 bytes, need no more than the weights say."""
    small = msgspec.structs.replace(DEEP, grid=Grid(16, -9), max_weight=100)
    rows = [of_north(width=3, weight=7, sender=name) for name in ("north", "yard")]
    summed = train.with_sum(
        train.closing_row(small, DIGEST, "firm", DEEP.cohort, rows), small, rows, "d" * 64
    )
    assert 2 * train.largest_value(small, rows[0]) < 2**23
    assert summed.width == 3


def test_what_a_fog_below_refused_stands_under_its_name() -> None:
    rows = [of_north(refused={"b": {"range": 2}, "yard/c": {"stale": 1}}), update("a")]
    assert train.passed_on(rows) == {"north/b": {"range": 2}, "north/yard/c": {"stale": 1}}


def test_updates_of_edges_and_of_fogs_are_passed_on_as_one_body() -> None:
    singly = msgspec.structs.replace(DEEP, combine="singly")
    below = train.closing_row(singly, DIGEST, "north", ("b", "c"), [update("b"), update("c")])
    rows = [update("a"), train.with_updates(below, singly, [update("b"), update("c")], "d" * 64)]
    passed = train.with_updates(
        train.closing_row(singly, DIGEST, "firm", DEEP.cohort, rows), singly, rows, "d" * 64
    )
    assert (train.updates_in(passed), passed.size) == (3, 3 * 10 * 4)
