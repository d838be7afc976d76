"""A node watches what feeds its model: it says what moved, goes on after a restart, and tells no row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from reuna.adapters.tables import Table
from reuna.core.conformity import Columns
from reuna.core.contract import Contract, Signal, Windows
from reuna.core.fallback import Fallback
from reuna.core.grid import Cells, Rows
from reuna.core.labels import Errors, Judging, Rising
from reuna.core.monitoring import Monitoring, as_settings
from reuna.core.notices import Notice
from reuna.core.outcomes import Outcome, State
from reuna.core.records import Event
from reuna.core.watched import WHAT, Watched, is_watched, read_fields
from reuna.edge.monitor import GATHERED, Monitor, ProjectWatch, watch_file
from reuna.edge.notices import Notices, notices_file
from reuna.exchange.predict import Held
from reuna.wire.release import About

AGREED = Contract(
    every_s=1.0,
    signals=(Signal("flow", min=0, max=10), Signal("heat", min=0, max=10)),
    windows=Windows(rows=30, step=3),
)
RULE = Monitoring(block_s=30, quiet_days=0.05)  # 144 blocks


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


def readings(seed: int, rows: int, flow: float = 5.0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {"flow": rng.normal(flow, 1, rows), "heat": rng.normal(5, 1, rows)}


def trained(blocks: int = 80) -> list[Table]:
    return [Table(Path("train.csv"), readings(1, 30 * blocks))]


def columns(values: dict[str, np.ndarray[Any, Any]]) -> Columns:
    return Columns(len(values["flow"]), values)


class Node:
    """A node's monitor, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[Event] = []
        self.lets = True
        self.start()

    def start(self) -> None:
        self.watch = ProjectWatch("pumps", self.folder, Notices(self.folder, self, at_once), at_once)
        self.monitor = Monitor("edge-1", "b", self.folder, self.folder / "data", self.emit, self, at_once)
        self.monitor.projects["pumps"] = self.watch

    def now(self) -> float:
        return 7.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a monitor does not wait")

    async def emit(self, event: Event) -> bool:
        self.told.append(event)
        return self.lets

    async def open(self, tables: list[Table] | None = None, release: str = "r1") -> None:
        await self.watch.open(release, AGREED, RULE, trained() if tables is None else tables)

    async def see(self, seed: int, blocks: int, flow: float = 5.0) -> Watched:
        values = readings(seed, 30 * blocks, flow)
        for at in range(0, 30 * blocks, 20):  # as windows come: not in whole blocks
            await self.watch.rows(columns({name: one[at : at + 20] for name, one in values.items()}))
        return self.watch.watched()


def notices(node: Node) -> list[Notice]:
    book = notices_file(node.folder).read()
    return [each.notice for each in book.kept] if book else []


@pytest.fixture
async def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    await made.open()
    return made


async def test_while_nothing_moves_nothing_is_said_to_have_moved(node: Node) -> None:
    said = await node.see(2, 60)
    assert (said.rows, said.blocks, said.reference, said.alarm, said.moved) == (30, 60, 80, False, {})
    assert said.level < 1


async def test_a_signal_that_moved_raises_the_alarm_and_is_named(node: Node) -> None:
    said = await node.see(3, 30, flow=7.0)
    assert said.alarm
    assert said.level >= 1
    assert list(said.moved) == ["flow"]
    assert said.moved["flow"] > 1.5


async def test_that_alarm_is_noticed_at_the_node_itself_once_and_ends(node: Node) -> None:
    await node.see(3, 30, flow=7.0)
    node.start()
    await node.open()
    await node.see(4, 2, flow=7.0)
    await node.open(release="r2")
    assert [(each.kind, each.state, each.going) for each in notices(node)] == [
        ("inputs", "raised", 1),
        ("inputs", "ended", 0),
    ]
    assert {name for each in notices(node) for name in each.signals} <= {"flow"}
    assert notices(node)[0].rows == 30


