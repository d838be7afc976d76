"""Runs as a tracking server shows them: from ``result.json`` when they are over, from events before.

A round never waits for this. `Live` takes events into a bounded queue and a thread of its own sends them;
what does not fit or does not arrive is made up for when the run ends, or by `reuna mlflow sync`.
"""

from __future__ import annotations

import calendar
import fcntl
import hashlib
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from reuna.adapters.git import changes, open_checkout
from reuna.core.errors import PeerError, PermissionDenied, ProjectError, ReunaError
from reuna.core.ports import Tracker
from reuna.core.project import ProjectSettings
from reuna.core.tracking import Measure, Tracked
from reuna.fleet.gates import sentence
from reuna.loop.validate import METHODS

log = logging.getLogger(__name__)
FILES = ("report.html", "result.json", "model.safetensors")
CURVES = ("loss", "took_part", "bytes", "seconds", "saturated")  #: of each round, as the timeline has them
#: Setting as `reuna.toml` has it, and where a run's spec has it.
PARAMS = {
    "project.task": "task",
    "project.metric": "metric",
    "strategy.name": "strategy",
    "strategy.rounds": "rounds",
    "round.deadline_s": "deadline_s",
    "round.quorum": "quorum",
    "round.max_weight": "max_weight",
    "run.seed": "seed",
    "run.local": "local",
}
COMMIT = "mlflow.source.git.commit"  #: where MLflow itself looks for it
FORM = "1"  #: of what is made from a result; another one is sent again
QUEUED = 1000  #: events that wait for a slow server
GRACE_S = 10.0  #: how long a finished run waits until its server has all
NICE = 10  #: loading MLflow takes a processor for some seconds; the run has it first
PAUSE_S = 2.0  #: before a server that was away is tried again


def default_uri(runs: Path) -> str:
    """The database that comes without a server: one file beside the runs."""
    return f"sqlite:///{(runs / 'mlflow.db').absolute()}"


def open_store(runs: Path, uri: str) -> Tracker:
    """MLflow at ``uri``, or in the database beside the runs when that is ''. Raises `ExtraMissing`, …"""
    from reuna.adapters.mlflow_tracking.store import MlflowStore

    if uri:
        return MlflowStore(uri, None if uri.startswith(("http:", "https:")) else runs / "mlflow-artifacts")
    runs.mkdir(parents=True, exist_ok=True)
    return MlflowStore(default_uri(runs), runs / "mlflow-artifacts")


def tracked(folder: Path, result: Mapping[str, Any], experiment: str = "") -> Tracked:
    """A finished run as its folder has it."""
    asked = dict(result.get("asked") or {})
    told = {**{k: result[k] for k in ("task", "metric", "rounds", "strategy")}, **asked}
    came = [event["at"] for event in result["timeline"]]
    began = run_began(result["run"], min(came, default=0.0))
    ended = max([began + result["wall_s"], *came])
    digest = hashlib.sha256((folder / "result.json").read_bytes()).hexdigest()
    return Tracked(
        run=result["run"],
        experiment=experiment or result["project"],
        began_s=began,
        ended_s=ended,
        params=params(told),
        tags=tags(result, asked),
        measures=(*curves(result["timeline"]), *scores(result, ended)),
        files=tuple(str(folder / name) for name in FILES if (folder / name).is_file()),
        version=f"{FORM}-{digest[:32]}",
    )


def params(told: Mapping[str, Any]) -> dict[str, str]:
    """Settings by the names of `reuna.toml`, the project's own under ``settings``. ``told``: a run's spec."""
    found = {name: told[field] for name, field in PARAMS.items() if field in told}
    if "grid" in told:
        found["round.grid_bits"] = told["grid"]["bits"]
        found["round.grid_exponent"] = told["grid"]["exponent"]
    found |= {f"round.{name}": value for name, value in (told.get("asking") or {}).items()}
    if told.get("encoding"):
        found |= {f"round.{name}": value for name, value in told["encoding"].items()}
    own = {f"settings.{name}": value for name, value in told.get("settings", {}).items()}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in {**found, **own}.items()}


def tags(result: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, str]:
    """What a run is about, apart from numbers."""
    said = {"reuna.project": result["project"], "reuna.model": result["model_digest"]}
    if asked:
        said["reuna.code"] = asked["bundle"]
    worst = result.get("worst_site") or {}
    if worst:
        said["reuna.worst_site"] = worst["site"]
        said["reuna.worst_site.value"] = f"{worst['metric']} {worst['value']:.6g}"
    judged = result.get("gates")
    if judged:
        said["reuna.gates"] = judged["decision"]
        said["reuna.gates.why"] = sentence(judged)
    return said


def curves(timeline: list[dict[str, Any]]) -> tuple[Measure, ...]:
    """What each round measured, at the time it ended."""
    return tuple(
        Measure((name,), float(event["fields"][name]), int(event["round"]), event["at"])
        for event in timeline
        if event["what"] == "round"
        for name in CURVES
        if name in event["fields"]
    )


def scores(result: Mapping[str, Any], at_s: float) -> tuple[Measure, ...]:
    """What each way of training gave at each site, the worst site's, and what left the nodes."""
    step = int(result["rounds"])
    sites = [
        (("site", row["site"], method, name), value)
        for row in result["sites"]
        for method in METHODS
        for name, value in row.get(method, {}).items()
    ]
    left = [(("left", kind), count) for kind, count in result["bytes_by_kind"].items()]
    worst = result.get("worst_site") or {}
    found = [*sites, *left, *([(("worst_site", worst["metric"]), worst["value"])] if worst else [])]
    return tuple(Measure(name, float(value), step, at_s) for name, value in found)


