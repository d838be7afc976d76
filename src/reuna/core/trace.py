"""A run as a trace: what its places said while it ran, as spans whose names follow from the run's.

Trace and span ids are hashes of run, round and node. So no message carries them, every place and every
restart names the same span alike, and a span may arrive before the one it belongs to.

    run ── round 1 ── combine fog-1 ── train edge-1
       ├── evaluate ── combine fog-1 ── evaluate edge-1
       ├── gates
       └── release

>>> event = Event("cloud", "r-1/round", 1, 10.0, "round", "r-1", 1, {"seconds": 4.0, "took_part": 2})
>>> span = span_of(event, "cloud", "")
>>> span.name, span.began_s, span.attributes["reuna.took_part"], span.parent == whole_id("r-1")
('round 1', 6.0, 2, True)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Literal

import msgspec

from reuna.core.records import Event, Plan, Setting

Place = Literal["cloud", "fog", "edge"]
WORKED = "worked"  #: event of a fog or an edge: how long its part of a round took; of kind `log`
LATEST = 4e9  #: s since the epoch; a time beyond is nobody's
STAGES = ("train", "local", "evaluate")
#: What has a duration, or happened at once; and which words of it are told.
TOLD: Mapping[str, tuple[str, ...]] = {
    "round": ("took_part", "loss", "saturated", "bytes", "absent"),
    "local": ("nodes",),
    "evaluate": ("nodes",),
    WORKED: ("task", "attempt"),
    "gates": ("decision",),
    "short": ("attempt", "absent"),
    "waits": ("attempt", "nodes"),
    "resumed": ("attempt",),
    "disk was full": ("seconds", "code"),
    "sat out": ("code",),
}
LONG = ("round", "local", "evaluate", WORKED)
BAD = ("short", "disk was full", "sat out")
FAILED = "fail"  #: what gates say of a model that they stop


class Span(msgspec.Struct, frozen=True):
    """Ids in lower-case hexadecimal, ``trace`` 32 digits, the others 16, ``parent`` '' for the run itself.

    Times are s since the epoch, by the clock of the node that says it.
    """

    trace: str
    id: str
    parent: str
    name: str
    place: Place
    node: str
    began_s: float
    ended_s: float
    failed: bool = False
    attributes: dict[str, Setting] = {}


def trace_id(run: str) -> str:
    """Of the whole run."""
    return _hash(32, "trace", run)


def whole_id(run: str) -> str:
    """Of the span that all others of the run are in."""
    return _hash(16, "run", run)


def span_of(event: Event, place: Place, fog: str) -> Span | None:
    """What an event of a run says, None when that is no part of a trace.

    ``place``: of the event's node; ``fog``: of an edge, the fog above it.
    """
    words = TOLD.get(event.what)
    if words is None or not event.run or not _is_time(event.at):
        return None
    seconds = event.fields.get("seconds", 0.0) if event.what in LONG else 0.0
    if not _is_time(seconds) or float(seconds) > event.at:
        return None
    stage, attempt = _stage(event), str(event.fields.get("attempt", ""))
    node = event.node
    if event.what == WORKED:
        if str(event.fields.get("task")) not in STAGES or place == "cloud":
            return None
        of_fog = _hash(16, event.run, stage, attempt, fog or node)
        own = _hash(16, event.run, stage, attempt, fog, node) if place == "edge" else of_fog
        parent = of_fog if place == "edge" else _hash(16, event.run, stage)
        name = f"{event.fields['task'] if place == 'edge' else 'combine'} {node}"
    elif event.what in LONG:
        own, parent, name = _hash(16, event.run, stage), whole_id(event.run), stage
    else:
        number = (event.what, str(event.round), node, event.boot, str(event.seq))
        own, parent, name = _hash(16, event.run, *number), whole_id(event.run), event.what
    told = {f"reuna.{word}": event.fields[word] for word in words if word in event.fields}
    where = {"reuna.run": event.run, "reuna.node": node}
    around: dict[str, Setting] = {**where, **({"reuna.round": event.round} if event.round else {})}
    failed = event.what in BAD or event.fields.get("decision") == FAILED
    return Span(
        trace_id(event.run), own, parent, name, place, node, event.at - float(seconds), event.at, failed,
        {**around, **told},
    )  # fmt: skip


def whole(
    run: str, node: str, began_s: float, ended_s: float, failed: bool, about: Mapping[str, Setting]
) -> Span:
    """The run itself, once it has ended."""
    attributes: dict[str, Setting] = {
        "reuna.run": run,
        **{f"reuna.{word}": said for word, said in about.items()},
    }
    return Span(
        trace_id(run), whole_id(run), "", f"run {run}", "cloud", node, began_s, ended_s, failed, attributes
    )


def released(run: str, node: str, project: str, version: int, digest: str, at_s: float) -> Span:
    """A release of the run's model was published, at that time."""
    about: dict[str, Setting] = {
        "reuna.run": run, "reuna.project": project, "reuna.version": version, "reuna.release": digest,
    }  # fmt: skip
    own = _hash(16, run, "release", digest)
    return Span(
        trace_id(run),
        own,
        whole_id(run),
        f"release {project} {version}",
        "cloud",
        node,
        at_s,
        at_s,
        False,
        about,
    )


def worked(node: str, boot: str, number: int, plan: Plan, began_s: float, ended_s: float) -> Event:
    """What a node says of its part in a round."""
    fields: dict[str, Setting] = {
        "task": plan.task, "attempt": plan.attempt, "seconds": round(max(0.0, ended_s - began_s), 3),
    }  # fmt: skip
    return Event(node, f"{boot}/{WORKED}", number, ended_s, WORKED, plan.run, plan.round, fields)


def _stage(event: Event) -> str:
    """A round, or what is done once beside the rounds."""
    task = str(event.fields.get("task", "train")) if event.what == WORKED else event.what
    return task if task in ("local", "evaluate") else f"round {event.round}"


def _is_time(said: object) -> bool:
    return isinstance(said, int | float) and math.isfinite(said) and 0 <= said <= LATEST


def _hash(digits: int, *words: str) -> str:
    return hashlib.sha256("\0".join(("reuna", *words)).encode()).hexdigest()[:digits]
