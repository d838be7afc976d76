"""What a place says of itself at its `/metrics`: a closed list of series, none with a reading or an answer.

Every process of a place tells its own `Figure`s; a name, a label or a value that is not in the list is
refused, so nothing else can be said this way. A series of every place has the label ``node`` besides.

>>> judged([Figure("reuna_store_bytes", 4096.0)])
[Figure(name='reuna_store_bytes', value=4096.0, labels=(), buckets=())]
>>> judged([Figure("reuna_store_bytes", 4096.0, ("x",))])
Traceback (most recent call last):
    ...
reuna.core.errors.BadMessage: reuna_store_bytes has the labels () and is told with 1
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from reuna.core.errors import BadMessage
from reuna.core.outcomes import STATES, Outcome

Kind = Literal["gauge", "counter", "histogram"]
MOST = 2000  #: series that one process may tell
LONGEST = 200  #: characters of a label's value
NODE = "node"
#: Upper ends of the buckets of a histogram of times, s; one more bucket is for what is above.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Figure(msgspec.Struct, frozen=True, array_like=True):
    """One number. Of a histogram ``value`` is the sum, and ``buckets`` how many fell in each."""

    name: str
    value: float
    labels: tuple[str, ...] = ()
    buckets: tuple[int, ...] = ()


class Series(msgspec.Struct, frozen=True):
    """What a name means. A counter begins at 0 with its process, but for those of files and stores."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


#: What both an edge and a fog tell.
OF_PLACES: tuple[Series, ...] = (
    Series("reuna_place_info", "gauge", "1; which place this is, and its version", ("place", "version")),
    Series("reuna_processes", "gauge", "How many processes of this place run", ("process",)),
    Series(
        "reuna_process_memory_bytes",
        "gauge",
        "Memory of a place's processes; pages that several have are divided among them",
        ("process",),
    ),
    Series("reuna_process_start_timestamp_seconds", "gauge", "When the oldest began", ("process",)),
    Series("reuna_told_timestamp_seconds", "gauge", "When a process told its figures last", ("process",)),
    Series("reuna_left_bytes_total", "counter", "Payload bytes that the ledger let leave", ("kind",)),
    Series("reuna_left_total", "counter", "Payloads that the ledger let leave", ("kind",)),
    Series(
        "reuna_kept_back_total",
        "counter",
        "Refusals in the ledger; equal ones count once a minute",
        ("kind",),
    ),
    Series("reuna_came_bytes_total", "counter", "Payload bytes that came from the parent", ("kind",)),
    Series("reuna_came_total", "counter", "Payloads that came from the parent", ("kind",)),
    Series("reuna_rounds_total", "counter", "Rounds that were carried out", ("task",)),
    Series("reuna_round_seconds_total", "counter", "Time that they took", ("task",)),
)
OF_EDGES: tuple[Series, ...] = (
    Series("reuna_parent_connected", "gauge", "1 while the line to the fog's nats-server stands"),
    Series("reuna_live_windows_total", "counter", "Windows that were answered", ("project", "state")),
    Series("reuna_live_seconds", "histogram", "From a window being asked for to its answer", ("project",)),
    Series("reuna_live_waiting", "gauge", "Windows that are over and not answered yet", ("project",)),
    Series(
        "reuna_release_info",
        "gauge",
        "1; which release answers (version 0: none), and its phase",
        ("project", "version", "phase"),
    ),
    Series("reuna_source_up", "gauge", "1 while a source is read; 0 until it is begun again", ("source",)),
    Series("reuna_source_readings_total", "counter", "Readings that came", ("source",)),
    Series("reuna_source_uncertain_total", "counter", "Those of uncertain quality", ("source",)),
    Series("reuna_source_bad_total", "counter", "Those of bad quality", ("source",)),
    Series("reuna_source_gaps_total", "counter", "Gaps that a source told of", ("source",)),
    Series("reuna_source_received_timestamp_seconds", "gauge", "When readings came last", ("source",)),
    Series("reuna_store_bytes", "gauge", "Size of the local store's file"),
    Series("reuna_store_oldest_timestamp_seconds", "gauge", "Source time of its oldest reading"),
    Series("reuna_store_readings_total", "counter", "Readings that it kept, forgot, refused", ("what",)),
    Series("reuna_sink_answers_total", "counter", "Answers sent, refused, dropped", ("sink", "what")),
    Series("reuna_sink_waiting", "gauge", "Numbers of the store that a sink has not come to", ("sink",)),
)
OF_FOGS: tuple[Series, ...] = (
    Series("reuna_edges", "gauge", "Edges of this site"),
    Series("reuna_edges_present", "gauge", "Those that were heard of lately"),
    Series("reuna_spool_bytes", "gauge", "Contributions of rounds on the disk"),
    Series("reuna_refused_total", "counter", "Contributions that were refused", ("reason",)),
)
SERIES = {each.name: each for each in (*OF_PLACES, *OF_EDGES, *OF_FOGS)}


