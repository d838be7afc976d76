"""What a node trusts of what its fleet publishes, and how that moves on.

`TrustState` holds the accepted file of each role. A `Refresh` walks from it to the newest state:
it says which file it wants and how long that may be, the rim fetches it, `take` judges it.

    step = refresh(state, now)
    while (file := wanted(step)) is not None:
        step = take(step, fetch(file.name, file.limit))
    state = step.state

Only a root that was taken, and the state at the end of a whole walk, are worth keeping: in between
the files need not belong together. The walk is the client workflow of the TUF specification, 5.3
to 5.6; refusals are `Untrusted` with a reason of `reuna.core.errors.DISTRUST`.

Time is the later one of the wall clock and the newest time that the timestamp role has signed, so
that a clock set back brings nothing back to life.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, TypeVar

import msgspec
from msgspec.structs import replace
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from reuna.core.errors import Untrusted
from reuna.trust.parse import (
    File,
    check_root,
    check_targets,
    delegated_signers,
    field,
    file_of,
    parse,
    root_signers,
    verify,
)
from reuna.trust.roles import DELEGATED, LIMITS

Stage = Literal["root", "timestamp", "snapshot", "targets", "code", "plans", "done"]
STAGES: tuple[Stage, ...] = ("root", "timestamp", "snapshot", "targets", "code", "plans", "done")
LISTED = ("targets", "code", "plans")  #: roles whose versions a snapshot lists
MAX_ROOTS = 256  #: new roots taken in one walk

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


class TrustState(msgspec.Struct, frozen=True):
    """The accepted files of a fleet. ``floors``: the lowest version of each role still accepted.

    ``signed_time`` is the newest time signed by the timestamp role, seconds since the epoch.
    """

    fleet: str
    root: File
    files: dict[str, File] = {}
    floors: dict[str, int] = {}
    signed_time: int = 0


class Wanted(msgspec.Struct, frozen=True):
    """A file to fetch and the most bytes that may be read of it."""

    name: str
    limit: int


class Refresh(msgspec.Struct, frozen=True):
    """A walk under way. ``state`` is what is trusted so far."""

    state: TrustState
    now: float
    stage: Stage = "root"
    roots: int = 0


def begin(fleet: str, root: bytes) -> TrustState:
    """Trust the root that a person has brought to this node.

    Raises `Untrusted` unless it is signed by its own keys and of this fleet.
    """
    metadata = parse(Root, "root", root)
    check_root(metadata.signed, fleet)
    verify(metadata.signed, "root", metadata)
    return TrustState(fleet, file_of(metadata, root))


def fleet_of(root: bytes) -> str:
    """The fleet that a root says it is of. Raises `Untrusted`."""
    return str(field(parse(Root, "root", root).signed.unrecognized_fields, "fleet"))


def refresh(state: TrustState, now: float) -> Refresh:
    """Begin a walk. ``now``: the wall clock, seconds since the epoch."""
    return Refresh(state, now)


def update(state: TrustState, received: Callable[[str], bytes | None], now: float) -> TrustState:
    """The whole walk over files at hand; ``received`` gives a file by its name or None."""
    step = refresh(state, now)
    while (file := wanted(step)) is not None:
        step = take(step, received(file.name))
    return step.state


def clock(state: TrustState, now: float) -> float:
    """The time by which things are judged, seconds since the epoch."""
    return max(now, state.signed_time)


def complete(state: TrustState) -> bool:
    """Whether a whole walk ended here since the keys last changed."""
    return set(state.files) == {"timestamp", "snapshot", *LISTED}


def wanted(step: Refresh) -> Wanted | None:
    """The file that comes next, None at the end."""
    match step.stage:
        case "done":
            return None
        case "root":
            return Wanted(f"{step.state.root.version + 1}.root.json", LIMITS["root"])
        case "timestamp":
            return Wanted("timestamp.json", LIMITS["timestamp"])
        case role:
            meta = _named(step.state, role)
            assert meta.length is not None
            return Wanted(f"{meta.version}.{role}.json", meta.length)


def take(step: Refresh, data: bytes | None) -> Refresh:
    """Judge the file that was wanted; None when nobody has it. Raises `Untrusted`."""
    if step.stage == "root":
        return _root_taken(step, data)
    if data is None:
        raise Untrusted("missing", f"nobody gives {step.stage}, which must be there")
    if step.stage == "timestamp":
        return _skip_held(replace(step, state=_timestamp(step.state, data, step.now), stage="snapshot"))
    if step.stage == "snapshot":
        return _skip_held(replace(step, state=_snapshot(step.state, data, step.now), stage="targets"))
    state = _targets(step.state, step.stage, data, step.now)
    return _skip_held(replace(step, state=state, stage=_after(step.stage)))


def _after(stage: Stage) -> Stage:
    return STAGES[STAGES.index(stage) + 1]


def _skip_held(step: Refresh) -> Refresh:
    """Pass over files that are held already, just as the file above names them."""
    while step.stage != "done" and _is_held(step.state, step.stage):
        _check_alive(step.stage, step.state.files[step.stage], clock(step.state, step.now))
        step = replace(step, stage=_after(step.stage))
    return step


def _is_held(state: TrustState, role: str) -> bool:
    held = state.files.get(role)
    if held is None:
        return False
    meta = _named(state, role)
    return held.version == meta.version and _matches(meta, held.data)


# --- root ------------------------------------------------------------------------------------------


def _root_taken(step: Refresh, data: bytes | None) -> Refresh:
    if data is None:
        _check_alive("root", step.state.root, clock(step.state, step.now))
        return replace(step, stage="timestamp")
    if step.roots == MAX_ROOTS:
        raise Untrusted("oversized", f"more than {MAX_ROOTS} new roots at once")
    return replace(step, state=_new_root(step.state, data), roots=step.roots + 1)


def _new_root(state: TrustState, data: bytes) -> TrustState:
    """The next root, signed by the threshold of the old one and by its own (5.3.4, 5.3.5)."""
    metadata = parse(Root, "root", data)
    if metadata.signed.version != state.root.version + 1:
        expected = state.root.version + 1
        raise Untrusted("version", f"expected root {expected}, got {metadata.signed.version}")
    old = root_of(state)
    verify(old, "root", metadata)
    check_root(metadata.signed, state.fleet)
    verify(metadata.signed, "root", metadata)
    return _forget_rotated(replace(state, root=file_of(metadata, data)), old, metadata.signed)


def _forget_rotated(state: TrustState, old: Root, new: Root) -> TrustState:
    """Let go of what replaced keys have signed, also of numbers a thief drove up (5.3.11)."""
    changed = {name for name in new.roles if root_signers(old, name) != root_signers(new, name)}
    online = changed & {"timestamp", "snapshot"}
    gone = set(LISTED) if "targets" in changed else set()  # what it delegates goes with it
    if online:
        gone |= {"timestamp", "snapshot"}
    files = {role: file for role, file in state.files.items() if role not in gone}
    floors = {role: low for role, low in state.floors.items() if role not in changed}
    if online:  # the snapshot's word about the others is worth no more than its key
        floors = {role: files[role].version for role in LISTED if role in files}
    signed_time = 0 if "timestamp" in changed else state.signed_time
    return replace(state, files=files, floors=floors, signed_time=signed_time)


def root_of(state: TrustState) -> Root:
    """The trusted root."""
    return parse(Root, "root", state.root.data).signed


# --- timestamp and snapshot ------------------------------------------------------------------------


def _timestamp(state: TrustState, data: bytes, now: float) -> TrustState:
    """A newer timestamp, or the same again (5.4). It carries the time at which it was signed."""
    metadata = parse(Timestamp, "timestamp", data)
    verify(root_of(state), "timestamp", metadata)
    file, names = file_of(metadata, data), metadata.signed.snapshot_meta
    _check_newer("timestamp", file, state)
    if names.version < state.floors.get("snapshot", 0):
        raise Untrusted("version", f"timestamp names snapshot {names.version}, older than the trusted one")
    _check_named("snapshot", names)
    state = replace(state, signed_time=max(state.signed_time, _signed_time(metadata.signed, file, state)))
    _check_alive("root", state.root, clock(state, now))
    _check_alive("timestamp", file, clock(state, now))
    return _with(state, "timestamp", file, {"timestamp": file.version, "snapshot": names.version})


def _signed_time(signed: Timestamp, file: File, state: TrustState) -> int:
    """When the timestamp was made: within its own life and the root's, so it cannot run ahead."""
    made = field(signed.unrecognized_fields, "made")
    if type(made) is not int or not 0 <= made < min(file.expires, state.root.expires):
        raise Untrusted("malformed", "timestamp does not say when it was made")
    return made


