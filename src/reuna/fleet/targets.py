"""Take something that may come down: its signed metadata first, then its bytes, checked against that.

FROM/public/NAME      metadata, as `reuna trust` publishes it
FROM/targets/DIGEST   bytes
SEEN/…                what was accepted before: nothing older is taken again (`TrustStore`)

Where the bytes come from is no matter of trust: the cloud's folder, a stick, a share.
"""

from __future__ import annotations

from pathlib import Path

from reuna.adapters.files import read_at_most
from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import KeyProblem, Untrusted
from reuna.trust.metadata import TrustState, begin, fleet_of, refresh, take, wanted
from reuna.trust.roles import FILE_NAME, KINDS, LIMITS
from reuna.trust.targets import Target, check_bytes, target, targets


class TargetFolder:
    """Where metadata and bytes lie; nothing in it is believed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def metadata(self, name: str, limit: int) -> bytes | None:
        """A metadata file, None when there is none. Raises `Untrusted` (oversized)."""
        if FILE_NAME.fullmatch(name) is None:
            return None
        return self._read(self._folder / "public" / name, limit)

    def content(self, each: Target) -> bytes:
        """The bytes of a target, of which no more than it has is read.

        Raises `Untrusted` (missing, oversized, mismatch).
        """
        limit = KINDS[each.kind].limit
        if each.size > limit:
            raise Untrusted("oversized", f"{each.path} has {each.size} bytes, a {each.kind} at most {limit}")
        data = self._read(self._folder / "targets" / each.digest, each.size)
        if data is None:
            raise Untrusted("missing", f"the bytes of {each.path} are not in {self._folder / 'targets'}")
        return check_bytes(each, data)

    @staticmethod
    def _read(path: Path, limit: int) -> bytes | None:
        data = read_at_most(path, limit)
        if data is not None and len(data) > limit:
            raise Untrusted("oversized", f"{path.name} has more than {limit} bytes")
        return data


def walk(state: TrustState, source: TargetFolder, now: float) -> tuple[TrustState, dict[str, bytes]]:
    """What is trusted after the newest metadata of a folder, and the files taken. Raises `Untrusted`."""
    step, files = refresh(state, now), {}
    while (file := wanted(step)) is not None:
        data = source.metadata(file.name, file.limit)
        step = take(step, data)
        if data is not None:
            files[file.name] = data
    return step.state, files


def accept(seen: TrustStore, source: TargetFolder, root: Path | None, now: float) -> TrustState:
    """Walk on from what was accepted before, and keep that; begin with the root that a person brought.

    Raises `KeyProblem` without either, `Untrusted`, `Corrupted`, `DiskFull`.
    """
    state = seen.state()
    first: dict[str, bytes] = {}
    if state is None:
        pin = read_at_most(root, LIMITS["root"]) if root is not None else None
        if pin is None:
            raise KeyProblem("nothing is trusted here yet", "Name the fleet's root.json with --root.")
        state = begin(fleet_of(pin), pin)
        first = {f"{state.root.version}.root.json": pin}
    after, files = walk(state, source, now)
    if first or after != state:
        seen.keep(after, {**first, **files})
    return after


def fetch(state: TrustState, source: TargetFolder, path: str, now: float, kind: str = "") -> bytes:
    """The bytes of a target, of that kind if one is asked for.

    Raises `Untrusted`: missing, expired, unknown, kind, oversized, mismatch, malformed.
    """
    found = target(state, path, now)
    if kind and found.kind != kind:
        raise Untrusted("kind", f"{path} is a {found.kind}, a {kind} is asked for")
    return source.content(found)


def listed(state: TrustState, now: float, kind: str = "") -> list[Target]:
    """What may come down, by path; of one kind if one is asked for. Raises `Untrusted`."""
    return [each for each in targets(state, now) if not kind or each.kind == kind]