def judged(figures: Sequence[Figure]) -> list[Figure]:
    """Those very figures, each once. Raises `BadMessage` for what is not in the list."""
    if len(figures) > MOST:
        raise BadMessage(f"{len(figures)} figures of one process, more than {MOST}")
    for each in figures:
        _judge(each)
    return list({(each.name, each.labels): each for each in figures}.values())


def _judge(each: Figure) -> None:
    known = SERIES.get(each.name)
    if known is None:
        raise BadMessage(f"there is no series {each.name!r:.80}")
    if len(each.labels) != len(known.labels):
        raise BadMessage(f"{each.name} has the labels {known.labels} and is told with {len(each.labels)}")
    if any(len(label) > LONGEST for label in each.labels):
        raise BadMessage(f"a label of {each.name} is longer than {LONGEST} characters")
    if not math.isfinite(each.value) or (known.kind != "gauge" and each.value < 0):
        raise BadMessage(f"{each.name} is told as {each.value}")
    buckets = len(BOUNDS) + 1 if known.kind == "histogram" else 0
    if len(each.buckets) != buckets or any(count < 0 for count in each.buckets):
        raise BadMessage(f"{each.name} is told with {len(each.buckets)} buckets")


class Answered:
    """Counts of what releases answered, by project, since the process began."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], int] = {}
        self._times: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Take them in."""
        for each in outcomes:
            project, seconds = each.project, each.took_ms / 1000
            key = (project, each.state)
            self._states[key] = self._states.get(key, 0) + 1
            times = self._times.setdefault(project, [0] * (len(BOUNDS) + 1))
            times[bisect_left(BOUNDS, seconds)] += 1
            self._seconds[project] = self._seconds.get(project, 0.0) + seconds

    def figures(self) -> list[Figure]:
        """Windows by state, each of them also while there is none; and their times."""
        states = [
            Figure("reuna_live_windows_total", self._states.get((project, state), 0), (project, state))
            for project in self._times
            for state in STATES
        ]
        times = [
            Figure("reuna_live_seconds", self._seconds[project], (project,), tuple(counts))
            for project, counts in self._times.items()
        ]
        return [*states, *times]


class Worked:
    """Rounds that were carried out, by task, since the process began."""

    def __init__(self) -> None:
        self._rounds: dict[str, tuple[int, float]] = {}

    def count(self, task: str, seconds: float) -> None:
        """One more."""
        rounds, before = self._rounds.get(task, (0, 0.0))
        self._rounds[task] = rounds + 1, before + seconds

    def figures(self) -> list[Figure]:
        """How many, and how long they took together."""
        found = self._rounds.items()
        return [
            *(Figure("reuna_rounds_total", rounds, (task,)) for task, (rounds, _) in found),
            *(Figure("reuna_round_seconds_total", seconds, (task,)) for task, (_, seconds) in found),
        ]
