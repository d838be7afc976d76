"""The source `sparkplug`: payloads of Sparkplug B as bytes, and a source that reads them.

protobuf's own runtime reads and writes them, by the part of Eclipse Tahu's ``sparkplug_b.proto`` that numbers
need; what else a payload has (templates, data sets, metadata) is passed over. The only thing that is ever
published is a request for a birth, and only with ``rebirth = true``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from reuna.adapters.mqtt.source import MqttSource
from reuna.core.errors import BadMessage, ExtraMissing
from reuna.core.mqtt_settings import SparkplugSettings
from reuna.core.ports import Clock
from reuna.core.sources import Tag
from reuna.core.sparkplug import Metric, Payload, SparkplugReader, Value

if TYPE_CHECKING:
    from aiomqtt import Client

#: Messages of the schema: field -> number, type, label. proto2: what is not there can be told from 0.
_VALUES = {
    "int_value": "uint32",
    "long_value": "uint64",
    "float_value": "float",
    "double_value": "double",
    "boolean_value": "bool",
    "string_value": "string",
}
_SCHEMA: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "PropertyValue": {
        "type": (1, "uint32"),
        "is_null": (2, "bool"),
        **{name: (3 + place, kind) for place, (name, kind) in enumerate(_VALUES.items())},
    },
    "PropertySet": {"keys": (1, "string*"), "values": (2, "PropertyValue*")},
    "Metric": {
        "name": (1, "string"),
        "alias": (2, "uint64"),
        "timestamp": (3, "uint64"),
        "datatype": (4, "uint32"),
        "is_historical": (5, "bool"),
        "is_null": (7, "bool"),
        "properties": (9, "PropertySet"),
        **{name: (10 + place, kind) for place, (name, kind) in enumerate(_VALUES.items())},
    },
    "Payload": {"timestamp": (1, "uint64"), "metrics": (2, "Metric*"), "seq": (3, "uint64")},
}
#: Types that travel in 32 bits; for UInt32 Tahu itself takes 64. And of properties, which say theirs.
_INT32, _FLOATS = {1, 2, 3, 5, 6}, {9: "float_value", 10: "double_value"}


def sparkplug_source(settings: SparkplugSettings, clock: Clock) -> MqttSource:
    """A source that reads one edge node. Raises `ExtraMissing` without protobuf."""
    _message("Payload")
    reader = SparkplugReader(settings, decode)

    async def ask(client: Client, now_ns: int) -> None:
        wanted = reader.request(now_ns)
        if wanted is not None:
            await client.publish(wanted[0], encode(wanted[1]))

    tags = [Tag(tag.name, tag.unit) for tag in settings.tags]
    return MqttSource(settings.name, tags, settings.broker, reader, clock, ask if settings.rebirth else None)


def decode(data: bytes) -> Payload:
    """The payload of some bytes. Raises `BadMessage`."""
    from google.protobuf.message import DecodeError

    found = _message("Payload")()
    try:
        found.ParseFromString(data)
        metrics = tuple(map(_metric, found.metrics))
    except (DecodeError, UnicodeError) as error:
        raise BadMessage(f"is no Sparkplug B payload: {str(error)[:100]}") from error
    return Payload(
        found.timestamp if found.HasField("timestamp") else None,
        found.seq if found.HasField("seq") else None,
        metrics,
    )


def encode(payload: Payload) -> bytes:
    """The bytes of a payload; properties are text, whole numbers, numbers, true or false."""
    made = _message("Payload")()
    for name, value in (("timestamp", payload.timestamp_ms), ("seq", payload.seq)):
        if value is not None:
            setattr(made, name, value)
    for metric in payload.metrics:
        _fill(made.metrics.add(), metric)
    return bytes(made.SerializeToString())


def _metric(found: Any) -> Metric:
    return Metric(
        _whole(found.name),
        found.alias if found.HasField("alias") else None,
        found.timestamp if found.HasField("timestamp") else None,
        found.datatype,
        _value(found),
        found.is_null,
        found.is_historical,
        _properties(found.properties) if found.HasField("properties") else {},
    )


def _properties(found: Any) -> dict[str, Value]:
    kept: dict[str, Value] = {}
    for key, value in zip(found.keys, found.values, strict=False):
        kept[_whole(key)] = None if value.is_null else _value(value)
    return kept


def _value(found: Any) -> Value:
    which = found.WhichOneof("value")
    value: Value | bytes = getattr(found, which) if which else None
    return _whole(value) if isinstance(value, bytes) else value


def _whole(text: str | bytes) -> str:
    """A text; protobuf gives bytes where it is not UTF-8. Raises `UnicodeError`."""
    return text.decode() if isinstance(text, bytes) else text


def _fill(made: Any, metric: Metric) -> None:
    said: dict[str, Value] = {
        "name": metric.name or None,
        "alias": metric.alias,
        "timestamp": metric.timestamp_ms,
        "datatype": metric.datatype or None,
        "is_null": metric.is_null or None,
        "is_historical": metric.is_historical or None,
    }
    for name, value in said.items():
        if value is not None:
            setattr(made, name, value)
    if metric.value is not None:
        setattr(made, _field(metric.value, metric.datatype), metric.value)
    for key, value in metric.properties.items():
        made.properties.keys.append(key)
        each = made.properties.values.add()
        each.type = _type(value)
        if value is None:
            each.is_null = True
        else:
            setattr(each, _field(value, each.type), value)


def _type(value: Value) -> int:
    """Boolean, String, Double, Int32 or UInt64: the type of a property."""
    kinds: dict[type, int] = {bool: 11, str: 12, float: 10, type(None): 12}
    return kinds.get(type(value)) or (3 if value in range(1 << 31) else 8)


def _field(value: Value, datatype: int) -> str:
    """Where a value stands in the schema."""
    if isinstance(value, bool):
        return "boolean_value"
    if isinstance(value, str):
        return "string_value"
    if isinstance(value, float) or datatype in _FLOATS:
        return _FLOATS.get(datatype, "double_value")
    return "int_value" if datatype in _INT32 or (not datatype and value in range(1 << 31)) else "long_value"


@cache
def _message(name: str) -> Any:
    """protobuf's class of a message. Raises `ExtraMissing`."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise ExtraMissing("protobuf is not installed", "Run `pip install 'reuna[mqtt]'`.") from None
    file = descriptor_pb2.FileDescriptorProto(
        name="reuna/sparkplug_b.proto", package="reuna", syntax="proto2"
    )
    for each, fields in _SCHEMA.items():
        message = file.message_type.add(name=each)
        if "int_value" in fields:
            message.oneof_decl.add(name="value")
        for field, (number, kind) in fields.items():
            _add(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"reuna.{name}"))


def _add(message: Any, name: str, number: int, kind: str) -> None:
    plain = kind.rstrip("*")
    field = message.field.add(name=name, number=number, label=3 if kind.endswith("*") else 1)
    if plain in _SCHEMA:
        field.type, field.type_name = 11, f".reuna.{plain}"
    else:
        field.type = {"double": 1, "float": 2, "uint64": 4, "bool": 8, "string": 9, "uint32": 13}[plain]
    if name in _VALUES:
        field.oneof_index = 0
