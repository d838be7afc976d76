"""Spans to a collector of OpenTelemetry, by OTLP over HTTP.

https://opentelemetry.io/docs/specs/otlp/

They wait in a bounded queue; a thread sends them together. A collector that is away is tried again for some
seconds, then what waits is lost: a trace is for people, what counts is in the event log. What the standard
variables say (``OTEL_EXPORTER_OTLP_HEADERS``, ``…_CERTIFICATE``, ``…_TIMEOUT``) holds here too.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from reuna.core.errors import ExtraMissing
from reuna.core.trace import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

NS = 1_000_000_000
CLOSE_S = 3.0  #: for what waits when the process ends


class OtlpSender:
    """Sends to ``endpoint``, '' for what OTEL_EXPORTER_OTLP_ENDPOINT says. Raises `ExtraMissing`.

    ``version``: of Reuna.
    """

    def __init__(self, fleet: str, version: str, endpoint: str = "") -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "opentelemetry":
                raise
            raise ExtraMissing(
                "traces.on: OpenTelemetry is not installed", "Run `pip install 'reuna[otel]'`."
            ) from None
        self._fleet = fleet
        self._version = version
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # each try is no news
        self._exporter = OTLPSpanExporter(endpoint=endpoint or None)
        self._processor = BatchSpanProcessor(self._exporter)

    def take(self, span: Span) -> None:
        """Send it later; of too many the rest is lost."""
        self._processor.on_end(self._read(span))

    def close(self) -> None:
        """Send what waits, within some seconds."""
        ending = threading.Thread(target=self._processor.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        if ending.is_alive():  # it would try for minutes
            self._exporter.shutdown()
            ending.join(CLOSE_S)

    def _read(self, span: Span) -> ReadableSpan:
        """As OpenTelemetry has it."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(number: str) -> SpanContext:
            flags = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(int(span.trace, 16), int(number, 16), is_remote=False, trace_flags=flags)

        resource = Resource(
            {
                "service.name": f"reuna-{span.place}",
                "service.namespace": self._fleet,
                "service.instance.id": span.node,
                "service.version": self._version,
            }
        )
        return ReadableSpan(
            span.name,
            context=context(span.id),
            parent=context(span.parent) if span.parent else None,
            resource=resource,
            attributes=span.attributes,
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
            start_time=int(span.began_s * NS),
            end_time=int(span.ended_s * NS),
            instrumentation_scope=InstrumentationScope("reuna", self._version),
        )
