"""What a ledger says about a stretch of time, in numbers: what left, what did not, under which rule."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from reuna.exchange.allowance import SECONDS
from reuna.trust.ledger import Entry, Record, Spent, count, day_of

MAX_DAYS = 4000  #: listed one by one; a clock that was wrong once makes no page of a million days
SETTLED_MS = int(1000 * (SECONDS + 5))  #: by then an allowance has its outcome, unless its node ended
GAP_MS = 24 * 3_600_000  #: silence after which a reader should ask why


def stamp(time_ms: int) -> str:
    """A time as people read it, UTC."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def summarise(
    records: Iterable[Record], since: str = "", until: str = "", now_ms: int | None = None
) -> dict[str, Any]:
    """Everything that the report shows, from good records in order.

    ``since`` and ``until`` are UTC days as in 2026-11-23, both included. ``now_ms`` is when it is read,
    by default the moment of the last record: an allowance that is open then may still be settled.
    """
    found = _Sums(now_ms)
    for record in records:
        day = day_of(record.entry.time_ms)
        if (not since or day >= since) and (not until or day <= until):
            found.take(record)
    return found.result(since, until)


class _Sums:
    """Grows entry by entry."""

    def __init__(self, now_ms: int | None) -> None:
        self._now_ms = now_ms
        self._first = self._last = -1
        self._count = self._backwards = 0
        self._flows: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._refused: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self._spent = Spent({}, {}, {}, {})
        self._left: dict[str, float | None] = {}
        self._code: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._cohorts: dict[str, dict[str, Any]] = {}
        self._policies: list[dict[str, Any]] = []
        self._gaps: list[dict[str, Any]] = []
        self._recovered: list[dict[str, Any]] = []
        self._open: dict[int, dict[str, Any]] = {}  #: intents that wait for their outcome -> their flow
        self._allowed: dict[int, Entry] = {}  #: those of them that allow several messages

    def take(self, record: Record) -> None:
        entry = record.entry
        self._time(entry)
        if entry.kind == "intent":
            self._open[record.seq] = self._intent(entry)
            if entry.messages:
                self._allowed[record.seq] = entry
        elif entry.kind == "outcome":
            self._outcome(entry)
        elif entry.kind == "refused":
            self._refusal(entry)
        elif entry.kind == "code":
            key = (entry.code, entry.decision, entry.reason)
            _seen(self._code, key, ("code", "decision", "reason"), entry)["level"] = entry.level
        elif entry.kind == "policy":
            self._policies.append(_policy(entry))
        elif entry.kind == "recovered":
            self._recovered.append({"time": stamp(entry.time_ms), "bytes": entry.payload_bytes})

    def result(self, since: str, until: str) -> dict[str, Any]:
        return {
            "since": since or (stamp(self._first)[:10] if self._count else ""),
            "until": until or (stamp(self._last)[:10] if self._count else ""),
            "records": self._count,
            "flows": [flow for flow in _sorted(self._flows) if flow["messages"]],  # some allowed, none left
            "days": self._days(),
            "rounds": self._spent.rounds,
            "refused": _sorted(self._refused),
            "epsilon": [
                {"unit": unit, "spent": self._spent.epsilon.get(unit, 0.0), "left": self._left[unit]}
                for unit in sorted(self._left)
            ],
            "code": _sorted(self._code),
            "cohorts": _sorted(self._cohorts),
            "policies": self._policies,
            "gaps": self._gaps,
            "recovered": self._recovered,
            "clock_set_back": self._backwards,
            "unfinished": len(self._open) - self._still_open(),
        }

    def _still_open(self) -> int:
        """Allowances whose minute is not over: several messages may leave before their one outcome."""
        now = self._last if self._now_ms is None else self._now_ms
        return sum(0 <= now - entry.time_ms < SETTLED_MS for entry in self._allowed.values())

    def _days(self) -> dict[str, dict[str, int]]:
        """Bytes by kind of every day from the first to the last, also of those without any."""
        found = self._spent.payload_bytes
        if not found:
            return {}
        first, last = date.fromisoformat(min(found)), date.fromisoformat(max(found))
        span = min((last - first).days, MAX_DAYS)
        days = [(last - timedelta(days=back)).isoformat() for back in range(span, -1, -1)]
        return {day: found.get(day, {}) for day in days}

    def _time(self, entry: Entry) -> None:
        at = entry.time_ms
        if self._count and at - self._last > GAP_MS:
            hours = round((at - self._last) / 3_600_000, 1)
            self._gaps.append({"from": stamp(self._last), "to": stamp(at), "hours": hours})
        self._backwards += bool(self._count and at < self._last)
        self._first = at if not self._count else min(self._first, at)
        self._last = at
        self._count += 1

    def _intent(self, entry: Entry) -> dict[str, Any]:
        key = (entry.flow, entry.to, entry.rule)
        flow = self._flows.setdefault(
            key,
            dict(zip(("flow", "to", "rule"), key, strict=True))
            | {"messages": 0, "payload_bytes": 0, "refused": 0},
        )
        flow["messages"] += entry.messages or 1
        flow["payload_bytes"] += entry.payload_bytes
        count(self._spent, entry)
        if entry.epsilon or entry.epsilon_left is not None:
            self._left[entry.unit] = entry.epsilon_left
        if entry.cohort or entry.samples:
            self._behind(entry)
        return flow

    def _behind(self, entry: Entry) -> None:
        run = self._cohorts.setdefault(
            entry.run,
            {
                "run": entry.run,
                "messages": 0,
                "smallest": entry.cohort,
                "largest": 0,
                "fewest_samples": entry.samples,
            },
        )
        run["messages"] += 1
        run["smallest"] = min(run["smallest"], entry.cohort)
        run["largest"] = max(run["largest"], entry.cohort)
        run["fewest_samples"] = min(run["fewest_samples"], entry.samples)

    def _outcome(self, entry: Entry) -> None:
        number = -1 if entry.intent is None else entry.intent
        flow, allowed = self._open.pop(number, None), self._allowed.pop(number, None)
        if flow is not None and allowed is not None:
            less = entry.payload_bytes - allowed.payload_bytes
            flow["payload_bytes"] += less
            flow["messages"] += entry.messages - allowed.messages
            count(self._spent, msgspec.structs.replace(allowed, payload_bytes=less))
        if flow is not None and entry.reason.startswith("refused"):
            flow["refused"] += 1

    def _refusal(self, entry: Entry) -> None:
        key = (entry.flow, entry.to, entry.rule, entry.reason)
        row = _seen(self._refused, key, ("flow", "to", "rule", "reason"), entry)
        row["payload_bytes"] = row.get("payload_bytes", 0) + entry.payload_bytes


def _seen(rows: dict[Any, dict[str, Any]], key: Any, names: tuple[str, ...], entry: Entry) -> dict[str, Any]:
    """The row of a key, counted once more, with the first and last time."""
    at = stamp(entry.time_ms)
    row = rows.setdefault(key, dict(zip(names, key, strict=True)) | {"count": 0, "first": at})
    row["count"] += 1
    row["last"] = at
    return row


def _policy(entry: Entry) -> dict[str, Any]:
    return {
        "time": stamp(entry.time_ms),
        "serial": entry.policy_serial,
        "policy": entry.policy,
        "decision": entry.decision,
        "reason": entry.reason,
    }


def _sorted(rows: dict[Any, dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[key] for key in sorted(rows)]
