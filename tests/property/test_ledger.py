"""Whatever is done to a ledger's bytes is noticed at its place, by both verifiers alike."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reuna.adapters.ledger_verifier as alone
from reuna.adapters.ledger_file import read, segments
from reuna.trust import ledger
from reuna.trust.heads import sign_head
from reuna.trust.ledger import Entry
from reuna.trust.ledger_verify import verify
from tests.unit.trust.books import KEYS, NODE, NOW_MS, Book, book, file_of, intent

MADE = book(20)
FILE = file_of(MADE.records)
LAST = MADE.last()
KEPT = sign_head(LAST, NODE)
ENDS = [len(file_of(MADE.records[: n + 1])) for n in range(len(MADE.records))]
SCRIPT = Path(alone.__file__).read_text(encoding="utf-8")


def keys() -> dict[str, list[bytes]]:
    return {"node": list(KEYS.node), "cloud": list(KEYS.cloud)}


def place_alone(folder: Path) -> int | None:
    """Number of the first wrong record, by the verifier that knows nothing of us."""
    try:
        alone.Ledger(keys(), [KEPT]).judge(alone.records(str(folder)))
    except alone.Wrong as wrong:
        return int(wrong.args[0])
    return None


def place_ours(folder: Path) -> int | None:
    fault = verify(read(folder), KEYS, [LAST]).fault
    return None if fault is None else fault.index


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledger")


def put(folder: Path, *files: bytes) -> None:
    for path in segments(folder):
        path.unlink()
    for number, data in enumerate(files):
        (folder / f"{number:012}.ledger").write_bytes(data)


def first_changed(data: bytes) -> int:
    """The record in which the bytes begin to differ from the good file's."""
    same = next(
        (n for n, (a, b) in enumerate(zip(FILE, data, strict=False)) if a != b), min(len(FILE), len(data))
    )
    return sum(end <= same for end in ENDS)


def both_name(folder: Path, data: bytes) -> None:
    put(folder, data)
    assert place_alone(folder) == place_ours(folder) == first_changed(data)


def test_both_find_the_good_ledger_good_also_over_several_files(folder: Path) -> None:
    for parts in ([FILE], [FILE[: ENDS[3]], FILE[ENDS[3] : ENDS[9]], FILE[ENDS[9] :]]):
        put(folder, *parts)
        assert place_alone(folder) is place_ours(folder) is None


@given(at=st.integers(0, len(FILE) - 1), flip=st.integers(1, 255))
@settings(max_examples=300)
def test_any_flipped_byte_is_named(folder: Path, at: int, flip: int) -> None:
    data = bytearray(FILE)
    data[at] ^= flip
    both_name(folder, bytes(data))


@given(start=st.integers(0, len(FILE) - 1), size=st.integers(1, len(FILE)))
@settings(max_examples=300)
def test_any_cut_range_is_named(folder: Path, start: int, size: int) -> None:
    both_name(folder, FILE[:start] + FILE[start + size :])


@given(start=st.integers(0, len(MADE.records) - 1), size=st.integers(1, len(MADE.records)))
def test_any_cut_records_are_named(folder: Path, start: int, size: int) -> None:
    both_name(folder, file_of(MADE.records[:start] + MADE.records[start + size :]))


@given(st.data())
def test_any_swapped_doubled_or_moved_record_is_named(folder: Path, data: st.DataObject) -> None:
    places = st.integers(0, len(MADE.records) - 1)
    one, two, records = data.draw(places), data.draw(places), list(MADE.records)
    how = data.draw(st.sampled_from(["swap", "double", "move"]))
    if how == "swap":
        records[one], records[two] = records[two], records[one]
    elif how == "double":
        records.insert(two, records[one])
    else:
        records.insert(two, records.pop(one))
    put(folder, file_of(records))
    if records == MADE.records:
        assert place_alone(folder) is place_ours(folder) is None
    else:
        wrong = next((n for n, (a, b) in enumerate(zip(MADE.records, records, strict=False)) if a != b), None)
        assert place_alone(folder) == place_ours(folder) == (len(MADE.records) if wrong is None else wrong)


@given(at=st.integers(0, len(FILE)), more=st.binary(min_size=1, max_size=80))
def test_any_inserted_bytes_are_named(folder: Path, at: int, more: bytes) -> None:
    both_name(folder, FILE[:at] + more + FILE[at:])


@given(at=st.integers(1, len(MADE.records) - 1), size=st.integers(0, 2**40))
def test_a_history_written_anew_is_noticed_by_the_head_kept_elsewhere(
    folder: Path, at: int, size: int
) -> None:
    """The node's own key in a thief's hands: everything fits, but for what others have kept."""
    other = Book()
    for raw in MADE.records[1:at]:
        entry = ledger.read_record(raw).entry
        if entry.kind == "head":
            other.sign()
        elif entry.kind == "intent":
            other.add(entry)
    while other.state.seq < len(MADE.records) + 5:
        other.add(intent(1, payload_bytes=size + 1_000_000))
    put(folder, file_of(other.records))
    assert verify(other.records, KEYS).good
    found = verify(read(folder), KEYS, [LAST]).fault
    assert found is not None
    assert place_alone(folder) == found.index


