"""What presence costs between fogs and cloud: bytes that go up in a tick, and what fogs and cloud compute for it.

    python -m benchmarks.presence --devices 100000 [--fogs 10] [--churn 0.001] [--ticks 100] [--json]

Simulated devices, real code at both ends: what a fog's egress tells (`reuna.exchange.roster`), encoded, and
what the cloud makes of it. A tick is the five seconds after which a fog looks who is still there; in each,
``churn`` of the devices go and as many that were gone come back. A message counts with its subject and what the
servers and TLS put around it (`FRAMING`). Every fog says a hello as often as it does when nothing else is new.

``whole_bytes`` is what the cloud asks for when it has missed something: all names of one fog, in pages.
``roster_bytes_per_tick`` is what hellos with all names would have taken, as they were before.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.arguments import at_least, between
from reuna import __version__
from reuna.core.records import Hello
from reuna.core.roster import Roster
from reuna.exchange.presence import CALM_S
from reuna.exchange.roster import Known, Telling
from reuna.fog.settings import FOG
from reuna.wire import LIMITS, OLDEST, VERSION, decode, encode

FRAMING = 120  #: bytes: NATS' line with subject and the inbox for "nobody listens", the record of TLS
TICK_S = next(float(option.default) for option in FOG if option.name == "hello_s")
LIMIT = 10_000  #: bytes of a tick, for a hundred thousand devices


@dataclass
class Fog:
    """One fog and what its parent holds of it."""

    name: str
    there: set[str]
    away: set[str] = field(default_factory=set)
    telling: Telling = field(default_factory=lambda: Telling("0a1b2c3d"))
    known: Known = field(default_factory=Known)

    def churn(self, rng: random.Random, share: float) -> None:
        """Some go, and some that were gone come back."""
        count = poisson_like(rng, share * len(self.there))
        gone = set(rng.sample(sorted(self.there), count)) if count else set()
        back = set(rng.sample(sorted(self.away), min(count, len(self.away)))) if self.away else set()
        self.there = (self.there - gone) | back
        self.away = (self.away | gone) - back

    def hello(self) -> bytes:
        said = Hello(self.name, "0a1b2c3d", __version__, (), VERSION, OLDEST, CALM_S, self.telling.stand)
        return encode(said)

    def before(self) -> bytes:
        """A hello with all names; how long it would be, for it may be more than a message holds."""
        names = sum(len(each) + (2 if len(each) > 31 else 1) for each in self.there)
        return bytes(names + len(self.hello()))


def poisson_like(rng: random.Random, mean: float) -> int:
    """A whole number of that mean."""
    whole = int(mean)
    return whole + (rng.random() < mean - whole)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures."""
    rng = random.Random(args.seed)
    size = -(-args.devices // args.fogs)
    names = [f"device-{number:06}" for number in range(args.devices)]
    fogs = [Fog(f"fog-{i + 1}", set(names[i * size : (i + 1) * size])) for i in range(args.fogs)]
    for fog in fogs:  # all are there, and told of
        for each in fog.telling.told(fog.there):
            fog.known.hear(each)
    per_hello = round(CALM_S / TICK_S)
    bytes_of, messages, told_s, heard_s, rosters = [], 0, 0.0, 0.0, 0
    for tick in range(args.ticks):
        total = 0
        for number, fog in enumerate(fogs):
            fog.churn(rng, args.churn)
            began = time.process_time()
            said = [encode(each) for each in fog.telling.told(fog.there)]
            hello = fog.hello() if (tick + number) % per_hello == 0 else None
            told_s += time.process_time() - began
            began = time.process_time()
            for each in said:
                fog.known.hear(decode(Roster, each))
            if hello is not None:
                stand = decode(Hello, hello).below
                assert stand is not None
                assert fog.known.stand(stand).agrees
            heard_s += time.process_time() - began
            sent = [*said, *([hello] if hello is not None else [])]
            total += sum(len(each) + FRAMING for each in sent)
            messages += len(sent)
            rosters += len(fog.before()) + FRAMING
        bytes_of.append(total)
    assert all(fog.known.names == fog.there for fog in fogs), "the cloud holds what the fogs do"
    whole = [encode(page) for page in fogs[0].telling.whole()]
    assert max(map(len, whole)) <= LIMITS[Roster]
    mean = sum(bytes_of) / args.ticks
    return {
        "devices": args.devices,
        "fogs": args.fogs,
        "churn": args.churn,
        "tick_s": TICK_S,
        "bytes_per_tick": round(mean),
        "largest_tick_bytes": max(bytes_of),
        "messages_per_tick": round(messages / args.ticks, 1),
        "hello_bytes": len(fogs[0].hello()),
        "fogs_cpu_ms_per_tick": round(1000 * told_s / args.ticks, 3),
        "cloud_cpu_ms_per_tick": round(1000 * heard_s / args.ticks, 3),
        "whole_bytes": sum(map(len, whole)),
        "largest_page_bytes": max(map(len, whole)),
        "roster_bytes_per_tick": round(rosters / args.ticks),
        "limit_bytes": LIMIT,
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=between(1, 1_000_000), default=100_000)
    parser.add_argument("--fogs", type=at_least(1), default=10)
    parser.add_argument("--churn", type=float, default=0.001, help="share of the devices that go in a tick")
    parser.add_argument("--ticks", type=at_least(1), default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    args = parser.parse_args()
    args.fogs = min(args.fogs, args.devices)
    if not 0.0 <= args.churn <= 1.0:
        parser.error(f"argument --churn: {args.churn} is not between 0 and 1")
    print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