async def test_nothing_but_the_safe_answer_for_a_block_is_an_alarm_at_the_node(tmp_path: Path) -> None:
    node = Node(tmp_path)

    safe: list[State] = ["safe"]

    async def say(*states: State) -> list[str]:
        told = [Outcome("pumps", 1, "r1", at, at + 9, each, None) for at, each in enumerate(states)]
        await node.monitor.seen(held(), None, told)
        return [f"{each.kind} {each.state} {each.rows}" for each in notices(node)]

    assert await say(*safe * 9) == [], "nine windows with a step of 3 rows, and a block has 30"
    assert await say("answered", *safe * 8) == []
    assert await say("safe") == []
    assert await say("safe") == ["safe raised 30"]
    assert await say("safe") == ["safe raised 30"]
    assert await say("mended") == ["safe raised 30", "safe ended 30"]


async def test_a_restart_goes_on_where_it_was_and_does_not_read_the_tables_again(node: Node) -> None:
    before = await node.see(3, 30, flow=7.0)
    node.start()
    await node.open(tables=[Table(Path("gone.csv"), {})])
    after = node.watch.watched()
    assert (after.blocks, after.level, after.moved) == (before.blocks, before.level, before.moved)


async def test_with_another_release_all_begins_anew(node: Node) -> None:
    await node.see(3, 30, flow=7.0)
    node.start()
    await node.open(release="r2")
    assert node.watch.watched() == Watched(reference=80, project="pumps")


async def test_a_release_that_is_gone_back_to_is_watched_as_it_was_and_not_against_tables_of_now(
    node: Node,
) -> None:
    """Else an alarm that one release did not cure would be over with the way back from it."""
    before = await node.see(3, 30, flow=7.0)
    moved = [Table(Path("train.csv"), readings(4, 30 * 80, flow=7.0))]
    await node.open(moved, release="r2")
    assert not (await node.see(5, 3, flow=7.0)).alarm
    await node.open(moved, release="r1")
    after = node.watch.watched()
    assert (after.level, after.alarm, after.moved) == (before.level, True, before.moved)
    assert (await node.see(6, 1, flow=7.0)).alarm
    node.start()
    await node.open(moved, release="r1")
    assert node.watch.watched().alarm, "after a restart too"
    await node.open(moved, release="r3")
    await node.open(moved, release="r2")
    assert not node.watch.watched().alarm
    assert node.watch.watched().blocks == 0, "of two releases ago nothing is kept"


