"""Writes runs into MLflow so that writing them again changes nothing.

A run of ours is found by its tag ``reuna.run``, never by MLflow's own id. Whatever is there already is
not sent again: a point of a curve by its step, a parameter by its name, a file with the version that the
tag ``reuna.version`` gives. So a write that was cut anywhere is continued by writing once more.

MLflow is imported only here and only when a store is opened; it takes half a second.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reuna.adapters.mlflow_tracking import registry
from reuna.adapters.mlflow_tracking.names import LONGEST, cut, digest, key, whole
from reuna.core.errors import ExtraMissing, NotUsable, PermissionDenied, Unreachable
from reuna.core.tracking import Measure, Registered, Tracked

RUN, VERSION, NAME = "reuna.run", "reuna.version", "reuna.name"
METRICS_A_CALL = 1000  #: MLflow's own limit
TEXTS_A_CALL = 20  #: of the longest, a call stays below MLflow's megabyte
LONGEST_PARAM, LONGEST_TAG = 6000, 5000
#: What MLflow would do for minutes; whoever calls us tries again anyway. The user's own values win.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would call its makers
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where our --json goes
}
DENIED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
LASTING = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "NOT_IMPLEMENTED", "ENDPOINT_NOT_FOUND")
_SECRET = re.compile(r"(?<=://)[^/@\s]*@")  #: user and password in an address


@dataclass
class _There:
    """What MLflow has of one run."""

    id: str
    version: str
    deleted: bool
    params: set[str]
    single: Mapping[str, float]  #: newest value by key
    steps: dict[str, set[int]] = field(default_factory=dict)  #: by key, of the curves that were asked for


class MlflowStore:
    """One MLflow server, or database file, at a tracking URI.

    Blocking; for one thread. Raises `Unreachable` when it may work later, `PermissionDenied`, `NotUsable`.
    """

    def __init__(self, uri: str, artifacts: Path | None = None) -> None:
        """``artifacts``: where files of new experiments go when no server takes them.

        Raises `ExtraMissing`, `NotUsable`.
        """
        self.uri = shown_uri(uri)
        self._artifacts = artifacts
        self._known: dict[str, _There] = {}
        self._experiments: dict[str, str] = {}
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ExtraMissing("MLflow is not installed", "Run `pip install 'reuna[mlflow]'`.") from error
        _quieten()
        self._foreign = (MlflowException, OSError)  # requests' errors are OSErrors
        with self._translated():
            self._client = MlflowClient(tracking_uri=uri)

    def put(self, run: Tracked) -> str:
        """Make MLflow hold all of ``run``: ``sent``, ``unchanged``, or ``deleted`` when somebody did there.

        A deleted run stays so.
        """
        try:
            with self._translated():
                return self._put(run)
        except BaseException:
            self._known.pop(run.run, None)  # part of it may have arrived
            self._experiments.clear()
            raise

    def find(self, run: str) -> str:
        """MLflow's own id of a run of ours, '' when it is not there: what a registered version points to."""
        with self._translated():
            there = self._search(run)
        return there.id if there is not None else ""

    def register(self, release: Registered) -> str:
        """Make MLflow hold a release once, linked to its run: ``sent``, ``unchanged``, or ``deleted`` there.

        A run that MLflow does not have is made of what the release knows of it; its result completes it.
        """
        with self._translated():
            there = self._search(release.run.run)
            if there is None:
                self._put(release.run)
                there = self._search(release.run.run)
            if there is None or there.deleted:
                return "deleted"
            return registry.register(self._client, there.id, release)

    def point(self, model: str, aliases: Mapping[str, str]) -> None:
        """Let aliases of a registered model name the versions with these digests, '' for none."""
        with self._translated():
            registry.point(self._client, model, aliases)

    def _put(self, run: Tracked) -> str:
        there = self._known.get(run.run) or self._search(run.run) or self._create(run)
        if there.deleted:
            return "deleted"
        if run.version and there.version == run.version:
            return "unchanged"
        self._known[run.run] = there
        self._log(there, run)
        for file in run.files:
            self._client.log_artifact(there.id, file)
        if run.ended_s is not None:
            status = "FAILED" if run.failed else "FINISHED"
            self._client.set_terminated(there.id, status, int(run.ended_s * 1000))
        if run.version:
            self._client.set_tag(there.id, VERSION, run.version)  # last: all else is there
            self._known.pop(run.run)
        return "sent"

    def _log(self, there: _There, run: Tracked) -> None:
        """What is not there yet, in calls as large as MLflow takes them."""
        from mlflow.entities import Metric, Param, RunTag

        named = [(key(each.name), each) for each in run.measures]
        new = self._missing(there, named)
        params = {key((name,)): value for name, value in run.params.items()}
        texts = [Param(k, v[:LONGEST_PARAM]) for k, v in params.items() if k not in there.params]
        tags = {**run.tags, **{f"{NAME}.{digest(m.name)}": whole(m.name) for k, m in named if cut(k)}}
        for part in _batches([RunTag(k[:LONGEST], v[:LONGEST_TAG]) for k, v in tags.items()], TEXTS_A_CALL):
            self._client.log_batch(there.id, tags=part)
        for part in _batches(texts, TEXTS_A_CALL):
            self._client.log_batch(there.id, params=part)
        there.params |= {each.key for each in texts}
        for each in _batches(new, METRICS_A_CALL):
            metrics = [Metric(k, m.value, int(m.at_s * 1000), m.step) for k, m in each]
            self._client.log_batch(there.id, metrics=metrics)
            for k, m in each:
                there.steps.setdefault(k, set()).add(m.step)

    def _missing(self, there: _There, named: Sequence[tuple[str, Measure]]) -> list[tuple[str, Measure]]:
        """Those whose step is not there; each step of each key once."""
        new, seen = [], set()
        for k, measure in named:
            if k not in there.steps:
                there.steps[k] = self._steps(there, k)
            if measure.step not in there.steps[k] and (k, measure.step) not in seen:
                seen.add((k, measure.step))
                new.append((k, measure))
        return new

    def _steps(self, there: _There, name: str) -> set[int]:
        if name not in there.single:  # no question for what is new
            return set()
        return {each.step for each in self._client.get_metric_history(there.id, name)}

    def _search(self, run: str) -> _There | None:
        """The run with our tag, also a deleted one; the oldest when two writers made one each."""
        from mlflow.entities import ViewType

        if "'" in run:
            raise NotUsable(f"{run!r} is no name of a run", "Correct `run` in its result.json.")
        ids = [each.experiment_id for each in self._all_experiments()]
        where = f"tags.`{RUN}` = '{run}'"
        found = self._client.search_runs(ids, where, ViewType.ALL, order_by=["attributes.start_time ASC"])
        kept = sorted(found, key=lambda each: each.info.lifecycle_stage == "deleted")
        return _there(kept[0]) if kept else None

    def _all_experiments(self) -> Iterator[Any]:
        """Page by page: somebody may have moved a run's experiment to another name."""
        from mlflow.entities import ViewType

        token = None
        while True:
            page = self._client.search_experiments(ViewType.ALL, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _create(self, run: Tracked) -> _There:
        experiment = self._experiment(run.experiment)
        made = self._client.create_run(experiment, int(run.began_s * 1000), {RUN: run.run}, run.run)
        return _there(made)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "deleted":
                raise NotUsable(
                    f"the experiment {name!r} is deleted at {self.uri}",
                    f"Restore it (`mlflow experiments restore -x {found.experiment_id}`), or name another: "
                    "`reuna mlflow sync --experiment NAME`.",
                )
            where = self._artifacts.absolute().as_uri() if self._artifacts is not None else None
            made = found.experiment_id if found is not None else self._client.create_experiment(name, where)
            self._experiments[name] = str(made)
        return self._experiments[name]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """MLflow's errors as ours, in one line and without what stands before an @ in the address."""
        try:
            yield
        except self._foreign as error:
            code = getattr(error, "error_code", "")
            lines = _SECRET.sub("", (str(error).strip().splitlines() or [type(error).__name__])[0])
            said = f"MLflow at {self.uri}: {lines[:300]}"
            if code in DENIED or any(f"error code {status} " in lines for status in (401, 403)):
                step = "Check MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN."
                raise PermissionDenied(said, step) from error
            if code in LASTING:
                raise NotUsable(said, "Check the address: MLFLOW_TRACKING_URI or --to.") from error
            step = "Nothing is lost: once it answers, `reuna mlflow sync` sends what is not there yet."
            raise Unreachable(said, step) from error


def shown_uri(uri: str) -> str:
    """A tracking URI without user and password."""
    return _SECRET.sub("", uri)


def _there(run: Any) -> _There:
    deleted = run.info.lifecycle_stage == "deleted"
    data = run.data
    return _There(run.info.run_id, data.tags.get(VERSION, ""), deleted, set(data.params), dict(data.metrics))


def _batches(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    yield from (items[start : start + most] for start in range(0, len(items), most))


def _quieten() -> None:
    """Their progress is not ours to print; errors come as exceptions."""
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
