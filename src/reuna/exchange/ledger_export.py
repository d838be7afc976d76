"""Passes a ledger on while it grows: to a file of JSON lines, or to a syslog server (RFC 5424).

Which record was passed on last, a file says by its last line and for a server ``sent-….json`` in the
ledger's folder. `reuna ledger export` keeps the same notes, so either goes on where the other ended.
After a crash some records may come twice, with the same numbers; none is left out.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.files import replace_file, storage_error
from reuna.adapters.ledger_file import Place, after, file_with
from reuna.adapters.syslog import INFORMATIONAL, NOTICE, WARNING, Syslog, message
from reuna.core.errors import Corrupted, LedgerProblem, ReunaError
from reuna.core.ports import Clock, Offload
from reuna.trust.ledger import HASH, Owner, Record, read_record

log = logging.getLogger("reuna.ledger")
SEVERITIES = {"refused": WARNING, "recovered": WARNING, "policy": NOTICE, "code": NOTICE}
LOOK_S = 5.0  #: between two looks at what is new
NOWHERE_S = 10.0  #: between two looks whether the policy wants it anywhere, while it wants it nowhere
LAST_S = 300.0  #: longest wait for a server that is away
TAIL = 1 << 17  #: bytes at the end of a file that hold its last line
LOT = 1000  #: records that are passed on before the note is written


class Exporter:
    """One ledger, one target: ``file:/path``, a path, or a URL as `Syslog` takes it."""

    def __init__(self, folder: Path, to: str, owner: Owner, note: Path | None = None) -> None:
        self._folder = folder
        self._to = to.removeprefix("file:")
        self._owner = owner
        self._is_file = "://" not in self._to
        self._note = Path(self._to) if self._is_file else note or folder / note_name(to)
        self._place: Place | None = None
        self._digest = ""  #: of the record passed on last

    def run(self) -> int:
        """Pass on what is new; how many records that were.

        Raises `LedgerProblem`, `Corrupted` (the ledger is not the one passed on before), `Unreachable`,
        `DiskFull`.
        """
        total = 0
        while count := self._lot():
            total += count
        return total

    def _lot(self) -> int:
        if self._place is None:
            self._find()
        found: list[tuple[Record, bytes]] = []
        place = self._place
        for raw, behind in after(self._folder, self._place):
            place = behind
            found.append((_linked(raw, found[-1][1].hex() if found else self._digest), raw[:HASH]))
            if len(found) == LOT:
                break
        if found:
            (self._append if self._is_file else self._send)(found)
            self._place, self._digest = place, found[-1][1].hex()
        return len(found)

    def _find(self) -> None:
        """Where the record after the noted one begins, which has to be there unchanged."""
        done = last_line(self._note) if self._is_file else read_note(self._note)
        if done is None:
            self._place = Place("", 0, 0)
            return
        for raw, place in after(self._folder, file_with(self._folder, done["seq"])):
            if place.seq == done["seq"] + 1:
                if raw[:HASH].hex() != done["digest"]:
                    raise Corrupted(f"record {done['seq']} is another one than was exported before")
                self._place, self._digest = place, done["digest"]
                return
        raise Corrupted(f"record {done['seq']} was exported, and the ledger now ends before it")

    def _append(self, found: Iterable[tuple[Record, bytes]]) -> None:
        lines = b"".join(json.dumps(as_dict(*each)).encode() + b"\n" for each in found)
        try:
            with self._note.open("ab") as file:
                file.write(lines)
        except OSError as error:
            raise storage_error(error, self._note) from error

    def _send(self, found: list[tuple[Record, bytes]]) -> None:
        sink = Syslog(self._to)
        try:
            for record, digest in found:
                sink.send(syslog_message(record, digest, self._owner))
        finally:
            sink.close()
        record, digest = found[-1]
        replace_file(self._note, json.dumps({"seq": record.seq, "digest": digest.hex()}).encode())


Targets = Callable[[], tuple[str, ...]]  #: of the policy in force


async def keep_exporting(
    folder: Path, owner: Owner, targets: Targets, clock: Clock, offload: Offload
) -> None:
    """Pass on what is new to each target, until cancelled; one that is away is tried again later."""
    exporters: dict[str, Exporter] = {}
    later: dict[str, tuple[float, float]] = {}  #: target -> not before, the wait after that
    wanted: tuple[str, ...] = ()
    while True:
        await clock.sleep(LOOK_S if wanted else NOWHERE_S)
        wanted = await offload(targets)
        for to in wanted:
            before, wait = later.get(to, (0.0, LOOK_S))
            if clock.now() < before:
                continue
            exporter = exporters.setdefault(to, Exporter(folder, to, owner))
            try:
                await offload(exporter.run)
                later.pop(to, None)
            except (ReunaError, OSError) as error:
                log.warning("the ledger is not passed on to %s: %s", to, error)
                later[to] = clock.now() + wait, min(2 * wait, LAST_S)


# --- as others read it -----------------------------------------------------------------------------


def as_dict(record: Record, digest: bytes) -> dict[str, Any]:
    """A record for JSON: bytes in hexadecimal, fields that say nothing left out."""
    entry: dict[str, Any] = msgspec.to_builtins(record.entry)
    if record.entry.statement:
        entry["statement"] = record.entry.statement.hex()
    return {"seq": record.seq, "digest": digest.hex(), "previous": record.previous.hex(), **entry}


def syslog_message(record: Record, digest: bytes, owner: Owner) -> bytes:
    """A record as RFC 5424 has it."""
    entry = record.entry
    data = {"ledger": owner.ledger, "seq": record.seq, "digest": digest.hex()}
    text = json.dumps(as_dict(record, digest))
    severity = SEVERITIES.get(entry.kind, INFORMATIONAL)
    return message(entry.time_ms, owner.node, entry.kind, severity, data, text)


def note_name(to: str) -> str:
    """Under which name a ledger's folder notes how far a server got."""
    return f"sent-{re.sub(r'[^a-z0-9]+', '-', to.lower())}.json"


def read_note(path: Path) -> dict[str, Any] | None:
    """How far an export got, None before the first. Raises `LedgerProblem`."""
    return parse_note(path.read_bytes(), path) if path.exists() else None


def last_line(path: Path) -> dict[str, Any] | None:
    """The last whole line of an export; a line that a crash cut is cut off. Raises `DiskFull`, …"""
    try:
        with path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            tail = file.read()
            whole = tail[: tail.rfind(b"\n") + 1]
            file.truncate(size - len(tail) + len(whole))
    except OSError as error:
        raise storage_error(error, path) from error
    return parse_note(whole.splitlines()[-1], path) if whole else None


def parse_note(data: bytes, path: Path) -> dict[str, Any]:
    """Number and digest of the record in a note or line. Raises `LedgerProblem`."""
    try:
        found = json.loads(data)
        return {"seq": int(found["seq"]), "digest": str(found["digest"])}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise LedgerProblem(f"{path} does not say how far an export got", "Name another file.") from error


def _linked(raw: bytes, before: str) -> Record:
    """A record that follows on the one before (its digest, empty for none). Raises `Corrupted`."""
    try:
        record = read_record(raw)
    except msgspec.DecodeError as error:
        raise Corrupted(f"a record of the ledger cannot be read: {error}") from error
    if before and record.previous.hex() != before:
        raise Corrupted(f"record {record.seq} does not follow on the one exported before it")
    return record
