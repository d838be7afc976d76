"""Which release answers: the newest that is held, if the site lets its code; the one before until it can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.sandbox import SandboxLimits
from reuna.core.errors import NotApproved, NotLive
from reuna.core.project import TASKS
from reuna.core.records import Holding, Terms, Work
from reuna.core.source_settings import SourceSettings, TagSettings
from reuna.edge import answering
from reuna.edge.answering import Answering, Place, newest_held
from reuna.edge.live import LiveSettings
from reuna.exchange.releases import FOLDER, STATE, Accepted, Kept
from reuna.wire import digest_bytes
from reuna.wire import release as wire
from tests.pumps import RULES, Pumps, make


class Site:
    """A policy that lets code run once somebody has approved it."""

    def __init__(self) -> None:
        self.asked: list[Work] = []
        self.approves = False
        self.columns: tuple[str, ...] | None = None

    async def approved(self, work: Work) -> Terms:
        self.asked.append(work)
        if not self.approves:
            raise NotApproved(f"nobody has approved {work.bundle}")
        return Terms(0, self.columns)


@pytest.fixture(scope="module")
def pumps(tmp_path_factory: pytest.TempPathFactory) -> Pumps:
    pytest.importorskip("onnxruntime")
    return make(tmp_path_factory.mktemp("live") / "pumps", TASKS[0], RULES)


def hold(folder: Path, pumps: Pumps, *versions: int, project: str = "pumps") -> None:
    """As the egress leaves releases that it has verified."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    found = wire.decode(pumps.release(folder / "made").read_bytes())
    held = []
    for version in versions:
        about = msgspec.structs.replace(found.manifest.about, version=version, project=project)
        data = wire.encode(about, found.parts)
        (folder / FOLDER / digest_bytes(data)).write_bytes(data)
        held.append(
            Kept(
                digest_bytes(data), Holding(f"releases/{version}", project, version, digest_bytes(data), 0.0)
            )
        )
    Accepted(folder / STATE).write([*Accepted(folder / STATE).read(), *held])


def test_the_newest_held_one_of_the_project_is_chosen(pumps: Pumps, tmp_path: Path) -> None:
    assert newest_held(tmp_path, "") is None
    hold(tmp_path, pumps, 1, 3, 2)
    found = newest_held(tmp_path, "")
    assert found is not None
    assert found[1].version == 3
    assert found[0].is_file()
    hold(tmp_path, pumps, 9, project="ovens")
    with pytest.raises(NotLive, match="ovens and pumps"):
        newest_held(tmp_path, "")
    found = newest_held(tmp_path, "ovens")
    assert found is not None
    assert found[1].version == 9
    assert newest_held(tmp_path, "mills") is None


async def test_code_waits_for_its_approval_and_a_newer_release_takes_over(
    pumps: Pumps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answering, "LOOK_S", 0.02)
    monkeypatch.setattr(answering, "AGAIN_S", (0.02, 0.1))
    site, names = Site(), ("vibration_mm_s", "temperature_c", "flow_m3_h", "current_a")
    source = SourceSettings("x", "files", "", "t", tuple(TagSettings(name, name) for name in names))
    place = Place(tmp_path, pumps.node, SandboxLimits(), 0, "", LiveSettings(), 30.0, 16)

    async def until(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.01)

    hold(tmp_path, pumps, 1)
    made = Answering(place, site, tmp_path / "store", [source], SystemClock())  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO):
        task = asyncio.create_task(made.run())
        try:
            await until(lambda: len(site.asked) > 3)
            assert caplog.text.count("R312") == 1, "the same is said once"
            site.approves = True
            await until(lambda: "pumps 1 answers" in caplog.text)
            hold(tmp_path, pumps, 2)
            await until(lambda: "pumps 2 answers" in caplog.text)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert {each.purpose for each in site.asked} == {"inference"}
    assert {each.run for each in site.asked} == {"r-1"}


def test_code_that_may_see_some_columns_gets_a_copy_of_the_data(pumps: Pumps, tmp_path: Path) -> None:
    place = Place(tmp_path, pumps.node, SandboxLimits(), 0, "", LiveSettings(), 30.0, 16)
    made = Answering(place, Site(), tmp_path, [], SystemClock())  # type: ignore[arg-type]
    assert made._shown(Terms()) == pumps.node
    shown = made._shown(Terms(columns=("second", "current_a")))
    heads = {path.read_text().splitlines()[0] for path in shown.rglob("*.csv")}
    assert heads == {"second,current_a"}
    made._answers.close()
