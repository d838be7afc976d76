"""One run on a fleet that lives just for it: start, train, compare, write the result, stop.

What `reuna run` and `reuna demo` do. The fleet's keys are removed at the end whatever happens;
logs, result and report stay under ``runs/<id>/``, and of a cancelled run nothing.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.files import replace_file
from reuna.adapters.nats_server import find_server
from reuna.adapters.project import blame_project, load_entry, pack_bundle
from reuna.adapters.trust_keys import read_key
from reuna.core import bins
from reuna.core.contract import Contract, contract
from reuna.core.contract_report import contract_reports, told_last
from reuna.core.errors import ReunaError, RunFailed, Unreachable
from reuna.core.project import ProjectSettings
from reuna.core.records import Flow, RunSpec
from reuna.core.tensors import layout_of, pack
from reuna.core.tree import with_edges
from reuna.exchange.arrivals import WRITTEN_S, Counts
from reuna.fleet import departures
from reuna.fleet.allowed import of_run
from reuna.fleet.approval import decided, is_yes, verdict
from reuna.fleet.baseline import Centralised, run_centralised
from reuna.fleet.bill import keep_build
from reuna.fleet.client import Operator
from reuna.fleet.code import allow_code
from reuna.fleet.data import DataNode, sites_of, spread
from reuna.fleet.departures import entries_of
from reuna.fleet.joined import heard
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.officer import amend, key_file
from reuna.fleet.result import check_result
from reuna.fleet.scaling import measure_scaling
from reuna.fleet.supervise import Supervisor, failed, undisturbed
from reuna.fleet.unchanged import Taken
from reuna.fleet.windows import data_windows
from reuna.loop.plan import run_id
from reuna.loop.release import judge_run
from reuna.loop.validate import site_rows, worst_site
from reuna.wire import digest_bytes

LOGS = "logs"  #: in a run's folder: what its places had to say
READY_S = 60.0
POLL_S = 0.2
AWAY_S = 5.0  #: a cloud that did not answer for so long is spoken of
Watch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """What to run: a project, its settings, where each node's data lies, where results go."""

    project: Path
    settings: ProjectSettings
    nodes: list[DataNode]
    runs: Path
    fogs: int | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    preset: str = "local"  #: starter policy of the sites
    amend: dict[str, tuple[str, str]] = field(default_factory=dict)  #: node -> what its policy says otherwise
    named: str = ""  #: what people call the project's folder, where that is another one than ``project``
    build: Path | None = None  #: the build that is run; the run keeps it
    scaling: bool = False  #: also measure the pooled data on eight equal devices
    kept: str = ""  #: digest of the build it is begun from, which the fleet's cloud keeps
    inputs: Taken | None = None  #: what it is asked with, to be found again by


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder and the content of its ``result.json``."""

    folder: Path
    result: dict[str, Any]


@dataclass(frozen=True)
class Course:
    """A run on its way: where, who asks and watches, and what was counted when it began.

    ``began`` by the monotonic clock, s; ``since`` in seconds since the epoch; ``before`` what had come down.
    ``stays``: the fleet goes on when the run is done.
    """

    job: Job
    fleet: Fleet
    operator: Operator
    folder: Path
    watch: Watch
    supervisor: Supervisor | None
    began: float
    since: float
    before: Mapping[str, Counts]
    stays: bool = False


@dataclass(frozen=True)
class Measured:
    """What was counted on the way: the nodes' ledgers, what came down to them, peak MiB by process,
    the timeline, seconds.
    """

    left: departures.Entries
    came: list[Flow]
    peaks: dict[str, float]
    timeline: list[dict[str, Any]]
    wall_s: float


async def carry_out(job: Job, watch: Watch) -> Finished:
    """Run the whole job on a fleet that lives just for it; ``watch`` is told every event of the timeline.

    Cancelled, it leaves nothing behind; failed, the places' logs. Raises `ServerMissing` before anything
    is written.
    """
    find_server()
    first = not job.runs.exists()
    folder = new_run(job)
    try:
        return await _on_own_fleet(job, folder, watch)
    except asyncio.CancelledError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except RunFailed as error:
        raise RunFailed(error.message, f"The logs of every place are in {folder / LOGS}.") from error
    finally:
        shutil.rmtree(folder / "fleet", ignore_errors=True)
        for emptied in (folder, job.runs) if first else (folder,):
            with suppress(OSError):  # something is in it
                emptied.rmdir()


async def _on_own_fleet(job: Job, folder: Path, watch: Watch) -> Finished:
    fleet = make_fleet(folder / "fleet", "local", spread(job.nodes, job.fogs), preset=job.preset)
    for node, (old, new) in job.amend.items():
        amend(fleet.folder / node / "policy.toml", read_key(key_file(fleet.folder)), old, new)
    sign_code(job, fleet, watch)  # before the nodes look: what nodes look for first has it
    supervisor = Supervisor(fleet)
    try:
        await supervisor.start()
        return await _work(job, fleet, Operator.of(fleet), folder, watch, supervisor)
    finally:
        await undisturbed(supervisor.stop())
        with suppress(OSError):  # a full disk: what ended the run is to be heard, not that
            keep_logs(fleet, folder / LOGS)


async def carry_out_on(
    fleet: Fleet, operator: Operator, job: Job, watch: Watch, supervisor: Supervisor | None = None
) -> Finished:
    """Run the job on a fleet that is up already and stays so, as that operator or account.

    ``supervisor``: of a fleet that was made for this job alone, so that all that was counted is of it.
    """
    folder = new_run(job)
    try:
        return await _work(job, fleet, operator, folder, watch, supervisor, stays=True)
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def nodes_of(fleet: Fleet) -> list[DataNode]:
    """The edges of a fleet: on this machine each is a site of its own, of joined ones each fog is one."""
    edges = [(place.name, fleet.setting("data", place.name)) for place in fleet.of("edge")]
    here = [DataNode(name, name, Path(data)) for name, data in edges]
    return here + [DataNode(name, fog, Path()) for fog, names in fleet.joined.items() for name in names]


def fogs_of(fleet: Fleet) -> dict[str, tuple[str, ...]]:
    """The edges directly under each fog."""
    here = {place.name: tuple(fleet.setting("edges", place.name)) for place in fleet.of("fog")}
    return {**here, **fleet.joined}


def new_run(job: Job) -> Path:
    """The folder of a new run; its name is the run's."""
    folder = job.runs / run_id(time.time(), secrets.token_hex(2))
    folder.mkdir(parents=True)
    return folder


