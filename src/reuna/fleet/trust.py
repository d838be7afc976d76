"""The ceremony: who holds which key, and how one set of keys hands over to the next.

FOLDER/root.json      what each new node is given; nodes find every later root by themselves
FOLDER/public/        what the cloud publishes
FOLDER/staged/        what still waits for signatures
FOLDER/keys/          root-N, release-N and code-N: off this machine as soon as they have signed
FOLDER/online/        online-N and plans-N: the cloud signs with them by itself
FOLDER/targets/       the bytes of what may come down, by digest

A change is staged, signed with the keys at hand, and published once every threshold is met.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from reuna.adapters.files import replace_file
from reuna.adapters.trust_keys import is_locked, new_key, read_key, write_key
from reuna.adapters.tuf_repository import TufRepository
from reuna.core.errors import KeyProblem, Untrusted
from reuna.core.foreign import UNREADABLE
from reuna.core.subjects import is_name
from reuna.trust import publish
from reuna.trust.publish import PrivateKey, Ring, key_of, public_of
from reuna.trust.roles import DELEGATED, KINDS, file_name
from reuna.trust.stages import stages_of
from reuna.trust.targets import PATH, ROSTER, Target, read_all, read_roster
from reuna.wire import digest_bytes
from reuna.wire.release import decode as read_release

#: What a person calls a set of keys -> the roles it signs.
SETS = {
    "root": ("root",),
    "release": ("targets",),
    "code": ("code",),
    "online": ("snapshot", "timestamp"),
    "plans": ("plans",),
}
SIGNED_BY = {role: name for name, roles in SETS.items() for role in roles}
ROTATED = {"root": ("root",), "release": ("release",), "code": ("code",), "online": ("online", "plans")}
ONLINE_SETS = ("online", "plans")
LISTS = ("targets", "code", "plans")
ORDER = ("root", "targets", "code", "plans")  #: of what is staged

NOBODY: Mapping[str, str] = MappingProxyType({})

#: Asks the passphrase of a locked key file.
Ask = Callable[[Path], bytes]


@dataclass
class Ceremony:
    """One trust folder, at one moment. ``ask`` gives the passphrase of a locked key file."""

    folder: Path
    now: float
    ask: Ask
    _keys: dict[Path, PrivateKey] = field(default_factory=dict)

    @property
    def repository(self) -> TufRepository:
        """What the cloud publishes."""
        return TufRepository(self.folder / "public")

    # --- keys ------------------------------------------------------------------------------------

    def make_keys(self, name: str, count: int, passphrase: bytes | None) -> tuple[bytes, ...]:
        """New keys of a set, numbered on; online keys are never locked. Their public parts."""
        folder = self.folder / ("online" if name in ONLINE_SETS else "keys")
        first = 1 + max((_number(path) for path in folder.glob(f"{name}-*.key")), default=0)
        made = []
        for number in range(first, first + count):
            path, key = folder / f"{name}-{number}.key", new_key()
            write_key(path, key, None if name in ONLINE_SETS else passphrase)
            self._keys[path] = key
            made.append(public_of(key))
        return tuple(made)

    def keys_at_hand(self, name: str, ring: Ring) -> Iterator[PrivateKey]:
        """Keys of a set that lie in this folder and that the ring names, as many as it needs."""
        found = 0
        for path in sorted(self.folder.glob(f"*/{name}-*.key"), key=_number, reverse=True):
            if found == ring.threshold:
                return
            key = self.key(path)
            if public_of(key) in ring.keys:
                found += 1
                yield key

    def key(self, path: Path) -> PrivateKey:
        """A key, opened once. Raises `KeyProblem`."""
        if path not in self._keys:
            self._keys[path] = read_key(path, self.ask(path) if is_locked(path) else None)
        return self._keys[path]

    # --- staging ---------------------------------------------------------------------------------

    def staged(self, role: str) -> bytes | None:
        """A file that waits for signatures."""
        path = self.folder / "staged" / f"{role}.json"
        return path.read_bytes() if path.is_file() else None

    def stage(self, role: str, data: bytes) -> None:
        """Let a file wait for signatures."""
        (self.folder / "staged").mkdir(parents=True, exist_ok=True)
        replace_file(self.folder / "staged" / f"{role}.json", data, 0o644)

    def newest(self, role: str) -> bytes:
        """What waits, else what is published."""
        return self.staged(role) or self.repository.newest(role)

    def listed(self, role: str) -> list[Target]:
        """What the newest file of a role lists, staged or published."""
        return read_all(publish.read(role, self.newest(role)).signed)

    def next_version(self, role: str) -> int:
        """A staged file is replaced by one of the same number."""
        return self.repository.version(role) + 1

    def restage(
        self, role: str, listed: list[Target] | None = None, rings: Mapping[str, Ring] | None = None
    ) -> None:
        """Stage the next version of a list, with other entries or other delegated keys."""
        items = self.listed(role) if listed is None else listed
        version = self.next_version(role)
        if role == "targets":
            delegated = {**publish.rings("targets", self.newest("targets")), **(rings or {})}
            self.stage(role, publish.targets(version, items, delegated, self.now).to_bytes())
        else:
            staged = stages_of(publish.read(role, self.newest(role)).signed)
            self.stage(role, publish.delegated(role, version, items, self.now, staged).to_bytes())

    def restage_root(self, changed: Mapping[str, Ring]) -> None:
        """Stage the next root, with other keys for some roles."""
        rings = {**publish.rings("root", self.newest("root")), **changed}
        version, fleet = self.next_version("root"), self.repository.fleet()
        self.stage("root", publish.root(fleet, version, rings, self.now).to_bytes())

    # --- signing and publishing ------------------------------------------------------------------

    def waiting(self) -> list[str]:
        """Roles of which a file is staged."""
        return [role for role in ORDER if self.staged(role) is not None]

    def settle(self) -> dict[str, str]:
        """Sign what is staged with the keys at hand; publish when nothing lacks a signature.

        Returns role -> what is lacking; empty when all is published. Raises `Untrusted` when a node
        would refuse the result, and then publishes nothing.
        """
        lacking: dict[str, str] = {}
        for role in ORDER:
            data = self.staged(role)
            if data is not None:
                signed = self._sign(role, data)
                self.stage(role, signed)
                lacking[role] = self.lacking(role, signed)
        lacking = {role: what for role, what in lacking.items() if what}
        if not lacking:
            self._publish()
        return lacking

    def _sign(self, role: str, data: bytes) -> bytes:
        for above in self._above(role):
            ring = publish.rings("targets" if role in DELEGATED else "root", above)[role]
            named = {key_of(each).keyid for each in ring.keys}
            if len(named & publish.signatures(role, data)) < ring.threshold:
                data = publish.add_signatures(role, data, self.keys_at_hand(SIGNED_BY[role], ring))
        return data

    def _above(self, role: str) -> list[bytes]:
        """Every file whose threshold the role's next file must meet; a root meets two."""
        if role in DELEGATED:
            return [self.newest("targets")]
        above = [self.newest("root")]
        if role == "root" and self.repository.version("root"):
            above.append(self.repository.newest("root"))
        return above

    def lacking(self, role: str, data: bytes) -> str:
        """What a staged file lacks, empty when it may be published."""
        found = (publish.lacking(role, data, above) for above in self._above(role))
        return next((what for what in found if what), "")

    def _publish(self) -> None:
        ready = {role: data for role in ORDER if (data := self.staged(role)) is not None}
        new = {file_name(role, publish.read(role, data).signed.version): data for role, data in ready.items()}
        self.repository.freshen(self.online_keys(), self.now, new)
        for role in ready:
            (self.folder / "staged" / f"{role}.json").unlink()
        replace_file(self.folder / "root.json", self.repository.newest("root"), 0o644)

    def online_keys(self) -> list[PrivateKey]:
        """The keys with which the cloud signs by itself, newest first. Raises `KeyProblem`."""
        found = sorted((self.folder / "online").glob("*.key"), key=_number, reverse=True)
        if not found:
            raise KeyProblem(
                f"no online key in {self.folder / 'online'}",
                "Publish on the machine that holds the online keys: bring it this folder without keys/.",
            )
        return [self.key(path) for path in found]


