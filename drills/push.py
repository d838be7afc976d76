"""From `git push` to a signed release on every edge, three times: configuration, code, a bad model.

Six plants of the demo run as a fleet of real processes: 1 cloud, 2 fogs, 6 edges, mutual TLS. The
project is what `reuna init` makes, with the demo's detector in it; its own `.gitlab-ci.yml` is carried
out by a runner that the hook of a local bare repository starts. What the file says is done, line by
line: tests, simulated federation (`reuna test`), bundle (`reuna build`), training on the fleet
(`reuna run`), gates (`reuna gate`), signed release in the catalogue (`reuna release make`), every edge
holds it (`reuna release where`).

Before the clock runs the first commit is released and made champion, then the keys of the sites'
officers and of the code role are carried away from the fleet's folder.

1. A push of configuration: needs nobody. At most 90 s until every edge has verified the release.
2. A push of code: no site trains until a separate process, which alone has the keys, has signed.
3. A push of configuration whose model is bad at plant-6 only: the gate stops it and names the site.

    python -m drills.push [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from drills.pushing import plants
from drills.pushing.forge import Forge, Pushed
from drills.pushing.runner import BRANCH
from reuna.adapters.trust_store import TrustStore
from reuna.demo.job import write_plants
from reuna.fleet.client import Operator
from reuna.fleet.data import spread
from reuna.fleet.ending import in_order, until_done
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.officer import key_file
from reuna.fleet.open_project import open_settings
from reuna.fleet.release import Catalogue, lineage
from reuna.fleet.session import ready
from reuna.fleet.supervise import Supervisor
from reuna.loop.release import judge_run
from reuna.trust.releases import listed

LIMIT_S = 90.0
STEP_S = 0.2
BAD_SITE = "plant-6"
RELEASED = "reuna release make"
HELD = "reuna release where"
NAMED = re.compile(r"not to be released; worst .*? at (\S+), which has")


class Line:
    """The fleet, the forge, and what was released."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.fleet = fleet
        self.file = fleet.folder / "fleet.toml"
        self.desk = folder / "desk"
        self.releases = folder / "releases"
        self.operator = Operator.of(fleet)
        self.catalogue = Catalogue.of(self.releases, plants.NAME)
        given = {
            "REUNA_FLEET": str(self.file),
            "REUNA_RELEASES": str(self.releases),
            "REUNA_TRUST": fleet.setting("trust"),
        }
        self.forge = Forge.make(folder / "forge", plants.make_repository(folder), given)

    @property
    def edges(self) -> list[Path]:
        """Folders of the edges."""
        return [place.folder for place in self.fleet.of("edge")]

    def carry_keys_away(self) -> None:
        """Nobody signs for the sites, nor code for the fleet, without what is on the officers' desk."""
        self.desk.mkdir()
        code = Path(self.fleet.setting("trust")) / "keys" / "code-1.key"
        for key in (key_file(self.fleet.folder), code):
            shutil.move(key, self.desk / key.name)

    def verified(self) -> int:
        """How many edges hold the newest release: its bytes, as metadata that the edge accepted has it."""
        data = self.catalogue.file(self.catalogue.versions()[-1]).read_bytes()
        return sum(holds(edge / "state", data) for edge in self.edges)

    def runs(self) -> set[str]:
        """Names of all runs that the cloud knows."""
        return {each["run"] for each in self.operator.runs()}


def holds(state: Path, data: bytes) -> bool:
    """Whether a node holds a release: looked for on its own disk, asking nobody."""
    accepted = TrustStore(state / "trust").state()
    sha256 = hashlib.sha256(data).hexdigest()
    target = next((each for each in listed(accepted) if each.sha256 == sha256), None) if accepted else None
    if target is None:
        return False
    file = state / "releases" / target.digest
    return file.is_file() and file.read_bytes() == data


