"""An edge sends its answers on: in order, after restarts too, and what waits stays the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from reuna.adapters.answer_store import LIVE, SHADOW, AnswerStore, Kept
from reuna.adapters.clock import ThreadOffload
from reuna.core.errors import DiskFull, ReunaError, Unreachable
from reuna.core.live import Mark
from reuna.core.notices import Found, KeptNotice, Notice
from reuna.core.outcomes import Outcome
from reuna.core.sink_settings import FileTarget, SinkSettings
from reuna.core.sinks import TOGETHER, Chosen, Progress
from reuna.core.sources import NS
from reuna.edge.notices import Notices
from reuna.edge.sinks import REFUSED, Answers, OwnAlarms, Sending, progress_file


class Clock:
    """Moves when somebody waits; tells how long."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


class Egress:
    """Takes deliveries, or is told what to raise."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[int]]] = []
        self.warned: list[tuple[int, list[str]]] = []
        self.error: ReunaError | None = None
        self.takes = True

    async def deliver(self, sink: str, number: int, outcomes: Sequence[Outcome]) -> bool:
        assert sink == "archive"
        self.calls.append((number, [each.first_ns for each in outcomes]))
        if self.error is not None:
            raise self.error
        return self.takes

    async def warn(self, sink: str, number: int, notices: Sequence[Notice]) -> bool:
        assert sink == "archive"
        self.warned.append((number, [each.state for each in notices]))
        if self.error is not None:
            raise self.error
        return self.takes


class Node:
    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.egress = folder, Clock(), Egress()
        self.store = AnswerStore(folder / "answers", 30, 16, lambda: 1 << 40)
        self.count = 0
        self.sending = self.started()

    def started(self, **chosen: object) -> Sending[Kept, Outcome]:
        settings = SinkSettings("archive", "file", FileTarget("/a"), Chosen(**chosen), 5.0)  # type: ignore[arg-type]
        answers = Answers(self.folder / "answers", self.egress)
        return Sending(settings, self.folder, answers, self.clock, ThreadOffload())

    def answer(self, count: int = 1, role: str = LIVE) -> None:
        for _ in range(count):
            self.count += 1
            said = Outcome("p", 1, "d" * 64, self.count, self.count + 2, "answered", 1.0, (0.25, 0.75))
            self.store.keep("p", Mark(0, NS, 3, 1), [(role, said)], int(self.clock.time * NS))

    @property
    def progress(self) -> Progress | None:
        return progress_file(self.folder, "archive").read()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_new_answers_go_out_together_and_once(node: Node) -> None:
    node.answer()
    await node.sending.turn()
    assert node.egress.calls == [], "a new sink begins with the next answer"
    node.answer(2)
    node.answer(role=SHADOW)
    await node.sending.turn()
    await node.sending.turn()
    assert node.egress.calls == [(2, [2, 3])]
    assert node.progress == Progress(4, sent=2, said={"p": ("answered", 1.0)})


async def test_after_a_restart_it_goes_on_where_it_was(node: Node) -> None:
    await node.sending.turn()
    node.answer(2)
    await node.sending.turn()
    node.answer()
    await node.started().turn()
    assert node.egress.calls == [(1, [1, 2]), (3, [3])]


async def test_what_did_not_arrive_goes_out_again_and_the_same_whatever_came_since(node: Node) -> None:
    await node.sending.turn()
    node.answer(2)
    node.egress.error = Unreachable("away")
    for _ in range(2):
        with pytest.raises(Unreachable):
            await node.sending.turn()
        node.answer()
    node.egress.error = None
    await node.sending.turn()
    await node.sending.turn()
    assert node.egress.calls == [(1, [1, 2])] * 3 + [(3, [3, 4])]
    assert node.progress is not None
    assert node.progress.sent == 4


async def test_what_waits_too_long_is_dropped_while_it_waits(node: Node) -> None:
    sending = node.started(keep_s=60.0)
    await sending.turn()
    node.answer()
    node.egress.error = Unreachable("away")
    with pytest.raises(Unreachable):
        await sending.turn()
    node.clock.time += 61
    await sending.turn()
    assert len(node.egress.calls) == 1
    assert node.progress is not None
    assert (node.progress.dropped, node.progress.sent) == (1, 0)


async def test_what_is_refused_for_good_is_counted_and_the_next_ones_go_on(node: Node) -> None:
    await node.sending.turn()
    node.egress.takes = False
    node.answer()
    await node.sending.turn()
    assert node.progress is not None
    assert (node.progress.refused, node.progress.why) == (1, REFUSED)
    node.egress.takes = True
    node.answer()
    await node.sending.turn()
    assert node.progress == Progress(2, sent=1, refused=1, said={"p": ("answered", 1.0)})


async def test_many_answers_go_out_in_pieces_without_a_pause(node: Node) -> None:
    await node.sending.turn()
    node.answer(TOGETHER + 1)
    assert await node.sending.turn()
    assert not await node.sending.turn()
    assert [len(sent) for _, sent in node.egress.calls] == [TOGETHER, 1]


async def test_without_any_answer_yet_it_waits(tmp_path: Path) -> None:
    node = Node(tmp_path)
    settings = SinkSettings("archive", "file", FileTarget("/a"), Chosen(), 5.0)
    answers = Answers(tmp_path / "none", node.egress)
    nowhere = Sending(settings, tmp_path, answers, node.clock, ThreadOffload())
    assert not await nowhere.turn()


async def test_a_sink_that_is_away_is_tried_with_growing_pauses_and_said_once(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    await node.sending.turn()
    node.answer()
    node.egress.error = Unreachable("away")
    running = asyncio.create_task(node.sending.run())
    while len(node.egress.calls) < 5:
        await asyncio.sleep(0)
    assert node.progress is not None
    assert node.progress.why == "R304 away"
    node.egress.error = DiskFull("no space")
    while len(node.egress.calls) < 8:
        await asyncio.sleep(0)
    node.egress.error = None
    while node.progress.sent < 1:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert node.clock.slept[:4] == [1.0, 2.0, 4.0, 8.0]
    assert caplog.text.count("away") == 1
    assert node.progress.why == ""


DRIFT = Found("inputs", "p", "d" * 64, alarm=True, signals=("oil",), rows=600)
QUIET = Found("inputs", "p", "d" * 64, alarm=False)


class Watching:
    """A node's own alarms, and a sink that is told them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.egress = folder, Clock(), Egress()
        self.notices = Notices(folder, self.clock, ThreadOffload())
        self.sending = self.started()

    def started(self, **chosen: object) -> Sending[KeptNotice, Notice]:
        settings = SinkSettings("archive", "file", FileTarget("/a"), Chosen("alarms", **chosen), 5.0)  # type: ignore[arg-type]
        alarms = OwnAlarms(self.folder, self.egress)
        return Sending(settings, self.folder, alarms, self.clock, ThreadOffload())

    @property
    def progress(self) -> Progress | None:
        return progress_file(self.folder, "archive").read()


