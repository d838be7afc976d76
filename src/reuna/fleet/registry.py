"""Releases as a tracking server shows them: versions of a registered model, and which is champion.

The catalogue is what is true. Sent again, nothing changes; what a server that was away has missed comes
with the next `reuna mlflow sync`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from reuna.core.errors import ReunaError, StorageError, Untrusted
from reuna.core.ports import Tracker
from reuna.core.tracking import Registered, Tracked
from reuna.fleet.release import ALIASES, ENDING, Catalogue, lineage
from reuna.fleet.tracking import GRACE_S, alone, run_began, scores
from reuna.wire import release as wire
from reuna.wire.release import Release

log = logging.getLogger(__name__)
FILES = (wire.MODEL, wire.BINS, wire.CARD, wire.CONTRACT, wire.GATES, wire.LINEAGE)  #: code stays where it is


def registered(found: Release, experiment: str = "") -> Registered:
    """A release as a version of a model. Raises `Corrupted`."""
    about, history = found.manifest.about, lineage(found)
    commit = str(history["source"].get("commit", ""))
    worst = history["worst_site"] or {}
    tags = {
        "reuna.project": about.project,
        "reuna.version": str(about.version),
        "reuna.run": about.run,
        "reuna.model": about.model,
        **({"reuna.commit": commit} if commit else {}),
        **({"reuna.worst_site": str(worst["site"])} if worst else {}),
    }
    return Registered(
        model=about.project,
        version=about.version,
        digest=found.digest,
        run=_run(found, history, experiment),
        files={name: found.parts[name] for name in FILES},
        tags=tags,
        text=f"Release {about.version} of {about.project}, {found.digest}; its card is {wire.CARD}.",
    )


def _run(found: Release, history: Mapping[str, Any], experiment: str) -> Tracked:
    """What a release knows of its run, for a server that has not seen it."""
    about = found.manifest.about
    began = run_began(about.run, 0.0)
    return Tracked(
        run=about.run,
        experiment=experiment or about.project,
        began_s=began,
        ended_s=began,
        tags={"reuna.project": about.project, "reuna.model": about.model},
        measures=scores({**history, "bytes_by_kind": {}}, began),
    )


def catalogues(releases: Path) -> list[Catalogue]:
    """Of every project in the folder of all releases."""
    return [Catalogue(folder) for folder in sorted({file.parent for file in releases.glob(f"*/*{ENDING}")})]


def send_releases(
    tracker: Tracker, catalogue: Catalogue, experiment: str = "", only: Collection[int] | None = None
) -> dict[str, str]:
    """Make a tracker hold a project's releases and aliases; what was done with each, as ``pumps 1``.

    A release that cannot be read is said and left out. ``only``: of these versions. Raises as `Tracker`.
    """
    done: dict[str, str] = {}
    with alone(catalogue.folder):
        digests: dict[int, tuple[str, str]] = {}
        for version in catalogue.versions():
            if only is not None and version not in only:
                continue
            try:
                each = registered(catalogue.read(version), experiment)
            except (Untrusted, StorageError) as error:
                done[f"{catalogue.folder.name} {version}"] = f"left out: {error.message}"
                continue
            digests[version] = (each.model, each.digest)
            done[f"{each.model} {version}"] = tracker.register(each)
        _point(tracker, catalogue, digests)
    return done


def _point(tracker: Tracker, catalogue: Catalogue, digests: Mapping[int, tuple[str, str]]) -> None:
    """The aliases of today. A release that could not be read keeps no name."""
    names = catalogue.aliases()
    for model in {model for model, _ in digests.values()}:
        of = {version: digest for version, (its, digest) in digests.items() if its == model}
        tracker.point(model, {alias: of.get(names.get(alias, 0), "") for alias in ALIASES})


def show(
    open_tracker: Callable[[], Tracker],
    catalogue: Catalogue,
    say: Callable[[str], None],
    grace_s: float = GRACE_S,
) -> None:
    """Send those that have a name, in a thread that nobody waits for longer than ``grace_s``. Never raises.

    ``say`` gets one line when not all is there.
    """
    trouble: list[str] = []

    def work() -> None:
        try:
            send_releases(open_tracker(), catalogue, only=set(catalogue.aliases().values()))
        except ReunaError as error:
            trouble.append(error.message)
        except Exception as error:  # whatever happens in here, the release is made
            log.debug("showing releases ended", exc_info=error)
            trouble.append(repr(error))

    thread = threading.Thread(target=work, name="registry", daemon=True)
    thread.start()
    thread.join(grace_s)
    if thread.is_alive():
        trouble.append(f"MLflow has not taken this within {grace_s:g} s")
    if trouble:
        say(f"{trouble[0]}. `reuna mlflow sync` sends later what is not there yet.")
