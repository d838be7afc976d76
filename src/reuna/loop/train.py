"""The round, decided without I/O: who may contribute what, when a round closes, what is passed on.

Fog and cloud are both parents and decide with the same functions; edge and fog are both
children. A round is closed by a row of the parent's own (`closing_row`): from then on its sum
is a pure function of the rows that the closing row names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NoReturn

import msgspec

from reuna.core.cohort import ATTEMPTS_OF_A_LIFE, at_pace, pace_of, shares
from reuna.core.errors import (
    ABSENCES,
    REFUSALS,
    BadMessage,
    ContractBroken,
    DataError,
    ExtraMissing,
    LearnerError,
    NotApproved,
    PlanError,
    ProjectError,
    Refused,
    SandboxTooWeak,
    SettingsError,
)
from reuna.core.readiness import allowed, needs_of
from reuna.core.records import (
    AWAY,
    SPARED,
    UNHEARD,
    Contribution,
    Kind,
    Member,
    Metrics,
    Plan,
    Refusals,
)
from reuna.core.tree import MOST_LEVELS, edges_under, height, over
from reuna.learn.grid import WIDTHS, largest_sum, narrowest, sum_width, update_width
from reuna.learn.staleness import SCALE, factor
from reuna.learn.sums import Part
from reuna.trust.requests import REASONS

MAX_METRICS = 64
MAX_NAME = 64
MOST_TOLD = 8  #: reasons, and nodes of each, in one message
SINGLE_WIDTHS = (1, 2, 4)  #: bytes per integer of updates passed up singly: any part of them can be read
#: Codes of absences that another attempt only repeats: mistakes in project, data or learner, a weak machine.
LASTING = frozenset(
    kind.code
    for kind in (
        SettingsError,
        ProjectError,
        DataError,
        ContractBroken,
        PlanError,
        ExtraMissing,
        LearnerError,
        SandboxTooWeak,
    )
)
#: Why an edge gave nothing: these words and no others, so that no text of its code or data leaves.
ABSENT = frozenset({UNHEARD, AWAY, SPARED, *(f"{code} {words}" for code, words in ABSENCES.items())})
AWAITED = f"{NotApproved.code} {ABSENCES[NotApproved.code]}"
OLDER = f"{BadMessage.code} {ABSENCES[BadMessage.code]}"  #: of who speaks an older protocol
_DIGEST = re.compile(r"([0-9a-f]{64})?")


# --- a contribution arrives ------------------------------------------------------------------


def admit(
    plan: Plan | None,
    plan_digest: str,
    manifest: Contribution,
    peer: str,
    children: Container[str],
    closed: bool,
) -> None:
    """Judge a manifest before any byte of its body is read. Raises `Refused` with the reason."""
    if manifest.sender != peer:
        _refuse("identity", f"{peer} sent a contribution in the name of {manifest.sender}")
    if peer not in children:
        _refuse("not-invited", peer)
    if plan is None or (manifest.run, manifest.round, manifest.attempt) != plan.key:
        _refuse("stale", f"{peer} answered round {manifest.round} of {manifest.run}")
    if manifest.plan != plan_digest:
        _refuse("plan", peer)
    if closed:
        _refuse("closed", f"{peer}, round {plan.round}")
    _check_shape(plan, manifest)
    _check_members(plan, manifest)
    _check_refusals(plan, manifest)


def answers(plan: Plan, plan_digest: str, manifest: Contribution) -> tuple[Plan, str]:
    """The plan that a contribution answers, and its digest: the open one, or one before; for `admit`.

    Of the latter, which this parent need not have seen, is known what all plans of the run have in common.
    """
    behind = plan.round - manifest.round
    if not is_behind(plan, manifest):
        return plan, plan_digest
    older = msgspec.structs.replace(plan, round=manifest.round, attempt=manifest.attempt)
    return older, plan.bases[behind - 1]


def is_behind(plan: Plan, manifest: Contribution) -> bool:
    """Whether it answers a plan of a round before, for which updates are still taken."""
    fresh = manifest.kind != "report" and manifest.run == plan.run
    return fresh and 1 <= plan.round - manifest.round <= len(plan.bases)


def is_next(plan: Plan, manifest: Contribution) -> bool:
    """Whether it answers the plan after this one, which may have gone out before this one was journalled."""
    return manifest.run == plan.run and manifest.round == plan.round + 1


def given(row: Contribution) -> frozenset[tuple[str, int]]:
    """Node and round of each update in a row: one is counted once."""
    return frozenset((m.node, m.base or row.round) for m in row.members if not m.absent)


def given_by(row: Contribution) -> list[Member]:
    """Members of a row that gave something, in the order of its body; each says of which round that is."""
    found = (member for member in row.members if not member.absent)
    return [msgspec.structs.replace(member, base=member.base or row.round) for member in found]


def counts_twice(row: Contribution, counted: Container[tuple[str, int]]) -> None:
    """Raises `Refused` when an update of ``row`` is among those that are counted, or in another row."""
    again = sorted(node for node, base in given(row) if (node, base) in counted)
    if again:
        _refuse("conflict", f"{row.sender} sent the update of {again[0]} a second time")


def _check_shape(plan: Plan, manifest: Contribution) -> None:
    if manifest.kind == "report":
        body = (manifest.params, manifest.width, manifest.size, manifest.weight, manifest.digest)
        if body != (0, 0, 0, 0, "") or manifest.packed:
            _refuse("shape", f"{manifest.sender} sent a report with a body")
        return
    if plan.task != "train":
        _refuse("shape", f"{manifest.sender} sent an {manifest.kind} where only reports are asked")
    widest = _widest(plan, manifest)
    if manifest.params != plan.params or manifest.width not in WIDTHS or manifest.width > widest:
        found = f"{manifest.params} values of {manifest.width} bytes"
        _refuse("shape", f"{manifest.sender} sent {found}, asked are {plan.params} of at most {widest}")
    plain = plan.params * manifest.width
    if manifest.kind == "updates":
        plain *= updates_in(manifest)
        if manifest.width not in SINGLE_WIDTHS:
            _refuse("shape", f"{manifest.sender} sent updates of {manifest.width} bytes a value")
    if manifest.packed and not packs(plan):
        _refuse("shape", f"{manifest.sender} sent a packed body where none is asked")
    if not 0 < manifest.size < plain if manifest.packed else manifest.size != plain:
        _refuse("oversized", f"{manifest.sender} announced {manifest.size} bytes")


def _widest(plan: Plan, manifest: Contribution) -> int:
    """Bytes per integer that the plan allows; a body whose values are small has fewer."""
    if manifest.kind != "partial":
        return update_width(plan.grid)
    return sum_width(plan.grid, plan.max_weight, plan.capacity)


def _check_members(plan: Plan, manifest: Contribution) -> None:
    """An edge of the cohort speaks for itself; who is not one combines, and speaks for the edges under it."""
    edge = manifest.sender in plan.cohort
    own = {manifest.sender} if edge else set(edges_of(plan, manifest.sender))
    names = [(member.node, member.base) for member in manifest.members]
    if len(set(names)) != len(names) or not names or not {node for node, _ in names} <= own:
        _refuse("identity", f"{manifest.sender} names members that are not its own")
    if any(base and (edge or not plan.buffer or not 1 <= base <= plan.round) for _, base in names):
        _refuse("malformed", f"{manifest.sender} names rounds that its updates cannot be of")
    passed_up = "partial" if plan.combine == "sum" else "updates"
    asked = "update" if edge else passed_up
    if manifest.kind not in ("report", asked):
        _refuse("shape", f"{manifest.sender} sent {manifest.kind} where {asked} is asked")
    for member in manifest.members:
        _check_member(plan, manifest, member)
    if manifest.weight != sum(member.weight for member in manifest.members):
        _refuse("weight", f"{manifest.sender}'s weight is not the sum over its members")


def _check_member(plan: Plan, manifest: Contribution, member: Member) -> None:
    gives = manifest.kind != "report" and not member.absent
    if gives != (1 <= member.weight <= plan.max_weight) or (not gives and member.weight != 0):
        _refuse("weight", f"{member.node} has weight {member.weight}, allowed are 1..{plan.max_weight}")
    if not good_metrics(member.metrics):
        _refuse("metrics", member.node)
    if not 0 <= member.size <= (plan.params * update_width(plan.grid) if gives else 0):
        _refuse("oversized", f"{member.node} is said to have sent {member.size} bytes")
    if member.saturated < 0 or not _DIGEST.fullmatch(member.digest):
        _refuse("malformed", member.node)
    check_words(plan, member)


def check_words(plan: Plan, member: Member) -> None:
    """What is said to a plan has no text of anybody's code or data. Raises `Refused`.

    Who gives nothing says so in words of `ABSENT` and with no number; who was asked whether it is ready
    answers in words of closed lists, and nobody else does.
    """
    silent = Member(member.node, absent=member.absent)
    if member.absent and (member.absent not in ABSENT or member != silent):
        _refuse("absence", member.node)
    if not member.said:
        return
    if plan.task != "check" or not allowed(member.said, needs_of(plan.settings), REASONS):
        _refuse("malformed", f"what {member.node} says of itself")


def _check_refusals(plan: Plan, manifest: Contribution) -> None:
    """An edge refuses nobody; a fog tells of names and of reasons that there are.

    What a fog under it refused stands under that fog's name, a stroke, and the name of whom it refused.
    """
    told = each_refusal(manifest.refused)
    good = all(_is_path(plan, s) and reason in REFUSALS and times > 0 for s, reason, times in told)
    if not good or (told and manifest.sender in plan.cohort):
        _refuse("malformed", f"what {manifest.sender} says of others it refused")


def _is_path(plan: Plan, told: str) -> bool:
    """Whether it is a name, after those of the fogs between here and who refused it."""
    *fogs, name = told.split("/", MOST_LEVELS)
    return len(name) <= MAX_NAME and all(fog in plan.tree for fog in fogs)


def each_refusal(refused: Refusals) -> list[tuple[str, str, int]]:
    """Sender, reason and how often, sorted."""
    return sorted((sender, reason, times) for sender, why in refused.items() for reason, times in why.items())


def good_metrics(metrics: Metrics) -> bool:
    """Finite numbers, at most 64, under names of at most 64 characters."""
    if len(metrics) > MAX_METRICS:
        return False
    return all(len(name) <= MAX_NAME and math.isfinite(value) for name, value in metrics.items())


def largest_value(plan: Plan, manifest: Contribution) -> int:
    """Integers of an honest body lie in plus or minus this."""
    top = int(2 ** (plan.grid.bits - 1) - 1)
    return top * manifest.weight if manifest.kind == "partial" else top


def _refuse(reason: str, detail: str) -> NoReturn:
    raise Refused(reason, f"refused: {REFUSALS[reason]} ({detail})")


# --- fogs under fogs --------------------------------------------------------------------------


def children(plan: Plan, fog: str) -> tuple[str, ...]:
    """Who gives its part of a round to a fog: edges, and fogs under it."""
    return plan.tree.get(fog, ()) if plan.tree else plan.cohort


def edges_of(plan: Plan, fog: str) -> tuple[str, ...]:
    """Edges for which a fog speaks: all under it, however many fogs stand between."""
    return edges_under(plan.tree, fog) if plan.tree else plan.cohort


def edges_at(plan: Plan, child: str) -> tuple[str, ...]:
    """The edges for which a child speaks: itself, or all under it."""
    return (child,) if child in plan.cohort else edges_of(plan, child)


def together(plan: Plan, node: str) -> tuple[str, ...]:
    """Edges in the first sum that has what an edge gives, or in the sum that a fog gives."""
    return edges_of(plan, over(plan.tree, node) if node in plan.cohort else node)


def levels(plan: Plan, asked: Iterable[str]) -> int:
    """Levels of fogs under a parent that asks these children."""
    return max((_levels_of(plan, child) for child in asked), default=0)


def _levels_of(plan: Plan, child: str) -> int:
    if child in plan.cohort:
        return 0
    return height(plan.tree, child) if plan.tree else 1


def enough_at(plan: Plan, fog: str) -> int:
    """With how many that give the round under a fog is closed, 0: all under it are waited for.

    The plan says it of its addressee. Of the fogs under that each has its part, dealt by how many are asked
    there, or by what came from there lately, as the cloud deals it to its fogs: no word about it goes between
    them while a round goes on.
    """
    path, found = [fog], plan.enough
    while plan.tree and len(path) <= MOST_LEVELS and (above := over(plan.tree, path[-1])):
        path.append(above)
    for above, name in zip(path[:0:-1], path[-2::-1], strict=True):
        if not found:
            return 0
        found = _share(plan, above, name, found)
    return found


def _share(plan: Plan, above: str, fog: str, whole: int) -> int:
    """What of ``whole`` is for a fog directly under another; a buffered one always goes on with some."""
    below = [child for child in plan.tree[above] if child in plan.tree]
    sizes = {child: len(edges_of(plan, child)) for child in below}
    own = len(plan.tree[above]) - len(below)
    everybody = {**sizes, above: own} if own else sizes
    if plan.buffer:
        pace = {child: pace_of(plan.tree, child, plan.pace) for child in below}
        return at_pace(everybody, {**pace, above: plan.pace.get(above, 0)}, whole)[fog]
    share = shares(everybody, whole)[fog]
    return share if share < sizes[fog] else 0


def passed_on(rows: Iterable[Contribution]) -> Refusals:
    """What the fogs of these rows refused, each under ``fog/sender``."""
    found: Refusals = {}
    for row in rows:
        for sender, reason, times in each_refusal(row.refused):
            found.setdefault(f"{row.sender}/{sender}", {})[reason] = times
    return found


# --- a round closes --------------------------------------------------------------------------


def missing(children: Iterable[str], answered: Iterable[str]) -> list[str]:
    """Children that have not answered, sorted."""
    return sorted(set(children).difference(answered))


def is_enough(plan: Plan, rows: Iterable[Contribution], enough: int) -> bool:
    """Whether a round can be closed though not all have answered. ``enough`` that give; 0: all are wanted."""
    return plan.task == "train" and 0 < enough <= len(taking_part(rows))


def does_without(plan: Plan, edges: int) -> bool:
    """Whether a round may close without so many edges that are away: its quorum can be reached all the same.

    It may not in attempts after the first: then each parent waits until its deadline.
    """
    return plan.away_s > 0 and edges <= plan.capacity - plan.quorum


def is_away(now: float, heard: float | None, next_s: float, asked: float | None, away_s: float) -> bool:
    """Whether a child is away, by when it was ``heard`` of and, since then, first ``asked``; None for never.

    ``next_s``: the longest it may take until it is heard of again, as it said itself. Who is asked says at
    once that it is there, so that one who is silent for ``away_s`` after that is away in any case; what it
    need not answer does not count as asked, see `reuna.exchange.heard`.
    """
    if heard is not None and now - heard > max(away_s, next_s):
        return True
    return asked is not None and now - asked > away_s


def left_out(cohort: Iterable[str], gone: Container[str], enough: bool) -> tuple[Member, ...]:
    """Why a round was closed without them: they are away, or enough others gave."""
    found = ((edge, AWAY if edge in gone else SPARED if enough else "") for edge in cohort)
    return tuple(Member(edge, absent=reason) for edge, reason in found if reason)


def first_attempt(life: int) -> int:
    """The attempt that a round of a run begins with in its ``life``, above all of the lives before."""
    return ATTEMPTS_OF_A_LIFE * (life - 1) + 1


def reaches_quorum(plan: Plan, rows: Iterable[Contribution]) -> bool:
    """Whether a closed round counts. Rounds that only ask for reports count whoever answered."""
    return plan.task != "train" or len(taking_part(rows)) >= (1 if plan.buffer else plan.quorum)


def waiting(rows: Iterable[Contribution]) -> tuple[str, ...]:
    """Edges whose sites have not approved the run's code yet, sorted."""
    return tuple(sorted(m.node for row in rows for m in row.members if m.absent == AWAITED))