async def _work(
    job: Job,
    fleet: Fleet,
    operator: Operator,
    folder: Path,
    watch: Watch,
    supervisor: Supervisor | None,
    *,
    stays: bool = False,
) -> Finished:
    course = replace(on_its_way(job, fleet, operator, folder, watch, supervisor), stays=stays)
    await undisturbed(asyncio.to_thread(sign_code, job, fleet, watch))
    if job.inputs is not None:
        course = replace(course, job=replace(job, inputs=job.inputs.retaken()))
    spec, model = await undisturbed(asyncio.to_thread(prepare, job, fleet, folder.name))
    await present(course)
    outcome = await train(operator, spec, model, job, watch)
    return await finish(course, spec, outcome)


def on_its_way(
    job: Job, fleet: Fleet, operator: Operator, folder: Path, watch: Watch, supervisor: Supervisor | None
) -> Course:
    """Count from now on; of a fleet of the run's own everything counts."""
    since = time.time() if supervisor is None else 0.0
    before = departures.arrived(fleet) if supervisor is None else {}
    return Course(job, fleet, operator, folder, watch, supervisor, time.monotonic(), since, before)


async def present(course: Course) -> None:
    """Until the nodes are there. Raises `ServerFailed`, `Unreachable`."""
    fleet, operator = course.fleet, course.operator
    if fleet.joined:
        await heard(fleet, operator, course.job.settings.quorum)
    else:
        await ready(fleet, operator, course.supervisor, course.folder / LOGS)


