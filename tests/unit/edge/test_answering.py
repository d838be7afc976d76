"""What a release needs on a node that reads its machine: the site's word on its code, data, a predictor."""

from __future__ import annotations

from pathlib import Path

import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.sandbox import HIGHEST, SandboxLimits
from reuna.core.errors import NotApproved, NotLive
from reuna.core.health import Health
from reuna.core.project import TASKS
from reuna.core.records import Terms, Work
from reuna.core.source_settings import SourceSettings, TagSettings
from reuna.edge.answering import Answering, Place
from reuna.edge.live import LiveSettings
from reuna.edge.releases import GraphAlone
from reuna.exchange import predict
from tests.pumps import RULES, Pumps, make
from tests.releases import runnable

NAMES = ("vibration_mm_s", "temperature_c", "flow_m3_h", "current_a")


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


def answering(pumps: Pumps, folder: Path, site: Site, project: str = "") -> Answering:
    source = SourceSettings("x", "files", "", "t", tuple(TagSettings(name, name) for name in NAMES))
    place = Place(folder, pumps.node, SandboxLimits(), 0, project, LiveSettings(), 30.0, 16)
    return Answering(place, site, folder / "store", [source], SystemClock())  # type: ignore[arg-type]


async def test_code_waits_for_its_approval_and_is_said_to_be_for_inference(
    pumps: Pumps, tmp_path: Path
) -> None:
    site, release = Site(), pumps.release(tmp_path / "1.release")
    made = answering(pumps, tmp_path, site)
    try:
        with pytest.raises(NotApproved):
            await made.start("pumps", release, tmp_path / "work")
        site.approves = True
        standing = await made.start("pumps", release, tmp_path / "work")
        assert await standing.golden() == ""
        asking = made.asking("pumps", lambda _outcome, _shadow: None)
        assert asking is not None
        await asking.use(standing)
        await asking.use(None)
        await standing.close()
    finally:
        made.close()
    assert {(each.purpose, each.run) for each in site.asked} == {("inference", "r-1")}


async def test_where_the_settings_name_one_project_no_other_is_asked_and_its_code_does_not_run(
    pumps: Pumps, tmp_path: Path
) -> None:
    site, release = Site(), pumps.release(tmp_path / "1.release")
    made = answering(pumps, tmp_path, site, "ovens")
    assert made.asking("pumps", lambda _outcome, _shadow: None) is None
    assert made.asking("ovens", lambda _outcome, _shadow: None) is not None
    assert isinstance(await made.start("pumps", release, tmp_path / "work"), GraphAlone)
    assert site.asked == []
    made.close()


async def test_what_cannot_answer_live_is_said_before_anybody_is_asked_to_approve_it(
    pumps: Pumps, tmp_path: Path
) -> None:
    site = Site()
    file = tmp_path / "1.release"
    file.write_bytes(runnable(1, b"no graph", Health()))
    made = answering(pumps, tmp_path, site)
    with pytest.raises(NotLive):
        await made.start("pumps", file, tmp_path / "work")
    assert site.asked == []
    made.close()


async def test_code_that_may_see_some_columns_gets_a_copy_of_the_data(
    pumps: Pumps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, release, seen = Site(), pumps.release(tmp_path / "1.release"), []

    async def start(*said: object) -> None:
        seen.append(said)

    monkeypatch.setattr(predict.Predictor, "start", start)
    site.approves, site.columns = True, ("second", "current_a")
    made = answering(pumps, tmp_path, site)
    await made.start("pumps", release, tmp_path / "work")
    made.close()
    ((_, _, shown, _, level, _, columns),) = seen
    assert shown.name.startswith("work-"), "it goes away with the folder of the release"
    heads = {path.read_text().splitlines()[0] for path in shown.rglob("*.csv")}
    assert (heads, columns, level) == ({"second,current_a"}, site.columns, HIGHEST)


async def test_a_release_that_is_for_fogs_does_not_run_at_an_edge(tmp_path: Path) -> None:
    site, file = Site(), tmp_path / "1.release"
    pytest.importorskip("onnxruntime")
    big = make(tmp_path / "big", TASKS[0], RULES + '\n[inference]\nplace = "fog"\n')
    made = answering(big, tmp_path, site)
    standing = await made.start("pumps", big.release(file), tmp_path / "work")
    made.close()
    assert not standing.takes_windows
    assert await standing.golden() == "", "nor does it test itself: it may be too large"
    assert site.asked == []
    assert not (tmp_path / "work").exists()