def waits(plan: Plan, rows: Sequence[Contribution]) -> bool:
    """Whether a round is short only because officers have not decided yet."""
    return not reaches_quorum(plan, rows) and len(taking_part(rows)) + len(waiting(rows)) >= plan.quorum


def lasting(absent: Iterable[str]) -> bool:
    """Whether everybody absent will be absent again, by their reasons: code, space, message."""
    codes = {reason.partition(" ")[0] for reason in absent}
    return bool(codes) and codes <= LASTING


def absences(cohort: Iterable[str], rows: Iterable[Contribution]) -> dict[str, tuple[str, ...]]:
    """Reason -> the edges of the cohort that gave it."""
    found: dict[str, tuple[str, ...]] = {}
    for member in all_members(cohort, rows, UNHEARD):
        if member.absent:
            found[member.absent] = (*found.get(member.absent, ()), member.node)
    return found


def shortage(number: int, absent: Mapping[str, tuple[str, ...]], attempts: int) -> str:
    """What to say of a round that never reached its quorum: who gave what reason, the first few."""
    tried = f"in {attempts} attempts" if attempts > 1 else "and another attempt would not change that"
    lines = [f"round {number} did not reach its quorum {tried}"]
    for reason, nodes in list(absent.items())[:MOST_TOLD]:
        more = f" and {len(nodes) - MOST_TOLD} more" if len(nodes) > MOST_TOLD else ""
        lines.append(f"{', '.join(nodes[:MOST_TOLD])}{more}: {reason}")
    return "\n".join(lines)


