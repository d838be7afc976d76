"""A run of real processes arrives as one trace at a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reuna.core.errors import Unreachable
from reuna.core.trace import Span, trace_id, whole_id
from reuna.fleet.client import Operator
from reuna.fleet.data import find_nodes, spread
from reuna.fleet.layout import make_fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.ports import free_ports
from reuna.fleet.session import Job, prepare, sign_code, train
from reuna.fleet.supervise import Supervisor
from reuna.template import make_project
from tests.releases import release

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
pytestmark = pytest.mark.timeout(170)


class Collector:
    """What it was sent, decoded by OpenTelemetry's own messages: (resource, span)."""

    def __init__(self) -> None:
        self.came: list[tuple[dict[str, str], Any]] = []
        self.wrong: list[str] = []

    def spans(self) -> dict[str, Any]:
        """By name; one that came again is the same."""
        return {span.name: span for _, span in self.came}

    def of(self, name: str) -> dict[str, str]:
        """The resource of a span."""
        return next(resource for resource, span in self.came if span.name == name)


@contextmanager
def collector() -> Iterator[tuple[Collector, str]]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/v1/traces" or self.headers["Content-Type"] != "application/x-protobuf":
                found.wrong.append(self.path)
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = {each.key: each.value.string_value for each in group.resource.attributes}
                found.came += [(resource, span) for scope in group.scope_spans for span in scope.spans]
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


async def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.1)


async def test_a_run_of_real_processes_is_one_trace_from_its_begin_to_its_release(tmp_path: Path) -> None:
    await asyncio.to_thread(make_project, tmp_path / "pumps", sample=True)
    nodes = find_nodes(tmp_path / "pumps" / "data")[:2]
    fleet = make_fleet(tmp_path / "fleet", "line", spread(nodes, 1))
    wanted = ["strategy.rounds=2", "run.local=false"]
    job = Job(tmp_path / "pumps", open_settings(tmp_path / "pumps", wanted), nodes, tmp_path / "runs", 1)
    sign_code(job, fleet, lambda _event: None)
    with collector() as (found, where):
        for place in fleet.places:
            more = f'endpoint = "{where}/v1/traces"\n' if place.kind == "cloud" else ""
            place.settings.write_text(f"{place.settings.read_text()}\n[traces]\non = true\n{more}")
        supervisor = Supervisor(fleet)
        try:
            await supervisor.start()
            operator = Operator.of(fleet)
            await there(operator, {"fog-1", *(each.name for each in nodes)})
            began = time.time()
            spec, parts = await asyncio.to_thread(prepare, job, fleet, "r-1")
            await train(operator, spec, parts, job, lambda _event: None)
            (tmp_path / "1.release").write_bytes(release(1))
            add = ("trust", "add", str(tmp_path / "1.release"), "--kind", "release", "--name", "pumps-1")
            command = [sys.executable, "-m", "reuna.cli", *add, "--folder", str(fleet.folder / "trust")]
            await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)
            await until(
                lambda: {"release pumps 1", "run r-1", f"evaluate {nodes[1].name}"} <= found.spans().keys()
            )
        finally:
            await supervisor.stop()
    assert not found.wrong
    spans = found.spans()
    assert {span.trace_id.hex() for span in spans.values()} == {trace_id("r-1")}
    whole = spans["run r-1"]
    assert whole.span_id.hex() == whole_id("r-1")
    assert not whole.parent_span_id
    assert "combine fog-1" in spans
    named = {span.span_id: span for _, span in found.came}
    edge = nodes[0].name
    trained = [span for resource, span in found.came if span.name == f"train {edge}"]
    assert len({span.span_id for span in trained}) == 2, "one in each round"
    for each in trained:
        way = [each]
        while way[-1].parent_span_id:
            way.append(named[way[-1].parent_span_id])
        names = [span.name for span in way]
        assert names[0::2] == [f"train {edge}", names[2]]
        assert names[1] == "combine fog-1"
        assert names[2] in {"round 1", "round 2"}
        assert names[3] == "run r-1"
        for inner, outer in pairwise(way):
            assert outer.start_time_unix_nano <= inner.start_time_unix_nano + 10**9
            assert inner.end_time_unix_nano <= outer.end_time_unix_nano + 10**9
        assert began - 1 <= each.start_time_unix_nano / 1e9 <= each.end_time_unix_nano / 1e9 <= time.time()
    assert named[spans["release pumps 1"].parent_span_id] is not None
    assert found.of(f"train {edge}") | {
        "service.name": "reuna-edge", "service.namespace": "line", "service.instance.id": edge,
    } == found.of(f"train {edge}")  # fmt: skip
    assert found.of("combine fog-1")["service.name"] == "reuna-fog"
    assert found.of("round 1")["service.name"] == "reuna-cloud"
    told = {each.key: each.value for each in spans["round 1"].attributes}
    assert told["reuna.took_part"].int_value == 2
    assert told["reuna.bytes"].int_value > 0


async def there(operator: Operator, wanted: set[str]) -> None:
    async with asyncio.timeout(100):
        while True:
            try:
                if wanted <= set(await asyncio.to_thread(operator.nodes)):
                    return
            except Unreachable:
                pass
            await asyncio.sleep(0.1)


def test_the_standard_variables_say_where_and_what_failed_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from reuna.adapters.otlp import OtlpSender

    with collector() as (found, where):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", where)
        sender = OtlpSender("line", "1.2.3")
        for failed in (False, True):
            sender.take(
                Span(
                    "ab" * 16, f"{failed:016x}", "01" * 8, str(failed), "fog", "f", 1.5, 2.0, failed, {"x": 1}
                )
            )
        sender.close()
    assert {name: span.status.code for name, span in found.spans().items()} == {"False": 0, "True": 2}
    one = found.spans()["True"]
    assert (one.start_time_unix_nano, one.end_time_unix_nano) == (1_500_000_000, 2_000_000_000)
    assert one.parent_span_id.hex() == "01" * 8
    assert found.of("True")["service.version"] == "1.2.3"


def test_a_collector_that_is_away_costs_spans_and_nothing_else() -> None:
    from reuna.adapters import otlp

    sender = otlp.OtlpSender("line", "1.2.3", f"http://127.0.0.1:{free_ports(1)[0]}/v1/traces")
    for number in range(5000):
        sender.take(Span("ab" * 16, f"{number + 1:016x}", "", "x", "edge", "e", 1.0, 2.0))
    began = time.monotonic()
    sender.close()
    assert time.monotonic() - began <= 2 * otlp.CLOSE_S + 1