def init(ceremony: Ceremony, fleet: str, count: int, threshold: int, passphrase: bytes | None) -> None:
    """Keys and first metadata of a fleet. Raises `KeyProblem`."""
    if not 1 <= threshold <= count <= 32:
        raise KeyProblem(
            f"{threshold} of {count} keys cannot sign",
            "Give --threshold from 1 to --keys, and at most 32 keys.",
        )
    if ceremony.repository.version("root") or ceremony.staged("root"):
        raise KeyProblem(
            f"{ceremony.folder} has a root already", "Change its keys with `reuna trust rotate`."
        )
    rings = {
        name: Ring(ceremony.make_keys(name, 1, None))
        if name in ONLINE_SETS
        else Ring(ceremony.make_keys(name, count, passphrase), threshold)
        for name in SETS
    }
    of_root = {role: rings[SIGNED_BY[role]] for role in ("root", "targets", "snapshot", "timestamp")}
    ceremony.stage("root", publish.root(fleet, 1, of_root, ceremony.now).to_bytes())
    delegated = {role: rings[SIGNED_BY[role]] for role in ("code", "plans")}
    ceremony.stage("targets", publish.targets(1, [], delegated, ceremony.now).to_bytes())
    for role in delegated:
        ceremony.stage(role, publish.delegated(role, 1, [], ceremony.now).to_bytes())
    ceremony.settle()


