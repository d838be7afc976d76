"""The operator's API in the words of OpenAPI 3.1, from one table and the records themselves.

A test holds the table against the routes that are served; ``docs/reference/api.md`` is written
from it. https://spec.openapis.org/oas/v3.1.0.html
"""

from __future__ import annotations

from typing import Any

import msgspec

from reuna.core.records import Event, KeptBuild, Member, ReleaseAsked, RunSpec
from reuna.core.rollout import Ordered, RollBack, RolloutSpec
from reuna.core.trigger import Trigger

REFERENCE = "#/components/schemas/{name}"
_HTML = {"type": "string", "contentMediaType": "text/html"}
_SCRIPT = {"type": "string", "contentMediaType": "text/javascript"}
_STYLE = {"type": "string", "contentMediaType": "text/css"}
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
_CHECK = {
    "type": "object",
    "required": ["state", "edges", "members"],
    "properties": {
        "state": {"enum": ["queued", "asking", "done", "failed"]},
        "edges": {"type": "array", "items": {"type": "string"}},
        "members": {"type": "array", "items": {"$ref": REFERENCE.format(name="Member")}},
        "message": {"type": "string"},
        "code": {"type": "string"},
    },
}
_ALARM = {
    "type": "object",
    "required": ["id", "kind", "sentence", "nodes", "sites", "signals", "since", "ended", "by"],
    "properties": {
        "id": {"type": "string"},
        "kind": {"enum": ["process", "machine", "sensor", "concept", "release"]},
        "sentence": {"type": "string"},
        "since": {"type": "number"},
        "ended": {"type": "number"},
        "by": {"type": "string"},
        "seen": {"type": "number"},
        "note": {"type": "string"},
    },
}
_WATCH = {
    "type": "object",
    "required": ["fleet", "projects", "alarms"],
    "properties": {
        "fleet": {"type": "string"},
        "projects": {
            "type": "object",
            "additionalProperties": {"type": "object", "additionalProperties": {"type": "object"}},
        },
        "alarms": {"type": "array", "items": _ALARM},
    },
}
_NOTE = {"type": "object", "properties": {"note": {"type": "string"}}, "additionalProperties": False}
_METRICS = {"type": "string", "contentMediaType": "text/plain"}
_WHO = {
    "type": "object",
    "required": ["name", "roles", "via", "csrf"],
    "properties": {
        "name": {"type": "string"},
        "roles": {"type": "array", "items": {"type": "string"}},
        "via": {"enum": ["session", "certificate"]},
        "csrf": {"type": "string"},
        "token": {"type": "string"},
    },
}
_SIGN_IN = {
    "type": "object",
    "required": ["name", "password"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "password": {"type": "string"}},
}
_BEGIN = {
    "type": "object",
    "required": ["redirect"],
    "additionalProperties": False,
    "properties": {"redirect": {"type": "string"}},
}
_BEGUN = {
    "type": "object",
    "required": ["ticket", "url"],
    "properties": {"ticket": {"type": "string"}, "url": {"type": "string"}},
}
_PROVIDER = {"type": "object", "required": ["issuer"], "properties": {"issuer": {"type": "string"}}}
_RETURN = {
    "type": "object",
    "required": ["code", "state"],
    "additionalProperties": False,
    "properties": {"code": {"type": "string"}, "state": {"type": "string"}},
}
_DECISION = {
    "type": "object",
    "required": ["approve", "digest"],
    "additionalProperties": False,
    "properties": {"approve": {"type": "boolean"}, "digest": {"type": "string"}},
}
_PROPOSED = {"type": "object", "properties": {"proposal": {"type": "string"}}, "additionalProperties": False}
_RETRY = {
    "type": "object",
    "required": ["run"],
    "additionalProperties": False,
    "properties": {"run": {"type": "string"}},
}
_LIST = {"type": "array", "items": {"type": "object"}}
_FLEET = {
    "type": "object",
    "required": ["fleet", "fogs"],
    "properties": {
        "fleet": {"type": "string"},
        "fogs": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
        "above": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_RELEASES = {
    "type": "object",
    "required": ["mark", "fleet", "fogs", "releases", "nodes"],
    "properties": {
        "mark": {"type": "integer"},
        **_FLEET["properties"],  # type: ignore[dict-item]
        "releases": _LIST,
        "nodes": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["at", "held"],
                "properties": {"at": {"type": "number"}, "held": _LIST, "operates": _LIST},
            },
        },
    },
}
_ROLLOUT = {
    "type": "object",
    "required": ["rollout", "project", "version", "phase", "wave", "waves", "nodes"],
    "properties": {
        "mark": {"type": "integer"},
        "rollout": {"type": "string"},
        "project": {"type": "string"},
        "version": {"type": "integer"},
        "phase": {"enum": ["planned", "shadow", "wave", "paused", "done", "failed", "aborted"]},
        "wave": {"type": "integer"},
        "why": {"type": "string"},
        "trouble": {"type": "string"},
        "waves": _LIST,
        "nodes": {"type": "object", "additionalProperties": {"type": "object"}},
    },
}
_WENT_BACK = {
    "type": "object",
    "required": ["rollout", "did"],
    "properties": {"rollout": {"type": "string"}, "did": {"enum": ["aborted", "begun"]}},
}
_SEEN = {"type": "object", "additionalProperties": {"type": "number"}}

