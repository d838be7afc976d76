"""Where one release of one project runs now, wave after wave, and when it goes back everywhere. Pure.

    planned → shadow → wave 1 → … → wave n → done          paused holds any of them
                 ╰──────────┴───────────┴──→ failed | aborted: every node has again what it had

`step` takes what a node says, a person's order, or the time alone, and gives the next state and what is to
be told; `stages` says for any state which release each node is to run, so that publishing it again does no
harm. A wave is judged by its nodes: confirmed, gone back, or silent. Time passes only through ``now``.

    state, event, now -> state, notes;  stages(state, published) -> what the cloud signs
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from reuna.core.errors import RolloutProblem
from reuna.core.operating import Operating
from reuna.core.records import Setting
from reuna.core.rollout import ALL, Order, RolloutSpec, Terms, Wave, in_waves, opens, places
from reuna.trust.stages import Stage

Phase = Literal["planned", "shadow", "wave", "done", "failed", "aborted"]
Verdict = Literal["", "shadow", "trial", "confirmed", "rolled_back"]
FINAL: tuple[Phase, ...] = ("done", "failed", "aborted")
PLENTY = 1e-9  #: shares are fractions of small numbers; this is less than one node of any fleet
NAMED = 5  #: nodes in a sentence


class Version(msgspec.Struct, frozen=True):
    """A release of the project: its number and the SHA-256 of its file."""

    version: int
    sha256: str


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node of the rollout. ``before``: what it ran when that was first known; ``verdict``: what it last
    said of the release, and ``why`` it went back.
    """

    site: str
    before: Version | None = None
    verdict: Verdict = ""
    why: str = ""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of a rollout. Times are epoch s.

    ``waves``: nodes of each; ``wave``: the one that has begun last, -1: none. ``began``: the shadow or the
    wave; ``met``: since when it has succeeded; ``paused``: since when it is held, and ``why``.
    ``waived``: a person let this part go on without its silent nodes. ``told``: notes so far.
    """

    spec: RolloutSpec
    nodes: dict[str, Node]
    waves: tuple[tuple[str, ...], ...]
    phase: Phase = "planned"
    wave: int = -1
    began: float = 0.0
    met: float | None = None
    paused: float | None = None
    waived: bool = False
    listed: bool = False
    why: str = ""
    by: str = ""
    heard: int = 0
    told: int = 0

    @property
    def final(self) -> bool:
        """Whether nothing will change it any more."""
        return self.phase in FINAL


class Said(msgspec.Struct, frozen=True):
    """What a node says it runs of the project: ``runs`` is live there, ``verdict`` is of the release."""

    node: str
    runs: Version | None
    verdict: Verdict = ""
    why: str = ""


def heard(node: str, told: Iterable[Operating], spec: RolloutSpec) -> Said:
    """What a node's report says of the release of a rollout.

    That it went back counts when it tried under this rollout: an older word is about an older try.
    """
    found = next((each for each in told if each.project == spec.project), None)
    if found is None:
        return Said(node, None)
    runs = Version(found.version, found.digest) if found.version and found.digest else None
    if found.gave_up == spec.version and found.gave_up_in == spec.rollout:
        return Said(node, runs, "rolled_back", found.reason)
    if found.digest == spec.sha256:
        return Said(node, runs, "trial" if found.phase == "trial" else "confirmed")
    return Said(node, runs, "shadow" if found.beside == spec.version else "")


class Reports(msgspec.Struct, frozen=True):
    """What nodes said last, taken in together: a fleet of a thousand speaks a thousand times a wave."""

    said: tuple[Said, ...]


class Asked(msgspec.Struct, frozen=True):
    """A person's order."""

    order: Order
    by: str


class Listed(msgspec.Struct, frozen=True):
    """The offline-signed list has the release for every node of the rollout."""


class Tick(msgspec.Struct, frozen=True):
    """Nothing but time."""


Event = Reports | Asked | Listed | Tick


class Note(msgspec.Struct, frozen=True):
    """What people are told of it, once."""

    what: str
    fields: dict[str, Setting] = {}


def begin(spec: RolloutSpec, sites: Mapping[str, str], runs: Mapping[str, Version], now: float) -> State:
    """A rollout that has not begun. ``sites``: node -> site; ``runs``: node -> what is live there."""
    waves = in_waves(spec, sites)
    of = sorted(node for wave in waves for node in wave)
    nodes = {node: Node(sites[node], runs.get(node)) for node in of}
    return State(spec, nodes, waves, began=now, listed=not spec.waits)


