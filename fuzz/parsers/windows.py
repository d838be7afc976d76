"""`reuna.fog.answer.rows_for`: windows that an edge asks its fog about."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fuzz.kit import attempt
from reuna.core.contract import Contract, Signal
from reuna.core.errors import BadMessage, Refused
from reuna.core.fallback import Fallback
from reuna.core.second import Doubtful, Window
from reuna.exchange.predict import Held
from reuna.fog.answer import rows_for
from reuna.wire import decode, encode
from reuna.wire.release import About

AGREED = Contract(every_s=1.0, signals=(Signal("a", unit="bar"), Signal("b", unit="degC")))
HELD = Held("d", About("big", 1, "r", "0" * 64), {}, AGREED, Fallback(), 2, 1, 1)
CELLS = {"a": (bytes(24), b"\1\0\1"), "b": (bytes(24), b"\1\1\1")}


def seeds() -> Iterator[bytes]:
    for units in ({"a": "bar", "b": "degC"}, {"a": "kPa", "b": "degC"}):
        yield encode(Doubtful("big", 1.0, 10**9, units, (Window(0, 1, 3, CELLS),), 2.0))


def check(data: bytes) -> None:
    asked = attempt(lambda: decode(Doubtful, data), BadMessage)
    for window in asked.windows if asked is not None else ():
        assert asked is not None
        rows = attempt(partial(rows_for, HELD, asked, window), Refused)
        if rows is not None:
            assert rows.count - rows.before == HELD.length
            assert {len(each.values) for each in rows.cells.values()} <= {rows.count}
