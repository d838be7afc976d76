"""What a person does with a node's ledger: verify it, read it, pass it on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from reuna.adapters.ledger_file import BESIDE, read
from reuna.core.errors import Corrupted, LedgerProblem
from reuna.exchange.ledger_export import Exporter
from reuna.trust.heads import Keys, known_heads
from reuna.trust.ledger import HASH, Head, Record, read_record
from reuna.trust.ledger_verify import Verdict, verify

#: How a head and a countersignature begin, as msgpack in hexadecimal.
STATEMENT = re.compile(r"93(?:a468656164|b0636f756e7465727369676e6174757265)(?:[0-9a-f]{2})+")


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
    when not given). Raises as `Exporter.run`.
    """
    verdict = verify(read(folder))
    insist(verdict)
    assert verdict.owner is not None
    return Exporter(folder, to, verdict.owner, state).run()


def _statements(path: Path) -> list[bytes]:
    return [bytes.fromhex(each) for each in STATEMENT.findall(_text(path))]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerProblem(f"cannot read {path}: {error}", "Name a text file.") from error
