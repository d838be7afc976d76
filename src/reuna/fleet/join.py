"""A machine becomes a node: key made here, certificate fetched with a token, settings written.

The folder appears whole or not at all. A fog also gets the authority of its site, so that it can
take in edges while the cloud is out of reach.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from reuna.adapters import certificates
from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.enrol_client import EstSource, fetch_root
from reuna.adapters.toml_file import read_toml
from reuna.core.errors import NotAdmitted, SettingsError
from reuna.core.settings import Option, Source, flags, parse
from reuna.edge.settings import EDGE
from reuna.fleet.layout import write_toml
from reuna.fog.settings import FOG
from reuna.trust.enrolment import DAY, Token

FOG_PORTS = {"nats_port": 4222, "freight_port": 8443}
ENROL_PORT = 8444


@dataclass(frozen=True)
class Joined:
    """A new node: its kind and name, its fleet and site, and the settings file in its folder.

    ``policy`` is where its signed policy goes, ``pins`` the folder for who signs it.
    """

    role: str
    name: str
    fleet: str
    site: str
    settings: Path
    policy: Path
    pins: Path
    over: str = ""  #: the fog that a fog stands under


def join(
    text: str,
    folder: Path | None = None,
    host: str = "127.0.0.1",
    data: Path | None = None,
    sets: Sequence[str] = (),
) -> Joined:
    """Enrol this machine. ``host`` is where a fog's edges reach it, ``data`` an edge's own data.

    Raises `NotAdmitted`, `Unreachable`, `SettingsError`; nothing is left behind then.
    """
    token = Token.parse(text)
    target = (folder or Path(token.name)).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SettingsError(f"{target} is not empty", "Name another folder with --folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        make = _Join(token, work, target, host, flags(list(sets)))
        file = make.fog() if token.role == "fog" else make.edge(data)
        work.rename(target)  # onto an empty folder, or as a new one
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _joined(token, target / file)


def _joined(token: Token, file: Path) -> Joined:
    found = read_toml(file).values
    site = token.name if token.role == "fog" else found["parent"]["name"]
    pins = Path(found["folder"]) / "policy"
    parent = found["parent"]
    over = parent["name"] if token.role == "fog" and parent.get("role") == "fog" else ""
    return Joined(token.role, token.name, found["fleet"], site, file, Path(found["policy"]), pins, over)


class _Join:
    """Steps of one machine's enrolment, in ``work``, which will be ``target``."""

    def __init__(self, token: Token, work: Path, target: Path, host: str, sets: Source) -> None:
        self._token = token
        self._work = work
        self._target = target
        self._host = host
        self._sets = sets
        root = work / "root.crt"
        certificates.write_private(root, fetch_root(token.address, token.root), 0o644)
        self._source = EstSource(token.address, root)
        self._own = EstSource(token.address, root, work / "identity.pem")
        self._told = self._source.invitation(token.secret)
        self._keep_root(self._told.pop("root_json", ""))
        if (self._told.pop("role", None), self._told.pop("name", None)) != (token.role, token.name):
            raise NotAdmitted("malformed", "the authority and the token speak of different nodes")

    def _keep_root(self, text: object) -> None:
        """What the node will trust for plans and releases; it came over the line that the token pins."""
        if not isinstance(text, str) or not text:
            raise NotAdmitted("malformed", "the authority gave no root of trust")
        certificates.write_private(self._work / "root.json", text.encode(), 0o644)
        self._told["root"] = str(self._target / "root.json")
        self._told["policy"] = str(self._target / "policy.toml")

    def edge(self, data: Path | None) -> str:
        own = self._target / "data"
        settings = {
            "name": self._token.name,
            "folder": str(self._target / "state"),
            "data": str((data or own).absolute()),
            **self._told,
            "tls": self._tls(),
        }
        values = self._check(EDGE, settings)
        self._enrol()
        if data is None:
            (self._work / "data").mkdir()
        return self._write("edge.toml", settings, values)

    def fog(self) -> str:
        issuer = self._target / "issuer"
        settings = {
            "name": self._token.name,
            "folder": str(self._target / "state"),
            "listen": {"host": self._host, **FOG_PORTS},
            "site": {name: str(self._target / "gateway.pem") for name in ("certificate", "key")},
            **self._told,
            "tls": self._tls(),
        }
        settings["enrol"] = {"authority": str(issuer), "port": ENROL_PORT, **settings["enrol"]}
        values = self._check(FOG, settings)
        self._enrol()
        self._site(values)
        return self._write("fog.toml", settings, values)

    def _tls(self) -> dict[str, str]:
        own = str(self._target / "identity.pem")
        return {"certificate": own, "key": own, "authority": str(self._target / "root.crt")}

    def _check(self, table: tuple[Option, ...], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Find mistakes before the token is used up. Raises `SettingsError`."""
        return parse(table, [Source("the invitation", settings), self._sets])

    def _enrol(self) -> None:
        """The token is used up here."""
        self._certificate(lambda request: self._source.enrol(self._token.secret, request))

    def _certificate(self, ask: Callable[[bytes], list[bytes]]) -> None:
        key = certificates.new_key()
        chain = certificates.ordered(ask(certificates.request(key)), key.public_key())
        found = certificates.identity_in(chain[0])
        if (found.role, found.name) != (self._token.role, self._token.name):
            raise NotAdmitted("certificate", f"the authority sent a certificate for {found.uri}")
        pem = certificates.key_pem(key) + certificates.to_pem(chain)
        certificates.write_private(self._work / "identity.pem", pem)

    def _site(self, values: Mapping[str, Any]) -> None:
        """The site's authority, certified by the cloud, and the gateway's certificate by it."""
        key, folder, hosts = certificates.new_key(), self._work / "issuer", (values["listen.host"],)
        folder.mkdir(mode=0o700)
        request = certificates.request(key, hosts)
        chain = certificates.ordered(self._own.renew_site(request), key.public_key())
        certificates.write_private(folder / "authority.key", certificates.key_pem(key))
        certificates.write_private(folder / "authority.crt", certificates.to_pem(chain), 0o644)
        certificates.write_private(folder / "root.crt", (self._work / "root.crt").read_bytes(), 0o644)
        site = CertificateAuthority.load(folder)
        life = timedelta(seconds=values["enrol.life_days"] * DAY)
        pair = site.issue("gateway", self._token.name, hosts, life)
        pair.key.rename(self._work / "gateway.pem")

    def _write(self, file: str, settings: dict[str, Any], values: Mapping[str, Any]) -> str:
        """The settings with what was set on the command line, as it was understood."""
        for name in self._sets.values:
            section, _, key = name.rpartition(".")
            table = settings.setdefault(section, {}) if section else settings
            table[key] = values[name]
        write_toml(self._work / file, settings)
        return file
