"""The folder of a small fleet: one settings file per place, certificates, and ``fleet.toml``.

FLEET/fleet.toml
FLEET/ca/…                        the fleet's own certificate authority
FLEET/trust/…                     who may sign what: one key of each kind, unlocked, fine for a try
FLEET/cloud/cloud.toml            one folder per place: settings, keys (0600), state
FLEET/north/fog.toml
FLEET/plant-1/edge.toml
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.sandbox import HIGHEST, probe, sentence
from reuna.adapters.toml_file import read_toml
from reuna.core.errors import PlanError, SettingsError
from reuna.core.settings import REQUIRED, Option, parse
from reuna.core.tree import check_tree
from reuna.fleet.officer import give_policy, make_officer
from reuna.fleet.ports import HOST, free_ports
from reuna.fleet.trust import make_trust, sign_roster

log = logging.getLogger("reuna.up")
HOSTS = (HOST, "localhost")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
KINDS = ("cloud", "fog", "edge")

FLEET: tuple[Option, ...] = (
    Option("fleet", str, REQUIRED, "name of the fleet"),
    Option("cloud", str, REQUIRED, "settings file of the cloud"),
    Option("fogs", list, REQUIRED, "settings files of the fogs"),
    Option("edges", list, REQUIRED, "settings files of the edges"),
)


@dataclass(frozen=True)
class PlaceFile:
    """One place of a fleet: its kind, name and settings file."""

    kind: str
    name: str
    settings: Path

    @property
    def folder(self) -> Path:
        return self.settings.parent


@dataclass(frozen=True)
class Fleet:
    """A fleet on disk, places from the top down.

    ``joined``: fog -> edges, of machines that enrolled; their folders are theirs, so they are no places.
    ``above``: the fog over each fog that does not stand directly under the cloud.
    """

    name: str
    folder: Path
    places: tuple[PlaceFile, ...]
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    above: Mapping[str, str] = field(default_factory=dict)

    def of(self, kind: str) -> list[PlaceFile]:
        """Places of one kind."""
        return [place for place in self.places if place.kind == kind]

    def from_below(self) -> list[list[PlaceFile]]:
        """Places in the order in which they end, so that a child still reaches its parent."""
        levels: dict[int, list[PlaceFile]] = {}
        for fog in self.of("fog"):
            levels.setdefault(_depth(fog.name, self.above), []).append(fog)
        return [self.of("edge"), *(levels[depth] for depth in sorted(levels, reverse=True)), self.of("cloud")]

    def setting(self, name: str, place: str = "cloud") -> Any:
        """One raw value from a place's settings file, by dotted name."""
        file = next(found.settings for found in self.places if found.name == place)
        value: Any = read_toml(file).values
        for part in name.split("."):
            value = value[part]
        return value


def check_names(names: list[str]) -> None:
    """Node names are short, lower-case and unique. Raises `SettingsError`."""
    wrong = [name for name in names if not NAME.fullmatch(name)]
    twice = sorted({name for name in names if names.count(name) > 1})
    mistakes = [f"{name!r} is no node name: use a-z, 0-9 and -, at most 63" for name in wrong]
    mistakes += [f"the node name {name!r} is used twice" for name in twice]
    if mistakes:
        raise SettingsError("\n".join(mistakes), "Rename the folder or node and try again.")


