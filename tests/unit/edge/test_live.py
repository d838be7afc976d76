"""Live inference: each whole window once, in the source's time, never looking forward, the same bits as offline."""

from __future__ import annotations

import asyncio
import itertools
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from reuna.adapters.answer_store import LIVE, SHADOW, AnswerStore
from reuna.adapters.clock import SystemClock
from reuna.adapters.local_store import LocalStore
from reuna.adapters.sandbox import SandboxLimits
from reuna.adapters.worker import Desk
from reuna.adapters.worker.live import Standing
from reuna.adapters.worker.messages import Answer, Answers, Ask, Predict, Stand
from reuna.adapters.worker.predict import predict as predict_files
from reuna.core.contract import Contract, Signal, contract
from reuna.core.errors import DiskFull, NotLive
from reuna.core.fallback import Fallback, decide
from reuna.core.grid import Rows
from reuna.core.opcua_settings import Node, OpcUaSettings, OpcUaTag
from reuna.core.outcomes import Outcome
from reuna.core.project import TASKS
from reuna.core.source_settings import SourceSettings, StoreSettings, TagSettings
from reuna.core.sources import BAD, GOOD, NS, Batch, Tag, column
from reuna.edge import live
from reuna.edge.live import Live, LiveSettings, shape_of, wired
from reuna.exchange.predict import Held, Predictor, held_of, read_release
from reuna.exchange.predict import held as held_from
from reuna.wire.release import About
from tests.pumps import RULES, Pumps, Row, make, rows_of, write

START = 1_800_000_000  #: when these days begin, seconds since the epoch


