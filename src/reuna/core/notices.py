"""An edge's own alarms: when they begin and end, in which order that is told, and what leaves of it.

`noticed` takes what a watch finds now and adds a notice where that is news. Notices are numbered, and the
newest are kept; a sink has a place among them, as in the store of answers.

>>> drift = Found("inputs", "pumps", "ab", alarm=True, signals=("oil",), rows=600)
>>> book = noticed(noticed(Book(), drift, 5), drift, 6)
>>> [(each.number, each.notice.state, each.notice.signals) for each in book.kept]
[(1, 'raised', ('oil',))]
>>> noticed(book, msgspec.structs.replace(drift, alarm=False), 7).kept[-1].notice.state
'ended'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from reuna.core.errors import BadMessage

Kind = Literal["inputs", "answers", "safe", "errors"]
KINDS: tuple[Kind, ...] = ("inputs", "answers", "safe", "errors")
MOST_KEPT = 500  #: notices, the newest
MOST_SIGNALS = 64  #: that a notice names
LONGEST = 200  #: characters of a name


class Found(msgspec.Struct, frozen=True):
    """What a watch finds now.

    ``kind``: inputs or answers that differ from what is usual, answers that have been the safe one for a
    while, or errors by labels that have risen; ``regime`` of the inputs; ``rows`` that it is told from.
    """

    kind: Kind
    project: str
    release: str
    alarm: bool
    regime: str = ""
    signals: tuple[str, ...] = ()
    rows: int = 0


class Notice(msgspec.Struct, frozen=True):
    """An alarm was raised (again: with more signals) or ended, at ``at_ns``, ns since the epoch.

    ``going``: how many alarms of the node go on then.
    """

    kind: Kind
    project: str
    release: str
    regime: str
    state: Literal["raised", "ended"]
    since_ns: int
    at_ns: int
    signals: tuple[str, ...]
    rows: int
    going: int


class KeptNotice(msgspec.Struct, frozen=True):
    """A notice by its number; see `reuna.core.sinks.Waits`."""

    number: int
    notice: Notice

    @property
    def kept_ns(self) -> int:
        return self.notice.at_ns


class Book(msgspec.Struct, frozen=True):
    """What a node keeps of its alarms: those that go on, by what they are about, and notices in order."""

    going: dict[str, Notice] = {}
    kept: tuple[KeptNotice, ...] = ()

    @property
    def newest(self) -> int:
        """The number of the newest notice, 0 without any."""
        return self.kept[-1].number if self.kept else 0

    def after(self, number: int, most: int) -> list[KeptNotice]:
        """The oldest notices after that number, in order."""
        return [each for each in self.kept if each.number > number][:most]


class NodeAlarm(msgspec.Struct, frozen=True):
    """A notice as it leaves a node. ``id`` is the same whenever it is sent again, ``alarm`` that of all
    notices of one alarm."""

    id: str
    alarm: str
    node: str
    project: str
    release: str
    kind: Kind
    regime: str
    state: Literal["raised", "ended"]
    since_ns: int
    at_ns: int
    signals: tuple[str, ...]
    rows: int
    going: int


def noticed(book: Book, found: Found, now_ns: int) -> Book:
    """The book after a look; the same one where nothing is new."""
    about = f"{found.project}/{found.kind}/{found.regime}"
    before = book.going.get(about)
    if not found.alarm:
        return book if before is None else _with(book, about, replace(before, state="ended", at_ns=now_ns))
    known = before.signals if before is not None else ()
    more = tuple(name for name in found.signals if name not in known)
    if before is not None and (not more or len(known) >= MOST_SIGNALS):
        return book
    notice = Notice(
        found.kind,
        found.project,
        found.release,
        found.regime,
        "raised",
        now_ns if before is None else before.since_ns,
        now_ns,
        (*known, *more)[:MOST_SIGNALS],
        found.rows,
        0,
    )
    return _with(book, about, notice)


def begun_anew(book: Book, project: str, now_ns: int) -> Book:
    """The book once another release of a project is watched: no alarm of the one before goes on."""
    for about, notice in [each for each in book.going.items() if each[1].project == project]:
        book = _with(book, about, replace(notice, state="ended", at_ns=now_ns))
    return book


def told(node: str, notice: Notice) -> NodeAlarm:
    """What leaves of a notice. Raises `BadMessage` for one with long names, or with many."""
    names = (notice.project, notice.release, notice.regime, *notice.signals)
    if len(notice.signals) > MOST_SIGNALS or max(map(len, names)) > LONGEST:
        raise BadMessage(
            f"a notice has more than {MOST_SIGNALS} signals, or a name of over {LONGEST} characters"
        )
    alarm = "/".join((node, notice.project, notice.kind, notice.regime, str(notice.since_ns)))
    said = {name: getattr(notice, name) for name in notice.__struct_fields__}
    return NodeAlarm(id=f"{alarm}-{notice.at_ns}", alarm=alarm, node=node, **said)


def least_rows(alarms: Sequence[NodeAlarm]) -> int:
    """Rows behind that which is told from the fewest."""
    return min(each.rows for each in alarms)


def _with(book: Book, about: str, notice: Notice) -> Book:
    going = {key: each for key, each in book.going.items() if key != about}
    count = len(going) + (notice.state == "raised")
    notice = replace(notice, going=count)
    if notice.state == "raised":
        going[about] = notice
    kept = (*book.kept, KeptNotice(book.newest + 1, notice))
    return Book(going, kept[-MOST_KEPT:])