def rotate(ceremony: Ceremony, what: str, passphrase: bytes | None) -> dict[str, str]:
    """New keys in place of a set's, as many and with the same threshold; what still lacks a signature."""
    if what not in ROTATED:
        raise KeyProblem(f"{what!r} is no set of keys", f"Rotate one of {', '.join(ROTATED)}.")
    for name in ROTATED[what]:
        _rotate(ceremony, name, passphrase)
    return ceremony.settle()


def _rotate(ceremony: Ceremony, name: str, passphrase: bytes | None) -> None:
    roles = SETS[name]
    delegated = name in {"code", "plans"}
    above = "targets" if delegated else "root"
    old = publish.rings(above, ceremony.newest(above))[roles[0]]
    new = Ring(ceremony.make_keys(name, len(old.keys), passphrase), old.threshold)
    changed = dict.fromkeys(roles, new)
    if delegated:
        ceremony.restage("targets", rings=changed)
    else:
        ceremony.restage_root(changed)
    for role in roles:
        if role in LISTS:
            ceremony.restage(role)


def renew(ceremony: Ceremony, what: str) -> dict[str, str]:
    """Let the files of root, release or code live on under the same keys; what lacks a signature."""
    if what not in {"root", "release", "code"}:
        raise KeyProblem(f"{what!r} is not renewed by hand", "Renew root, release or code.")
    if what == "root":
        ceremony.restage_root({})
    else:
        ceremony.restage(SETS[what][0])
    return ceremony.settle()


def add(ceremony: Ceremony, file: Path, kind: str, name: str, where: Sequence[str] = ()) -> dict[str, str]:
    """`add_bytes` of a file. Raises `KeyProblem`."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise KeyProblem(f"cannot read {file}: {error.strerror}") from error
    organisations = _roster(file, data) if kind == "roster" else {}
    return add_bytes(ceremony, data, kind, name, organisations, where)


def add_bytes(
    ceremony: Ceremony,
    data: bytes,
    kind: str,
    name: str,
    organisations: Mapping[str, str] = NOBODY,
    where: Sequence[str] = (),
) -> dict[str, str]:
    """List something that may come down; what still lacks a signature. Raises `KeyProblem`.

    A release is listed with project, version and ``where``: nodes and sites that it is for, none: all.
    """
    rule = KINDS.get(kind)
    if rule is None:
        raise KeyProblem(f"{kind!r} is no kind of target", f"Use one of {', '.join(KINDS)}.")
    path = ROSTER if kind == "roster" else f"{rule.folder}/{name}"
    if PATH.fullmatch(path) is None:
        raise KeyProblem(f"{name!r} is no name of a target", "Use a-z, 0-9, dot, hyphen and underscore.")
    if len(data) > rule.limit:
        raise KeyProblem(f"{name} has {len(data)} bytes", f"A {kind} has at most {rule.limit}.")
    listed = {each.path: each for each in ceremony.listed(rule.role)}
    digest = digest_bytes(data)
    version = listed[path].version + 1 if path in listed else 1
    sha256 = hashlib.sha256(data).hexdigest()
    project, number = _release(name, data, where) if kind == "release" else ("", 0)
    if where and kind != "release":
        raise KeyProblem(f"a {kind} is for every node", "Leave --where out; only releases have places.")
    listed[path] = Target(
        path,
        kind,
        version,
        len(data),
        digest,
        sha256,
        organisations=dict(organisations),
        project=project,
        number=number,
        where=tuple(sorted(set(where))),
    )
    (ceremony.folder / "targets").mkdir(parents=True, exist_ok=True)
    replace_file(ceremony.folder / "targets" / digest, data, 0o644)
    ceremony.restage(rule.role, list(listed.values()))
    return ceremony.settle()


def _release(name: str, data: bytes, where: Sequence[str]) -> tuple[str, int]:
    """Project and version of a release; another file has none, and no node takes it. Raises `KeyProblem`."""
    wrong = [each for each in where if not is_name(each)]
    if wrong:
        raise KeyProblem(f"{wrong[0]!r} is no name of a node or site", "Use a-z, 0-9 and hyphen, at most 63.")
    try:
        about = read_release(data).manifest.about
    except Untrusted as error:
        if where:
            raise KeyProblem(
                f"{name} is no release: {error}", "Make one: `reuna release make`; only releases have places."
            ) from error
        return "", 0
    return about.project, about.version


def _roster(file: Path, data: bytes) -> dict[str, str]:
    try:
        return read_roster(msgspec.json.decode(data))
    except (Untrusted, *UNREADABLE) as error:
        raise KeyProblem(
            f"{file} is no roster: {error}",
            'Write JSON with each node and its organisation: {"press-1": "acme", "oven-2": "borg"}.',
        ) from error


def withdraw(ceremony: Ceremony, path: str) -> dict[str, str]:
    """Take a target off its list; what still lacks a signature."""
    for role in LISTS:
        listed = {each.path: each for each in ceremony.listed(role)}
        if listed.pop(path, None) is not None:
            ceremony.restage(role, list(listed.values()))
            return ceremony.settle()
    raise KeyProblem(f"no target {path!r} is listed", "List them with `reuna trust show`.")


def sign_file(file: Path, key: PrivateKey) -> None:
    """Put a key's signature beside those that a staged file has. Raises `KeyProblem`, `Untrusted`."""
    role, data = _staged_file(file)
    replace_file(file, publish.add_signatures(role, data, [key]), 0o644)


