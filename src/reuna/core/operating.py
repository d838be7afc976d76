"""What a node says of the releases that it runs: a line a project, words and counts, nothing of its data.

>>> one = Operating("pumps", 4, "0" * 64, "trial", windows=7, safe=1, agreed=0, compared=0, since=5.0)
>>> read_event(event_of("e1", "b", 0, 6.0, [one])) == [one]
True
>>> without_small([one], 5)[0].safe is None
True
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from reuna.core.errors import BadMessage
from reuna.core.foreign import UNREADABLE
from reuna.core.records import Event, Setting

WHAT = "operates"  #: what the event is called; of kind `log`
FIELD = "operating"  #: its one field: JSON of a list of `Operating`
MOST = 64  #: projects of one node

Phase = Literal["none", "shadow", "trial", "confirmed", "rolled_back"]
Reason = Literal[
    "", "damaged", "self-test", "start", "restarts", "safe", "latency", "agreement", "replaced", "withdrawn"
]
Count = Annotated[int, msgspec.Meta(ge=0)] | None
Number = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class Operating(msgspec.Struct, frozen=True):
    """One project on one node. ``version`` and ``digest`` are what answers, 0 and '' for nothing.

    ``beside``: version of the shadow; ``gave_up``: version that was given up last, and
    ``gave_up_in`` the rollout under which it was;
    ``rollout``: of the stage that asked for what answers, or of the shadow while there is one. Counts are
    since ``since`` (epoch s): windows, safe ones among them, windows of the shadow, and those of them that it
    answered as what is live; None: withheld, for there are few. ``muted``: what answers breaks its rules,
    ``reason``, and nothing before it does better, so the safe answer is given.
    """

    project: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    version: Number = 0
    digest: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    phase: Phase = "none"
    reason: Reason = ""
    rollout: Annotated[str, msgspec.Meta(max_length=100)] = ""
    beside: Number = 0
    gave_up: Number = 0
    gave_up_in: Annotated[str, msgspec.Meta(max_length=100)] = ""
    windows: Count = 0
    safe: Count = 0
    compared: Count = 0
    agreed: Count = 0
    since: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    muted: bool = False


_told = msgspec.json.Decoder(list[Operating])


def event_of(node: str, boot: str, number: int, now: float, told: Iterable[Operating]) -> Event:
    """What a node says it runs; the newest one counts."""
    fields: dict[str, Setting] = {FIELD: msgspec.json.encode(list(told)).decode()}
    return Event(node, f"{boot}/{WHAT}", number, now, WHAT, fields=fields)


def read_event(event: Event) -> list[Operating]:
    """What a node said that it runs. Raises `BadMessage`."""
    try:
        told = _told.decode(str(event.fields.get(FIELD)))
    except UNREADABLE as error:
        raise BadMessage(f"what {event.node} runs cannot be read: {error}") from error
    if len(told) > MOST:
        raise BadMessage(f"{event.node} says that it runs {len(told)} projects, more than {MOST} can be")
    return told


def without_small(told: Sequence[Operating], least: int) -> list[Operating]:
    """The same without counts that so few windows are behind: those from 1 to ``least`` - 1."""
    return [_without_small(each, least) for each in told]


def _without_small(each: Operating, least: int) -> Operating:
    """What is left of a count is as small as what was counted: 99 safe of 100 say that one was not."""

    def seen(count: int | None, of: int | None) -> int | None:
        parts = (count or 0, (of or 0) - (count or 0))
        return None if any(0 < part < least for part in parts) else count

    return replace(
        each,
        windows=seen(each.windows, each.windows),
        compared=seen(each.compared, each.compared),
        safe=seen(each.safe, each.windows),
        agreed=seen(each.agreed, each.compared),
    )


def hidden(event: Event, least: int) -> Event:
    """An event of this kind without small counts; one that cannot be read without any field."""
    try:
        told = without_small(read_event(event), least)
    except BadMessage:
        return replace(event, fields={})
    return replace(event, fields={FIELD: msgspec.json.encode(told).decode()})