def taking_part(rows: Iterable[Contribution]) -> list[Member]:
    """Members that gave something, sorted by name."""
    members = (m for row in rows for m in row.members if not m.absent)
    return sorted(members, key=lambda member: member.node)


def told_members(members: Iterable[Member]) -> str:
    """Who gave something and with what weight, for the timeline: ``edge-1=96, edge-2=81``.

    Of updates that may be of several rounds also of which: ``edge-1@7=96, edge-2@9=81``.
    """
    given = sorted((m for m in members if not m.absent), key=lambda m: (m.node, m.base))
    return ", ".join(f"{m.node}{f'@{m.base}' if m.base else ''}={m.weight}" for m in given)


def read_members(told: str) -> dict[str, int]:
    """Node -> weight, as `told_members` wrote it; the sum of those of a node."""
    found: dict[str, int] = {}
    for node, _, weight in read_updates(told):
        found[node] = found.get(node, 0) + weight
    return found


def read_updates(told: str) -> list[tuple[str, int, int]]:
    """Node, round of its update (0: the one that is told of) and weight, as `told_members` wrote it."""
    found = []
    for each in filter(None, told.split(", ")):
        who, _, weight = each.rpartition("=")
        node, _, base = who.partition("@")
        found.append((node, int(base or 0), int(weight)))
    return found


