"""The loop closes three times, and nobody is there: a plant drifts, and ends with a model of what it is now.

Presses of a fleet of real processes (1 cloud, 2 fogs, an edge for each press) are read live, answered and
watched by their edges. Then something drifts, and what follows is the product's own: an alarm, a run that
a trigger begins, gates, a signed release, a rollout with a canary, edges that confirm. The seed says which
signals, which press and when.

1. a new operating mode, at every press
2. a sensor's bias at one press. Its training tables come late: the first candidate is bad at that press
   alone, and the gate stops it
3. a new fault, at every press. Who labelled the training tables was careless: the first candidate passes the
   gates and is unsure of what it sees live; machines give it up, and the rollout ends

In each cycle a node is switched off just before the run begins. It misses training, gates, canary and
rollout, and comes back when all others have the release: it takes it by itself, beside what it has first.
Before that a control run without any drift counts alarms, which are false.

    python -m drills.drift [--seed 1] [--edges 4] [--control-s 90] [--only 3] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least
from drills.drifting import plant
from drills.drifting.plant import World
from drills.drifting.press import KNOWN, NEW, SIGNALS, Condition
from drills.drifting.works import HOLD_S, Works, wanted
from reuna.fleet.ending import in_order, until_done

ALL = (1, 2, 3)
FAR = 6.0  #: how far drift goes, in parts of a signal's noise
BEFORE_S = 15.0  #: before a run begins an edge is switched off; the cloud still counts on it then
CARELESS = 0.6  #: share of labels that are drawn by chance
Say = Callable[[str], None]


@dataclass(frozen=True)
class Drift:
    """One thing that drifts: what the plant is like at first and once people have seen to its tables.

    ``stops``: what stops the first candidate, '', ``gate`` or ``devices``; ``bad``: the press at which the
    gate has to; ``off``: the edge that is switched off; ``wait_s``: after so long it drifts.
    """

    name: str
    first: World
    then: World
    stops: str
    bad: str
    off: str
    wait_s: float


def planned(seed: int, edges: Sequence[str]) -> list[Drift]:
    """What drifts in which cycle, where and when."""
    rng = random.Random(seed)
    mode = tuple(rng.choice((-FAR, FAR)) for _ in SIGNALS)
    press, signal = rng.choice(edges), rng.randrange(len(SIGNALS))
    bias = {press: tuple(rng.choice((-FAR, FAR)) if n == signal else 0.0 for n in range(len(SIGNALS)))}
    one, two, three = Condition(mode), Condition(mode, bias), Condition(mode, bias, (*KNOWN, NEW))
    waits = [rng.uniform(2, 10) for _ in ALL]
    canary = edges[0]
    off = [rng.choice([each for each in edges if each not in (canary, busy)]) for busy in ("", press, "")]
    sensor = f"a bias of {SIGNALS[signal]} at {press}"
    return [
        Drift("a new mode everywhere", World(one), World(one), "", "", off[0], waits[0]),
        Drift(sensor, World(two, late=(press,)), World(two), "gate", press, off[1], waits[1]),
        Drift(
            "a new fault everywhere",
            World(three, careless=CARELESS),
            World(three),
            "devices",
            "",
            off[2],
            waits[2],
        ),
    ]


class Story:
    """What happens, and what came of it."""

    def __init__(self, works: Works, say: Say) -> None:
        self.works, self._say, self._began = works, say, 0.0
        self.cycles = self.stopped = self.rolled_back = self.converged = self.false_alarms = 0
        self.detected_s: list[float] = []
        self.champion_s: list[float] = []

    async def control(self, seconds: float) -> None:
        """Nothing drifts; whatever alarms is false."""
        await asyncio.sleep(seconds)
        self.false_alarms = len(await asyncio.to_thread(self.works.alarms))
        self._say(f"   {self.false_alarms} false alarms in {seconds:g} s at {len(self.works.names)} edges")

    async def cycle(self, number: int, drift: Drift) -> None:
        """One drift, until every edge has a release of what is now."""
        works = self.works
        await asyncio.sleep(drift.wait_s)
        known = len(await asyncio.to_thread(works.alarms))
        newest, said = works.catalogue.versions()[-1], len(works.said())
        plant.write(works.plant, drift.first)
        self._began = time.time()
        self._say(f"{number}. {drift.name}")
        alarm = (await works.until("an alarm", lambda: works.alarms()[known:]))[0]
        self.detected_s.append(round(alarm["since"] - self._began, 2))
        self._tell(f"alarm: {alarm['sentence']}")
        await asyncio.sleep(HOLD_S - BEFORE_S)
        works.supervisor.off(drift.off)
        self._tell(f"{drift.off} is switched off")
        if drift.stops == "gate":
            line = await works.until("a stopped candidate", lambda: works.stopped(said, drift.bad))
            bad = works.bad_sites(line)
            self._tell(f"{line}; not to be released because of {', '.join(bad)}")
            self.stopped += bad == [drift.bad]
        if drift.stops == "devices":
            newest = await self._given_up(newest)
        plant.write(works.plant, drift.then)
        version = await works.until("a release", lambda: works.newer(newest))
        without = works.unmeasured(version)
        self._tell(f"release {version}, which {', '.join(without) or 'nobody'} has not measured")
        await works.until("its rollout", lambda: works.rolled(version) == "done")
        others = {*works.names} - {drift.off}
        await works.until("the release at the others", lambda: others <= {*works.on(version)})
        self.champion_s.append(round(time.time() - self._began, 2))
        self._tell(f"release {version} at all others; {drift.off} is switched on")
        works.supervisor.on(drift.off)
        await works.until("the release at the last", lambda: drift.off in works.on(version))
        self.converged += without == [drift.off]
        await works.until("rest", works.rests)
        self.cycles += 1
        self._tell(f"every edge runs it, nothing alarms; runs: {', '.join(works.begun_states())}")

    async def _given_up(self, newest: int) -> int:
        """A release that goes out and comes back; its version."""
        works = self.works
        version = await works.until("a release", lambda: works.newer(newest))
        self._tell(f"release {version} goes out")
        await works.until("its end", lambda: works.rolled(version) in ("failed", "aborted", "done"))
        found = next(each for each in works.rollouts() if each["version"] == version)
        self._tell(f"rollout {found['phase']}: {found['why']}")
        await works.until("the way back", lambda: {*works.running().values()} == {newest})
        self.rolled_back += found["phase"] == "failed"
        return version

    def _tell(self, text: str) -> None:
        self._say(f"   {time.time() - self._began:6.1f} s  {text}")

    def told(self) -> dict[str, Any]:
        """The line of JSON."""
        version = self.works.catalogue.versions()[-1]
        return {
            "cycles": self.cycles,
            "stopped_by_gate": self.stopped,
            "rolled_back_by_devices": self.rolled_back,
            "edges": len(self.works.names),
            "edges_on_champion": len(self.works.on(version)),
            "offline_converged": self.converged,
            "drift_to_champion_s": self.champion_s,
            "detected_s": self.detected_s,
            "false_alarms": self.false_alarms,
        }


async def drill(
    folder: Path, seed: int, edges: int, control_s: float, cycles: Sequence[int], say: Say
) -> dict[str, Any]:
    """The fleet, the first release, the control run, the cycles."""
    works = Works(folder, [f"press-{number + 1}" for number in range(edges)], seed)
    story = Story(works, say)
    try:
        await works.start()
        say(f"0. 1 cloud, 2 fogs, {edges} edges are up; the first model is trained, released and rolled out")
        works.alone(wanted(await works.first()))
        say("   nobody is there any more; a control run without drift")
        await story.control(control_s)
        drifts = planned(seed, works.names)
        for number in cycles:
            await story.cycle(number, drifts[number - 1])
        return await asyncio.to_thread(story.told)
    finally:
        await works.stop()


def held(found: dict[str, Any], cycles: Sequence[int] = ALL) -> bool:
    """Whether the loop closed, and what was bad was stopped."""
    edges = found["edges"]
    return (
        found["cycles"] == found["offline_converged"] == len(found["drift_to_champion_s"]) == len(cycles)
        and found["stopped_by_gate"] >= (2 in cycles)
        and found["rolled_back_by_devices"] >= (3 in cycles)
        and 0 < edges == found["edges_on_champion"]
    )


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--edges", type=at_least(4), default=4)
    parser.add_argument("--control-s", type=float, default=90.0)
    parser.add_argument("--only", type=int, choices=ALL, action="append", help="a cycle; may be repeated")
    parser.add_argument("--keep", type=Path, help="a new folder, which is kept")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    cycles = sorted({*args.only}) if args.only else ALL
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    folder = args.keep or Path(tempfile.mkdtemp(prefix="reuna-drift-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = until_done(drill(folder, args.seed, args.edges, args.control_s, cycles, say))
    finally:
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))
    return 0 if held(found, cycles) else 1


if __name__ == "__main__":
    in_order(lambda: sys.exit(main()))
