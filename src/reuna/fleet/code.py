"""Who lets pushed code run on a fleet: the officers of its sites, and the keys of its code role.

On a fleet of one machine both have their keys in its folder, and sign by themselves. Elsewhere people
do: `reuna code approve` at each site, `reuna trust add PROJECT --kind code` where the code keys are.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from reuna.adapters.project import pack_bundle
from reuna.adapters.toml_file import read_toml
from reuna.adapters.trust_keys import is_locked, read_key
from reuna.adapters.tuf_repository import TufRepository
from reuna.core.errors import KeyProblem
from reuna.fleet.built import read
from reuna.fleet.layout import Fleet, PlaceFile
from reuna.fleet.officer import approve, key_file
from reuna.fleet.trail import Trail
from reuna.fleet.trust import Ceremony, add_bytes
from reuna.trust.roles import KINDS
from reuna.trust.targets import PATH, read_all
from reuna.wire import digest_bytes
from reuna.wire.build import CODE


class Allowed(msgspec.Struct, frozen=True):
    """A bundle's digest, whether the code role vouches for it now, and what was signed just now for it.

    ``vouched`` is None where that cannot be seen; ``sites``: how many policies; ``signed``: whether the
    list of the code role.
    """

    digest: str
    vouched: bool | None
    sites: int = 0
    signed: bool = False


def allow_code(fleet: Fleet, bundle: bytes, project: str) -> Allowed:
    """Let a bundle run where the keys lie in the fleet's own folder.

    Of a fleet that is known from afar neither keys nor lists are here: nothing is signed.
    Raises `KeyProblem`, `SettingsError`, `Untrusted` when what is published is not sound.
    """
    digest = digest_bytes(bundle)
    if not fleet.of("cloud"):
        return Allowed(digest, None)
    trust = Path(fleet.setting("trust"))
    if is_vouched(trust, digest):
        return Allowed(digest, True, _by_officer(fleet, digest))
    signed = is_own(fleet) and not _vouch(trust, bundle, project)
    return Allowed(digest, signed, _by_officer(fleet, digest), signed)


def is_vouched(trust: Path, digest: str) -> bool:
    """Whether a trust folder publishes a target of the code role with that digest."""
    listed = read_all(TufRepository(trust / "public").targets("code").signed)
    return any(each.kind == "code" and each.digest == digest for each in listed)


def bundle_name(project: str, digest: str) -> str:
    """What a bundle is called in the code role's list: each one stays, beside those before."""
    name = f"{project[:80]}-{digest[:12]}"
    return name if PATH.fullmatch(f"{KINDS['code'].folder}/{name}") else digest


def packed(project: Path) -> tuple[bytes, str]:
    """The bundle of code of a project's folder or of its build, and what it is called in the list.

    Raises `ProjectError`, `Untrusted` for a build that is not whole.
    """
    if project.is_file():
        build = read(project)
        return build.parts[CODE], bundle_name(build.manifest.project, build.manifest.code)
    data = pack_bundle(project)
    return data, bundle_name(project.absolute().name, digest_bytes(data))


def is_own(fleet: Fleet) -> bool:
    """Whether whoever made the fleet holds all its keys, here and open."""
    keys = list((Path(fleet.setting("trust")) / "keys").glob("code-*.key"))
    return key_file(fleet.folder).is_file() and bool(keys) and not any(map(is_locked, keys))


def _by_officer(fleet: Fleet, digest: str) -> int:
    if not key_file(fleet.folder).is_file():
        return 0
    key = read_key(key_file(fleet.folder))
    places = filter(_runs_code, fleet.places)
    return sum(approve(place.folder / "policy.toml", key, digest) for place in places)


def _runs_code(place: PlaceFile) -> bool:
    """Whether a project's code runs there: at each edge, and at a fog whose releases answer."""
    if place.kind != "fog":
        return place.kind == "edge"
    return bool(read_toml(place.settings).values.get("inference", {}).get("data"))


def _vouch(trust: Path, bundle: bytes, project: str) -> dict[str, str]:
    ceremony = Ceremony(trust, time.time(), _never_asked)
    name = bundle_name(project, digest_bytes(bundle))
    with Trail(trust).doing("trust.add", name, kind="code"):
        return add_bytes(ceremony, bundle, "code", name)


def _never_asked(path: Path) -> bytes:
    raise KeyProblem(f"{path} is locked", "Sign with `reuna trust add PROJECT --kind code`.")