async def finish(course: Course, spec: RunSpec, outcome: dict[str, Any]) -> Finished:
    """Compare, count, and write the result of a run that is done."""
    job, fleet, operator, folder = course.job, course.fleet, course.operator, course.folder
    done = time.monotonic()
    final = await asyncio.to_thread(operator.get_blob, outcome["model"])
    pooled = job.settings.centralised and not fleet.joined  # nobody holds the rows of joined machines
    course.watch({"what": "centralised"} if pooled else {"what": "closing"})
    central = await run_centralised(job, folder) if pooled else None
    peaks = course.supervisor.sample() if course.supervisor is not None else {}
    notes = {**job.notes, **(job.inputs.note(job.runs) if job.inputs is not None else {})}
    if job.scaling:
        course.watch({"what": "scaling"})
        notes["scaling"] = await measure_scaling(job)
    events = await asyncio.to_thread(operator.timeline, spec.run, 0)
    if course.supervisor is not None and not course.stays:
        await course.supervisor.stop()  # what the ledgers had allowed ahead is settled
    else:
        await asyncio.sleep(
            max(0.0, done + 2 * WRITTEN_S - time.monotonic())
        )  # nodes write that down on their own
    left, came = entries_of(fleet, course.since), departures.came(fleet, course.before)
    measured = Measured(left, came, peaks, events, time.monotonic() - course.began)
    approved = await asyncio.to_thread(of_run, fleet, operator, spec)
    result = check_result({**assemble(job, spec, outcome, measured, central), **approved, **notes})
    write(folder, result, final)
    if job.build is not None:
        keep_build(job.build, folder)
    return Finished(folder, result)


def prepare(job: Job, fleet: Fleet, run: str) -> tuple[RunSpec, tuple[bytes, bytes]]:
    """The run's spec, and its bundle and initial model; the code may run where the keys for that lie here."""
    spec, parts = described(job, fleet, run)
    allow_code(fleet, parts[0], job.settings.name)
    return spec, parts


def described(job: Job, fleet: Fleet, run: str) -> tuple[RunSpec, tuple[bytes, bytes]]:
    """The run's spec, and its bundle and initial model."""
    settings = job.settings
    entry = load_entry(job.project, settings.entry)
    with blame_project(job.project, "making the learner"):
        tensors = entry.learner(settings.settings).init(settings.seed)
    bundle, model = pack_bundle(job.project), pack(tensors)
    fogs, above = with_edges(fogs_of(fleet), fleet.above)
    spec = RunSpec(
        run=run,
        project=settings.name,
        task=settings.task,
        metric=settings.metric,
        rounds=settings.rounds,
        strategy=settings.strategy,
        fogs=fogs,
        model=digest_bytes(model),
        model_size=len(model),
        params=layout_of(tensors).params,
        bundle=digest_bytes(bundle),
        bundle_size=len(bundle),
        seed=settings.seed,
        grid=settings.grid,
        encoding=settings.encoding,
        max_weight=settings.max_weight,
        deadline_s=settings.deadline_s,
        quorum=settings.quorum,
        asking=settings.asking,
        settings=dict(settings.settings),
        local=settings.local,
        build=job.kept,
        above=above,
    )
    return spec, (bundle, model)


def sign_code(job: Job, fleet: Fleet, watch: Watch) -> None:
    """Let the run's code run where the keys for that lie in the fleet's folder; say what is done or lacks."""
    done = allow_code(fleet, pack_bundle(job.project), job.settings.name)
    if done.vouched is None:
        return  # should it wait, the cloud says so
    said = {"bundle": done.digest, "trust": fleet.setting("trust"), "project": job.named or str(job.project)}
    if not done.vouched:
        watch({"what": "unsigned", "fields": said})
    elif done.signed:
        watch({"what": "signed", "fields": said})


async def ready(
    fleet: Fleet,
    operator: Operator,
    supervisor: Supervisor | None,
    logs: Path | None = None,
    within_s: float = READY_S,
) -> None:
    """Until every node has been heard of. Raises `ServerFailed` with the log of one that was not.

    ``logs`` is where the places' logs go when the fleet ends.
    """
    wanted = {place.name: place for place in fleet.places if place.kind != "cloud"}
    deadline = time.monotonic() + within_s
    heard: set[str] = set()
    while time.monotonic() < deadline:
        for place in fleet.places:
            if supervisor is not None and supervisor.restarts.get(place.name, 0) >= 3:
                raise failed(place, logs)
        try:
            heard = set(await asyncio.to_thread(operator.nodes))
        except Unreachable:
            heard = set()
        if wanted.keys() <= heard:
            return
        await asyncio.sleep(POLL_S)
    raise failed(next(place for name, place in wanted.items() if name not in heard), logs)


