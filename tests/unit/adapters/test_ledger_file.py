"""The ledger on a disk: nothing acknowledged is lost, nothing half-written stays."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters import ledger_file
from reuna.adapters.ledger_file import LedgerFile, read, segments
from reuna.core.errors import Corrupted, DiskFull, LedgerProblem, Untrusted
from reuna.trust import ledger
from reuna.trust.heads import Signer, countersign, open_head
from reuna.trust.ledger import Entry, read_record
from reuna.trust.ledger_verify import verify
from tests.unit.trust.books import CLOUD, KEYS, NODE, NOW_MS, SIGNER, intent
from tests.unit.trust.house import key


class Hands:
    """A clock that is set."""

    def __init__(self) -> None:
        self.at = NOW_MS / 1000

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a ledger waits for nothing")


def opened(folder: Path, **more: Any) -> LedgerFile:
    return LedgerFile(folder, SIGNER, Hands(), **more)


def entries(folder: Path) -> list[Entry]:
    return [read_record(raw).entry for raw in read(folder)]


def written(folder: Path, count: int, **more: Any) -> LedgerFile:
    made = opened(folder, **more)
    for number in range(count):
        made.append(intent(number))
    made.close()
    return made


def times(folder: Path) -> list[int]:
    """Of the entries, in milliseconds after the beginning."""
    return [entry.time_ms - NOW_MS for entry in entries(folder)]


def test_an_entry_that_waited_while_others_were_written_does_not_turn_the_clock_back(tmp_path: Path) -> None:
    clock = Hands()
    made = LedgerFile(tmp_path, SIGNER, clock)
    sent = made.append(intent(1))
    clock.at += 3
    statement = countersign(made.sign() or b"", KEYS.node, CLOUD, None, NOW_MS)
    made.countersigned(statement, KEYS.cloud)
    clock.at += 1
    made.append(Entry(time_ms=NOW_MS + 2000, kind="outcome", intent=sent, reason="acknowledged"))
    assert times(tmp_path) == [0, 1000, 3000, 3000, 4000]


def test_a_clock_that_really_goes_back_stays_visible(tmp_path: Path) -> None:
    clock = Hands()
    made = LedgerFile(tmp_path, SIGNER, clock)
    made.append(intent(10))
    clock.at += 4
    made.append(intent(3))
    assert times(tmp_path) == [0, 10_000, 3_000]


def test_what_was_appended_is_there_after_opening_again(tmp_path: Path) -> None:
    first = written(tmp_path, 5)
    again = opened(tmp_path)
    assert again.state == first.state
    assert again.append(intent(9)) == 6
    assert verify(read(tmp_path), KEYS).records == 7


def test_heads_are_signed_by_number_by_time_and_on_request(tmp_path: Path) -> None:
    clock = Hands()
    made = LedgerFile(tmp_path, SIGNER, clock)
    for number in range(200):
        made.append(intent(number))
    assert verify(read(tmp_path), KEYS).signed >= 200 - ledger.HEAD_EVERY
    clock.at += ledger.HEAD_MS / 1000
    made.append(intent(200))
    assert made.head is not None
    assert open_head(made.head, KEYS.node).seq == made.state.seq - 2
    made.append(intent(201))
    head = made.sign()
    assert head == made.sign()  # once is enough
    assert head is not None
    assert verify(read(tmp_path), KEYS).signed == made.state.seq - 2
    made.close()
    assert opened(tmp_path).head == head


def test_the_clouds_countersignature_is_kept(tmp_path: Path) -> None:
    made = opened(tmp_path)
    head = made.sign()
    assert head is not None
    statement = countersign(head, KEYS.node, CLOUD, None, NOW_MS)
    made.countersigned(statement, KEYS.cloud)
    verdict = verify(read(tmp_path), KEYS)
    assert verdict.good
    assert verdict.countersigned == 0
    with pytest.raises(Untrusted):
        made.countersigned(statement, KEYS.node)
    other = opened(tmp_path.parent / "other")
    with pytest.raises(LedgerProblem, match="another ledger"):
        other.countersigned(statement, KEYS.cloud)


def test_a_ledger_grows_over_many_files_linked_by_their_hashes(tmp_path: Path) -> None:
    written(tmp_path, 100, segment_bytes=2000)
    files = segments(tmp_path)
    assert len(files) > 5
    for path in files:
        first = ledger.split(path.read_bytes()).records[0]
        assert read_record(first).seq == int(path.stem)
    verdict = verify(read(tmp_path), KEYS)
    assert verdict.good
    files[2].unlink()
    verdict = verify(read(tmp_path), KEYS)
    assert verdict.fault is not None
    assert (verdict.fault.what, verdict.fault.index) == ("missing", int(files[2].stem))
    with pytest.raises(Corrupted, match=f"record {int(files[2].stem)}"):
        opened(tmp_path)


def test_one_process_writes_and_the_others_read(tmp_path: Path) -> None:
    made = opened(tmp_path)
    made.append(intent())
    with pytest.raises(LedgerProblem, match="another process"):
        opened(tmp_path)
    assert verify(read(tmp_path), KEYS).records == 2
    made.close()
    opened(tmp_path).close()


def test_a_reader_leaves_out_what_the_writer_has_not_finished(tmp_path: Path) -> None:
    made = opened(tmp_path)
    made.append(intent())
    with segments(tmp_path)[0].open("ab") as file:
        file.write(ledger.framed(bytes(100))[:50])
    assert verify(read(tmp_path), KEYS).good
    made.close()
    verdict = verify(read(tmp_path), KEYS)
    assert verdict.fault is not None
    assert (verdict.fault.what, verdict.fault.index) == ("changed", 2)


def test_a_ledger_goes_on_only_with_its_own_key(tmp_path: Path) -> None:
    written(tmp_path, 2)
    with pytest.raises(LedgerProblem, match="another key"):
        LedgerFile(tmp_path, Signer("mill-3", "edge-1", key("other")), Hands())
    opened(tmp_path).close()


def test_after_closing_nothing_is_written(tmp_path: Path) -> None:
    made = written(tmp_path, 2)
    with pytest.raises(Corrupted, match="closed"):
        made.append(intent())


def test_a_wrong_entry_costs_nothing_but_itself(tmp_path: Path) -> None:
    made = opened(tmp_path)
    with pytest.raises(LedgerProblem):
        made.append(intent(payload="xyz"))
    with pytest.raises(LedgerProblem):
        made.append(Entry(time_ms=NOW_MS, kind="head"))
    assert made.append(intent()) == 1


def test_a_folder_without_a_ledger_is_said(tmp_path: Path) -> None:
    with pytest.raises(LedgerProblem, match="no ledger"):
        list(read(tmp_path / "nowhere"))


def test_entries_are_counted_also_after_a_crash_and_not_after_damage(tmp_path: Path) -> None:
    assert list(ledger_file.entries(tmp_path)) == []
    written(tmp_path, 20, segment_bytes=2000)
    good = list(ledger_file.entries(tmp_path))
    assert good == [(number, entry) for number, entry in enumerate(entries(tmp_path))]
    files = segments(tmp_path)
    with files[-1].open("ab") as file:
        file.write(ledger.framed(bytes(100))[:50])
    assert list(ledger_file.entries(tmp_path)) == good
    damaged = bytearray(files[0].read_bytes())
    damaged[100] ^= 1
    files[0].write_bytes(damaged)
    with pytest.raises(Corrupted, match="record 0"):
        list(ledger_file.entries(tmp_path))


def test_several_entries_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, calls, real = opened(tmp_path), [], os.fsync
    monkeypatch.setattr(ledger_file.os, "fsync", lambda fd: (calls.append(fd), real(fd)))
    assert made.append_all([intent(1), intent(2), intent(3)]) == [1, 2, 3]
    assert len(calls) == 1
    assert made.append_all([]) == []
    with pytest.raises(LedgerProblem):
        made.append_all([intent(4), Entry(time_ms=NOW_MS, kind="head")])
    assert made.state.seq == 4


# --- many threads ----------------------------------------------------------------------------------


class Noticed(list):
    """A queue that says when somebody joins it."""

    def __init__(self) -> None:
        super().__init__()
        self.joined = threading.Semaphore(0)

    def __iadd__(self, more: Any) -> Noticed:  # type: ignore[misc] # a list that only grows
        self.extend(more)
        self.joined.release()
        return self


def test_threads_that_append_at_once_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, queue, others = opened(tmp_path), Noticed(), 15
    syncs, begun, go_on, real = [], threading.Event(), threading.Event(), os.fsync

    def slow(fd: int) -> None:
        syncs.append(fd)
        begun.set()
        assert go_on.wait(60)
        real(fd)

    monkeypatch.setattr(ledger_file.os, "fsync", slow)
    numbers: list[int] = []
    workers = [
        threading.Thread(target=lambda n=n: numbers.append(made.append(intent(n)))) for n in range(others + 1)
    ]
    workers[0].start()
    assert begun.wait(60)
    made._queue = queue
    for worker in workers[1:]:
        worker.start()
    for _ in range(others):
        assert queue.joined.acquire(timeout=60)
    go_on.set()
    for worker in workers:
        worker.join()
    assert sorted(numbers) == list(range(1, others + 2))
    assert len(syncs) == 2
    assert verify(read(tmp_path), KEYS).records == others + 2


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    made = opened(tmp_path, segment_bytes=5000)
    numbers: list[int] = []

    def work(base: int) -> None:
        for number in range(25):
            numbers.append(made.append(intent(base + number)))

    workers = [threading.Thread(target=work, args=(100 * n,)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    made.close()
    assert len(set(numbers)) == 200
    found = [read_record(raw) for raw in read(tmp_path)]
    assert {record.seq for record in found if record.entry.kind == "intent"} == set(numbers)
    assert verify(read(tmp_path), KEYS).good


# --- disks that fail -------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, part: int = 0) -> None:
    """The next call of ``os.name`` writes ``part`` bytes and fails; those behind it work again."""
    real = getattr(os, name)
    calls: list[int] = []

    def fail(fd: int, *arguments: Any) -> Any:
        calls.append(fd)
        if name == "pwrite" and part and len(calls) == 1:
            data, at = arguments
            return real(fd, bytes(data[:part]), at)
        if len(calls) == (2 if part else 1):
            raise OSError(number, os.strerror(number))
        return real(fd, *arguments)

    monkeypatch.setattr(ledger_file.os, name, fail)


@pytest.mark.parametrize("name", ["pwrite", "fsync"])
@pytest.mark.parametrize("segment_bytes", [10, 10**6])
def test_a_full_disk_leaves_nothing_half_written_and_the_next_append_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, segment_bytes: int
) -> None:
    made = opened(tmp_path, segment_bytes=segment_bytes)
    made.append(intent(1))
    sizes = sum(path.stat().st_size for path in segments(tmp_path))
    with monkeypatch.context() as patch:
        failing(patch, name, errno.ENOSPC, part=37 if name == "pwrite" else 0)
        with pytest.raises(DiskFull):
            made.append(intent(2))
    assert sum(path.stat().st_size for path in segments(tmp_path)) == sizes
    assert made.append(intent(3)) == 2
    made.close()
    assert verify(read(tmp_path), KEYS).records == 3
    assert opened(tmp_path).state == made.state


def test_after_an_error_of_the_disk_nothing_is_written_until_it_was_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = opened(tmp_path)
    made.append(intent(1))
    with monkeypatch.context() as patch:
        failing(patch, "fsync", errno.EIO)
        with pytest.raises(Corrupted):
            made.append(intent(2))
    for _ in range(2):
        with pytest.raises(Corrupted, match="nothing can be written"):
            made.append(intent(3))
    made.close()
    again = opened(tmp_path)  # the record may be there or not; nobody was told that it is
    assert again.append(intent(4)) in {2, 3}
    assert verify(read(tmp_path), KEYS).good


FULL = """
import resource, signal, sys
from pathlib import Path
from reuna.core.errors import DiskFull
from tests.unit.adapters.test_ledger_file import opened, intent
made = opened(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
count = 0
try:
    while True:
        made.append(intent(count))
        count += 1
except DiskFull:
    print(count, flush=True)
"""


def child(source: str, *arguments: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments], cwd=root, stdout=subprocess.PIPE, text=True
    )


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    process = child(FULL, str(tmp_path))
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    kinds = [entry.kind for entry in entries(tmp_path)]
    assert kinds.count("intent") == int(said) > 3
    assert verify(read(tmp_path), KEYS).good


# --- damage ----------------------------------------------------------------------------------------


def test_a_torn_record_is_cut_off_and_said(tmp_path: Path) -> None:
    written(tmp_path, 3)
    path = segments(tmp_path)[0]
    whole = path.read_bytes()
    torn = ledger.framed(ledger.append(opened_state(tmp_path), intent(5))[1])
    for part in (1, 4, 20, 40, len(torn) - 1):
        path.write_bytes(whole + torn[:part])
        again = opened(tmp_path)
        again.close()
        assert again.dropped == part
        last = entries(tmp_path)[-1]
        assert (last.kind, last.payload_bytes) == ("recovered", part)
        assert verify(read(tmp_path), KEYS).good
        assert entries(tmp_path)[:4] == [read_record(raw).entry for raw in ledger.split(whole).records]


def opened_state(folder: Path) -> ledger.State:
    made = opened(folder)
    made.close()
    return made.state


def test_zeros_that_a_power_cut_left_are_cut_off(tmp_path: Path) -> None:
    written(tmp_path, 3)
    with segments(tmp_path)[0].open("ab") as file:
        file.write(bytes(4096))
    again = opened(tmp_path)
    assert again.dropped == 4096
    assert again.append(intent()) == 5


def test_a_crash_before_the_first_record_was_whole_begins_anew(tmp_path: Path) -> None:
    written(tmp_path, 0)
    path = segments(tmp_path)[0]
    for part in (0, 10):
        path.write_bytes(path.read_bytes()[:part])
        opened(tmp_path).close()
        assert verify(read(tmp_path), KEYS).good


@pytest.mark.parametrize("index", [0, 3, 9])
def test_a_damaged_record_is_named_and_the_node_does_not_write(tmp_path: Path, index: int) -> None:
    written(tmp_path, 9)
    path = segments(tmp_path)[0]
    whole = path.read_bytes()
    records = ledger.split(whole).records
    start = sum(4 + len(raw) for raw in records[:index])
    for place in (0, 2, 3, 4, 30, 36, 50, 3 + len(records[index])):
        damaged = bytearray(whole)
        damaged[start + place] ^= 0x40
        path.write_bytes(damaged)
        with pytest.raises(Corrupted, match=rf"record {index}\b") as caught:
            opened(tmp_path)
        assert "Nothing is sent" in caught.value.next_step
        assert path.read_bytes() == damaged  # it stays as it was, for whoever looks into it
    path.write_bytes(whole)
    opened(tmp_path).close()


def test_without_asking_whether_it_is_torn_a_damaged_end_would_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, 3)
    path = segments(tmp_path)[0]
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(Corrupted):
        opened(tmp_path)
    monkeypatch.setattr(ledger, "is_torn", lambda *_: True)
    opened(tmp_path).close()
    assert [entry.kind for entry in entries(tmp_path)] == ["begin", "intent", "intent", "recovered"]


# --- killed processes ------------------------------------------------------------------------------

#: Two lives one after the other in each folder, each a process of its own that dies by SIGKILL at its Nth
#: call of a system function, which has done its work by half. How each ended, and what it had acknowledged.
DIES = """
import json, os, signal, sys
from pathlib import Path
from reuna.adapters import ledger_file
from tests.unit.adapters.test_ledger_file import POINTS, opened, intent
def live(folder, name, number, share):
    real, calls = getattr(os, name), 0
    def dying(fd, *more):
        nonlocal calls
        calls += 1
        if calls == number:
            if name == "pwrite":
                real(fd, bytes(more[0])[: int(len(more[0]) * share)], more[1])
            elif share:
                real(fd, *more)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(fd, *more)
    setattr(ledger_file.os, name, dying)
    made = opened(folder, segment_bytes=900)
    for each in range(30):
        print(made.append(intent(each)), flush=True)

for case, (name, number, share) in enumerate(POINTS):
    for again in (0, 1):
        said, told = os.pipe()
        pid = os.fork()
        if not pid:
            os.dup2(told, 1)
            live(Path(sys.argv[1]) / str(case), name, number + again, share)
            os._exit(0)
        os.close(told)
        with open(said) as lines:
            numbers = [int(line) for line in lines]
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([case, ended, numbers]), flush=True)
"""
POINTS = [
    *(("pwrite", number, share) for number in (1, 2, 7, 20) for share in (0.0, 0.005, 0.5, 1.0)),
    *(("fsync", number, share) for number in (1, 2, 3, 9) for share in (0.0, 1.0)),
    *(("open", number, share) for number in (1, 2, 3, 4, 6) for share in (0.0, 1.0)),
    *(("close", number, 1.0) for number in (1, 2, 3)),
]


def check_after_kill(folder: Path, acknowledged: list[int]) -> None:
    made = opened(folder, segment_bytes=900)
    numbers = {read_record(raw).seq for raw in read(folder)}
    assert set(acknowledged) <= numbers
    assert made.append(intent(99)) == made.state.seq - 1
    made.close()
    found = [read_record(raw) for raw in read(folder)]
    for number in acknowledged:
        assert found[number].entry.kind == "intent"
    verdict = verify(read(folder), KEYS)
    assert verdict.good, verdict.fault


@pytest.mark.system
@pytest.mark.slow
def test_a_process_killed_at_any_point_loses_no_acknowledged_entry(tmp_path: Path) -> None:
    """Two deaths one after the other in each folder, so that recovery itself is killed too."""
    process = child(DIES, str(tmp_path))
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    lives = [json.loads(line) for line in said.splitlines()]
    assert len(lives) == 2 * len(POINTS)
    assert {ended for _, ended, _ in lives} <= {0, -9}
    for case in range(len(POINTS)):
        check_after_kill(tmp_path / str(case), [each for of, _, seen in lives if of == case for each in seen])
    killed = sum(ended == -9 for _, ended, _ in lives)
    assert killed > 1.5 * len(POINTS)


WRITES = """
import os, sys, threading
from pathlib import Path
from tests.unit.adapters.test_ledger_file import opened, intent
made = opened(Path(sys.argv[1]), segment_bytes=2000)
def work():
    while True:
        os.write(1, b"%d\\n" % made.append(intent(made.state.seq)))
for _ in range(4):
    threading.Thread(target=work).start()
"""


@pytest.mark.system
def test_four_threads_killed_at_random_lose_no_acknowledged_entry(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for after in (1, 2, 5, 17, 60, 200):
        process = child(WRITES, str(tmp_path))
        assert process.stdout is not None
        heard = [process.stdout.readline() for _ in range(after)]
        process.kill()
        heard += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        acknowledged += [int(line) for line in heard if line.endswith("\n") and line.strip()]
        check_after_kill(tmp_path, acknowledged)
    assert len(acknowledged) >= 285


def test_the_first_record_names_the_node_and_its_key(tmp_path: Path) -> None:
    made = opened(tmp_path)
    assert msgspec.msgpack.decode(entries(tmp_path)[0].statement)[1:] == [
        "mill-3",
        "edge-1",
        NODE.public_key().public_bytes_raw(),
    ]
    made.close()