def describe(file: Path) -> list[str]:
    """What a staged file says, for the person who is to sign it. Raises `KeyProblem`, `Untrusted`."""
    role, data = _staged_file(file)
    signed = publish.read(role, data).signed
    lines = [f"{role} {signed.version}, until {signed.expires:%Y-%m-%d %H:%M}"]
    if role in LISTS:
        lines += [f"  {each.path} {each.version} {each.digest[:12]}" for each in read_all(signed)]
    if role not in DELEGATED:
        for name, ring in publish.rings(role, data).items():
            keys = " ".join(key_of(key).keyid[:8] for key in ring.keys)
            lines.append(f"  {name}: {ring.threshold} of {keys}")
    return lines


def _staged_file(file: Path) -> tuple[str, bytes]:
    role = file.name.removesuffix(".json")
    if role not in ORDER or not file.is_file():
        raise KeyProblem(
            f"{file} is no staged file", f"Staged files are {', '.join(f'{r}.json' for r in ORDER)}."
        )
    return role, file.read_bytes()


def overview(ceremony: Ceremony) -> dict[str, Any]:
    """Roles, their keys and ends, what waits, what may come down. Plain values, for people and JSON."""
    repository = ceremony.repository
    state = repository.check(0.0)
    rings = publish.rings("root", repository.newest("root"))
    rings |= publish.rings("targets", repository.newest("targets"))
    files = {"root": state.root, **state.files}
    roles = {
        role: {
            "version": files[role].version,
            "expires": files[role].expires,
            "threshold": ring.threshold,
            "keys": [key_of(key).keyid for key in ring.keys],
        }
        for role, ring in rings.items()
    }
    staged = {role: ceremony.lacking(role, data) for role in ORDER if (data := ceremony.staged(role))}
    targets = [
        msgspec.to_builtins(each) for role in LISTS for each in read_all(repository.targets(role).signed)
    ]
    cloud = sorted(key.hex() for key in repository.plan_keys())
    return {"fleet": repository.fleet(), "roles": roles, "staged": staged, "targets": targets, "cloud": cloud}


def make_trust(folder: Path, fleet: str, now: float) -> bytes:
    """Trust for a fleet on one machine: one key of each kind, none locked. Its root, for each node.

    Good for a try and for tests; whoever reads this machine's disk can sign anything.
    """
    init(Ceremony(folder, now, _never_asked), fleet, 1, 1, None)
    return (folder / "root.json").read_bytes()


def sign_roster(folder: Path, organisations: Mapping[str, str], now: float) -> None:
    """Say which nodes a fleet on one machine has, and whose each is: without that no policy counts them."""
    data = msgspec.json.encode(dict(organisations))
    add_bytes(Ceremony(folder, now, _never_asked), data, "roster", "fleet", organisations)


def take_over(source: Path, folder: Path, fleet: str, now: float) -> None:
    """What of a ceremony that was held elsewhere belongs at the cloud; offline keys stay where they are.

    Raises `KeyProblem` when that is not whole, or of another fleet.
    """
    ceremony = Ceremony(source, now, _never_asked)
    if (found := ceremony.repository.fleet()) != fleet:
        raise KeyProblem(f"{source} is the trust of fleet {found!r}, not {fleet!r}", "Name the other folder.")
    ceremony.repository.plan_signer(ceremony.online_keys())
    for part in ("public", "online", "targets"):
        if (source / part).is_dir():
            shutil.copytree(source / part, folder / part)
    replace_file(folder / "root.json", ceremony.repository.newest("root"), 0o644)


def _never_asked(path: Path) -> bytes:
    raise KeyProblem(f"{path} is locked, but was made without a passphrase")


def _number(path: Path) -> int:
    last = path.stem.rpartition("-")[2]
    return int(last) if last.isdigit() else 0
