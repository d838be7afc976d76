"""Releases on a node, in virtual time: real slots on a disk, workers and a machine that are none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.core.errors import (
    DiskFull,
    NotApproved,
    NotLive,
    Refused,
    ReunaError,
    SandboxTooWeak,
    WorkerFailed,
)
from reuna.core.health import KEY, Health
from reuna.core.outcomes import Outcome, Second
from reuna.edge import operate as subject
from reuna.edge.operate import Bench, OnOutcome, Operation
from reuna.edge.slots import Slots
from reuna.loop.operate import Choice, Chosen, Which
from reuna.sim.clock import run_virtual
from reuna.wire import release as wire
from reuna.wire.build import sha256

RULES = Health(trial_s=10, min_windows=4, max_safe=0.5, max_latency_ms=50, max_restarts=1, min_agreement=0.5)


def file_of(version: int) -> bytes:
    parts = dict.fromkeys(wire.NEEDED, b"{}\n")
    settings = {"entry": "detector.model", KEY: msgspec.json.encode(RULES).decode()}
    parts[wire.LINEAGE] = msgspec.json.encode({"settings": settings})
    return wire.encode(wire.About("pumps", version, f"r-{version}", "0" * 64), parts)


FILES = {sha256(file_of(version)): file_of(version) for version in (1, 2, 3)}
VERSIONS = {digest: number for number, digest in enumerate(FILES, 1)}


def which(version: int, rollout: str = "") -> Which:
    return Which(version, list(FILES)[version - 1], rollout)


@dataclass
class Fake:
    """A release in a worker that is none."""

    version: int
    open: set[int]
    why: str = ""
    restarts: int = 0
    takes_windows: bool = True

    async def golden(self) -> str:
        return self.why

    async def close(self) -> None:
        self.open.discard(self.version)


@dataclass
class Machine:
    """Asks the releases for a window a second."""

    on_outcome: OnOutcome
    says: dict[int, dict[str, Any]]
    refuses: set[int]
    primary: Fake | None = None
    shadow: Fake | None = None
    uses: int = 0
    muted: bool = False
    asked: list[tuple[int, int]] = field(default_factory=list)

    async def use(self, primary: Any, shadow: Any = None) -> None:
        self.primary, self.shadow, self.uses = None, None, self.uses + 1
        for each in (primary, shadow):
            if each is not None and each.version in self.refuses:
                raise NotLive(f"no source has a signal of {each.version}")
        self.primary, self.shadow = primary, shadow

    def mute(self, muted: bool) -> None:
        self.muted = muted

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self.primary is not None:
                self.asked.append((self.primary.version, self.shadow.version if self.shadow else 0))
                other = self.said(self.shadow) if self.shadow is not None else None
                self.on_outcome(self.said(self.primary), other)

    def said(self, of: Fake) -> Outcome:
        said: dict[str, Any] = {
            "state": "answered",
            "answer": 1.0,
            "took_ms": 5.0,
            **self.says.get(of.version, {}),
        }
        return Outcome("pumps", of.version, which(of.version).digest, 0, 1, **said)


class Clock:
    """The virtual loop's."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


class Node:
    """A node whose disk, workers and machine do as the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = {1, 2, 3}
        self.errors: dict[int, list[ReunaError]] = {}
        self.wrong: dict[int, str] = {}
        self.says: dict[int, dict[str, Any]] = {}
        self.refuses: set[int] = set()
        self.reads = True
        self.elsewhere: set[int] = set()
        self.open: set[int] = set()
        self.up: dict[int, Fake] = {}
        self.machine: Machine | None = None
        for digest, data in FILES.items():
            (folder / digest).write_bytes(data)

    def start(self) -> None:
        clock = Clock()
        bench = Bench(
            self._start, self._asking, self._source, self._changed, clock,
            clock.now, at_once,
        )  # fmt: skip
        self.operation = Operation(Slots(self.folder, "pumps"), bench)
        self.task = asyncio.create_task(self.operation.run())

    def _changed(self) -> None:
        self.shown = self.operation.shown()

    async def crash(self) -> None:
        """As far as a task can."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.start()

    async def _start(self, project: str, release: Path, folder: Path) -> Fake:
        version = VERSIONS[sha256(release.read_bytes())]
        if self.errors.get(version):
            raise self.errors[version].pop(0)
        self.open.add(version)
        self.up[version] = Fake(version, self.open, self.wrong.get(version, ""))
        self.up[version].takes_windows = version not in self.elsewhere
        return self.up[version]

    def _asking(self, project: str, on_outcome: OnOutcome) -> Machine | None:
        if not self.reads:
            return None
        self.machine = Machine(on_outcome, self.says, self.refuses)
        return self.machine

    def _source(self, project: str, digest: str) -> Path | None:
        return self.folder / digest if VERSIONS[digest] in self.held else None

    def choose(self, live: Which | None, shadow: Which | None = None) -> None:
        held = tuple(which(version) for version in sorted(self.held, reverse=True))
        self.operation.happen(Chosen(Choice(held, live, shadow)))

    def runs(self) -> tuple[int, str, str]:
        told = self.operation.report()
        return told.version, told.phase, told.reason

    async def confirmed(self, version: int) -> None:
        self.choose(which(version))
        await asyncio.sleep(20)
        assert self.runs() == (version, "confirmed", "")


