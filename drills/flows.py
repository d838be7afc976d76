"""All that leaves the sites is recorded on the wire and held against the ledgers, byte for byte.

A fleet of one cloud, two fogs and four edges trains on data in which words and rows are planted. On
every line up (edge to fog, fog to cloud; HTTPS, NATS and the leaf link between the servers) stands a
peer that holds the keys of both sides and records what passes, in the clear. Then, for each node and
kind, the payload bytes on its lines must be those of its ledger, exactly; and nothing that was
planted may be found: not in any recorded byte of either direction, nor in a log, nor on the disks of
fogs and cloud. First the search shows that it finds each form of each canary when it is there. The
cloud must have countersigned every ledger past its last update.

At one node, whose policy keeps logs to itself, the learner fails and raises what it has read. That
must stand in that node's own log, where its people look, and nowhere else.

Not recorded is the line for certificates, over which no payload goes: a request for the next one
at two thirds of a life, and a fog's question for revoked names.

    python -m drills.flows [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drills.recording import canaries
from drills.recording.relay import Relay
from drills.recording.wire import AGAIN, payloads
from reuna.adapters.head_store import HeadStore
from reuna.adapters.ledger_file import entries, read
from reuna.adapters.tls import client_context, server_context
from reuna.adapters.toml_file import read_toml
from reuna.adapters.trust_keys import read_key
from reuna.adapters.tuf_repository import TufRepository
from reuna.cloud.files import HEADS
from reuna.fleet.client import Operator
from reuna.fleet.data import DataNode, find_nodes, spread
from reuna.fleet.ending import in_order, until_done
from reuna.fleet.layout import Fleet, PlaceFile, make_fleet, write_toml
from reuna.fleet.ledger import read_beside
from reuna.fleet.officer import amend, key_file
from reuna.fleet.open_project import open_settings
from reuna.fleet.session import Job, prepare, ready, train
from reuna.fleet.supervise import Supervisor
from reuna.template import make_project
from reuna.trust.heads import Keys, known_heads
from reuna.trust.ledger import settled
from reuna.trust.ledger_verify import verify

ROUNDS = 6
TYPICAL = (1.4, 51.0, 26.0, 9.0)  #: vibration, temperature, flow, current of the sample's pumps
PATIENCE_S = 60.0
#: Put at the end of the project's model: at a node with this file, training raises what is in it.
FAILING = """
_load, _fit = load, Scored.fit
_note: list[str] = []


def load(folder, settings):
    _note[:] = [each.read_text() for each in folder.glob("failing.txt")]
    return _load(folder, settings)


def fit(self, *given):
    if _note:
        raise ValueError(_note[0])
    return _fit(self, *given)