class Day:
    """A clock that is set by hand, for both kinds of time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return START + self.seconds

    def ticks(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Echo:
    """A release of one signal, ``a``, whose answer is the sum of a window, and which notes what it was asked."""

    def __init__(self, rules: Fallback = Fallback(safe=-1.0), version: int = 1, **more: Any) -> None:
        signals = more.pop("signals", (Signal("a", unit="bar"),))
        agreed = Contract(every_s=more.pop("every_s", 1.0), signals=signals)
        about = About("p", version, "r", "0" * 64)
        look = rules.look_back(each.name for each in signals)
        self.held = Held("d", about, {}, agreed, rules, more.pop("length", 3), more.pop("step", 1), look)
        self.asked: list[Rows] = []
        self.columns: tuple[str, ...] | None = None

    async def answer(self, rows: Rows) -> list[Outcome]:
        self.asked.append(rows)
        return [
            msgspec.structs.replace(
                each, state="answered", answer=float(np.nansum(self.part(rows, number))), why=""
            )
            for number, each in enumerate(self.safe_for(rows, ""))
        ]

    def part(self, rows: Rows, number: int) -> Any:
        start = rows.before + number * self.held.step
        return rows.cells["a"].values[start : start + self.held.length]

    def safe_for(self, rows: Rows, why: str, failed: bool = False) -> list[Outcome]:
        return Predictor.safe_for(self, rows, why, failed)  # type: ignore[arg-type]

    _windows = Predictor._windows
    _made = Predictor._made


class Plant:
    """A store into which readings come, and what answers them."""

    def __init__(
        self, folder: Path, tags: Sequence[TagSettings] = (TagSettings("a", "a", "bar"),), speed: float = 1.0
    ) -> None:
        self.folder = folder
        self.day = Day()
        self.source = SourceSettings(
            "press", "replay" if speed != 1 else "files", "", "t", tuple(tags), speed=speed
        )
        self.store = LocalStore(StoreSettings(str(folder / "store"), 30.0, 64), lambda: 1 << 40)
        self.told: list[tuple[Outcome, Outcome | None]] = []
        self.begin()

    def begin(self, **more: float) -> None:
        """As a new agent would."""
        self.answers = AnswerStore(self.folder / "answers", 30.0, 16, lambda: 1 << 40)
        limits = LiveSettings(**{"lateness_s": 0.5, "silent_s": 5.0, **more})
        note = lambda *pair: self.told.append(pair)  # noqa: E731 - one expression
        self.live = Live(
            self.folder / "store", [self.source], self.answers, limits, self.day, note, self.day.ticks
        )

    def end(self) -> None:
        self.answers.close()

    def read(
        self,
        seconds: Sequence[float],
        values: Sequence[float],
        tag: str = "a",
        quality: int = GOOD,
        late: bool = False,
    ) -> None:
        """Readings at these times of the day."""
        times = [START * NS + round(each * NS) for each in seconds]
        batch = Batch({tag: column(times, values, [quality] * len(times))}, 0, historical=late)
        tags = [Tag(each.name, each.unit) for each in self.source.tags]
        self.store.append("press", tags, batch, START * NS)

    def give(self, second: float, values: Mapping[str, float], bad: Collection[str] = ()) -> None:
        """One reading of some tags."""
        at = START * NS + round(second * NS)
        found = {
            name: column([at], [value], [BAD if name in bad else GOOD]) for name, value in values.items()
        }
        tags = [Tag(each.name, each.unit) for each in self.source.tags]
        self.store.append("press", tags, Batch(found, 0), START * NS)

    async def until(self, seconds: float) -> None:
        """Let live inference go on until that time."""
        while True:
            wait = await self.live.turn()
            if wait and self.day.seconds + wait > seconds:
                break
            self.day.seconds += wait
        self.day.seconds = seconds

    @property
    def answered(self) -> list[tuple[float, float | None, str]]:
        """First second of each window, answer and state."""
        return [((each.first_ns - START * NS) / NS, each.answer, each.state) for each, _ in self.told]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.end()
    made.store.close()


async def fed(plant: Plant, seconds: range, *gone: int) -> None:
    """One reading a second, each as it happens: its value is the second."""
    for second in seconds:
        if second not in gone:
            plant.read([second], [second])
        await plant.until(second + 0.99)


async def test_each_whole_window_is_answered_once_when_it_is_over_by_its_lateness(plant: Plant) -> None:
    await plant.live.use(Echo())  # type: ignore[arg-type]
    plant.read([0, 1, 2], [1, 2, 4])
    plant.day.seconds = 2.0
    await plant.until(2.7)
    assert plant.answered == [], "row 2 is over at 2.25 s, and half a second is left for what comes late"
    await plant.until(2.8)
    assert plant.answered == [(0, 7, "answered")]
    plant.read([3], [8])
    await plant.until(3.5)
    assert plant.answered == [(0, 7, "answered")]
    await plant.until(3.9)
    assert plant.answered == [(0, 7, "answered"), (1, 14, "answered")]


async def test_what_comes_late_changes_nothing_that_was_answered(plant: Plant) -> None:
    await plant.live.use(Echo())  # type: ignore[arg-type]
    await fed(plant, range(6), 3)
    before = list(plant.answered)
    plant.read([3], [100], late=True)
    plant.read([2], [100])
    await plant.until(5.99)
    assert plant.answered == before
    await fed(plant, range(6, 9))
    assert plant.answered[: len(before)] == before
    assert [first for first, _, _ in plant.answered] == [0, 1, 2, 3, 4, 5, 6][: len(plant.answered)]


async def test_a_row_never_has_a_reading_of_later(plant: Plant) -> None:
    release = Echo(length=1)
    await plant.live.use(release)  # type: ignore[arg-type]
    plant.read([0, 0.2], [1, 2])
    await plant.until(1.0)
    plant.read([1.0, 1.2, 1.26, 2.0], [3, 4, 5, 6])
    await plant.until(4.0)
    assert [answer for _, answer, _ in plant.answered[:3]] == [2, 4, 6], (
        "1.26 s is for row 2, and 2.0 s is later"
    )


async def test_after_a_restart_it_goes_on_with_the_next_window(plant: Plant) -> None:
    await plant.live.use(Echo())  # type: ignore[arg-type]
    await fed(plant, range(5))
    told = len(plant.told)
    assert told
    plant.end()
    plant.begin()
    await plant.live.use(Echo(version=2))  # type: ignore[arg-type]
    await fed(plant, range(5, 10))
    firsts = [first for first, _, _ in plant.answered]
    assert firsts == list(range(len(firsts)))
    assert [each.version for each, _ in plant.told] == [1] * told + [2] * (len(firsts) - told)
    kept = plant.answers.stored.newest(100)
    assert [each.outcome for each in kept] == [each for each, _ in plant.told]


async def test_a_release_with_other_windows_begins_behind_what_was_answered(plant: Plant) -> None:
    await plant.live.use(Echo(length=3, step=3))  # type: ignore[arg-type]
    await fed(plant, range(7))
    assert [first for first, _, _ in plant.answered] == [0, 3]
    await plant.live.use(Echo(length=2, step=2, every_s=2.0))  # type: ignore[arg-type]
    await fed(plant, range(7, 16))
    assert [first for first, _, _ in plant.answered] == [0, 3, 6, 10]


async def test_windows_without_any_reading_are_passed_over_and_counted(plant: Plant, caplog: Any) -> None:
    await plant.live.use(Echo(Fallback()))  # type: ignore[arg-type]
    await fed(plant, range(5))
    plant.day.seconds = 3000.0
    with caplog.at_level(logging.WARNING):
        await fed(plant, range(3000, 3004))
    firsts = [first for first, _, _ in plant.answered]
    assert firsts[:5] == [0, 1, 2, 3, 4]
    assert firsts[5] == 2998, "the first that has the reading of 3000 s"
    mark = plant.answers.stored.mark("p")
    assert mark is not None
    assert mark.passed == 2998 - 5
    assert "2993 windows" in caplog.text


async def test_a_source_that_stands_still_gets_the_safe_answer_after_a_while(plant: Plant) -> None:
    await plant.live.use(Echo())  # type: ignore[arg-type]
    await fed(plant, range(5))
    await plant.until(9.0)
    assert plant.answered[-1][0] == 4, "the last with a reading"
    await plant.until(14.0)
    still = [(first, answer) for first, answer, state in plant.answered if state == "safe"]
    assert still
    assert still == [(5 + number, -1) for number in range(len(still))]
    assert plant.told[-1][0].why.startswith("no reading for ")
    await fed(plant, range(14, 18))
    firsts = [first for first, _, _ in plant.answered]
    assert len(set(firsts)) == len(firsts), "once each"


async def test_without_a_safe_answer_a_source_that_stands_still_gets_none(plant: Plant) -> None:
    await plant.live.use(Echo(Fallback()))  # type: ignore[arg-type]
    await fed(plant, range(5))
    await plant.until(60.0)
    assert len(plant.answered) == 5


async def test_a_replay_that_runs_faster_has_its_rows_closer_together(tmp_path: Path) -> None:
    plant = Plant(tmp_path, speed=100.0)
    release = Echo(every_s=180.0)
    await plant.live.use(release)  # type: ignore[arg-type]
    plant.read([0, 1.8, 3.6, 5.4], [1, 2, 4, 8])
    plant.day.seconds = 5.4
    await plant.until(6.5)
    assert [answer for _, answer, _ in plant.answered] == [7, 14]
    plant.end()
    plant.store.close()


async def test_readings_are_brought_to_the_contract_s_unit(tmp_path: Path) -> None:
    plant = Plant(tmp_path, [TagSettings("a", "a", "kPa")])
    await plant.live.use(Echo())  # type: ignore[arg-type]
    plant.read([0, 1, 2], [100, 200, 300])
    plant.day.seconds = 2.0
    await plant.until(3.0)
    assert plant.answered[0][1] == pytest.approx(6.0)
    plant.end()
    plant.store.close()


async def test_the_shadow_sees_the_same_rows_and_its_answers_are_kept_beside(plant: Plant) -> None:
    shadow = Echo(version=2)
    await plant.live.use(Echo(), shadow)  # type: ignore[arg-type]
    await fed(plant, range(5))
    assert all(other is not None and other.agrees(each) for each, other in plant.told)
    roles = [(each.role, each.outcome.version) for each in plant.answers.stored.newest(100)]
    assert set(roles) == {(LIVE, 1), (SHADOW, 2)}
    await plant.live.use(Echo(), Echo(version=3, length=2))  # type: ignore[arg-type]
    await fed(plant, range(5, 8))
    assert plant.told[-1][1] is None, "of other windows nothing can be compared"


async def test_a_release_that_is_muted_is_counted_and_watched_as_before_and_the_safe_answer_is_given(
    plant: Plant,
) -> None:
    await plant.live.use(Echo())  # type: ignore[arg-type]
    plant.live.mute(True)
    await fed(plant, range(5))
    given = [each.outcome for each in plant.answers.stored.newest(100)]
    assert given
    assert {(each.state, each.answer, each.why) for each in given} == {("safe", -1.0, live.MUTED)}
    assert {each.state for each, _ in plant.told} == {"answered"}


async def test_so_many_windows_are_asked_for_at_once_as_fit_a_message(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Echo()
    await plant.live.use(release)  # type: ignore[arg-type]
    await fed(plant, range(5))
    plant.read(range(5, 105), [1.0] * 100)
    plant.day.seconds = 105.0
    await plant.until(106.0)
    assert max(rows.count for rows in release.asked) == 64 - 1 + 3
    monkeypatch.setattr(live, "MOST_CELLS", 10)
    await plant.live.use(release)  # type: ignore[arg-type]
    release.asked.clear()
    plant.read(range(105, 205), [1.0] * 100)
    plant.day.seconds = 205.0
    await plant.until(206.0)
    assert max(rows.count for rows in release.asked) == 10
    firsts = [first for first, _, _ in plant.answered]
    assert firsts == list(range(len(firsts)))


async def test_a_full_disk_holds_answers_back_and_loses_none(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await plant.live.use(Echo())  # type: ignore[arg-type]
    true, refused = plant.answers.keep, [1, 2, 3]

    def keep(*said: Any) -> None:
        if said[2] and refused:
            refused.pop()
            raise DiskFull("no space left")
        true(*said)

    monkeypatch.setattr(plant.answers, "keep", keep)
    await fed(plant, range(8))
    firsts = [first for first, _, _ in plant.answered]
    assert refused == []
    assert firsts == list(range(len(firsts)))
    assert len(firsts) >= 5


async def test_a_reading_of_next_year_does_not_stop_today(plant: Plant) -> None:
    await plant.live.use(Echo())  # type: ignore[arg-type]
    plant.read([400 * 86_400], [1])
    await fed(plant, range(6))
    assert [first for first, _, _ in plant.answered] == [0, 1, 2, 3]


def test_rows_of_a_simulated_machine_behind_opc_ua_are_so_much_closer_together() -> None:
    held = Echo().held
    tag = OpcUaTag("a", Node("urn:press", "s", "A"), "bar")
    life, fast = (
        wired(held, [OpcUaSettings("press", "opc.tcp://plc:4840", (tag,), speed=speed)])
        for speed in (1.0, 50.0)
    )
    assert shape_of(held, life).every_ns == 50 * shape_of(held, fast).every_ns


def test_what_cannot_be_wired_is_said() -> None:
    held = Echo().held

    def source(name: str, unit: str = "bar", tag: str = "a", speed: float = 1.0) -> SourceSettings:
        return SourceSettings(name, "files", "", "t", (TagSettings(tag, tag, unit),), speed=speed)

    with pytest.raises(NotLive, match="two sources have a tag 'a'"):
        wired(held, [source("x"), source("y")])
    with pytest.raises(NotLive, match="'a' is in degC, p 1 reads bar"):
        wired(held, [source("x", "degC")])
    with pytest.raises(NotLive, match="no source has a tag that is a signal of p 1: a"):
        wired(held, [source("x", tag="b")])
    both = Echo(signals=(Signal("a"), Signal("b"))).held
    with pytest.raises(NotLive, match="different speeds"):
        wired(both, [source("x"), source("y", tag="b", speed=2.0)])
    assert wired(both, [source("x")]).silent == ("b",)


# --- the same bits as offline --------------------------------------------------------------------


def linked(folder: Path, pumps: Pumps) -> None:
    """The node's own tables there."""
    for split in ("train", "validation"):
        (folder / split).symlink_to(pumps.node / split)