def step(state: State, event: Event, now: float) -> tuple[State, tuple[Note, ...]]:
    """The state after something happened, ``now`` (epoch s). A state that is final stays as it is."""
    if state.final:
        return state, ()
    taken, notes = _take(state, event, now)
    found = [*notes]
    while not taken.final:
        after, notes = _go_on(taken, now)
        if after == taken:
            break
        taken = after
        found += notes
    return replace(taken, told=state.told + len(found)), tuple(found)


def wakes(state: State, now: float) -> float | None:
    """When time alone may change it (epoch s); None: only something that happens will."""
    if state.final or state.paused is not None or not state.listed:
        return None
    if state.phase == "planned":
        return opens(state.spec.terms.windows, now)
    if state.met is None:
        end = state.began + state.spec.terms.deadline_s
        return end if now < end else None
    end = state.met + _holds_s(state)
    return end if now < end else opens(state.spec.terms.windows, now)


def unknown(spec: RolloutSpec, sites: Mapping[str, str]) -> list[str]:
    """Which names of its waves this fleet does not have, one line each; ``sites``: node -> site."""
    known = {*sites, *sites.values()}
    named = [name for wave in spec.waves for name in _names(wave)]
    found = [f"{name!r} is no node and no site of this fleet" for name in named if name not in known]
    if not sites:
        return ["the cloud knows no edge yet"]
    return found or ([] if any(in_waves(spec, sites)) else ["there is nobody in any wave"])


def _names(wave: Wave) -> tuple[str, ...]:
    return wave.members or (() if wave.name == ALL or wave.name.endswith("%") else (wave.name,))


# --- what happened ------------------------------------------------------------------------------------


def _take(state: State, event: Event, now: float) -> tuple[State, tuple[Note, ...]]:
    if isinstance(event, Reports):
        return _hear(state, event.said), ()
    if isinstance(event, Listed):
        return replace(state, listed=True), ()
    if isinstance(event, Asked):
        return _obey(state, event, now)
    return state, ()


def _hear(state: State, told: Iterable[Said]) -> State:
    """The nodes as they say they are; nobody else is heard."""
    known = ((said, state.nodes.get(said.node)) for said in told)
    changed = {said.node: _heard(state.spec, node, said) for said, node in known if node is not None}
    return replace(state, nodes={**state.nodes, **changed})


def _heard(spec: RolloutSpec, node: Node, said: Said) -> Node:
    """What a node ran first is what it goes back to; one that went back does not try that release again."""
    if node.before is None and said.runs is not None and said.runs.sha256 != spec.sha256:
        node = replace(node, before=said.runs)
    if node.verdict == "rolled_back" or (node.verdict, node.why) == (said.verdict, said.why):
        return node
    return replace(node, verdict=said.verdict, why=said.why)


def _obey(state: State, asked: Asked, now: float) -> tuple[State, tuple[Note, ...]]:
    if asked.order == "abort":
        return _end(state, "aborted", f"aborted by {asked.by}", asked.by)
    if asked.order == "pause":
        if state.paused is not None:
            return state, ()
        return _pause(state, f"paused by {asked.by}", now, asked.by)
    if state.paused is None:
        return state, ()
    began = state.began + max(now - state.paused, 0.0)
    waived = state.waived or _overdue(state, state.paused)
    resumed = replace(state, paused=None, why="", by="", began=began, waived=waived)
    return resumed, (Note("resumed", {"by": asked.by}),)


def _pause(state: State, why: str, now: float, by: str = "") -> tuple[State, tuple[Note, ...]]:
    return replace(state, paused=now, why=why, by=by), (Note("paused", {"why": why, "by": by}),)


def _end(state: State, phase: Phase, why: str = "", by: str = "") -> tuple[State, tuple[Note, ...]]:
    fields: dict[str, Setting] = {"why": why, "by": by} if why else {}
    return replace(state, phase=phase, paused=None, why=why, by=by), (Note(phase, fields),)


# --- what follows -------------------------------------------------------------------------------------


def _go_on(state: State, now: float) -> tuple[State, tuple[Note, ...]]:
    """One thing that is due; the same state when nothing is."""
    if state.phase != "planned" and (why := _too_many_errors(state)):
        return _end(state, "failed", why)
    if state.paused is not None:
        return state, ()
    if state.phase == "planned":
        return _first(state, now) if state.listed else (state, ())
    if state.met is None:
        return _judge(state, now)
    if now < state.met + _holds_s(state):
        return state, ()
    return _next_wave(state, now)


def _first(state: State, now: float) -> tuple[State, tuple[Note, ...]]:
    if state.spec.terms.shadow_s > 0:
        return replace(state, phase="shadow", began=now), (Note("shadow", {"nodes": len(state.nodes)}),)
    return _next_wave(state, now)