def gates_of(line: Line, pushed: Pushed) -> dict[str, Any]:
    """How the run of a push is judged against the champion; nothing when it did not come so far."""
    champion = line.catalogue.champion()
    for file in pushed.kept.glob("runs/*/result.json"):
        result = json.loads(file.read_text(encoding="utf-8"))
        gates = open_settings(line.forge.clone, []).gates
        return judge_run(gates, result, lineage(champion) if champion else None).as_dict()
    return {"worst": {"site": ""}, "verdicts": []}


def named_by_gate(pushed: Pushed) -> str:
    """The site that `reuna gate` named as the one for which the model is not to be released, or ''."""
    said = " ".join(line.removeprefix("remote:").strip() for line in pushed.output.splitlines())
    found = NAMED.search(said.partition("$ reuna gate ")[2])
    return found[1] if found else ""


async def configuration(line: Line, say: Any) -> dict[str, Any]:
    """The first push: nobody is asked, and every edge ends with the release."""
    before = line.catalogue.versions()[-1]
    changes = plants.fewer_rounds(line.forge.clone)
    pushed = await asyncio.to_thread(line.forge.push, changes, "Fewer rounds")
    tell(pushed, say)
    if pushed.failed or line.catalogue.versions()[-1] != before + 1:
        return {"failed": pushed.failed or "nothing was released"}
    gates, verified = gates_of(line, pushed), line.verified()
    held = sum(each["outcome"] == "pass" for each in gates["verdicts"])
    found = {
        "push_to_release_s": round(pushed.ended_at(RELEASED) - pushed.began, 2),
        "push_to_edges_s": round(pushed.ended_at(HELD) - pushed.began, 2),
        "edges": len(line.edges),
        "edges_verified": verified,
        "worst_site": gates["worst"]["site"],
        "gates": {"decision": gates["decision"], "held": held, "of": len(gates["verdicts"])},
    }
    say(f"   release {before + 1} after {found['push_to_release_s']} s, on {verified} of {found['edges']} edges"
        f" after {found['push_to_edges_s']} s")  # fmt: skip
    return found


async def code(line: Line, say: Any) -> dict[str, Any]:
    """The second push: it waits at every site until the officers' process has signed."""
    before, known = line.catalogue.versions()[-1], line.runs()
    changes = plants.steady_rows(line.forge.clone)
    pushing = asyncio.create_task(asyncio.to_thread(line.forge.push, changes, "Hold rows with an open valve"))
    run, sites = await waiting(line, known, pushing)
    early = rounds(line, run) if run else []
    say(f"   waits at {len(sites)} sites; now the officers' process signs")
    if run:
        await sign(line, say)
    pushed = await pushing
    tell(pushed, say)
    if not run or pushed.failed or line.catalogue.versions()[-1] != before + 1:
        return {"code_failed": pushed.failed or "it did not wait, or nothing was released"}
    wait_s = min(event["at"] for event in rounds(line, run)) - asked_at(line, run)
    found = {
        "approval_wait_s": round(wait_s, 2),
        "waited_at": len(sites),
        "rounds_before_approval": len(early),
        "code_edges_verified": line.verified(),
    }
    took_s = pushed.ended_at(HELD) - pushed.began
    say(f"   release {before + 1} on {found['code_edges_verified']} edges after {took_s:.2f} s, of which "
        f"{wait_s:.2f} s waited for approval")  # fmt: skip
    return found


async def waiting(line: Line, known: set[str], pushing: asyncio.Task[Pushed]) -> tuple[str, list[str]]:
    """The new run, and at which sites it waits, once that is all of them; ('', []) when the push ends before."""
    while not pushing.done():
        for run in await asyncio.to_thread(line.runs) - known:
            events = await asyncio.to_thread(line.operator.timeline, run, 0)
            nodes = [event["fields"]["nodes"].split(", ") for event in events if event["what"] == "waits"]
            if nodes and len(nodes[-1]) == len(line.edges):
                return run, nodes[-1]
        await asyncio.sleep(STEP_S)
    return "", []


