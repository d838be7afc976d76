"""The operator's API in the words of OpenAPI 3.1, from one table and the records themselves.

A test holds the table against the routes that are served; ``docs/reference/api.md`` is written
from it. https://spec.openapis.org/oas/v3.1.0.html
"""

from __future__ import annotations

from typing import Any

import msgspec

from reuna.core.records import Event, RunSpec

REFERENCE = "#/components/schemas/{name}"
_BYTES: dict[str, Any] = {"type": "string", "contentMediaType": "application/octet-stream"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}


class ApiError(msgspec.Struct, frozen=True):
    """What every answer of status 400 and above holds."""

    code: str
    message: str
    next_step: str


class Route(msgspec.Struct, frozen=True):
    """One operation: its answer and what it takes, as records, JSON schemas, or bytes.

    ``refuses`` are the statuses beside 200 and 403; ``query`` its parameters by name.
    """

    method: str
    path: str
    summary: str
    answer: Any
    takes: Any = None
    refuses: tuple[int, ...] = ()
    query: dict[str, dict[str, Any]] = {}


#: What an answer without content says.
_NOTHING = {"type": "object", "maxProperties": 0}
_STATE = {
    "type": "object",
    "required": ["state"],
    "properties": {
        "state": {"enum": ["running", "done", "failed", "cancelled"]},
        "result": {},
        "message": {"type": "string"},
        "code": {"type": "string"},
    },
}
_SEEN = {"type": "object", "additionalProperties": {"type": "number"}}

ROUTES: tuple[Route, ...] = (
    Route("put", "/v1/blobs/{digest}", "Hand over a bundle or initial model", _NOTHING, _BYTES, (413, 422)),
    Route("get", "/v1/blobs/{digest}", "A model's bytes", _BYTES, refuses=(404,)),
    Route(
        "post", "/v1/runs", "Begin a run, or go on with the run of that name", _NOTHING, RunSpec, (404, 422)
    ),
    Route("get", "/v1/runs/{run}", "Where a run is; its result or error at the end", _STATE, refuses=(404,)),
    Route(
        "get",
        "/v1/runs/{run}/events",
        "What happened in a run, in order, without the first `after`",
        list[Event],
        refuses=(404, 422),
        query={"after": _COUNT},
    ),
    Route("get", "/v1/nodes", "Nodes heard of, and when, in seconds since the epoch", _SEEN),
    Route("get", "/openapi.json", "This description", {"type": "object"}),
)
STATUSES = {
    200: "done",
    403: "the certificate is not an operator's",
    404: "there is no such run or blob",
    413: "the body is larger than a blob may be",
    422: "what was sent cannot be used",
}


def openapi() -> dict[str, Any]:
    """The whole description, as JSON has it."""
    _, components = msgspec.json.schema_components((RunSpec, Event, ApiError), ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Reuna, the operator's API of the cloud", "version": "1"},
        "security": [{"certificate": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"certificate": {"type": "mutualTLS"}},
        },
    }


def parameters(route: Route) -> tuple[str, ...]:
    """Names in the path, in order."""
    return tuple(part[1:-1] for part in route.path.split("/") if part.startswith("{"))


def _operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": route.summary, "responses": {"200": _response(200, route.answer)}}
    for status in (403, *route.refuses):
        found["responses"][str(status)] = _response(status, ApiError)
    named = [(name, "path", {"type": "string", "minLength": 1}) for name in parameters(route)]
    named += [(name, "query", schema) for name, schema in route.query.items()]
    if named:
        found["parameters"] = [
            {"name": name, "in": place, "required": place == "path", "schema": schema}
            for name, place, schema in named
        ]
    if route.takes is not None:
        found["requestBody"] = {"required": True, "content": _content(route.takes)}
    return found


def _response(status: int, body: Any) -> dict[str, Any]:
    return {"description": STATUSES[status], "content": _content(body)}


def _content(body: Any) -> dict[str, Any]:
    kind = "application/octet-stream" if body is _BYTES else "application/json"
    return {kind: {"schema": body if isinstance(body, dict) else _schema(body)}}


def _schema(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template=REFERENCE)
    return schema