def play(folder: Path, script: Callable[[Node], Awaitable[None]]) -> Node:
    node = Node(folder)

    async def whole() -> None:
        node.start()
        await script(node)
        node.task.cancel()
        await asyncio.gather(node.task, return_exceptions=True)
        assert node.open == set(), "every worker was ended"

    run_virtual(whole())
    return node


def test_a_release_is_copied_tested_on_trial_and_confirmed_and_asked_for_every_window(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        node.choose(which(1))
        await asyncio.sleep(5)
        assert node.runs() == (1, "trial", "")
        await asyncio.sleep(10)
        assert node.runs() == (1, "confirmed", "")
        assert node.operation.shown()["at_work"]

    node = play(tmp_path, script)
    assert node.machine is not None
    assert len(node.machine.asked) >= 13
    assert Slots(tmp_path, "pumps").whole() == {"a": which(1).digest}


def test_the_next_release_takes_over_without_a_window_between_and_the_old_worker_ends(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        asked = len(node.machine.asked) if node.machine else 0
        node.choose(which(2))
        await asyncio.sleep(5)
        assert node.machine is not None
        assert len(node.machine.asked) >= asked + 4
        assert node.machine.asked[-1] == (2, 0)
        assert node.open == {2}

    play(tmp_path, script)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [({"state": "safe", "answer": None}, "safe"), ({"took_ms": 80.0}, "latency")],
)
def test_a_release_that_is_not_healthy_gives_way_to_the_one_before(
    tmp_path: Path, bad: dict[str, Any], reason: str
) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        node.says[2] = bad
        node.choose(which(2))
        await asyncio.sleep(30)
        assert node.runs() == (1, "rolled_back", reason)
        told = node.operation.report()
        assert (told.gave_up, told.digest) == (2, which(1).digest)
        assert node.machine is not None
        assert node.machine.asked[-1] == (1, 0)
        assert node.open == {1}

    play(tmp_path, script)


@pytest.mark.parametrize(
    "said",
    [
        {"state": "safe", "answer": None, "fog": Second("away", "big")},
        {"took_ms": 900.0, "fog": Second("answered", "big", 1, "d", 1.0, 895.0)},
        {"answer": 7.0, "fog": Second("answered", "big", 1, "d", 1.0)},
    ],
)
def test_what_the_fog_does_is_no_fault_of_a_release_on_trial(tmp_path: Path, said: dict[str, Any]) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        node.says[2] = node.says[1] = said
        node.choose(which(1), which(2))
        await asyncio.sleep(20)
        told = node.operation.report()
        assert told.compared
        assert told.agreed == told.compared
        node.choose(which(2))
        await asyncio.sleep(30)
        assert node.runs() == (2, "confirmed", "")

    play(tmp_path, script)


def test_a_release_that_answers_elsewhere_is_kept_and_asked_nothing(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        node.elsewhere = {1}
        await node.confirmed(1)
        assert node.machine is not None
        assert node.machine.asked == []

    play(tmp_path, script)


def test_what_fails_after_it_was_confirmed_goes_back_to_the_release_before_with_nobody_to_ask(
    tmp_path: Path,
) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        await node.confirmed(2)
        node.says[2] = {"state": "safe", "answer": None, "failed": True}
        await asyncio.sleep(60)
        assert node.runs() == (1, "rolled_back", "safe")
        told = node.operation.report()
        assert (told.gave_up, told.digest, told.muted) == (2, which(1).digest, False)
        assert node.machine is not None
        assert (2, 1) in node.machine.asked, "the one before was asked beside"
        assert node.open == {1}

    play(tmp_path, script)


def test_where_no_release_does_better_the_safe_answer_is_given_and_said(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        await node.confirmed(2)
        node.says[1] = node.says[2] = {"took_ms": 80.0}
        await asyncio.sleep(60)
        assert node.runs() == (2, "confirmed", "latency")
        assert node.operation.report().muted
        assert node.machine is not None
        assert node.machine.muted
        await node.crash()
        await asyncio.sleep(5)
        assert node.machine.muted, "after a start too"

    play(tmp_path, script)


def test_what_is_confirmed_is_written_down_once_in_a_slice_of_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[float] = []
    keep = Slots.keep

    def counting(self: Slots, state: Any) -> None:
        kept.append(asyncio.get_running_loop().time())
        keep(self, state)

    async def script(node: Node) -> None:
        await node.confirmed(1)
        monkeypatch.setattr(Slots, "keep", counting)
        await asyncio.sleep(3600)

    play(tmp_path, script)
    assert 11 <= len(kept) <= 13


def test_a_worker_that_ends_by_itself_again_and_again_is_no_health(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        node.choose(which(2))
        await asyncio.sleep(2.5)
        node.up[2].restarts += 1
        await asyncio.sleep(2)
        assert node.runs()[:2] == (2, "trial"), "one is allowed"
        node.up[2].restarts += 1
        await asyncio.sleep(3)
        assert node.runs() == (1, "rolled_back", "restarts")

    play(tmp_path, script)


def test_a_shadow_is_asked_beside_and_its_agreement_counted(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        node.choose(which(1), which(2, "r-1"))
        await asyncio.sleep(10.5)
        told = node.operation.report()
        assert (told.version, told.beside, told.phase, told.rollout) == (1, 2, "shadow", "r-1")
        assert told.compared == told.agreed != 0
        assert node.open == {1, 2}
        node.says[2] = {"answer": 0.0}
        await asyncio.sleep(20)
        assert node.runs() == (1, "rolled_back", "agreement")
        assert node.open == {1}

    play(tmp_path, script)


def test_what_fails_its_self_test_never_answers(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        node.wrong[2] = "row 1 is off"
        node.choose(which(2))
        await asyncio.sleep(5)
        assert node.runs() == (1, "rolled_back", "self-test")
        assert node.operation.shown()["detail"] == "row 1 is off"

    node = play(tmp_path, script)
    assert node.machine is not None
    assert {primary for primary, _ in node.machine.asked} == {1}


def test_a_worker_that_does_not_start_at_once_is_tried_again_and_what_is_no_fault_of_it_is_waited_for(
    tmp_path: Path,
) -> None:
    async def script(node: Node) -> None:
        node.errors[1] = [*[DiskFull("full")] * 3, *[NotApproved("waits")] * 3, Refused("policy", "x")] + [
            WorkerFailed("no memory")
        ] * 2
        node.choose(which(1))
        await asyncio.sleep(400)
        assert node.runs() == (1, "confirmed", "")

    play(tmp_path, script)


@pytest.mark.parametrize(
    "error", [[WorkerFailed("x")] * 3, [SandboxTooWeak("level 1")] * 3, [NotLive("no time")]]
)
def test_a_release_that_does_not_start_is_given_up(tmp_path: Path, error: list[ReunaError]) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        node.errors[2] = list(error)
        node.choose(which(2))
        await asyncio.sleep(20)
        assert node.runs() == (1, "rolled_back", "start")

    play(tmp_path, script)


def test_a_release_that_no_source_has_signals_for_gives_way(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        node.refuses.add(2)
        node.choose(which(2))
        await asyncio.sleep(5)
        assert node.runs() == (1, "rolled_back", "start")
        node.refuses.add(3)
        node.choose(which(1), which(3))
        await asyncio.sleep(5)
        assert node.runs() == (1, "rolled_back", "start"), "a shadow that cannot be asked takes nothing along"
        assert node.machine is not None
        assert node.machine.asked[-1] == (1, 0)

    play(tmp_path, script)


def test_a_release_that_nothing_can_take_the_place_of_is_asked_again_once_a_minute(tmp_path: Path) -> None:
    """Sources were taken out of the node's file, say, and come back."""

    async def script(node: Node) -> None:
        await node.confirmed(1)
        node.refuses.add(1)
        await node.crash()
        await asyncio.sleep(200)
        assert node.machine is not None
        assert node.runs() == (1, "confirmed", "start")
        assert not node.shown["at_work"]
        assert node.machine.uses <= 5
        node.refuses.clear()
        await asyncio.sleep(70)
        assert node.shown["at_work"]

    play(tmp_path, script)


def test_what_is_not_here_yet_is_waited_for(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        node.held = {2}
        node.choose(which(1))
        await asyncio.sleep(50)
        assert node.runs() == (0, "none", "")
        node.held = {1, 2}
        node.choose(which(1))
        await asyncio.sleep(50)
        assert node.runs() == (1, "confirmed", "")

    play(tmp_path, script)


def test_after_a_start_the_same_release_answers_without_a_word_from_anybody(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        await node.crash()
        await asyncio.sleep(3)
        assert node.runs() == (1, "confirmed", "")
        assert node.open == {1}
        assert node.shown["at_work"], "and whoever stands at the machine sees that"

    play(tmp_path, script)


def test_a_trial_goes_on_after_a_start_and_what_it_had_counted_is_not_lost(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        node.choose(which(2))
        await asyncio.sleep(1.5)
        assert node.runs()[:2] == (2, "trial")
        await node.crash()
        await asyncio.sleep(5)
        assert node.runs()[:2] == (2, "trial")
        await asyncio.sleep(20)
        assert node.runs()[:2] == (2, "confirmed")

    play(tmp_path, script)


def test_a_damaged_slot_is_found_at_the_start_and_the_other_one_answers(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        await node.confirmed(2)
        slots = Slots(node.folder, "pumps")
        data = slots.path("b").read_bytes()
        slots.path("b").write_bytes(data[:-700] + b"x" + data[-699:])
        node.held = set()
        await node.crash()
        await asyncio.sleep(3)
        assert node.runs() == (1, "rolled_back", "damaged")

    play(tmp_path, script)


def test_a_graph_that_answers_otherwise_after_a_start_gives_way(tmp_path: Path) -> None:
    """The machine's runtime was brought to another version, say."""

    async def script(node: Node) -> None:
        await node.confirmed(1)
        await node.confirmed(2)
        node.wrong[2] = "row 1 is off"
        await node.crash()
        await asyncio.sleep(3)
        assert node.runs() == (1, "rolled_back", "self-test")

    play(tmp_path, script)


def test_nothing_follows_from_a_state_that_the_disk_has_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        keep, full = Slots.keep, [True]

        def fails(self: Slots, state: Any) -> None:
            if full[0]:
                raise DiskFull("full")
            keep(self, state)

        monkeypatch.setattr(Slots, "keep", fails)
        node.choose(which(2))
        await asyncio.sleep(300)
        assert node.runs() == (1, "confirmed", ""), "it goes on as it was"
        assert node.machine is not None
        assert node.machine.asked[-1] == (1, 0)
        full[0] = False
        await asyncio.sleep(100)
        assert node.runs()[0] == 2

    play(tmp_path, script)


def test_where_no_machine_is_read_the_trial_is_one_of_time(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        node.task.cancel()
        node.reads = False
        await node.crash()
        await node.confirmed(1)

    play(tmp_path, script)


def test_outcomes_of_the_release_before_count_for_nobody(tmp_path: Path) -> None:
    async def script(node: Node) -> None:
        await node.confirmed(1)
        before = node.operation.report().windows
        stray = Outcome("pumps", 3, which(3).digest, 0, 1, "safe", None)
        assert node.machine is not None
        node.machine.primary = None
        await asyncio.sleep(2)
        before = node.operation.report().windows
        node.machine.on_outcome(stray, None)
        await asyncio.sleep(2)
        assert node.operation.report().windows == before

    play(tmp_path, script)


def test_counts_of_a_trial_are_written_down_now_and_then_and_not_for_each_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[float] = []
    keep = Slots.keep

    def counting(self: Slots, state: Any) -> None:
        kept.append(asyncio.get_running_loop().time())
        keep(self, state)

    monkeypatch.setattr(Slots, "keep", counting)
    monkeypatch.setattr(subject, "KEEP_S", 4.0)

    async def script(node: Node) -> None:
        await node.confirmed(1)

    play(tmp_path, script)
    assert 5 <= len(kept) <= 9
