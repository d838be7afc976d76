"""A node counts the labelled rows that it has not trained on, over restarts, and tells the number alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.core.errors import BadMessage
from reuna.core.labelled import Labelled, as_event, is_labelled, read_labelled, without_small
from reuna.core.records import Event
from reuna.edge.labelled import FILE, RUNS, LabelledRows


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


class Node:
    """A node with one table of a label, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        (self.data / "train").mkdir(parents=True)
        self.told: list[Event] = []
        self.lets = True
        self.rows = 0
        self.start()

    def start(self) -> None:
        self.counting = LabelledRows("e1", "b", self.folder, self.data, 60.0, self.emit, self, at_once)

    def now(self) -> float:
        return 7.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("it waits for news")

    async def emit(self, event: Event) -> bool:
        assert is_labelled(event)
        self.told.append(event)
        return self.lets

    def write(self, name: str, numbers: range, label: str = "1") -> None:
        lines = "".join(f"{number},{label}\n" for number in numbers)
        (self.data / "train" / f"{name}.csv").write_text("flow,fault\n" + lines)

    async def look(self) -> list[tuple[str, int]]:
        """What is told now."""
        before = len(self.told)
        await self.counting.look()
        return [(each.run, read_labelled(each).rows) for each in self.told[before:]]


@pytest.fixture
async def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    made.write("a", range(10))
    made.counting.trained("r-1", "fault")
    assert await made.look() == [("r-1", 0)]
    return made


async def test_rows_that_were_not_there_at_the_run_are_told_whenever_their_number_changes(node: Node) -> None:
    node.write("b", range(10, 15))
    assert await node.look() == [("r-1", 5)]
    assert await node.look() == []
    node.write("b", range(10, 17), label="")
    assert await node.look() == [("r-1", 0)], "without a label they do not count"
    node.write("b", range(10, 17))
    assert await node.look() == [("r-1", 7)], "and do once they have one"


async def test_a_window_that_moves_on_counts_and_a_file_that_is_renamed_does_not(node: Node) -> None:
    (node.data / "train" / "a.csv").rename(node.data / "train" / "z.csv")
    assert await node.look() == []
    node.write("z", range(4, 14))
    assert await node.look() == [("r-1", 4)]


async def test_a_restart_goes_on_from_the_run_and_a_run_that_goes_on_begins_no_new_count(node: Node) -> None:
    node.write("b", range(10, 15))
    node.start()
    node.counting.trained("r-1", "fault")
    assert await node.look() == [("r-1", 5)]


async def test_the_next_run_begins_a_count_of_its_own_and_the_oldest_is_forgotten(node: Node) -> None:
    node.write("b", range(10, 15))
    node.counting.trained("r-2", "fault")
    assert await node.look() == [("r-1", 5), ("r-2", 0)]
    for number in range(3, 3 + RUNS):
        node.counting.trained(f"r-{number}", "fault")
    await node.look()
    node.write("b", range(10, 20))
    assert [run for run, _ in await node.look()] == [f"r-{number}" for number in range(3, 3 + RUNS)]


async def test_a_contract_without_a_label_counts_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.write("a", range(3))
    node.counting.trained("r-1", "")
    assert await node.look() == []


async def test_what_the_policy_keeps_is_told_again_when_it_changes(node: Node) -> None:
    node.lets = False
    node.write("b", range(10, 15))
    assert await node.look() == [("r-1", 5)]
    node.lets = True
    node.write("b", range(10, 16))
    assert await node.look() == [("r-1", 6)]
    assert node.told[-1].seq == node.told[-2].seq, "what did not leave has no number"


async def test_tables_that_cannot_be_read_are_said_once_and_counted_once_they_can(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.write("b", range(10, 15))
    (node.data / "train" / "c.csv").write_bytes(b"flow,fault\n\xff,1\n")
    assert await node.look() == await node.look() == []
    assert caplog.text.count("c.csv is not UTF-8") == 1
    (node.data / "train" / "c.csv").unlink()
    assert await node.look() == [("r-1", 5)]


async def test_a_damaged_state_counts_from_the_next_run_on(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    (node.folder / FILE).write_bytes(b"x" * 99)
    node.start()
    assert await node.look() == []
    assert "is not used" in caplog.text
    node.counting.trained("r-2", "fault")
    assert await node.look() == [("r-2", 0)]


async def test_a_run_is_counted_at_once_and_not_at_the_next_look(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.write("a", range(3))
    keeping = asyncio.create_task(node.counting.keep())
    node.counting.trained("r-1", "fault")
    while not node.told:
        await asyncio.sleep(0)
    node.counting.trained("r-2", "fault")
    while len(node.told) < 2:
        await asyncio.sleep(0)
    keeping.cancel()
    assert [each.run for each in node.told] == ["r-1", "r-2"]


def test_fewer_rows_than_a_site_gives_out_are_not_told_and_none_are() -> None:
    assert without_small({"rows": 19}, 20) == {"withheld": 1}
    assert [without_small({"rows": rows}, 20) for rows in (0, 20)] == [{"rows": 0}, {"rows": 20}]


@pytest.mark.parametrize("fields", [{"rows": -1}, {"rows": True}, {"rows": 1.0}, {"rows": 1, "first": 3}])
def test_an_event_with_anything_else_is_no_count(fields: dict[str, Any]) -> None:
    assert not is_labelled(Event("e1", "b", 0, 1.0, "labelled", "r-1", fields=fields))


def test_an_event_keeps_the_names_of_its_fields_and_one_that_makes_no_sense_is_refused() -> None:
    event = as_event("e1", "b", 3, 7.0, Labelled("r-1", 120))
    assert msgspec.json.encode(event) == (
        b'{"node":"e1","boot":"b/labelled","seq":3,"at":7.0,"what":"labelled","run":"r-1","fields":{"rows":120}}'
    )
    for wrong in ({"rows": "many"}, {"rows": -1}, {"rows": 2**60}, {"withheld": True}):
        with pytest.raises(BadMessage, match="labelled rows cannot be read"):
            read_labelled(msgspec.structs.replace(event, fields=wrong))
    with pytest.raises(BadMessage, match="cannot be read"):
        read_labelled(msgspec.structs.replace(event, run=""))
