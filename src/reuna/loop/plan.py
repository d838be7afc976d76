"""From what a person asked for to what each round asks of the nodes.

A plan is a pure function of the run, the round, the attempt and the base model: a cloud that
was killed publishes the same bytes again, and answers made for them still count.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from reuna.core import cohort
from reuna.core.errors import PlanError, RunProblem
from reuna.core.records import WAITS, Asking, Encoding, Grid, Plan, RunSpec, Setting, Task
from reuna.core.tree import check_tree, edges_under, height, pruned, tops, tree_under, with_edges
from reuna.learn.grid import check_grid
from reuna.learn.rounding import check_encoding
from reuna.learn.staleness import check_sum
from reuna.learn.strategies import client_settings, strategy
from reuna.wire import encode

_RUN = re.compile(r"[A-Za-z0-9._-]{1,80}")
NO_FOGS_OVER: Mapping[str, str] = {}
INLINE_LIMIT = 256 * 1024  #: bytes; a model up to this size rides in the plan itself


def run_id(now: float, token: str) -> str:
    """Name of a new run, sortable by time: ``r-20261123-104500-3f9a``."""
    return f"r-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{token[:4]}"


def edges_of(spec: RunSpec) -> tuple[str, ...]:
    """All edges asked, sorted."""
    return tuple(sorted(edge for edges in spec.fogs.values() for edge in edges))


def size_of(spec: RunSpec) -> int:
    """How many edges are asked; each stands under one fog."""
    return sum(map(len, spec.fogs.values()))


def check_spec(spec: RunSpec) -> None:
    """Refuse a run that could not be carried out exactly. Raises `PlanError`."""
    if not _RUN.fullmatch(spec.run):
        raise PlanError(
            f"{spec.run!r:.80} is no name for a run", "Use a-z, A-Z, 0-9, dot, hyphen, underscore."
        )
    edges = edges_of(spec)
    if not edges:
        raise PlanError("the run has no edge nodes", "Give at least one fog with one edge.")
    if len(set(edges)) != len(edges):
        raise PlanError("an edge stands under two fogs", "List each edge once.")
    if set(edges) & set(spec.fogs):
        raise PlanError("a fog and an edge have the same name", "Give every node its own name.")
    if spec.rounds < 0 or spec.params < 1:
        raise PlanError(f"rounds is {spec.rounds} and params {spec.params}")
    if not 0 < spec.quorum <= 1:
        raise PlanError(f"quorum is {spec.quorum}; it is a fraction above 0 and up to 1")
    if spec.asking.away_s < 0 or spec.asking.cohort < 0 or not spec.asking.over_select >= 1:
        raise PlanError(f"what is asked cannot be: {spec.asking}")
    if not spec.deadline_s > 0:
        raise PlanError(f"deadline_s is {spec.deadline_s}; it must be above 0")
    check_tree(spec.fogs, spec.above)
    strategy(spec.strategy).check_rows(spec.settings, quorum_of(spec))
    if strategy(spec.strategy).buffered:
        if spec.asking.cohort:
            raise PlanError(f"{spec.strategy} asks all nodes all the time", "Leave round.cohort out.")
        levels = max(
            height(tree_under(top, spec.fogs, spec.above), top) for top in tops(spec.fogs, spec.above)
        )
        check_sum(len(edges) * (1 + max_staleness(spec) * levels), spec.max_weight)
    check_grid(spec.grid, spec.max_weight, len(edges))
    check_encoding(spec.encoding, spec.grid)
    strategy(spec.strategy).check_encoding(spec.encoding)


class Step(NamedTuple):
    """The difference between the models before and after a round, as a blob."""

    base: str
    digest: str
    size: int


NO_STEP = Step("", "", 0)


class Going(NamedTuple):
    """What the rounds before leave to a round, beside the model.

    ``carried``: for each edge the last round in which it counted, with error feedback; ``step`` to the model;
    ``exponent`` of the grid, None for that of the run; ``away``: see `reuna.core.cohort.chosen`.
    ``asked``: fog -> digests of its plans of the rounds before, newest first, where updates for them count,
    and ``pace``: how many updates of the edges directly under each fog came lately, also under other fogs.
    """

    carried: Mapping[str, int] = {}
    step: Step = NO_STEP
    exponent: int | None = None
    away: Mapping[str, int] = {}
    asked: Mapping[str, tuple[str, ...]] = {}
    pace: Mapping[str, int] = {}

    def grid(self, spec: RunSpec) -> Grid:
        """The round's grid."""
        return spec.grid if self.exponent is None else Grid(spec.grid.bits, self.exponent)


