"""The `Spool` port on a disk and in memory: one contract; then crashes and full disks."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reuna.adapters.receiver import SpoolReceiver, commit_all
from reuna.adapters.spool import DRAFT_DIGEST, HELD, DiskSpool
from reuna.core.errors import Corrupted, DiskFull, Refused, Unreachable
from reuna.core.ports import Blob, BlobWriter
from reuna.core.records import Contribution, Member
from reuna.sim.storage import ROW, MemoryDisk, MemorySpool
from reuna.wire import BLOCK, digest_bytes
from tests.effects import watched

SIZE = 5 * BLOCK + 100
AnySpool = DiskSpool | MemorySpool


class Held:
    """A spool that can lose its process, or its power."""

    def __init__(self, spool: AnySpool, again: Callable[[AnySpool], AnySpool]) -> None:
        self.spool = spool
        self._again = again

    def kill(self) -> None:
        self.spool = self._again(self.spool)


@pytest.fixture(params=["memory", "disk"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Held]:
    def again_on_disk(spool: AnySpool) -> AnySpool:
        spool.close()
        return DiskSpool(tmp_path)

    def again_in_memory(spool: AnySpool) -> AnySpool:
        assert isinstance(spool, MemorySpool)
        spool.crash(power=False)
        return spool

    if request.param == "memory":
        made = Held(MemorySpool(), again_in_memory)
    else:
        made = Held(DiskSpool(tmp_path), again_on_disk)
    yield made
    made.spool.close()


def manifest_of(data: bytes, sender: str = "edge-1", round: int = 1, **other: object) -> Contribution:
    fields: dict[str, object] = {
        "run": "r-1",
        "round": round,
        "attempt": 1,
        "sender": sender,
        "plan": "p",
        "kind": "update",
        "params": len(data),
        "width": 1,
        "weight": 1,
        "digest": digest_bytes(data),
        "size": len(data),
        "members": (Member(node=sender, weight=1),),
    }
    return Contribution(**(fields | other))  # type: ignore[arg-type]


def blocks(data: bytes) -> list[bytes]:
    return [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]


def write(writer: BlobWriter, parts: list[bytes]) -> BlobWriter:
    for part in parts:
        writer.write(part)
    return writer


def give(spool: AnySpool, data: bytes, **fields: object) -> Contribution:
    manifest = manifest_of(data, **fields)  # type: ignore[arg-type]
    spool.commit(manifest, write(spool.begin(manifest), blocks(data)).seal())
    return manifest


def test_committed_rows_and_bodies_survive_a_kill(held: Held) -> None:
    data = os.urandom(SIZE)
    second = give(held.spool, data, sender="edge-2")
    first = give(held.spool, data, sender="edge-1")
    held.kill()
    assert held.spool.rows("r-1", 1, 1) == [first, second]
    body = held.spool.body(first)
    assert (body.digest, body.size, body.read(0, SIZE)) == (first.digest, SIZE, data)


def test_rows_are_of_one_round_and_attempt(held: Held) -> None:
    rows = [
        give(held.spool, b"a", round=1),
        give(held.spool, b"b", round=2, attempt=1),
        give(held.spool, b"c", round=2, attempt=2),
    ]
    assert held.spool.rows("r-1", 2, 1) == [rows[1]]
    assert held.spool.rows("r-2", 2, 1) == []
    assert held.spool.rows_of_run("r-1") == rows


@pytest.mark.parametrize("size", [100, SIZE])
def test_who_committed_a_body_can_read_on_in_it_also_when_it_was_there_already(held: Held, size: int) -> None:
    data = os.urandom(size)
    manifest = manifest_of(data)
    for _ in range(2):
        body = write(held.spool.begin(manifest), blocks(data)).seal()
        held.spool.commit(manifest, body)
        assert body.read(0, size) == data


def test_a_row_may_have_no_body(held: Held) -> None:
    report = manifest_of(b"", kind="report", digest="")
    held.spool.commit(report, None)
    assert held.spool.rows("r-1", 1, 1) == [report]


def test_the_same_commit_again_changes_nothing(held: Held) -> None:
    data = os.urandom(SIZE)
    manifest = give(held.spool, data)
    give(held.spool, data)
    assert held.spool.rows("r-1", 1, 1) == [manifest]
    assert held.spool.body(manifest).read(0, SIZE) == data


def test_a_second_digest_for_a_key_is_a_conflict(held: Held) -> None:
    manifest = give(held.spool, b"first")
    with pytest.raises(Refused) as caught:
        give(held.spool, b"second")
    assert caught.value.reason == "conflict"
    assert held.spool.rows("r-1", 1, 1) == [manifest]
    assert held.spool.body(manifest).read(0, 10) == b"first"


def test_a_body_that_is_not_the_manifests_is_refused(held: Held) -> None:
    manifest = manifest_of(b"announced")
    body = write(held.spool.begin(manifest), [b"different"]).seal()
    with pytest.raises(Refused) as caught:
        held.spool.commit(manifest, body)
    assert caught.value.reason == "digest"
    assert held.spool.rows("r-1", 1, 1) == []


def test_an_interrupted_upload_goes_on_after_its_whole_blocks(held: Held) -> None:
    data = os.urandom(SIZE)
    manifest = manifest_of(data)
    write(held.spool.begin(manifest), blocks(data)[:2])
    assert held.spool.held(manifest) == 2 * BLOCK
    held.kill()
    assert held.spool.held(manifest) == 2 * BLOCK
    body = write(held.spool.begin(manifest), blocks(data)[2:]).seal()
    assert body.digest == manifest.digest
    held.spool.commit(manifest, body)
    assert held.spool.body(manifest).read(0, SIZE) == data


def test_an_upload_that_was_whole_at_the_kill_is_only_committed(held: Held) -> None:
    data = os.urandom(SIZE)
    manifest = manifest_of(data)
    write(held.spool.begin(manifest), blocks(data))
    held.kill()
    assert held.spool.held(manifest) == SIZE
    held.spool.commit(manifest, held.spool.begin(manifest).seal())
    assert held.spool.body(manifest).read(0, SIZE) == data


def test_another_manifest_does_not_go_on_from_these_blocks(held: Held) -> None:
    data = os.urandom(SIZE)
    write(held.spool.begin(manifest_of(data)), blocks(data)[:2])
    other = manifest_of(data, weight=2)
    assert held.spool.held(other) == 0
    held.spool.commit(other, write(held.spool.begin(other), blocks(data)).seal())
    assert held.spool.rows("r-1", 1, 1) == [other]


def test_a_whole_body_of_another_digest_is_not_kept_for_a_later_try(held: Held) -> None:
    data = os.urandom(SIZE)
    manifest = manifest_of(data)
    write(held.spool.begin(manifest), blocks(os.urandom(SIZE)))
    assert held.spool.held(manifest) == 0
    held.spool.commit(manifest, write(held.spool.begin(manifest), blocks(data)).seal())


def test_a_draft_begins_anew_and_is_committed_under_its_digest(held: Held) -> None:
    data = os.urandom(SIZE)
    draft = manifest_of(data, digest=DRAFT_DIGEST)
    write(held.spool.begin(draft), blocks(data)[:2])
    write(held.spool.begin(draft), blocks(data)[:1])
    assert held.spool.held(draft) == 0
    held.kill()
    body = write(held.spool.begin(draft), blocks(data)).seal()
    held.spool.commit(manifest_of(data), body)
    assert held.spool.body(manifest_of(data)).read(0, SIZE) == data


def test_an_older_writer_of_the_key_cannot_go_on(held: Held) -> None:
    data = os.urandom(SIZE)
    manifest = manifest_of(data)
    older = write(held.spool.begin(manifest), blocks(data)[:1])
    newer = held.spool.begin(manifest)
    with pytest.raises(Unreachable):
        older.write(blocks(data)[1])
    older.abandon()
    write(newer, blocks(data)[1:])
    assert newer.seal().digest == manifest.digest


def test_a_body_replaced_before_its_commit_is_not_recorded(held: Held) -> None:
    manifest = manifest_of(b"body")
    older = write(held.spool.begin(manifest), [b"body"]).seal()
    held.spool.begin(manifest)
    with pytest.raises(Corrupted):
        held.spool.commit(manifest, older)
    assert held.spool.rows("r-1", 1, 1) == []


def test_dropping_forgets_bodies_of_earlier_rounds_and_keeps_rows(held: Held) -> None:
    rows = [give(held.spool, b"body", round=number) for number in (1, 2, 3)]
    unfinished = manifest_of(os.urandom(SIZE), round=2, sender="edge-9")
    write(held.spool.begin(unfinished), [bytes(BLOCK)])
    held.spool.drop("r-1", 3)
    held.spool.drop("r-none", 3)
    assert held.spool.rows_of_run("r-1") == rows
    assert held.spool.held(unfinished) == 0
    assert held.spool.body(rows[2]).read(0, 4) == b"body"
    with pytest.raises(Corrupted):
        held.spool.body(rows[0]).read(0, 4)


def test_a_body_dropped_before_its_commit_is_not_recorded_and_harms_no_other(held: Held) -> None:
    manifest = manifest_of(b"body")
    body = write(held.spool.begin(manifest), [b"body"]).seal()
    held.spool.drop("r-1", 2)
    with pytest.raises(Corrupted):
        held.spool.commit(manifest, body)
    row = give(held.spool, b"other", sender="edge-2")
    assert held.spool.rows("r-1", 1, 1) == [row]


# --- the receiver over any spool -------------------------------------------------------------


def accept(manifest: Contribution, body: Blob | None) -> None:
    """All is well."""


def test_a_receiver_takes_blocks_and_gives_a_receipt(held: Held) -> None:
    data = os.urandom(SIZE)
    manifest = manifest_of(data)
    receiver = SpoolReceiver(held.spool, manifest, accept)
    for block in blocks(data)[:3]:
        receiver.write(block)
    receiver.suspend()
    receiver = SpoolReceiver(held.spool, manifest, accept)
    assert receiver.offset == 3 * BLOCK
    for block in blocks(data)[3:]:
        receiver.write(block)
    assert receiver.commit().digest == manifest.digest


def test_a_receiver_refuses_too_many_and_too_few_bytes(held: Held) -> None:
    manifest = manifest_of(b"abc")
    receiver = SpoolReceiver(held.spool, manifest, accept)
    with pytest.raises(Refused) as caught:
        receiver.write(b"abcd")
    assert caught.value.reason == "oversized"
    with pytest.raises(Refused) as caught:
        receiver.commit()
    assert caught.value.reason == "digest"


def test_a_receiver_forgets_what_the_check_refuses(held: Held) -> None:
    def refuse(manifest: Contribution, body: Blob | None) -> None:
        raise Refused("range", "a value lies outside the grid")

    data = os.urandom(SIZE)
    receiver = SpoolReceiver(held.spool, manifest_of(data), refuse)
    for block in blocks(data):
        receiver.write(block)
    with pytest.raises(Refused):
        receiver.commit()
    assert held.spool.held(manifest_of(data)) == 0


# --- on disk only ----------------------------------------------------------------------------


def test_only_blocks_that_match_their_hash_count_after_a_crash(tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    manifest = manifest_of(data)
    write(DiskSpool(tmp_path).begin(manifest), blocks(data)[:4])
    (part,) = (tmp_path / "bodies" / "r-1").glob("*.part")
    with part.open("r+b") as file:
        file.seek(2 * BLOCK + 5)
        file.write(b"torn")
    assert DiskSpool(tmp_path).held(manifest) == 2 * BLOCK
    os.truncate(part, BLOCK + 10)
    assert DiskSpool(tmp_path).held(manifest) == BLOCK


def test_of_commits_together_each_ends_as_if_it_were_alone(held: Held) -> None:
    kept = give(held.spool, b"kept")

    def judge(manifest: Contribution, _body: Blob | None) -> None:
        if manifest.sender == "edge-3":
            raise Refused("range", "planted")

    def taking(data: bytes, manifest: Contribution) -> SpoolReceiver:
        receiver = SpoolReceiver(held.spool, manifest, judge)
        receiver.write(data)
        return receiver

    senders = ("edge-1", "edge-2", "edge-3", "edge-4")
    ends = commit_all(held.spool, [taking(f"{n}".encode(), manifest_of(f"{n}".encode(), n)) for n in senders])
    assert [each.reason if isinstance(each, Refused) else "there" for each in ends] == [
        "conflict",
        "there",
        "range",
        "there",
    ]
    held.kill()
    rows = held.spool.rows("r-1", 1, 1)
    assert [row.sender for row in rows] == ["edge-1", "edge-2", "edge-4"]
    assert rows[0] == kept
    assert held.spool.body(rows[2]).read(0, 6) == b"edge-4"


def test_commits_together_are_forced_to_the_disk_once(tmp_path: Path) -> None:
    spool, told = DiskSpool(tmp_path), list[str]()
    manifests = [manifest_of(b"abc", f"edge-{number}") for number in range(5)]
    bodies = [write(spool.begin(each), [b"abc"]).seal() for each in manifests]
    spool._writing.set_trace_callback(lambda statement: told.append(statement.partition(" ")[0]))
    assert spool.commit_all(list(zip(manifests, bodies, strict=True))) == [None] * 5
    spool._writing.set_trace_callback(None)
    assert told.count("COMMIT") == 1
    assert spool.rows("r-1", 1, 1) == manifests
    spool.close()


def test_many_threads_commit_at_once(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        rows = list(threads.map(lambda n: give(spool, b"%d" % n, sender=f"edge-{n:03}"), range(60)))
    assert spool.rows("r-1", 1, 1) == rows
    spool.close()


def test_of_many_commits_for_one_key_one_counts(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path)

    def try_to_commit(number: int) -> str:
        try:
            spool.commit(manifest_of(b"", kind="report", digest=f"{number:064}"), None)
        except Refused as refusal:
            return refusal.reason
        return "counted"

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(try_to_commit, range(40)))
    assert sorted(outcomes) == ["conflict"] * 39 + ["counted"]
    spool.close()


@pytest.mark.parametrize(
    "field",
    [{"run": "../r"}, {"run": "a/b"}, {"sender": "../x"}, {"digest": "../../x"}, {"round": -1}],
)
def test_a_manifest_cannot_name_a_file_elsewhere(tmp_path: Path, field: dict[str, object]) -> None:
    spool = DiskSpool(tmp_path / "spool")
    manifest = manifest_of(b"abc", **field)  # type: ignore[arg-type]
    with pytest.raises(Refused):
        spool.commit(manifest, write(spool.begin(manifest), [b"abc"]).seal())
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]
    assert spool.rows("r-1", 2**70, 1) == []
    spool.close()


@pytest.mark.parametrize("size", [4, SIZE])
def test_a_row_that_cannot_be_committed_leaves_no_body(tmp_path: Path, size: int) -> None:
    spool = DiskSpool(tmp_path)
    other = sqlite3.connect(tmp_path / "spool.db")
    other.execute("CREATE TRIGGER full BEFORE INSERT ON rows BEGIN SELECT RAISE(ABORT, 'planted'); END")
    with pytest.raises(Corrupted):
        give(spool, bytes(size))
    assert [path.name for path in (tmp_path / "bodies").glob("*/*")] == []
    assert other.execute("SELECT count(*) FROM small").fetchone() == (0,)
    other.close()
    spool.close()


def test_a_small_body_is_forced_to_the_disk_with_its_row_and_nothing_else_is(tmp_path: Path) -> None:
    spool, manifest, told = DiskSpool(tmp_path), manifest_of(bytes(BLOCK)), list[str]()
    spool._writing.set_trace_callback(lambda statement: told.append(" ".join(statement.split()[:4])))
    with watched(told.append):
        receiver = SpoolReceiver(spool, manifest, lambda *_: told.append("validated"))
        receiver.write(bytes(BLOCK))
        receiver.commit()
        told.append("acknowledged")
    spool._writing.set_trace_callback(None)
    assert told == [
        "validated",
        "BEGIN IMMEDIATE",
        "SELECT digest FROM rows",
        "INSERT OR REPLACE INTO",
        "INSERT INTO rows VALUES",
        "COMMIT",
        "acknowledged",
    ]
    assert "bodies=1 forced=1" in spool.durability()
    assert list((tmp_path / "bodies").iterdir()) == []
    spool.close()


def test_a_small_body_goes_with_the_first_commit_after_it_was_dropped(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path)
    first, other = give(spool, b"first", round=1), give(spool, b"other", run="r-2", round=1)
    spool.drop("r-1", 2)
    with pytest.raises(Corrupted):
        spool.body(first)
    give(spool, b"second", round=2)
    seen = sqlite3.connect(tmp_path / "spool.db")
    left = seen.execute("SELECT run, round FROM small ORDER BY run").fetchall()
    assert left == [("r-1", 2), ("r-2", 1)]
    assert spool.body(other).read(0, 5) == b"other"
    seen.close()
    spool.close()


FULL_DISK = """
import os, pathlib, resource, sys
from reuna.adapters.spool import DiskSpool
from reuna.core.errors import DiskFull
sys.path.insert(0, {tests!r})
from test_spool import blocks, manifest_of, write
folder = pathlib.Path({folder!r})
spool = DiskSpool(folder)
data = bytes(400_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    write(spool.begin(manifest_of(data)), blocks(data))
except DiskFull:
    left = os.listdir(folder / "bodies" / "r-1")
    raise SystemExit(0 if left == [] and spool.held(manifest_of(data)) == 0 else 2)
raise SystemExit(1)
"""


def test_a_full_disk_is_said_and_leaves_no_part(tmp_path: Path) -> None:
    code = FULL_DISK.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    spool = DiskSpool(tmp_path)
    give(spool, bytes(400_000))
    spool.close()


# --- in memory only --------------------------------------------------------------------------


def test_a_power_cut_in_memory_takes_unfinished_uploads_only() -> None:
    spool = MemorySpool()
    data = os.urandom(SIZE)
    row = give(spool, data, sender="edge-2")
    write(spool.begin(manifest_of(data)), blocks(data)[:2])
    spool.crash()
    assert spool.held(manifest_of(data)) == 0
    assert spool.body(row).read(0, SIZE) == data
    assert spool.disk.used == SIZE + ROW


def test_a_full_disk_in_memory_is_said_and_leaves_no_part() -> None:
    spool = MemorySpool(MemoryDisk(capacity=2 * BLOCK))
    data = os.urandom(SIZE)
    with pytest.raises(DiskFull):
        write(spool.begin(manifest_of(data)), blocks(data))
    assert spool.disk.used == 0


def test_an_upload_is_whole_forced_renamed_and_in_a_forced_folder_before_its_row(tmp_path: Path) -> None:
    data = os.urandom(2 * BLOCK)
    spool, manifest, told = DiskSpool(tmp_path), manifest_of(data), list[str]()
    spool._writing.set_trace_callback(lambda statement: told.append(statement.partition(" ")[0]))
    with watched(told.append):
        receiver = SpoolReceiver(spool, manifest, lambda *_: told.append("validated"))
        receiver.write(data)
        receiver.commit()
        told.append("acknowledged")
    spool._writing.set_trace_callback(None)
    part, hashes = "1.1.edge-1.part", "1.1.edge-1.hashes"
    assert told == [
        "mkdir r-1",
        "fsync bodies",
        f"write {hashes}",
        f"write {part}",
        f"write {hashes}",
        f"fdatasync {part}",
        "validated",
        "BEGIN",
        "SELECT",
        f"rename {part}",
        "INSERT",
        "fsync r-1",
        "COMMIT",
        "acknowledged",
    ]
    assert spool._writing.execute("PRAGMA synchronous").fetchone() == (2,), "COMMIT forces the row"
    spool.close()


def test_a_small_body_committed_lately_is_not_read_back_and_of_many_the_last_are_held(tmp_path: Path) -> None:
    spool, asked = DiskSpool(tmp_path), list[str]()
    rows = [give(spool, b"%d" % number, sender=f"edge-{number}") for number in range(HELD + 1)]
    spool._reading.set_trace_callback(asked.append)
    assert [spool.body(row).read(0, 2) for row in rows] == [b"%d" % n for n in range(HELD + 1)]
    spool._reading.set_trace_callback(None)
    assert len(asked) == 1
    spool.close()


def test_what_is_held_of_a_small_body_goes_when_its_round_is_dropped(held: Held) -> None:
    old, new = give(held.spool, b"old", round=1), give(held.spool, b"new", round=2)
    held.spool.drop("r-1", 2)
    give(held.spool, b"next", round=3)
    with pytest.raises(Corrupted):
        held.spool.body(old)
    assert held.spool.body(new).read(0, 3) == b"new"
