"""Published bytes: a node's ledger. Auditors must be able to verify it for years, with scripts they kept.

Regenerate on purpose with ``python -m tests.golden.test_ledger`` after raising the format's number.
"""

from __future__ import annotations

import json
from pathlib import Path

from reuna.adapters import ledger_verifier
from reuna.trust.heads import known_heads
from reuna.trust.ledger import Entry, read_record
from reuna.trust.ledger_verify import verify
from tests.unit.trust.books import KEYS, NOW_MS, Book, intent, outcome

GOLDEN = Path(__file__).with_name("ledger-1.json")


def golden_book() -> Book:
    made = Book()
    made.add(Entry(time_ms=NOW_MS, kind="policy", policy_serial=17, policy="cd" * 32, reason="in force"))
    made.add(Entry(time_ms=NOW_MS, kind="code", code="ef" * 32, run="r-1", level=3, decision="allow"))
    number = made.add(intent(1, epsilon=0.25, epsilon_left=3.75, unit="asset-day", values=70_000))
    made.add(outcome(2, number, "acknowledged"))
    made.add(Entry(time_ms=NOW_MS, kind="refused", flow="log", to="cloud", decision="deny", reason="ε"))
    made.add(Entry(time_ms=NOW_MS, kind="recovered", payload_bytes=2**40))
    made.sign()
    made.countersign()
    return made


def golden_text() -> str:
    made = golden_book()
    heads = [made.heads[-1], read_record(made.records[-1]).entry.statement]
    return json.dumps({"records": _hex(made.records), "heads": _hex(heads)}, indent=1) + "\n"


def _hex(data: list[bytes]) -> list[str]:
    return [each.hex() for each in data]


def test_the_published_bytes_are_those_of_the_golden_file() -> None:
    assert golden_text() == GOLDEN.read_text(encoding="utf-8")


def test_golden_ledgers_are_still_good_to_both_verifiers() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    records = [bytes.fromhex(each) for each in golden["records"]]
    heads = [bytes.fromhex(each) for each in golden["heads"]]
    verdict = verify(records, KEYS, known_heads(heads, KEYS))
    assert verdict.good
    assert (verdict.signed, verdict.countersigned, verdict.kept_elsewhere) == (6, 6, 6)
    alone = ledger_verifier.Ledger({"node": list(KEYS.node), "cloud": list(KEYS.cloud)}, heads)
    alone.judge(records)
    assert alone.vouched == {"node": 6, "cloud": 6, "elsewhere": 6}


def test_the_verifier_of_its_own_reads_every_field_as_it_was_written() -> None:
    for raw in golden_book().records:
        form, seq, previous, entry = ledger_verifier.whole(raw[32:], int, int, bytes, dict)
        record = read_record(raw)
        assert (form, seq, previous) == (1, record.seq, record.previous)
        assert entry == {name: getattr(record.entry, name) for name in entry}


if __name__ == "__main__":
    GOLDEN.write_text(golden_text(), encoding="utf-8")
