"""Metadata that a hostile fog serves from its own disk.

What it wants: that its edge goes back to older files, mixes files that do not belong together, or
takes code that no release key has signed. The edge looks when its egress starts, so it is made to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from drills.hostile_peers.attack import Attack, Do
from drills.hostile_peers.world import Round, World
from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import Corrupted
from reuna.trust import publish
from reuna.trust.metadata import TrustState
from reuna.trust.publish import PrivateKey
from reuna.trust.roles import LIMITS
from reuna.trust.targets import Target

EDGE = "edge-1/place.log"
HELD, SERVED = "edge-1/state/trust", "fog-1/state/trust/files"
Taken = Callable[[TrustState], bool]


@contextlib.contextmanager
def _served(world: World, files: Mapping[str, bytes]) -> Iterator[None]:
    """Fog-1's disk holds these files beside its own; afterwards both nodes are as they were."""
    held, accepted, served = (_content(world.path(name)) for name in (HELD, f"{HELD}/files", SERVED))
    try:
        for name, data in files.items():
            (world.path(SERVED) / name).write_bytes(data)
        yield
    finally:
        _restore(world.path(SERVED), served)
        _restore(world.path(f"{HELD}/files"), accepted)
        (world.path(HELD) / "state").write_bytes(held["state"])


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _restore(folder: Path, files: Mapping[str, bytes]) -> None:
    for name in _content(folder).keys() - files.keys():
        (folder / name).unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


async def _takes(world: World, files: Mapping[str, bytes], taken: Taken) -> bool:
    def success() -> bool:
        state = None
        with contextlib.suppress(Corrupted):
            state = TrustStore(world.path(HELD)).state()
        return state is not None and taken(state)

    with _served(world, files):
        await world.restart_egress("edge-1")
        return await world.settled(success)


def _number(files: Mapping[str, bytes], role: str) -> int:
    return max(int(name.partition(".")[0]) for name in files if name.endswith(f".{role}.json"))


async def rollback(world: World, beside: Round) -> bool:
    """The files of yesterday, each with a good signature."""
    past = world.trust.past
    version = _number(past, "snapshot")
    return await _takes(world, past, lambda state: state.files["snapshot"].version == version)


async def mixed(world: World, beside: Round) -> bool:
    """Tomorrow's timestamp with today's snapshot under tomorrow's name."""
    now, soon = world.trust.present(), world.trust.future()
    old, new = _number(now, "snapshot"), _number(soon, "snapshot")
    files = {
        "timestamp.json": soon["timestamp.json"],
        f"{new}.snapshot.json": now[f"{old}.snapshot.json"],
    }
    return await _takes(
        world,
        files,
        lambda state: (
            state.files["timestamp"].data == files["timestamp.json"]
            and state.files["snapshot"].version == old
        ),
    )


def _code(world: World) -> tuple[int, dict[str, bytes]]:
    """A list with code of the thief's own, signed with the stolen online keys, as are the files above."""
    now, files, at = world.trust.present(), {}, world.trust.now
    version, above = _number(now, "code") + 1, _number(now, "snapshot") + 5
    evil = Target("code/detector", "code", 9, 4, "e" * 64, "e" * 64)
    keys: list[PrivateKey] = world.trust.online
    files[f"{version}.code.json"] = publish.sign(publish.delegated("code", version, [evil], at), keys)
    listed = {role: _number(now, role) for role in ("targets", "plans")}
    members = {role: (number, now[f"{number}.{role}.json"]) for role, number in listed.items()}
    members["code"] = (version, files[f"{version}.code.json"])
    snapshot = publish.sign(publish.snapshot(above, members, at), keys)
    files[f"{above}.snapshot.json"] = snapshot
    files["timestamp.json"] = publish.sign(publish.timestamp(above, (above, snapshot), at), keys)
    return version, files


async def code(world: World, beside: Round) -> bool:
    version, files = _code(world)
    return await _takes(world, files, lambda state: state.files["code"].version == version)


async def endless(world: World, beside: Round) -> bool:
    """A timestamp that does not end; the edge has taken it when it says what it thinks of the whole."""
    files = {"timestamp.json": world.trust.present()["timestamp.json"] + b" " * (4 * LIMITS["timestamp"])}
    with _served(world, files):
        await world.restart_egress("edge-1")
        return await world.settled(lambda: world.said(EDGE, r"R308 timestamp has \d+ bytes"))


def _attack(name: str, by: str, story: str, guard: str, line: str, do: Do) -> Attack:
    return Attack(name, by, story, (guard,), (EDGE, f"metadata stays as it was: R308 .*{line}"), do)


ATTACKS = (
    _attack("metadata-rollback", "fog", "serves the metadata of yesterday",
            "metadata-floor", "older than", rollback),
    _attack("metadata-mix-and-match", "fog", "serves files that were never published together",
            "metadata-hash", "is not the file that the one above it names", mixed),
    _attack("code-by-online-key", "neighbour", "lists code with stolen online keys",
            "metadata-signature", "code .*sign|sign.* code", code),
    _attack("endless-metadata", "fog", "serves a file that does not end",
            "metadata-length", "has more than", endless),
)  # fmt: skip
