"""A fog answers windows by releases that are signed for it, as its policy lets, each edge alone, and not too many."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.sandbox import SandboxLimits
from reuna.adapters.tables import read_table
from reuna.core.contract import Contract, Signal, contract
from reuna.core.errors import DataError, NotApproved, Refused
from reuna.core.fallback import Fallback
from reuna.core.grid import Cells, Rows
from reuna.core.health import Health
from reuna.core.inference import Inference, as_settings
from reuna.core.outcomes import Outcome
from reuna.core.packed import packed
from reuna.core.project import TASKS
from reuna.core.records import Terms, Work
from reuna.core.second import Doubtful, Window, opinion
from reuna.exchange.predict import Confines, Held, Predictor
from reuna.fog.answer import FOLDER, MOST_OF_ONE, MOST_WAITING, STATUS, FogAnswers, Place, choices, tables
from reuna.sim.storage import MemoryBlobs
from reuna.trust.stages import Stage
from reuna.trust.targets import Target
from reuna.wire import release as wire
from reuna.wire.release import About
from tests.pumps import RULES, make
from tests.releases import runnable, target
from tests.unit.exchange.test_trust import Clock
from tests.unit.trust.house import House

AGREED = Contract(every_s=1.0, signals=(Signal("a", unit="bar"), Signal("b", unit="degC")))


def made(version: int, project: str = "big", place: str = "fog") -> bytes:
    """The file of a release with that place."""
    rules = Inference(place, "x" if place == "edge-then-fog" else "")  # type: ignore[arg-type]
    parts = dict(wire.decode(runnable(version, b"", Health(), project)).parts)
    settings = {"entry": "detector.model", **as_settings(rules)}
    parts[wire.LINEAGE] = msgspec.json.encode({"settings": settings})
    return wire.encode(About(project, version, f"r-{version}", "0" * 64), parts)


class Fake:
    """A release that stands: it answers by the mean of ``a``, once it is let."""

    def __init__(self, version: int, data: Path, why: str = "") -> None:
        about = About("big", version, "r", "0" * 64)
        self.held = Held(f"{version}" * 64, about, {}, AGREED, Fallback(), 3, 1, 0)
        self.data, self.why = data, why
        self.goes = asyncio.Event()
        self.goes.set()
        self.asked: list[Rows] = []
        self.closed = False

    async def golden(self) -> str:
        return self.why

    async def answer(self, rows: Rows) -> list[Outcome]:
        self.asked.append(rows)
        await self.goes.wait()
        mean = float(rows.cells["a"].values.mean()) if "a" in rows.cells else 0.0
        return [Outcome("big", 1, "d", 0, 0, "answered", mean, (0.1, 0.9))]

    async def close(self) -> None:
        self.closed = True


class Fog:
    """A fog named north, with what is signed, what lies on its shelf, and what stands."""

    def __init__(self, folder: Path) -> None:
        self.house, self.clock, self.shelf = House(), Clock(), MemoryBlobs()
        self.data, self.seconds = folder / "tables", 0.0
        (self.data / "train").mkdir(parents=True)
        self.bad: set[int] = set()
        self.approves = True
        self.up: list[Fake] = []
        place = Place("north", folder / "state", self.data, Confines(SandboxLimits(), 0))
        place.folder.mkdir()
        all_of_it: Any = self
        self.answers = FogAnswers(
            place, all_of_it, self.get, all_of_it, self.clock, at_once, lambda: self.seconds, self.begin
        )
        self.folder = place.folder

    def state(self) -> Any:
        return self.house.update()

    def written(self) -> tuple[int, int]:
        return self.house.update().files["timestamp"].version, 0

    async def get(self, digest: str) -> Any:
        return self.shelf.get(digest)

    async def begin(self, file: Path, _work: Path, data: Path, *_more: Any) -> Any:
        if not self.approves:
            raise NotApproved("nobody has approved it")
        found = wire.decode(file.read_bytes()).manifest.about
        self.up.append(Fake(found.version, data, "wrong" if found.version in self.bad else ""))
        return self.up[-1]

    async def sign(self, *files: bytes, stages: tuple[Stage, ...] = (), **more: Any) -> list[Target]:
        listed = []
        for data in files:
            about = wire.decode(data).manifest.about
            listed.append(target(data, about.version, about.project, **more))
            self.shelf.put(data)
        self.house.listed["targets"] = list(listed)
        self.house.list("targets")
        self.house.staged = stages
        self.house.list("plans")
        self.house.online()
        await self.answers.look()
        return listed

    def running(self) -> list[int]:
        return [each.held.about.version for each in self.up if not each.closed]

    async def ask(self, peer: str = "e1", **more: Any) -> Any:
        return await self.answers.advise(peer, question(**more))


async def at_once(work: Any) -> Any:
    return work()


def question(windows: int = 1, length: int = 3, **more: Any) -> Doubtful:
    count = length + windows - 1
    cells = {name: Cells(np.arange(count, dtype=float), np.ones(count, bool)) for name in "ab"}
    some = Rows(0, 10**9, count, cells)
    said: dict[str, Any] = {"project": "big", "every_s": 1.0, "units": {"a": "bar", "b": "degC"}, **more}
    return Doubtful(
        said["project"], said["every_s"], 10**9, said["units"],
        tuple(packed(some, start, length, 0) for start in range(windows)), said.get("within_s", 5.0),
    )  # fmt: skip


@pytest.fixture
def fog(tmp_path: Path) -> Fog:
    return Fog(tmp_path)


async def refused(asking: Any) -> str:
    with pytest.raises(Refused) as told:
        await asking
    return told.value.reason


# --- what stands ---------------------------------------------------------------------------------


async def test_a_release_that_is_for_fogs_stands_and_answers(fog: Fog) -> None:
    await fog.sign(made(4))
    found = await fog.ask(windows=2)
    assert (found.version, [each.answer for each in found.windows]) == (4, [1.0, 2.0])


@pytest.mark.parametrize("place", ["edge", "edge-then-fog"])
async def test_what_is_for_edges_does_not_run_here(fog: Fog, place: str) -> None:
    await fog.sign(made(4, place=place))
    assert fog.up == []
    assert await refused(fog.ask()) == "no-model"


async def test_what_is_for_another_site_does_not_run_here(fog: Fog) -> None:
    await fog.sign(made(4), where=("south",))
    assert fog.up == []


async def test_the_newest_stands_and_a_stage_says_otherwise(fog: Fog) -> None:
    three, four = made(3), made(4)
    await fog.sign(three, four)
    assert fog.running() == [4]
    (old, _) = await fog.sign(three, four, stages=(Stage("big", 3, target(three, 3, "big").sha256),))
    assert old.number == 3
    assert fog.running() == [3], "and the other gave way"
    await fog.sign()
    assert fog.running() == []
    assert await refused(fog.ask()) == "no-model"


async def test_one_that_fails_its_self_test_gives_way_to_the_one_before_for_good(fog: Fog) -> None:
    fog.bad = {4}
    await fog.sign(made(3), made(4))
    assert fog.running() == [3]
    fog.bad, fog.seconds = set(), 1e6
    await fog.answers.look()
    assert fog.running() == [3]


async def test_bytes_that_are_not_as_they_were_signed_never_run(fog: Fog) -> None:
    good, other = made(4), made(5)
    said = msgspec.structs.replace(target(good, 4, "big"), sha256="0" * 64)
    fog.shelf.put(good)
    fog.house.listed["targets"] = [said, msgspec.structs.replace(target(other, 6, "big"))]
    fog.shelf.put(other)
    fog.house.list("targets")
    fog.house.online()
    await fog.answers.look()
    assert fog.up == []


async def test_code_that_the_site_has_not_approved_is_asked_about_again_after_a_while(fog: Fog) -> None:
    fog.approves = False
    await fog.sign(made(4))
    fog.approves = True
    await fog.answers.look()
    assert fog.running() == [], "not at once"
    fog.seconds += 60
    await fog.answers.look()
    assert fog.running() == [4]


async def test_nothing_new_stands_under_metadata_whose_time_is_over(fog: Fog) -> None:
    fog.clock.at += 4000 * 86_400
    await fog.sign(made(4))
    assert fog.running() == []


async def test_an_edge_is_answered_by_its_own_tables_where_there_are_some(fog: Fog) -> None:
    (fog.data / "e2" / "train").mkdir(parents=True)
    await fog.sign(made(4))
    for_all, for_two = fog.up
    assert (for_all.data, for_two.data) == (fog.data, fog.data / "e2")
    await fog.ask("e1")
    await fog.ask("e2")
    assert (len(for_all.asked), len(for_two.asked)) == (1, 1)


def test_a_folder_with_edges_alone_answers_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "e2").mkdir()
    assert tables(tmp_path) == {"e2": tmp_path / "e2"}
    with pytest.raises(DataError):
        tables(tmp_path / "gone")


def test_of_each_project_the_two_newest_are_tried(tmp_path: Path) -> None:
    house = House()
    house.listed["targets"] = [target(made(n), n, "big") for n in (1, 3, 2)] + [
        target(made(9, "other"), 9, "other")
    ]
    house.list("targets")
    house.online()
    found = choices(house.update(), "north")
    assert {name: [each.number for each in some] for name, some in found.items()} == {
        "big": [3, 2],
        "other": [9],
    }


# --- what is asked -------------------------------------------------------------------------------


async def test_an_edge_that_asks_too_much_at_once_is_refused_and_others_are_not(fog: Fog) -> None:
    await fog.sign(made(4))
    fog.up[0].goes.clear()
    waiting = [asyncio.create_task(fog.ask("e1")) for _ in range(MOST_OF_ONE)]
    await asyncio.sleep(0)
    assert await refused(fog.ask("e1")) == "full"
    other = asyncio.create_task(fog.ask("e2"))
    await asyncio.sleep(0)
    fog.up[0].goes.set()
    await asyncio.gather(*waiting, other)
    assert (await fog.ask("e1")).version == 4, "and when it has its answers it may ask again"


async def test_a_flooded_fog_refuses(fog: Fog) -> None:
    await fog.sign(made(4))
    fog.up[0].goes.clear()
    waiting = [asyncio.create_task(fog.ask(f"e{number}")) for number in range(MOST_WAITING)]
    await asyncio.sleep(0)
    assert await refused(fog.ask("late-comer")) == "full"
    fog.up[0].goes.set()
    await asyncio.gather(*waiting)


async def test_a_question_whose_time_is_over_costs_the_model_nothing(fog: Fog) -> None:
    await fog.sign(made(4))
    fog.up[0].goes.clear()
    first = asyncio.create_task(fog.ask("e1"))
    await asyncio.sleep(0)
    second = asyncio.create_task(fog.ask("e2", within_s=2.0))
    await asyncio.sleep(0)
    fog.seconds += 3
    fog.up[0].goes.set()
    await first
    assert await refused(second) == "late"
    assert len(fog.up[0].asked) == 1


async def test_a_release_that_gives_way_answers_what_it_is_at_and_no_more(fog: Fog) -> None:
    await fog.sign(made(4))
    fog.up[0].goes.clear()
    first = asyncio.create_task(fog.ask("e1"))
    await asyncio.sleep(0)
    change = asyncio.create_task(fog.sign(made(4), made(5)))
    while len(fog.up) < 2:
        await asyncio.sleep(0)
    fog.up[0].goes.set()
    assert (await first).version == 4
    await change
    assert (await fog.ask("e1")).version == 5


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"project": "other"}, "no-model"),
        ({"length": 4}, "windows"),
        ({"every_s": 2.0}, "windows"),
        ({"units": {"a": "degC", "b": "degC"}}, "windows"),
        ({"units": {"a": "bar"}}, "malformed"),
    ],
)
async def test_windows_that_the_release_does_not_take_are_refused(
    fog: Fog, more: dict[str, Any], reason: str
) -> None:
    await fog.sign(made(4))
    assert await refused(fog.ask(**more)) == reason
    assert fog.up[0].asked == []


async def test_signals_are_brought_to_the_unit_of_the_release(fog: Fog) -> None:
    await fog.sign(made(4))
    found = await fog.ask(units={"a": "kPa", "b": "degC"})
    assert found.windows[0].answer == pytest.approx(0.01)


async def test_rows_that_its_rules_do_not_look_back_on_are_not_put_to_the_model(fog: Fog) -> None:
    await fog.sign(made(4))
    asked = question(length=3)
    empty = Window(0, 1_000_000, 1_000_003, {})
    await fog.answers.advise("e1", msgspec.structs.replace(asked, windows=(empty,)))
    assert (fog.up[0].asked[0].count, fog.up[0].asked[0].before) == (3, 0)


async def test_a_folder_of_a_release_that_stands_no_more_goes(fog: Fog) -> None:
    await fog.sign(made(4))
    four = target(made(4), 4, "big").sha256[:16]
    assert [each.name for each in (fog.folder / FOLDER).iterdir()] == [four]
    await fog.sign(made(5))
    assert [each.name for each in (fog.folder / FOLDER).iterdir()] != [four]
    assert len(list((fog.folder / FOLDER).iterdir())) == 1


async def test_what_stands_and_what_was_asked_is_shown_at_the_fog(fog: Fog) -> None:
    await fog.sign(made(4))
    await fog.ask("e1", windows=2)
    await refused(fog.ask("e2", project="other"))
    await fog.answers._show()
    shown = json.loads((fog.folder / STATUS).read_bytes())
    assert [(each["project"], each["version"]) for each in shown["projects"]] == [("big", 4)]
    assert shown["edges"] == {"e1": {"answered": 2}, "e2": {"no-model": 1}}


# --- with a real release -------------------------------------------------------------------------


class Officer:
    async def approved(self, work: Work) -> Terms:
        assert work.purpose == "inference"
        return Terms(0, None)


async def test_a_window_gets_the_same_bits_at_the_fog_as_from_the_release_itself(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    big = make(tmp_path / "big", TASKS[0], RULES + '\n[inference]\nplace = "fog"\n')
    file = big.release(tmp_path / "1.release", project="pumps-big")
    found = Fog(tmp_path / "fog")
    place = Place("north", found.folder, big.node, Confines(SandboxLimits(), 0))
    answers = FogAnswers(place, found, found.get, Officer(), SystemClock(), at_once)  # type: ignore[arg-type]
    found.answers = answers
    answers._clock = found.clock  # the house's metadata is of its own time
    await found.sign(file.read_bytes())
    agreed, table = contract(big.settings), read_table(big.recording)
    alone = await Predictor.start(file, tmp_path / "own", big.node, SandboxLimits(), 0, SystemClock())
    held = alone.held
    cells = {
        each.name: Cells(table.columns[each.name][:40].astype(float), np.ones(40, bool))
        for each in agreed.signals
    }
    some = Rows(0, 10**9, 40, cells)
    starts = range(0, 40 - held.length + 1, held.step)
    units = {each.name: each.unit for each in agreed.signals}
    windows = tuple(packed(some, start, held.length, held.before) for start in starts)
    try:
        told = await answers.advise(
            "e1", Doubtful("pumps-big", held.agreed.every_s or 0, 10**9, units, windows, 60.0)
        )
        own = [opinion(each) for each in await alone.answer(some)]
    finally:
        await alone.close()
        for each in answers._standing.values():
            await each.close()
    assert len(own) == len(windows) > 1
    assert list(told.windows) == own
    assert told.release == held.digest
