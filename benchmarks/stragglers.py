"""Silent and slow nodes: updates in a virtual second, by what a round waits for.

    python -m benchmarks.stragglers --nodes 100 --rounds 40 --json

The real round logic of edges, fogs and cloud in the simulator, in virtual time; a training takes about 2 s of
it. Each way is played with all nodes well, with ``silent`` of them switched off for good, and with ``slow`` of
them ten times slower:

    synchronous   every node is asked, three of four are enough, and who is known to be away is not waited for
    over          the same, but the round is closed with the first 80 of 100 (`round.cohort`, `round.over_select`)
    buffered      FedBuff: a step of every fifth of the nodes' updates (`strategy.name = "fedbuff"`)

``ratio`` is to the same way with all nodes well. Counted is from the second round on: in the first it is found
out who is away. What is told depends on no clock, so it is the same on every machine.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

from benchmarks.arguments import at_least
from reuna.core.records import Asking, Encoding
from reuna.sim.stragglers import Played, Troop, play_slow

AWAY_S = 15.0
DEADLINE_S = 60.0


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=at_least(20), default=100)
    parser.add_argument("--rounds", type=at_least(2), default=40)
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    return parser.parse_args(words)


def ways(nodes: int, rounds: int) -> dict[str, tuple[int, dict[str, Any]]]:
    """How many rounds, and what is asked: in each way about as long in virtual time."""
    plain = {"deadline_s": DEADLINE_S, "quorum": 0.75, "encoding": Encoding()}
    some = max(1, nodes // 5)
    return {
        "synchronous": (rounds, {**plain, "asking": Asking(AWAY_S)}),
        "over": (rounds, {**plain, "asking": Asking(AWAY_S, nodes * 4 // 5, 1.25)}),
        "buffered": (
            rounds * nodes // some,
            {**plain, "asking": Asking(AWAY_S), "strategy": "fedbuff", "settings": {"buffer": some}},
        ),
    }


def rate(played: Played) -> float:
    """Updates that counted, a virtual second, from the second round on."""
    later = played.rounds[1:]
    return sum(int(each["took_part"]) for each in later) / sum(float(each["seconds"]) for each in later)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures."""
    well = Troop(nodes=args.nodes, fogs=max(1, args.nodes // 20))
    silent, slow = args.nodes // 20, args.nodes // 10
    troops = {"well": well, "silent": replace(well, silent=silent), "slow": replace(well, slow=slow)}
    found: dict[str, Any] = {"nodes": args.nodes, "fogs": well.fogs, "silent": silent, "slow": slow}
    for way, (rounds, asked) in ways(args.nodes, args.rounds).items():
        rates: dict[str, float] = {}
        for name, troop in troops.items():
            played = play_slow(troop, rounds, **asked)
            rates[name] = rate(played)
            found[f"{way}_{name}_updates_per_s"] = round(rates[name], 2)
            found[f"{way}_{name}_longest_s"] = round(max(float(e["seconds"]) for e in played.rounds[1:]), 2)
            found[f"{way}_{name}_first_s"] = round(float(played.rounds[0]["seconds"]), 2)
        found |= {f"{way}_{name}_ratio": round(rates[name] / rates["well"], 3) for name in ("silent", "slow")}
    return found


def main() -> None:
    """Measure and print one JSON line."""
    print(json.dumps(measure(arguments())))


if __name__ == "__main__":
    main()
