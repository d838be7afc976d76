"""What a person does with a node's ledger: verify it, read it, pass it on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import msgspec

from reuna.adapters.files import replace_file, storage_error
from reuna.adapters.ledger_file import BESIDE, read
from reuna.adapters.syslog import INFORMATIONAL, NOTICE, WARNING, Syslog, message
from reuna.core.errors import Corrupted, LedgerProblem
from reuna.trust.heads import Keys, known_heads
from reuna.trust.ledger import HASH, Head, Record, read_record
from reuna.trust.ledger_verify import Verdict, verify

#: How a head and a countersignature begin, as msgpack in hexadecimal.
STATEMENT = re.compile(r"93(?:a468656164|b0636f756e7465727369676e6174757265)(?:[0-9a-f]{2})+")
SAVE_EVERY = 100  #: messages between two notes of how far an export got
SEVERITIES = {"refused": WARNING, "recovered": WARNING, "policy": NOTICE, "code": NOTICE}


class _Sink(Protocol):
    def send(self, data: bytes) -> None: ...
    def close(self) -> None: ...


def judge(folder: Path, keys: Path | None, heads: Path | None) -> Verdict:
    """Whether a ledger is as its node wrote it. See `read_keys`, `read_heads`.

    Raises `LedgerProblem`, `Untrusted` (heads that nobody known has signed), `Corrupted`.
    """
    held = read_keys(keys) if keys else Keys()
    beside = read_beside(folder)  # before the records: a living writer writes it after them
    return verify(read(folder), held, read_heads(heads, folder, held) if heads else (), beside)


def read_beside(folder: Path) -> list[bytes]:
    """What the node keeps of the cloud beside its ledger. Raises `LedgerProblem`."""
    path = folder / BESIDE
    return _statements(path) if path.exists() else []


def read_keys(path: Path) -> Keys:
    """Keys from lines ``node HEX`` and ``cloud HEX``; ``#`` begins a remark. Raises `LedgerProblem`."""
    found: dict[str, set[bytes]] = {"node": set(), "cloud": set()}
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in found or not re.fullmatch(r"[0-9a-fA-F]{64}", words[1]):
            raise LedgerProblem(
                f"{path}, line {number}, names no key",
                "A line is `node` or `cloud` and 64 hexadecimal digits.",
            )
        found[words[0]].add(bytes.fromhex(words[1]))
    return Keys(frozenset(found["node"]), frozenset(found["cloud"]))


def read_heads(path: Path, folder: Path, keys: Keys) -> tuple[Head, ...]:
    """Heads and countersignatures in any text that has them in hexadecimal: exports, logs of a SIEM.

    Without a key for the node the one in the ledger's first record counts. Raises `LedgerProblem`
    when there is none, `Untrusted`.
    """
    found = _statements(path)
    if not found:
        raise LedgerProblem(f"no head in {path}", "Give a file with lines that the cloud or the SIEM kept.")
    owner = verify(islice(read(folder), 1)).owner
    node = keys.node or (frozenset({owner.key}) if owner else frozenset())
    return known_heads(found, Keys(node, keys.cloud))


def good_records(folder: Path, verdict: Verdict) -> Iterator[tuple[Record, bytes]]:
    """Every record before the first wrong one, with its digest."""
    for raw in islice(read(folder), verdict.records):
        yield read_record(raw), raw[:HASH]


def as_dict(record: Record, digest: bytes) -> dict[str, Any]:
    """A record for JSON: bytes in hexadecimal, fields that say nothing left out."""
    entry: dict[str, Any] = msgspec.to_builtins(record.entry)
    if record.entry.statement:
        entry["statement"] = record.entry.statement.hex()
    return {"seq": record.seq, "digest": digest.hex(), "previous": record.previous.hex(), **entry}


def verdict_dict(verdict: Verdict) -> dict[str, Any]:
    """A verdict for JSON."""
    fault, owner = verdict.fault, verdict.owner
    return {
        "good": verdict.good,
        "records": verdict.records,
        "fault": fault
        and {"index": fault.index, "until": fault.until, "what": fault.what, "message": fault.message},
        "ledger": owner
        and {"ledger": owner.ledger, "site": owner.site, "node": owner.node, "key": owner.key.hex()},
        "digest": verdict.digest,
        "keys_given": verdict.keys_given,
        "signed": verdict.signed,
        "countersigned": verdict.countersigned,
        "said_countersigned": verdict.said_countersigned,
        "kept_elsewhere": verdict.kept_elsewhere,
    }