def rounds(line: Line, run: str) -> list[dict[str, Any]]:
    """The events of a run's rounds that are closed."""
    return [event for event in line.operator.timeline(run, 0) if event["what"] == "round"]


def asked_at(line: Line, run: str) -> float:
    """When the cloud first heard that a run waits for officers."""
    return float(next(event["at"] for event in line.operator.timeline(run, 0) if event["what"] == "waits"))


async def sign(line: Line, say: Any) -> None:
    """What the officers' process does, which has what lies on their desk. Raises `RuntimeError`."""
    words = ["--desk", line.desk, "--fleet", line.file, "--repository", line.forge.bare, "--commit", BRANCH]
    command = [sys.executable, "-m", "drills.pushing.officer", *map(str, words)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    for text in said.decode().splitlines():
        say(f"      {text}")
    if process.returncode:
        raise RuntimeError("the officers' process failed")


async def bad_model(line: Line, say: Any) -> dict[str, Any]:
    """The third push: the gate stops it, and says where the model is bad."""
    before = line.catalogue.versions()
    changes = plants.lower_limit(line.forge.clone)
    pushed = await asyncio.to_thread(line.forge.push, changes, "A lower limit for the valve")
    tell(pushed, say)
    verdicts = gates_of(line, pushed)["verdicts"]
    stopped = ": reuna gate " in pushed.failed and line.catalogue.versions() == before
    site = named_by_gate(pushed)
    say(f"   {'not released' if stopped else 'NOT STOPPED'}: the gate names {site or 'nobody'}")
    return {
        "stopped_site": site if stopped else "",
        "bad_sites": sorted({each["site"] for each in verdicts if each["outcome"] != "pass"}),
        "still_verified": line.verified(),
    }


def tell(pushed: Pushed, say: Any) -> None:
    """When each step was done, in seconds since the push."""
    for job in pushed.jobs:
        for step in job["steps"]:
            say(f"   {step['began'] + step['seconds'] - pushed.began:6.1f} s  {step['line'][:90]}")
    if pushed.failed:
        say(f"           stopped: {pushed.failed[:110]}")


async def drill(folder: Path, say: Any) -> dict[str, Any]:
    """The fleet, the first release, the three pushes."""
    fleet = make_fleet(
        folder / "fleet", "line", spread(write_plants(folder / "data", 0), 2), preset="company"
    )
    line, supervisor = Line(folder, fleet), Supervisor(fleet)
    try:
        await supervisor.start()
        await ready(fleet, line.operator, supervisor)
        say(f"0. 1 cloud, 2 fogs, {len(line.edges)} edges are up; the first commit is released")
        first = await asyncio.to_thread(line.forge.push, {}, "Released")
        if first.failed:
            say(first.output)
            return {"failed": first.failed}
        line.catalogue.promote("challenger")
        line.carry_keys_away()
        say("1. a push that changes reuna.toml")
        found = await configuration(line, say)
        say("2. a push that changes code")
        found |= await code(line, say)
        say(f"3. a push whose model is bad at {BAD_SITE}")
        return found | await bad_model(line, say)
    finally:
        await supervisor.stop()


def held(found: dict[str, Any]) -> bool:
    """Whether all three pushes ended as they should."""
    edges = found.get("edges", 0)
    return (
        edges > 0
        and found["push_to_edges_s"] <= LIMIT_S
        and found["gates"]["decision"] == "pass"
        and found["edges_verified"] == found.get("waited_at") == found.get("code_edges_verified") == edges
        and found["rounds_before_approval"] == 0
        and (found["stopped_site"], found["bad_sites"]) == (BAD_SITE, [BAD_SITE])
        and found["still_verified"] == edges
    )


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    folder = Path(tempfile.mkdtemp(prefix="reuna-push-"))
    try:
        found = until_done(drill(folder, say))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))
    return 0 if held(found) else 1


if __name__ == "__main__":
    in_order(lambda: sys.exit(main()))