async def test_a_nodes_own_alarms_go_out_in_order_and_once_and_after_a_restart(tmp_path: Path) -> None:
    node = Watching(tmp_path)
    await node.sending.turn()
    await node.notices.found(DRIFT)
    await node.notices.found(DRIFT)
    node.egress.error = Unreachable("away")
    with pytest.raises(Unreachable):
        await node.sending.turn()
    node.egress.error = None
    await node.notices.found(QUIET)
    await node.sending.turn()
    await node.started().turn()
    await node.started().turn()
    assert node.egress.warned == [(1, ["raised"]), (1, ["raised"]), (2, ["ended"])]
    assert node.progress == Progress(2, sent=2)


async def test_alarms_of_another_project_and_those_that_waited_too_long_do_not_go_out(tmp_path: Path) -> None:
    node = Watching(tmp_path)
    other, short = node.started(project="other"), node.started(keep_s=60.0)
    await other.turn()
    await node.notices.found(DRIFT)
    await other.turn()
    assert node.progress == Progress(1)
    await node.notices.found(QUIET)
    node.clock.time += 61
    await short.turn()
    assert node.egress.warned == []
    assert node.progress == Progress(2, dropped=1)


async def test_alarms_that_go_on_are_known_after_a_restart_and_not_raised_again(tmp_path: Path) -> None:
    node = Watching(tmp_path)
    await node.sending.turn()
    await node.notices.found(DRIFT)
    again = Notices(tmp_path, node.clock, ThreadOffload())
    await again.found(DRIFT)
    await again.begun_anew("p")
    await node.sending.turn()
    assert node.egress.warned == [(1, ["raised", "ended"])]
