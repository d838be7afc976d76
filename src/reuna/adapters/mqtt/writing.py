"""Whether a broker lets us in, and lets us write: asked by a person, before a sink needs it.

MQTT 3.1.1 acknowledges what a broker throws away. So this speaks MQTT 5, whose acknowledgement has a reason;
what is sent is an empty message that nothing keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reuna.adapters.mqtt.client import client_of, connected, failure_of
from reuna.core.errors import Unreachable
from reuna.core.mqtt_settings import Broker

if TYPE_CHECKING:
    from aiomqtt import Client

AT_LEAST_ONCE = 1


async def writing(what: str, broker: Broker, topics: Sequence[str]) -> dict[str, str]:
    """Sign in, and send an empty message on each topic; those that the broker refuses, and its reason.

    Raises `ExtraMissing`, `KeyProblem`; `Unreachable` when it does not let us in.
    """
    failure = failure_of(what)
    from aiomqtt import ProtocolVersion

    version_5 = {"protocol": ProtocolVersion.V5, "clean_session": None} if topics else {}
    another = replace(broker, client_id="", session=False)  # else the broker would end the sink's connection
    client, refused = client_of(what, another, **version_5), dict[str, str]()
    told = _overheard(client)
    try:
        async with connected(client, failure):
            for topic in topics:
                await client.publish(topic, b"", qos=AT_LEAST_ONCE)
                if told[-1].is_failure:
                    refused[topic] = str(told[-1])
    except (OSError, failure) as error:
        raise Unreachable(f"{broker.host}:{broker.port}: {error}") from error
    return refused


def _overheard(client: Client) -> list[Any]:
    """The reason of each acknowledgement to come, which aiomqtt passes over and paho below it says."""
    told: list[Any] = []
    paho = client._client
    heard = paho.on_publish

    def on_publish(*said: Any) -> None:
        told.append(said[3])
        if heard is not None:
            heard(*said)

    paho.on_publish = on_publish
    return told