def insist(verdict: Verdict) -> None:
    """Raises `Corrupted` when something is wrong."""
    if verdict.fault is not None:
        raise Corrupted(
            f"the ledger is not as its node wrote it; {verdict.fault.message}",
            'Keep the folder as it is. See "When something is wrong" in docs/how-to/ledger.md.',
        )


# --- passing it on ---------------------------------------------------------------------------------


def export(folder: Path, to: str, state: Path | None = None) -> int:
    """Append what is new to a JSONL file, or send it to a syslog server; how many records that were.

    A file remembers by its last line how far it got, a server by ``state`` (a file in ``folder``
    when not given). After a crash some records may come twice, with the same numbers; none is left
    out. Raises `LedgerProblem`, `Corrupted` (the ledger is wrong, or not the one that was exported
    before), `Unreachable`, `DiskFull`.
    """
    verdict = verify(read(folder))
    insist(verdict)
    if "://" not in to:
        return _to_file(folder, verdict, Path(to))
    note = state or folder / f"sent-{re.sub(r'[^a-z0-9]+', '-', to.lower())}.json"
    return _to_syslog(folder, verdict, to, note)


def _to_file(folder: Path, verdict: Verdict, path: Path) -> int:
    try:
        with path.open("a+b") as file:
            done = _last_line(file, path)
            count = 0
            for record, digest in _after(folder, verdict, done):
                file.write(json.dumps(as_dict(record, digest)).encode() + b"\n")
                count += 1
    except OSError as error:
        raise storage_error(error, path) from error
    return count


def _last_line(file: Any, path: Path) -> dict[str, Any] | None:
    """The last whole line; a line that a crash cut is cut off."""
    file.seek(0)
    last, end = b"", 0
    for line in file:
        if line.endswith(b"\n"):
            last, end = line, end + len(line)
    file.truncate(end)
    return _note(last, path) if last else None


def _to_syslog(folder: Path, verdict: Verdict, url: str, note: Path) -> int:
    done = _note(note.read_bytes(), note) if note.exists() else None
    assert verdict.owner is not None
    sink: _Sink = Syslog(url)
    count, last = 0, done
    try:
        for record, digest in _after(folder, verdict, done):
            sink.send(_message(record, digest, verdict.owner.node, verdict.owner.ledger))
            count, last = count + 1, {"seq": record.seq, "digest": digest.hex()}
            if count % SAVE_EVERY == 0:
                replace_file(note, json.dumps(last).encode())
    finally:
        sink.close()
    if count:
        replace_file(note, json.dumps(last).encode())
    return count


def _message(record: Record, digest: bytes, node: str, ledger: str) -> bytes:
    entry = record.entry
    data = {"ledger": ledger, "seq": record.seq, "digest": digest.hex()}
    text = json.dumps(as_dict(record, digest))
    return message(entry.time_ms, node, entry.kind, SEVERITIES.get(entry.kind, INFORMATIONAL), data, text)


def _after(folder: Path, verdict: Verdict, done: dict[str, Any] | None) -> Iterator[tuple[Record, bytes]]:
    """Records behind the one that was exported last, which has to be there unchanged."""
    seq = -1 if done is None else done["seq"]
    if seq >= verdict.records:
        raise Corrupted(f"record {seq} was exported, and the ledger now ends at {verdict.records - 1}")
    for record, digest in good_records(folder, verdict):
        if record.seq == seq and done is not None and digest.hex() != done["digest"]:
            raise Corrupted(f"record {seq} is another one than was exported before")
        if record.seq > seq:
            yield record, digest


def _note(data: bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(data)
        return {"seq": int(found["seq"]), "digest": str(found["digest"])}
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerProblem(f"{path} does not say how far an export got", "Name another file.") from error


def _statements(path: Path) -> list[bytes]:
    return [bytes.fromhex(each) for each in STATEMENT.findall(_text(path))]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerProblem(f"cannot read {path}: {error}", "Name a text file.") from error