@given(body=st.binary(max_size=300))
def test_bytes_with_a_good_hash_but_no_record_crash_neither(folder: Path, body: bytes) -> None:
    raw = ledger.hashlib.sha256(body).digest() + body
    put(folder, file_of([*MADE.records[:5], raw]))
    assert place_alone(folder) == place_ours(folder) == 5


SMALL = st.integers(0, 10**6)


@given(
    st.lists(
        st.builds(
            Entry,
            time_ms=st.integers(NOW_MS, NOW_MS + 3 * 86_400_000),
            kind=st.sampled_from(["intent", "outcome", "refused", "policy", "code"]),
            flow=st.sampled_from(["model_update", "metric", "log"]),
            payload_bytes=SMALL,
            round=st.integers(0, 3),
            epsilon=st.floats(0, 1),
            unit=st.sampled_from(["", "record"]),
            reason=st.text(max_size=400).filter(
                lambda text: not any("\ud800" <= c <= "\udfff" for c in text)
            ),
            level=st.none() | st.integers(0, 4),
        ),
        max_size=100,
    )
)
def test_what_is_appended_is_read_back_and_counted(folder: Path, entries: list[Entry]) -> None:
    made = Book()
    for entry in entries:
        made.add(entry)
    put(folder, file_of(made.records))
    assert verify(read(folder), KEYS).good
    alone.Ledger(keys(), []).judge(alone.records(str(folder)))
    found = [ledger.read_record(raw).entry for raw in read(folder)]
    spent = ledger.spent(found)
    assert spent == ledger.spent(entries)
    total = sum(entry.payload_bytes for entry in entries if entry.kind == "intent")
    assert sum(sum(day.values()) for day in spent.payload_bytes.values()) == total


# --- the script on its own -------------------------------------------------------------------------


ALONE = """
import runpy, sys
sys.modules["reuna"] = sys.modules["msgspec"] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_alone(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script with -I, in a Python that cannot import us."""
    script = tmp_path / "verify.py"
    script.write_text(SCRIPT, encoding="utf-8")
    words = [sys.executable, "-I", "-c", ALONE, str(script), *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=100, cwd=tmp_path)


def test_the_script_stands_alone(tmp_path: Path) -> None:
    assert "import reuna" not in SCRIPT
    assert "from reuna" not in SCRIPT
    assert len(SCRIPT.splitlines()) <= 200
    put(tmp_path, FILE)
    (tmp_path / "keys").write_text(
        "# ours\n" + "".join(f"{who} {key.hex()}\n" for who, held in keys().items() for key in held)
    )
    (tmp_path / "siem.log").write_text(
        f'<110>1 - - [x seq="3"] {{"statement": "{KEPT.hex()}"}} {"ab" * 60}\n'
    )
    options = ("--keys", str(tmp_path / "keys"), "--heads", str(tmp_path / "siem.log"))
    good = run_alone(tmp_path, str(tmp_path), *options)
    assert (good.returncode, good.stderr) == (0, "")
    assert f"good: {len(MADE.records)} records" in good.stdout
    assert run_alone(tmp_path, str(tmp_path)).returncode == 0

    for data, place in ((FILE[: ENDS[9]], 10), (FILE[:200] + b"x" + FILE[201:], first_changed(FILE[:200]))):
        put(tmp_path, data)
        wrong = run_alone(tmp_path, str(tmp_path), *options)
        assert wrong.returncode == 1
        assert f"WRONG at record {place}" in wrong.stderr


def test_the_script_says_what_it_was_not_given(tmp_path: Path) -> None:
    for arguments in ((), ("a", "b"), ("a", "--keys"), ("a", "--other", "x"), ("a", "--keys", "nowhere")):
        done = run_alone(tmp_path, *arguments)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    put(tmp_path, FILE)
    other = tmp_path / "keys"
    other.write_text(f"node {'00' * 32}\n")
    done = run_alone(tmp_path, str(tmp_path), "--keys", str(other))
    assert done.returncode == 1
    assert "not signed by a key known here" in done.stderr


@pytest.mark.parametrize("foreign", ["1", b"1", [1], {}, {1: []}])
@pytest.mark.parametrize("field", range(4))
def test_the_script_names_a_record_whose_fields_are_of_another_kind(field: int, foreign: object) -> None:
    fields = [1, 0, bytes(32), {"kind": "begin", "statement": b""}]
    fields[field] = foreign
    body = msgspec.msgpack.encode(fields)
    with pytest.raises(alone.Wrong) as wrong:
        alone.Ledger(keys(), []).judge([hashlib.sha256(body).digest() + body])
    assert wrong.value.args[0] == 0