ROUTES: tuple[Route, ...] = (
    Route("put", "/v1/blobs/{digest}", "Hand over a bundle or initial model", _NOTHING, _BYTES, (413, 422)),
    Route("get", "/v1/blobs/{digest}", "A model's bytes", _BYTES, refuses=(404,)),
    Route(
        "post",
        "/v1/runs",
        "Begin a run, or go on with the run of that name",
        _PROPOSED,
        RunSpec,
        (202, 404, 422),
    ),
    Route(
        "get",
        "/v1/runs",
        "The newest runs, the newest first; `why` the cloud began one by itself, what its `gates` said",
        _LIST,
    ),
    Route("get", "/v1/runs/{run}", "Where a run is; its result or error at the end", _STATE, refuses=(404,)),
    Route("delete", "/v1/runs/{run}", "Stop a run; it can be resumed", _PROPOSED, refuses=(202, 404)),
    Route(
        "get",
        "/v1/runs/{run}/events",
        "What happened in a run, in order, without the first `after`",
        list[Event],
        refuses=(404, 422),
        query={"after": _COUNT},
    ),
    Route("get", "/v1/runs/{run}/asked", "What a run was begun with", RunSpec, refuses=(404,)),
    Route(
        "post",
        "/v1/runs/{run}/resume",
        "Go on with a run that was stopped or failed, at its last finished round",
        _PROPOSED,
        refuses=(202, 404, 422),
    ),
    Route(
        "post",
        "/v1/runs/{run}/retry",
        "Begin a new run with the inputs of one that has ended",
        _PROPOSED,
        _RETRY,
        (202, 404, 422),
    ),
    Route("get", "/v1/builds", "Builds that the cloud keeps, the newest first", list[KeptBuild]),
    Route("put", "/v1/builds/{digest}", "Hand over a build", _NOTHING, _BYTES, (413, 422)),
    Route("get", "/v1/builds/{digest}", "A build's bytes", _BYTES, refuses=(404, 422)),
    Route(
        "put",
        "/v1/builds/{digest}/provenance",
        "What the builder of a build claims",
        _NOTHING,
        _BYTES,
        (404, 413, 422),
    ),
    Route("get", "/v1/builds/{digest}/provenance", "The same, as it was handed over", _BYTES, refuses=(404,)),
    Route(
        "post",
        "/v1/checks",
        "Ask every node whether it is ready for such a run; nothing is trained",
        _NOTHING,
        RunSpec,
        (404, 422, 429),
    ),
    Route("get", "/v1/checks/{run}", "What the nodes say to a check so far", _CHECK, refuses=(404,)),
    Route(
        "get", "/v1/triggers", "What begins runs by itself, how each stands and why, and its last run", _LIST
    ),
    Route(
        "put",
        "/v1/triggers/{name}",
        "Begin a run again by itself, with what an earlier one was begun with",
        _NOTHING,
        Trigger,
        (404, 422),
    ),
    Route("delete", "/v1/triggers/{name}", "No more", _NOTHING, refuses=(404,)),
    Route("post", "/v1/rollouts", "Begin a rollout", _PROPOSED, RolloutSpec, (202, 422)),
    Route("get", "/v1/rollouts", "The newest rollouts, the newest first", _LIST),
    Route(
        "get",
        "/v1/rollouts/{rollout}",
        "Where a rollout is; with `after` it waits up to `wait` seconds, at most 20, for another `mark`",
        _ROLLOUT,
        refuses=(404, 422),
        query={"after": _COUNT, "wait": _COUNT},
    ),
    Route("post", "/v1/rollouts/{rollout}", "Pause, resume or abort it", _NOTHING, Ordered, (404, 422)),
    Route(
        "get",
        "/v1/rollouts/{rollout}/events",
        "What happened in a rollout, in order, without the first `after`",
        list[Event],
        refuses=(422,),
        query={"after": _COUNT},
    ),
    Route(
        "post", "/v1/rollout-plans", "What a rollout would be; nothing begins", _ROLLOUT, RolloutSpec, (422,)
    ),
    Route(
        "post",
        "/v1/rollbacks",
        "Bring a project back to what it was before its newest rollout: abort that, or begin one called so",
        _WENT_BACK,
        RollBack,
        (404, 422),
    ),
    Route("get", "/v1/nodes", "Nodes heard of, and when, in seconds since the epoch", _SEEN),
    Route("get", "/v1/fleet", "Its fogs, the edges of each, and the fogs over fogs, as they are now", _FLEET),
    Route(
        "get",
        "/v1/releases",
        "Releases that nodes may take, and which of them each node says it holds and runs; with `after` it "
        "waits up to `wait` seconds, at most 20, for another `mark`",
        _RELEASES,
        refuses=(422,),
        query={"after": _COUNT, "wait": _COUNT},
    ),
    Route("get", "/v1/watch", "What each node says of its watch, and the alarms, the newest first", _WATCH),
    Route("post", "/v1/alarms/{id}", "Somebody has seen an alarm", _ALARM, _NOTE, (404, 422)),
    Route("get", "/metrics", "What nodes watch, in the text format of Prometheus", _METRICS),
    Route(
        "post", "/v1/session", "Sign in; the session's token, also as a cookie", _WHO, _SIGN_IN, (422, 429)
    ),
    Route("get", "/v1/session", "Who is asking, and the session's CSRF token", _WHO),
    Route("delete", "/v1/session", "Sign out", _NOTHING),
    Route("get", "/v1/sign-ins", "Which identity provider people sign in at; empty: none", _PROVIDER),
    Route(
        "post",
        "/v1/sign-ins",
        "Begin to sign in at the identity provider; its page, and a ticket to finish with",
        _BEGUN,
        _BEGIN,
        (422, 429, 502),
    ),
    Route(
        "post",
        "/v1/sign-ins/{ticket}",
        "What the identity provider sent somebody back with; as signing in",
        _WHO,
        _RETURN,
        (422, 429, 502),
    ),
    Route("get", "/v1/people", "Accounts and their roles", _LIST),
    Route(
        "post",
        "/v1/releases",
        "Ask for a second person's word on a release",
        _PROPOSED,
        ReleaseAsked,
        (202, 422),
    ),
    Route("get", "/v1/proposals", "What waits for a second person, and what was decided", _LIST),
    Route("post", "/v1/proposals/{id}", "A second person's word", {"type": "object"}, _DECISION, (404, 422)),
    Route(
        "get",
        "/v1/audit",
        "The audit trail, without the first `after`; of that the `last` so many",
        _LIST,
        refuses=(422,),
        query={"after": _COUNT, "last": _COUNT},
    ),
    Route("get", "/", "The console", _HTML),
    Route("get", "/console.js", "Its script", _SCRIPT),
    Route("get", "/console.css", "Its style", _STYLE),
    Route("get", "/openapi.json", "This description", {"type": "object"}),
)
STATUSES = {
    200: "done",
    202: "it waits for a second person",
    401: "nobody is signed in",
    403: "whoever asks may not do that",
    404: "there is no such run, rollout, build or blob",
    413: "the body is larger than a blob may be",
    422: "what was sent cannot be used",
    429: "asked too often; it may be asked again later",
    502: "the identity provider does not answer as it should",
}


def openapi() -> dict[str, Any]:
    """The whole description, as JSON has it."""
    rollouts = (RolloutSpec, Ordered, RollBack)
    named = (RunSpec, ReleaseAsked, Event, Member, KeptBuild, Trigger, *rollouts, ApiError)
    _, components = msgspec.json.schema_components(named, ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Reuna, the operator's API of the cloud", "version": "1"},
        "security": [{"certificate": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": msgspec.json.decode(msgspec.json.encode(components)),  # no tuples
            "securitySchemes": {
                "certificate": {"type": "mutualTLS"},
                "session": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def parameters(route: Route) -> tuple[str, ...]:
    """Names in the path, in order."""
    return tuple(part[1:-1] for part in route.path.split("/") if part.startswith("{"))


def _operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": route.summary, "responses": {"200": _response(200, route.answer)}}
    for status in (401, 403, *route.refuses):
        found["responses"][str(status)] = _response(status, route.answer if status == 202 else ApiError)
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
    kind = body.get("contentMediaType", "application/json") if isinstance(body, dict) else "application/json"
    return {kind: {"schema": body if isinstance(body, dict) else _schema(body)}}


def _schema(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template=REFERENCE)
    return schema
