"""Each event takes effect once, whatever the streams do."""

import random
import sqlite3
import threading

import msgspec
import pytest

from reuna.adapters.events import KEEP_DAYS, MOST_LAST, EventLog
from reuna.adapters.nats_bus import StreamLimits
from reuna.core.errors import BadMessage, Corrupted
from reuna.core.records import Event

DAY_S = 86_400.0
NOW = 1_767_225_600.0


class SetClock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cloud" / "events.sqlite"


@pytest.fixture
def log(path, clock):
    log = EventLog(path, clock)
    yield log
    log.close()


def _event(seq, node="edge-1", boot="b1", run="r1", at=NOW, what="trained"):
    return Event(node, boot, seq, at, what, run, 1, {"loss": 0.5})


def _count(db) -> None:
    db.execute("CREATE TABLE IF NOT EXISTS total (n INTEGER)")
    if db.execute("UPDATE total SET n = n + 1").rowcount == 0:
        db.execute("INSERT INTO total VALUES (1)")


def _total(path) -> int:
    db = sqlite3.connect(path)
    found = db.execute("SELECT n FROM total").fetchone()
    db.close()
    return found[0]


def test_a_second_delivery_has_no_effect(log, path):
    assert log.record(_event(1), _count)
    assert not log.record(_event(1), _count)
    assert _total(path) == 1


def test_a_thousand_events_replayed_days_later_in_any_order_take_effect_once(path, clock):
    events = [
        _event(seq, node=f"edge-{node}", boot=boot)
        for node in range(5)
        for boot in ("b1", "b2")
        for seq in range(100)
    ]
    rng, oldest_s = random.Random(1), StreamLimits().max_age_s  # what the stream may deliver again at most
    for delivery in range(3):
        log = EventLog(path, clock)  # each time another process, which forgets what is past its time
        log.prune(clock.now())
        rng.shuffle(events)
        assert sum(log.record(event, _count) for event in events) == (1000 if delivery == 0 else 0)
        log.close()
        clock.time += oldest_s / 2
    assert _total(path) == 1000


def test_node_boot_and_number_tell_events_apart(log):
    assert log.record(_event(1))
    assert log.record(_event(2))
    assert log.record(_event(1, node="edge-2"))
    assert log.record(_event(1, boot="b2"))
    assert log.counts() == {"trained": 4}


def test_an_effect_that_fails_leaves_the_event_to_be_delivered_again(log, path):
    def fail(db: sqlite3.Connection) -> None:
        _count(db)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        log.record(_event(1), fail)
    assert log.read("r1") == []
    assert log.record(_event(1), _count)
    assert _total(path) == 1


def test_a_crash_before_the_commit_leaves_neither_event_nor_effect(path, clock):
    log = EventLog(path, clock)
    log.record(_event(1), _count)
    cut = log._db._db
    cut.execute("BEGIN IMMEDIATE")  # what record does, cut off before its commit
    cut.execute("INSERT INTO events VALUES (99, 'n', 'b', 2, 'r1', 'w', 0, x'')")
    _count(cut)
    log.close()
    log = EventLog(path, clock)
    assert len(log.read("r1")) == 1
    assert _total(path) == 1
    log.close()


def test_a_run_is_read_in_the_order_of_arrival_from_any_point(log):
    for seq in (5, 3, 4):
        log.record(_event(seq))
        log.record(_event(seq, run="r2", node="edge-2"))
    assert [event.seq for event in log.read("r1")] == [5, 3, 4]
    assert [event.seq for event in log.read("r1", after=2)] == [4]
    assert log.read("r1", after=3) == []
    assert log.read("r1")[0] == _event(5)


def test_pruning_goes_by_arrival_not_by_the_clock_of_the_node(log, clock):
    log.record(_event(1, at=0.0))  # a node whose clock starts in 1970
    assert log.prune(NOW + (KEEP_DAYS - 1) * DAY_S) == 0
    assert not log.record(_event(1, at=0.0))
    assert log.prune(NOW + (KEEP_DAYS + 1) * DAY_S) == 1
    assert log.read("r1") == []


@pytest.mark.parametrize("seq", [-1, 2**63, 2**64 - 1])
def test_a_number_that_no_node_counts_to_is_refused(log, seq):
    with pytest.raises(BadMessage):
        log.record(_event(seq))
    assert log.record(_event(2**63 - 1))


def test_an_event_with_a_time_that_is_no_number_is_kept(log):
    assert log.record(_event(1, at=float("nan")))


def test_deliveries_in_several_threads_take_effect_once(log, path):
    taken = []

    def deliver() -> None:
        taken.extend(log.record(_event(seq), _count) for seq in range(25))

    threads = [threading.Thread(target=deliver) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(taken), _total(path)) == (25, 25)


def test_a_damaged_file_is_said_to_be_one(path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(Corrupted, match="events.sqlite"):
        EventLog(path)


def test_the_file_is_forced_to_the_disk(log):
    assert log.durability() == "journal_mode=wal synchronous=2"


def test_what_a_node_said_last_is_kept_and_an_old_word_that_comes_again_does_not_replace_it(log, clock):
    first, second = _event(1, what="releases"), _event(2, what="releases")
    other = _event(1, node="edge-2", what="releases")
    for event in (first, second, other, first):
        log.record(event, last=True)
    log.record(_event(3))
    assert log.last("releases") == [(NOW, second), (NOW, other)]
    clock.time += (KEEP_DAYS + 1) * DAY_S
    log.prune(clock.time)
    assert log.last("releases") == [(NOW, second), (NOW, other)], "its day does not end"
    assert log.last("trained") == []


def test_of_what_names_a_project_the_last_word_on_each_is_kept_the_newest(log, clock):
    def said(seq, project):
        return msgspec.structs.replace(_event(seq, what="watched"), fields={"project": project})

    words = [said(1, "pumps"), said(2, "presses"), said(3, "pumps")]
    for event in words:
        log.record(event, last=True)
    assert sorted(event.seq for _, event in log.last("watched")) == [2, 3]
    for seq in range(4, 4 + MOST_LAST):
        clock.time += 1
        log.record(said(seq, f"p{seq}"), last=True)
    assert sorted(event.seq for _, event in log.last("watched")) == list(range(4, 4 + MOST_LAST))
    assert log.last("watch") == []