@pytest.mark.parametrize("damage", [b"", b"x" * 100, b"\0" * 32 + b"\x81"])
async def test_a_damaged_state_is_said_and_the_watch_begins_anew(
    node: Node, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await node.see(3, 30, flow=7.0)
    watch_file(node.folder, "pumps").path.write_bytes(damage)
    node.start()
    await node.open()
    assert node.watch.watched() == Watched(reference=80, project="pumps")
    assert "is not used" in caplog.text


async def test_without_tables_the_first_blocks_become_the_reference(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.open(tables=[])
    assert (await node.see(2, GATHERED - 1)).reference == 0
    assert (await node.see(4, 1)).reference == GATHERED
    assert (await node.see(5, 40, flow=7.5)).alarm


async def test_answers_are_watched_against_those_of_the_beginning(node: Node) -> None:
    async def answer(blocks: int, fault: float) -> Watched:
        rng = np.random.default_rng(6)
        for _ in range(blocks):
            kinds = (rng.random(10) < fault).astype(float)
            await node.watch.answered(kinds.tolist(), rng.uniform(0.6, 1, 10).tolist(), 0, [2.0] * 10)
        return node.watch.watched()

    assert (await answer(GATHERED + 20, 0.1)).answers_level < 1
    said = await answer(80, 0.95)
    assert said.answers_alarm
    assert (said.windows, said.safe, said.p50_ms, said.p99_ms) == (10 * (GATHERED + 100), 0, 2.0, 2.0)


async def test_what_is_told_has_no_row_and_comes_once_a_block(node: Node) -> None:
    task = asyncio.create_task(node.monitor.tell())
    await node.monitor.seen(held(), rows(2, 29), [])
    await asyncio.sleep(0)
    assert not node.told
    await node.monitor.seen(held(), rows(4, 1), [])
    while not node.told:
        await asyncio.sleep(0)
    task.cancel()
    (event,) = node.told
    assert (event.node, event.boot, event.seq, event.at, event.what) == ("edge-1", f"b/{WHAT}", 0, 7.0, WHAT)
    assert is_watched(event)
    assert read_fields(event.fields).rows == 30


async def test_a_full_disk_costs_the_state_of_a_restart_and_nothing_else(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from reuna.adapters import checked_file
    from reuna.core.errors import DiskFull

    def full(*_: object) -> None:
        raise DiskFull("no space left")

    monkeypatch.setattr(checked_file, "replace_file", full)
    assert (await node.see(3, 30, flow=7.0)).alarm
    assert "not written down" in caplog.text


def held(digest: str = "r1", project: str = "pumps") -> Held:
    return Held(digest, About(project, 1, "run", "0" * 64), as_settings(RULE), AGREED, Fallback(), 30, 3, 0)


def outcome(answer: float | None, *output: float) -> Outcome:
    state: State = "answered" if answer is not None else "safe"
    return Outcome("pumps", 1, "r1", 0, 1, state, answer, output, took_ms=3.0)


def rows(seed: int, count: int, flow: float = 5.0) -> Rows:
    values = readings(seed, count, flow)
    cells = {name: Cells(each, np.ones(count, bool)) for name, each in values.items()}
    return Rows(0, 10**9, count, cells)


async def test_what_a_release_answers_live_is_watched_against_the_nodes_own_tables(tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    flow, heat = readings(1, 30 * 40).values()
    lines = [f"{one},{two}" for one, two in zip(flow, heat, strict=True)]
    (tmp_path / "data" / "train" / "a.csv").write_text("\n".join(["flow,heat", *lines]))
    node = Node(tmp_path)
    for seed in range(30):
        await node.monitor.seen(held(), rows(seed, 30, flow=7.5), [outcome(1.0, 0.2, 0.8), outcome(None)])
    said = node.watch.watched()
    assert (said.reference, said.blocks, said.windows, said.safe, said.p99_ms) == (40, 30, 60, 30, 3.0)
    assert said.alarm
    assert list(said.moved) == ["flow"]
    await node.monitor.seen(held("r2"), None, [outcome(None)])
    assert node.watch.watched().blocks == 0, "another release, another watch"
    await node.monitor.seen(held("r9", "presses"), rows(1, 30), [])
    assert node.watch.watched().blocks == 0, "each project by itself"
    presses = node.monitor.projects["presses"].watched()
    assert (presses.project, presses.blocks, presses.reference) == ("presses", 1, 40)


async def test_a_node_without_tables_is_watched_against_its_beginning(tmp_path: Path) -> None:
    node = Node(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text('flow\n"')
    await node.monitor.seen(held(), rows(1, 30), [outcome(4.25, 4.25)])
    said = node.watch.watched()
    assert (said.reference, said.blocks, said.windows) == (0, 1, 1)


async def test_errors_by_later_labels_are_told_when_they_are_of_the_release_that_answers(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    assert node.monitor.judging("pumps") is None, "no release has answered"
    kept = Errors(labels=7, wrong=2, recent=(0.0, 1.0), level=0.5)
    await node.monitor.judged("pumps", {"r1": kept})
    await node.monitor.seen(held(), None, [])
    judging = node.monitor.judging("pumps")
    assert judging == Judging(Rising(10_000.0), 3 * 10**9), "a window begins every three seconds"
    said = node.watch.watched()
    assert (said.labels, said.wrong, said.error, said.errors_level, said.errors_alarm) == (
        7,
        2,
        0.5,
        0.5,
        False,
    )
    task = asyncio.create_task(node.monitor.tell())
    await node.monitor.judged("pumps", {"r0": kept})
    await asyncio.sleep(0)
    assert not node.told, "nobody asks for the release before"
    await node.monitor.judged("pumps", {"r1": msgspec.structs.replace(kept, alarm=True)})
    while not node.told:
        await asyncio.sleep(0)
    task.cancel()
    assert read_fields(node.told[0].fields).errors_alarm
    assert [(each.kind, each.state, each.rows) for each in notices(node)] == [("errors", "raised", 7)]
    await node.monitor.seen(held("r2"), None, [])
    assert node.watch.watched().labels == 0, "another release, other errors"
