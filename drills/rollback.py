"""Cut the power of an edge in the middle of a switch: it always comes back with a working, verified model.

The agent of a real edge, as a process of its own, is given one release after the other, each signed, held and
wanted. While it copies it to a slot, tests it and takes it into use, its power goes: 20 times, each time at
another step on the way to the disk, spread over the whole switch by the seed. Every second time the disk
loses what nobody had forced to it. The edge is started again, alone, without a line to anybody.

    came_back   a release answers again by itself        verified   its file is one of those signed, bit for bit
    working     its graph passes its own self-test here, in another process

    python -m drills.rollback [--cuts 20] [--seed 1] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import at_least
from reuna.adapters.files import FileBlobs
from reuna.adapters.linear import SoftmaxClassifier
from reuna.adapters.onnx_export import open_session, self_test, with_golden
from reuna.core.health import Health, as_settings
from reuna.edge.releases import STATUS
from reuna.edge.slots import FOLDER as SLOTS
from reuna.edge.slots import Slots
from reuna.exchange.choices import FOLDER as RELEASES
from reuna.exchange.choices import ProjectChoice, choices_file
from reuna.fleet.ending import in_order
from reuna.fleet.layout import make_fleet
from reuna.loop.operate import Choice, Which
from reuna.wire import release as wire
from reuna.wire.build import canonical, sha256
from reuna.wire.release import About

CUTS = 20
PROJECT = "pumps"
MODES = ("kill", "lost")
BACK_S = 60.0  #: so long a machine may take to answer again; it takes two seconds
RULES = Health(trial_s=0.5)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cut:
    """One power cut, and what the machine was afterwards."""

    moment: str
    mode: str
    fell: bool
    came_back: bool
    verified: bool
    working: bool
    version: int


def made(version: int, seed: int) -> bytes:
    """A release of that version."""
    learner, rng = SoftmaxClassifier(40, 5), np.random.default_rng([seed, version])
    model = {name: rng.normal(size=each.shape).astype(np.float32) for name, each in learner.init(1).items()}
    parts = dict.fromkeys(wire.NEEDED, b"{}\n")
    parts[wire.LINEAGE] = canonical({"settings": {"entry": "detector.model", **as_settings(RULES)}})
    parts[wire.MODEL] = with_golden(learner.export(model))
    return wire.encode(About(PROJECT, version, f"r-{version}", "0" * 64), parts)


class Edge:
    """One edge's folder, and its agent while the machine is on."""

    def __init__(self, folder: Path, seed: int) -> None:
        (folder / "data" / "train").mkdir(parents=True)
        fleet = make_fleet(folder / "fleet", "drill", {"fog-1": {"edge-1": folder / "data"}})
        (place,) = fleet.of("edge")
        self._settings, self.state = place.settings, place.folder / "state"
        self._log, self._journal = folder / "edge.log", folder / "moments"
        self._seed = seed
        self._blobs = FileBlobs(self.state / RELEASES)
        self._slots = Slots(self.state, PROJECT)
        self._held: dict[str, str] = {}
        self.signed: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def want(self, version: int) -> Which:
        """What the egress writes when the cloud has said so; the two newest are held."""
        data = made(version, self._seed)
        digest = sha256(data)
        self.signed[digest], self._held[digest] = version, self._blobs.put(data).digest
        newest = sorted(self._held, key=lambda each: -self.signed[each])[:2]
        held = tuple(Which(self.signed[each], each) for each in newest)
        choice = Choice(held, Which(version, digest, f"rollout-{version}"))
        choices_file(self.state).write(
            [ProjectChoice(PROJECT, choice, {each: self._held[each] for each in newest})]
        )
        return held[0]

    def start(self, at: int = 0, mode: str = "kill") -> None:
        """Switch the machine on; ``at``: the moment at which its power goes."""
        (self.state / STATUS).unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)
        command = ["-m", "drills.cutting.edge", self._settings, self.state / SLOTS, at, mode, self._journal]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, *map(str, command)], stdout=log, stderr=log)

    def gone(self) -> bool:
        """Wait until the power went; False when it did not."""
        assert self._process is not None
        try:
            return self._process.wait(BACK_S) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            self.off()
            return False

    def off(self) -> None:
        """Switch it off at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
        """What the machine shows, once that is so; None when it never is."""
        end = time.monotonic() + BACK_S
        while time.monotonic() < end:
            shown = self.shows()
            if shown is not None and holds(shown):
                return shown
            time.sleep(0.05)
        return None

    def shows(self) -> dict[str, Any] | None:
        """What stands there about the project."""
        try:
            found: dict[str, Any] = json.loads((self.state / STATUS).read_bytes())
        except FileNotFoundError:
            return None
        return next((each for each in found["projects"] if each["project"] == PROJECT), None)

    def moments(self) -> list[str]:
        """What was done on the way to the disk since the machine was switched on."""
        return self._journal.read_text().splitlines() if self._journal.exists() else []

    def looked_at(self, shown: dict[str, Any]) -> tuple[bool, bool]:
        """Whether what answers is one of those that were signed, and whether its graph works."""
        file = self._slots.path(shown["slot"])
        data = file.read_bytes()
        verified = sha256(data) == shown["digest"] and self.signed.get(shown["digest"]) == shown["version"]
        graph = wire.decode(data).parts[wire.MODEL]
        return verified, self_test(open_session(graph)) == ""


def is_confirmed(version: int) -> Callable[[dict[str, Any]], bool]:
    """Whether the switch to a version is over."""
    return lambda shown: (
        (shown.get("version"), shown.get("phase"), shown["at_work"]) == (version, "confirmed", True)
    )


def cut(edge: Edge, version: int, at: int, mode: str) -> Cut:
    """Begin a switch, cut it at that moment, and look what comes back; then let it end."""
    edge.want(version)
    edge.start(at, mode)
    fell = edge.gone()
    moment = (edge.moments() or ["nothing"])[-1]
    edge.start()
    shown = edge.until(lambda shown: bool(shown["at_work"] and shown.get("version")))
    verified, working = edge.looked_at(shown) if shown else (False, False)
    answers = shown["version"] if shown else 0
    if edge.until(is_confirmed(version)) is None:
        shown = None  # the machine answers, and the switch did not go on
    edge.off()
    return Cut(moment, mode, fell, shown is not None, verified, working, answers)


def drill(cuts: int, seed: int, say: Say) -> dict[str, Any]:
    """A calm switch, which says what moments there are, and the cuts."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="reuna-drill-") as folder:
        edge = Edge(Path(folder), seed)
        try:
            for version in (1, 2):
                edge.want(version)
                edge.start()
                if edge.until(is_confirmed(version)) is None:
                    raise SystemExit(
                        f"the edge did not come up: {(Path(folder) / 'edge.log').read_text()[-2000:]}"
                    )
                edge.off()
            moments = edge.moments()
            say(f"1. a switch without a cut: {len(moments)} moments")
            say(f"2. {cuts} switches, each with a cut")
            found = []
            for number, at in enumerate(spread(cuts, len(moments), rng)):
                found.append(cut(edge, number + 3, at, MODES[number % 2]))
                say(f"   {at:3} {found[-1].moment:24} {found[-1].mode}: {found[-1].version} answers")
        finally:
            edge.off()
    return told(found)


def spread(cuts: int, moments: int, rng: random.Random) -> list[int]:
    """Numbers of moments, from 1 on: over all of the switch, in an order of chance."""
    every = [
        1 + (number * moments) // cuts + rng.randrange(max(1, moments // cuts)) for number in range(cuts)
    ]
    rng.shuffle(every)
    return [min(each, moments) for each in every]


def told(found: list[Cut]) -> dict[str, Any]:
    """The line of JSON."""
    return {
        "cuts": sum(each.fell for each in found),
        "came_back": sum(each.came_back for each in found),
        "verified": sum(each.verified for each in found),
        "working": sum(each.working for each in found),
        "lost_writes": sum(each.fell and each.mode == "lost" for each in found),
        "moments": len({each.moment for each in found}),
    }


def held(result: dict[str, Any], cuts: int) -> bool:
    """Whether the promise held."""
    return all(result[name] == cuts for name in ("cuts", "came_back", "verified", "working"))


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=at_least(1), default=CUTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    result = drill(args.cuts, args.seed, say)
    print(json.dumps(result))
    return 0 if held(result, args.cuts) else 1


if __name__ == "__main__":
    in_order(lambda: sys.exit(main()))
