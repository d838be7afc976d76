"""Runs that the cloud begins by itself: the reason stays with them, one at a time, judged once at their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.events import EventLog
from reuna.adapters.journal_dbos import DbosHost
from reuna.adapters.register import Register
from reuna.cloud.actions import Coordinator
from reuna.cloud.builds import Builds
from reuna.cloud.coordinator import _body
from reuna.cloud.holdings import Holdings
from reuna.cloud.train import Conductor, Outcome
from reuna.core.errors import PlanError, RunProblem
from reuna.core.ports import Journal
from reuna.core.records import RunSpec
from reuna.exchange.admission import Admission
from reuna.loop.plan import by_itself, retry
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.storage import MemoryBlobs
from reuna.wire import digest_bytes
from reuna.wire.build import NEEDED, PLAN, canonical, encode, sha256
from tests.contract.operator_api import Journal as Host

MODEL, CODE = b"a first model", b"the code"
SPEC = RunSpec(
    "r-1", "pumps", "t", "all", 3, "fedavg", {"north": ("e1",)}, digest_bytes(MODEL), len(MODEL), 3,
    digest_bytes(CODE), len(CODE),
)  # fmt: skip
NIGHT, DAY = (by_itself(SPEC, name, {}) for name in ("night", "day"))
WHY = "schedule nightly"


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def cloud(tmp_path: Path, host: Host) -> Coordinator:
    blobs = MemoryBlobs()
    for data in (MODEL, CODE):
        blobs.put(data)
    register = Register(tmp_path / "register.sqlite")
    admission = Admission("mill", "fog", "", register, ["north"], SystemClock())
    events = EventLog(tmp_path / "events.sqlite")
    holdings, builds = cast("Holdings", None), Builds(tmp_path / "builds", SystemClock())
    return Coordinator("cloud", blobs, events, cast("DbosHost", host), admission, holdings, builds)


async def test_the_reason_stays_with_a_run_and_is_listed(cloud: Coordinator) -> None:
    await cloud.submit(SPEC)
    await cloud.begin(WHY, NIGHT)
    assert (await cloud.asked("night")).why == WHY
    assert [(each["run"], each.get("why")) for each in await cloud.runs()] == [("r-1", None), ("night", WHY)]


async def test_one_is_begun_while_none_of_the_same_reason_goes_on(cloud: Coordinator, host: Host) -> None:
    await cloud.begin(WHY, NIGHT)
    with pytest.raises(RunProblem, match="run night, of schedule nightly, goes on"):
        await cloud.begin(WHY, DAY)
    await cloud.begin("schedule other", msgspec.structs.replace(DAY, run="other"))
    await cloud.begin(WHY, NIGHT)  # after a restart, at the same moment
    assert list(host.runs_) == ["night", "other"]
    host.states["night"] = "failed"
    await cloud.begin(WHY, DAY)
    assert list(host.runs_) == ["night", "other", "day"]


async def test_nobody_else_says_that_the_cloud_began_a_run(cloud: Coordinator) -> None:
    with pytest.raises(PlanError, match="Leave why out|says that the cloud begins it"):
        await cloud.submit(msgspec.structs.replace(SPEC, why=WHY))


def test_a_person_who_tries_again_is_a_person_and_a_schedule_of_a_retry_is_none() -> None:
    scheduled = msgspec.structs.replace(NIGHT, why=WHY)
    assert (retry(scheduled, "r-2").why, retry(scheduled, "r-2").retries) == ("", "night")
    again = by_itself(retry(scheduled, "r-2"), "later", {"south": ("e2",), "empty": ()})
    assert (again.retries, again.why, again.fogs) == ("", "", {"south": ("e2",)})
    assert by_itself(SPEC, "later", {"north": ()}).fogs == SPEC.fogs
    deep = by_itself(
        SPEC, "later", {"firm": (), "south": ("e2",), "empty": ()}, {"south": "firm", "empty": "firm"}
    )
    assert (deep.fogs, deep.above) == ({"firm": (), "south": ("e2",)}, {"south": "firm"})


class Crash(Exception):
    """Power cut."""


class Trained:
    """A conductor whose rounds are over."""

    async def body(self, _journal: Journal, _spec: RunSpec) -> Outcome:
        return {"model": SPEC.model, "rounds": 3, "federated": {"e1": {"all": 0.7}}}


@pytest.mark.parametrize("at", [("before", "gates"), ("done", "gates"), ("after", "gates")])
async def test_a_cloud_that_is_killed_while_it_judges_tells_the_same_once(
    cloud: Coordinator, at: tuple[str, str]
) -> None:
    gates = [{"metric": "all", "limit": "min", "bound": 0.9}]
    data = encode("pumps", dict.fromkeys(NEEDED, b"{}\n") | {PLAN: canonical({"gates": gates})})
    cloud.builds.put(sha256(data), data)
    spec = msgspec.structs.replace(NIGHT, why=WHY, build=sha256(data))
    store, text = JournalStore(), msgspec.json.encode(spec).decode()

    def cut(*where: str) -> None:
        if where == at:
            raise Crash

    async def life(hook: Any = None) -> Outcome:
        journal = SimJournal(store, SystemClock(), hook)
        return await _body(cloud, cast("Conductor", Trained()), journal, text)

    with pytest.raises(Crash):
        await life(cut)
    outcome = await life()
    assert (outcome["gates"]["decision"], outcome["gates"]["worst"]["site"]) == ("fail", "e1")
    told = [each["fields"] for each in cloud.timeline("night", 0) if each["what"] == "gates"]
    assert told == [{"decision": "fail"}]


async def test_what_the_gates_of_a_run_said_is_listed_when_it_is_done(cloud: Coordinator) -> None:
    spec = msgspec.structs.replace(NIGHT, why=WHY, build="ab" * 32)
    worst = {"gate": "all min", "site": "e1"}
    outcome = {"gates": {"decision": "fail", "worst": worst, "verdicts": [worst] * 100}}

    class Done(Host):
        async def status(self, run: str) -> dict[str, Any]:
            return {"state": "done", "result": outcome}

        async def runs(self, limit: int, kind: str = "train") -> list[tuple[str, str, float, str]]:
            return [("night", "done", 1.0, msgspec.json.encode(spec).decode())]

    cloud.host = cast("DbosHost", Done())
    (found,) = await cloud.runs()
    assert found["gates"] == {"decision": "fail", "worst": worst}
