"""Train over a line of 64 kbit/s that is cut every 20 seconds: few bytes are carried twice.

A cloud, a fog and an edge run as processes. The edge is behind a link of its own: a network namespace,
made slow in both directions by `tc tbf`. Every so often the link goes down for some seconds. With
``--new-address`` the run is made once more, in a new fleet, and the edge comes back under another address
each time, as behind a modem: every connection is dead, and nobody was told.

``bytes_over_ideal``: what the link carried in both directions from the submission of the run to its end
(heads of Ethernet, IP and TCP, acknowledgements, TLS handshakes, NATS, hellos and events included),
over what the bodies of the run take in one plain TCP stream on the same link, uncut, measured at the
beginning. The bodies are the code, and the model and the update of each round, each once.
``bytes_over_bodies`` is over the bodies alone, ``uncut_over_ideal`` (with ``--uncut``) of a run without a cut.

    python -m drills.slow_link [--rounds 2] [--rate 64] [--cut-every 20] [--new-address] [--json]

Needs Linux, the tools `ip`, `tc`, `unshare` and `nsenter`, and the right to make network namespaces (root).
Where that is missing it says so and ends with status 3.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from benchmarks.arguments import at_least
from benchmarks.round import job_for
from drills.thin_line.link import FAR, NoNamespacesError, SlowLink, enter, missing
from reuna.adapters.spool import DiskSpool
from reuna.core.records import RunSpec
from reuna.exchange.arrivals import ARRIVALS, since
from reuna.exchange.arrivals import read as read_arrivals
from reuna.fleet import layout
from reuna.fleet.client import Operator
from reuna.fleet.data import spread
from reuna.fleet.ending import in_order, until_done
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.ports import HOST
from reuna.fleet.session import follow, prepare, ready
from reuna.fleet.supervise import Supervisor

UNABLE = 3  #: status where the kernel or the rights are missing
LIMIT = 1.1
MOVED_LIMIT = 1.15  #: where every connection has to be made anew after each cut
PLAIN_S = 3  #: seconds of the link for the plain stream
DOWN_S = 2.0  #: the link is away so long at each cut
READY_S = 240.0  #: a first start over the thin line
BODIES = ("model", "bundle")  #: of what comes down to the edge
RUN = "r-slow"

Say = Callable[[str], None]


@dataclass
class Counted:
    """What one run took."""

    carried: dict[str, int]
    bodies: int
    cuts: int
    seconds: float
    model: str
    rounds: list[float]
    kinds: dict[str, tuple[int, int]]


class Behind:
    """A supervised fleet whose edge is behind the link."""

    def __init__(self, folder: Path, link: SlowLink, args: argparse.Namespace, say: Say) -> None:
        self._link = link
        self._args = args
        self._say = say
        self._job = job_for(folder, args.params, 1, args.rounds, 1, args.bits, args.bits)
        with mock.patch.multiple(layout, HOST=FAR, HOSTS=(FAR, HOST, "localhost")):
            self.fleet: Fleet = make_fleet(folder / "fleet", "thin", spread(self._job.nodes, 1))
        self.supervisor = Supervisor(self.fleet)
        self.operator = Operator.of(self.fleet)
        self._took: list[float] = []  #: seconds of each round

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The fleet, and every node of it heard of."""
        real = asyncio.create_subprocess_exec

        def placed(program: str, *args: Any, **kwargs: Any) -> Any:
            if {"reuna.fleet.place", "edge"} <= set(args):
                return real(*self._link.behind, program, *args, **kwargs)
            return real(program, *args, **kwargs)

        with mock.patch.object(asyncio, "create_subprocess_exec", placed):
            await self.supervisor.start()
            try:
                await ready(self.fleet, self.operator, self.supervisor, within_s=READY_S)
                yield
            finally:
                await self.supervisor.stop()

    async def run(self, cut_every_s: float, new_address: bool) -> Counted:
        """One run, cut every so often; 0 for never."""
        spec, parts = await asyncio.to_thread(prepare, self._job, self.fleet, RUN)
        for part in parts:
            await asyncio.to_thread(self.operator.put_blob, part)
        spec = msgspec.structs.replace(
            spec, rounds=self._args.rounds, evaluate=False, local=False, deadline_s=self._args.deadline,
            settings={**spec.settings, "rounds": self._args.rounds},
        )  # fmt: skip
        before, came, cuts = self._link.carried(), self._came(), self._link.cuts
        began = time.monotonic()
        cutting = asyncio.create_task(self._cut(cut_every_s, new_address)) if cut_every_s else None
        try:
            await asyncio.to_thread(self.operator.submit, spec)
            outcome = await follow(self.operator, spec.run, self._tell)
        finally:
            if cutting is not None:
                cutting.cancel()
        seconds = time.monotonic() - began
        after = self._link.carried()
        arrived = dict(since(came, self._came()))
        return Counted(
            {what: after[what] - before[what] for what in after},
            sum(arrived.get(kind, (0, 0))[0] for kind in BODIES) + self._went_up(spec),
            self._link.cuts - cuts,
            seconds,
            str(outcome["model"]),
            self._took,
            arrived,
        )

    async def _cut(self, every_s: float, new_address: bool) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await asyncio.to_thread(self._link.cut)
                await asyncio.sleep(self._args.down)
            finally:
                self._link.restore(new_address)

    def _tell(self, event: dict[str, Any]) -> None:
        if event["what"] == "round":
            self._took.append(round(float(event["fields"]["seconds"]), 1))
            self._say(f"   round {event['fields']['round']} after {self._took[-1]:.0f} s")

    def _came(self) -> Any:
        return read_arrivals(self.fleet.folder / "edge-1" / "state" / ARRIVALS)

    def _went_up(self, spec: RunSpec) -> int:
        """Bytes of the updates that the cloud has counted."""
        spool = DiskSpool(self.fleet.folder / "cloud" / "state" / "spool")
        try:
            rows = spool.rows_of_run(spec.run)
            return sum(member.size for row in rows if row.sender != "cloud" for member in row.members)
        finally:
            spool.close()


