"""A Sparkplug B edge node that tells answers: births, data, death (Eclipse Sparkplug 3.0, 5 and 6).

Births name the metrics and no values, so that no answer leaves by one. Five metrics for each project. Pure:
whoever holds the connection encodes and sends.

>>> node = SparkplugNode("plant", "press-3-reuna", 7)
>>> node.topic("NDATA"), node.death().metrics[0].value
('spBv1.0/plant/NDATA/press-3-reuna', 7)
>>> node.birth(5).seq, node.next_seq(), node.next_seq()
(0, 1, 2)
"""

from __future__ import annotations

from collections.abc import Iterable

from reuna.core.mqtt_settings import NAMESPACE
from reuna.core.notices import NodeAlarm
from reuna.core.sinks import Answer
from reuna.core.sparkplug import MS, REBIRTH, Metric, Payload

INT64, UINT64, DOUBLE, BOOLEAN, TEXT, DATE_TIME = 4, 8, 10, 11, 12, 13
TYPES = {"answer": DOUBLE, "confidence": DOUBLE, "state": TEXT, "version": INT64, "id": TEXT}
NUMBERS = 256  #: of a sequence


class SparkplugNode:
    """What one connection of the node has told so far. ``bd_seq``: number of the connection, 0 to 255."""

    def __init__(self, group: str, node: str, bd_seq: int) -> None:
        self._place = group, node
        self._bd_seq = bd_seq % NUMBERS
        self._born: dict[str, int] = {}
        self._seq = 0

    def topic(self, kind: str) -> str:
        """Of a kind of message."""
        group, node = self._place
        return f"{NAMESPACE}/{group}/{kind}/{node}"

    def death(self) -> Payload:
        """What the broker tells when the connection ends."""
        return Payload(None, None, (Metric("bdSeq", datatype=UINT64, value=self._bd_seq),))

    def birth(self, now_ms: int) -> Payload:
        """All metrics that are known, null; sequence numbers begin again."""
        self._seq = 0
        known = (Metric(name, None, now_ms, kind, is_null=True) for name, kind in self._born.items())
        own = (
            Metric("bdSeq", None, now_ms, UINT64, self._bd_seq),
            Metric(REBIRTH, None, now_ms, BOOLEAN, False),
        )
        return Payload(now_ms, 0, (*own, *known))

    def is_news(self, metrics: Iterable[Metric]) -> bool:
        """Whether data with these metrics need another birth first; from now on it has them."""
        new = {each.name: each.datatype for each in metrics if each.name not in self._born}
        self._born.update(new)
        return bool(new)

    def next_seq(self) -> int:
        """The sequence number of the next data: 0 to 255, the birth's 0 before the first."""
        self._seq = (self._seq + 1) % NUMBERS
        return self._seq


def metrics_of(told: Answer | NodeAlarm) -> tuple[Metric, ...]:
    """An answer's metrics, at the end of its window, or those of an alarm."""
    return _of_alarm(told) if isinstance(told, NodeAlarm) else _of_answer(told)


def _of_alarm(alarm: NodeAlarm) -> tuple[Metric, ...]:
    """Of one thing that is watched, whether there is an alarm of it, since when and of what."""
    at_ms, regime = alarm.at_ns // MS, f"/{alarm.regime}" if alarm.regime else ""
    said = (
        ("active", BOOLEAN, alarm.state == "raised"),
        ("signals", TEXT, " ".join(alarm.signals)),
        ("since", DATE_TIME, alarm.since_ns // MS),
        ("id", TEXT, alarm.id),
    )
    place = f"{alarm.project}/alarm/{alarm.kind}{regime}"
    return tuple(Metric(f"{place}/{name}", None, at_ms, kind, value) for name, kind, value in said)


def _of_answer(answer: Answer) -> tuple[Metric, ...]:
    said = {name: getattr(answer, name) for name in TYPES}
    at_ms = answer.last_ns // MS
    return tuple(
        Metric(f"{answer.project}/{name}", None, at_ms, kind, said[name], is_null=said[name] is None)
        for name, kind in TYPES.items()
    )


def asks_for_birth(payload: Payload) -> bool:
    """Whether a command asks for another birth."""
    return any(each.name == REBIRTH and each.value is True for each in payload.metrics)