def make_fleet(
    folder: Path,
    name: str,
    fogs: Mapping[str, Mapping[str, Path]],
    announce_s: float = 1.0,
    preset: str = "local",
    above: Mapping[str, str] | None = None,
) -> Fleet:
    """Write everything a fleet on this machine needs. ``fogs`` maps fog -> edge -> data folder.

    ``above``: the fog over each fog that does not stand directly under the cloud. ``preset``: which starter
    policy the sites have, see `reuna.fleet.policy.PRESETS`.
    """
    edges, over = [edge for of_fog in fogs.values() for edge in of_fog], above or {}
    check_names(["cloud", *fogs, *edges])
    check_tree(fogs, over)
    folder.mkdir(parents=True, exist_ok=True)
    authority = CertificateAuthority.create(folder / "ca", name)
    make_trust(folder / "trust", name, time.time())
    sign_roster(folder / "trust", {edge: edge for edge in edges}, time.time())
    level = _sandbox_level()
    ports = iter(free_ports(5 + 4 * len(fogs)))
    cloud = _cloud(folder, name, [fog for fog in fogs if fog not in over], authority, ports, announce_s)
    places = [PlaceFile("cloud", "cloud", cloud)]
    below = []
    for fog in sorted(fogs, key=lambda fog: _depth(fog, over)):  # whose settings say where its parent is
        file = _fog(folder, name, fog, list(fogs[fog]), over, authority, ports, announce_s, level)
        places.append(PlaceFile("fog", fog, file))
    for fog, data in fogs.items():
        for edge, path in data.items():
            below.append(PlaceFile("edge", edge, _edge(folder, name, edge, fog, path, level)))
    places += below
    officer = make_officer(folder)
    for fog, data in fogs.items():
        for node in (fog, *data):
            place = folder / node
            give_policy(place, place / "state", officer, preset, node, name, fog, over.get(fog, ""))
    write_toml(folder / "fleet.toml", _index(name, folder, places))
    return Fleet(name, folder, tuple(places), above=dict(over))


def placed(
    fogs: Mapping[str, Mapping[str, Path]], under: Sequence[str]
) -> tuple[dict[str, Mapping[str, Path]], dict[str, str]]:
    """Fogs and the fogs over them, from words like ``fog-1=firm``; a fog that is new has no edge of its own.

    Raises `SettingsError` for a word that is none, or a fog that is placed twice or under itself.
    """
    pairs = [word.partition("=") for word in under]
    for fog, sign, over in pairs:
        if not (sign and NAME.fullmatch(fog) and NAME.fullmatch(over)):
            raise SettingsError(f"{fog}{sign}{over} does not place a fog", "Write it as FOG=FOG-OVER-IT.")
    above = {fog: over for fog, _, over in pairs}
    if len(above) < len(pairs):
        raise SettingsError("a fog is placed under two others", "Give each fog one place.")
    found = {**fogs, **{name: {} for pair in above.items() for name in pair if name not in fogs}}
    try:
        check_tree(found, above)
    except PlanError as error:
        raise SettingsError(error.message, error.next_step) from error
    return found, above


def _depth(fog: str, above: Mapping[str, str]) -> int:
    """Fogs over a fog."""
    return 1 + _depth(above[fog], above) if fog in above else 0


def _sandbox_level() -> int:
    """What this machine reaches; when that is not all, it is said."""
    level = probe()
    if level.number < HIGHEST:
        log.warning(
            "project code runs at sandbox level %d of %d here; missing: %s. See `reuna sandbox`.",
            level.number,
            HIGHEST,
            sentence(level),
        )
    return level.number


def open_fleet(file: Path) -> Fleet:
    """Read ``fleet.toml``. Raises `SettingsError`."""
    source = read_toml(file)
    values = parse(FLEET, [source])
    folder = file.absolute().parent
    listed = [("cloud", values["cloud"])]
    listed += [("fog", path) for path in values["fogs"]] + [("edge", path) for path in values["edges"]]
    places = [PlaceFile(kind, _name_in(folder / path, kind), folder / path) for kind, path in listed]
    return Fleet(values["fleet"], folder, tuple(places), above=_fogs_over(places))


def _fogs_over(places: Sequence[PlaceFile]) -> dict[str, str]:
    """The fogs over fogs, by the settings of these. Raises `SettingsError`."""
    parents = {p.name: read_toml(p.settings).values.get("parent", {}) for p in places if p.kind == "fog"}
    above = {fog: parent.get("name", "") for fog, parent in parents.items() if parent.get("role") == "fog"}
    for fog, over in above.items():
        if over not in parents:
            raise SettingsError(f"fog {fog} stands under {over or 'nobody'}, which is no fog of this fleet")
    try:
        check_tree(dict.fromkeys(parents, ("",)), above)
    except PlanError as error:
        raise SettingsError(error.message, error.next_step) from error
    return above


def _name_in(file: Path, kind: str) -> str:
    name = read_toml(file).values.get("name", "cloud" if kind == "cloud" else None)
    if not isinstance(name, str):
        raise SettingsError(f"{file} has no name")
    return name