def _snapshot(state: TrustState, data: bytes, now: float) -> TrustState:
    """The snapshot that the timestamp names; no role in it may go back (5.5)."""
    metadata = _listed(Snapshot, state, "snapshot", data)
    verify(root_of(state), "snapshot", metadata)
    file = _as_named(state, "snapshot", metadata, data, now)
    floors = {}
    for role in LISTED:
        meta = metadata.signed.meta.get(f"{role}.json")
        if meta is None:
            raise Untrusted("missing", f"the snapshot does not name {role}")
        if meta.version < state.floors.get(role, 0):
            raise Untrusted("version", f"the snapshot names an older {role}, {meta.version}, than is trusted")
        _check_named(role, meta)
        floors[role] = meta.version
    return _with(state, "snapshot", file, floors)


# --- targets and what it delegates -----------------------------------------------------------------


def _targets(state: TrustState, role: str, data: bytes, now: float) -> TrustState:
    """The file of targets, code or plans that the snapshot names (5.6)."""
    metadata = _listed(Targets, state, role, data)
    if role in DELEGATED:
        verify(targets_of(state, "targets"), role, metadata)
        return _with(state, role, _as_named(state, role, metadata, data, now), {})
    root = root_of(state)
    verify(root, "targets", metadata)
    check_targets(root, metadata.signed)
    file = _as_named(state, role, metadata, data, now)
    return _with(_forget_delegated(state, metadata.signed), role, file, {})


