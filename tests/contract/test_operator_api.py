"""The operator's API does what its description says; who is no operator gets nothing."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reuna.adapters.operator_api import Actions, Reception, api_app
from reuna.adapters.tls import KeyPair, client_context
from reuna.wire.openapi import ROUTES, openapi, parameters
from tests.contract.operator_api import Served, served


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("api")) as running:
        yield running


def ask(
    api: Served, method: str, path: str, body: bytes = b"", own: KeyPair | None = None
) -> tuple[int, Any]:
    pair = own or api.operator
    context = client_context(pair.certificate, pair.key, pair.authority)
    connection = http.client.HTTPSConnection("127.0.0.1", api.port, context=context, timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    return response.status, json.loads(data) if "json" in response.headers.get_content_type() else data


def test_every_route_is_described_and_no_other() -> None:
    app = api_app(cast("Actions", None), cast("Reception", None))
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert served == {(route.method, route.path) for route in ROUTES}


def test_the_description_is_served(api: Served) -> None:
    assert ask(api, "GET", "/openapi.json") == (200, json.loads(json.dumps(openapi())))


def test_every_reference_in_the_description_leads_somewhere() -> None:
    described = openapi()
    text = json.dumps(described)
    for name in text.split("#/components/schemas/")[1:]:
        assert name.partition('"')[0] in described["components"]["schemas"]
    assert parameters(ROUTES[0]) == ("digest",)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_certificate_of_another_role_gets_nothing(api: Served, route: Any) -> None:
    path = (
        route.path.replace("{run}", "r-1")
        .replace("{digest}", "ab" * 32)
        .replace("{id}", "1")
        .replace("{ticket}", "t")
        .replace("{name}", "n")
        .replace("{rollout}", "ro-1")
    )
    status, body = ask(api, route.method.upper(), path, own=api.gateway)
    assert (status, body["code"]) == (403, "R302")


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 20, "%C2%B2", ""])
def test_a_place_in_the_timeline_that_is_no_number_is_one_clear_message(api: Served, after: str) -> None:
    status, body = ask(api, "GET", f"/v1/runs/r-1/events?after={after}")
    assert status == 422
    assert "after" in body["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"run": "\xff"}', b"[" * 100_000])
def test_a_spec_that_cannot_be_read_is_one_clear_message(api: Served, body: bytes) -> None:
    status, found = ask(api, "POST", "/v1/runs", body)
    assert status == 422
    assert found["message"].startswith("this is no run")


def test_a_blob_under_a_name_that_is_no_digest_is_not_found(api: Served) -> None:
    assert ask(api, "GET", "/v1/blobs/..%2F..%2Fca%2Fauthority.key")[0] == 404
    assert ask(api, "PUT", "/v1/blobs/x", b"bytes")[0] == 422


def test_what_nodes_watch_is_told_and_prometheus_can_read_it(api: Served) -> None:
    status, found = ask(api, "GET", "/v1/watch")
    assert (status, (node := found["projects"]["pumps"]["e-1"])["site"], node["level"]) == (200, "fog-1", 4.5)
    status, text = ask(api, "GET", "/metrics")
    assert status == 200
    lines = text.decode().splitlines()
    assert 'reuna_watch_level{node="e-1",project="pumps",site="fog-1"} 4.5' in lines
    assert 'reuna_signal_moved{node="e-1",project="pumps",signal="oil",site="fog-1"} 3.25' in lines
    assert 'reuna_inference_p99_milliseconds{node="e-1",project="pumps",site="fog-1"} 8.5' in lines
    families = {each.name: each for each in text_string_to_metric_families(text.decode())}
    assert all(each.documentation and each.type == "gauge" for each in families.values())


def test_an_alarm_that_there_is_not_cannot_be_acknowledged(api: Served) -> None:
    status, found = ask(api, "POST", "/v1/alarms/9", b'{"note": "seen"}')
    assert (status, found["code"]) == (404, "R119")