async def train(
    operator: Operator, spec: RunSpec, parts: tuple[bytes, bytes], job: Job, watch: Watch
) -> dict[str, Any]:
    """Submit the run and follow it to its end. Raises `RunFailed`."""
    for data in parts:
        await asyncio.to_thread(operator.put_blob, data)
    watch(handed_over(spec.run))
    proposal = await asyncio.to_thread(operator.submit, spec)
    if proposal:
        watch({"what": "waiting", "proposal": proposal})
        await agreed(operator, proposal)
    return await follow(operator, spec.run, watch)


def handed_over(run: str) -> dict[str, Any]:
    """The event from which on a run is the cloud's, and goes on without whoever watches."""
    return {"what": "handed over", "run": run}


async def agreed(operator: Operator, number: str) -> None:
    """Until a second person has said yes to a proposal. Raises `RunFailed` when they said no."""
    found = await decided(operator, number)
    if not is_yes(found):
        raise RunFailed(verdict(found))


async def follow(operator: Operator, run: str, watch: Watch) -> dict[str, Any]:
    """Tell ``watch`` of every event until the run ends; its outcome. Raises `RunFailed`.

    A cloud that is away is asked again for ever; ``watch`` hears when that lasts, and when it is over.
    """
    seen, status, line = 0, {"state": "running"}, _Line(watch)
    with operator.staying() as asking:
        while True:
            try:
                events = await asyncio.to_thread(asking.timeline, run, seen)
                if not events and status["state"] == "running":  # while events come it has not ended
                    status = await asyncio.to_thread(asking.status, run)
                    events = await asyncio.to_thread(asking.timeline, run, seen) if _ended(status) else []
            except Unreachable:
                line.failed()
                await asyncio.sleep(POLL_S)
                continue
            line.answered()
            for event in events:
                watch(event)
            seen += len(events)
            if _ended(status):
                return _outcome(run, status)
            await asyncio.sleep(POLL_S)


class _Line:
    """Says once that the cloud is away, when that has lasted, and that it is back."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._heard, self._said = time.monotonic(), False

    def failed(self) -> None:
        if not self._said and time.monotonic() - self._heard >= AWAY_S:
            self._said = True
            self._watch({"what": "away"})

    def answered(self) -> None:
        self._heard = time.monotonic()
        if self._said:
            self._said = False
            self._watch({"what": "back"})


def _ended(status: Mapping[str, Any]) -> bool:
    return bool(status["state"] != "running")


def _outcome(run: str, status: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run that has ended. Raises `RunFailed`."""
    if status["state"] == "cancelled":
        raise RunFailed(f"run {run} was stopped", f"Go on with it: `reuna resume {run} --fleet …`.")
    if status["state"] == "failed":
        raise RunFailed(f"run {run} failed: {status.get('message', 'no reason given')}")
    outcome: dict[str, Any] = status["result"]
    return outcome