def _index(name: str, folder: Path, places: list[PlaceFile]) -> dict[str, Any]:
    def paths(kind: str) -> list[str]:
        return [str(p.settings.relative_to(folder)) for p in places if p.kind == kind]

    return {"fleet": name, "cloud": paths("cloud")[0], "fogs": paths("fog"), "edges": paths("edge")}


def _cloud(
    folder: Path, fleet: str, fogs: list[str], ca: CertificateAuthority, ports: Any, announce_s: float
) -> Path:
    place = folder / "cloud"
    settings = {
        "fleet": fleet,
        "name": "cloud",
        "folder": str(place / "state"),
        "fogs": fogs,
        "announce_s": announce_s,
        "listen": {
            "host": HOST,
            "nats_port": next(ports),
            "leaf_port": next(ports),
            "freight_port": next(ports),
            "api_port": next(ports),
        },
        "trust": str(folder / "trust"),
        "enrol": {"authority": str(ca.folder), "port": next(ports)},
        "tls": _keys(ca, "cloud", "cloud", HOSTS),
    }
    ca.issue("operator", "operator")
    return write_toml(place / "cloud.toml", settings)


def _fog(
    folder: Path,
    fleet: str,
    fog: str,
    edges: list[str],
    over: Mapping[str, str],
    ca: CertificateAuthority,
    ports: Any,
    announce_s: float,
    level: int,
) -> Path:
    parent, of = over.get(fog, ""), [child for child in over if over[child] == fog]
    file = folder / parent / "fog.toml" if parent else folder / "cloud" / "cloud.toml"
    above = read_toml(file).values
    listen = above["listen"]
    own = CertificateAuthority.load(folder / parent / "issuer") if parent else ca
    issuer = ca.site(folder / fog / "issuer", fog, HOSTS)
    site = _keys(issuer, "gateway", fog, HOSTS)
    settings = {
        "fleet": fleet,
        "name": fog,
        "folder": str(folder / fog / "state"),
        "edges": edges,
        "fogs": of,
        "announce_s": announce_s,
        "root": str(folder / "trust" / "root.json"),
        "policy": str(folder / fog / "policy.toml"),
        "listen": {
            "host": HOST,
            "nats_port": next(ports),
            "freight_port": next(ports),
            "leaf_port": next(ports) if of else 0,
        },
        "parent": {
            "name": parent or "cloud",
            "role": "fog" if parent else "cloud",
            "leaf": f"{HOST}:{listen['leaf_port']}",
            "freight_host": HOST,
            "freight_port": listen["freight_port"],
        },
        "enrol": {
            "authority": str(issuer.folder),
            "port": next(ports),
            "parent": f"{HOST}:{above['enrol']['port']}",
        },
        "site": {"certificate": site["certificate"], "key": site["key"]},
        "tls": {**_keys(own, "fog", fog), "authority": str(ca.certificate)},
        "sandbox": {"min_level": level},
    }
    return write_toml(folder / fog / "fog.toml", settings)


def _edge(folder: Path, fleet: str, edge: str, fog: str, data: Path, level: int) -> Path:
    above = read_toml(folder / fog / "fog.toml").values
    listen = above["listen"]
    site = CertificateAuthority.load(folder / fog / "issuer")
    settings = {
        "fleet": fleet,
        "name": edge,
        "folder": str(folder / edge / "state"),
        "data": str(data.absolute()),
        "root": str(folder / "trust" / "root.json"),
        "policy": str(folder / edge / "policy.toml"),
        "parent": {
            "name": fog,
            "nats": f"tls://{HOST}:{listen['nats_port']}",
            "freight_host": HOST,
            "freight_port": listen["freight_port"],
        },
        "enrol": {"parent": f"{HOST}:{above['enrol']['port']}"},
        "tls": _keys(site, "edge", edge),
        "sandbox": {"min_level": level},
    }
    return write_toml(folder / edge / "edge.toml", settings)


def _keys(ca: CertificateAuthority, role: str, name: str, hosts: Sequence[str] = ()) -> dict[str, str]:
    pair = ca.issue(role, name, hosts)
    return {
        "certificate": str(pair.certificate),
        "key": str(pair.key),
        "authority": str(ca.certificate),
    }


def write_toml(path: Path, values: Mapping[str, Any]) -> Path:
    """Write plain values and one level of tables; JSON strings are TOML strings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, table in values.items():
        if isinstance(table, dict):
            lines += ["", f"[{key}]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