def _forget_delegated(state: TrustState, new: Targets) -> TrustState:
    if "targets" not in state.files:
        return state
    old = targets_of(state, "targets")
    changed = {name for name in DELEGATED if delegated_signers(old, name) != delegated_signers(new, name)}
    return replace(state, files={role: f for role, f in state.files.items() if role not in changed})


def targets_of(state: TrustState, role: str) -> Targets:
    """The accepted list of targets, code or plans. Raises `Untrusted` (missing)."""
    if role not in state.files:
        raise Untrusted("missing", f"no accepted {role} yet")
    return parsed(role, state.files[role].data)


@lru_cache(maxsize=16)
def parsed(role: str, data: bytes) -> Targets:
    """An accepted list: the same bytes are asked about in every round."""
    return parse(Targets, role, data).signed


# --- rules they share ------------------------------------------------------------------------------


def _named(state: TrustState, role: str) -> MetaFile:
    """What the file above says about a role's file."""
    if role == "snapshot":
        return parse(Timestamp, "timestamp", state.files["timestamp"].data).signed.snapshot_meta
    return parse(Snapshot, "snapshot", state.files["snapshot"].data).signed.meta[f"{role}.json"]


def _check_named(role: str, meta: MetaFile) -> None:
    """A file is named with its length, within what its role may have, and its SHA-256."""
    if type(meta.version) is not int or type(meta.length) is not int or "sha256" not in (meta.hashes or {}):
        raise Untrusted("malformed", f"{role} is named without version, length and SHA-256")
    if meta.length > LIMITS[role]:
        raise Untrusted("oversized", f"{role} would have {meta.length} bytes, more than {LIMITS[role]}")


def _listed(kind: type[T], state: TrustState, role: str, data: bytes) -> Metadata[T]:
    if not _matches(_named(state, role), data):
        raise Untrusted("mismatch", f"this {role} is not the file that the one above it names")
    return parse(kind, role, data)


def _matches(meta: MetaFile, data: bytes) -> bool:
    try:
        meta.verify_length_and_hashes(data)
    except LengthOrHashMismatchError:
        return False
    return True


def _as_named(state: TrustState, role: str, metadata: Metadata[T], data: bytes, now: float) -> File:
    file, named = file_of(metadata, data), _named(state, role).version
    if file.version != named:
        raise Untrusted("mismatch", f"{role} has version {file.version}, its parent names {named}")
    _check_alive(role, file, clock(state, now))
    return file


def _check_newer(role: str, file: File, state: TrustState) -> None:
    held = state.files.get(role)
    if file.version < state.floors.get(role, 0):
        raise Untrusted("version", f"{role} {file.version} is older than the trusted one")
    if held is not None and file.version == held.version and file.data != held.data:
        raise Untrusted("conflict", f"two different files are {role} {file.version}")


def _check_alive(role: str, file: File, at: float) -> None:
    if file.expires <= at:
        raise Untrusted("expired", f"{role} {file.version} ended {int(at - file.expires)} s ago")


def _with(state: TrustState, role: str, file: File, floors: dict[str, int]) -> TrustState:
    return replace(state, files={**state.files, role: file}, floors={**state.floors, **floors})
