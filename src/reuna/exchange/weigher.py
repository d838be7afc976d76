"""Whether bodies are packed and models fetched as steps: by what the node has measured of its line.

What is decided is in `reuna.core.line`; here it is measured. A body is written once and sent with the same
bytes until it is acknowledged, whatever the line does meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from reuna.core import line
from reuna.core.line import Packing, Rates
from reuna.core.ports import Blob
from reuna.core.records import Contribution, Plan
from reuna.exchange.bodies import Begin, write_body
from reuna.learn.grid import Ints
from reuna.loop import train

log = logging.getLogger("reuna.line")
Form = tuple[str, int, float]  #: what makes bodies alike: kind, bytes a value, fraction that is kept
T = TypeVar("T")


class Weigher:
    """Of one sender. ``rates``: what its line carries; where that is never known, all is packed.

    ``now_s`` is a clock for short times.
    """

    def __init__(
        self, rates: Callable[[], Rates] = Rates, now_s: Callable[[], float] = time.perf_counter
    ) -> None:
        self._rates = rates
        self._now_s = now_s
        self._known: dict[Form, Packing] = {}
        self._cost: float | None = None  #: of a byte of a model that is made of a step
        self._said: dict[str, bool] = {}

    def write(
        self, plan: Plan, draft: Contribution, lots: Callable[[], Iterator[Ints]], begin: Begin
    ) -> tuple[Contribution, Blob]:
        """As `write_body`: packed or plain as the plan says, or as is faster. Raises `DiskFull`."""
        asked = plan.encoding
        if asked is None or not (asked.packed and asked.by_line):
            return write_body(draft, train.packs(plan), lots, begin)
        form = (draft.kind, draft.width, asked.keep)
        size, rate = draft.params * draft.width * train.updates_in(draft), self._rates().up
        known = self._known.get(form)
        if not line.packs(size, rate, known):
            assert known is not None
            assert rate is not None
            self._known[form] = line.after_plain(known, size, rate)
            self._say("plain", draft.kind, rate, known)
            return write_body(draft, False, lots, begin)
        watch = _Watch(self._now_s)
        sent, body = write_body(draft, True, lambda: watch.over(lots()), begin)
        now = Packing(watch.took_s / (watch.values * draft.width), body.size / size if sent.packed else 1.0)
        self._known[form] = now
        if rate is not None and line.pays(rate, now):
            self._say("packed", draft.kind, rate, now)
        return sent, body

    def steps(self, plan: Plan) -> bool:
        """Whether the plan's model is fetched as its step."""
        if plan.encoding is None or not plan.encoding.by_line:
            return True
        return line.step_pays(plan.step_size, plan.model_size, self._rates().down, self._cost)

    def taken(self, plan: Plan, take: Callable[[], T]) -> T:
        """A model made of its step; how long that takes is remembered."""
        began = self._now_s()
        made = take()
        self._cost = (self._now_s() - began) / max(1, plan.model_size)
        return made

    def _say(self, how: str, kind: str, rate: float, known: Packing) -> None:
        """In the log, when it is another way than before."""
        packed = how == "packed"
        if self._said.get(kind) is packed:
            return
        self._said[kind] = packed
        log.info(
            "%ss go %s: the line carries %.3g MB/s, packing takes %.3g ns a byte and leaves %.0f %%",
            kind.removesuffix("s"), how, rate / 1e6, known.cost * 1e9, 100 * known.ratio,
        )  # fmt: skip


class _Watch:
    """How long whoever takes lots works on them; of the first time round."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._rounds = 0
        self.took_s = 0.0
        self.values = 0

    def over(self, lots: Iterator[Ints]) -> Iterator[Ints]:
        self._rounds += 1
        if self._rounds > 1:  # it did not get smaller, and is written plain
            yield from lots
            return
        for values in lots:
            self.values += len(values)
            began = self._now_s()
            try:
                yield values
            finally:  # also where the rest is not tried
                self.took_s += self._now_s() - began
