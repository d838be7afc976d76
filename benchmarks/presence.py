"""What presence costs between fogs and cloud: bytes that go up in a tick, and what fogs and cloud compute for it.

    python -m benchmarks.presence --devices 100000 [--fogs 10] [--churn 0.001] [--ticks 100] [--json]

Simulated devices, real code at both ends: what a fog's egress tells (`reuna.exchange.roster`), encoded, and
what the cloud makes of it. A tick is the five seconds after which a fog looks who is still there; in each,
``churn`` of the devices go, and those that went two minutes ago come back. That has gone on for a while: a fog
gathers changes over some ticks, out of step with the others. A message counts with its subject and what the
servers and TLS put around it (`FRAMING`). Every fog says a hello as often as it does when nothing else is new.

``whole_bytes`` is what the cloud asks for when it has missed something: all names of one fog, in pages.
``roster_bytes_per_tick`` is what hellos with all names would have taken, as they were before.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from benchmarks.arguments import at_least, between
from reuna import __version__
from reuna.core.records import Hello
from reuna.core.roster import Roster
from reuna.exchange.presence import CALM_S
from reuna.exchange.roster import BURST, TOGETHER, Known, Pace, Telling
from reuna.fog.settings import FOG
from reuna.wire import OLDEST, VERSION, decode, encode

FRAMING = 120  #: bytes: NATS' line with subject and the inbox for "nobody listens", the record of TLS
TICK_S = next(float(option.default) for option in FOG if option.name == "hello_s")
AWAY = 24  #: ticks until who went comes back
LIMIT = 10_000  #: bytes of a tick, for a hundred thousand devices


@dataclass
class Fog:
    """One fog and what its parent holds of it."""

    name: str
    there: set[str]
    away: deque[set[str]] = field(default_factory=lambda: deque([set()] * AWAY))  #: tick by tick
    telling: Telling = field(default_factory=lambda: Telling("0a1b2c3d"))
    known: Known = field(default_factory=Known)
    pace: Pace = field(default_factory=lambda: Pace(TICK_S, 0.0))

    def told(self, now: float) -> list[bytes]:
        """What goes up of who came and went, as `reuna.exchange.roster.BelowKeeper` paces it."""
        if self.pace.wait_s(now) > 0.0:
            return []
        said = [encode(each) for each in self.telling.told(self.there)]
        if said:
            self.pace.told(now)
        return said

    def churn(self, rng: random.Random, share: float) -> None:
        """Some go, and those that went two minutes ago come back."""
        count = whole_of(rng, share * len(self.there))
        gone = set(rng.sample(sorted(self.there), count)) if count else set()
        self.there = (self.there - gone) | self.away.popleft()
        self.away.append(gone)

    def hello(self) -> bytes:
        said = Hello(
            self.name, "0a1b2c3d", __version__, (), VERSION, OLDEST, CALM_S, below=self.telling.stand
        )
        return encode(said)

    def named(self) -> int:
        """Bytes of a hello with all names, more than a message may have."""
        return len(self.hello()) + sum(len(each) + 1 for each in self.there)


def amid(tick: int) -> Pace:
    """Of a fog that has told so much by that tick that its next change waits for others."""
    pace = Pace(TICK_S, tick * TICK_S)
    for _ in range(BURST):
        pace.told(tick * TICK_S)
    return pace


def whole_of(rng: random.Random, mean: float) -> int:
    """A whole number of that mean."""
    whole = int(mean)
    return whole + (rng.random() < mean - whole)


@dataclass
class Counted:
    """What went up, tick by tick, and what was computed for it."""

    ticks: list[int] = field(default_factory=list)
    messages: int = 0
    rosters: int = 0
    told_s: float = 0.0
    heard_s: float = 0.0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures."""
    rng = random.Random(args.seed)
    size = -(-args.devices // args.fogs)
    names = [f"device-{number:06}" for number in range(args.devices)]
    fogs = [Fog(f"fog-{i + 1}", set(names[i * size : (i + 1) * size])) for i in range(args.fogs)]
    for place, fog in enumerate(fogs):  # all are there, and told of
        fog.pace = amid(-(place % TOGETHER))
        for each in fog.telling.told(fog.there):
            fog.known.hear(each)
    counted = Counted()
    for number in range(args.ticks):
        tick(fogs, number, rng, args.churn, counted)
    for fog in fogs:  # the last ticks' changes may still wait for others
        for each in fog.telling.told(fog.there):
            fog.known.hear(each)
    assert all(fog.known.names == fog.there for fog in fogs), "the cloud holds what the fogs do"
    return figures(args, fogs, counted)


def tick(fogs: list[Fog], number: int, rng: random.Random, churn: float, counted: Counted) -> None:
    """Five seconds of all fogs; their hellos are spread."""
    per_hello, total = round(CALM_S / TICK_S), 0
    for place, fog in enumerate(fogs):
        fog.churn(rng, churn)
        began = time.process_time()
        said = fog.told(number * TICK_S)
        hellos = [fog.hello()] if (number + place) % per_hello == 0 else []
        told = time.process_time()
        for each in said:
            fog.known.hear(decode(Roster, each))
        for each in hellos:
            below = decode(Hello, each).below
            assert below is not None
            assert fog.known.stand(below).agrees
        counted.told_s += told - began
        counted.heard_s += time.process_time() - told
        total += sum(len(each) + FRAMING for each in (*said, *hellos))
        counted.messages += len(said) + len(hellos)
        counted.rosters += fog.named() + FRAMING
    counted.ticks.append(total)


def figures(args: argparse.Namespace, fogs: list[Fog], counted: Counted) -> dict[str, Any]:
    """The line of JSON."""
    pages = [len(encode(page)) for page in fogs[0].telling.whole()]
    return {
        "devices": args.devices,
        "fogs": args.fogs,
        "churn": args.churn,
        "tick_s": TICK_S,
        "bytes_per_tick": round(sum(counted.ticks) / args.ticks),
        "largest_tick_bytes": max(counted.ticks),
        "messages_per_tick": round(counted.messages / args.ticks, 1),
        "hello_bytes": len(fogs[0].hello()),
        "fogs_cpu_ms_per_tick": round(1000 * counted.told_s / args.ticks, 3),
        "cloud_cpu_ms_per_tick": round(1000 * counted.heard_s / args.ticks, 3),
        "whole_bytes": sum(pages),
        "largest_page_bytes": max(pages),
        "roster_bytes_per_tick": round(counted.rosters / args.ticks),
        "limit_bytes": LIMIT,
    }


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What was asked for; a mistake ends with one line that says what is allowed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=between(1, 1_000_000), default=100_000)
    parser.add_argument("--fogs", type=at_least(1), default=10, help="at most as many as devices")
    parser.add_argument("--churn", type=float, default=0.001, help="share of the devices that go in a tick")
    parser.add_argument("--ticks", type=at_least(1), default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    args = parser.parse_args(words)
    args.fogs = min(args.fogs, args.devices)
    if not 0.0 <= args.churn <= 1.0:
        parser.error(f"argument --churn: {args.churn} is not between 0 and 1")
    return args


def main() -> None:
    """Measure and print one JSON line."""
    print(json.dumps(measure(arguments())))


if __name__ == "__main__":
    main()