def assemble(
    job: Job,
    spec: RunSpec,
    outcome: dict[str, Any],
    measured: Measured,
    central: Centralised | None,
) -> dict[str, Any]:
    """The content of ``result.json``; its schema is docs/reference/result.md."""
    scores = {"local": outcome.get("local", {}), "federated": outcome.get("federated", {})}
    if central is not None:
        scores["centralised"] = central.scores
    rows = site_rows(sites_of(job.nodes), scores)
    flows, peaks = departures.flows(measured.left), dict(measured.peaks)
    if central is not None:
        peaks["centralised"] = central.peak_mib
    found = {
        "run": spec.run,
        "project": spec.project,
        "task": spec.task,
        "metric": spec.metric,
        "sites": [row.as_dict() for row in rows],
        "worst_site": worst_site(rows, spec.metric),
        "bytes_by_kind": _summed(flows, lambda flow: flow.kind),
        "bytes_by_link": _summed([*flows, *measured.came], lambda flow: flow.link),
        "flows": _lines(flows),
        "came": _lines(measured.came),
        "left_by_rule": departures.rules(measured.left),
        "contract": contract_reports(measured.timeline, contract(spec.settings)),
        "bins": reference_bins(measured.timeline, contract(spec.settings)),
        "data": data_windows(measured.timeline),
        "refused": refused_updates(measured.timeline),
        "saturated": sum(e["fields"]["saturated"] for e in measured.timeline if e["what"] == "round"),
        "refused_by_policy": departures.refused(measured.left),
        "wall_s": round(measured.wall_s, 2),
        "wall_by_method_s": wall_by_method(measured.timeline, central),
        "rounds": outcome["rounds"],
        "strategy": spec.strategy,
        "timeline": [event for event in measured.timeline if event["what"] != bins.WHAT],
        "centralised_s": None if central is None else round(central.wall_s, 2),
        "processes": [{"name": name, "peak_mib": round(peak, 1)} for name, peak in sorted(peaks.items())],
        "model_digest": outcome["model"],
        "asked": msgspec.to_builtins(spec),
    }
    if job.settings.gates:
        asked = job.settings
        judged = judge_run(asked.gates, found, machines=asked.machines, offline=asked.offline)
        found["gates"] = judged.as_dict()
    return found


def wall_by_method(timeline: list[dict[str, Any]], central: Centralised | None) -> dict[str, float]:
    """Seconds of each way of training with its evaluation, apart; the federated rounds from first to last."""
    rounds = sorted((e for e in timeline if e["what"] == "round"), key=lambda e: int(e["round"]))
    asked = {e["what"]: float(e["fields"]["seconds"]) for e in timeline if e["what"] in ("local", "evaluate")}
    took = {"local": asked["local"]} if "local" in asked else {}
    if rounds:
        began = rounds[0]["at"] - rounds[0]["fields"]["seconds"]
        took["federated"] = rounds[-1]["at"] - began + asked.get("evaluate", 0.0)
    if central is not None:
        took["centralised"] = central.wall_s
    return {method: round(seconds, 2) for method, seconds in took.items()}


def refused_updates(timeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How often fogs and cloud refused what a node sent, by place, sender and reason."""
    counts = Counter[tuple[str, ...]]()
    for event in timeline:
        if event["what"] == "refused":
            told = {tuple(key.split("/")): times for key, times in event["fields"].items() if "/" in key}
            counts.update(told)
    return [
        {"at": at, "sender": sender, "reason": reason, "times": times}
        for (at, sender, reason), times in sorted(counts.items())
    ]


def reference_bins(timeline: list[dict[str, Any]], agreed: Contract) -> dict[str, Any]:
    """What nodes told last of how the values they train on are spread, summed."""
    return bins.merged(agreed, [fields for _, fields in sorted(told_last(timeline, bins.WHAT).items())])


def _lines(flows: list[Flow]) -> list[dict[str, Any]]:
    return [{"link": f.link, "kind": f.kind, "bytes": f.payload_bytes, "messages": f.messages} for f in flows]


def _summed(flows: list[Flow], key: Callable[[Flow], str]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for flow in flows:
        sums[key(flow)] = sums.get(key(flow), 0) + flow.payload_bytes
    return sums


def write(folder: Path, result: dict[str, Any], model: bytes) -> None:
    """``result.json``, ``report.html`` and ``model.safetensors``."""
    from reuna.fleet.report import render

    (folder / "model.safetensors").write_bytes(model)
    replace_file(folder / "result.json", (json.dumps(result, indent=2) + "\n").encode(), 0o644)
    (folder / "report.html").write_text(render(result), encoding="utf-8")


def keep_logs(fleet: Fleet, logs: Path) -> None:
    """Copy the logs of every place as ``<place>-<file>``."""
    found = [(place, log) for place in fleet.places for log in sorted(place.folder.rglob("*.log"))]
    if found:
        logs.mkdir(exist_ok=True)
    for place, log in found:
        shutil.copyfile(log, logs / f"{place.name}-{log.name}")


def explain(error: ReunaError) -> str:
    """An error as a person reads it."""
    return f"{error.message}\n→ {error.next_step}  [{error.code}]"
