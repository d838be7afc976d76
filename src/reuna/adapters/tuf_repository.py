"""The cloud's folder of published metadata, and the two files a machine signs by itself.

FOLDER/N.root.json …     every root, so that a node long away finds its way
FOLDER/N.ROLE.json       targets, code, plans, snapshot: the newest and some before
FOLDER/timestamp.json    replaced last: what it does not name is not published yet
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from reuna.adapters.files import replace_file, storage_error
from reuna.core.errors import KeyProblem, ReunaError, Untrusted
from reuna.trust import publish
from reuna.trust.metadata import TrustState, begin, fleet_of, update
from reuna.trust.parse import file_of, parse
from reuna.trust.plans import PlanSigner
from reuna.trust.publish import LIFE, PrivateKey, public_of
from reuna.trust.roles import FILE_NAME, LIMITS, file_name
from reuna.trust.stages import Stage, stages_of
from reuna.trust.targets import Target, read_all

KEPT = 16  #: versions of a role that stay, for nodes in the middle of a walk
LISTED = ("targets", "code", "plans")

T = TypeVar("T", Snapshot, Targets, Timestamp)


class TufRepository:
    """Reads and writes the folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def file(self, name: str) -> bytes | None:
        """A published file for whoever asks (every file is public); None when there is none."""
        path = self.folder / name
        if FILE_NAME.fullmatch(name) is None or not path.is_file():
            return None
        try:
            return path.read_bytes()
        except OSError as error:
            raise storage_error(error, path) from error

    def version(self, role: str) -> int:
        """The newest version of a role, 0 when there is none."""
        if role == "timestamp":
            data = self.file("timestamp.json")
            return parse(Timestamp, role, data).signed.version if data else 0
        return max(self._versions(role), default=0)

    def newest(self, role: str) -> bytes:
        """The newest file of a role. Raises `KeyProblem` when there is none."""
        data = self.file(file_name(role, self.version(role)))
        if data is None:
            raise KeyProblem(f"no {role} is published in {self.folder}", "Begin with `reuna trust init`.")
        return data

    def root(self) -> Metadata[Root]:
        """The newest root."""
        return parse(Root, "root", self.newest("root"))

    def targets(self, role: str) -> Metadata[Targets]:
        """The newest list of ``targets``, ``code`` or ``plans``."""
        return parse(Targets, role, self.newest(role))

    def fleet(self) -> str:
        """Whose metadata this is."""
        return fleet_of(self.newest("root"))

    def put(self, files: Mapping[str, bytes]) -> None:
        """Publish files by name, the timestamp last: all of them or none. Raises `DiskFull`."""
        new = [name for name in files if not (self.folder / name).exists()]
        try:
            for name in sorted(files, key=lambda each: each == "timestamp.json"):
                replace_file(self.folder / name, files[name], 0o644)
        except ReunaError:
            if "timestamp.json" not in files or self.file("timestamp.json") != files["timestamp.json"]:
                for name in new:
                    (self.folder / name).unlink(missing_ok=True)
            raise
        for role in (*LISTED, "snapshot"):
            for old in sorted(self._versions(role))[:-KEPT]:
                (self.folder / file_name(role, old)).unlink(missing_ok=True)

    def check(self, now: float, also: Mapping[str, bytes] | None = None) -> TrustState:
        """What a node would say, with files that are not published yet. Raises `Untrusted`."""
        more = also or {}
        first = min(self._versions("root"), default=1)
        pin = more.get("1.root.json") or self.file(file_name("root", first))
        if pin is None:
            raise KeyProblem(f"no root is published in {self.folder}", "Begin with `reuna trust init`.")
        return update(begin(fleet_of(pin), pin), lambda name: more.get(name) or self.file(name), now)

    def freshen(
        self, keys: Sequence[PrivateKey], now: float, also: Mapping[str, bytes] | None = None
    ) -> list[str]:
        """Sign anew what is past half its life or does not name the newest files; names of what is new.

        ``keys``: the online ones; those that the metadata names are used. ``also``: files to publish
        in the same go. Nothing is written unless a node would take it. Raises `Untrusted` then, and
        `KeyProblem` when no key is the one that the metadata names.
        """
        with self._alone():
            new = dict(also or {})
            self._renew_plans(new, keys, now)
            self._renew_snapshot(new, keys, now)
            self._renew_timestamp(new, keys, now)
            if new:
                self.check(now, new)
                self.put(new)
            return list(new)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time: two must not give one number to different files."""
        with (self.folder / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def assign(self, listed: Sequence[Target], keys: Sequence[PrivateKey], now: float) -> list[str]:
        """Publish the plans of the moment in place of those before; names of what is new.

        Raises as `freshen`.
        """
        return self._replace_plans(listed, self.stages(), keys, now)

    def stage(self, stages: Sequence[Stage], keys: Sequence[PrivateKey], now: float) -> list[str]:
        """Publish which release runs where, in place of what was said before; names of what is new.

        Raises as `freshen`.
        """
        return self._replace_plans(read_all(self.targets("plans").signed), stages, keys, now)

    def stages(self) -> tuple[Stage, ...]:
        """Which release is to run where, as it is published. Raises `KeyProblem`, `Untrusted`."""
        return stages_of(self.targets("plans").signed)

    def _replace_plans(
        self, listed: Sequence[Target], stages: Sequence[Stage], keys: Sequence[PrivateKey], now: float
    ) -> list[str]:
        version = self.version("plans") + 1
        metadata = publish.delegated("plans", version, listed, now, stages)
        data = publish.sign(metadata, [self._key({}, "plans", keys)])
        return self.freshen(keys, now, {file_name("plans", version): data})

    def plan_signer(self, keys: Sequence[PrivateKey]) -> PlanSigner:
        """Signs plans with the key that the published metadata names. Raises `KeyProblem`."""
        key = self._key({}, "plans", keys)
        return PlanSigner(self.fleet(), publish.key_of(public_of(key)).keyid, key)

    def plan_keys(self) -> frozenset[bytes]:
        """Public keys, 32 bytes each, that sign plans and countersign heads of ledgers."""
        signed = parse(Targets, "targets", self.newest("targets")).signed
        return frozenset(publish.target_rings(signed)["plans"].keys)

    def _renew_plans(self, new: dict[str, bytes], keys: Sequence[PrivateKey], now: float) -> None:
        version, data = self._newest(new, "plans")
        if data is not None and _fresh(Targets, "plans", data, now):
            return
        signed = parse(Targets, "plans", data).signed if data else Targets()
        metadata = publish.delegated("plans", version + 1, read_all(signed), now, stages_of(signed))
        new[file_name("plans", version + 1)] = publish.sign(metadata, [self._key(new, "plans", keys)])

    def _renew_snapshot(self, new: dict[str, bytes], keys: Sequence[PrivateKey], now: float) -> None:
        version, data = self._newest(new, "snapshot")
        files = {role: _known(role, *self._newest(new, role)) for role in LISTED}
        key, metadata = self._key(new, "snapshot", keys), publish.snapshot(version + 1, files, now)
        if data is not None and _is_current(data, metadata, key, now):
            return
        new[file_name("snapshot", version + 1)] = publish.sign(metadata, [key])

    def _renew_timestamp(self, new: dict[str, bytes], keys: Sequence[PrivateKey], now: float) -> None:
        version, data = self.version("timestamp"), self.file("timestamp.json")
        if not new and data is not None and _fresh(Timestamp, "timestamp", data, now):
            return
        of = _known("snapshot", *self._newest(new, "snapshot"))
        key = self._key(new, "timestamp", keys)
        new["timestamp.json"] = publish.sign(publish.timestamp(version + 1, of, now), [key])

    def _key(self, new: Mapping[str, bytes], role: str, keys: Sequence[PrivateKey]) -> PrivateKey:
        delegator = "targets" if role == "plans" else "root"
        data = _known(delegator, *self._newest(new, delegator))[1]
        if role == "plans":
            ring = publish.target_rings(parse(Targets, "targets", data).signed)[role]
        else:
            ring = publish.root_rings(parse(Root, "root", data).signed)[role]
        for key in keys:
            if public_of(key) in ring.keys:
                return key
        raise KeyProblem(
            f"none of the online keys here may sign {role}",
            "Bring the cloud its newest online keys, or make some with `reuna trust rotate online`.",
        )

    def _newest(self, new: Mapping[str, bytes], role: str) -> tuple[int, bytes | None]:
        """Version and bytes of the newest file, those not published yet included."""
        versions = [*self._versions(role), *(_number(name) for name in new if name.endswith(f".{role}.json"))]
        if not versions:
            return 0, None
        name = file_name(role, max(versions))
        return max(versions), new.get(name) or self.file(name)

    def _versions(self, role: str) -> list[int]:
        found = (path.name for path in self.folder.glob(f"*.{role}.json"))
        return [_number(name) for name in found if FILE_NAME.fullmatch(name) is not None]


def _number(name: str) -> int:
    return int(name.partition(".")[0])


def _known(role: str, version: int, data: bytes | None) -> tuple[int, bytes]:
    if data is None or len(data) > LIMITS[role]:
        raise Untrusted("missing", f"no {role} that could be published")
    return version, data


def _is_current(data: bytes, wanted: Metadata[Snapshot], key: PrivateKey, now: float) -> bool:
    """Whether a snapshot is young, names what is wanted, and is signed by that key, not one it replaced."""
    have = parse(Snapshot, "snapshot", data)
    signed = publish.key_of(public_of(key)).keyid in have.signatures
    return signed and have.signed.meta == wanted.signed.meta and _fresh(Snapshot, "snapshot", data, now)


def _fresh(kind: type[T], role: str, data: bytes, now: float) -> bool:
    """Whether a file has more than half of its life before it."""
    file = file_of(parse(kind, role, data), data)
    return file.expires - now > LIFE[role] / 2
