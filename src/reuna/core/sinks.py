"""What of a release's answers goes out to a sink, in which order, and what is dropped.

Answers wait in the store of answers, whose numbers go up. A sink has a place in it: all up to that number is
done with. Answers go in order; one that waited longer than ``keep_s`` is dropped and counted, and so is what
the store forgot meanwhile, its oldest first.

>>> from reuna.core.outcomes import Outcome
>>> said = told("edge-1", Outcome("pumps", 3, "0" * 64, 0, 11 * 10**9, "answered", 1.0, (0.2, 0.8)))
>>> said.id, said.answer, said.confidence
('edge-1/pumps/0-11000000000', 1.0, 0.8)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from reuna.core.notices import KeptNotice, NodeAlarm, Notice
from reuna.core.outcomes import Outcome, Place, State

What = Literal["every", "changes", "alarms"]
WHATS = ("every", "changes", "alarms")
ALARMS: What = "alarms"  #: of the node's own watch, and no answers
TOGETHER = 200  #: answers in one delivery
MOST_NUMBERS = 1000  #: of a graph's output; a longer one stays here
LIVE = "live"  #: the role of an answer that counts
NS = 10**9
MAX_ADDRESS = 200  #: characters, as the ledger has room for it
_ADDRESS = re.compile(r"(https?|mqtts?|opc\.tcp)://[!-~]+|file:/[!-~]*")


class Answer(msgspec.Struct, frozen=True):
    """An answer as it leaves a node: without a word that a project's code said.

    ``id`` is the same whenever the same window is sent again. Times are source times, ns since the epoch, of
    the window's first and last row. ``answer``, and each number of ``output``: null where it is not finite.
    ``place``: where it was decided.
    """

    id: str
    node: str
    project: str
    version: int
    release: str
    first_ns: int
    last_ns: int
    state: State
    answer: float | None
    confidence: float | None
    output: tuple[float | None, ...]
    place: Place = "edge"


#: One delivery: a sink is told the one or the other.
Said: TypeAlias = Sequence[Answer] | Sequence[NodeAlarm]


class Sink(Protocol):
    """Where answers or alarms go. What leaves is exactly the bytes of `encode`."""

    def encode(self, said: Said) -> tuple[bytes, ...]:
        """One delivery as messages; the same bytes for the same answers or alarms."""

    async def send(self, messages: Sequence[bytes]) -> bool:
        """Return when the other side has all of them, or says that it never takes these: False.

        It may get them again. Raises `Unreachable` or a `StorageError` when it may take them later.
        """

    async def close(self) -> None:
        """After the last `send`."""


class Waits(Protocol):
    """An answer in the store: its number, its role, and when it was kept, ns since the epoch."""

    @property
    def number(self) -> int: ...
    @property
    def role(self) -> str: ...
    @property
    def kept_ns(self) -> int: ...
    @property
    def outcome(self) -> Outcome: ...


class Chosen(msgspec.Struct, frozen=True):
    """What a sink is told, and for how long: of ``project`` ('': of every one), every answer, only changes,
    or the node's own alarms."""

    what: What = "every"
    project: str = ""
    keep_s: float = 86_400.0


class Progress(msgspec.Struct, frozen=True):
    """How far a sink is: the last number that is done with, and what became of answers so far.

    ``said``: by project what was looked at last, so that a change can be told. ``why``: what it waits for.
    """

    number: int
    sent: int = 0
    refused: int = 0
    dropped: int = 0
    said: dict[str, tuple[str, float | None]] = {}
    why: str = ""


def told(node: str, outcome: Outcome) -> Answer:
    """What leaves of an answer."""
    return Answer(
        f"{node}/{outcome.project}/{outcome.first_ns}-{outcome.last_ns}",
        node,
        outcome.project,
        outcome.version,
        outcome.release,
        outcome.first_ns,
        outcome.last_ns,
        outcome.state,
        _finite(outcome.answer),
        outcome.confidence,
        tuple(map(_finite, outcome.output)),
        outcome.place,
    )


def slim(outcome: Outcome) -> Outcome:
    """What of an outcome the egress is handed: no free text, no long output."""
    output = outcome.output if len(outcome.output) <= MOST_NUMBERS else ()
    return msgspec.structs.replace(outcome, why="", output=output)


def numbers(answers: Sequence[Answer]) -> int:
    """How many numbers they say."""
    return sum(1 + len(each.output) for each in answers)


def begun(before: Progress | None, newest: int) -> Progress:
    """Where a sink is when its node starts; ``newest``: number of the newest answer, 0 without any.

    A new one begins with the next answer. Numbers below its own are those of a new store.
    """
    if before is None:
        return Progress(newest)
    return before if before.number <= newest else msgspec.structs.replace(before, number=0)


def following(
    progress: Progress, waiting: Sequence[Waits], chosen: Chosen, now_ns: int
) -> tuple[list[Outcome], Progress]:
    """What of the next answers goes out, and where the sink is then (nothing counted as sent).

    ``waiting``: the answers of the store after ``progress``, in order.
    """
    if not waiting:
        return [], progress
    out: list[Outcome] = []
    said, dropped = dict(progress.said), waiting[0].number - progress.number - 1
    for each in waiting:
        outcome = each.outcome
        if each.role != LIVE or chosen.project not in ("", outcome.project):
            continue
        saying = outcome.state, _finite(outcome.answer)
        is_news = said.get(outcome.project) != saying
        said[outcome.project] = saying
        if chosen.what == "changes" and not is_news:
            continue
        if now_ns - each.kept_ns > chosen.keep_s * NS:
            dropped += 1
        else:
            out.append(slim(outcome))
    after = msgspec.structs.replace(
        progress, number=waiting[-1].number, dropped=progress.dropped + dropped, said=said
    )
    return out, after


def following_notices(
    progress: Progress, waiting: Sequence[KeptNotice], chosen: Chosen, now_ns: int
) -> tuple[list[Notice], Progress]:
    """`following`, of a node's own alarms."""
    if not waiting:
        return [], progress
    ours = [each for each in waiting if chosen.project in ("", each.notice.project)]
    out = [each.notice for each in ours if now_ns - each.kept_ns <= chosen.keep_s * NS]
    dropped = waiting[0].number - progress.number - 1 + len(ours) - len(out)
    after = msgspec.structs.replace(progress, number=waiting[-1].number, dropped=progress.dropped + dropped)
    return out, after


def counted(progress: Progress, answers: int, refused: str) -> Progress:
    """After a delivery of so many answers that arrived, or was ``refused`` for good."""
    if refused:
        return msgspec.structs.replace(progress, refused=progress.refused + answers, why=refused)
    return msgspec.structs.replace(progress, sent=progress.sent + answers, why="")


def wrong_address(address: str) -> str:
    """What is wrong with the address of a sink as a recipient, ''."""
    if len(address) > MAX_ADDRESS:
        return f"is longer than {MAX_ADDRESS} characters"
    return "" if _ADDRESS.fullmatch(address) else "has signs other than plain ones without a space"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