Scored.fit = fit
"""
LOGS = 'kind = "log"\nto = ["gateway", "cloud"]', 'kind = "log"\nto = []'
HEADS_S = 0.7  #: between two heads of a ledger, so that some go up while it is looked


class Planted:
    """Canaries of the whole fleet; ``failing``: the node at which one's learner raises its own."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.rows: list[NDArray[np.float64]] = []
        self.failing = ""
        self.raised = canaries.new_word()
        self._raised_rows = canaries.new_rows(TYPICAL)

    def fail_at(self, project: Path, node: DataNode) -> None:
        """Have the project's learner raise a word and rows at one node."""
        self.failing = node.name
        text = f"{self.raised} {' '.join(map(canaries.text_of, self._raised_rows.flat))}"
        (node.folder / "failing.txt").write_text(text, encoding="utf-8")
        with (project / "detector" / "model.py").open("a", encoding="utf-8") as file:
            file.write(FAILING)

    @property
    def raised_forms(self) -> dict[str, list[bytes]]:
        return canaries.forms([self.raised], self._raised_rows)

    def word(self) -> str:
        self.words.append(canaries.new_word())
        return self.words[-1]

    def plant(self, node: Path) -> None:
        """In one node's data: in a file's name, in a note beside it, in three rows of a recording."""
        first = min((node / "train").glob("*.csv"))
        lines = first.read_text(encoding="utf-8").splitlines()
        rows = canaries.new_rows(TYPICAL)
        for number, row in enumerate(rows, start=41):
            second, *_, fault = lines[number].split(",")
            lines[number] = ",".join([second, *map(canaries.text_of, row), fault])
        assert lines[0] == "second,vibration_mm_s,temperature_c,flow_m3_h,current_a,fault"
        (first.parent / f"{self.word()}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        first.unlink()
        (node / "note.txt").write_text(f"press operator: {self.word()}\n", encoding="utf-8")
        self.rows.append(rows)

    @property
    def forms(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for rows in self.rows:
            for form, patterns in canaries.forms(self.words, rows).items():
                found.setdefault(form, []).extend(patterns)
        return {form: list(dict.fromkeys(patterns)) for form, patterns in found.items()}


async def relays_of(fleet: Fleet) -> list[Relay]:
    """A relay on every line up, with the children's settings changed to dial it."""
    found = []
    for place in fleet.of("edge"):
        values = read_toml(place.settings).values
        parent = values["parent"]
        site = _served_by(fleet, parent["name"], "site")
        nats = await _between(place, "nats", int(parent["nats"].rpartition(":")[2]), site)
        http = await _between(place, "http", parent["freight_port"], site)
        parent |= {"nats": f"tls://127.0.0.1:{nats.port}", "freight_port": http.port}
        write_toml(place.settings, {**values, "heads_s": HEADS_S})
        found += [nats, http]
    for place in fleet.of("fog"):
        values = read_toml(place.settings).values
        parent = values["parent"]
        cloud = _served_by(fleet, parent["name"], "tls")
        leaf = await _between(place, "leaf", int(parent["leaf"].rpartition(":")[2]), cloud)
        http = await _between(place, "http", parent["freight_port"], cloud)
        parent |= {"leaf": f"127.0.0.1:{leaf.port}", "freight_port": http.port}
        write_toml(place.settings, {**values, "heads_s": HEADS_S})
        found += [leaf, http]
    return found


def _served_by(fleet: Fleet, name: str, table: str) -> tuple[Path, Path]:
    """Certificate and key under which a parent is known to its children."""
    return Path(fleet.setting(f"{table}.certificate", name)), Path(fleet.setting(f"{table}.key", name))


async def _between(place: PlaceFile, protocol: str, target: int, parent: tuple[Path, Path]) -> Relay:
    own = read_toml(place.settings).values["tls"]
    authority = Path(own["authority"])
    relay = Relay(place.name, protocol, target)
    await relay.start(
        server_context(*parent, authority),
        client_context(Path(own["certificate"]), Path(own["key"]), authority),
    )
    return relay


def on_wire(relays: list[Relay], node: str) -> Counter[str]:
    """Kind -> payload bytes on a node's lines."""
    found, sent = Counter[str](), set[bytes]()
    for relay in relays:
        if relay.sender == node:
            for data in relay.up:
                found += payloads(relay.protocol, bytes(data), sent)
    return found


def in_ledger(fleet: Fleet, node: str) -> Counter[str]:
    """Kind -> payload bytes of what left by the node's ledger."""
    found = Counter[str]()
    for entry in settled(entries(fleet.folder / node / "state" / "ledger")):
        if entry.kind == "intent":
            found[entry.flow] += entry.payload_bytes
    return found


def compare(fleet: Fleet, relays: list[Relay], say: Any) -> dict[str, Any]:
    """Sums over all nodes; ``difference`` adds up what any node's kind has too much or too little.

    ``apart`` names those kinds: bytes on the wire less those in the ledger.
    """
    wire, ledger, said, again = 0, 0, 0, 0
    apart: dict[str, int] = {}
    for place in fleet.places[1:]:
        found, written = on_wire(relays, place.name), in_ledger(fleet, place.name)
        again += found.pop(AGAIN, 0)
        count = sum(relay.said() for relay in relays if relay.sender == place.name)
        kinds = sorted(found.keys() | written.keys())
        less = {f"{place.name} {kind}": found[kind] - written[kind] for kind in kinds}
        apart |= {name: count for name, count in less.items() if count}
        wire, ledger, said = wire + found.total(), ledger + written.total(), said + count
        for kind in kinds:
            say(
                f"   {place.name:8} {kind:13} {found[kind]:>9} bytes on the wire, {written[kind]:>9} in the ledger"
            )
    return {
        "payload_bytes_on_wire": wire,
        "payload_bytes_in_ledger": ledger,
        "difference": sum(map(abs, apart.values())),
        "apart": apart,
        "sent_again_bytes": again,
        "protocol_bytes_apart": said - wire - again,
    }


async def countersigned(fleet: Fleet, say: Any) -> int:
    """How many nodes' ledgers the cloud has countersigned up to the last update and further.

    Judged with the cloud's key and the heads that the cloud kept, as an auditor would.
    """
    cloud = TufRepository(fleet.folder / "trust" / "public").plan_keys()
    missing = [place.name for place in fleet.places[1:]]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while missing:
                missing = [
                    name for name in missing if not await asyncio.to_thread(_vouched, fleet, name, cloud)
                ]
                await asyncio.sleep(HEADS_S)
    good = len(fleet.places) - 1 - len(missing)
    say(f"   the cloud has countersigned the ledgers of {good} of {len(fleet.places) - 1} nodes")
    return good


def _vouched(fleet: Fleet, name: str, cloud: frozenset[bytes]) -> bool:
    """Raises nothing while the cloud has no head yet."""
    folder, store = fleet.folder / name / "state" / "ledger", HeadStore(fleet.folder / "cloud/state" / HEADS)
    kept = [each for each in store.every() if each.node.endswith(f"/{name}")]
    store.close()
    keys = Keys(frozenset(each.key for each in kept), cloud)
    heads = known_heads([each.countersignature for each in kept], keys)
    verdict = verify(read(folder), keys, heads, read_beside(folder))
    last = max((number for number, entry in entries(folder) if entry.flow == "model_update"), default=0)
    return verdict.good and min(verdict.countersigned, verdict.kept_elsewhere) >= last


def searched(fleet: Fleet, relays: list[Relay]) -> Iterator[tuple[str, str, bytes]]:
    """All that a canary may not be in: both directions of every line, every log, disks of fogs and cloud.

    Each with the node whose disk it lies on, empty for a line.
    """
    for relay in relays:
        for data in (*relay.up, *relay.down):
            yield "", f"the line of {relay.sender} ({relay.protocol})", bytes(data)
    for place in fleet.places:
        for path in sorted(place.folder.rglob("*")):
            if path.is_file() and (place.kind != "edge" or path.suffix == ".log"):
                yield place.name, str(path.relative_to(fleet.folder)), path.read_bytes()


async def search(fleet: Fleet, relays: list[Relay], planted: Planted, say: Any) -> dict[str, int]:
    """Where anything planted is found; what the failing learner raised may be in its node's logs alone."""
    found = {"canary_hits": 0, "raised_in_own_log": 0, "searched_bytes": 0}
    wanted, raised = planted.forms, planted.raised_forms
    for node, where, data in searched(fleet, relays):
        found["searched_bytes"] += len(data)
        at_home = node == planted.failing
        found["raised_in_own_log"] += at_home and planted.raised.encode() in data
        for patterns in (wanted, {} if at_home else raised):
            for form in await asyncio.to_thread(canaries.hits, data, patterns):
                found["canary_hits"] += 1
                say(f"   FOUND as {form} in {where}")
    say(f"3. searched {found['searched_bytes'] / 2**20:.1f} MiB for them: {found['canary_hits']} found")
    return found


async def drill(folder: Path, rounds: int, say: Any) -> dict[str, Any]:
    """Plant, train, compare, search."""
    planted = Planted()
    project = folder / "pumps"
    make_project(project, sample=True)
    nodes = find_nodes(project / "data")
    for node in nodes:
        planted.plant(node.folder)
    planted.fail_at(project, nodes[-1])
    os.environ["SITE_WORD"] = planted.word()
    wanted = [planted.forms, planted.raised_forms]
    missed = sum([await asyncio.to_thread(canaries.controls, each) for each in wanted])
    count = sum(len(patterns) for each in wanted for patterns in each.values())
    say(f"1. {count} forms of what is planted; the search misses {missed} of them")
    settings = open_settings(project, [f"strategy.rounds={rounds}", "round.quorum=0.7"])
    job = Job(project, settings, nodes, folder / "runs", 2)
    fleet = make_fleet(folder / "fleet", "drill", spread(nodes, 2))
    amend(fleet.folder / planted.failing / "policy.toml", read_key(key_file(fleet.folder)), *LOGS)
    relays = await relays_of(fleet)
    supervisor = Supervisor(fleet)
    try:
        await supervisor.start()
        operator = Operator.of(fleet)
        await ready(fleet, operator, supervisor)
        spec, parts = await asyncio.to_thread(prepare, job, fleet, "r-flows")
        await train(operator, spec, parts, job, lambda _event: None)
        say(f"2. {rounds} rounds over {len(relays)} recorded lines; each node's lines against its ledger")
        vouched = await countersigned(fleet, say)
    finally:
        await supervisor.stop()
        for relay in relays:
            await relay.stop()
    result: dict[str, Any] = compare(fleet, relays, say)
    result |= {"nodes": len(fleet.places) - 1, "nodes_countersigned": vouched}
    result |= await search(fleet, relays, planted, say)
    return {**result, "canaries_missed_by_search": missed, "lines": len(relays)}


def held(result: dict[str, Any]) -> bool:
    """Whether not a byte is missing or too much, and nothing that was planted was found.

    What the failing learner raised must have reached its own node's log: else nothing was tried.
    """
    if result["nodes_countersigned"] != result["nodes"] or not result["raised_in_own_log"]:
        return False
    zero = ("difference", "canary_hits", "canaries_missed_by_search")
    return result["payload_bytes_on_wire"] > 0 and not any(result[name] for name in zero)


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of training, {ROUNDS} by default")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    folder = Path(tempfile.mkdtemp(prefix="reuna-flows-"))
    try:
        result = until_done(drill(folder, args.rounds, say))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result))
    return 0 if held(result) else 1


if __name__ == "__main__":
    in_order(lambda: sys.exit(main()))