def all_members(
    cohort: Iterable[str], rows: Iterable[Contribution], reason: str, known: Iterable[Member] = ()
) -> tuple[Member, ...]:
    """Every edge of the cohort, sorted; those neither heard of nor ``known`` are absent for ``reason``."""
    found = {member.node: member for member in known}
    found |= {member.node: _received(row, member) for row in rows for member in row.members}
    return tuple(found.get(node) or Member(node, absent=reason) for node in sorted(cohort))


def _received(row: Contribution, member: Member) -> Member:
    """What came in counts, not what an edge says of itself."""
    return msgspec.structs.replace(member, size=row.size) if row.kind == "update" else member


def bytes_sent(rows: Iterable[Contribution]) -> int:
    """Bytes of the bodies that came in, and of the updates below those that are sums."""
    return sum(row.size + sum(m.size for m in row.members if row.kind != "update") for row in rows)


def closing_row(
    plan: Plan,
    plan_digest: str,
    name: str,
    cohort: Iterable[str],
    rows: Sequence[Contribution],
    refused: Refusals | None = None,
    known: Iterable[Member] = (),
) -> Contribution:
    """The parent's own row: which of the cohort is in, and what was ``refused`` since the row before.

    ``known``: members of whom it knows by itself why they gave no row. Its body, if any, is added by
    `with_sum` or `with_updates`.
    """
    return Contribution(
        run=plan.run,
        round=plan.round,
        attempt=plan.attempt,
        sender=name,
        plan=plan_digest,
        kind="report",
        params=0,
        width=0,
        weight=0,
        digest="",
        size=0,
        members=all_members(cohort, rows, UNHEARD, known),
        refused=refused or {},
    )


