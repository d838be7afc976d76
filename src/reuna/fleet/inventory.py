"""What belongs to a place: its state folder, its settings file, and what the settings name.

A backup has four kinds of things: what the place writes (``state``), the settings file (``cloud.toml``),
folders that the settings name (``trust``, ``authority``), and files that they name (``named``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from reuna.adapters.toml_file import read_toml
from reuna.cloud.settings import CLOUD
from reuna.core.backup import KINDS, Named
from reuna.core.errors import SettingsError
from reuna.core.settings import Option
from reuna.edge.settings import EDGE
from reuna.fog.settings import FOG

TABLES: Mapping[str, tuple[Option, ...]] = {"cloud": CLOUD, "fog": FOG, "edge": EDGE}
STATE = "state"
FOLDERS = {"trust": "trust", "enrol.authority": "authority"}  #: by option; others under the option's name
NOT_OURS = ("data",)  #: options that name a site's own data
SECRETS = ("oidc.secret_file", "site.key", "tls.key")  #: options that name a secret, whatever its form


@dataclass(frozen=True)
class Place:
    """A place by its settings, as `reuna.core.settings.parse` gives them."""

    kind: str
    file: Path
    values: Mapping[str, Any]

    @property
    def state(self) -> Path:
        return Path(self.values["folder"]).absolute()

    @property
    def trust(self) -> Path | None:
        """The folder that the fleet's metadata is published from, at a cloud."""
        return Path(self.values["trust"]).absolute() if self.kind == "cloud" else None


@dataclass(frozen=True)
class Root:
    """Something of a place: where on the disk, where in a backup. ``secret``: left out with the keys."""

    path: Path
    at: str
    secret: bool = False


def kind_of(file: Path) -> str:
    """Of which kind of place a settings file is. Raises `SettingsError`."""
    values = read_toml(file).values
    if file.stem in KINDS:
        return file.stem
    if "data" in values:
        return "edge"
    if "trust" in values:
        return "cloud"
    if "site" in values:
        return "fog"
    raise SettingsError(f"{file} is the settings file of no place", "Name cloud.toml, fog.toml or edge.toml.")


def roots(place: Place) -> tuple[list[Root], list[Named]]:
    """What a backup begins from, and which option names what of it. No path is in it twice."""
    found = [Root(place.state.resolve(), STATE), Root(place.file.absolute(), f"{place.kind}.toml")]
    named = [Named("folder", place.values["folder"], STATE)]
    for option in sorted(TABLES[place.kind], key=lambda each: each.there != "folder"):
        value = place.values.get(option.name)
        if not option.there or not value or option.name in NOT_OURS:
            continue
        path = Path(value).absolute().resolve()
        at = _inside(path, found) or _fresh(option, path, found)
        if at not in {root.at for root in found} and not _inside(path, found):
            found.append(Root(path, at, option.name in SECRETS))
        named.append(Named(option.name, value, at))
        beside = path.with_suffix(".sig")
        if option.name == "policy" and not _inside(beside, found):
            found.append(Root(beside, str(PurePosixPath(at).with_suffix(".sig"))))
    return found, named


def _inside(path: Path, found: list[Root]) -> str:
    """Where a path lies in a backup that has the roots ``found``, or ''."""
    for root in found:
        if path == root.path:
            return root.at
        if path.is_relative_to(root.path):
            return f"{root.at}/{path.relative_to(root.path).as_posix()}"
    return ""


def _fresh(option: Option, path: Path, found: list[Root]) -> str:
    if option.there == "folder":
        return FOLDERS.get(option.name, option.name.replace(".", "-"))
    taken, number = {root.at for root in found}, 1
    at = f"named/{path.name}"
    while at in taken:
        number += 1
        at = f"named/{number}-{path.name}"
    return at


def made_again(at: str) -> str | None:
    """Why a file or folder of a place is in no backup: '' when it goes without saying, None when it is in.

    ``at``: its place in the backup.
    """
    parts = PurePosixPath(at).parts
    name = parts[-1]
    if parts[0] == STATE and len(parts) == 2 and name == "nats":
        return "messages on their way, and files that the nats-server makes anew"
    if parts[0] == STATE and len(parts) == 2 and name == "work":
        return "the worker's own folder, made anew for each run"
    if parts[0] == STATE and len(parts) == 2 and name == "live":
        return "what a release that answers was unpacked to, made anew from its file"
    if parts[0] == STATE and len(parts) == 3 and name == "spare":
        return ""
    if name in {"lock", ".lock", "journal.lock"} or name.endswith((".part", ".hashes", "-wal", "-shm")):
        return ""
    return None


def exclusive(state: Path) -> Iterator[Path]:
    """Files that a running place holds a lock on."""
    yield state / "journal" / "journal.lock"
    yield state / "ledger" / "lock"
