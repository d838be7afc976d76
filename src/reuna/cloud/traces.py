"""Runs as traces, while they go on: what the cloud hears of them becomes spans, which somebody sends.

Sites send no traces of their own: that would be a second way out. Their nodes tell the cloud how long they
worked by the events that policy and ledger know, and the cloud, which has all of a run, makes the spans.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from reuna import __version__
from reuna.cloud.stock import Stock
from reuna.core import trace
from reuna.core.errors import ReunaError
from reuna.core.records import Event, RunSpec, Setting
from reuna.core.trace import Place, Span
from reuna.wire import release as wire

Sites = Mapping[str, str]  #: edge -> its fog, of the runs that the cloud carries out
log = logging.getLogger("reuna.trace")


class Sender(Protocol):
    """Sends spans, without anybody waiting for it."""

    def take(self, span: Span) -> None: ...
    def close(self) -> None: ...


class Traces:
    """What the cloud of that name hears, to a sender."""

    def __init__(self, cloud: str, sender: Sender, sites: Sites) -> None:
        self._cloud = cloud
        self._sender = sender
        self._sites = sites
        self._released: set[str] = set()  #: digests of releases that were there already, or were told

    def heard(self, event: Event) -> None:
        """An event of a run that was not known before."""
        fog = self._sites.get(event.node, "")
        place: Place = "cloud" if event.node == self._cloud else "edge" if fog else "fog"
        span = trace.span_of(event, place, fog)
        if span is not None:
            self._sender.take(span)

    def ended(self, spec: RunSpec, began_s: float, ended_s: float, why: str = "") -> None:
        """A run has ended; ``why`` it has no result, '' when it has. One that is resumed ends once more."""
        about: dict[str, Setting] = {
            "project": spec.project,
            "task": spec.task,
            "strategy": spec.strategy,
            "rounds": spec.rounds,
        }
        if why:
            about["why"] = why
        self._sender.take(trace.whole(spec.run, self._cloud, began_s, ended_s, bool(why), about))

    def known(self, stock: Stock) -> None:
        """What is published when the cloud starts is no news."""
        try:
            self._released |= {each.digest for each in stock.listed()}
        except ReunaError as error:
            log.warning("which releases there are is not known: %s %s", error.code, error)

    def close(self) -> None:
        """Send what waits. Blocking, for some seconds at most."""
        self._sender.close()

    async def published(self, stock: Stock, now_s: float) -> None:
        """Other metadata were published: which releases are new, and of which runs they are."""
        try:
            for each in stock.listed():
                if each.digest in self._released:
                    continue
                blob = await stock.get(each.digest)
                if blob is None:
                    continue
                self._released.add(each.digest)
                about = wire.decode(blob.read(0, blob.size)).manifest.about
                self._sender.take(
                    trace.released(about.run, self._cloud, about.project, about.version, each.digest, now_s)
                )
        except ReunaError as error:
            log.warning("what was released is in no trace: %s %s", error.code, error)


def traces_of(settings: Mapping[str, Any], sites: Sites) -> Traces | None:
    """From the cloud's settings; None where runs are not traced. Raises `ExtraMissing`."""
    if not settings["traces.on"]:
        return None
    from reuna.adapters.otlp import OtlpSender  # OpenTelemetry, where it is asked for

    sender = OtlpSender(settings["fleet"], __version__, settings["traces.endpoint"])
    return Traces(settings["name"], sender, sites)