def buffered_row(
    plan: Plan, plan_digest: str, name: str, rows: Sequence[Contribution], refused: Refusals
) -> Contribution:
    """The same where updates of several rounds are in: each member says of which. Nobody else is absent."""
    found = [(row, _received(row, member)) for row in rows for member in row.members]
    based = (
        member if member.absent else msgspec.structs.replace(member, base=member.base or row.round)
        for row, member in found
    )
    members = sorted(based, key=lambda member: (member.node, member.base))
    row = closing_row(plan, plan_digest, name, (), (), refused)
    return msgspec.structs.replace(row, members=tuple(members))


def weighted(members: Iterable[Member], round: int) -> tuple[list[int], int]:
    """What each update of a step is multiplied by, and what the sum is divided by; whole numbers.

    ``members`` gave something and say of which round their updates are; ``round``: that which they end. By
    FedBuff: samples, times `reuna.learn.staleness.factor` of how many steps the model has gone on since.
    """
    found = [(member.weight, round - member.base) for member in members]
    return [weight * factor(behind) for weight, behind in found], SCALE * sum(weight for weight, _ in found)


def with_sum(row: Contribution, plan: Plan, rows: Iterable[Contribution], digest: str) -> Contribution:
    """The closing row as the manifest of the partial sum over ``rows`` whose bytes have ``digest``.

    The sum is as wide as the widths of its parts need, at most as wide as the plan's largest sum.
    """
    bound = sum(part.multiplier * most(plan, part.source) for part in parts(rows))
    width = narrowest(min(bound, largest_sum(plan.grid, plan.max_weight, plan.capacity)))
    return _with_body(row, plan, "partial", width, 1, digest)