def _next_wave(state: State, now: float) -> tuple[State, tuple[Note, ...]]:
    """The next wave that has somebody, once a window is open; after the last one it is done."""
    number = state.wave + 1
    while number < len(state.waves) and not state.waves[number]:
        number += 1
    if number == len(state.waves):
        return _end(replace(state, wave=number - 1), "done")
    if opens(state.spec.terms.windows, now) != now:
        return state, ()
    begun = replace(state, phase="wave", wave=number, began=now, met=None, waived=False)
    fields: dict[str, Setting] = {"wave": number + 1, "name": state.spec.waves[number].name}
    return begun, (Note("wave", {**fields, "nodes": len(state.waves[number])}),)


def _judge(state: State, now: float) -> tuple[State, tuple[Note, ...]]:
    """Whether the part that goes on has succeeded, has failed, or can wait no longer."""
    terms, part = state.spec.terms, _part(state)
    good = sum(_is_good(state, node) for node in part)
    back = sum(state.nodes[node].verdict == "rolled_back" for node in part)
    silent = len(part) - good - back
    late = _overdue(state, now)
    if good >= terms.success * len(part) - PLENTY:
        return _met(state, good, now)
    if silent and late and state.spec.back:
        return _met(state, good, now)
    if late and not state.waived and (silent > terms.offline * len(part) + PLENTY or not good + back):
        return _pause(state, _too_silent(state, part), now)
    if silent and not (late or state.waived):
        return state, ()
    if good < terms.success * (good + back) - PLENTY and not state.spec.back:
        return _end(state, "failed", f"{good} of {good + back} nodes of {_called(state)} confirmed it")
    return _met(state, good, now)


def _met(state: State, good: int, now: float) -> tuple[State, tuple[Note, ...]]:
    fields: dict[str, Setting] = {"wave": state.wave + 1, "nodes": good, "holds_s": _holds_s(state)}
    return replace(state, met=now), (Note("met", fields),)


def _part(state: State) -> tuple[str, ...]:
    """Nodes of the shadow, or of the wave that has begun last."""
    return tuple(state.nodes) if state.phase == "shadow" else state.waves[state.wave]


def _is_good(state: State, node: str) -> bool:
    good = ("confirmed", "shadow") if state.phase == "shadow" else ("confirmed",)
    return state.nodes[node].verdict in good


def _holds_s(state: State) -> float:
    return state.spec.terms.shadow_s if state.phase == "shadow" else state.spec.terms.soak_s


def _overdue(state: State, now: float) -> bool:
    running = state.phase in ("shadow", "wave") and state.met is None
    return running and now >= state.began + state.spec.terms.deadline_s


def _too_many_errors(state: State) -> str:
    """Why too many of a wave went back; also of the waves before, which soak on."""
    if state.spec.back:
        return ""
    parts = [state.waves[number] for number in range(state.wave + 1)]
    if state.spec.terms.shadow_s > 0:
        parts.append(tuple(state.nodes))
    for part in parts:
        back = [node for node in part if state.nodes[node].verdict == "rolled_back"]
        if len(back) > state.spec.terms.errors * len(part) + PLENTY:
            whys = sorted({state.nodes[node].why for node in back} - {""})
            return f"{_some(back)} went back" + (f": {'; '.join(whys)}"[:200] if whys else "")
    return ""


def _too_silent(state: State, part: Sequence[str]) -> str:
    silent = [n for n in part if not (_is_good(state, n) or state.nodes[n].verdict == "rolled_back")]
    return f"{len(silent)} of {len(part)} nodes of {_called(state)} did not confirm in time: {_some(silent)}"


def _called(state: State) -> str:
    return "the shadow" if state.phase == "shadow" else f"wave {state.wave + 1}"


def _some(nodes: Sequence[str]) -> str:
    more = len(nodes) - NAMED
    return ", ".join(nodes[:NAMED]) + (f" and {more} more" if more > 0 else "")


# --- what each node is to run -------------------------------------------------------------------------


def runs(state: State, name: str) -> tuple[Version | None, Version | None]:
    """What is to be live at a node, and beside it; None: nothing.

    Where nothing was live before, the release runs in the shadow until its wave begins: a node of which
    nobody said anything would take it by itself.
    """
    node, new = state.nodes[name], Version(state.spec.version, state.spec.sha256)
    if state.phase in ("failed", "aborted") or node.verdict == "rolled_back":
        return node.before, None if node.before else new
    if state.phase == "done" or any(name in state.waves[number] for number in range(state.wave + 1)):
        return new, None
    beside = state.phase in ("shadow", "wave") and state.spec.terms.shadow_s > 0
    return node.before, new if beside or node.before is None else None