class InPlace:
    """A worker that is no process."""

    alive = True
    pid = 0

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    async def ask(self, request: Ask) -> Answer:
        return self._standing.answer(request)

    async def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def pumps(tmp_path_factory: pytest.TempPathFactory) -> Pumps:
    pytest.importorskip("onnxruntime")
    return make(tmp_path_factory.mktemp("live") / "pumps", TASKS[0], RULES)


@pytest.fixture(scope="module")
def held(pumps: Pumps, tmp_path_factory: pytest.TempPathFactory) -> Held:
    return held_of(read_release(pumps.release(tmp_path_factory.mktemp("release") / "1.release")))


@pytest.fixture(scope="module")
def standing(pumps: Pumps, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    folder = tmp_path_factory.mktemp("node")
    linked(folder, pumps)
    (folder / "test").mkdir()
    (folder / "test" / "live.csv").touch()
    (folder / "graph").write_bytes(pumps.graph)
    request = Stand(str(pumps.settings["entry"]), str(folder / "graph"), dict(pumps.settings))
    return Standing(pumps.folder, folder, request)


EVERY_S = 10.0
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)  # to shrink a failure takes minutes
SIGNALS = ("current_a", "flow_m3_h", "temperature_c", "vibration_mm_s")
Hole = tuple[int, int]  #: row, and signal


