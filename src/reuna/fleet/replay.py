"""A finished run carried out again from its result: same code, same data, who took part as recorded.

A round's model is a function of the one before, of the members' rows and of who the members were.
So a run in which nodes were missing, which no second run will repeat by itself, is repeated bit by
bit when the recorded members train again and nobody else. All of it happens in one process, on the
real round logic (`reuna.api.play`); the project's code runs as in `reuna.fleet.baseline`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from reuna.core.errors import DataError, NotReproduced, ReunaError
from reuna.core.records import RunSpec
from reuna.fleet.aside import aside
from reuna.fleet.data import DataNode
from reuna.fleet.report import rounds_of
from reuna.loop import train
from reuna.wire import digest_bytes


@dataclass(frozen=True)
class Replayed:
    """What a replay gave. ``differs`` is the first round with another model than the run's, 0 if none."""

    run: str
    model_digest: str
    replayed_digest: str
    differs: int

    @property
    def same(self) -> bool:
        """Whether the final models are equal, bit by bit."""
        return self.model_digest == self.replayed_digest


@dataclass(frozen=True)
class Recorded:
    """What a result says of a run: what was asked, who took part, the model after each round."""

    asked: RunSpec
    took_part: list[list[str]]
    models: list[str]
    updates: list[list[tuple[str, int]]]  #: of each round: node, and round of its update (0: the same)


def recorded(result: Mapping[str, Any]) -> Recorded:
    """What a replay needs. Raises `NotReproduced` for a result that does not say it."""
    rounds = rounds_of(result)
    kept = "asked" in result and all("members" in each for each in rounds)
    if not kept or len(rounds) != result["rounds"]:
        raise NotReproduced(
            f"the result of {result['run']} does not say who took part in each round",
            "It was written by an older version; replay a run of this one.",
        )
    members = [list(train.read_members(each["members"])) for each in rounds]
    spec = msgspec.convert(result["asked"], RunSpec)
    told = (train.read_updates(each["members"]) for each in rounds)
    updates = [[(node, base) for node, base, _ in each] for each in told]
    return Recorded(spec, members, [each["model"] for each in rounds], updates)


async def replay(project: Path, nodes: Sequence[DataNode], result: Mapping[str, Any]) -> Replayed:
    """Carry a finished run out again, in a process of its own.

    Raises `NotReproduced` when what lies here is not what the run had, `DataError`, `RunFailed`.
    """
    from reuna.adapters.project import pack_bundle

    found = recorded(result)
    if digest_bytes(pack_bundle(project)) != found.asked.bundle:
        raise NotReproduced(
            f"the code in {project} is not the code of {found.asked.run}",
            f"Check out the code that was pushed as {found.asked.bundle[:12]}.",
        )
    folders = {node.name: str(node.folder.absolute()) for node in nodes}
    missing = sorted({name for names in found.took_part for name in names}.difference(folders))
    if missing:
        raise DataError(f"no data of {', '.join(missing)}, which took part", "Name their folder with --data.")
    request = {
        "project": str(project.absolute()),
        "asked": msgspec.to_builtins(found.asked),
        "nodes": folders,
        "took_part": found.took_part,
        "updates": found.updates,
    }
    models: list[str] = await aside("reuna.fleet.replay", request, "the replay")
    pairs = enumerate(zip(found.models, models[1:], strict=True), 1)
    differs = next((number for number, (old, new) in pairs if old != new), 0)
    return Replayed(found.asked.run, result["model_digest"], models[-1], differs)


def compute(request: Mapping[str, Any]) -> list[str]:
    """Digest of the model after each round, the initial one before them. Raises what the project raises."""
    from reuna.adapters.project import blame_project, load_entry, pack_bundle
    from reuna.api import play, rounds_of, with_members
    from reuna.core.tensors import pack
    from reuna.learn.strategies import strategy
    from reuna.loop.plan import learner_settings
    from reuna.sim.buffered import replayed
    from reuna.sim.fleet import SimEdge

    project, took_part = Path(request["project"]), request["took_part"]
    asked = msgspec.convert(request["asked"], RunSpec)
    buffered = strategy(asked.strategy).buffered
    whole = asked if buffered else with_members(asked, took_part)
    spec = msgspec.structs.replace(whole, local=False, evaluate=False)
    entry, told = load_entry(project, str(spec.settings["entry"])), learner_settings(spec)

    def edge(name: str) -> SimEdge:
        rounds = rounds_of(name, took_part)
        data = entry.load(Path(request["nodes"][name]), told) if rounds else None
        return SimEdge(entry.learner(told), data, rounds)

    with blame_project(project, "replaying"):
        model = pack(entry.learner(spec.settings).init(spec.seed))
        if digest_bytes(model) != spec.model:
            raise NotReproduced(f"the learner begins with another model than that of {spec.run}")
        fogs = {fog: {name: edge(name) for name in names} for fog, names in spec.fogs.items()}
        if buffered:
            edges = {name: each for under in fogs.values() for name, each in under.items()}
            return replayed(spec, model, request["updates"], edges)
        found = play(fogs, spec, model, pack_bundle(project))
    return [spec.model, *(str(each["model"]) for each in found.rounds)]


def main() -> int:
    """Read the request from standard input, print the digests as one JSON line."""
    try:
        print(json.dumps(compute(json.load(sys.stdin))))
    except ReunaError as error:
        print(f"{error.message} [{error.code}]", file=sys.stderr)
        return error.exit_status
    return 0


def as_dict(found: Replayed) -> dict[str, Any]:
    """For scripts."""
    return {**asdict(found), "same": found.same}


if __name__ == "__main__":
    sys.exit(main())