BEGINNING = Going()


class Built(msgspec.Struct, frozen=True):
    """What a build's ``plan.json`` says of the runs that are begun from it."""

    name: str
    task: str
    metric: str
    strategy: str
    rounds: int
    seed: int
    deadline_s: float
    quorum: float
    grid: Grid
    max_weight: int
    local: bool
    settings: dict[str, Setting]
    encoding: Encoding | None = None
    asking: Asking = Asking()


def check_built(spec: RunSpec, code: str, plan: Built) -> None:
    """Refuse a run that names a build and asks for other than is in it. Raises `RunProblem`.

    ``code``: the digest of the build's code. What only running the code would tell, its first model, is
    not judged here.
    """
    asked = msgspec.structs.asdict(spec)
    built = {**msgspec.structs.asdict(plan), "bundle": code}
    built["project"] = built.pop("name")
    wrong = sorted(name for name, value in built.items() if asked[name] != value)
    if wrong:
        raise RunProblem(
            f"run {spec.run} names build {spec.build[:12]}… and has another {', '.join(wrong)}",
            "Begin it with `reuna run --build`, which takes everything from the build.",
        )


def retry(spec: RunSpec, run: str) -> RunSpec:
    """Another try of a run: the same inputs under a name of its own, which says whose they are."""
    return msgspec.structs.replace(spec, run=run, retries=spec.run, why="")


def by_itself(
    spec: RunSpec, run: str, fogs: Mapping[str, tuple[str, ...]], above: Mapping[str, str] = NO_FOGS_OVER
) -> RunSpec:
    """What the cloud begins by itself: the inputs of an earlier run, on the fleet of now if there is one.

    It is no retry, whatever that run was; why it is begun is said when it is.
    """
    there, over = with_edges(fogs, above) if any(fogs.values()) else (spec.fogs, spec.above)
    return msgspec.structs.replace(spec, run=run, fogs=there, above=over, retries="", why="")


def check_retry(spec: RunSpec, before: RunSpec) -> None:
    """Refuse a run that calls itself another try of one with other inputs. Raises `RunProblem`."""
    again = retry(before, spec.run)
    if spec != again:
        wrong = [name for name in spec.__struct_fields__ if getattr(spec, name) != getattr(again, name)]
        raise RunProblem(f"run {spec.run} is no retry of {before.run}: it has another {', '.join(wrong)}")


def quorum_of(spec: RunSpec) -> int:
    """Edges that must take part for a round to count."""
    return cohort.least(spec.quorum, size_of(spec), spec.asking)


def buffer_of(spec: RunSpec) -> int:
    """Updates of which a step is made: no more than there are nodes, or it would wait for ever."""
    return min(size_of(spec), int(strategy(spec.strategy).server_settings(spec.settings)["buffer"]))


def max_staleness(spec: RunSpec) -> int:
    """Steps that the base of an update may be behind when it arrives."""
    return int(strategy(spec.strategy).server_settings(spec.settings)["max_staleness"])


