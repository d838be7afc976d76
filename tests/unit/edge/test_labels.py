"""Labels that come later are held against stored answers: once each, in any order, never looking forward."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reuna.adapters.answer_store import LIVE, SHADOW, AnswerStore
from reuna.adapters.label_store import LabelStore, StoredLabels
from reuna.core.errors import DataError, SettingsError
from reuna.core.label_settings import LabelSettings
from reuna.core.labels import Errors, Judging, Rising
from reuna.core.live import Mark
from reuna.core.outcomes import Outcome, State
from reuna.core.sources import NS
from reuna.edge import labels
from reuna.edge.labels import LABELS, Labelling, declared, keep_all, labels_of

JUDGING = Judging(Rising(10_000), step_ns=2 * NS)
ALL = [f"{second},{second % 3 % 2}" for second in range(5, 40)]


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


def outcome(
    begin: int, answer: float | None = 1.0, release: str = "r1", state: State = "answered"
) -> Outcome:
    """A window of four rows, a second apart; one begins every two seconds."""
    output = (0.25, 0.75) if answer is not None else ()
    return Outcome("pumps", 1, release, begin * NS, (begin + 3) * NS, state, answer, output)


class Node:
    """An edge with answers of the first forty seconds, and a folder of labels."""

    def __init__(self, folder: Path, until: int = 40, **how: Any) -> None:
        self.folder, self.lab = folder, folder / "lab"
        self.lab.mkdir(exist_ok=True)
        self.settings = LabelSettings("lab", "pumps", str(self.lab), "t", "fault", **how)
        self.answers = AnswerStore(folder / "answers", 30, 16, lambda: 1 << 40)
        self.answer(range(0, until, 2))
        self.told: dict[str, Errors] = {}
        self.known: Judging | None = JUDGING
        self.start()

    def start(self) -> None:
        self.store = LabelStore(self.folder / LABELS, free=lambda: 1 << 40)
        self.taking = Labelling(self.settings, self.store, self.folder / "answers", self, self, at_once)

    def answer(self, begins: range, role: str = LIVE, **how: Any) -> None:
        said = [(role, outcome(begin, **how)) for begin in begins]
        self.answers.keep("pumps", Mark(0, NS, 4, 2), said, 0)

    def close(self) -> None:
        self.answers.close()
        self.store.close()

    def judging(self, project: str) -> Judging | None:
        assert project == "pumps"
        return self.known

    async def judged(self, project: str, errors: Mapping[str, Errors]) -> None:
        self.told.update(errors)

    def now(self) -> float:
        return 7.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a test looks by itself")

    def write(self, lines: list[str], name: str = "a", header: str = "t,fault") -> None:
        (self.lab / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")

    async def look(self, times: int = 2) -> Errors:
        """A table is read at the second look."""
        for _ in range(times):
            await self.taking.look()
        return self.told.get("r1", Errors())


@pytest.fixture
def node(tmp_path: Path) -> Any:
    made = Node(tmp_path)
    yield made
    made.close()


async def test_a_label_of_a_moment_is_of_the_newest_window_that_was_over_then(node: Node) -> None:
    node.answer(range(40, 42, 2), release="r2")  # ends at 43 s
    node.answer(range(42, 44, 2), release="r3")
    node.write(["42.9,1", "43,0"])
    found = await node.look()
    assert (found.labels, found.wrong) == (1, 0), "the window that ends at 41 s"
    assert (node.told["r2"].labels, node.told["r2"].wrong) == (1, 1)
    assert "r3" not in node.told


async def test_a_label_of_which_no_window_was_over_shortly_before_is_of_no_answer(node: Node) -> None:
    node.write(["2.9,1", "3,1"])
    assert (await node.look()).labels == 1
    (taken,) = node.store.stored.taken()
    assert (taken.taken, taken.stray) == (2, 1)


async def test_how_old_an_answer_may_be_can_be_said(tmp_path: Path) -> None:
    for within, count in ((0.5, 1), (0.0, 2)):
        (tmp_path / str(within)).mkdir()
        node = Node(tmp_path / str(within), within_s=within)
        node.write(["5,1", "6.9,1"])
        assert (await node.look()).labels == count
        node.close()


async def test_times_that_a_table_holds_less_exactly_than_answers_do_are_theirs(tmp_path: Path) -> None:
    node = Node(tmp_path, until=0)
    begin = 1_700_000_000_123_456_789
    for first in (begin, begin + 2 * NS, begin + 4 * NS):
        said = Outcome("pumps", 1, "r1", first, first + 3 * NS, "answered", 1.0, (0.25, 0.75))
        node.answers.keep("pumps", Mark(0, NS, 4, 2), [(LIVE, said)], 0)
    node.write(["2023-11-14T22:13:23.123456,1", "2023-11-14T22:13:22.9,1"])
    assert (await node.look()).labels == 1
    node.settings = LabelSettings("windows", "pumps", str(node.lab), "t", "fault", until="end")
    node.store.close()
    node.start()
    node.write([f"{begin},{begin + 3 * NS},1"], header="t [ns],end [ns],fault")
    assert (await node.look()).labels == 2, "an answer's own window"
    node.close()


async def test_a_label_of_some_time_is_of_every_window_within(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.settings = LabelSettings("lab", "pumps", str(node.lab), "t", "fault", until="end")
    node.store.close()
    node.start()
    node.write(["10,19,0", "20,23,1"], header="t,end,fault")
    found = await node.look()
    assert (found.labels, found.wrong) == (5, 4), "10 to 13, 12 to 15, 14 to 17, 16 to 19; and 20 to 23"
    node.close()


async def test_answers_of_a_shadow_and_safe_ones_are_not_judged(node: Node) -> None:
    node.answer(range(40, 42, 2), role=SHADOW, release="r2")
    node.answer(range(42, 44, 2), answer=None, state="safe")
    node.answer(range(44, 48, 2))
    node.write(["43,0", "45,0"])
    assert (await node.look()).labels == 1, "that at 43 s is of the live window which ends at 41 s"
    assert "r2" not in node.told
    assert node.store.stored.taken()[0].stray == 1, "and that at 45 s of one that was given the safe answer"


async def test_a_label_waits_until_the_windows_have_passed_it(node: Node) -> None:
    node.write(["39,0", "44,0"])
    assert (await node.look()).labels == 1
    node.answer(range(40, 42, 2))
    assert (await node.look()).labels == 1, "a window that ends at 44 s may still come"
    node.answer(range(42, 44, 2))
    assert (await node.look()).labels == 2


async def test_while_very_many_labels_wait_no_further_table_is_read(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(labels, "MOST_WAITING", 3)
    node.write(["5,1", "44,1", "44.1,1", "44.2,1"])
    node.write(["7,1"], "b")
    assert (await node.look(4)).labels == 1
    assert caplog.text.count("3 labels wait for answers") == 1
    node.answer(range(40, 44, 2))
    assert (await node.look()).labels == 5


async def test_before_a_release_has_answered_no_label_is_taken(node: Node) -> None:
    node.known = None
    node.write(["5,1"])
    assert (await node.look()).labels == 0
    node.known = JUDGING
    assert (await node.look()).labels == 1


async def test_a_table_is_read_once_it_is_whole_and_again_when_it_has_grown(node: Node) -> None:
    node.write(["5,1"])
    assert (await node.look(1)).labels == 0
    node.write(["5,1", "7,1"])
    assert (await node.look(1)).labels == 0
    assert (await node.look(1)).labels == 2
    node.write(["5,1", "7,1", "9,0"])
    assert (await node.look()).labels == 3


async def test_an_empty_label_counts_once_it_is_filled_in_and_a_corrected_one_does_not_count_again(
    node: Node,
) -> None:
    node.write(["5,", "7,1"])
    assert (await node.look()).labels == 1
    node.write(["5,0", "7,0"])
    found = await node.look()
    assert (found.labels, found.wrong) == (2, 1)


async def test_what_cannot_be_read_is_said_once_and_the_other_tables_go_on(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.write(["5,1", "7,fine"])
    node.write(["soon,1", "9,1", "13,1"], "b")
    (node.lab / "c.csv").write_bytes(b"t,fault\n\xff,1\n")
    node.write(["5,1"], "d", header="t,other")
    assert (await node.look(4)).labels == 2
    assert caplog.text.count("column 'fault': 'fine' where a number is needed") == 1
    assert caplog.text.count("b.csv: 1 labels have no time that can be read") == 1
    assert caplog.text.count("c.csv is not UTF-8") == 1
    assert caplog.text.count("has no column 'fault'") == 1


async def test_a_folder_that_is_not_there_yet_is_said_and_looked_for(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.lab.rmdir()
    assert (await node.look(3)).labels == 0
    assert caplog.text.count("No such file or directory") == 1
    node.lab.mkdir()
    node.write(["5,1"])
    assert (await node.look()).labels == 1


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(ALL), cuts=st.lists(st.integers(0, len(ALL)), max_size=3), twice=st.booleans())
def test_in_whatever_order_files_and_lives_labels_come_the_same_answers_are_held_against_them(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], cuts: list[int], twice: bool
) -> None:
    async def lived() -> tuple[int, int, int]:
        node = Node(tmp_path_factory.mktemp("node"))
        bounds = [0, *sorted(cuts), len(ALL)]
        for number, (first, last) in enumerate(pairwise(bounds)):
            node.write(order[0 if twice else first : last], str(number))
            found = await node.look()
            node.store.close()
            node.start()
        (taken,) = node.store.stored.taken()
        node.close()
        return found.labels, found.wrong, taken.taken

    assert asyncio.run(lived()) == (35, sum(line.endswith(",0") for line in ALL), 35)


def killed(folder: Path, cut: int) -> int:
    """Take labels in a process that ends within or after its so-manieth transaction; how it ended."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    write, left = LabelStore._write, [cut]

    def counted(store: LabelStore, *words: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            write(store, *words)
            os.kill(os.getpid(), signal.SIGKILL)
        write(store, *words)

    LabelStore._write = counted  # type: ignore[method-assign,assignment]
    labels.TOGETHER = 4
    try:
        node = Node(folder, until=0)
        asyncio.run(node.look())
        node.close()
    finally:
        os._exit(0 if left[0] > 0 else 1)


def test_each_label_counts_once_whenever_the_process_is_killed(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.write(ALL)
    node.close()
    assert [killed(tmp_path, cut) for cut in (1, 2, 4, 99)] == [-signal.SIGKILL] * 3 + [0]
    store = StoredLabels(tmp_path / LABELS)
    (errors,) = store.errors()["pumps"].values()
    assert (errors.labels, errors.wrong) == (35, sum(line.endswith(",0") for line in ALL))
    store.close()


async def test_after_a_start_what_is_kept_is_told_at_once(node: Node) -> None:
    node.write(["5,1"])
    await node.look()
    node.store.close()
    node.told = {}
    keeping = asyncio.create_task(keep_all([], node.folder, node.folder / "answers", node, node, at_once))
    await keeping
    assert node.told["r1"].labels == 1
    node.start()


SOURCES = """
[sources.press]
kind = "files"
folder = "/data"
time = "t"
tags = { oil = {} }
[labels.lab]
project = "pumps"
folder = "/lab"
time = "sampled"
label = "fault"
"""


def test_folders_of_labels_are_declared_beside_the_sources(tmp_path: Path) -> None:
    file = tmp_path / "sources.toml"
    file.write_text(SOURCES + "within_s = 60\n")
    assert declared(str(file)) == (LabelSettings("lab", "pumps", "/lab", "sampled", "fault", within_s=60.0),)
    file.write_text(SOURCES.replace('project = "pumps"\n', ""))
    with pytest.raises(SettingsError, match=r"labels\.lab has no project"):
        declared(str(file))


def test_times_are_those_of_a_source(tmp_path: Path) -> None:
    settings = LabelSettings("lab", "p", "", "t", "y", until="u")
    file = tmp_path / "a.csv"
    file.write_text("t,u [ms],y\n1970-01-01T00:00:01,2000,0.5\n1970-01-01T00:00:03,2000,1\n")
    found, lost = labels_of(file, settings)
    assert [(each.first_ns, each.last_ns, each.value) for each in found] == [(NS, 2 * NS, 0.5)]
    assert lost == 1, "it ends before it begins"
    file.write_text("t,y\n1,1\n")
    with pytest.raises(DataError, match="has no column 'u'"):
        labels_of(file, settings)
