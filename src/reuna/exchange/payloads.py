"""What the site's policy is told about a payload: facts, never its content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from reuna.core import bins, labelled, plans
from reuna.core.contract import contract
from reuna.core.contract_report import smallest, told
from reuna.core.fingerprint import WHAT as DATA
from reuna.core.notices import NodeAlarm, least_rows
from reuna.core.readiness import needs_of, word_of
from reuna.core.records import Contribution, Event, Member, Plan
from reuna.core.second import Doubtful
from reuna.core.sources import NS
from reuna.exchange.flows import TO_A_SINK
from reuna.exchange.intents import Leaving
from reuna.learn.grid import sum_width, update_width
from reuna.loop import train
from reuna.trust.foretell import Ahead
from reuna.trust.requests import Hidden, Request
from reuna.wire import digest_bytes, encode

LARGEST_CELL = 2**53  #: of a statistic without a count
Among = Callable[[Iterable[str]], Hidden]  #: who of these names is of the fleet


class Made(msgspec.Struct, frozen=True):
    """How an update came to be: the bundle that made it, the cohort it hides in, steps, length, tensors.

    ``steps`` are the epochs that the plan asks for; nobody counts what the code does. ``norm`` is the
    length (L2) of the update, of a sum that of the mean; ``schema`` the SHA-256 of the tensors' names and
    shapes; ``sandbox`` the level the code ran in.
    """

    code: str = ""
    cohort: Hidden = Hidden(0)
    steps: int = 0
    norm: float | None = None
    schema: str = ""
    sandbox: int = 0


def made_for(
    plan: Plan, node: str, among: Among, sandbox: int, norm: float | None = None, schema: str = ""
) -> Made:
    """An edge's answer to a plan. A learner takes at least as many steps as epochs."""
    return Made(plan.bundle, hiding(plan, node, among), steps_of(plan), norm, schema, sandbox)


def hiding(plan: Plan, node: str, among: Among) -> Hidden:
    """Among whom a node's update of the plan hides: in the first sum that has it, or where each is passed up
    singly, nobody."""
    return among(train.together(plan, node) if plan.combine == "sum" else plan.cohort[:1])


def steps_of(plan: Plan) -> int:
    """Steps of training that a plan asks each node for, at the least."""
    return int(plan.settings.get("epochs", 0))


def message(kind: str, to: str, data: bytes, now: float, run: str = "", round: int = 0) -> Leaving:
    """An event or a hello."""
    return Leaving(Request(kind, to, len(data), now, run, round), digest_bytes(data))


def prediction(
    sink: str, to: str, delivery: int, values: int, messages: Sequence[bytes], now: float
) -> Leaving:
    """Answers on their way to a sink; a delivery is a round of its own, and all its messages one payload."""
    data = b"".join(messages)
    request = Request("prediction", to, len(data), now, f"{TO_A_SINK}{sink}", delivery, values=values)
    return Leaving(request, digest_bytes(data))


def node_alarms(
    sink: str, to: str, delivery: int, alarms: Sequence[NodeAlarm], messages: Sequence[bytes], now: float
) -> Leaving:
    """A node's own alarms on their way to a sink: statistics over rows."""
    data, rows = b"".join(messages), least_rows(alarms)
    request = Request(
        "statistic",
        to,
        len(data),
        now,
        f"{TO_A_SINK}{sink}",
        delivery,
        samples=rows,
        values=len(alarms),
        cell=rows,
    )
    return Leaving(request, digest_bytes(data))


def windows(asked: Doubtful, to: str, data: bytes, now: float) -> Leaving:
    """Windows on their way to the fog; a round of its own is what is asked in a second of the sources."""
    first_s = asked.windows[0].first_ns // NS
    request = Request(
        "window",
        to,
        len(data),
        now,
        f"fog/{asked.project}",
        max(0, first_s),
        samples=sum(each.count for each in asked.windows),
        metrics=tuple(sorted({name for each in asked.windows for name in each.cells})),
        values=sum(each.count * len(each.cells) for each in asked.windows),
    )
    return Leaving(request, digest_bytes(data))


def statistic(event: Event, to: str, data: bytes, now: float) -> Leaving:
    """An event that says nothing but counts over many rows, or which data they are of."""
    of = {DATA: _of_data, bins.WHAT: _spread, labelled.WHAT: _of_rows}.get(event.what, _judged)
    rows, cell = of(event)
    request = Request(
        "statistic",
        to,
        len(data),
        now,
        event.run,
        event.round,
        samples=rows,
        values=len(event.fields),
        cell=cell,
    )
    return Leaving(request, digest_bytes(data))