def asked_after(
    spec: RunSpec, asked: Mapping[str, tuple[str, ...]], digests: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Digests of each fog's plans, the newest first, as far back as updates for them may still count."""
    most = max_staleness(spec)
    return {fog: (digest, *asked.get(fog, ()))[:most] for fog, digest in digests.items()}


class Asks(NamedTuple):
    """Whom a round asks under each fog, and with how many the round under it is closed (0: all).

    ``enough``: with how many the whole round is.
    """

    cohorts: Mapping[str, tuple[str, ...]]
    shares: Mapping[str, int] = {}
    enough: int = 0


def asks(spec: RunSpec, task: Task, round: int, attempt: int, going: Going = BEGINNING) -> Asks:
    """See `reuna.core.cohort`. Fogs under which nobody is asked are left out, and those under other fogs."""
    under = {
        fog: edges_under(tree_under(fog, spec.fogs, spec.above), fog) for fog in tops(spec.fogs, spec.above)
    }
    if task == "train" and strategy(spec.strategy).buffered:
        whole = {fog: edges for fog, edges in under.items() if edges}
        pace = {fog: cohort.pace_of(tree_under(fog, spec.fogs, spec.above), fog, going.pace) for fog in whole}
        return Asks(whole, cohort.at_pace(_sizes(whole), pace, buffer_of(spec)), buffer_of(spec))
    if task != "train" or not spec.asking.cohort:
        return Asks(under)
    everybody = edges_of(spec)
    count, want = cohort.asked(len(everybody), spec.asking), cohort.wanted(len(everybody), spec.asking)
    found = set(cohort.chosen(everybody, spec.seed, round, attempt, count, going.away))
    chosen = {fog: tuple(edge for edge in edges if edge in found) for fog, edges in under.items()}
    cohorts = {fog: edges for fog, edges in chosen.items() if edges}
    if count == want:
        return Asks(cohorts)
    return Asks(cohorts, cohort.shares(_sizes(cohorts), want), want)


def _sizes(cohorts: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    return {fog: len(edges) for fog, edges in cohorts.items()}


def round_plan(
    spec: RunSpec,
    fog: str,
    round: int,
    attempt: int,
    task: Task,
    model: str,
    inline: bytes | None = None,
    before: str = "",
    going: Going = BEGINNING,
    whom: Asks | None = None,
) -> Plan:
    """What the round asks of one fog directly under the cloud, and of the fogs and edges under it.

    ``whom``: as `asks` says, if it was asked.
    """
    whom = whom or asks(spec, task, round, attempt, going)
    edges = whom.cohorts.get(fog, ())
    tree = pruned(tree_under(fog, spec.fogs, spec.above), edges)
    share = whom.shares.get(fog, 0)
    is_buffered = task == "train" and strategy(spec.strategy).buffered
    return Plan(
        run=spec.run,
        round=round,
        attempt=attempt,
        task=task,
        model=model,
        model_size=spec.model_size,
        params=spec.params,
        cohort=edges,
        quorum=quorum_of(spec),
        deadline_s=spec.deadline_s,
        grid=going.grid(spec),
        max_weight=spec.max_weight,
        capacity=sum(map(len, whom.cohorts.values())),
        seed=spec.seed,
        bundle=spec.bundle,
        bundle_size=spec.bundle_size,
        settings=learner_settings(spec),
        inline=inline,
        before=before,
        combine="singly" if strategy(spec.strategy).singly else "sum",
        encoding=spec.encoding,
        carried={edge: going.carried[edge] for edge in edges if edge in going.carried},
        base=going.step.base if inline is None else "",
        step=going.step.digest if inline is None else "",
        step_size=going.step.size if inline is None else 0,
        tree=tree if len(tree) > 1 else {},
        away_s=spec.asking.away_s if task != "check" and cohort.is_first(attempt) else WAITS,
        enough=share if share < len(edges) or is_buffered else 0,
        buffer=whom.enough if is_buffered else 0,
        bases=tuple(going.asked.get(fog, ())) if is_buffered else (),
        pace={each: going.pace[each] for each in tree if each in going.pace}
        if is_buffered and len(tree) > 1
        else {},
    )


def carried_after(
    spec: RunSpec, carried: Mapping[str, int], number: int, counted: Iterable[str]
) -> dict[str, int]:
    """For each edge the last round in which it counted; nothing without error feedback."""
    if spec.encoding is None or not spec.encoding.feedback:
        return {}
    return {**carried, **dict.fromkeys(counted, number)}


def learner_settings(spec: RunSpec) -> dict[str, Setting]:
    """What `load`, `learner` and `fit` are told on every node."""
    return {**client_settings(spec.strategy, spec.settings), "rounds": spec.rounds}


def shared(plan: Plan) -> str:
    """Digest of what a round asks of every fog alike: not whom, in which attempt, or how the model travels.

    The round before is in it, and so all rounds before.
    """
    alike = {
        "cohort": (),
        "attempt": 0,
        "inline": None,
        "carried": {},
        "base": "",
        "step": "",
        "step_size": 0,
        "tree": {},
        "away_s": WAITS,
        "enough": 0,
        "bases": (),
        "pace": {},
    }
    common = encode(msgspec.structs.replace(plan, **alike))
    return hashlib.sha256(common).hexdigest()


def plans(
    spec: RunSpec,
    round: int,
    attempt: int,
    task: Task,
    model: str,
    inline: bytes | None,
    before: str = "",
    going: Going = BEGINNING,
) -> dict[str, bytes]:
    """The bytes of the plan of each fog directly under the cloud, if it asks anybody there.

    A model that rides in it needs no step.
    """
    whom = asks(spec, task, round, attempt, going)
    return {
        fog: encode(round_plan(spec, fog, round, attempt, task, model, inline, before, going, whom))
        for fog in sorted(whom.cohorts)
    }