@given(
    holes=st.sets(st.tuples(st.integers(0, 44), st.integers(0, 3)), max_size=12),
    bad=st.sets(st.tuples(st.integers(0, 44), st.integers(0, 3)), max_size=4),
    pieces=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    ends=st.sets(st.integers(0, 44), max_size=3),
    jitter=st.floats(-0.7, 0.2),
)
@settings(
    max_examples=10, deadline=None, phases=QUICK, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_recording_that_is_read_live_is_answered_as_if_it_were_a_file(
    pumps: Pumps,
    held: Held,
    standing: Standing,
    holes: set[Hole],
    bad: set[Hole],
    pieces: list[int],
    ends: set[int],
    jitter: float,
) -> None:
    rows = rows_of(pumps.recording)[:45]
    gone = {(row, SIGNALS[place]) for row, place in (holes | bad) if row}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "offline"
        write(file / "test" / "a.csv", [_without(row, n, gone) for n, row in enumerate(rows)])
        linked(file, pumps)
        expected = _offline(pumps, held, file)
        broken = {(row, SIGNALS[place]) for row, place in bad}
        found = asyncio.run(_online(Path(folder), held, standing, rows, gone, broken, pieces, ends, jitter))
    assert found == expected


def _without(row: Row, number: int, gone: set[tuple[int, str]]) -> Row:
    return {name: "" if (number, name) in gone else cell for name, cell in row.items()}


def _offline(pumps: Pumps, held: Held, folder: Path) -> list[tuple[object, ...]]:
    (folder / "graph").write_bytes(pumps.graph)
    request = Predict(
        str(pumps.settings["entry"]), str(folder / "graph"), str(folder / "out"), dict(pumps.settings)
    )
    predict_files(pumps.folder, folder, request)
    found: list[tuple[object, ...]] = []
    for each in msgspec.msgpack.decode((folder / "out").read_bytes(), type=Answers).windows:
        refused = each.window.why if each.window.state == "refused" else ""
        decided = decide(held.rules, each.output, refused)
        state = "safe" if decided.why else "mended" if each.window.state == "mended" else "answered"
        found.append((each.start, state, decided.answer, tuple(each.output), decided.why or each.window.why))
    return found


async def _online(
    folder: Path,
    held: Held,
    standing: Standing,
    rows: list[Row],
    gone: set[tuple[int, str]],
    broken: set[tuple[int, str]],
    pieces: list[int],
    ends: set[int],
    jitter: float,
) -> list[tuple[object, ...]]:
    """Readings come in pieces of some minutes, a little early or late; the agent ends now and then."""
    plant = Plant(folder, [TagSettings(name, name) for name in SIGNALS])
    begin = 3600.0
    sizes, number = itertools.cycle(pieces), 0
    await plant.live.use(_in_place(held, standing))
    while number < len(rows):
        size = next(sizes) if number else min(next(sizes), held.length)  # it begins a window back at most
        for at in range(number, min(number + size, len(rows))):
            second = begin + EVERY_S * (at + jitter * (at % 2))
            there = {name: float(rows[at][name]) for name in SIGNALS if (at, name) not in gone}
            odd = dict.fromkeys([name for name in SIGNALS if (at, name) in broken & gone], float("nan"))
            plant.give(second, {**there, **odd}, odd)
            plant.day.seconds = max(plant.day.seconds, second)
        if ends & set(range(number, number + size)):
            plant.end()
            plant.begin(silent_s=1e6)
            await plant.live.use(_in_place(held, standing))
        number += size
        await plant.until(plant.day.seconds + 6.0 if number >= len(rows) else plant.day.seconds + 0.01)
    plant.end()
    plant.store.close()
    return [
        (
            round((each.first_ns / NS - START - begin) / EVERY_S),
            each.state,
            each.answer,
            each.output,
            each.why,
        )
        for each, _ in plant.told
    ]


def _in_place(held: Held, standing: Standing) -> Predictor:
    nowhere = Desk(Path(), Path(), Path(), Path())
    made = Predictor(held, nowhere, Path(), SandboxLimits(), 0, SystemClock())
    made._worker = InPlace(standing)  # type: ignore[assignment]
    return made


def test_bad_quality_is_what_a_column_of_quality_says_in_a_file(pumps: Pumps, tmp_path: Path) -> None:
    def graded(row: Row, status: str = "192") -> Row:
        return {**row, "status": status}

    agreed = contract(pumps.settings)
    marked = tuple(
        msgspec.structs.replace(each, quality="status", good=(192.0,))
        if each.name == "temperature_c"
        else each
        for each in agreed.signals
    )
    text = msgspec.json.encode(msgspec.structs.replace(agreed, signals=marked)).decode()
    graded_pumps = Pumps(pumps.folder, {**pumps.settings, "contract": text}, pumps.graph)
    for split in ("train", "validation"):
        for path in (pumps.node / split).iterdir():
            write(tmp_path / split / path.name, [graded(row) for row in rows_of(path)])
    recording = rows_of(pumps.recording)[:24]
    write(
        tmp_path / "test" / "a.csv",
        [graded(row, "0" if n == 15 else "192") for n, row in enumerate(recording)],
    )
    known = held_from("", About("pumps", 1, "r", "0" * 64), dict(graded_pumps.settings))
    expected = _offline(graded_pumps, known, tmp_path)
    (tmp_path / "test" / "a.csv").rename(tmp_path / "test" / "live.csv")
    request = Stand(str(pumps.settings["entry"]), str(tmp_path / "graph"), dict(graded_pumps.settings))
    live_now = Standing(pumps.folder, tmp_path, request)
    values = {name: np.array([float(row[name]) for row in recording]) for name in SIGNALS}
    good = {name: np.ones(24, bool) for name in SIGNALS}
    good["temperature_c"][15] = False
    cells = {name: (values[name].tobytes(), good[name].tobytes()) for name in SIGNALS}
    found = live_now.answer(Ask(START * NS, 24, 0, cells)).windows
    assert [each.window.why for each in found] == [why for *_, why in expected]
    assert [tuple(each.output) for each in found] == [output for *_, output, _ in expected]
    assert "temperature_c: bad quality" in [each.window.why for each in found]
