"""The operator's API of the cloud: HTTPS with a client certificate of role ``operator``.

PUT  /v1/blobs/{digest}             bundle or initial model
GET  /v1/blobs/{digest}             a model
POST /v1/runs                       a run's spec (JSON)
GET  /v1/runs/{run}                 its state
GET  /v1/runs/{run}/events?after=N  its timeline
GET  /v1/nodes                      nodes heard of
GET  /openapi.json                  these in the words of OpenAPI (`reuna.wire.openapi`)
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from aiohttp import web

from reuna.adapters.tls import identity_of
from reuna.core.errors import BlobNotFound, PermissionDenied, ReunaError, RunNotFound, UserError
from reuna.core.foreign import UNREADABLE
from reuna.core.records import RunSpec
from reuna.wire.openapi import openapi

log = logging.getLogger("reuna.api")
MAX_BLOB = 1 << 30  #: bytes; a model or bundle an operator may put


class Actions(Protocol):
    """What the API can do; the coordinator implements it."""

    def put_blob(self, data: bytes, digest: str) -> None: ...
    def get_blob(self, digest: str) -> bytes: ...
    async def submit(self, spec: RunSpec) -> None: ...
    async def status(self, run: str) -> dict[str, Any]: ...
    def timeline(self, run: str, after: int) -> list[dict[str, Any]]: ...
    def nodes(self) -> dict[str, float]: ...


class ApiServer:
    """A running API; `stop` ends it."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner

    async def stop(self) -> None:
        await self._runner.cleanup()


async def serve_api(actions: Actions, host: str, port: int, tls: ssl.SSLContext) -> ApiServer:
    """Listen for operators."""
    runner = web.AppRunner(api_app(actions), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls).start()
    return ApiServer(runner)


def api_app(actions: Actions) -> web.Application:
    """The routes over ``actions``."""
    app = web.Application(middlewares=[_only_operators, _errors_as_json], client_max_size=MAX_BLOB)

    async def put_blob(request: web.Request) -> web.Response:
        actions.put_blob(await request.read(), request.match_info["digest"])
        return web.json_response({})

    async def get_blob(request: web.Request) -> web.Response:
        return web.Response(body=actions.get_blob(request.match_info["digest"]))

    async def submit(request: web.Request) -> web.Response:
        await actions.submit(_spec(await request.read()))
        return web.json_response({})

    async def status(request: web.Request) -> web.Response:
        return web.json_response(await actions.status(request.match_info["run"]))

    async def timeline(request: web.Request) -> web.Response:
        after = _number(request.query.get("after", "0"))
        return web.json_response(actions.timeline(request.match_info["run"], after))

    async def nodes(_request: web.Request) -> web.Response:
        return web.json_response(actions.nodes())

    async def described(_request: web.Request) -> web.Response:
        return web.json_response(openapi())

    app.router.add_put("/v1/blobs/{digest}", put_blob)
    app.router.add_get("/v1/blobs/{digest}", get_blob)
    app.router.add_post("/v1/runs", submit)
    app.router.add_get("/v1/runs/{run}", status)
    app.router.add_get("/v1/runs/{run}/events", timeline)
    app.router.add_get("/v1/nodes", nodes)
    app.router.add_get("/openapi.json", described)
    return app


def _spec(data: bytes) -> RunSpec:
    try:
        return msgspec.json.decode(data, type=RunSpec)
    except UNREADABLE as error:
        raise UserError(f"this is no run: {error}", "Compare with docs/reference/api.md.") from error


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise UserError("`after` is no number of events", "Compare with docs/reference/api.md.")
    return int(text)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _only_operators(request: web.Request, handler: Handler) -> web.StreamResponse:
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    if not certificate or identity_of(certificate).role != "operator":
        names = certificate.get("subjectAltName", ()) if certificate else ()
        log.warning("refused %s to %s %s", names, request.method, request.path)
        error = PermissionDenied("this API is for certificates of role operator")
        return web.json_response(error_body(error), status=403)
    return await handler(request)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (BlobNotFound, RunNotFound) as error:
        return web.json_response(error_body(error), status=404)
    except ReunaError as error:
        return web.json_response(error_body(error), status=422)


def error_body(error: ReunaError) -> dict[str, str]:
    """An error as the client raises it again."""
    return {"code": error.code, "message": error.message, "next_step": error.next_step}
