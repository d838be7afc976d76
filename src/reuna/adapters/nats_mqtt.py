"""The part of a fog's nats-server configuration that lets machines of its site in by MQTT.

Its users are in the account MACHINES, which imports and exports nothing, and may connect by MQTT only. What
the server needs for MQTT itself (``$MQTT.>``) is in the account too, and no user may publish there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from reuna.adapters.tls import KeyPair
from reuna.core.mqtt_listener import MachineUser, MqttListener, subjects

ACCOUNT = "MACHINES"
DELIVERED = "$MQTT.sub.>"  #: where the server hands a client what it subscribed to with QoS 1 and 2
DONE = "$MQTT.deliver.pubrel.>"  #: by which it ends a delivery of QoS 2


def listening(host: str, listener: MqttListener, tls: KeyPair) -> Iterable[str]:
    """The listener; TLS always, 1.2 too, for machines are old."""
    return (
        "mqtt {",
        f"  listen: {json.dumps(f'{host}:{listener.port}')}",
        "  tls {",
        f"    cert_file: {json.dumps(str(tls.certificate))}",
        f"    key_file: {json.dumps(str(tls.key))}",
        '    min_version: "1.2"',
        "    timeout: 5",
        "  }",
        "  max_ack_pending: 256",
        "}",
    )


def account(listener: MqttListener) -> Iterable[str]:
    """The account of its users, with its bounds."""
    return (
        f"  {ACCOUNT} {{",
        f"    jetstream {{ max_memory: 0, max_file: {listener.store_mib}MB, max_streams: 8 }}",
        f"    limits {{ max_connections: {listener.connections}, max_payload: {listener.payload} }}",
        "    users: [",
        *map(_user, listener.users),
        "    ]",
        "  }",
    )


def _user(user: MachineUser) -> str:
    publish = [subject for topic in user.publish for subject in subjects(topic)]
    subscribe = [subject for topic in user.subscribe for subject in subjects(topic)]
    inside = [DELIVERED, DONE] if subscribe else []
    return (
        f"      {{ user: {json.dumps(user.name)}, password: {json.dumps(user.password)},"
        f" allowed_connection_types: [MQTT],"
        f" permissions: {{ publish: {_rights(publish)},"
        f" subscribe: {_rights(subscribe + inside)} }} }}"
    )


def _rights(allowed: list[str]) -> str:
    """An empty list would let everything through."""
    return f"{{ allow: {json.dumps(allowed)} }}" if allowed else '{ deny: [">"] }'