def stages(state: State, published: Iterable[Stage]) -> tuple[Stage, ...]:
    """What the cloud is to sign, the first that counts for a node first; ``published``: what it says now.

    Of other projects it is as it is; of this one, what other nodes have stays, also those yet to come.
    """
    project, rest = state.spec.project, [*published]
    others = [each for each in rest if each.project != project]
    own = _own(state)
    if state.phase != "done":
        return (*others, *own, *_left(rest, state))
    new, where = _stage(state, Version(state.spec.version, state.spec.sha256), "live"), _final_places(state)
    back = [each for each in own if (each.sha256, each.mode) != (state.spec.sha256, "live")]
    left = [] if not where else _left(rest, state)
    return (*others, *back, replace(new, where=where), *left)


def _final_places(state: State) -> tuple[str, ...]:
    return places(state.spec, state.waves)


def _own(state: State) -> list[Stage]:
    found: dict[tuple[int, str, str], list[str]] = {}
    for name in sorted(state.nodes):
        for version, mode in zip(runs(state, name), ("live", "shadow"), strict=True):
            if version is not None:
                found.setdefault((version.version, version.sha256, mode), []).append(name)
    return [
        replace(_stage(state, Version(number, digest), mode), where=tuple(names))
        for (number, digest, mode), names in sorted(found.items())
    ]


def _stage(state: State, version: Version, mode: str) -> Stage:
    kept: Literal["live", "shadow"] = "shadow" if mode == "shadow" else "live"
    return Stage(state.spec.project, version.version, version.sha256, kept, (), state.spec.rollout)


def _left(published: Iterable[Stage], state: State) -> list[Stage]:
    """What was said of the project before, for nodes that are not in this rollout."""
    found = []
    for each in published:
        if each.project != state.spec.project or each.rollout == state.spec.rollout:
            continue
        where = tuple(name for name in each.where if name not in state.nodes)
        if where or not each.where:
            found.append(replace(each, where=where))
    return found


def way_back(state: State, name: str) -> RolloutSpec:
    """A rollout, called so, by which everybody has again what they had before this one.

    It goes to all at once, and no node's word stops it. Raises `RolloutProblem`.
    """
    asked = state.spec
    before = {node.before for node in state.nodes.values() if node.before is not None}
    if len(before) != 1:
        had = ", ".join(sorted(str(each.version) for each in before)) or "none that the cloud knows"
        raise RolloutProblem(
            f"before {asked.rollout} the nodes had different versions of {asked.project}: {had}",
            "Say which they shall have: `reuna rollout start --version N`.",
        )
    where, (version,) = _final_places(state), before
    waves = (Wave("back", where) if where else Wave(ALL),)
    terms = Terms(soak_s=0.0, offline=1.0)
    return RolloutSpec(name, asked.project, version.version, version.sha256, waves, terms, back=True)


# --- for people and scripts ---------------------------------------------------------------------------


def as_dict(state: State, now: float) -> dict[str, Any]:
    """Plain values, for JSON: the state, and of each wave how many of its nodes said what."""
    shown: dict[str, Any] = msgspec.to_builtins(state.spec)
    return {
        **{name: shown[name] for name in ("rollout", "project", "version", "sha256")},
        "phase": "paused" if state.paused is not None else state.phase,
        "wave": state.wave + 1,
        "why": state.why,
        "by": state.by,
        "next": wakes(state, now),
        "waves": [_wave_as_dict(state, number) for number in range(len(state.waves))],
        "nodes": {name: _node_as_dict(state, name) for name in sorted(state.nodes)},
        "terms": {name: getattr(state.spec.terms, name) for name in state.spec.terms.__struct_fields__},
    }


def _wave_as_dict(state: State, number: int) -> dict[str, Any]:
    nodes = state.waves[number]
    said = [state.nodes[node].verdict for node in nodes]
    return {
        "name": state.spec.waves[number].name,
        "nodes": list(nodes),
        "begun": number <= state.wave,
        "confirmed": said.count("confirmed"),
        "rolled_back": said.count("rolled_back"),
    }


def _node_as_dict(state: State, name: str) -> dict[str, Any]:
    node, (live, beside) = state.nodes[name], runs(state, name)
    return {
        "site": node.site,
        "said": node.verdict,
        "why": node.why,
        "before": node.before.version if node.before else None,
        "live": live.version if live else None,
        "shadow": beside.version if beside else None,
    }
