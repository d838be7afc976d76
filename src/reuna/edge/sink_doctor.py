"""Examining sinks: the way to each, and whether it would take what is sent. No answer is sent for it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from reuna.adapters.reaching import reach
from reuna.core.errors import ExtraMissing, ReunaError
from reuna.core.findings import DOUBTFUL, FINE, WRONG, Finding, room_for_files
from reuna.core.mqtt_settings import Broker
from reuna.core.ports import Clock, Offload
from reuna.core.sink_settings import (
    FileTarget,
    MqttTarget,
    OpcUaTarget,
    SinkSettings,
    SparkplugTarget,
    Target,
    WebhookTarget,
)
from reuna.core.source_kinds import Peer
from reuna.core.sparkplug_node import SparkplugNode

MIB = 1 << 20
PORTS = {"http": 80, "https": 443}
OTHERS = 0o007  #: rights of everybody on a file


async def examine_sinks(
    sinks: Sequence[SinkSettings], clock: Clock, offload: Offload, send: bool = False
) -> list[Finding]:
    """What is found, sink by sink. ``send``: brokers are sent an empty message on the topics."""
    found = await asyncio.gather(*(_examined(each, clock, offload, send) for each in sinks))
    return [each for some in found for each in some]


async def _examined(settings: SinkSettings, clock: Clock, offload: Offload, send: bool) -> list[Finding]:
    name, target = settings.name, settings.target
    peer = peer_of(target)
    found = await reach(name, peer, clock) if peer else []
    if any(each.level == WRONG for each in found):
        return found  # whatever else is wrong follows from it
    try:
        return [*found, *await _would_take(name, target, clock, offload, send)]
    except ReunaError as error:
        check = "node" if isinstance(target, OpcUaTarget) else "broker"
        return [*found, Finding(name, check, WRONG, error.message, error.next_step)]


def peer_of(target: Target) -> Peer | None:
    """Where the other side is; None of a folder."""
    if isinstance(target, FileTarget):
        return None
    if isinstance(target, WebhookTarget):
        url = urlsplit(target.url)
        return Peer(
            url.hostname or "",
            url.port or PORTS[url.scheme],
            False,
            url.scheme == "https",
            target.authority,
            target.certificate,
            target.key,
        )
    if isinstance(target, OpcUaTarget):
        return Peer(target.server.host, target.server.port)
    return _peer_of(target.broker)


def _peer_of(broker: Broker) -> Peer:
    readable = bool(broker.password_file) and not broker.tls
    return Peer(
        broker.host, broker.port, readable, broker.tls, broker.authority, broker.certificate, broker.key
    )


async def _would_take(name: str, target: Target, clock: Clock, offload: Offload, send: bool) -> list[Finding]:
    if isinstance(target, FileTarget):
        return [await offload(lambda: _folder(name, target))]
    if isinstance(target, WebhookTarget):
        return [_token(name, Path(target.token_file))] if target.token_file else []
    if isinstance(target, OpcUaTarget):
        return [await _node(name, target, clock, offload)]
    return await _broker(name, target, send)


def _folder(name: str, target: FileTarget) -> Finding:
    folder = Path(target.folder)
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        step = "Give the agent's user the right to write there, or correct `folder`."
        return Finding(name, "folder", WRONG, f"{there} may not be written", step)
    used = sum(each.stat().st_size for each in folder.glob(f"{name}-*")) if folder.is_dir() else 0
    return room_for_files(name, target.folder, shutil.disk_usage(there).free, used, target.mib * MIB)


def _token(name: str, file: Path) -> Finding:
    try:
        token, mode = file.read_text("ascii").partition("\n")[0], file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        return Finding(name, "token", WRONG, f"{file} cannot be read: {error}", "Correct `token_file`.")
    if not token.strip():
        return Finding(name, "token", WRONG, f"{file} has no token on its first line", "Write it there.")
    if mode & OTHERS:
        return Finding(name, "token", DOUBTFUL, f"everybody may read {file}", f"Run `chmod o= {file}`.")
    return Finding(name, "token", FINE, f"{file} has a token")


async def _node(name: str, target: OpcUaTarget, clock: Clock, offload: Offload) -> Finding:
    try:
        from reuna.adapters.opcua.writable import why_not
    except ModuleNotFoundError:
        raise ExtraMissing(
            f"sink {name}: asyncua is not installed", "Run `pip install 'reuna[opcua]'`."
        ) from None
    where = str(target.server.tags[0].node)
    if wrong := await why_not(target, clock, offload):
        step = "Correct `node` and `type`, or give our user the right to write it."
        return Finding(name, "node", WRONG, f"{where}: {wrong}", step)
    return Finding(name, "node", FINE, f"{where} may be written")


async def _broker(name: str, target: MqttTarget | SparkplugTarget, send: bool) -> list[Finding]:
    from reuna.adapters.mqtt.writing import writing

    topics = topics_of(target)
    refused = await writing(f"sink {name}", target.broker, topics if send else ())
    found = [Finding(name, "broker", FINE, "the broker lets us in")]
    for topic in topics if send else ():
        if topic in refused:
            step = "Give our user the right to write there, in the broker's access list."
            found.append(Finding(name, "topic", WRONG, f"{topic}: {refused[topic]}", step))
        else:
            found.append(Finding(name, "topic", FINE, f"{topic} may be written"))
    return found


def topics_of(target: MqttTarget | SparkplugTarget) -> tuple[str, ...]:
    """Those on which it is told answers or alarms."""
    if isinstance(target, MqttTarget):
        return (target.topic,)
    return (SparkplugNode(target.group, target.node, 0).topic("NDATA"),)
