"""One connection to an OPC UA server, once it is open: its tags subscribed and heard, its history read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from asyncua import Client, ua

from reuna.adapters.opcua.refusals import Lost, in_our_words, name_of
from reuna.core.opcua_settings import Node, OpcUaSettings, OpcUaTag
from reuna.core.opcua_values import Heard, unit_text
from reuna.core.ports import Clock
from reuna.core.sources import NS, ns_of

T = TypeVar("T")
LEAST_KEPT_S = 60.0  #: how long a server keeps a subscription whose line is down
MOST_AT_ONCE = 500  #: nodes in a request, where the server does not say less; more at once has failed
HISTORY_NODES, HISTORY_VALUES = 10, 500  #: in a request: 0.1 s of a core, in which nothing else is heard
WAITING = 64  #: notifications that wait to be taken; then the server keeps the next in its queues
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OLDEST, _NEWEST = _EPOCH, datetime(2116, 1, 1, tzinfo=UTC)  #: what a clock that was never set is not in
_NO_FILTER = frozenset(
    (
        ua.StatusCodes.BadFilterNotAllowed,
        ua.StatusCodes.BadMonitoredItemFilterInvalid,
        ua.StatusCodes.BadMonitoredItemFilterUnsupported,
        ua.StatusCodes.BadDeadbandFilterInvalid,
    )
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """What the server sent at one time: readings, or a sign of life without any.

    ``number`` of a notification, 0 of a sign of life; ``sent_ns`` by the server's clock. ``historical``: what
    it had kept.
    """

    heard: Heard
    number: int
    sent_ns: int
    historical: bool = False


@dataclass
class Session:
    """An open connection. ``offset_ns``: how far the server's clock is ahead of this machine's.

    ``patience_s``: after so long without a message it is lost.
    """

    client: Client
    settings: OpcUaSettings
    clock: Clock
    offset_ns: int = 0
    patience_s: float = 0.0
    limits: dict[str, int] = field(default_factory=dict)
    nodes: dict[int, ua.NodeId] = field(default_factory=dict)
    _queue: asyncio.Queue[Message | Lost] = field(default_factory=lambda: asyncio.Queue(WAITING))
    _subscription: int = 0

    async def start(self) -> dict[str, list[int]]:
        """Let the server send what changes of all tags. Those that cannot be read, by the reason."""
        with in_our_words(self.settings):
            self.limits = await self._limits()
            await self._subscribe()
        return await self.join(range(len(self.settings.tags)))

    async def join(self, places: Sequence[int]) -> dict[str, list[int]]:
        """Add those tags, in pieces that the server takes. Those that cannot be read, by the reason.

        Namespaces are looked up each time, for their numbers change when a server starts again.
        """
        with in_our_words(self.settings):
            wrong = await self.find(places)
            for reason, some in (await self._foreign(places)).items():
                wrong.setdefault(reason, []).extend(some)
            bad = {place for some in wrong.values() for place in some}
            for piece in _pieces([each for each in places if each not in bad], self.limits["monitor"]):
                for place, status in await self._monitored(piece, bare=False):
                    wrong.setdefault(status, []).append(place)
        for place in (each for some in wrong.values() for each in some):
            self.nodes.pop(place, None)
        return wrong

    async def _subscribe(self) -> None:
        settings = self.settings
        wanted = ua.CreateSubscriptionParameters()
        wanted.RequestedPublishingInterval = 1000 * settings.publish_s
        alive = wanted.RequestedMaxKeepAliveCount = max(1, int(settings.silence_s / 3 / settings.publish_s))
        kept_s = max(LEAST_KEPT_S, 4 * settings.silence_s)
        wanted.RequestedLifetimeCount = max(3 * alive, math.ceil(kept_s / settings.publish_s))
        wanted.MaxNotificationsPerPublish = 0
        wanted.PublishingEnabled = True
        made = await self.client.uaclient.create_subscription(wanted, self._published)
        self._subscription = made.SubscriptionId
        alive_s = made.RevisedPublishingInterval * made.RevisedMaxKeepAliveCount / 1000
        self.patience_s = max(settings.silence_s, 2 * alive_s)
        if self.patience_s > settings.silence_s:
            log.info("source %s: the server shows life every %.1f s only", settings.name, alive_s)

    async def next(self) -> Message:
        """The next message. Raises `Lost` when none comes, or the connection ends."""
        try:
            async with asyncio.timeout(self.patience_s):  # `wait_for` of 3.11 may swallow a cancellation
                message = await self._queue.get()
        except TimeoutError:
            raise Lost(f"no sign of life for {self.patience_s:g} s") from None
        if isinstance(message, Lost):
            raise message
        return message

    def lost(self, reason: str) -> None:
        """End `next`, after what came before."""
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(Lost(reason))

    async def fill(self, first_ns: int, last_ns: int) -> bool:
        """Let `next` give, too, what the server kept between two times by its clock; whether that is all.

        It takes no more than half of the time, so that what is live is not late. Servers and tags without a
        history give nothing, and a log line says so.
        """
        details = ua.ReadRawModifiedDetails(
            IsReadModified=False,
            StartTime=_moment(first_ns),
            EndTime=_moment(last_ns),
            NumValuesPerNode=HISTORY_VALUES,
            ReturnBounds=False,
        )
        none: dict[str, int] = {}
        whole = True
        try:
            most = min(self.limits["history"] or HISTORY_NODES, HISTORY_NODES)
            for some in _pieces(sorted(self.nodes), most):
                points: dict[int, bytes | None] = dict.fromkeys(some)
                while points:
                    began_s = self.clock.now()
                    points = await self._page(details, points, last_ns, none)
                    await self.clock.sleep(self.clock.now() - began_s)
        except ua.UaStatusCodeError as error:
            log.info("source %s: no history: %s", self.settings.name, name_of(error))
        except (ua.UaError, OSError, TimeoutError) as error:
            log.info("source %s: its history ends early: %s", self.settings.name, error or type(error))
            whole = False
        for name, count in none.items():
            log.info("source %s: no history of %d tags: %s", self.settings.name, count, name)
        return whole

    async def _page(
        self,
        details: ua.ReadRawModifiedDetails,
        points: dict[int, bytes | None],
        last_ns: int,
        none: dict[str, int],
    ) -> dict[int, bytes | None]:
        """One request for the history of some tags, and where to go on."""
        heard, left = Heard(), {}
        for (place, point), result in zip(points.items(), await self._history(details, points), strict=False):
            if result.StatusCode.is_bad():
                none[result.StatusCode.name] = none.get(result.StatusCode.name, 0) + 1
                continue
            for value in getattr(result.HistoryData, "DataValues", None) or ():
                self._add(heard, place, value, last_ns)
            if result.ContinuationPoint and result.ContinuationPoint != point:
                left[place] = result.ContinuationPoint
        if len(heard):
            await self._queue.put(Message(heard, 0, last_ns, historical=True))
        return left

    async def _history(
        self, details: ua.ReadRawModifiedDetails, points: dict[int, bytes | None]
    ) -> list[ua.HistoryReadResult]:
        asked = ua.HistoryReadParameters()
        asked.HistoryReadDetails = details
        asked.TimestampsToReturn = ua.TimestampsToReturn.Both
        asked.ReleaseContinuationPoints = False
        asked.NodesToRead = [
            ua.HistoryReadValueId(NodeId=self.nodes[place], ContinuationPoint=point)
            for place, point in points.items()
        ]
        found: list[ua.HistoryReadResult] = await self.client.uaclient.history_read(asked)
        return found

    async def _limits(self) -> dict[str, int]:
        """How many nodes the server takes in a request of each kind; 0 where it does not say."""
        ids = ua.ObjectIds
        prefix = "Server_ServerCapabilities_OperationLimits_MaxNodesPer"
        names = {
            "read": f"{prefix}Read",
            "history": f"{prefix}HistoryReadData",
            "translate": f"{prefix}TranslateBrowsePathsToNodeIds",
            "monitor": "Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall",
        }
        nodes = [ua.NodeId(getattr(ids, name)) for name in names.values()]
        found = await self.client.uaclient.read_attributes(nodes, ua.AttributeIds.Value)
        return {
            name: value if isinstance(value := value_of(data), int) and value > 0 else 0
            for name, data in zip(names, found, strict=True)
        }

    async def find(self, places: Iterable[int]) -> dict[str, list[int]]:
        """The nodes of tags, by the namespaces as they are numbered now. Those of no namespace, why."""
        (found,) = await self.client.uaclient.read_attributes(
            [ua.NodeId(ua.ObjectIds.Server_NamespaceArray)], ua.AttributeIds.Value
        )
        namespaces = {uri: index for index, uri in enumerate(value_of(found) or ())}
        wrong: dict[str, list[int]] = {}
        for place in places:
            tag = self.settings.tags[place]
            self.nodes.pop(place, None)
            node = _node_id(tag.node, namespaces)
            if node is None:
                wrong.setdefault(f"the server has no namespace {tag.node.namespace}", []).append(place)
            else:
                self.nodes[place] = node
        return wrong

    async def _foreign(self, places: Iterable[int]) -> dict[str, list[int]]:
        """Tags that the server has in another unit than declared; a number in another unit would be a lie."""
        asked = [place for place in places if place in self.nodes and self.settings.tags[place].unit]
        units: dict[int, ua.NodeId] = {}
        for some in _pieces(asked, self.limits["translate"]):
            paths = [_unit_path(self.nodes[place]) for place in some]
            for place, result in zip(some, await self._targets(paths), strict=False):
                if result.StatusCode.is_good() and result.Targets:
                    units[place] = result.Targets[0].TargetId
        wrong: dict[str, list[int]] = {}
        for some in _pieces(list(units), self.limits["read"]):
            values = await self.client.uaclient.read_attributes(
                [units[place] for place in some], ua.AttributeIds.Value
            )
            for place, data in zip(some, values, strict=False):
                tag, unit = self.settings.tags[place], _unit(value_of(data))
                if not tag.fits(unit):
                    wrong.setdefault(f"the server has it in {unit}, not in {tag.unit}", []).append(place)
        return wrong

    async def _targets(self, paths: list[ua.BrowsePath]) -> list[ua.BrowsePathResult]:
        try:
            found: list[ua.BrowsePathResult] = await self.client.uaclient.translate_browsepaths_to_nodeids(
                paths
            )
        except ua.UaStatusCodeError as error:
            log.info("source %s: no units: %s", self.settings.name, name_of(error))
            return []
        return found

    async def _monitored(self, places: Sequence[int], bare: bool) -> list[tuple[int, str]]:
        """Subscribe to tags in one request, ``bare`` without deadbands. Those refused, and why."""
        asked = ua.CreateMonitoredItemsParameters()
        asked.SubscriptionId = self._subscription
        asked.TimestampsToReturn = ua.TimestampsToReturn.Both
        asked.ItemsToCreate = [
            _item(place, self.nodes[place], self.settings.tags[place], self.settings.restamped, bare)
            for place in places
        ]
        results = await self.client.uaclient.create_monitored_items(asked)
        refused = [
            (place, result.StatusCode)
            for place, result in zip(places, results, strict=True)
            if not result.StatusCode.is_good()
        ]
        again = [
            place
            for place, status in refused
            if not bare
            and (self.settings.tags[place].deadband or self.settings.restamped)
            and status.value in _NO_FILTER
        ]
        if not again:
            return [(place, f"the server refuses it: {status.name}") for place, status in refused]
        names = ", ".join(self.settings.tags[place].name for place in again)
        what = "filter" if self.settings.restamped else "deadband"
        log.warning(
            "source %s: the server takes no %s for %s; every change is sent", self.settings.name, what, names
        )
        rest = [
            (place, f"the server refuses it: {status.name}")
            for place, status in refused
            if place not in again
        ]
        return rest + await self._monitored(again, bare=True)

    async def _published(self, result: ua.PublishResult) -> None:
        """Called by the library for each answer; while it waits the server is not asked for the next."""
        said, heard = result.NotificationMessage, Heard()
        arrived_ns = ns_of(self.clock.now())
        sent_ns = ns_at(said.PublishTime) or arrived_ns + self.offset_ns
        if self.settings.timestamps == "arrival":
            sent_ns = arrived_ns
        for each in said.NotificationData or ():
            if isinstance(each, ua.DataChangeNotification):
                for item in each.MonitoredItems:
                    self._add(heard, item.ClientHandle, item.Value, arrived_ns)
            elif isinstance(each, ua.StatusChangeNotification):
                await self._queue.put(Lost(f"the server ended the subscription: {each.Status.name}"))
                return
        await self._queue.put(Message(heard, said.SequenceNumber if said.NotificationData else 0, sent_ns))

    def _add(self, heard: Heard, place: int, value: ua.DataValue, arrived_ns: int) -> None:
        if place >= len(self.settings.tags):
            return
        code = value.StatusCode.value if value.StatusCode is not None else 0
        inner = value.Value.Value if value.Value is not None else None
        heard.add(place, self._time(value, arrived_ns), inner, code)

    def _time(self, value: ua.DataValue, arrived_ns: int) -> int:
        """When a reading was taken, by the clock that the settings name, else by the next that said it."""
        stamps = self.settings.timestamps
        if stamps == "arrival":
            return arrived_ns
        source_ns = ns_at(value.SourceTimestamp) if stamps == "source" else None
        return source_ns or ns_at(value.ServerTimestamp) or ns_at(value.SourceTimestamp) or arrived_ns


_NO_FILTER = frozenset(
    (
        ua.StatusCodes.BadFilterNotAllowed,
        ua.StatusCodes.BadMonitoredItemFilterInvalid,
        ua.StatusCodes.BadMonitoredItemFilterUnsupported,
        ua.StatusCodes.BadDeadbandFilterInvalid,
    )
)


def _item(
    place: int, node: ua.NodeId, tag: OpcUaTag, restamped: bool, bare: bool
) -> ua.MonitoredItemCreateRequest:
    """One tag to be sampled; ``bare``: without its filter."""
    wanted = ua.MonitoringParameters()
    wanted.ClientHandle = place
    wanted.SamplingInterval = 1000 * tag.every_s
    wanted.QueueSize = tag.queue
    wanted.DiscardOldest = True
    if not bare and (tag.deadband or restamped):
        kind = ua.DeadbandType.Percent if tag.percent else ua.DeadbandType.Absolute
        trigger = ua.DataChangeTrigger.StatusValueTimestamp if restamped else ua.DataChangeTrigger.StatusValue
        wanted.Filter = ua.DataChangeFilter(
            Trigger=trigger,
            DeadbandType=kind if tag.deadband else ua.DeadbandType.None_,
            DeadbandValue=tag.deadband,
        )
    item = ua.MonitoredItemCreateRequest()
    item.ItemToMonitor = ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value)
    item.MonitoringMode = ua.MonitoringMode.Reporting
    item.RequestedParameters = wanted
    return item


def _unit_path(node: ua.NodeId) -> ua.BrowsePath:
    step = ua.RelativePathElement()
    step.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HasProperty)
    step.IsInverse = False
    step.IncludeSubtypes = True
    step.TargetName = ua.QualifiedName("EngineeringUnits", 0)
    return ua.BrowsePath(StartingNode=node, RelativePath=ua.RelativePath(Elements=[step]))


def _unit(found: Any) -> str:
    if not isinstance(found, ua.EUInformation):
        return ""
    return unit_text((found.DisplayName.Text or "").strip(), found.UnitId, found.NamespaceUri or "")


def _node_id(node: Node, namespaces: dict[str, int]) -> ua.NodeId | None:
    index = node.namespace if isinstance(node.namespace, int) else namespaces.get(node.namespace)
    if index is None:
        return None
    kinds = {
        "i": ua.NodeIdType.Numeric,
        "s": ua.NodeIdType.String,
        "g": ua.NodeIdType.Guid,
        "b": ua.NodeIdType.ByteString,
    }
    return ua.NodeId(node.identifier, index, kinds[node.kind])


def value_of(data: ua.DataValue) -> Any:
    """What was read, None where nothing was."""
    return data.Value.Value if data.Value is not None else None


def ns_at(moment: datetime | None) -> int | None:
    """Nanoseconds since the epoch; None for no time, and for one of a clock that was never set."""
    if moment is None:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not _OLDEST < moment < _NEWEST:
        return None
    apart = moment - _EPOCH
    return (apart.days * 86_400 + apart.seconds) * NS + apart.microseconds * 1000


def _moment(ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ns // 1000)


def _pieces(things: Sequence[T], most: int) -> Iterable[Sequence[T]]:
    size = min(most or MOST_AT_ONCE, MOST_AT_ONCE)
    return (things[first : first + size] for first in range(0, len(things), size))