def run_began(run: str, otherwise: float) -> float:
    """When a run began, by its name: seconds since the epoch."""
    try:
        return float(calendar.timegm(time.strptime(run[2:17], "%Y%m%d-%H%M%S")))
    except ValueError:
        return otherwise


def commit_of(project: Path) -> str:
    """The commit that a project's folder is exactly at, else ''."""
    try:
        checkout = open_checkout(project)
        return "" if changes(checkout) else checkout.commit
    except ProjectError:
        return ""


class Live:
    """Sends a run while it goes on, from a thread that nobody waits for longer than `GRACE_S`.

    ``open_tracker`` is called in that thread. ``say`` gets one line when something is not there, and no
    other until all is there again.
    """

    def __init__(
        self,
        open_tracker: Callable[[], Tracker],
        project: Path,
        settings: ProjectSettings,
        say: Callable[[str], None],
        pause_s: float = PAUSE_S,
    ) -> None:
        self._open, self._project, self._settings, self._say = open_tracker, project, settings, say
        self._pause_s = pause_s
        self._events: queue.Queue[dict[str, Any]] = queue.Queue(QUEUED)
        self._waiting: list[dict[str, Any]] = []
        self._known: Tracked | None = None  #: of the run, without its events
        self._folder = Path()
        self._last: Mapping[str, Any] | None = None  #: the result, once there is one
        self._over, self._said = threading.Event(), False
        self._tracker: Tracker | None = None
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def watch(self, event: dict[str, Any]) -> None:
        """One event of the run. Never waits, never raises; of too many the rest comes with the result."""
        try:
            self._events.put_nowait(event)
        except queue.Full:
            log.debug("one event more than can wait for the tracking server")

    def finish(self, folder: Path, result: Mapping[str, Any], grace_s: float = GRACE_S) -> bool:
        """The run is over; whether all of it is there after at most ``grace_s``. Never raises."""
        self._folder, self._last = folder, result
        return self._end(grace_s)

    def failed(self, grace_s: float = 2.0) -> bool:
        """The run ended without a result; what was shown of it stays, as failed."""
        return self._end(grace_s)

    def _end(self, grace_s: float) -> bool:
        self._over.set()
        self._thread.join(grace_s)
        if self._thread.is_alive():
            self._complain(f"MLflow has not taken all of this run within {grace_s:g} s")
        return not self._said

    def _work(self) -> None:
        with suppress(OSError, AttributeError):  # behind the places on the same machine
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            while not self._turn():
                self._over.wait(self._pause_s / 10)
        except Exception as error:  # whatever happens in here, the run goes on
            log.debug("tracking ended", exc_info=error)
            self._complain(f"not shown in MLflow: {error!r}")

    def _turn(self) -> bool:
        """Send what there is; True when nothing more will be sent."""
        over = self._over.is_set()  # asked first: what came before the end is sent
        self._take()
        try:
            self._send(over)
        except ReunaError as error:
            self._complain(f"{error.message}; the run goes on")
            self._over.wait(self._pause_s)
            return over or not passing(error)
        self._said = False
        return over

    def _take(self) -> None:
        while not self._events.empty():
            self._waiting.append(self._events.get_nowait())
        del self._waiting[:-QUEUED]

    def _send(self, over: bool) -> None:
        known = self._known or self._begun()
        if known is not None and (self._waiting or over):
            timeline, ended = list(self._waiting), over and self._last is None
            end = time.time() if ended else None
            self._at().put(replace(known, measures=curves(timeline), ended_s=end, failed=ended))
            self._known = replace(known, params={}, tags={})  # once is enough
            self._waiting.clear()
        if over and self._last is not None:
            send(self._at(), self._folder, self._last)

    def _at(self) -> Tracker:
        if self._tracker is None:
            self._tracker = self._open()
        return self._tracker

    def _begun(self) -> Tracked | None:
        """The run as its first event shows it."""
        first = next((event for event in self._waiting if event.get("run") and "at" in event), None)
        if first is not None:
            commit = commit_of(self._project)
            self._known = Tracked(
                run=first["run"],
                experiment=self._settings.name,
                began_s=run_began(first["run"], first["at"]),
                params=params(_told(self._settings)),
                tags={"reuna.project": self._settings.name, **({COMMIT: commit} if commit else {})},
            )
        return self._known

    def _complain(self, text: str) -> None:
        if not self._said:
            self._said = True
            self._say(f"{text}. `reuna mlflow sync` sends later what is not there yet.")


def send(tracker: Tracker, folder: Path, result: Mapping[str, Any], experiment: str = "") -> str:
    """Make a tracker hold a finished run: ``sent``, ``unchanged`` or ``deleted``."""
    with alone(folder):
        return tracker.put(tracked(folder, result, experiment))


def passing(error: ReunaError) -> bool:
    """Whether the same may work later."""
    return isinstance(error, PeerError) and not isinstance(error, PermissionDenied)


def _told(settings: ProjectSettings) -> dict[str, Any]:
    """Settings with the names that a run's spec gives them."""
    grid = {"bits": settings.grid.bits, "exponent": settings.grid.exponent}
    told = {name: getattr(settings, name) for name in PARAMS.values()}
    return {**told, "grid": grid, "settings": dict(settings.settings)}


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time sends what is in a folder, so that nothing is made twice."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