def _judged(event: Event) -> tuple[int, int | None]:
    """Rows behind a report on the contract, and its smallest count."""
    present = (line.passed + line.failed for line in told(event.fields) if line.rule == "present")
    return max(present, default=0), smallest(event.fields) or LARGEST_CELL


def _spread(event: Event) -> tuple[int, int | None]:
    """Rows behind reference bins, and the smallest count."""
    cells = [each.cells for each in bins.told(event.fields)]
    least = min((n for each in cells for n in each if n), default=LARGEST_CELL)
    return max(map(sum, cells), default=0), least


def _of_data(event: Event) -> tuple[int, int | None]:
    """Rows behind a fingerprint, twice; of nobody knows how many it is no statistic over some."""
    rows = event.fields.get("rows")
    return (rows, rows) if type(rows) is int else (0, None)


def _of_rows(event: Event) -> tuple[int, int | None]:
    """Rows of a count of them; of none there is nothing to hide."""
    rows = event.fields.get("rows", 0)
    counted = rows if type(rows) is int and rows else LARGEST_CELL
    return counted, counted


def contribution(
    manifest: Contribution, to: str, now: float, made: Made, among: Among
) -> tuple[Leaving, ...]:
    """A contribution's manifest, and its body if it has one.

    A sum hides in those who took part in it, an update in the plan's cohort. Of updates passed up singly
    each stands alone: so does the one with the fewest samples.
    """
    members = [member for member in manifest.members if not member.absent]
    singly = manifest.kind == "updates"
    samples = (min if singly else sum)(member.weight for member in members) if members else 0
    named = [member.node for member in members][: 1 if singly else None]
    hidden = among(named) if manifest.kind in ("partial", "updates") else made.cohort
    data = encode(manifest)
    names = sorted({name for member in members for name in member.metrics})
    metric = Request(
        "metric",
        to,
        len(data),
        now,
        manifest.run,
        manifest.round,
        cohort=hidden.nodes,
        organisations=hidden.organisations,
        samples=samples,
        metrics=tuple(names),
        values=sum(len(member.metrics) for member in members),
        code=made.code,
        sandbox=made.sandbox,
    )
    found = [Leaving(metric, digest_bytes(data), manifest.plan)]
    if manifest.size:
        update = Request(
            "model_update",
            to,
            manifest.size,
            now,
            manifest.run,
            manifest.round,
            cohort=hidden.nodes,
            organisations=hidden.organisations,
            samples=samples,
            local_steps=made.steps,
            params=manifest.params,
            dtype="float32",
            norm=made.norm,
            schema=made.schema,
            code=made.code,
            sandbox=made.sandbox,
        )
        found.append(Leaving(update, manifest.digest, manifest.plan))
    return tuple(found)


def code_had_a_part(plan: Plan, member: Member) -> bool:
    """Whether the project's code made anything of an edge's answer.

    Who gives nothing says it in our words and without a number; who is asked whether it is ready, too,
    unless the code may run there; who is asked which data it has runs none.
    """
    if plan.task == "check":
        return word_of(member.said, "code") == "yes" and not needs_of(plan.settings).window
    return not member.absent


def ahead(plan: Plan, node: str, to: str, now: float, among: Among, samples: int, unsigned: str) -> Ahead:
    """What a run like this would ask of one node, or of what adds up the updates of those under it.

    The size of the update is the largest that the grid allows. Raises `SettingsError`, `Untrusted`.
    """
    needs, hidden = needs_of(plan.settings), hiding(plan, node, among)
    is_sum, below = node not in plan.cohort, len(train.edges_of(plan, node))
    width = update_width(plan.grid)
    if is_sum and plan.combine == "sum":
        width = sum_width(plan.grid, plan.max_weight, plan.capacity)
    elif is_sum:
        width *= below
    common = Request(
        "metric",
        to,
        0,
        now,
        plan.run,
        plan.round,
        cohort=hidden.nodes,
        organisations=hidden.organisations,
        samples=samples,
    )
    metric = msgspec.structs.replace(
        common, metrics=needs.metrics, values=len(needs.metrics) * (below if is_sum else 1)
    )
    update = msgspec.structs.replace(
        common,
        kind="model_update",
        bytes=plan.params * width,
        local_steps=steps_of(plan),
        params=plan.params,
        dtype="float32",
        norm=0.0,
        schema=needs.schema,
    )
    counts = Request("statistic", to, 0, now, plan.run, plan.round, samples=samples, cell=LARGEST_CELL)
    return Ahead(plans.work(plan), unsigned, contract(plan.settings).names, (update, metric, counts))