async def drill(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """The run on the cut line, and the comparison."""
    with SlowLink(args.rate) as link:
        plain = await asyncio.to_thread(link.plain, args.rate * 1_000 // 8 * PLAIN_S)
        say(f"1. a link of {args.rate} kbit/s; one plain TCP stream takes {plain:.3f} bytes a byte on it")
        say(f"2. a run, cut every {args.cut_every:g} s for {args.down:g} s")
        cut, moved, uncut = await once(link, args, say, args.cut_every), None, None
        if args.new_address:
            say("3. the same in a new fleet, and after each cut the edge has another address")
            moved = await once(link, args, say, args.cut_every, new_address=True)
        if args.uncut:
            say("4. the same in a new fleet, without a cut")
            uncut = await once(link, args, say, 0)
    return told(args, plain, cut, moved, uncut)


async def once(
    link: SlowLink, args: argparse.Namespace, say: Say, cut_every_s: float, new_address: bool = False
) -> Counted:
    """A run of a fleet of its own, so that nothing of it lies at the edge already."""
    with tempfile.TemporaryDirectory(prefix="reuna-slow-") as folder:
        behind = Behind(Path(folder), link, args, say)
        async with behind.running():
            return await behind.run(cut_every_s, new_address)


def told(
    args: argparse.Namespace, plain: float, cut: Counted, moved: Counted | None, uncut: Counted | None
) -> dict[str, Any]:
    """The line of JSON."""

    def over(run: Counted | None) -> float | None:
        return round(run.carried["bytes"] / (plain * run.bodies), 4) if run else None

    runs = [run for run in (cut, moved, uncut) if run]
    return {
        "bytes_over_ideal": over(cut),
        "new_address_over_ideal": over(moved),
        "uncut_over_ideal": over(uncut),
        "bytes_over_bodies": round(cut.carried["bytes"] / cut.bodies, 4),
        "plain_tcp_over_bodies": round(plain, 4),
        "bytes": cut.carried["bytes"],
        "bytes_down": cut.carried["down"],
        "bytes_up": cut.carried["up"],
        "bodies": cut.bodies,
        "came_down": {kind: size for kind, (size, _) in sorted(cut.kinds.items())},
        "cuts": cut.cuts,
        "round_s": cut.rounds,
        "same_model": len({run.model for run in runs}) == 1,
        "rate_kbit": args.rate,
        "cut_every_s": args.cut_every,
        "down_s": args.down,
    }


def held(result: dict[str, Any]) -> bool:
    """Whether the promise held: few bytes twice, over a line that was cut."""
    few = result["bytes_over_ideal"] <= LIMIT
    moved = result["new_address_over_ideal"]
    return bool(result["cuts"] and few and result["same_model"] and (moved is None or moved <= MOVED_LIMIT))


def seconds(text: str) -> float:
    """A time from a tenth of a second to an hour."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0.1 <= value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 3600 s")
    return value


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=at_least(1), default=2)
    parser.add_argument("--params", type=at_least(1), default=100_000, help="of the model, 4 bytes each")
    parser.add_argument("--bits", type=int, choices=(8, 16, 32), default=16, help="of a value of an update")
    parser.add_argument("--rate", type=at_least(8), default=64, help="kbit/s in each direction")
    parser.add_argument("--cut-every", type=seconds, default=20.0, help="seconds")
    parser.add_argument("--down", type=seconds, default=DOWN_S, help="seconds that a cut lasts")
    parser.add_argument("--deadline", type=seconds, default=3600.0, help="of a round, seconds")
    parser.add_argument(
        "--new-address", action="store_true", help="the same with another address after each cut"
    )
    parser.add_argument("--uncut", action="store_true", help="the same run without a cut as well")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    if why := missing():
        print(f"error: the drill cannot be run here: {why}", file=sys.stderr)
        return UNABLE
    enter("drills.slow_link", sys.argv[1:])
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    try:
        result = until_done(drill(args, say))
    except NoNamespacesError as error:
        print(f"error: the drill cannot be run here: {error}", file=sys.stderr)
        return UNABLE
    print(json.dumps(result))
    return 0 if held(result) else 1


if __name__ == "__main__":
    in_order(lambda: sys.exit(main()))
