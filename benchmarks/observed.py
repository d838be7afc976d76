"""What a fleet of a benchmark really was, seen from outside: rows that were committed, processes, settings.

Nothing here is taken from the benchmark's arguments. A place says at its end how it wrote, read back
from its open databases; a nats-server's configuration is the file in the command line of the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reuna.adapters.spool import DiskSpool
from reuna.core.records import Contribution
from reuna.fleet.layout import Fleet
from reuna.fleet.supervise import Supervisor, log_path

STORES = {"cloud": ("spool", "events", "journal"), "fog": ("spool", "outbox"), "edge": ("outbox",)}
SAID = re.compile(r"store=(\w+) (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Rounds:
    """What the counted rounds' committed rows say: who gave, and bits of the widest integer sent."""

    edges: int
    fogs: int
    bits: int


def committed(fleet: Fleet, run: str, after: int) -> Rounds:
    """The rounds after number ``after`` of a run, once every place has ended."""
    below = [row for fog in fleet.of("fog") for row in _rows(fog.folder, run, after, "update")]
    above = _rows(fleet.folder / "cloud", run, after, "partial")
    for fog in fleet.of("fog"):  # its own closing row is one, too
        above += [row for row in _rows(fog.folder, run, after, "partial") if row.sender != fog.name]
    return Rounds(_givers(below), _givers(above), max((8 * row.width for row in below), default=0))


def _rows(place: Path, run: str, after: int, kind: str) -> list[Contribution]:
    spool = DiskSpool(place / "state" / "spool")
    try:
        return [row for row in spool.rows_of_run(run) if row.kind == kind and row.round > after]
    finally:
        spool.close()


def _givers(rows: Iterable[Contribution]) -> int:
    """The fewest in any round."""
    senders: dict[int, set[str]] = {}
    for row in rows:
        senders.setdefault(row.round, set()).add(row.sender)
    return min((len(names) for names in senders.values()), default=0)


def topology(fleet: Fleet, running: Iterable[tuple[str, int]], rounds: Rounds) -> str:
    """In words. Raises `RuntimeError` when processes and rows disagree: then no figure is worth anything."""
    mains = {name.partition("/")[0] for name, _ in running if name.endswith("/main")}
    up = {kind: sum(place.name in mains for place in fleet.of(kind)) for kind in STORES}
    if (up["edge"], up["fog"]) != (rounds.edges, rounds.fogs):
        raise RuntimeError(f"{up['edge']} edges and {up['fog']} fogs ran, but {rounds} gave")
    levels = len(fleet.from_below()) - 2
    deep = f" in {levels} levels" if levels > 1 else ""
    return f"{rounds.edges} edges, {rounds.fogs} fogs{deep}, {up['cloud']} cloud"


def nats_syncs(pid: int) -> bool:
    """Whether the configuration that a running nats-server was started with forces every write."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    text = Path(words[words.index("--config") + 1]).read_text(encoding="utf-8")
    return re.search(r"^\s*sync_interval:\s*always\s*$", text, re.MULTILINE) is not None


def servers_sync(supervisor: Supervisor) -> dict[str, bool]:
    """Whether each nats-server of a running fleet forces every write."""
    return {name: nats_syncs(pid) for name, pid in supervisor.processes() if name.endswith("/nats")}


def said(fleet: Fleet) -> dict[str, dict[str, str]]:
    """Place -> store -> what it said of itself at the end."""
    logs = {place.name: log_path(place).read_text(errors="replace") for place in fleet.places}
    return {name: dict(SAID.findall(text)) for name, text in logs.items()}


def is_durable(fleet: Fleet, servers: Mapping[str, bool], stores: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether all servers force every write and every store of every place said that it does."""
    expected = {f"{place.name}/nats" for kind in ("cloud", "fog") for place in fleet.of(kind)}
    synced = servers.keys() == expected and all(servers.values())
    wanted = [(place.name, store) for place in fleet.places for store in STORES[place.kind]]
    return synced and all(forces(stores.get(name, {}).get(store, "")) for name, store in wanted)


def forces(text: str) -> bool:
    """Whether a store that says this of itself loses nothing in a power cut."""
    found = dict(word.split("=", 1) for word in text.split())
    database = found.get("journal_mode") == "wal" and int(found.get("synchronous", 0)) >= 2
    return database and found.get("bodies") == found.get("forced")