def with_updates(row: Contribution, plan: Plan, rows: Iterable[Contribution], digest: str) -> Contribution:
    """The closing row as the manifest of the updates of ``rows``, each as it came, one after the other."""
    given = parts(rows)
    width = next(width for width in SINGLE_WIDTHS if width >= max(part.width for part in given))
    return _with_body(row, plan, "updates", width, sum(updates_in(each.source) for each in given), digest)


def _with_body(
    row: Contribution, plan: Plan, kind: Kind, width: int, bodies: int, digest: str
) -> Contribution:
    return Contribution(
        run=row.run,
        round=row.round,
        attempt=row.attempt,
        sender=row.sender,
        plan=row.plan,
        kind=kind,
        params=plan.params,
        width=width,
        weight=sum(member.weight for member in row.members),
        digest=digest,
        size=plan.params * width * bodies,
        members=row.members,
        refused=row.refused,
    )


def most(plan: Plan, row: Contribution) -> int:
    """No integer of a row's body is larger in size, by its width and by the grid."""
    bits = 8 * row.width
    if row.kind == "partial":
        return min(int(2 ** (bits - 1)), largest_value(plan, row))
    return int(2 ** ((min(bits, plan.grid.bits) if row.kind == "update" else bits) - 1))


def updates_in(manifest: Contribution) -> int:
    """Updates, or sums, that stand one after the other in a body."""
    return len(taking_part([manifest])) if manifest.kind == "updates" else 1


def parts(rows: Iterable[Contribution]) -> list[Part[Contribution]]:
    """What is summed: every row with a body, an update times its weight."""
    with_body = sorted((row for row in rows if row.kind != "report"), key=lambda row: (row.sender, row.round))
    return [Part(row, row.width, row.weight if row.kind == "update" else 1) for row in with_body]


# --- an edge answers -------------------------------------------------------------------------


def packs(plan: Plan) -> bool:
    """Whether bodies may come packed."""
    return plan.encoding is not None and plan.encoding.packed


def in_lots(manifest: Contribution, digest: str, size: int) -> Contribution:
    """The manifest with a body that is packed."""
    return msgspec.structs.replace(manifest, digest=digest, size=size, packed=True)


def answer(plan: Plan, plan_digest: str, member: Member, digest: str = "", width: int = 0) -> Contribution:
    """An edge's manifest: with a ``digest`` an update, ``width`` bytes per integer, else a report."""
    return Contribution(
        run=plan.run,
        round=plan.round,
        attempt=plan.attempt,
        sender=member.node,
        plan=plan_digest,
        kind="update" if digest else "report",
        params=plan.params if digest else 0,
        width=width,
        weight=member.weight if digest else 0,
        digest=digest,
        size=plan.params * width if digest else 0,
        members=(member,),
    )
